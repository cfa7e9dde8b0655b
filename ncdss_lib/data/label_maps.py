"""Label maps as files and arrays: 8-bit palette PNGs of class indices, and their resize."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def read_labels(path: Path) -> np.ndarray:
    """An 8-bit PNG of class indices, uint8 [H, W]; palettes are not applied."""
    with Image.open(path) as png:
        return np.array(png)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write uint8 [H, W] as an 8-bit palette PNG with the 256 colours of PASCAL VOC, so that ids above 20 survive."""
    path.parent.mkdir(exist_ok=True)
    png = Image.fromarray(labels)
    png.putpalette(voc_palette().ravel().tolist())
    png.save(path)


def resize_labels(labels: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Nearest resize of uint8 or bool [H, W] to [size, size] or to (height, width): OpenCV's, without its rounding errors."""
    height, width = (size, size) if isinstance(size, int) else size
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    return labels.take(columns, 1).take(rows, 0)  # the other way round touches more memory where an image grows


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colour map: the bits of a class id, dealt in turn to red, green and blue; uint8 [256, 3]."""
    index = np.arange(256)[:, None]
    bits = [((index >> (3 * b + np.arange(3))) & 1) << (7 - b) for b in range(3)]
    return np.sum(bits, 0).astype(np.uint8)
