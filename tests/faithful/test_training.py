"""Losses, schedules and steps, as published; whole trainings are repeated plainly in ``test_end_to_end``."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ncdss_lib.data.loading import Source
from ncdss_lib.method.basic_framework import supervised_step
from ncdss_lib.method.eums import eums_step, ramp_up
from ncdss_lib.method.training_loop import fit, learning_rate_factor, pixel_cross_entropy
from ncdss_lib.recipes import Compute, Recipe, load_recipe
from ncdss_lib.system.distributed import Runtime
from tests.faithful.plain import training as published

PAPER = Recipe()


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    return SimpleNamespace(runtime=Runtime("cpu", Compute(precision="fp32")), recipe=PAPER.model_copy())


def labels_and_logits(seed: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, channels, (2, 6, 6))
    labels[rng.random(labels.shape) < 0.2] = 255
    return torch.from_numpy(rng.normal(scale=3, size=(2, channels, 6, 6))), torch.from_numpy(labels)


# --- losses -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy(seed):
    """Pixel by pixel in float64; ours in float32: to 1e-6 of the value."""
    logits, labels = labels_and_logits(seed, 16)
    expected = published.cross_entropy_of_pixels(logits.numpy(), labels.numpy())
    assert pixel_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert published.cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_the_basic_loss_is_the_mean_of_both_domains():
    """Each domain is averaged over its own pixels first, however many are ignored in it."""
    (base_logits, base), (novel_logits, novel) = labels_and_logits(0, 26), labels_and_logits(1, 26)
    novel[0] = 255
    batches = {"base": {"x": base_logits, "y": base}, "novel": {"x": novel_logits, "y": novel}}
    found = supervised_step(lambda x: x, batches)
    parts = [published.cross_entropy_of_pixels(b["x"].numpy(), b["y"].numpy()) for b in batches.values()]
    assert [found["base"].item(), found["novel"].item()] == pytest.approx(parts, rel=1e-6)
    assert found["loss"].item() == pytest.approx(sum(parts) / 2, rel=1e-6)


class Told(nn.Module):
    """A network that gives its input as logits, and notes in which order and mode it was asked."""

    def __init__(self, name: str, asked: list[tuple[str, bool, float]]) -> None:
        super().__init__()
        self.name, self.asked = name, asked
        self.weight = nn.Parameter(torch.tensor(1.0 if name == "student" else 3.0))
        self.register_buffer("statistic", torch.tensor(1.0 if name == "student" else 3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append((self.name, self.training, round(self.weight.item(), 6)))
        return x * self.weight / self.weight.detach()


@pytest.mark.parametrize("epoch", [0, 2, 5, 29])
def test_the_eums_loss_its_order_and_the_teachers_mode(epoch):
    """The student three times; the parameters' average (3 becomes 2.98), not the buffers'; then the teacher, in training mode.

    Parts of the loss pixel by pixel in float64, to 1e-6. No pixel is left out: the threshold is 0.
    """
    inputs = {name: labels_and_logits(seed, 26) for seed, name in enumerate(("base", "clean", "strong", "weak"))}
    batches = {name: {"x": inputs[name][0], "y": inputs[name][1]} for name in ("base", "clean")}
    batches["unclean"] = {"weak": inputs["weak"][0], "strong": inputs["strong"][0]}
    asked: list[tuple[str, bool, float]] = []
    student, teacher = Told("student", asked).train(), Told("teacher", asked).eval()
    found = eums_step(student, teacher, batches, ramp_up(epoch, PAPER.eums.ramp_up_epochs, PAPER.eums.max_weight), PAPER.eums)

    assert asked == [("student", True, 1.0)] * 3 + [("teacher", True, 2.98)]
    assert teacher.statistic.item() == 3.0
    taught = inputs["weak"][0].argmax(1).numpy()
    base, clean = (published.cross_entropy_of_pixels(inputs[n][0].numpy(), inputs[n][1].numpy()) for n in ("base", "clean"))
    unclean = published.cross_entropy_of_pixels(inputs["strong"][0].numpy(), taught)
    assert [found[n].item() for n in ("base", "clean", "unclean")] == pytest.approx([base, clean, unclean], rel=1e-6)
    assert found["loss"].item() == pytest.approx((base + clean) / 2 + published.ramp_up(epoch) * unclean, rel=1e-6)
    assert found["kept"].item() == 1.0


# --- schedules --------------------------------------------------------------------------------------------------------------------------


def test_the_self_training_weight():
    found = [ramp_up(epoch, PAPER.eums.ramp_up_epochs, PAPER.eums.max_weight) for epoch in range(30)]
    assert found == pytest.approx([published.ramp_up(epoch) for epoch in range(30)], rel=1e-12)
    assert [round(weight, 4) for weight in found[:6]] == [0.0067, 0.0408, 0.1653, 0.4493, 0.8187, 1.0]


@pytest.mark.parametrize("dataset", ["pascal5i", "coco20i"])
@pytest.mark.parametrize(("stage", "milestones"), [("base_training", (25, 15)), ("basic_framework", (15, 15)), ("eums", (15, 15))])
def test_the_learning_rate_drops_in_the_epoch_after_the_milestone(dataset, stage, milestones):
    config = getattr(load_recipe("paper", dataset=dataset), stage)
    milestone = milestones[dataset == "coco20i"]
    for epoch in range(config.epochs):
        found = config.lr * learning_rate_factor(config, epoch, progress=epoch / config.epochs)
        assert found == pytest.approx(published.learning_rate(epoch, [milestone]))
    assert config.lr * learning_rate_factor(config, milestone + 1, 0.0) == pytest.approx(0.01)


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1)


class NoViews:
    size, channels = 1, (1,)

    def __init__(self) -> None:
        self.shown: dict[tuple[str, int], list[str]] = {}

    def train_loader(self, sources):
        return self.load

    def load(self, steps, seed, epoch):
        for name in steps[0]:
            self.shown[name, epoch] = [i for step in steps for i in step[name]]
        return ({} for _ in steps)


@pytest.mark.parametrize(("lengths", "steps"), [((5040, 5542), 630), ((7746, 2836), 354), ((23, 17, 40), 2), ((8, 8), 1)])
def test_an_epoch_ends_with_the_shortest_list_and_drops_its_last_batch(run, tmp_path, lengths, steps):
    """Exact: min(len // 8) steps, as 354 and 630 of folds 0 and 2; no image twice in an epoch; another order in the next one."""
    config = PAPER.basic_framework.model_copy(update={"epochs": 2, "track_best": False, "select": "last"})
    sources = [Source(f"list{n}", [f"{n}/{i}" for i in range(length)], None, config.batch_size) for n, length in enumerate(lengths)]
    views = NoViews()
    toy = SimpleNamespace(runtime=run.runtime, recipe=PAPER, views=views, seed=0)
    fit(toy, "toy", OneNumber(), sources, lambda model, batches, epoch: {"loss": model.head.weight.sum()}, config, tmp_path)  # type: ignore[arg-type]
    for source in sources:
        first, second = views.shown[source.name, 0], views.shown[source.name, 1]
        assert len(first) == len(set(first)) == steps * 8
        assert set(first) <= set(source.ids)
        assert first != second
