"""Splits, label ids, the input of the network, and COCO's masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
PASCAL_FOLDS = {0: [1, 2, 3, 4, 5], 1: [6, 7, 8, 9, 10], 2: [11, 12, 13, 14, 15], 3: [16, 17, 18, 19, 20], 4: [8, 10, 12, 13, 17]}
COCO_FOLDS = {0: list(range(1, 21)), 1: list(range(21, 41)), 2: list(range(41, 61)), 3: list(range(61, 81))}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def has_any(mask: np.ndarray, ids: Sequence[int]) -> bool:
    """Whether a single pixel of the mask has one of the ids."""
    return any((mask == i).any() for i in ids)


def pascal_lists(train: Mapping[str, np.ndarray], val: Mapping[str, np.ndarray], novel_ids: Sequence[int]) -> dict[str, list[str]]:
    """As published: novel = any novel pixel; base = the others; base_train, base_val = any base pixel."""
    base_ids = [i for i in range(1, 21) if i not in novel_ids]
    novel = [i for i, mask in train.items() if has_any(mask, novel_ids)]
    return {
        "novel": sorted(novel),
        "base": sorted(set(train) - set(novel)),
        "base_train": sorted(i for i, mask in train.items() if has_any(mask, base_ids)),
        "base_val": sorted(i for i, mask in val.items() if has_any(mask, base_ids)),
    }


def coco_lists(train: Mapping[str, np.ndarray], novel_ids: Sequence[int]) -> dict[str, list[str]]:
    """As published: base and novel overlap; base training takes base, fine-tuning base without novel."""
    base_ids = [i for i in range(1, 81) if i not in novel_ids]
    base, novel = ({i for i, mask in train.items() if has_any(mask, ids)} for ids in (base_ids, novel_ids))
    return {"novel": sorted(novel), "base": sorted(base - novel), "base_train": sorted(base)}


def reindexed(mask: np.ndarray, classes: int, novel_ids: Sequence[int], *, hide_novel: bool = False) -> np.ndarray:
    """As published: 0, then base classes, then novel ones, each in ascending original id; 255 stays. The base model sees novel as 0."""
    base_ids = [i for i in range(1, classes + 1) if i not in novel_ids]
    new = np.full(mask.shape, 255, np.uint8)
    new[mask == 0] = 0
    for position, original in enumerate([*base_ids, *novel_ids], 1):
        new[mask == original] = 0 if hide_novel and original in novel_ids else position
    return new


def nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize as OpenCV means it: the source pixel floor(i * old / new)."""
    old_height, old_width = labels.shape
    rows, columns = [i * old_height // height for i in range(height)], [i * old_width // width for i in range(width)]
    return labels[rows][:, columns]


def augmented(
    image: np.ndarray, labels: np.ndarray | None, *, angle: float, scale: float, flip: bool, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """As published: flip; ScaleNRotate at original size, canvas unchanged, border 0; resize. Cubic for the image, nearest for labels."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)

    def chain(pixels: np.ndarray, interpolation: int) -> np.ndarray:
        pixels = np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels
        pixels = cv2.warpAffine(pixels, matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        return cv2.resize(pixels, (size, size), interpolation=interpolation)

    return chain(image, cv2.INTER_CUBIC), None if labels is None else chain(labels, cv2.INTER_NEAREST)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The transform of validation and of every inference: the resize alone."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def normalised(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float64 [3, H, W]: divided by 255, then ImageNet's mean and standard deviation."""
    return ((image / 255 - MEAN) / STD).transpose(2, 0, 1)


def coco_masks(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """As published, from the contents of an annotation file: stem -> mask, for images with an annotation that is no crowd.

    In annotation order, label = place in the category list + 1, ``cv2.fillPoly`` of the first polygon alone, coordinates cut to int32.
    """
    place = {category["id"]: position for position, category in enumerate(content["categories"], 1)}
    masks = {}
    for image in content["images"]:
        things = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        if not things:
            continue
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for thing in things:
            polygon = np.array(thing["segmentation"][0]).reshape(-1, 2).astype(np.int32)
            cv2.fillPoly(mask, [polygon], place[thing["category_id"]])
        masks[image["file_name"].removesuffix(".jpg")] = mask
    return masks
