"""Which images to show, by one rule: :func:`by_rule`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.viz import results

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

WORKS, FAILS = 0.75, 0.4  # quality from which, and below which, an example is called so
LEAST = 0.02  # of an image that an object covers which is to be seen
CANDIDATES = 120  # images whose masks are read at most


# --- the rule -------------------------------------------------------------------------------------


def by_rule(quality: pd.Series, count: int, mixed: Sequence[str] = ()) -> list[str]:
    """Examples in the order in which a reader should meet them.

    First about half where the method works, those in ``mixed`` before the others; then the typical,
    nearest to the median; last the failures, at most a quarter.

    Args:
        quality: by image id, 0..1; NaN where nobody knows: then the images are spread over the
            list.
        mixed: ids of images with an object of a base class beside a novel one, best first.
    """
    known = quality.dropna().sort_values(ascending=False, kind="stable")
    if known.empty:
        return spread(quality.index.tolist(), count)
    kind = kinds(known)
    works = known.index[kind == "works"].tolist()
    works = [*(i for i in mixed if i in works), *(i for i in works if i not in mixed)]
    distance = (known - known.median()).abs()
    typical = distance[kind == "typical"].sort_values(kind="stable").index.tolist()
    fails = known.index[kind == "fails"].tolist()[::-1]

    # as many of each as there are; then whatever is left
    last = fails[: count // 4]
    first = works[: max(1, (count + 1) // 2)]
    middle = typical[: count - len(first) - len(last)]
    left = [i for i in (*works, *typical, *fails) if i not in {*first, *middle, *last}]
    more = left[: count - len(first) - len(middle) - len(last)]
    order = {"works": 0, "typical": 1, "fails": 2}
    return sorted([*first, *middle, *more, *last][:count], key=lambda i: order[kind[i]])


def kinds(quality: pd.Series) -> pd.Series:
    """``works``, ``typical`` or ``fails`` of each image; an empty text where nobody knows.

    Where the method does well on most images, only what is better than the median is said to work.
    """
    works = quality >= max(WORKS, quality.median())
    named = np.select([quality.isna(), works, quality < FAILS], ["", "works", "fails"], "typical")
    return pd.Series(named, quality.index)


# --- how well the method does on an image ---------------------------------------------------------


def saliency_quality(run: Run, ids: Iterable[str]) -> pd.Series:
    """IoU of the salient pixels and of all objects, by id."""
    found = {}
    for i in ids:
        truth = run.truth(i)
        known = truth != IGNORE
        objects = known & (truth > 0)
        salient = known & results.salient_pixels(run, i)
        union = (objects | salient).sum()
        found[i] = (objects & salient).sum() / union if objects.any() else np.nan
    return pd.Series(found, dtype=float)


def pseudo_label_quality(run: Run, clusters: int | None = None) -> pd.Series:
    """Share of right pixels in the pseudo-novel region, by id, of all images that have one.

    Args:
        clusters: K; None is that of ``basic``.
    """
    table = results.pseudo_label_table(run, clusters or run.clusters["basic"])
    return (table["right"] / table["pixels"]).where(table["pixels"] > 0)


def mixed_images(run: Run, ids: Iterable[str]) -> dict[str, float]:
    """Images with a base object beside a novel one -> the smaller of their shares of the image."""
    presence = run.data.presence()
    base_ids = set(run.labels.base_ids)
    shares = {}
    for i in ids:
        if not base_ids.intersection(presence[i]):
            continue
        truth = run.truth(i)
        novel_share = ((truth > run.labels.num_base) & (truth != IGNORE)).mean()
        base_share = ((truth > 0) & (truth <= run.labels.num_base)).mean()
        smaller = float(min(novel_share, base_share))
        if smaller >= LEAST:
            shares[i] = smaller
    return shares


def recognised_images(run: Run, ids: Iterable[str]) -> dict[str, float]:
    """Images in which base-class removal does its work: a salient base object is recognised.

    Returns:
        id -> the smaller of its share of the image and that of the novel mask.
    """
    folder = run.folder / "clustering"
    shares = {}
    for i in ids:
        truth = run.truth(i)
        found = resize_labels(read_labels(folder / "base_pred" / f"{i}.png"), truth.shape)
        right = (found > 0) & (found == truth) & results.salient_pixels(run, i)
        mask = read_labels(folder / "novel_map" / f"{i}.png") > 0
        smaller = float(min(right.mean(), mask.mean()))
        if smaller >= LEAST:
            shares[i] = smaller
    return shares


# --- examples of each kind of image ---------------------------------------------------------------


def novel(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``), by the rule; good is where saliency is right.

    Before there are pseudo-labels nothing else is known of an image. Novel classes take turns among
    those that work.
    """
    candidates = _candidates(run, ids)
    quality = saliency_quality(run, candidates)
    return by_rule(quality, count, _in_turn(run, mixed_images(run, candidates), quality))


def mixed(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``) with a base object beside a novel one.

    The best saliency first.
    """
    shares = mixed_images(run, _candidates(run, ids))
    quality = saliency_quality(run, shares)
    return quality.sort_values(ascending=False, kind="stable").index.tolist()[:count]


def used(run: Run, count: int = 5) -> list[str]:
    """Images with a pseudo-label, by the rule; good is where the pseudo-label is right.

    First come those in which a base object was recognised and taken out.
    """
    quality = pseudo_label_quality(run)
    working = quality.index[quality >= WORKS].tolist()
    shares = recognised_images(run, spread(working, CANDIDATES))
    return by_rule(quality, count, _in_turn(run, shares, quality))


def base(run: Run, count: int = 5) -> list[str]:
    """Training images without novel class, spread over the base classes."""
    step = max(1, len(run.labels.base_ids) // count)
    return one_per_class(run, run.splits.base, run.labels.base_ids[::step], count)


def val(run: Run, count: int = 5) -> list[str]:
    """Validation images, novel classes in turn; any image where none has a novel class."""
    chosen = one_per_class(run, run.splits.val, run.labels.novel_ids, count)
    return chosen or run.splits.val[:count]


def _candidates(run: Run, ids: Iterable[str] | None) -> list[str]:
    return spread(run.splits.novel if ids is None else list(ids), CANDIDATES)


def _in_turn(run: Run, shares: dict[str, float], quality: pd.Series) -> list[str]:
    """The mixed images that work, novel classes in turn, the clearest of each first."""
    presence = run.data.presence()
    working = [i for i in shares if quality.get(i, 0) >= WORKS]
    working.sort(key=shares.__getitem__, reverse=True)
    queues = [[i for i in working if c in presence[i]] for c in run.labels.novel_ids]
    return list(dict.fromkeys(i for rank in zip_longest(*queues) for i in rank if i))


def spread(items: Sequence[str], limit: int) -> list[str]:
    """At most ``limit`` items, evenly spread over the list."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def one_per_class(run: Run, ids: Iterable[str], class_ids: Sequence[int], count: int) -> list[str]:
    """At most ``count`` ids: classes in turn, in each the images with most of it first.

    Args:
        class_ids: original ids. Of each class at most 12 masks are read.
    """
    ids = list(ids)
    presence = run.data.presence()
    queues: list[list[str]] = []
    for c in class_ids:
        label = run.labels.names.index(run.labels.classes[c - 1])
        holding = spread([i for i in ids if c in presence[i]], 12)
        share = {i: (run.truth(i) == label).mean() for i in holding}
        queues.append(sorted(holding, key=share.__getitem__, reverse=True))
    in_turn = (i for rank in zip_longest(*queues) for i in rank if i)
    return list(dict.fromkeys(in_turn))[:count]


def best_and_worst(
    run: Run, model: str, confusion: np.ndarray, count: int = 3
) -> tuple[list[str], list[str]]:
    """Validation images with the greatest and the smallest share of rightly labelled novel pixels.

    Where the truth of no image is novel, of all labelled pixels.

    Args:
        confusion: the model's confusion matrix, for the published matching.
    """
    num_base = run.labels.num_base
    mapping = match_clusters(confusion, run.labels, "published")
    lowest = 1 + num_base if confusion[1 + num_base :].any() else 0
    size = run.recipe.data.target_size
    shares = {}
    for i, logits in results.stream_logits(run, model, run.splits.val, size):
        label = logits.argmax(0).numpy()
        truth = resize_labels(run.truth(i), label.shape)
        counted = (truth >= lowest) & (truth != IGNORE)
        if counted.mean() > 0.01:
            shares[i] = (results.to_classes(label, mapping, num_base) == truth)[counted].mean()
    order = sorted(shares, key=shares.__getitem__, reverse=True)
    best = order[:count]
    return best, [i for i in order[-count:] if i not in best]
