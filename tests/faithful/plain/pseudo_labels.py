"""Base-class removal, lists, prototypes, clusters, fusion and entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from tests.faithful.plain.data import nearest


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis of [C, ...], in float64."""
    exponential = np.exp(logits.astype(np.float64) - logits.max(0))
    return exponential / exponential.sum(0)


def base_removal(
    logits: np.ndarray,
    saliency: np.ndarray,
    confidence: float = 0.9,
) -> tuple[np.ndarray, np.ndarray]:
    """As published, with its arithmetic as it is written there.

    Args:
        logits: float [1 + B, S, S] of the base model.
        saliency: uint8 [S, S], the map's own values.

    Returns:
        high_base_pred and novel_map, uint8 [S, S].
    """
    p = softmax(logits)
    value, label = p.max(0), p.argmax(0)
    high = label * (value > confidence)
    high_base_map = np.where(high > 0, 255, 0).astype(np.int64)
    novel_map = (~high_base_map) * saliency.astype(np.int64) * 255
    return high.astype(np.uint8), novel_map.astype(np.uint8)


def removed_at_original_size(logits: np.ndarray, saliency: np.ndarray, confidence: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The two files of an image: saliency goes to the network's size, both results come back from there, always by nearest neighbour."""
    size = logits.shape[1]
    high, novel_map = base_removal(logits, nearest(saliency, size, size), confidence)
    return nearest(high, *saliency.shape), nearest(novel_map, *saliency.shape)


def used(novel_maps: Mapping[str, np.ndarray], least: int = 1500) -> list[str]:
    """As published: images with more than 1500 non-zero pixels at original size."""
    return sorted(i for i, novel_map in novel_maps.items() if np.count_nonzero(novel_map) > least)


def prototype(
    features: Tensor,
    novel_map: np.ndarray,
    size: int,
    *,
    channels_at_once: int = 64,
) -> np.ndarray:
    """As published: features [C, h, w] upsampled to the size of the network's input, summed with the map as weight, L2-normalised.

    Channels are taken a few at a time, because all of them upsampled take 2 GB; in float64.
    """
    mask = nearest(novel_map, size, size).astype(np.float64)
    weight = torch.from_numpy(mask * (mask > 0.5))
    sums = []
    for some in features.double().split(channels_at_once):
        how = {"mode": "bilinear", "align_corners": False}
        upsampled = F.interpolate(some[None], (size, size), **how)[0]
        sums += [(channel * weight).sum().item() for channel in upsampled]
    return np.array(sums) / np.linalg.norm(sums)


def whitened(prototypes: np.ndarray, dimensions: int = 32) -> np.ndarray:
    """PCA with whitening, by a singular value decomposition: scores of unit variance, signs arbitrary, float32 as they are saved."""
    centred = prototypes.astype(np.float64) - prototypes.astype(np.float64).mean(0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    return (left[:, :dimensions] * math.sqrt(len(prototypes) - 1)).astype(np.float32)


def clusters(prototypes: np.ndarray, k: int, *, seed: int, n_init: int = 10, dimensions: int = 32) -> np.ndarray:
    """One cluster 1..K a prototype."""
    return KMeans(k, init="k-means++", n_init=n_init, max_iter=300, random_state=seed).fit_predict(whitened(prototypes, dimensions)) + 1


def fused(high_base_pred: np.ndarray, novel_map: np.ndarray, cluster: int, num_base: int) -> np.ndarray:
    """As published: the cluster on the whole mask, then confident base classes win."""
    embedding = np.where(novel_map > 0, cluster, 0)
    pseudo = high_base_pred + np.where(embedding > 0, embedding + num_base, 0) * (high_base_pred == 0)
    return pseudo.astype(np.uint8)


def entropy_score(logits: np.ndarray, pseudo_label: np.ndarray, num_base: int) -> float:
    """As published: mean over classes and over the pixels of the pseudo-novel region of -P log2(P + 1e-30) / log2(C).

    Args:
        logits: float [C, S, S].
        pseudo_label: uint8 [S, S].

    Returns:
        NaN where the region is empty.
    """
    number = len(logits)
    scores = []
    for y, x in zip(*np.nonzero(pseudo_label > num_base), strict=True):
        p = softmax(logits[:, y, x])
        bits = sum(-p_c * math.log2(p_c + 1e-30) for p_c in p)
        scores.append(bits / math.log2(number) / number)
    return sum(scores) / len(scores) if scores else math.nan


def clean_and_unclean(scores: Mapping[str, float], share: float = 0.67) -> tuple[list[str], list[str]]:
    """Ascending score, all clusters together; the first int(N * share) are clean. NaN, whose place is undefined there, is last here."""
    ascending = sorted(scores, key=lambda i: (math.isnan(scores[i]), scores[i]))
    count = int(len(ascending) * share)
    return ascending[:count], ascending[count:]


def reassigned(
    clean: list[str],
    unclean: list[str],
    scores: Mapping[str, float],
) -> tuple[list[str], list[str]]:
    """As published: the lower half of the clean images stays clean, the others join the unclean ones."""
    stay, leave = clean_and_unclean({i: scores[i] for i in clean}, 0.5)
    return stay, unclean + leave
