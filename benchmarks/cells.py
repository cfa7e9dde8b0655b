"""Cells of the features as what is clustered: an image may then hold several clusters.

Measured by :mod:`benchmarks.beyond` alone. Memory does not grow with the number of images: k-means
is fitted to a fixed sample of cells, and the cells of an image are read, assigned and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch.nn.functional as F
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.base_class_removal import novel_regions
from ncdss_lib.runs.pipeline import Run

SAMPLE = 20_000


@dataclass(frozen=True)
class CellClusters:
    """Clusters of cells, fitted to a sample."""

    pca: PCA
    k_means: KMeans

    def of_pixels(self, cells: np.ndarray, mask: np.ndarray, *, vote: bool) -> np.ndarray:
        """The cluster of each pixel of a mask.

        Args:
            cells: float32 [h, w, C], of unit length.
            mask: bool [S, S].
            vote: whether the cells of a connected part decide together.

        Returns:
            int [S, S], 1..K in the mask and 0 outside.
        """
        height, width, channels = cells.shape
        found = self.k_means.predict(self.pca.transform(cells.reshape(-1, channels))) + 1
        labels = resize_labels(found.reshape(height, width).astype(np.uint8), mask.shape)
        labels = np.where(mask, labels, 0)
        if vote:
            parts, count = ndimage.label(mask)
            for part in range(1, count + 1):
                labels[parts == part] = np.bincount(labels[parts == part]).argmax()
        return labels


def fit(run: Run, ids: Sequence[str], clusters: int, seed: int) -> CellClusters:
    """k-means of a sample of the cells in the novel masks, evenly over the images."""
    rng = np.random.default_rng(seed)
    share = -(-SAMPLE // len(ids))
    sample = []
    for image_id, cells in read(run, ids):
        inside = _cells_inside(novel_mask(run, image_id), cells.shape[:2])
        own = cells[inside]
        sample.append(own[rng.permutation(len(own))[:share]])
    return CellClusters(*fitted(np.concatenate(sample)[:SAMPLE], clusters, seed))


def fitted(points: np.ndarray, clusters: int, seed: int) -> tuple[PCA, KMeans]:
    """Principal components, at most 32, and k-means in them, of float [n, C]."""
    pca = PCA(min(32, *points.shape), svd_solver="covariance_eigh").fit(points)
    return pca, KMeans(clusters, n_init=5, random_state=seed).fit(pca.transform(points))


def read(run: Run, ids: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Cells of the encoder's deepest stage of some images: id, float32 [h, w, C], unit length."""
    assert run.views.channels, "cells are read from cached features"
    deepest = run.views.channels[-1]
    for batch, inputs in run.views.clean(ids, 16):
        cells = F.normalize(inputs[:, -deepest:].float(), dim=1).permute(0, 2, 3, 1).numpy()
        yield from zip(batch, cells, strict=True)


def novel_mask(run: Run, image_id: str) -> np.ndarray:
    """The novel mask of an image at the network's size, bool [S, S]."""
    regions = novel_regions(run, run.folder / "clustering", image_id)
    return np.logical_or.reduce(list(regions.values()))


def _cells_inside(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cells of which the mask covers half, bool [h, w]; of a tiny mask, the fullest cell."""
    height, width = shape
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return covered >= min(0.5, covered.max())
