"""Which images to show: examples of each class, spread over a list, and the best and the worst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.method.clustering import used_images
from ncdss_lib.method.inference import load_model, predict
from ncdss_lib.viz.results import to_classes

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run


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


def novel(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``), novel classes in turn."""
    return one_per_class(run, run.splits.novel if ids is None else ids, run.labels.novel_ids, count)


def mixed(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``) that hold a base object too.

    Those with much of both come first; at most 60 masks are read.
    """
    presence = run.data.presence()
    base_ids = set(run.labels.base_ids)
    candidates = run.splits.novel if ids is None else ids
    shares = {}
    for i in spread([i for i in candidates if base_ids.intersection(presence[i])], 60):
        truth = run.truth(i)
        novel_share = ((truth > run.labels.num_base) & (truth != IGNORE)).mean()
        base_share = ((truth > 0) & (truth <= run.labels.num_base)).mean()
        shares[i] = min(novel_share, base_share)
    return sorted(shares, key=shares.__getitem__, reverse=True)[:count]


def mixed_first(run: Run, count: int, mixed_count: int, ids: Sequence[str]) -> list[str]:
    """Some of ``ids``: a number of mixed ones, then others; any where no class is known."""
    some = [*mixed(run, mixed_count, ids), *novel(run, count, ids)]
    return list(dict.fromkeys(some))[:count] or list(ids[:count])


def used(run: Run, count: int = 5) -> list[str]:
    """Images with a pseudo-label: in turn one with a base object as well, and one of any kind."""
    ids = used_images(run.folder / "clustering")
    pairs = zip_longest(mixed(run, count, ids), novel(run, count, ids))
    return list(dict.fromkeys(i for pair in pairs for i in pair if i))[:count]


def base(run: Run, count: int = 5) -> list[str]:
    """Training images without novel class, spread over the base classes."""
    step = max(1, len(run.labels.base_ids) // count)
    return one_per_class(run, run.splits.base, run.labels.base_ids[::step], count)


def val(run: Run, count: int = 5) -> list[str]:
    """Validation images, novel classes in turn; any image where none has a novel class."""
    chosen = one_per_class(run, run.splits.val, run.labels.novel_ids, count)
    return chosen or run.splits.val[:count]


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
    for batch, logits in predict(run, load_model(run, model), run.splits.val, size):
        for i, label in zip(batch, logits.argmax(1).cpu().numpy(), strict=True):
            truth = resize_labels(run.truth(i), label.shape)
            counted = (truth >= lowest) & (truth != IGNORE)
            if counted.mean() > 0.01:
                shares[i] = (to_classes(label, mapping, num_base) == truth)[counted].mean()
    order = sorted(shares, key=shares.__getitem__, reverse=True)
    best = order[:count]
    return best, [i for i in order[-count:] if i not in best]
