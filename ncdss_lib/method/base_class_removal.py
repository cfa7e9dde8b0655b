"""What stands out and is no base class: the novel mask of each image, and its regions.

In: the base model and saliency maps. Out: ``base_pred/ID.png`` and ``novel_map/ID.png``, at the
image's size, for clustering.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, resize_labels, write_labels
from ncdss_lib.method.context import Context
from ncdss_lib.method.inference import load_model, predict


def confident_base(logits: Tensor, confidence: float) -> Tensor:
    """Pixels that the base model takes for a base class with confidence.

    Args:
        logits: float [b, 1 + B, H, W] of the base model.
        confidence: the published value is 0.9, compared strictly.

    Returns:
        uint8 [b, H, W]: the base class 1..B where its probability is greater than ``confidence``,
        else 0.
    """
    probability, label = logits.softmax(1).max(1)
    return torch.where(probability > confidence, label, 0).to(torch.uint8)


def remove_base_classes(run: Context, folder: Path) -> pd.DataFrame:
    """Base-class removal and the area rule: one row a novel image, with its area and status."""
    config = run.recipe.clustering
    salient = [i for i in run.splits.novel if run.data.saliency(i) is not None]
    write = partial(_write_novel_map, run, folder)
    rows: list[tuple[str, int, float]] = []
    base_model = load_model(run, "base")
    size = run.views.size
    for ids, logits in predict(run, base_model, salient, size, "base-class removal", config):
        base_preds = confident_base(logits, config.base_confidence).cpu().numpy()
        guesses = (logits.argmax(1) > 0).to(torch.uint8).cpu().numpy()
        rows += run.runtime.map(write, zip(ids, base_preds, guesses, strict=True))

    index = pd.Index(run.splits.novel, name="id")
    images = pd.DataFrame(index=index, columns=["area", "share"], dtype=float)
    images["status"] = "no_saliency"
    for i, area, share in run.runtime.gather(rows):
        large = area > config.min_area_pixels and share > config.min_area_fraction
        status = "used" if large else "below_min_area"
        images.loc[i, ["area", "share", "status"]] = [area, share, status]
    return images


def _write_novel_map(
    run: Context, folder: Path, found: tuple[str, np.ndarray, np.ndarray]
) -> tuple[str, int, float]:
    """Write what is known of one image at its own size.

    Returns:
        Its id, and pixels and share of its novel mask.
    """
    image_id, small, guess = found
    config = run.recipe.clustering
    salient = run.data.saliency(image_id)
    assert salient is not None
    base_pred = resize_labels(small, salient.shape)
    if config.mask_size == "network":
        salient = resize_labels(resize_labels(salient, run.views.size), salient.shape)
    novel_map = salient & (base_pred == 0)
    write_labels(folder / "base_pred" / f"{image_id}.png", base_pred)
    write_labels(folder / "novel_map" / f"{image_id}.png", novel_map.astype(np.uint8))
    if config.uncertain_label == IGNORE:
        write_labels(folder / "uncertain" / f"{image_id}.png", resize_labels(guess, salient.shape))
    return image_id, int(novel_map.sum()), float(novel_map.mean())


def object_parts(novel_map: np.ndarray, least: float) -> np.ndarray:
    """Number the connected parts of a novel mask, the largest first.

    Ours, because an image may hold several novel objects, and one cluster cannot be
    right for two.

    Args:
        novel_map: bool [H, W].
        least: parts of fewer pixels are counted to the largest one.

    Returns:
        uint8 [H, W]: 1..n in the mask (254 parts at most), 0 outside.
    """
    numbers, count = ndimage.label(novel_map)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    order = np.argsort(-areas[1:], kind="stable")[: IGNORE - 1] + 1
    new = np.ones(count + 1, np.uint8)
    new[0] = 0
    for number, part in enumerate(order, start=1):
        if areas[part] >= least:
            new[part] = number
    return new[numbers]


def read_regions(run: Context, folder: Path, image_id: str) -> np.ndarray:
    """The regions of a used image, uint8 [H, W]: 1..n, 0 outside its novel mask."""
    novel_map = read_labels(folder / "novel_map" / f"{image_id}.png") > 0
    if run.recipe.clustering.unit == "image":
        return novel_map.astype(np.uint8)
    return object_parts(novel_map, run.recipe.clustering.min_area_fraction * novel_map.size)


def novel_regions(run: Context, folder: Path, image_id: str) -> dict[int, np.ndarray]:
    """The regions of a used image at the network's size: number -> bool [S, S]."""
    numbered = read_regions(run, folder, image_id)
    resized = resize_labels(numbered, run.recipe.data.size)
    return {number: resized == number for number in range(1, int(numbered.max()) + 1)}
