"""One confusion matrix per evaluation; matching and every score derive from it (method reference, section 11).

Rows are ground truth in contiguous ids (background, B base, N novel classes), columns are predictions (background, B base classes,
K clusters). Pixels of 255 are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ncdss_lib.labels import IGNORE, LabelSpace

UNMATCHED = -1  # the class of a cluster that a matching leaves over: its pixels count as errors


def confusion_matrix(truth: Tensor, prediction: Tensor, rows: int, columns: int) -> Tensor:
    """Count pixels by truth and prediction.

    Args:
        truth: integer, any shape, 0..rows-1 or 255 (left out).
        prediction: integer, same shape, 0..columns-1.

    Returns:
        int64 [rows, columns]; the matrices of several batches or processes add up.
    """
    valid = truth != IGNORE
    index = truth[valid].long() * columns + prediction[valid].long()
    return torch.bincount(index, minlength=rows * columns).view(rows, columns)


def pairwise_iou(counts: np.ndarray) -> np.ndarray:
    """IoU [n, K] of n classes and K clusters, both restricted to the pixels that ``counts`` [n, K] holds; 0 where both are empty."""
    union = counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts
    return np.divide(counts, union, out=np.zeros(counts.shape), where=union > 0)


def match_clusters(confusion: np.ndarray, labels: LabelSpace, rule: str) -> np.ndarray:
    """Give each cluster a novel class.

    All rules look only at pixels that are novel in truth *and* predicted as some cluster, as published: false positives on background
    and base classes are invisible to the matching.

    Args:
        confusion: int64 [1 + B + N, 1 + B + K].
        rule: ``hungarian``: one-to-one, maximal total IoU; with K > N the K - N clusters that remain are UNMATCHED.
            ``argmax_iou``: each cluster takes the class of highest IoU (many-to-one).
            ``majority``: each cluster takes the class of most of its pixels (many-to-one).
            ``published``: hungarian for K = N, argmax_iou for K > N.

    Returns:
        int64 [K]: contiguous ids B+1..B+N, or UNMATCHED.
    """
    first = 1 + labels.num_base
    counts = confusion[first:, first:].astype(np.float64)
    classes, clusters = counts.shape
    if rule == "published":
        if clusters < classes:
            raise ValueError(f"the published protocol needs at least as many clusters as novel classes, got {clusters} < {classes}")
        rule = "hungarian" if clusters == classes else "argmax_iou"
    mapping = np.full(clusters, UNMATCHED, np.int64)
    if rule == "hungarian":
        row, column = linear_sum_assignment(pairwise_iou(counts), maximize=True)
        mapping[column] = row + first
    elif rule in ("argmax_iou", "majority"):
        score = pairwise_iou(counts) if rule == "argmax_iou" else counts
        if clusters:
            mapping[:] = score.argmax(0) + first
    else:
        raise ValueError(f"unknown matching rule {rule!r}")
    return mapping


def relabel(confusion: np.ndarray, mapping: np.ndarray, labels: LabelSpace) -> np.ndarray:
    """Merge the clusters' columns into their classes.

    Returns:
        int64 [1 + B + N, 1 + B + N + 1]; the last column holds the pixels of UNMATCHED clusters.
    """
    first, classes = 1 + labels.num_base, len(labels.names)
    merged = np.zeros((classes, classes + 1), np.int64)
    merged[:, :first] = confusion[:, :first]
    for cluster, label in enumerate(mapping):
        merged[:, label] += confusion[:, first + cluster]  # UNMATCHED = -1 is the last column
    return merged


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN) for each row of [n, >= n]; NaN where a class is in neither truth nor prediction."""
    n = len(confusion)
    true_positive = np.diag(confusion[:, :n]).astype(np.float64)
    union = confusion.sum(1) + confusion[:, :n].sum(0) - true_positive
    return np.divide(true_positive, union, out=np.full(n, np.nan), where=union > 0)


@dataclass(frozen=True)
class Scores:
    """The scores of one model under one matching, as fractions; None where no class has an IoU."""

    novel_miou: float | None
    base_miou: float | None
    background_iou: float | None
    all_miou: float | None
    harmonic_mean: float | None
    per_class: dict[str, float | None]
    rule: str
    cluster_to_class: dict[int, str | None]

    def as_dict(self) -> dict[str, Any]:
        """The keys of report.json."""
        values = {name: getattr(self, name) for name in ("novel_miou", "base_miou", "background_iou", "all_miou", "harmonic_mean")}
        clusters = {str(cluster): name for cluster, name in self.cluster_to_class.items()}
        return {**values, "per_class": self.per_class, "matching": {"rule": self.rule, "cluster_to_class": clusters}}


def score(confusion: np.ndarray, labels: LabelSpace, rule: str = "published") -> Scores:
    """All scores from one confusion matrix.

    Args:
        confusion: int64 [1 + B + N, 1 + B + K]; K = 0 is a base model, whose novel truth counts as background, as in its training.
        rule: see :func:`match_clusters`.
    """
    first = 1 + labels.num_base
    if confusion.shape[1] == first:
        folded = np.vstack([confusion[:1] + confusion[first:].sum(0, keepdims=True), confusion[1:first]])
        iou = np.concatenate([iou_per_class(folded), np.full(labels.num_novel, np.nan)])
        mapping, rule = np.empty(0, np.int64), "none"
    else:
        mapping = match_clusters(confusion, labels, rule)
        iou = iou_per_class(relabel(confusion, mapping, labels))
    base, novel = _mean(iou[1:first]), _mean(iou[first:])
    harmonic = None if base is None or novel is None else 2 * base * novel / (base + novel) if base + novel else 0.0
    names = labels.names
    return Scores(
        novel_miou=novel,
        base_miou=base,
        background_iou=_mean(iou[:1]),
        all_miou=_mean(iou),
        harmonic_mean=harmonic,
        per_class={name: None if np.isnan(value) else float(value) for name, value in zip(names, iou, strict=True)},
        rule=rule,
        cluster_to_class={k + 1: None if c == UNMATCHED else names[c] for k, c in enumerate(mapping)},
    )


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
