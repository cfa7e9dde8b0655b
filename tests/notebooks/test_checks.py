"""Each check accepts the library's own result, leaves a stub unanswered, and names the mistake in a wrong answer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import checks
from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.splits import make_splits
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.method.clustering import adjoint_mask, fuse, masked_prototype
from ncdss_lib.method.entropy_ranking import entropy_map, region_entropy, split_clean
from ncdss_lib.method.eums import ramp_up
from ncdss_lib.method.mean_teacher import hard_pseudo_labels
from ncdss_lib.method.metrics import iou_per_class, score, score_held_out
from ncdss_lib.viz import examples, results
from tests.conftest import opened

TREND = ("rises", "falls", "stays")


def renumber(mask, base, novel, hide, order=None, ignored=255):
    """Contiguous ids by looking each id up in a list."""
    ids = [0, *(order or [*base, *novel])]
    table = {i: 0 if hide and i in novel else position for position, i in enumerate(ids)} | {255: ignored}
    return np.vectorize(table.get)(mask)


def upsampled_prototype(features, mask, mode="bilinear"):
    upsampled = F.interpolate(features[None], mask.shape, mode=mode)[0]
    return F.normalize((upsampled * mask).sum((1, 2)), dim=0)


def plain_iou(counts):
    return counts / (counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts)


def first_rank(entropy, share, descending=False):
    order = np.argsort(-entropy if descending else entropy, kind="stable")
    clean = np.zeros(len(entropy), bool)
    clean[order[: int(len(entropy) * share)]] = True
    return clean & np.isfinite(entropy)


def below_cut(entropy, share):
    return entropy <= np.sort(entropy)[int(len(entropy) * share) - 1]


def probabilities(logits):
    return logits.softmax(1)


def one_after_another(mask, replaced):
    mask = mask.copy()
    for old, new in replaced:
        mask[mask == old] = new
    return mask


def held_out(halves, labels, other=True):
    first = 1 + labels.num_base
    table = np.zeros((len(labels.names),) * 2)
    for half in (0, 1):
        matched = match_clusters(halves[1 - half if other else half], labels, "published")
        table[:, :first] += halves[half][:, :first]
        np.add.at(table.T, matched, halves[half][:, first:].T)
    return np.nanmean(iou_per_class(table)[first:])


#: check -> (right answers, wrong answers with a part of the message)
IMPLEMENT = {
    checks.check_to_contiguous: (
        [renumber],
        [
            (lambda m, b, n, h: renumber(m, b, n, h, sorted([*b, *n])), "still the original ids"),
            (lambda m, b, n, h: renumber(m, b, n, False), "hide_novel"),
            (lambda m, b, n, h: renumber(m, b, n, h, ignored=0), "255 is no class"),
            (lambda m, b, n, h: one_after_another(m, zip([*b, *n], range(1, 6), strict=True)), "as it was given"),
        ],
    ),
    checks.check_cross_entropy: (
        [lambda a, y: F.cross_entropy(a, y, ignore_index=255) if (y != 255).any() else torch.tensor(0.0)],
        [
            (lambda a, y: F.cross_entropy(a, y, ignore_index=255, reduction="sum") / y.numel(), "ignored ones too"),
            (lambda a, y: F.cross_entropy(a, y, ignore_index=255, reduction="sum"), "did not divide"),
            (lambda a, y: F.cross_entropy(a, y, ignore_index=255), "not 0/0"),
            (lambda a, y: F.cross_entropy(a, y), "yours raised IndexError: .* Leave out the pixels of 255"),
            (lambda a, y: -F.cross_entropy(a, y, ignore_index=255), "sign"),
        ],
    ),
    checks.check_novel_mask: (
        [
            lambda a, s, tau: s & ~((a.argmax(1) > 0) & (probabilities(a).amax(1) > tau)),
            lambda a, s, tau: s & (confident_base(a, tau) == 0),
        ],
        [
            (lambda a, s, tau: s & ~(probabilities(a).amax(1) > tau), "Background is no base class"),
            (lambda a, s, tau: s & ~((a.argmax(1) > 0) & (probabilities(a).amax(1) >= tau)), "Strictly greater"),
            (lambda a, s, tau: confident_base(a, tau) == 0, "saliency map"),
            (lambda a, s, tau: s & (confident_base(a, tau) > 0), "other part"),
        ],
    ),
    checks.check_prototype: (
        [upsampled_prototype, lambda f, m: masked_prototype(f[None], torch.from_numpy(adjoint_mask(m.numpy(), *f.shape[1:]))[None])[0]],
        [
            (lambda f, m: (F.interpolate(f[None], m.shape, mode="bilinear")[0] * m).sum((1, 2)), "divide by the length"),
            (lambda f, m: (F.interpolate(f[None], m.shape, mode="bilinear")[0] * m).sum((1, 2)) / m.sum(), "took the mean"),
            (lambda f, m: F.normalize(f.sum((1, 2)), dim=0), "whole image"),
            (lambda f, m: F.normalize((f * torch.from_numpy(resize_labels(m.numpy(), f.shape[1:]))).sum((1, 2)), dim=0), "picking pixels"),
        ],
    ),
    checks.check_fuse: (
        [lambda b, n, k, B: np.where(b > 0, b, np.where(n, B + k, 0)), fuse],
        [
            (lambda b, n, k, B: np.where(n, B + k, b), "base classes come first"),
            (lambda b, n, k, B: np.where(b > 0, b, n * k), "label B \\+ k"),
            (lambda b, n, k, B: np.where(b > 0, b, n * (B + k - 1)), "not B \\+ k - 1"),
        ],
    ),
    checks.check_iou: (
        [lambda c: np.diag(plain_iou(c)), iou_per_class],
        [
            (lambda c: np.diag(c) / c.sum(1), "recall"),
            (lambda c: np.diag(c) / c.sum(0), "precision"),
            (lambda c: np.diag(c) / (c.sum(0) + c.sum(1)), "twice"),
            (lambda c: np.nan_to_num(iou_per_class(c)), "NaN rather than 0"),
        ],
    ),
    checks.check_many_to_one: (
        [lambda c: plain_iou(c).argmax(0)],
        [
            (lambda c: c.argmax(0), "majority"),
            (lambda c: (c / c.sum(1, keepdims=True)).argmax(0), "by its union"),
            (lambda c: plain_iou(c).argmax(1), "other axis"),
        ],
    ),
    checks.check_entropy_map: (
        [entropy_map, lambda a: torch.distributions.Categorical(logits=a.movedim(1, -1)).entropy() / math.log(a.shape[1])],
        [
            (lambda a: torch.distributions.Categorical(logits=a.movedim(1, -1)).entropy(), "divide by log C"),
            (lambda a: entropy_map(a) * math.log2(a.shape[1]), "divide by log2 C"),
            (lambda a: -(probabilities(a) * probabilities(a).log()).sum(1) / math.log(a.shape[1]), "NaN"),
            (lambda a: -(probabilities(a) * a.log_softmax(1)).mean(1) / math.log(a.shape[1]), "the sum is meant"),
            (lambda a: entropy_map(a)[0], "shape"),
        ],
    ),
    checks.check_region_entropy: (
        [region_entropy],
        [
            (lambda a, r: entropy_map(a).mean((1, 2)), "whole image"),
            (lambda a, r: (entropy_map(a) * r).sum((1, 2)), "large objects"),
            (lambda a, r: (entropy_map(a) * r).mean((1, 2)), "number of all pixels"),
            (lambda a, r: (entropy_map(a) * r).sum((1, 2)) / r.sum((1, 2)), "infinity"),
        ],
    ),
    checks.check_split_clean: (
        [first_rank, lambda s, share: split_clean(s, np.zeros(len(s)), share, "dataset")],
        [
            (lambda s, share: first_rank(s, share, descending=True), "ascending"),
            (lambda s, share: first_rank(s, math.ceil(len(s) * share) / len(s) + 1e-9), "rounded up"),
            (below_cut, "stable"),
            (lambda s, share: s.argsort(kind="stable").argsort() < int(len(s) * share), "never clean"),
        ],
    ),
    checks.check_ramp_up: (
        [ramp_up],
        [
            (lambda e, length: min(e / length, 1), "not linearly"),
            (lambda e, length: math.exp(-5 * (1 - min(e / length, 1))), "Square"),
            (lambda e, length: math.exp(-5 * (1 - e / length) ** 2), "After the ramp"),
            (lambda e, length: math.exp(-5 * (min(e, length) / length) ** 2), "grows"),
            (lambda e, length: math.exp(-5 * (1 - min(e, length) / length) ** 2), "ZeroDivisionError: .* do not divide by 0"),
        ],
    ),
    checks.check_ema_update: (
        [lambda t, s, alpha: alpha * t + (1 - alpha) * s],
        [
            (lambda t, s, alpha: alpha * s + (1 - alpha) * t, "swapped"),
            (lambda t, s, alpha: s, "That is the student"),
            (lambda t, s, alpha: t, "old teacher"),
        ],
    ),
    checks.check_hard_pseudo_labels: (
        [hard_pseudo_labels],
        [
            (lambda a, tau: torch.where(probabilities(a).amax(1) <= tau, 255, a.argmax(1)), "below"),
            (lambda a, tau: torch.where(probabilities(a).amax(1) < tau, 0, a.argmax(1)), "not background"),
            (lambda a, tau: a.argmax(1), "confidence"),
        ],
    ),
    checks.check_held_out: (
        [held_out, lambda halves, labels: score_held_out(halves, labels).novel_miou],
        [
            (lambda halves, labels: held_out(halves, labels, other=False), "on itself"),
            (lambda halves, labels: score(halves.sum(0), labels).novel_miou, "on all images"),
            (lambda halves, labels: score_held_out(halves, labels).all_miou, "all classes"),
        ],
    ),
    checks.check_names: (
        [lambda p, classes, base: np.array([*range(base + 1), *classes, *[255] * 256])[p].clip(0, 255), results.to_classes],
        [
            (lambda p, classes, base: p, "changed nothing"),
            (lambda p, classes, base: one_after_another(p, enumerate(classes, base + 1)), "as it was given"),
            (lambda p, classes, base: np.array([*range(base + 1), *np.roll(classes, 1), *[255] * 256])[p], "off by one"),
            (lambda p, classes, base: np.array([*range(base + 1), *classes, *[0] * 256])[p], "255 stays 255"),
        ],
    ),
}
RIGHT = [(check, function) for check, (right, _) in IMPLEMENT.items() for function in right]
WRONG = [(check, function, message) for check, (_, wrong) in IMPLEMENT.items() for function, message in wrong]


@pytest.mark.parametrize(("check", "function"), RIGHT, ids=lambda value: value.__name__)
def test_a_right_function_is_right(check, function):
    assert check(function).data.startswith("**Right:**")


@pytest.mark.parametrize(("check", "function", "message"), WRONG, ids=lambda value: value if isinstance(value, str) else value.__name__)
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")
def test_a_wrong_function_is_told_why(check, function, message):
    with pytest.raises(AssertionError, match=message):
        check(function)


@pytest.mark.parametrize("check", IMPLEMENT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("nothing", [None, ...])
def test_a_stub_is_not_answered_yet(check, nothing):
    def my_answer(*arguments):
        return nothing

    reply = check(my_answer).data
    assert reply.startswith("**Not answered yet:**")
    assert "my_answer" in reply


def test_arguments_are_not_shared_with_the_readers_function():
    def spoils(teacher, student, alpha):
        return teacher.mul_(alpha).add_((1 - alpha) * student)

    assert checks.check_ema_update(spoils).data.startswith("**Right:**")


def test_a_difference_names_the_place_and_the_values():
    assert checks.difference(np.array([1.0, 2, 3]), torch.tensor([1.0, 2, 4])) == "yours gave 3 at [2], expected 4 (1 of 3 values differ)"
    assert checks.difference(np.zeros(3), np.zeros((1, 3))) == "yours has the shape [3], expected [1, 3]"
    assert checks.difference("word", 1.0) == "yours is a str, expected a number"
    assert checks.difference("word", np.zeros(3)) == "yours is a str, expected numbers of shape [3]"
    assert checks.difference(math.nan, math.nan) is None


#: check -> (right numbers, wrong numbers with a part of the message)
COMPUTE = {
    checks.check_contiguous_ids: (
        ([0, 3, 17, 255], [0, 3, 0, 255]),
        [(([0, 3, 7, 255], [0, 3, 0, 255]), "original ids"), (([0, 3, 17, 255], [0, 3, 17, 255]), "hidden"), (([0, 3, 17], [0]), "shape")],
    ),
    checks.check_pixel_weights: ((3, 1), [((1 / 3, 1), "other way round"), ((3, 3), "joint")]),
    checks.check_two_clusters: (
        (1, 0.6, 0),
        [((0.6, 0.6, 0), "merged"), ((1, 1, 0), "Only one cluster"), ((1, 0.6, math.nan), "mean")],
    ),
    checks.check_left_of_start: ((0.99**20,), [((1 - 0.99**20,), "student has added"), ((0.8,), "multiply")]),
    checks.check_mean_gain: ((50 / 21,), [((2.5,), "Background"), ((10,), "gain nothing")]),
}


@pytest.mark.parametrize(("check", "answers"), COMPUTE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_numbers_are_checked(check, answers):
    right, wrong = answers
    assert check(*right).data.startswith("**Right:**")
    assert check(*[None] * len(right)).data.startswith("**Not answered yet:**")
    assert check(*right[:-1], None).data.startswith("**Not answered yet:**")
    for numbers, message in wrong:
        with pytest.raises(AssertionError, match=message):
            check(*numbers)


def test_the_lists_of_an_image_are_those_of_the_library():
    assert checks.check_lists({"novel", "base_train"}, {"novel"}).data.startswith("**Right:**")
    assert checks.check_lists(None, {"novel"}).data.startswith("**Not answered yet:**")
    for published, strict, message in (
        ({"novel", "base", "base_train"}, {"novel"}, "it is not in 'base'"),
        ({"novel"}, {"novel"}, "also in 'base_train'"),
        ({"novel", "base_train"}, {"novel", "base_train"}, "strict: it is not in 'base_train'"),
        ({"training"}, {"novel"}, "no list 'training'"),
    ):
        with pytest.raises(AssertionError, match=message):
            checks.check_lists(published, strict)


def one_answer(check, options):
    """The only word that a check accepts; each of the others must be refused with the answer, which is told with its evidence."""
    assert check(None).data.startswith("**Not answered yet:**")
    with pytest.raises(AssertionError, match="not one of the words"):
        check("perhaps")
    replies = {}
    for option in options:
        try:
            replies[option] = check(option).data
        except AssertionError as error:
            replies[option] = str(error)
    accepted = [option for option, reply in replies.items() if reply.startswith("**Right:**")]
    assert all(f'You predicted "{option}"' in reply for option, reply in replies.items() if option not in accepted)
    (word,) = accepted
    return word


def test_predictions_without_a_run():
    assert one_answer(checks.check_two_equal, TREND) == "falls"
    assert one_answer(checks.check_same_ruler, ("hungarian", "argmax_iou", "majority")) == "hungarian"


def test_predictions_from_a_confusion_matrix():
    labels, confusion = LabelSpace(("a", "b", "c"), (2, 3)), np.diag([900, 40, 30, 0])
    confusion[3, 0] = 60
    assert one_answer(lambda word: checks.check_order_of_clusters(confusion, labels, word), TREND) == "stays"
    assert one_answer(lambda word: checks.check_accuracy(confusion, labels, word), ("higher", "lower", "equal")) == "higher"
    spread = np.diag([0, 40, 30, 60])
    assert one_answer(lambda word: checks.check_accuracy(spread, labels, word), ("higher", "lower", "equal")) == "equal"


@pytest.fixture
def run(finished, voc):
    return opened(voc, finished["laptop"])


def test_predictions_from_a_run(run):
    published, strict = (len(make_splits(run.data, run.labels, base_list=name).base_train) for name in ("published", "strict"))
    word = one_answer(lambda word: checks.check_base_training_list(run, word), ("longer", "shorter", "as long"))
    assert word == ("longer" if strict > published else "shorter" if strict < published else "as long")
    kept = results.history(run, "eums")["kept"]
    word = one_answer(lambda word: checks.check_kept(run, word), TREND)
    assert word == ("rises" if kept.iloc[-1] > kept.iloc[0] else "falls" if kept.iloc[-1] < kept.iloc[0] else "stays")
    ids = run.splits.novel[:4]
    assert one_answer(lambda word: checks.check_higher_threshold(run, ids, word), ("grow", "shrink", "stay")) != "shrink"
    one_answer(lambda word: checks.check_swallowed(run, ids, word), ("novel", "background", "equal"))
    one_answer(lambda word: checks.check_unnamed(run, word), ("zero", "nothing", "a number"))


def test_the_swallowed_pixels_are_those_of_the_network(run, monkeypatch):
    def certain(run, model, ids):  # of base class 1, wherever the truth is novel
        found = {}
        for i in ids:
            truth = resize_labels(run.truth(i), 32)
            found[i] = torch.zeros(1 + run.labels.num_base, 32, 32)
            found[i][1] = 50 * torch.from_numpy((truth > run.labels.num_base) & (truth != 255))
        return found

    monkeypatch.setattr(results, "logits_of", certain)
    ids = examples.novel(run, 3)
    assert "100.0 % of the novel pixels and 0.0 % of the background" in checks.check_swallowed(run, ids, "novel").data
    with pytest.raises(AssertionError, match='the answer is "novel"'):
        checks.check_swallowed(run, ids, "background")


def test_a_greater_clean_share_follows_the_ranking(run):
    ranking = pd.DataFrame({"entropy": [0.1, 0.2, 0.3, 0.4], "cluster": 1, "pixels": 10, "right": [10, 10, 10, 0]})
    run = run.with_settings("entropy_ranking", clean_share=0.5)
    assert one_answer(lambda word: checks.check_greater_share(run, ranking, 1.0, word), TREND) == "falls"
    assert one_answer(lambda word: checks.check_greater_share(run, ranking[::-1].assign(right=10), 1.0, word), TREND) == "stays"


def test_numbers_from_a_run(run):
    assert checks.check_clusters(run, run.clusters["eums"]).data.startswith("**Right:**")
    with pytest.raises(AssertionError, match="over-clustered"):
        checks.check_clusters(run, run.labels.num_novel)
    report = {"models": {"basic": {"per_class": {"background": 0.5}}}}
    assert checks.check_background_iou(report, "basic", 0.5).data.startswith("**Right:**")
    with pytest.raises(AssertionError, match="fractions"):
        checks.check_background_iou(report, "basic", 50.0)
    mask = np.zeros((20, 20), bool)
    mask[2:9, 3:5] = True
    assert checks.check_adjoint_sum(mask, 14).data.startswith("**Right:**")
    with pytest.raises(AssertionError, match="mean"):
        checks.check_adjoint_sum(mask, 14 / 400)
