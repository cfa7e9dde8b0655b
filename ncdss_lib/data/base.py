"""What a data set must offer, and how its training images are split for one fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ncdss_lib.labels import IGNORE, LabelSpace
from ncdss_lib.system.errors import InputError, did_you_mean


class SegmentationData(Protocol):
    """Images with masks and saliency maps, addressed by id. Everything is read (or rendered) when asked for.

    Attributes:
        name: ``toyscenes``, ``pascal5i``, ...
        classes: names of the foreground classes; ``classes[i]`` has original id ``i + 1``.
        folds: fold number -> original ids of its novel classes.
        train_ids, val_ids: image ids, sorted.
        saliency_note: one phrase that says where the saliency maps come from; figures and tables show it.
        masks_note: one phrase that says which masks are the ground truth; reports name it.
    """

    name: str
    classes: tuple[str, ...]
    folds: dict[int, tuple[int, ...]]
    train_ids: list[str]
    val_ids: list[str]
    saliency_note: str
    masks_note: str

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
        """Whether there is a mask of the image; only a folder of one's own images has some without."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when any image, mask, saliency map or list changes."""
        ...

    def images_fingerprint(self) -> str:
        """A short text that changes when any image or list changes, whatever becomes of masks and maps: the feature cache's key."""
        ...

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> sorted original ids of the classes with at least one pixel (0 and 255 left out).

        An image without a mask is there because it is declared to hold something new: it has every novel class.
        """
        ...


@dataclass(frozen=True)
class Splits:
    """The image lists of one fold (method reference, section 1.1). All sorted."""

    base: list[str]  # training images without a novel class: ground truth is given
    novel: list[str]  # training images with a novel class: unlabelled
    base_train: list[str]  # what the base model is trained on
    val: list[str]


def label_space(data: SegmentationData, fold: int) -> LabelSpace:
    """The label space of a fold. Raises InputError for a fold that the data set has not."""
    if fold not in data.folds:
        raise InputError(f"fold {fold} does not exist in {data.name}: choose one of {sorted(data.folds)} (--fold).")
    return LabelSpace(tuple(data.classes), tuple(data.folds[fold]))


def make_splits(data: SegmentationData, labels: LabelSpace, *, base_list: str = "published") -> Splits:
    """Split the training images of a fold by the classes that their masks hold.

    Args:
        base_list: what the base model is trained on. ``published`` takes every image with a base class, novel pixels
            as background: it includes images that are "unlabelled" later. ``strict`` takes images without a novel class.

    Raises:
        InputError: when the fold has no novel or no base image, or ``base_list`` is neither of the two.
    """
    if base_list not in ("published", "strict"):
        raise InputError(f"data.base_list={base_list!r}: {did_you_mean(base_list, ('published', 'strict'))}")
    presence = data.presence()
    novel_ids, base_ids = set(labels.novel_ids), set(labels.base_ids)
    novel = [i for i in data.train_ids if novel_ids.intersection(presence[i])]
    base = [i for i in data.train_ids if not novel_ids.intersection(presence[i])]
    any_base = [i for i in data.train_ids if base_ids.intersection(presence[i])]
    for kind, ids, names in (("novel", novel, labels.novel_names), ("base", any_base, labels.base_names)):
        if not ids:
            raise InputError(
                f"no {kind} image: none of the {len(data.train_ids)} training masks of {data.name} holds a {kind} class of this "
                f"fold ({', '.join(names)}). Check the masks, or choose another fold (--fold)."
            )
    return Splits(base, novel, base if base_list == "strict" else any_base, list(data.val_ids))


def read_truth(data: SegmentationData, labels: LabelSpace, image_id: str, *, hide_novel: bool = False) -> np.ndarray:
    """Ground truth of an image in contiguous ids, uint8 [H, W]; with ``hide_novel`` novel classes are background."""
    return labels.to_contiguous(data.mask(image_id), hide_novel=hide_novel)


def classes_in(mask: np.ndarray) -> tuple[int, ...]:
    """Sorted class ids in a mask, background and ignore left out."""
    return tuple(int(c) for c in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)) if c not in (0, IGNORE))
