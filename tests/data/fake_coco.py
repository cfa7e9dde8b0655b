"""Fake COCO: tiny drawn images in the prepared layout, and toy scenes in COCO's own format, before `ncdss prepare coco20i`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ncdss_lib.data.coco20i import COCO_CLASSES
from toyscenes import CLASSES as TOYS
from toyscenes import render_scene

#: COCO's own ids of the 80 categories, in annotation order: 1..90 with gaps.
CATEGORY_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
#: Tint -> order of the colour channels. Class c of tint t is category 20 t + c, so that fold t of COCO-20i holds all toys in tint t.
TINTS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


# --------------------------------------------------------------------------------------------------------- the prepared layout
class FakeImage(NamedTuple):
    """What was written for one stem. Images are JPEG, so they read back nearly; masks and saliency maps read back exactly."""

    image: np.ndarray  # uint8 [H, W, 3]
    published: np.ndarray  # uint8 [H, W], 0..80: the first part of each object
    complete: np.ndarray  # uint8 [H, W], 0..80 and 255: both parts, and the crowd
    saliency: np.ndarray | None  # bool [H, W]; None: no file


def make_fake_coco(root: Path, *, train: int = 24, val: int = 8, size: tuple[int, int] = (48, 64), seed: int = 0) -> dict[str, FakeImage]:
    """Write ``train + val`` images, both kinds of masks, saliency maps of the training images and lists; return what was written.

    Image i shows a class of fold ``i % 4`` in two parts, every second image a class of the next fold too, every third a crowd, every
    fourth is portrait, and every eleventh training image has no saliency map.
    """
    rng = np.random.default_rng(seed)
    for folder in ("masks_published", "masks_complete", "saliency_supervised_model", "sets"):
        (root / folder).mkdir(parents=True)
    written = {}
    for split, count in (("train2014", train), ("val2014", val)):
        (root / split).mkdir()
        stems = [f"COCO_{split}_{i:012d}" for i in range(1, count + 1)]
        for i, stem in enumerate(stems):
            written[stem] = fake = _draw(i, size, rng)
            Image.fromarray(fake.image).save(root / split / f"{stem}.jpg", quality=95)
            Image.fromarray(fake.published).save(root / "masks_published" / f"{stem}.png")
            Image.fromarray(fake.complete).save(root / "masks_complete" / f"{stem}.png")
            if split == "train2014" and fake.saliency is not None:
                Image.fromarray(fake.saliency.astype(np.uint8)).save(root / "saliency_supervised_model" / f"{stem}.png")
        (root / "sets" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return written


def _draw(i: int, size: tuple[int, int], rng: np.random.Generator) -> FakeImage:
    height, width = size[::-1] if i % 4 == 3 else size
    classes = [20 * (i % 4) + i % 20 + 1] + ([20 * ((i + 1) % 4) + i % 20 + 1] if i % 2 else [])
    published, complete = np.zeros((2, height, width), np.uint8)
    if i % 3 == 0:
        complete[-height // 4 :, : width // 2] = 255
    for slot, c in enumerate(classes):
        top, left = height // 8 + slot * height // 3, width // 8 + int(rng.integers(4))
        first = np.s_[top : top + height // 4, left : left + width // 4]
        second = np.s_[top : top + height // 4, left + width // 3 : left + width // 2]
        published[first] = complete[first] = complete[second] = c
    things = (complete > 0) & (complete < 255)
    colour = complete[..., None] * np.array([3, 7, 11]) % 256
    image = np.where(things[..., None], colour, 110) + rng.integers(-20, 21, (height, width, 1))
    return FakeImage(np.clip(image, 0, 255).astype(np.uint8), published, complete, None if i % 11 == 10 else things)


# ------------------------------------------------------------------------------------------------------- COCO's annotation format
def make_toy_coco(root: Path, *, train: int = 400, val: int = 100, size: int = 128) -> dict[str, np.ndarray]:
    """Write tinted toy scenes as COCO 2014: photos, ``annotations/instances_{train,val}2014.json``, saliency maps for training.

    Scene i has tint ``i % 4``; of every third one with several classes, all but the first class have the next tint, so that folds
    overlap. A class of a scene is one annotation, with a polygon for each of its parts. In every eighth scene with several classes the
    smallest is a crowd region, as uncompressed RLE. As in COCO, annotations are not in the order of the images.

    Returns:
        Stem -> class ids 1..80 of the scene, uint8 [size, size]; 255 on rims and on crowd regions.
    """
    (root / "annotations").mkdir(parents=True)
    (root / "saliency_supervised_model").mkdir()
    truth = {}
    for number, (split, count) in enumerate((("train2014", train), ("val2014", val))):
        (root / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            stem, image_id = f"COCO_{split}_{i + 1:012d}", i + 1
            image, mask, crowd, salient = _tinted_scene(number, i, size)
            truth[stem] = np.where(mask == crowd, 255, mask).astype(np.uint8)
            images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": size, "width": size})
            found = (_annotation(mask == c, int(c), image_id, crowd=c == crowd) for c in np.unique(mask) if 0 < c < 255)
            annotations += [annotation for annotation in found if annotation]
            Image.fromarray(image).save(root / split / f"{stem}.jpg", quality=95)
            if split == "train2014" and salient is not None:
                Image.fromarray(salient.astype(np.uint8)).save(root / "saliency_supervised_model" / f"{stem}.png")
        for k, annotation in enumerate(annotations, start=1):
            annotation["id"] = k
        categories = [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, COCO_CLASSES, strict=True)]
        content = {"images": images, "annotations": annotations[::-1], "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return truth


def _tinted_scene(split: int, i: int, size: int) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None]:
    """Image, class ids 1..80 (0, 255 as in toy scenes), the class that is a crowd (or -1), saliency map."""
    scene = render_scene((split, i), size)
    areas = {int(c): int((scene.mask == c).sum()) for c in np.unique(scene.mask) if 0 < c < 255}
    tint, classes = i % 4, sorted(areas, key=lambda c: -areas[c])
    image, mask = scene.image[..., TINTS[tint]], scene.mask.copy()
    for rank, c in enumerate(classes):
        own = (tint + 1) % 4 if rank and i % 3 == 0 else tint
        image[scene.mask == c] = scene.image[scene.mask == c][:, TINTS[own]]
        mask[scene.mask == c] = len(TOYS) * own + c
    crowd = int(mask[scene.mask == classes[-1]][0]) if len(classes) > 1 and i % 8 == 0 else -1
    return np.ascontiguousarray(image), mask, crowd, scene.saliency


def _annotation(region: np.ndarray, class_id: int, image_id: int, *, crowd: bool) -> dict[str, Any] | None:
    """One annotation of a region, without its id; None for what is too thin to have a polygon."""
    segmentation: Any
    if crowd:
        segmentation = {"size": list(region.shape), "counts": run_lengths(region)}
    else:
        contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        segmentation = [c.ravel().astype(float).tolist() for c in sorted(contours, key=cv2.contourArea)[::-1] if len(c) > 2]
    if not segmentation:
        return None
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "image_id": image_id, "category_id": CATEGORY_IDS[class_id - 1], "iscrowd": int(crowd), "area": float(region.sum()),
        "bbox": [float(v) for v in box], "segmentation": segmentation,
    }  # fmt: skip


def run_lengths(region: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of the runs of zeros and ones by turns, column by column, zeros first."""
    flat = np.concatenate([[0], region.ravel(order="F").astype(np.int8)])
    ends = np.concatenate([np.flatnonzero(np.diff(flat)), [region.size]])
    return np.diff(ends, prepend=0).tolist()
