"""Which novel class each cluster stands for: matchings from one confusion matrix.

Rows are ground truth in contiguous ids (background, B base, N novel classes), columns are
predictions (background, B base classes, K clusters).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ncdss_lib.data.label_space import LabelSpace

UNMATCHED = -1  # the class of a cluster that a matching leaves over: its pixels count as errors


def pairwise_iou(counts: np.ndarray) -> np.ndarray:
    """IoU [n, K] of n classes and K clusters; 0 where both are empty.

    Both are restricted to the pixels that ``counts`` [n, K] holds.
    """
    union = counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts
    return np.divide(counts, union, out=np.zeros(counts.shape), where=union > 0)


def match_clusters(confusion: np.ndarray, labels: LabelSpace, rule: str) -> np.ndarray:
    """Give each cluster a novel class.

    All rules look only at pixels that are novel in truth *and* predicted as some cluster, as
    published: false positives on background and base classes are invisible to the matching.

    Args:
        confusion: int64 [1 + B + N, 1 + B + K].
        rule: ``hungarian``: one-to-one, maximal total IoU; with K > N the K - N clusters that
            remain are UNMATCHED. ``argmax_iou``: each cluster takes the class of highest IoU
            (many-to-one). ``majority``: each cluster takes the class of most of its pixels
            (many-to-one). ``published``: hungarian for K = N, argmax_iou for K > N. (K < N is
            refused by the released code; ours is hungarian there too, and N - K classes are left
            without a cluster.)

    Returns:
        int64 [K]: contiguous ids B+1..B+N, or UNMATCHED; all UNMATCHED where the truth holds no
        novel pixel.
    """
    first = 1 + labels.num_base
    counts = confusion[first:, first:].astype(np.float64)
    classes, clusters = counts.shape
    if rule == "published":
        rule = "argmax_iou" if clusters > classes else "hungarian"
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
    # Nobody knows the novel classes of your own images, say.
    if not confusion[first:].any():
        mapping[:] = UNMATCHED
    return mapping


def merge_clusters(
    confusion: np.ndarray,
    mapping: np.ndarray,
    labels: LabelSpace,
) -> np.ndarray:
    """Merge the clusters' columns into their classes.

    Returns:
        int64 [1 + B + N, 1 + B + N + 1]; the last column holds the pixels of UNMATCHED clusters.
    """
    first, classes = 1 + labels.num_base, len(labels.names)
    merged = np.zeros((classes, classes + 1), np.int64)
    merged[:, :first] = confusion[:, :first]
    for cluster, label in enumerate(mapping):  # UNMATCHED = -1 is the last column
        merged[:, label] += confusion[:, first + cluster]
    return merged
