"""What a data set must offer: images with masks and saliency maps, classes and folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from ncdss_lib.data.label_space import LabelSpace


class Contents(NamedTuple):
    """What is known of an image once its files were read.

    Attributes:
        classes: sorted original ids of the classes with at least one pixel; no 0, no 255.
        salient: pixels of its saliency map that are salient; 0 without a map.
        pixels: of the image.
    """

    classes: tuple[int, ...]
    salient: int
    pixels: int


class SegmentationData(Protocol):
    """Images with masks and saliency maps, addressed by id; each is read (or drawn) when asked for.

    Attributes:
        name: ``toyscenes``, ``pascal5i``, ...
        classes: names of the foreground classes; ``classes[i]`` has original id ``i + 1``.
        folds: fold number -> original ids of its novel classes.
        train_ids, val_ids: image ids, sorted.
        saliency_note: a phrase that says where the saliency maps come from; figures show it.
        masks_note: a phrase that says which masks are the ground truth; reports name it.
        left_out: lines on what is not read of its folders, as "PATH: left out subfolders (1)".
        knows_num_novel: whether anybody knows how many novel classes a fold has; else it names one.
    """

    name: str
    classes: tuple[str, ...]
    folds: dict[int, tuple[int, ...]]
    train_ids: list[str]
    val_ids: list[str]
    saliency_note: str
    masks_note: str
    left_out: list[str]
    knows_num_novel: bool = True

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [H, W, 3]."""
        ...

    def mask(self, image_id: str) -> np.ndarray:
        """Original class ids, uint8 [H, W]: 0 background, 1..len(classes), 255 ignore."""
        ...

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Salient pixels, bool [H, W], or None where nothing is salient."""
        ...

    def has_truth(self, image_id: str) -> bool:
        """Whether the image has a mask; only among your own images some have none."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when any image, mask, saliency map or list changes."""
        ...

    def images_fingerprint(self) -> str:
        """A short text that changes when any image or list changes: the feature cache's key."""
        ...

    def contents(self) -> Mapping[str, Contents]:
        """What each image holds, by id. Every file is decoded once, and what was found is kept.

        An image without a mask is declared to hold something new: it has every novel class.
        """
        ...

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> the ``classes`` of its :meth:`contents`."""
        return {image_id: held.classes for image_id, held in self.contents().items()}


def read_truth(
    data: SegmentationData, labels: LabelSpace, image_id: str, *, hide_novel: bool = False
) -> np.ndarray:
    """Ground truth of an image in contiguous ids, uint8 [H, W].

    Args:
        hide_novel: make novel classes background, as the base model sees them.
    """
    return labels.to_contiguous(data.mask(image_id), hide_novel=hide_novel)
