"""Fake data in the real VOCSegmentation layout: tiny drawn images in which each class has a colour and a shape of its own."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

CLASSES, IGNORE = 20, 255


def _palette() -> np.ndarray:
    """Colours by class id, uint8 [256, 3]: black background, twenty hues in two brightnesses, white ignore."""
    colours = np.zeros((256, 3), np.uint8)
    for c in range(CLASSES):
        colours[c + 1] = np.multiply(255, colorsys.hsv_to_rgb(c / CLASSES, 0.9, 0.95 if c % 2 else 0.6)).astype(np.uint8)
    colours[IGNORE] = 255
    return colours


PALETTE = _palette()


class FakeImage(NamedTuple):
    """What was written for one id. Images are JPEG, so they read back nearly; masks and saliency maps read back exactly."""

    image: np.ndarray  # uint8 [H, W, 3]
    mask: np.ndarray  # uint8 [H, W], 0..20 and 255
    saliency: np.ndarray | None  # bool [H, W]; None: no file


def make_fake_voc(root: Path, *, train: int = 24, val: int = 8, size: tuple[int, int] = (48, 64), seed: int = 0) -> dict[str, FakeImage]:
    """Write ``train + val`` images, masks, saliency maps and lists under ``root``; return what was written, by id.

    Classes take turns through the folds, so that any four images in a row hold a novel and a base image of each of the folds 0..3
    (about ``train / 4`` novel images, some with two novel classes). Every third image has two classes, every fourth is portrait,
    every third mask has no 255 border (as SBD's have none), and every eleventh image has no saliency map.
    """
    rng = np.random.default_rng(seed)
    for folder in ("images", "SegmentationClassAug", "saliency_supervised_model", "sets"):
        (root / folder).mkdir(parents=True)
    written = {}
    for name, year, count in (("trainaug", 2007, train), ("val", 2008, val)):
        ids = [f"{year}_{i:06d}" for i in range(1, count + 1)]
        for i, image_id in enumerate(ids):
            written[image_id] = fake = _draw(i, size, rng)
            _save(root, image_id, fake)
        (root / "sets" / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
    return written


def _draw(i: int, size: tuple[int, int], rng: np.random.Generator) -> FakeImage:
    """Draw image number ``i`` of a list: one or two filled shapes on noise."""
    height, width = size[::-1] if i % 4 == 3 else size
    fold, member = i % 4, i // 4 % 5
    classes = [5 * fold + member + 1]
    if i % 3 == 0:  # a second class, of the same fold in every sixth image
        classes.append(5 * (fold if i % 6 == 0 else (fold + 1) % 4) + (member + 1) % 5 + 1)

    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for slot, c in enumerate(classes):
        w, h = (rng.uniform(0.3, 0.45, 2) * (width, height)).astype(int)
        x, y = width * (1 + 2 * slot) // 4 - w // 2 if len(classes) > 1 else rng.integers(1, width - w), rng.integers(1, height - h)
        shape = draw.rectangle if c % 2 else draw.ellipse
        shape((x, y, x + w, y + h), fill=c, outline=c if i % 3 == 1 else IGNORE)

    mask = np.array(canvas)
    solid = np.where(mask == IGNORE, 0, mask)
    noise = rng.integers(-25, 26, (height, width, 1))
    image = np.clip(np.where(solid[..., None] > 0, PALETTE[solid], 110) + noise, 0, 255).astype(np.uint8)
    return FakeImage(image, mask, None if i % 11 == 10 else _noisy_saliency(mask > 0, rng))


def _noisy_saliency(foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The foreground, moved by up to two pixels, with a false blob in one map of four."""
    salient = np.roll(foreground, rng.integers(-2, 3, 2), axis=(0, 1))
    if rng.random() < 0.25:
        y, x = rng.integers(0, np.array(salient.shape) - 8)
        salient[y : y + 8, x : x + 8] = True
    return salient


def _save(root: Path, image_id: str, fake: FakeImage) -> None:
    Image.fromarray(fake.image).save(root / "images" / f"{image_id}.jpg", quality=95)
    mask = Image.fromarray(fake.mask)
    mask.putpalette(PALETTE.tobytes())
    mask.save(root / "SegmentationClassAug" / f"{image_id}.png")
    if fake.saliency is not None:
        Image.fromarray(fake.saliency.astype(np.uint8)).save(root / "saliency_supervised_model" / f"{image_id}.png")


def make_fake_folder(root: Path, fakes: dict[str, FakeImage], *, val: bool = True) -> None:
    """The same pictures as a folder of one's own: the classes of fold 0 (1..5) are novel and nobody knows them, 6..20 are base 1..15."""
    for folder in ("images", "masks", "unlabelled", "saliency_supervised_model", *(("val/images", "val/masks") if val else ())):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"class {c}\n" for c in range(6, CLASSES + 1)))
    for image_id, fake in fakes.items():
        novel = (fake.mask >= 1) & (fake.mask <= 5)
        mask = np.where(novel | (fake.mask == IGNORE), IGNORE, fake.mask.astype(int) - 5 * (fake.mask > 5)).astype(np.uint8)
        if image_id.startswith("2008"):
            folder = "val/images" if val else None
        else:
            folder = "unlabelled" if novel.any() else "images"
        if folder is None:
            continue
        Image.fromarray(fake.image).save(root / folder / f"{image_id}.jpg", quality=95)
        if folder == "unlabelled":
            if fake.saliency is not None:
                Image.fromarray(fake.saliency.astype(np.uint8)).save(root / "saliency_supervised_model" / f"{image_id}.png")
        else:
            Image.fromarray(mask).save(root / folder.replace("images", "masks") / f"{image_id}.png")
