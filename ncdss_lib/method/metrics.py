"""One confusion matrix per evaluation, from which matching and every score derive.

Rows are ground truth in contiguous ids (background, B base, N novel classes), columns are
predictions (background, B base classes, K clusters). Pixels of 255 are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.method.cluster_matching import UNMATCHED, match_clusters, merge_clusters


def confusion_matrix(truth: Tensor, prediction: Tensor, rows: int, columns: int) -> Tensor:
    """Count pixels by truth and prediction.

    Args:
        truth: integer, any shape, 0..rows-1 or 255 (left out).
        prediction: integer, same shape, 0..columns-1.

    Returns:
        int64 [rows, columns]; the matrices of several batches or processes add up.
    """
    if truth.device.type == "cpu":
        counts = torch.from_numpy(
            _count_runs(truth.numpy().ravel(), prediction.numpy().ravel(), columns)
        )
    else:
        counts = _count_pixels(truth, prediction, columns)
    unknown = counts[rows:IGNORE].any(1)
    if unknown.any():
        raise ValueError(
            f"the truth holds label {rows + int(unknown.int().argmax())}, not only 0..{rows - 1} "
            f"and {IGNORE}"
        )
    return counts[:rows]


def _count_pixels(truth: Tensor, prediction: Tensor, columns: int) -> Tensor:
    """Pixels by truth and prediction on any device, int64 [256, columns]."""
    index = truth.flatten().int() * columns + prediction.flatten()
    return torch.bincount(index, minlength=(IGNORE + 1) * columns).view(IGNORE + 1, columns)


def _count_runs(truth: np.ndarray, prediction: np.ndarray, columns: int) -> np.ndarray:
    """Pixels by truth and prediction, int64 [256, columns], of flat arrays.

    Label maps are areas, so there are far fewer runs of equal pixels than pixels.
    """
    last, length = (
        np.flatnonzero((truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])),
        None,
    )
    if len(last) < len(truth) // 8:
        last = np.append(last, len(truth) - 1)  # the last pixel of each run
        truth, prediction, length = truth[last], prediction[last], np.diff(last, prepend=-1)
    counts = np.bincount(truth * np.int64(columns) + prediction, length, (IGNORE + 1) * columns)
    return counts.astype(np.int64).reshape(IGNORE + 1, columns)


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN) for each row of [n, >= n].

    NaN where a class is in neither truth nor prediction.
    """
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
        values = {
            name: getattr(self, name)
            for name in ("novel_miou", "base_miou", "background_iou", "all_miou", "harmonic_mean")
        }
        clusters = {str(cluster): name for cluster, name in self.cluster_to_class.items()}
        return {
            **values,
            "per_class": self.per_class,
            "matching": {"rule": self.rule, "cluster_to_class": clusters},
        }


def score(confusion: np.ndarray, labels: LabelSpace, rule: str = "published") -> Scores:
    """All scores from one confusion matrix.

    Args:
        confusion: int64 [1 + B + N, 1 + B + K]; K = 0 is a base model, whose novel truth counts as
            background, as in its training.
        rule: see :func:`match_clusters`.
    """
    if confusion.shape[1] == 1 + labels.num_base:
        return _score_base_model(confusion, labels)
    mapping = match_clusters(confusion, labels, rule)
    return score_matched(confusion, mapping, labels, rule)


def score_matched(
    confusion: np.ndarray, mapping: np.ndarray, labels: LabelSpace, rule: str
) -> Scores:
    """Scores under a matching that was made elsewhere: at another size, or on other images.

    Args:
        confusion: int64 [1 + B + N, 1 + B + K].
        mapping: int64 [K] from :func:`match_clusters`.
        rule: the name under which the scores are reported.
    """
    iou = iou_per_class(merge_clusters(confusion, mapping, labels))
    return _scores(
        iou, labels, rule, {k + 1: _class_name(c, labels) for k, c in enumerate(mapping)}
    )


def score_held_out(halves: np.ndarray, labels: LabelSpace, rule: str = "published") -> Scores:
    """Scores of clusters that were matched on *other* images.

    Each half of the validation set is scored under the matching of the other.

    Ours, because a matching that reads the truth of the very images that it scores is optimistic.

    Args:
        halves: int64 [2, 1 + B + N, 1 + B + K], the confusion matrices of two halves of the images.
        rule: by which the clusters of each half are matched.

    Returns:
        Scores over all images. A cluster on whose class the halves disagree has both names, first
        half first.
    """
    mappings = [match_clusters(half, labels, rule) for half in halves]
    iou = iou_per_class(
        merge_clusters(halves[0], mappings[1], labels)
        + merge_clusters(halves[1], mappings[0], labels)
    )
    names = [
        list(dict.fromkeys(str(_class_name(c, labels)) for c in pair))
        for pair in zip(*mappings, strict=True)
    ]
    return _scores(
        iou,
        labels,
        "held_out",
        {k + 1: None if pair == ["None"] else " / ".join(pair) for k, pair in enumerate(names)},
    )


def _score_base_model(confusion: np.ndarray, labels: LabelSpace) -> Scores:
    first = 1 + labels.num_base
    folded = np.vstack(
        [confusion[:1] + confusion[first:].sum(0, keepdims=True), confusion[1:first]]
    )
    return _scores(
        np.concatenate([iou_per_class(folded), np.full(labels.num_novel, np.nan)]),
        labels,
        "none",
        {},
    )


def _scores(
    iou: np.ndarray, labels: LabelSpace, rule: str, cluster_to_class: dict[int, str | None]
) -> Scores:
    first = 1 + labels.num_base
    base, novel = _mean(iou[1:first]), _mean(iou[first:])
    harmonic = (
        None
        if base is None or novel is None
        else 2 * base * novel / (base + novel)
        if base + novel
        else 0.0
    )
    return Scores(
        novel_miou=novel,
        base_miou=base,
        background_iou=_mean(iou[:1]),
        all_miou=_mean(iou),
        harmonic_mean=harmonic,
        per_class={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(labels.names, iou, strict=True)
        },
        rule=rule,
        cluster_to_class=cluster_to_class,
    )


def _class_name(label: int, labels: LabelSpace) -> str | None:
    return None if label == UNMATCHED else labels.names[label]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
