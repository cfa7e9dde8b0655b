"""Masks: 8-bit palette PNGs of class ids, one a pixel, read, written and resized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ncdss_lib.data.image_files import read_picture
from ncdss_lib.data.label_space import BACKGROUND, IGNORE


def read_labels(path: Path, modes: tuple[str, ...] = ("P", "L")) -> np.ndarray:
    """Decode a PNG of class ids completely, to uint8 [H, W]; a palette is not applied.

    Args:
        modes: the PIL modes that the file may have.

    Raises:
        InputError: for another mode, or a file that cannot be decoded.
    """
    return np.array(read_picture(path, modes), dtype=np.uint8)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write uint8 [H, W] as an 8-bit PNG with PASCAL VOC's palette of 256 colours."""
    path.parent.mkdir(exist_ok=True)
    png = Image.fromarray(labels)
    png.putpalette(voc_palette().ravel().tolist())
    png.save(path)


def resize_labels(labels: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Nearest resize of uint8 or bool [H, W] to [size, size] or to (height, width).

    As OpenCV does it, without its rounding errors.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    # columns first: the other way round touches more memory where an image grows
    return labels.take(columns, 1).take(rows, 0)


def classes_in(mask: np.ndarray) -> tuple[int, ...]:
    """Sorted class ids in a mask, uint8 of any shape; background and ignore are left out."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return tuple(int(c) for c in np.flatnonzero(counts) if c not in (BACKGROUND, IGNORE))


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colours, uint8 [256, 3]: the bits of an id, dealt to red, green and blue."""
    index = np.arange(256)[:, None]
    bits = [((index >> (3 * b + np.arange(3))) & 1) << (7 - b) for b in range(3)]
    return np.sum(bits, 0).astype(np.uint8)
