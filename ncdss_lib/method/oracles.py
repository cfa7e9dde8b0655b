"""Oracles: the basic framework with pseudo-labels that know more than anybody does.

Ours, because they say where the loss is. Truth is used here and nowhere else in training. Both
rows train as ``basic`` does, on the same images, with K = N.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.loading import Targets
from ncdss_lib.data.masks import read_labels
from ncdss_lib.method.clustering import fuse
from ncdss_lib.method.context import Context


def image_level(run: Context) -> Targets:
    """Perfect clustering: the true class of each image on the mask that saliency gave."""
    return partial(_image_level, run, run.folder / "clustering")


def pixel_level(run: Context) -> Targets:
    """Perfect labels: the ground truth of the novel images."""
    return partial(read_truth, run.data, run.labels)


#: Row of the ablation -> the labels that it is trained with.
ORACLES: dict[str, Callable[[Context], Targets]] = {
    "oracle_image": image_level,
    "oracle_pixel": pixel_level,
}


def main_novel_class(truth: np.ndarray, labels: LabelSpace) -> int:
    """The novel class of most pixels of an image.

    Args:
        truth: contiguous ids, uint8 [H, W].

    Returns:
        1..N; 0 where it holds none.
    """
    counts = np.bincount(truth.ravel(), minlength=IGNORE + 1)
    novel = counts[1 + labels.num_base : len(labels.names)]
    return int(novel.argmax()) + 1 if novel.any() else 0


def _image_level(run: Context, clustering: Path, image_id: str) -> np.ndarray:
    base_pred = read_labels(clustering / "base_pred" / f"{image_id}.png")
    novel_map = read_labels(clustering / "novel_map" / f"{image_id}.png") > 0
    cluster = main_novel_class(run.truth(image_id), run.labels)
    return fuse(base_pred, novel_map & (cluster > 0), cluster, run.labels.num_base)
