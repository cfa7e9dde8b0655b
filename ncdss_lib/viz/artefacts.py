"""Reading artefacts for figures: example images, what the pseudo-labels got right, predictions for a few images.

Ground truth of unlabelled training images is read here to *look* at what a stage did; no stage reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.inference import load_model, predict
from ncdss_lib.metrics import UNMATCHED, match_clusters
from ncdss_lib.models.segmenter import Segmenter
from ncdss_lib.stages.clustering import images_table, read_pseudo_label, used_images
from ncdss_lib.stages.entropy_ranking import read_ranking
from ncdss_lib.stages.evaluation import pseudo_label_counts
from ncdss_lib.training import read_history

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run

UNMATCHED_LABEL = 254  # in pictures only: a pixel of a cluster that no class was given to


def thin(items: Sequence[str], limit: int) -> list[str]:
    """At most ``limit`` items, evenly spread over the list."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def one_per_class(run: Run, ids: Iterable[str], class_ids: Sequence[int], count: int) -> list[str]:
    """Image ids for illustration: classes in turn, in each the images with most of it first (masks of at most 60 images are read).

    Args:
        class_ids: original ids.
        count: number of ids at most.
    """
    presence, ids = run.data.presence(), list(ids)
    queues: list[list[str]] = []
    for c in class_ids:
        holding, label = thin([i for i in ids if c in presence[i]], 12), run.labels.names.index(run.labels.classes[c - 1])
        queues.append(sorted(holding, key=lambda i, label=label: -float((run.truth(i) == label).mean())))  # type: ignore[misc]
    chosen: list[str] = []
    for rank in range(max(map(len, queues), default=0)):
        chosen += [queue[rank] for queue in queues if rank < len(queue) and queue[rank] not in chosen]
    return list(dict.fromkeys(chosen))[:count]


def novel_examples(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``) for illustration, novel classes in turn."""
    return one_per_class(run, run.splits.novel if ids is None else ids, run.labels.novel_ids, count)


def mixed_examples(run: Run, count: int = 5, ids: Iterable[str] | None = None) -> list[str]:
    """Unlabelled training images (or of ``ids``) that hold a base object too, those with much of both first (at most 60 are read)."""
    presence, base = run.data.presence(), set(run.labels.base_ids)
    holding = thin([i for i in (run.splits.novel if ids is None else ids) if base.intersection(presence[i])], 60)
    shares = {}
    for i in holding:
        truth = run.truth(i)
        novel = ((truth > run.labels.num_base) & (truth != IGNORE)).mean()
        shares[i] = min(float(novel), float(((truth > 0) & (truth <= run.labels.num_base)).mean()))
    return sorted(holding, key=lambda i: -shares[i])[:count]


def val_examples(run: Run, count: int = 5) -> list[str]:
    """Validation images for illustration, novel classes in turn; any image where none has a novel class."""
    return one_per_class(run, run.splits.val, run.labels.novel_ids, count) or run.splits.val[:count]


def base_examples(run: Run, count: int = 5) -> list[str]:
    """Training images without novel class for illustration, spread over the base classes."""
    step = max(1, len(run.labels.base_ids) // count)
    return one_per_class(run, run.splits.base, run.labels.base_ids[::step], count)


def logits_of(run: Run, model: nn.Module | str, ids: Sequence[str], size: int | None = None) -> dict[str, torch.Tensor]:
    """Logits of a few images, float32 [outputs, size, size] on the CPU. ``model``: a network or the name of a trained one."""
    network = load_model(run, model) if isinstance(model, str) else model
    found: dict[str, torch.Tensor] = {}
    for batch, logits in predict(run, network, ids, size or run.views.size):
        found |= dict(zip(batch, logits.cpu(), strict=True))
    return found


def load_teacher(run: Run) -> Segmenter:
    """The mean teacher of the EUMS stage, as its last step left it."""
    import safetensors.torch

    teacher = run.new_segmenter(run.clusters["eums"], seed=run.seed)
    teacher.load_state_dict(safetensors.torch.load_file(run.folder / "eums" / "eums_teacher.safetensors"))
    return teacher.eval()


def to_classes(prediction: np.ndarray, mapping: np.ndarray, num_base: int) -> np.ndarray:
    """Replace clusters by the classes that a matching gave them, uint8; UNMATCHED_LABEL where it gave none.

    Args:
        prediction: integer labels 0..B+K, any shape; 255 stays.
        mapping: int64 [K] from :func:`ncdss_lib.metrics.match_clusters`.
    """
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[: 1 + num_base] = np.arange(1 + num_base)
    lookup[1 + num_base : 1 + num_base + len(mapping)] = np.where(mapping == UNMATCHED, UNMATCHED_LABEL, mapping)
    return lookup[prediction]


def pseudo_label_table(run: Run, clusters: int) -> pd.DataFrame:
    """What each used image's pseudo-label got right, indexed by id (method reference, section 11).

    Columns: ``cluster`` 1..K; ``cluster_class``, the novel class of most novel pixels in that cluster, contiguous id; ``main_class``, the
    novel class of most pixels under this image's region (0: none); ``pixels``; ``right``, pixels whose truth is the cluster's class.
    """
    folder, first = run.folder / "clustering", 1 + run.labels.num_base
    used = used_images(folder)
    counts = np.stack([pseudo_label_counts(run.truth(i), read_pseudo_label(folder, clusters, i), run, clusters) for i in used])
    mapping = counts.sum(0)[first:].argmax(0) + first
    novel = counts[:, first:].sum(2)
    frame = pd.DataFrame(index=pd.Index(used, name="id"))
    frame["cluster"] = images_table(folder).loc[used, f"cluster_{clusters}"].astype(int)
    frame["cluster_class"] = mapping[frame["cluster"].to_numpy() - 1]
    frame["main_class"] = np.where(novel.sum(1) > 0, novel.argmax(1) + first, 0)
    frame["pixels"] = counts.sum((1, 2))
    row = np.arange(len(used))
    frame["right"] = counts[row, frame["cluster_class"], frame["cluster"] - 1]
    return frame


def ranking_table(run: Run) -> pd.DataFrame:
    """:func:`pseudo_label_table` of the over-clustered pseudo-labels with ``entropy`` and ``split``, in ascending entropy."""
    ranking = read_ranking(run.folder / "entropy_ranking")
    return ranking[["entropy", "split"]].join(pseudo_label_table(run, run.clusters["eums"]))


def right_share(frame: pd.DataFrame) -> float:
    """Share of right pixels in the pseudo-novel regions of some rows; NaN where there are none."""
    pixels = frame["pixels"].sum()
    return float(frame["right"].sum() / pixels) if pixels else float("nan")


def history(run: Run, name: str) -> pd.DataFrame:
    """The training history of ``base``, ``basic``, ``basic_oc`` or ``eums``, a row an epoch."""
    return read_history(run.weights(name, "").parent, name)


def read_splits(folder: Path) -> pd.DataFrame:
    """``splits.csv`` of the EUMS stage: whether each image is clean from an epoch on; a column an epoch at which that changed."""
    return pd.read_csv(folder / "splits.csv", index_col="id", dtype={"id": str})


def best_and_worst(run: Run, model: str, confusion: np.ndarray, count: int = 3) -> tuple[list[str], list[str]]:
    """Validation images with the greatest and the smallest share of rightly labelled novel pixels, clusters matched as published.

    Where the truth of no image is novel (images of one's own), of all labelled pixels.

    Args:
        confusion: the model's confusion matrix, for the matching.
    """
    first, mapping = 1 + run.labels.num_base, match_clusters(confusion, run.labels, "published")
    lowest, shares = first if confusion[first:].any() else 0, {}
    for batch, logits in predict(run, load_model(run, model), run.splits.val, run.recipe.data.target_size):
        for i, label in zip(batch, logits.argmax(1).cpu().numpy(), strict=True):
            truth = resize_labels(run.truth(i), label.shape)
            counted = (truth >= lowest) & (truth != IGNORE)
            if counted.mean() > 0.01:
                shares[i] = float((to_classes(label, mapping, run.labels.num_base) == truth)[counted].mean())
    order = sorted(shares, key=lambda i: -shares[i])
    best = order[:count]
    return best, [i for i in order[-count:] if i not in best]
