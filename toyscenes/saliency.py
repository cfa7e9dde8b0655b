"""Simulated saliency maps: what an unsupervised detector might return for a scene."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from toyscenes.places import Grid, noise

IGNORE = 255


def simulate_saliency(
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    distractors: np.ndarray | None = None,
    miss_main: float = 0.09,
    miss_small: float = 0.4,
    false_blob: float = 0.45,
    ragged: float = 0.45,
    min_share: float = 0.01,
) -> np.ndarray | None:
    """Simulate what an unsupervised saliency detector would return, from the true mask and noise.

    Ours: there is no detector. The defaults were set so that the foreground IoU with the truth is
    that of U^2-Net-P on PASCAL VOC photos (about 0.6 on average).

    1. *Misses*: each class of the image is dropped whole, with probability ``miss_small`` if it
       covers less than half as much as the largest one, else ``miss_main``.
    2. *False blobs*: with probability ``false_blob`` a round patch joins in, centred on a
       distractor if there is one.
    3. *Ragged borders*: the region is blurred (3 % of the side), smooth noise of amplitude
       ``ragged`` is added, and it is cut at a random level, so that borders wander, thin parts
       break off and surroundings leak in.
    4. MaskContrast's rule: connected components below ``min_share`` of the image are removed;
       nothing left means no map.

    Args:
        mask: uint8 [S, S], class ids, 0 background, 255 ignore (taken as background).
        distractors: bool [S, S], pixels of things that are background but catch the eye.

    Returns:
        bool [S, S], or None when nothing is salient.
    """
    size = len(mask)
    ids, counts = np.unique(mask, return_counts=True)
    areas = {
        i: n for i, n in zip(ids.tolist(), counts.tolist(), strict=True) if i not in (0, IGNORE)
    }
    salient = np.zeros(mask.shape, np.float32)
    for class_id, area in areas.items():
        if rng.random() >= (miss_small if area < 0.5 * max(areas.values()) else miss_main):
            salient[mask == class_id] = 1
    x, y = rng.uniform(0.1, 0.9, 2)
    if rng.random() < false_blob:
        if distractors is not None and distractors.any():
            y, x = (np.argwhere(distractors)[int(rng.random() * distractors.sum())] + 0.5) / size
        g = Grid(size)
        salient[(g.x - x) ** 2 + (g.y - y) ** 2 < rng.uniform(0.06, 0.16) ** 2] = 1
    soft = ndimage.gaussian_filter(salient, 0.03 * size, truncate=2)
    soft = soft + ragged * noise(rng, size, 3, 6, 12, 24)
    return drop_small_components(soft > rng.uniform(0.35, 0.7), min_share)


def drop_small_components(region: np.ndarray, min_share: float = 0.01) -> np.ndarray | None:
    """Keep the connected components (8-neighbours) of at least ``min_share`` of the image.

    Returns:
        bool [S, S], or None when none is left.
    """
    labels, _ = ndimage.label(region, structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= min_share * region.size
    keep[0] = False
    kept = keep[labels]
    return kept if kept.any() else None
