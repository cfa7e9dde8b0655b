"""Exercises that answer: one check for each exercise of the notebooks.

A check takes what the reader wrote: a function, numbers, or a predicted word. Its reply is a
sentence, "Not answered yet" or "Right". A wrong answer raises AssertionError, which says in which
case, what was given and expected, and which mistake would explain it.

What an answer is compared with is never written here: it comes from the library's own function, or
from the run. A likely mistake is that function too, with an argument changed or its result spoilt.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch import Tensor, nn

from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.splits import make_splits
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.cluster_matching import UNMATCHED, match_clusters, merge_clusters
from ncdss_lib.method.clustering import adjoint_mask, fuse, masked_prototype
from ncdss_lib.method.entropy_ranking import entropy_map, region_entropy, split_clean
from ncdss_lib.method.eums import ramp_up
from ncdss_lib.method.mean_teacher import ema_update, hard_pseudo_labels
from ncdss_lib.method.metrics import iou_per_class, score, score_held_out, score_matched
from ncdss_lib.method.refinement import gate
from ncdss_lib.method.training_loop import pixel_cross_entropy
from ncdss_lib.viz import percent, results

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

Function = Callable[..., Any]
TREND = ("rises", "falls", "stays")
IN_PLACE = (
    "Look every label up in the array as it was given: what has been replaced must not be replaced "
    "again."
)


@dataclass(frozen=True)
class Case:
    """Arguments on which two functions are compared, and what to say where they differ for no known
    reason.
    """

    name: str
    arguments: tuple[Any, ...]
    hint: str = ""


# What all checks share


def difference(given: Any, expected: Any) -> str | None:
    """Where two numbers or arrays differ by more than rounding, in words; None where they agree.
    NaN agrees with NaN.
    """
    mine = _array(given)
    right = _array(expected)
    assert right is not None
    if mine is None:
        wanted = f"numbers of shape {_shape(right)}" if right.ndim else "a number"
        return f"yours is a {type(given).__name__}, expected {wanted}"
    if mine.shape != right.shape:
        return f"yours has the shape {_shape(mine)}, expected {_shape(right)}"
    wrong = np.argwhere(~np.isclose(mine, right, rtol=1e-4, atol=1e-6, equal_nan=True))
    if not len(wrong):
        return None
    first = tuple(wrong[0].tolist())
    place = f" at [{', '.join(map(str, first))}]" if first else ""
    count = f" ({len(wrong)} of {mine.size} values differ)" if mine.size > 1 else ""
    return f"yours gave {mine[first]:.6g}{place}, expected {right[first]:.6g}{count}"


def check_function(
    mine: Function,
    core: Function,
    cases: Sequence[Case],
    mistakes: Mapping[str, Function],
    right: str,
) -> Markdown:
    """Compare the reader's function with the library's on all cases.

    Args:
        mistakes: hint -> a function that makes this mistake; the hint is given where the
            reader's results so far are that function's.
        right: what to say when all cases agree.

    Raises:
        AssertionError: a result differs, or the reader's function raises.
    """
    likely = dict(mistakes)  # those that explain all results so far
    for case in cases:
        try:
            given = mine(*copy.deepcopy(case.arguments))
        except Exception as error:
            raise AssertionError(
                f"{case.name}: yours raised {type(error).__name__}: {error}. {case.hint}".rstrip()
            ) from error
        if _is_open(given):
            return _not_answered(
                f"`{mine.__name__}` returns nothing. Replace its dots and run the cell again."
            )
        likely = {
            hint: spoilt
            for hint, spoilt in likely.items()
            if difference(given, spoilt(*copy.deepcopy(case.arguments))) is None
        }
        if wrong := difference(given, core(*copy.deepcopy(case.arguments))):
            raise AssertionError(f"{case.name}: {wrong}. {next(iter(likely), case.hint)}".rstrip())
    return _reply(
        "Right", f"{right} Your function agrees with the library's in {len(cases)} cases."
    )


def check_values(
    given: Mapping[str, Any],
    expected: Mapping[str, Any],
    mistakes: Mapping[str, Mapping[str, Any]],
    right: str,
) -> Markdown:
    """Compare numbers that the reader worked out, by name.

    Args:
        mistakes: name -> hint -> the value to which this mistake leads.

    Raises:
        AssertionError: a number differs.
    """
    missing = [name for name, value in given.items() if _is_open(value)]
    if missing:
        return _not_answered(
            f"set {' and '.join(f'`{name}`' for name in missing)}, then run the cell again."
        )
    for name, value in given.items():
        wrong = difference(value, expected[name])
        if wrong:
            likely = [
                hint
                for hint, spoilt in mistakes.get(name, {}).items()
                if difference(value, spoilt) is None
            ]
            raise AssertionError(f"{name}: {wrong}. {likely[0] if likely else ''}".rstrip())
    return _reply("Right", right)


def check_word(prediction: Any, options: Sequence[str], answer: str, evidence: str) -> Markdown:
    """Compare a predicted word with the one that was found.

    Raises:
        AssertionError: it is another, or none of the options.
    """
    words = ", ".join(f'"{option}"' for option in options)
    if _is_open(prediction):
        return _not_answered(f"choose one of {words}, then run the cell again.")
    if prediction not in options:
        raise AssertionError(f"{prediction!r} is not one of the words to choose from: {words}.")
    if prediction != answer:
        raise AssertionError(
            f'You predicted "{prediction}", but the answer is "{answer}". {evidence}'
        )
    return _reply("Right", evidence)


def _is_open(answer: Any) -> bool:
    return answer is None or answer is ...


def _not_answered(text: str) -> Markdown:
    return _reply("Not answered yet", text)


def _reply(word: str, text: str) -> Markdown:
    return Markdown(f"**{word}:** {text}")


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _shape(array: np.ndarray | None) -> str:
    return str(list(array.shape)) if array is not None and array.ndim else "of a single number"


def _trend(before: float, after: float) -> str:
    return "rises" if after > before else "falls" if after < before else "stays"


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# 01 The data


def check_lists(published: Any, strict: Any) -> Markdown:
    """Exercise 1.1. The lists of an image with a base and a novel object, for both values of
    ``data.base_list``; sets of names.
    """
    if _is_open(published) or _is_open(strict):
        return _not_answered(
            'set `published` and `strict` to sets of names, for example {"base", "val"}, then '
            "run the cell again."
        )
    presence = {"both": (1, 2), "base only": (1,), "novel only": (2,)}
    data = cast(
        SegmentationData,
        SimpleNamespace(
            name="three images", presence=lambda: presence, train_ids=[*presence], val_ids=[]
        ),
    )
    for name, given in {"published": published, "strict": strict}.items():
        splits = vars(make_splits(data, LabelSpace(("old", "new"), (2,)), base_list=name))
        expected = {key for key, ids in splits.items() if "both" in ids}
        if unknown := set(given) - splits.keys():
            raise AssertionError(
                f"{name}: there is no list {min(unknown)!r}. The four are {', '.join(splits)}."
            )
        if surplus := set(given) - expected:
            raise AssertionError(
                f"{name}: it is not in {min(surplus)!r}. Read the rule of that list in "
                "`make_splits` again."
            )
        if missing := expected - set(given):
            raise AssertionError(
                f"{name}: it is also in {min(missing)!r}, a list that you did not name."
            )
    return _reply("Right", "that is what `make_splits` does with such an image.")


def check_base_training_list(run: Run, prediction: Any) -> Markdown:
    """Exercise 1.2. Whether the list of base training becomes longer or shorter with ``strict``;
    from the images of the run.
    """
    sizes = {
        name: len(make_splits(run.data, run.labels, base_list=name).base_train)
        for name in ("published", "strict")
    }
    answer = {"rises": "longer", "falls": "shorter", "stays": "as long"}[_trend(*sizes.values())]
    evidence = (
        f"In this run the list has {sizes['published']} images with `published` and "
        f"{sizes['strict']} with `strict`."
    )
    return check_word(prediction, ("longer", "shorter", "as long"), answer, evidence)


def check_contiguous_ids(shown: Any, hidden: Any) -> Markdown:
    """Exercise 1.3. Contiguous ids of the original ids 0, 3, 7, 255, where classes 6 to 10 of 20
    are novel.
    """
    labels = LabelSpace(tuple(f"class {i}" for i in range(1, 21)), (6, 7, 8, 9, 10))
    ids = np.array([0, 3, 7, 255], np.uint8)
    right = {
        "shown": labels.to_contiguous(ids),
        "hidden": labels.to_contiguous(ids, hide_novel=True),
    }
    swallowed = np.where(ids == IGNORE, 0, right["hidden"])
    mistakes = {
        "shown": {"These are the original ids: base classes come first, then the novel ones.": ids},
        "hidden": {
            "255 is no novel class: it stays ignored.": swallowed,
            "Here the novel classes are hidden.": right["shown"],
        },
    }
    return check_values(
        {"shown": shown, "hidden": hidden},
        right,
        mistakes,
        "with `hide_novel`, what was novel is background.",
    )


def check_to_contiguous(mine: Function) -> Markdown:
    """Exercise 1.4. ``mine(mask, base_ids, novel_ids, hide_novel)``, as
    :meth:`LabelSpace.to_contiguous`.
    """

    def core(
        mask: np.ndarray, base_ids: Sequence[int], novel_ids: Sequence[int], hide_novel: bool
    ) -> np.ndarray:
        names = tuple(f"class {i}" for i in range(len(base_ids) + len(novel_ids)))
        return LabelSpace(names, tuple(novel_ids)).to_contiguous(mask, hide_novel=hide_novel)

    random = np.random.default_rng(1)
    mask = random.choice(np.array([0, 1, 2, 3, 4, 5, 255], np.uint8), (6, 7))
    cases = [
        Case("novel classes in the middle", (mask, (1, 4, 5), (2, 3), False), IN_PLACE),
        Case("novel classes first", (mask, (3, 4, 5), (1, 2), False)),
        Case(
            "novel classes hidden",
            (mask, (1, 4, 5), (2, 3), True),
            "Novel classes become background, 0.",
        ),
        Case(
            "a mask that is ignored everywhere",
            (np.full((2, 2), 255, np.uint8), (1, 2), (3,), True),
            "255 stays 255.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You did not look at `hide_novel`.": lambda mask, base, novel, hide: core(
            mask, base, novel, False
        ),
        "255 is no class: it stays 255.": lambda mask, *rest: np.where(
            mask == 255, 0, core(mask, *rest)
        ),
        "These are still the original ids.": lambda mask, *rest: mask,
        "Base classes come first, then the novel ones.": lambda mask, base, novel, hide: core(
            mask, novel, base, hide
        ),
    }
    return check_function(
        mine, core, cases, mistakes, "base first, then novel, and 255 is left alone."
    )


# 02 Base training


def check_swallowed(run: Run, ids: Sequence[str], prediction: Any) -> Markdown:
    """Exercise 2.1. Which pixels the base model takes for a base class more often, novel or
    background; from the run.
    """
    threshold = run.recipe.clustering.base_confidence
    counts = {"novel": [0, 0], "background": [0, 0]}
    for i, logits in results.logits_of(run, "base", ids).items():
        taken = confident_base(logits[None], threshold)[0].numpy() > 0
        truth = resize_labels(run.truth(i), taken.shape)
        for kind, where in {
            "novel": (truth > run.labels.num_base) & (truth != IGNORE),
            "background": truth == 0,
        }.items():
            counts[kind][0] += int(taken[where].sum())
            counts[kind][1] += int(where.sum())
    share = {kind: taken / pixels if pixels else 0.0 for kind, (taken, pixels) in counts.items()}
    answer = {"rises": "novel", "falls": "background", "stays": "equal"}[
        _trend(share["background"], share["novel"])
    ]
    shares = (
        f"{percent(share['novel'])} of the novel pixels and {percent(share['background'])} of the "
        "background"
    )
    return check_word(
        prediction,
        ("novel", "background", "equal"),
        answer,
        f"In these images, {shares} are taken for a base class, with τ = {threshold:g}.",
    )


def check_pixel_weights(own: Any, joint: Any) -> Markdown:
    """Exercise 2.2. Weight of a pixel of a process with 100 valid pixels over that of one with 300:
    own counts, and the library's.
    """

    def weight(valid: int, together: int, processes: int) -> float:
        logits = torch.zeros(1, 2, 20, 20, requires_grad=True)
        target = torch.full((1, 20, 20), IGNORE)
        target.view(-1)[:valid] = 1
        pixel_cross_entropy(logits, target, torch.tensor(together / processes)).backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    right = {
        "own": weight(100, 100, 1) / weight(300, 300, 1),
        "joint": weight(100, 400, 2) / weight(300, 400, 2),
    }
    mistakes = {
        "own": {
            "You divided the other way round: fewer pixels share the same weight.": 1 / right["own"]
        }
    }
    text = (
        "DDP averages the gradients, so each process must divide by the mean number of valid "
        "pixels, not by its own."
    )
    return check_values({"own": own, "joint": joint}, right, mistakes, text)


def check_cross_entropy(mine: Function) -> Markdown:
    """Exercise 2.3. ``mine(logits, target)``, as :func:`pixel_cross_entropy` in one process, logits
    of the target's size.
    """
    core = pixel_cross_entropy
    logits = torch.randn(2, 4, 5, 6, generator=_random(2))
    target = torch.randint(0, 4, (2, 5, 6), generator=_random(3))
    part = target.clone()
    part[:, :2] = 255
    cases = [
        Case("every pixel has a label", (logits, target)),
        Case(
            "some pixels are ignored",
            (logits, part),
            "Leave out the pixels of 255 before you take the mean.",
        ),
        Case(
            "large logits",
            (logits * 200, target),
            "Take `log_softmax`: the logarithm of a probability that was rounded to 0 is infinite.",
        ),
        Case(
            "every pixel is ignored",
            (logits, torch.full_like(target, 255)),
            "There is nothing to learn: the loss is 0, not 0/0.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You divided by the number of all pixels, ignored ones too.": lambda a, y: (
            core(a, y) * (y != 255).float().mean()
        ),
        "You summed, but did not divide by the number of pixels.": lambda a, y: (
            core(a, y) * (y != 255).sum()
        ),
        "The sign is wrong: logarithms of probabilities are negative.": lambda a, y: -core(a, y),
        "You took logarithms of base 2; the natural one is meant.": lambda a, y: (
            core(a, y) / math.log(2)
        ),
    }
    return check_function(
        mine, core, cases, mistakes, "the mean over the pixels that are not ignored."
    )


# 03 Clustering


def check_higher_threshold(run: Run, ids: Sequence[str], prediction: Any) -> Markdown:
    """Exercise 3.1. Whether the novel masks of some images grow when τ goes from 0.6 to 0.99; from
    the run.
    """
    area = {0.6: 0, 0.99: 0}
    for i, logits in results.logits_of(run, "base", ids).items():
        salient = run.data.saliency(i)
        for threshold in area:
            base = confident_base(logits[None], threshold)[0].numpy()
            area[threshold] += (
                0
                if salient is None
                else int((salient & (resize_labels(base, salient.shape) == 0)).sum())
            )
    evidence = (
        f"The masks of these {len(ids)} images have {area[0.6]} pixels at τ = 0.6 and {area[0.99]} "
        "at τ = 0.99."
    )
    answer = {"rises": "grow", "falls": "shrink", "stays": "stay"}[_trend(*area.values())]
    return check_word(prediction, ("grow", "shrink", "stay"), answer, evidence)


def check_adjoint_sum(mask: np.ndarray, total: Any) -> Markdown:
    """Exercise 3.2. The sum of ``adjoint_mask(mask, 7, 7)``."""
    right = adjoint_mask(mask, 7, 7).sum()
    pixels = mask.size
    mistakes = {
        "total": {
            "That is the mean; the weights are not divided by the number of pixels.": right / pixels
        }
    }
    text = (
        "each upsampled pixel is a mean of coarse ones with weights that sum to one, so its "
        "transpose moves weight and loses none."
    )
    return check_values({"total": total}, {"total": right}, mistakes, text)


def check_novel_mask(mine: Function) -> Markdown:
    """Exercise 3.3. ``mine(logits, salient, tau)``: the novel mask, salient and not
    :func:`confident_base`.
    """

    def core(logits: Tensor, salient: Tensor, tau: float) -> Tensor:
        return salient & (confident_base(logits, tau) == 0)

    def any_class(
        logits: Tensor, salient: Tensor, tau: float
    ) -> Tensor:  # a class is put before the background, so none is 0
        return core(torch.cat([torch.full_like(logits[:, :1], -1e4), logits], 1), salient, tau)

    logits = 3 * torch.randn(2, 4, 6, 6, generator=_random(4))
    salient = torch.rand(2, 6, 6, generator=_random(5)) > 0.4
    sure = torch.zeros(1, 3, 2, 2)
    sure[:, 0] = 20
    half = torch.zeros(1, 3, 2, 2)
    half[:, 0] = -1e4
    everywhere = torch.ones(1, 2, 2, dtype=torch.bool)
    cases = [
        Case("random logits", (logits, salient, 0.7)),
        Case(
            "certain of background",
            (sure, everywhere, 0.9),
            "Background is no base class: being sure of it takes nothing away.",
        ),
        Case(
            "a probability of exactly τ",
            (half, everywhere, 0.5),
            "Strictly greater is meant: a probability of exactly τ is not enough.",
        ),
        Case(
            "nothing is salient",
            (logits, torch.zeros_like(salient), 0.7),
            "What is not salient is never novel.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "Background is no base class: being sure of it takes nothing away.": any_class,
        "You did not look at the saliency map.": lambda logits, salient, tau: core(
            logits, torch.ones_like(salient), tau
        ),
        (
            "That is what is salient and confidently base: the other part."
        ): lambda logits, salient, tau: salient & ~core(logits, salient, tau),
        "You did not look at τ.": lambda logits, salient, tau: core(logits, salient, 0.0),
    }
    return check_function(
        mine, core, cases, mistakes, "salient, and no base class with a probability above τ."
    )


def check_prototype(mine: Function) -> Markdown:
    """Exercise 3.4. ``mine(features, mask)``, features [C, h, w] and mask [S, T], as
    :func:`masked_prototype` with :func:`adjoint_mask`.
    """

    def core(features: Tensor, mask: Tensor) -> Tensor:
        return masked_prototype(
            features[None], torch.from_numpy(adjoint_mask(mask.numpy(), *features.shape[1:]))[None]
        )[0]

    def shrunk(features: Tensor, mask: Tensor) -> Tensor:
        rows, columns = features.shape[1:]
        return masked_prototype(
            features[None], torch.from_numpy(resize_labels(mask.numpy(), (rows, columns)))[None]
        )[0]

    def unscaled(features: Tensor, mask: Tensor) -> Tensor:
        return torch.stack(
            [
                (channel.numpy() * adjoint_mask(mask.numpy(), *channel.shape)).sum()
                * torch.ones(())
                for channel in features
            ]
        )

    features = torch.rand(5, 4, 4, generator=_random(6))
    mask = torch.rand(32, 32, generator=_random(7)) > 0.7
    corner = torch.zeros(32, 32, dtype=torch.bool)
    corner[:9, :11] = True
    everywhere = (
        "Upsample the features to the size of the mask, sum them under it, divide by the length."
    )
    cases = [
        Case("a mask in a corner", (features, corner), everywhere),
        Case("scattered pixels", (features, mask), everywhere),
        Case(
            "an image that is not square",
            (features[:, :3], mask[:24]),
            "Height and width are in this order: features [C, h, w], mask [S, T].",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You did not divide by the length, so large objects have long vectors.": unscaled,
        "You took the mean, but did not divide by the length.": lambda f, m: (
            unscaled(f, m) / m.sum()
        ),
        "You looked at the whole image rather than at the mask.": lambda f, m: core(
            f, torch.ones_like(m)
        ),
        (
            "You shrank the mask to the features by picking pixels. Upsample the features, or use "
            "`adjoint_mask`."
        ): shrunk,
    }
    return check_function(
        mine,
        core,
        cases,
        mistakes,
        "sum or mean makes no difference once the vector has length one.",
    )


def check_fuse(mine: Function) -> Markdown:
    """Exercise 3.5. ``mine(base_pred, novel_map, cluster, num_base)``, as :func:`fuse`."""
    random = np.random.default_rng(8)
    base = random.integers(0, 4, (5, 6)).astype(np.uint8)
    novel = random.random((5, 6)) > 0.5
    cases = [
        Case("novel pixels and base pixels apart", (base, novel & (base == 0), 2, 3)),
        Case(
            "a pixel of the mask that is also base",
            (base, novel, 2, 3),
            "Confident base classes come first.",
        ),
        Case(
            "an empty mask",
            (base, np.zeros_like(novel), 1, 3),
            "Without a mask the pseudo-label is the base prediction.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "Clusters come after the B base classes: number k is label B + k.": lambda b, n, k, B: fuse(
            b, n, k, 0
        ),
        "Clusters are numbered from 1: label B + k, not B + k - 1.": lambda b, n, k, B: fuse(
            b, n, k - 1, B
        ),
        "Confident base classes come first, the cluster second.": lambda b, n, k, B: np.where(
            n, fuse(0 * b, n, k, B), b
        ),
    }
    return check_function(
        mine, fuse, cases, mistakes, "base first, then the cluster, then background."
    )


# 04 The basic framework


def check_order_of_clusters(confusion: np.ndarray, labels: LabelSpace, prediction: Any) -> Markdown:
    """Exercise 4.1. What becomes of the novel mIoU when clusters change their numbers; from a
    confusion matrix of the run.
    """
    first = 1 + labels.num_base
    turned = np.hstack([confusion[:, :first], confusion[:, first:][:, ::-1]])
    before, after = (
        score(counts, labels, "argmax_iou").novel_miou for counts in (confusion, turned)
    )
    text = (
        f"Novel mIoU {percent(before)} before and {percent(after)} after: a cluster's number means "
        "nothing, the matching finds its class."
    )
    return check_word(prediction, TREND, _trend(before or 0.0, after or 0.0), text)


def check_two_clusters(many_to_one: Any, one_to_one: Any, left_out: Any) -> Markdown:
    """Exercise 4.2. IoU of a class of 100 pixels that two pure clusters of 60 and 40 share, and of
    another class of 50 without cluster.
    """
    labels = LabelSpace(("old", "shared", "left out"), (2, 3))
    confusion = np.zeros((4, 4), np.int64)
    confusion[2, 2:] = (60, 40)
    confusion[3, 0] = 50
    merged, apart = (
        score(confusion, labels, rule).per_class for rule in ("argmax_iou", "hungarian")
    )
    right = {
        "many_to_one": merged["shared"],
        "one_to_one": apart["shared"],
        "left_out": merged["left out"],
    }
    mistakes: dict[str, dict[str, Any]] = {
        "many_to_one": {
            "Both clusters may have this class: their pixels are merged.": right["one_to_one"]
        },
        "one_to_one": {
            "Only one cluster may have the class; the other one's pixels are errors.": right[
                "many_to_one"
            ]
        },
        "left_out": {
            (
                "It is not left out of the mean: it is in the truth, and nothing of it was found."
            ): math.nan
        },
    }
    given = {"many_to_one": many_to_one, "one_to_one": one_to_one, "left_out": left_out}
    return check_values(
        given,
        right,
        mistakes,
        "the same prediction, two scores. A class that no cluster has counts as zero.",
    )


def check_iou(mine: Function) -> Markdown:
    """Exercise 4.3. ``mine(confusion)``, as :func:`iou_per_class` for a square matrix."""
    random = np.random.default_rng(9)
    counts = random.integers(1, 60, (4, 4))
    absent = random.integers(1, 60, (4, 4))
    absent[2], absent[:, 2] = 0, 0
    perfect = np.diag([7, 1, 20])

    def over(
        confusion: np.ndarray, axis: int
    ) -> np.ndarray:  # each class alone against its row or its column
        kept = np.where(np.eye(len(confusion), dtype=bool), confusion, 0)
        rest = confusion.sum(axis) - np.diag(confusion)
        return iou_per_class(np.hstack([kept, np.where(confusion.sum(axis) > 0, rest, 0)[:, None]]))

    cases = [
        Case("random counts", (counts,), "Divide the crossing by row plus column minus crossing."),
        Case("everything right", (perfect,), "Every IoU is 1 here."),
        Case(
            "a class in neither truth nor prediction",
            (absent,),
            "Such a class has no IoU: NaN, which a mean can leave out.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You divided by the row alone: that is the recall.": lambda c: over(c, 1),
        "You divided by the column alone: that is the precision.": lambda c: over(c, 0),
        "You counted the right pixels twice: subtract them once from row plus column.": lambda c: (
            1 / (1 / iou_per_class(c) + 1)
        ),
        "A class in neither truth nor prediction has no IoU: NaN rather than 0.": lambda c: (
            np.nan_to_num(iou_per_class(c))
        ),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        return check_function(
            mine,
            iou_per_class,
            cases,
            mistakes,
            "true positives over everything that is the class or is called it.",
        )


def check_many_to_one(mine: Function) -> Markdown:
    """Exercise 4.4. ``mine(counts)``: for each column of int [N, K] the row of greatest IoU, as
    :func:`match_clusters`.
    """

    def core(counts: np.ndarray, rule: str = "argmax_iou") -> np.ndarray:
        labels = LabelSpace(tuple("abcdefgh"[: 1 + len(counts)]), tuple(range(2, 2 + len(counts))))
        first = 1 + labels.num_base
        return match_clusters(np.pad(counts, ((first, 0), (first, 0))), labels, rule) - first

    random = np.random.default_rng(10)
    cases = [
        Case(
            "a large class beside a small one",
            (np.array([[900, 60, 5], [10, 50, 40]]),),
            "A large class has a large union.",
        ),
        Case(
            "twice as many clusters as classes",
            (random.integers(0, 100, (3, 6)),),
            "Divide each count by its union, row and column.",
        ),
        Case(
            "a class that no cluster prefers",
            (np.array([[50, 40], [5, 4]]),),
            "A class may be left without any cluster.",
        ),
    ]
    mistakes: dict[str, Function] = {
        (
            "You took the class of most pixels: that is the majority rule. Divide by the union "
            "first."
        ): lambda c: core(c, "majority"),
        "One-to-one is the other rule: here clusters may share a class.": lambda c: core(
            c, "hungarian"
        ),
        (
            "You gave each class a cluster. Each cluster needs a class: look along the other axis."
        ): lambda c: core(c.T),
    }
    return check_function(
        mine, core, cases, mistakes, "each cluster takes the class of its greatest IoU."
    )


# 05 Entropy ranking


def check_two_equal(prediction: Any) -> Markdown:
    """Exercise 5.1. How the normalised entropy of two equally probable labels changes with the
    number of labels.
    """
    found = []
    for labels in (5, 10):
        logits = torch.full((1, labels), -1e4)
        logits[:, :2] = 0
        found.append(float(entropy_map(logits)))
    text = (
        f"`entropy_map` gives {found[0]:.3f} with 5 labels and {found[1]:.3f} with 10: what it is "
        "divided by grows with C."
    )
    return check_word(prediction, TREND, _trend(*found), text)


def check_greater_share(run: Run, ranking: pd.DataFrame, share: float, prediction: Any) -> Markdown:
    """Exercise 5.2. What becomes of the share of right pixels among clean images when ``share`` of
    them are called clean; from the run.
    """
    config = run.recipe.entropy_ranking
    shares = []
    for part in (config.clean_share, share):
        clean = split_clean(
            ranking["entropy"].to_numpy(), ranking["cluster"].to_numpy(), part, config.per
        )
        shares.append(results.right_share(ranking[clean]))
    right = [percent(value) for value in shares]
    share_now = config.clean_share
    text = (
        f"In this run {right[0]} of the pixels are right with a clean share of {share_now:g}, and "
        f"{right[1]} with {share:g}."
    )
    return check_word(prediction, TREND, _trend(*shares), text)


def check_entropy_map(mine: Function) -> Markdown:
    """Exercise 5.3. ``mine(logits)``, as :func:`entropy_map`."""
    certain = torch.zeros(1, 3, 2, 2)
    certain[:, 1] = 1e4
    cases = [
        Case(
            "all labels equally probable",
            (torch.zeros(1, 8, 2, 3),),
            "This is the greatest entropy that there is: 1 after the division.",
        ),
        Case("random logits", (2 * torch.randn(2, 5, 4, 3, generator=_random(11)),)),
        Case(
            "certain of one label",
            (certain,),
            "Where p is 0, p log p is 0, but 0 times minus infinity is NaN: take `log_softmax`.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You summed natural logarithms but did not divide by log C.": lambda a: (
            entropy_map(a) * math.log(a.shape[1])
        ),
        "You summed logarithms of base 2 but did not divide by log2 C.": lambda a: (
            entropy_map(a) * math.log2(a.shape[1])
        ),
        "Natural logarithms over log2 C: use the same base above and below.": lambda a: (
            entropy_map(a) * math.log(2)
        ),
        "The sign is wrong: p log p is negative.": lambda a: -entropy_map(a),
        "You took the mean over the labels; the sum is meant.": lambda a: (
            entropy_map(a) / a.shape[1]
        ),
    }
    return check_function(
        mine, entropy_map, cases, mistakes, "0 where one label is certain, 1 where all are equal."
    )


def check_region_entropy(mine: Function) -> Markdown:
    """Exercise 5.4. ``mine(logits, region)``, as :func:`region_entropy`."""
    logits = 2 * torch.randn(2, 4, 5, 5, generator=_random(12))
    region = torch.rand(2, 5, 5, generator=_random(13)) > 0.6
    empty = region.clone()
    empty[0] = False
    cases = [
        Case("two images", (logits, region), "Each image has its own mean."),
        Case(
            "an image without region",
            (logits, empty),
            "An empty region scores infinity, so that the image is never clean.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You took the mean over the whole image rather than over the region.": lambda a, r: (
            region_entropy(a, torch.ones_like(r))
        ),
        "You summed over the region: large objects would look uncertain.": lambda a, r: (
            region_entropy(a, r) * r.sum((1, 2))
        ),
        "You divided by the number of all pixels rather than by that of the region.": lambda a, r: (
            region_entropy(a, r) * r.float().mean((1, 2))
        ),
    }
    return check_function(
        mine,
        region_entropy,
        cases,
        mistakes,
        "the mean over the region, infinite where there is none.",
    )


def check_split_clean(mine: Function) -> Markdown:
    """Exercise 5.5. ``mine(entropy, share)``, as :func:`split_clean` over all images."""

    def core(entropy: np.ndarray, share: float) -> np.ndarray:
        return split_clean(entropy, np.zeros(len(entropy), int), share, "dataset")

    entropy = np.random.default_rng(14).random(15)
    ties = np.array([0.2, 0.5, 0.5, 0.5, 0.9])
    empty = np.array([math.inf, 0.3, math.inf, 0.1])
    cases = [
        Case(
            "15 images, share 0.67",
            (entropy, 0.67),
            "int(15 * 0.67) images are clean: those of lowest entropy.",
        ),
        Case(
            "ties",
            (ties, 0.4),
            "Equal scores must not make more images clean: sort and count, with a stable order.",
        ),
        Case("infinite entropy", (empty, 0.9), "An image without region is never clean."),
    ]
    mistakes: dict[str, Function] = {
        "You kept the highest entropies: sort in ascending order.": lambda s, share: core(
            -s, share
        ),
        "You rounded up: int(n * share) images are clean.": lambda s, share: core(
            s, math.ceil(len(s) * share) / len(s) + 1e-9
        ),
        "That is the unclean part.": lambda s, share: ~core(s, share),
    }
    return check_function(
        mine, core, cases, mistakes, "sort, count, and never trust an infinite score."
    )


# 06 EUMS


def check_kept(run: Run, prediction: Any) -> Markdown:
    """Exercise 6.1. How the share of pixels that the teacher labels changes from the first epoch to
    the last; from the run.
    """
    kept = results.history(run, "eums").get("kept", pd.Series([1.0]))
    first = float(kept.iloc[0])
    last = float(kept.iloc[-1])
    config = run.recipe.eums
    labelled = (
        f"the teacher labels {percent(first)} of the pixels in the first epoch and {percent(last)} "
        "in the last"
    )
    text = f"In this run (threshold {config.confidence:g}) {labelled}."
    return check_word(prediction, TREND, _trend(first, last), text)


def check_left_of_start(share: Any) -> Markdown:
    """Exercise 6.2. How much of the teacher is still its start after 20 steps with α = 0.99."""
    teacher = torch.ones(1)
    for _ in range(20):
        teacher = _average(teacher, torch.zeros(1), 0.99)
    mistakes = {
        "share": {
            "That is what the student has added: the other part.": 1 - float(teacher),
            "Each step takes its part of what is left, not of the start: multiply.": 0.8,
        }
    }
    text = "with few steps a teacher is mostly its start. If that was random, it teaches noise."
    return check_values({"share": share}, {"share": float(teacher)}, mistakes, text)


def check_ramp_up(mine: Function) -> Markdown:
    """Exercise 6.3. ``mine(epoch, length)``, as :func:`ramp_up`."""
    cases = [
        Case("epoch 0 of 5", (0, 5)),
        Case("epoch 2 of 5", (2, 5), "The bracket is squared, and the factor is -5."),
        Case("epoch 5 of 5", (5, 5), "At the end of the ramp the weight is 1."),
        Case(
            "epoch 9, a ramp of 5",
            (9, 5),
            "After the ramp the weight stays 1: that is what min(e, E) does.",
        ),
        Case(
            "a ramp of no epochs",
            (3, 0),
            "Without a ramp the weight is 1 from the start; do not divide by 0.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "The weight grows as an exponential of a square, not linearly.": lambda e, length: (
            min(e, length) / length if length else 1.0
        ),
        "Square the bracket.": lambda e, length: (
            math.exp(-math.sqrt(-5 * math.log(ramp_up(e, length)))) if e < length else 1.0
        ),
        "The exponent is negative.": lambda e, length: 1 / ramp_up(e, length),
        (
            "It starts small and grows: the bracket is 1 minus the share of the ramp that is over."
        ): lambda e, length: ramp_up(length - e, length),
    }
    return check_function(
        mine, ramp_up, cases, mistakes, "nearly 0 at first, 1 at the end, and 1 from then on."
    )


def check_ema_update(mine: Function) -> Markdown:
    """Exercise 6.4. ``mine(teacher, student, alpha)``: the new teacher's tensor, as
    :func:`ema_update` changes a parameter.
    """
    teacher = torch.randn(3, 2, generator=_random(15))
    student = torch.randn(3, 2, generator=_random(16))
    cases = [
        Case("α = 0.99", (teacher, student, 0.99)),
        Case("α = 0", (teacher, student, 0.0), "With α = 0 the teacher is the student."),
        Case("α = 1", (teacher, student, 1.0), "With α = 1 the teacher never changes."),
    ]
    mistakes: dict[str, Function] = {
        "Teacher and student are swapped: α is the teacher's own share.": lambda t, s, alpha: (
            _average(t, s, 1 - alpha)
        ),
        "That is the student: the teacher must keep a share α of itself.": lambda t, s, alpha: s,
        "That is the old teacher. Return the new one.": lambda t, s, alpha: t,
    }
    return check_function(
        mine,
        _average,
        cases,
        mistakes,
        "the teacher keeps α of itself and takes the rest from the student.",
    )


def check_hard_pseudo_labels(mine: Function) -> Markdown:
    """Exercise 6.5. ``mine(logits, confidence)``, as :func:`hard_pseudo_labels`."""
    logits = 2 * torch.randn(2, 4, 5, 5, generator=_random(17))
    half = torch.zeros(1, 2, 2, 2)
    cases = [
        Case("threshold 0", (logits, 0.0), "With a threshold of 0 every pixel has a label."),
        Case("threshold 0.6", (logits, 0.6), "Pixels below the threshold are ignored: 255."),
        Case(
            "a probability of exactly the threshold",
            (half, 0.5),
            "Only what is *below* the threshold is ignored.",
        ),
    ]
    mistakes: dict[str, Function] = {
        "You did not look at the confidence.": lambda a, tau: hard_pseudo_labels(a, 0.0),
        "What the teacher doubts is ignored (255), not background (0).": lambda a, tau: (
            hard_pseudo_labels(a, tau) % 255
        ),
        (
            "You compared logits with the threshold; probabilities are meant: take `softmax`."
        ): lambda a, tau: torch.where(a.amax(1) < tau, 255, a.argmax(1)),
    }
    return check_function(
        mine,
        hard_pseudo_labels,
        cases,
        mistakes,
        "the most probable label, or 255 where it is not probable enough.",
    )


def _average(teacher: Tensor, student: Tensor, momentum: float) -> Tensor:
    """One :func:`ema_update` of a network with a single parameter."""
    mine, its = (nn.ParameterList([tensor.clone()]) for tensor in (teacher, student))
    ema_update(mine, its, momentum, "own")
    return mine[0].detach()


# 07 Results


def check_mean_gain(points: Any) -> Markdown:
    """Exercise 7.1. Points that the mean of all classes gains when each of 5 novel ones gains 10,
    beside background and 15 base classes.
    """
    labels = LabelSpace(tuple(f"class {i}" for i in range(1, 21)), (16, 17, 18, 19, 20))
    mapping = np.array(
        [*range(16, 21), UNMATCHED]
    )  # what is missed goes to a cluster without class

    def all_miou(novel: int) -> float:
        right = np.array([80] * 16 + [novel] * 5)
        return (
            score_matched(
                np.hstack([np.diag(right), (100 - right)[:, None]]), mapping, labels, ""
            ).all_miou
            or 0.0
        )

    gain = 100 * (all_miou(40) - all_miou(30))
    mistakes = {
        "points": {
            "Background is a class of the mean, too.": gain * 21 / 20,
            "The other classes are in the mean and gain nothing.": gain * 21 / 5,
            "Points of per cent are meant.": gain / 100,
        }
    }
    return check_values(
        {"points": points},
        {"points": gain},
        mistakes,
        "the mean over all classes hides what the method is about.",
    )


def check_same_ruler(prediction: Any) -> Markdown:
    """Exercise 7.2. The rule that gives the same matching as ``published`` for every confusion
    matrix with K = N.
    """
    labels = LabelSpace(("a", "b", "c", "d"), (2, 3, 4))
    random = np.random.default_rng(18)
    rules = ("hungarian", "argmax_iou", "majority")
    tables = [random.integers(0, 50, (5, 5)) for _ in range(30)]
    same = dict.fromkeys(rules, 0)
    for table in tables:
        matched = {
            rule: match_clusters(table, labels, rule).tolist() for rule in (*rules, "published")
        }
        for rule in rules:
            same[rule] += matched[rule] == matched["published"]
    (answer,) = [rule for rule in rules if same[rule] == len(tables)]
    counted = ", ".join(f"`{rule}` in {count}" for rule, count in same.items())
    return check_word(
        prediction,
        rules,
        answer,
        f"Of {len(tables)} random tables with K = N, the matching is that of `published` for "
        f"{counted}.",
    )


def check_accuracy(confusion: np.ndarray, labels: LabelSpace, prediction: Any) -> Markdown:
    """Exercise 7.3. Whether the share of right pixels is higher or lower than the mean IoU of all
    classes; from the run.
    """
    merged = merge_clusters(confusion, match_clusters(confusion, labels, "published"), labels)
    miou = score(confusion, labels).all_miou or 0.0
    accuracy = float(np.trace(merged[:, : len(merged)]) / max(1, merged.sum()))
    answer = {"rises": "higher", "falls": "lower", "stays": "equal"}[_trend(miou, accuracy)]
    text = (
        f"In this run {percent(accuracy)} of the pixels are right, and the mean IoU of all classes "
        f"is {percent(miou)}."
    )
    return check_word(prediction, ("higher", "lower", "equal"), answer, text)


def check_background_iou(report: Mapping[str, Any], model: str, iou: Any) -> Markdown:
    """Exercise 7.4. The background's IoU of a model, as its report has it."""
    entry = report["models"][model]["per_class"]["background"]
    text = f"the report of this run has {percent(entry)} for the background of `{model}`."
    mistakes = {"iou": {"The report has fractions, not per cent.": 100 * entry}}
    return check_values({"iou": iou}, {"iou": entry}, mistakes, text)


def check_held_out(mine: Function) -> Markdown:
    """Exercise 7.5. ``mine(halves, labels)``: the novel mIoU of :func:`score_held_out`."""
    labels = LabelSpace(("a", "b", "c", "d"), (2, 3, 4))
    random = np.random.default_rng(19)

    def core(halves: np.ndarray, labels: LabelSpace) -> float:
        return score_held_out(halves, labels).novel_miou or 0.0

    def mean(halves: np.ndarray, labels: LabelSpace) -> float:
        mappings = [match_clusters(half, labels, "published") for half in halves[::-1]]
        both = [
            score_matched(half, mapping, labels, "").novel_miou or 0.0
            for half, mapping in zip(halves, mappings, strict=True)
        ]
        return sum(both) / 2

    def own(halves: np.ndarray, labels: LabelSpace) -> float:
        tables = [
            merge_clusters(half, match_clusters(half, labels, "published"), labels)
            for half in halves
        ]
        return float(
            np.nanmean(iou_per_class(sum(tables, np.zeros_like(tables[0])))[1 + labels.num_base :])
        )

    cases = [
        Case("twice as many clusters as classes", (random.integers(0, 90, (2, 5, 8)), labels)),
        Case("as many clusters as classes", (random.integers(0, 90, (2, 5, 5)), labels)),
        Case(
            "halves of unlike size",
            (random.integers(0, 90, (2, 5, 8)) * np.array([1, 7]).reshape(2, 1, 1), labels),
        ),
    ]
    mistakes: dict[str, Function] = {
        (
            "You matched on all images, so each half was scored with its own truth."
        ): lambda h, labels: score(h.sum(0), labels).novel_miou,
        "You matched each half on itself: take the matching of the other one.": own,
        (
            "You averaged two scores. Add the two merged tables and score once, so that every "
            "pixel weighs the same."
        ): mean,
        "That is the mean of all classes. Take the novel ones.": lambda h, labels: (
            score_held_out(h, labels).all_miou
        ),
    }
    return check_function(
        mine, core, cases, mistakes, "clusters get their names where they are not scored."
    )


# 08 Your own images


def check_clusters(run: Run, clusters: Any) -> Markdown:
    """Exercise 8.1. The number of clusters of EUMS in a run that was opened, not computed."""
    right = run.clusters["eums"]
    novel = run.labels.num_novel
    mistakes = {"clusters": {"That is K = N, of `basic`. EUMS is over-clustered.": novel}}
    return check_values(
        {"clusters": clusters},
        {"clusters": right},
        mistakes,
        f"{right} clusters for {novel} classes that you expect.",
    )


def check_unnamed(run: Run, prediction: Any) -> Markdown:
    """Exercise 8.2. What the novel mIoU is where no mask of ``val/`` holds a novel class; from the
    run.
    """
    value = run.report()["models"]["eums"]["novel_miou"]
    answer = "nothing" if value is None else "zero" if value == 0 else "a number"
    text = (
        f"The report has {value}: where no truth is novel, no cluster can be matched, and there is "
        "nothing to be right or wrong about."
    )
    return check_word(prediction, ("zero", "nothing", "a number"), answer, text)


def check_names(mine: Function) -> Markdown:
    """Exercise 8.3. ``mine(prediction, classes, num_base)``, as :func:`results.to_classes` where
    each cluster has a class.
    """
    random = np.random.default_rng(20)
    prediction = random.integers(0, 8, (6, 5)).astype(np.uint8)
    classes = np.array([5, 4, 4, 5])
    ignored = prediction.copy()
    ignored[0] = 255
    cases = [
        Case("two clusters of each class", (prediction, classes, 3), IN_PLACE),
        Case("ignored pixels", (ignored, classes, 3), "255 stays 255."),
        Case("one class for all clusters", (prediction, np.full(4, 4), 3)),
    ]
    mistakes: dict[str, Function] = {
        (
            "You changed nothing: clusters B + 1, B + 2, ... must become classes."
        ): lambda p, classes, base: p,
        (
            "Cluster k has its class at position k - 1 of the list: you are off by one."
        ): lambda p, classes, base: results.to_classes(p, np.roll(classes, 1), base),
        "255 stays 255.": lambda p, classes, base: np.where(
            p == 255, 0, results.to_classes(p, classes, base)
        ),
    }
    return check_function(
        mine,
        results.to_classes,
        cases,
        mistakes,
        "clusters that show the same thing now have one number.",
    )


# 09 beyond the paper


def check_strong_gate(run: Run, prediction: Any) -> Markdown:
    """Exercise 9.1. How many foreground classes a very strong gate by image leaves in an image."""
    logits = results.logits_of(run, "eums", run.splits.val[:8])
    counts = [
        len(set(gate(own[None], "image", 1e3).argmax(1).flatten().tolist()) - {0})
        for own in logits.values()
    ]
    text = (
        f"In the predictions of {len(counts)} validation images there is at most {max(counts)} "
        "foreground class behind such a gate: of all weights (t_c / max t)^a only that of the "
        "largest total does not vanish."
    )
    return check_word(prediction, ("none", "one", "many"), "one", text)


def _gate_by_image(p: Tensor, strength: float) -> Tensor:
    return gate(p.log(), "image", strength).exp()


def check_gate(mine: Function) -> Markdown:
    """Exercise 9.2. ``mine(p, strength)``, as the gate by image on probabilities."""
    p = (2 * torch.randn(2, 5, 4, 3, generator=_random(41))).softmax(1)
    cases = [
        Case("strength 0", (p, 0.0), "Every weight is 1: nothing may change."),
        Case("strength 1", (p, 1.0)),
        Case("strength 3", (p, 3.0), "The power is taken of the weight, before it multiplies."),
    ]

    def with_background(p: Tensor, strength: float) -> Tensor:
        total = p.sum((2, 3), keepdim=True)
        weighed = p * (total / total.amax(1, keepdim=True)) ** strength
        return weighed / weighed.sum(1, keepdim=True)

    def not_brought_back(p: Tensor, strength: float) -> Tensor:
        total = p[:, 1:].sum((2, 3), keepdim=True)
        weight = (total / total.amax(1, keepdim=True)) ** strength
        return torch.cat([p[:, :1], p[:, 1:] * weight], 1)

    mistakes: dict[str, Function] = {
        "You weighed background too: it must keep its probability.": with_background,
        "Bring the foreground classes back to the sum that they had at each pixel.": (
            not_brought_back
        ),
    }
    return check_function(mine, _gate_by_image, cases, mistakes, "One object, one class.")


def _whitening(prototypes: np.ndarray, classes: np.ndarray, centred: bool = True) -> np.ndarray:
    """The exercise's answer: no shrinkage. ``centred=False`` forgets the means of the classes."""
    rest = prototypes.astype(np.float64)
    for label in np.unique(classes) if centred else ():
        rest[classes == label] -= rest[classes == label].mean(0)
    values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
    return (vectors / np.sqrt(values)) @ vectors.T


def check_whitening(mine: Function) -> Markdown:
    """Exercise 9.3. ``mine(prototypes, classes)``, whitening without shrinkage.

    What the library does besides is to shrink the covariance: with many objects the two agree.
    """
    rng = np.random.default_rng(42)
    few = rng.normal(size=(40, 3)) * [1, 3, 0.5]
    many = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
    cases = [
        Case("two classes of 20", (few + np.repeat([[0], [5]], 20, 0), np.repeat([0, 1], 20))),
        Case("three classes of 100, mixed", (many, np.arange(300) % 3)),
    ]
    mistakes: dict[str, Function] = {
        "Subtract from each prototype the mean of its own class, not of all.": lambda p, c: (
            _whitening(p - p.mean(0), c, centred=False)
        ),
        "Subtract the mean of its class from each prototype first.": lambda p, c: _whitening(
            p, c, centred=False
        ),
        "That is the covariance to the power 1/2; the power is -1/2.": lambda p, c: np.linalg.inv(
            _whitening(p, c)
        ),
    }
    return check_function(
        mine, _whitening, cases, mistakes, "Afterwards each class spreads alike in all directions."
    )
