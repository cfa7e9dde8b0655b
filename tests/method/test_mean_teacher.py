"""The mean teacher: averages in closed form, buffers in three ways, hard pseudo-labels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ncdss_lib.method.mean_teacher import ema_update, hard_pseudo_labels, make_teacher, settle_disputes


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module[1].running_mean.normal_()
    module[1].num_batches_tracked.fill_(seed)
    return module


def test_after_n_steps_the_teacher_is_the_closed_form():
    """teacher_n = m^n teacher_0 + (1 - m) sum_i m^(n-i) student_i, in float64."""
    momentum, steps = 0.9, 12
    teacher, students = network(0).double(), [network(i + 1).double() for i in range(steps)]
    start = copy.deepcopy(teacher.state_dict())
    for student in students:
        ema_update(teacher, student, momentum, "average")
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        expected = momentum**steps * start[name]
        for i, student in enumerate(students, 1):
            expected = expected + (1 - momentum) * momentum ** (steps - i) * student.state_dict()[name]
        torch.testing.assert_close(teacher.state_dict()[name], expected)


@pytest.mark.parametrize(("momentum", "which"), [(1.0, "teacher"), (0.0, "student")])
def test_the_ends_of_the_momentum(momentum, which):
    teacher, student = network(0), network(1)
    expected = copy.deepcopy((teacher if which == "teacher" else student).state_dict())
    ema_update(teacher, student, momentum, "own")
    torch.testing.assert_close(teacher[0].weight.detach(), expected["0.weight"], rtol=0, atol=1e-7)


def test_buffers_own_copied_or_averaged():
    student = network(7)
    start = network(3)
    for buffers in ("own", "copy", "average"):
        teacher = network(3)
        ema_update(teacher, student, 0.75, buffers)
        mean, count = teacher[1].running_mean, int(teacher[1].num_batches_tracked)
        mine, its = start[1].running_mean, student[1].running_mean
        torch.testing.assert_close(mean, {"own": mine, "copy": its, "average": 0.75 * mine + 0.25 * its}[buffers])
        assert count == {"own": 3, "copy": 7, "average": 7}[buffers]  # a count is copied, not averaged
        torch.testing.assert_close(teacher[0].weight, 0.75 * start[0].weight + 0.25 * student[0].weight)  # parameters always


def test_the_update_leaves_the_student_alone_and_needs_no_gradient():
    teacher, student = make_teacher(network(0)), network(1)
    before = copy.deepcopy(student.state_dict())
    ema_update(teacher, student, 0.5, "average")
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_a_teacher_is_a_copy_of_the_student_or_of_another():
    student, other = network(0), network(1)
    for teacher, model in ((make_teacher(student), student), (make_teacher(student, other), other)):
        torch.testing.assert_close(teacher[0].weight.detach(), model[0].weight.detach(), rtol=0, atol=0)
        assert teacher[0].weight is not model[0].weight


def test_networks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="argument 2"):
        ema_update(network(0), nn.Conv2d(3, 4, 1), 0.9, "own")


def test_hard_pseudo_labels_and_the_threshold():
    """Two classes: probabilities .5 exactly, about .73 and .88."""
    logits = torch.tensor([[[[0.0, 0.0, 2.0]], [[0.0, 1.0, 0.0]]]])
    assert hard_pseudo_labels(logits, 0.0).tolist() == [[[0, 1, 0]]]
    assert hard_pseudo_labels(logits, 0.5).tolist() == [[[0, 1, 0]]]  # only those *below* are ignored
    assert hard_pseudo_labels(logits, 0.6).tolist() == [[[255, 1, 0]]]
    assert hard_pseudo_labels(logits, 0.8).tolist() == [[[255, 255, 0]]]
    assert hard_pseudo_labels(logits, 0.9).tolist() == [[[255, 255, 255]]]
    assert hard_pseudo_labels(logits, 0.6).dtype == torch.int64


# --- disputes -----------------------------------------------------------------------------------------------------------------------------

# Pixels: the teacher agrees, denies surely, denies unsurely, and one that is ignored anyway. Two classes.
TARGET = torch.tensor([[[0, 0, 0, 255]]])
PROBABILITY_OF_1 = torch.tensor([[[0.1, 0.9, 0.6, 0.9]]])
LOGITS = torch.stack([1 - PROBABILITY_OF_1, PROBABILITY_OF_1], 1).log()


@pytest.mark.parametrize(("disputed", "expected"), [("keep", [0, 0, 0, 255]), ("ignore", [0, 255, 0, 255]), ("relabel", [0, 1, 0, 255])])
def test_only_a_confident_teacher_disputes_a_pseudo_label(disputed, expected):
    assert settle_disputes(TARGET, LOGITS, 0.7, disputed).flatten().tolist() == expected
    assert TARGET.flatten().tolist() == [0, 0, 0, 255]


def test_with_confidence_zero_every_other_opinion_is_a_dispute():
    assert settle_disputes(TARGET, LOGITS, 0.0, "relabel").flatten().tolist() == [0, 1, 1, 255]
