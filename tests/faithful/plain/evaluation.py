"""The published evaluation in two passes, class by class over boolean masks, and that of the released script."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from tests.faithful.plain.data import nearest

Maps = Sequence[np.ndarray]  # label maps in contiguous ids, uint8 [H, W]


def matching_iou(truths: Maps, predictions: Maps, num_base: int, num_novel: int, clusters: int) -> np.ndarray:
    """Pass 1: IoU [N, K] of class and cluster, on S alone: pixels that are novel in truth and predicted as some cluster."""
    truth, prediction = (np.concatenate([m.ravel() for m in maps]) for maps in (truths, predictions))
    on_s = (truth > num_base) & (truth != 255) & (prediction > num_base)
    truth, prediction = truth[on_s], prediction[on_s]
    iou = np.zeros((num_novel, clusters))
    for c in range(num_novel):
        for k in range(clusters):
            is_class, is_cluster = truth == num_base + 1 + c, prediction == num_base + 1 + k
            union = (is_class | is_cluster).sum()
            iou[c, k] = (is_class & is_cluster).sum() / union if union else 0.0
    return iou


def best_total(iou: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The highest total IoU of a one-to-one matching of K = N clusters, and the class of each cluster: all permutations are tried."""
    number = len(iou)
    return max((sum(iou[c, k] for k, c in enumerate(classes)), classes) for classes in permutations(range(number)))


def matched(iou: np.ndarray) -> list[int]:
    """The class 0..N-1 of each cluster: one-to-one for K = N, each cluster's class of highest IoU for K > N."""
    classes, number = iou.shape
    if number == classes:
        return list(best_total(iou)[1])
    return [int(iou[:, k].argmax()) for k in range(number)]


def relabelled(prediction: np.ndarray, mapping: Sequence[int], num_base: int) -> np.ndarray:
    """Pass 2: clusters become their classes."""
    new = prediction.copy()
    for cluster, label in enumerate(mapping):
        new[prediction == num_base + 1 + cluster] = num_base + 1 + label
    return new


def class_iou(truths: Maps, predictions: Maps, classes: int) -> list[float]:
    """TP / (TP + FP + FN) of ids 0..classes-1 over all pixels that are not 255; NaN where a class is nowhere."""
    found = []
    for c in range(classes):
        tp = fp = fn = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            valid = truth != 255
            tp += int(((prediction == c) & (truth == c) & valid).sum())
            fp += int(((prediction == c) & (truth != c) & valid).sum())
            fn += int(((prediction != c) & (truth == c) & valid).sum())
        found.append(tp / (tp + fp + fn) if tp + fp + fn else float("nan"))
    return found


def novel_miou(iou: Sequence[float], num_novel: int) -> float:
    """The number of the paper's tables: the mean over the last classes only (those that are nowhere left out)."""
    return float(np.nanmean(iou[-num_novel:]))


def script_iou(truths: Maps, predictions: Maps, mapping: Sequence[int], base_ids: Sequence[int], novel_ids: Sequence[int]) -> list[float]:
    """``eval.py``: predictions [S, S] relabelled, in original ids, at the size of each truth (original ids too); IoU by original id."""
    original = [0, *base_ids, *novel_ids]
    written = []
    for truth, prediction in zip(truths, predictions, strict=True):
        contiguous = relabelled(prediction, mapping, len(base_ids))
        with_names = np.zeros_like(contiguous)
        for new, old in enumerate(original):
            with_names[contiguous == new] = old
        written.append(nearest(with_names, *truth.shape))
    return class_iou(truths, written, len(original))
