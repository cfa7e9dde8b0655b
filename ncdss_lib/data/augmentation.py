"""Random geometry and colours of training images, and the resize to the network's input."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import ColorJitter

from ncdss_lib.data.masks import resize_labels
from ncdss_lib.recipes import Data


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """OpenCV's cubic resize of uint8 [H, W, 3] to [size, size, 3], as published.

    The aspect ratio is not kept, and there is no anti-aliasing.
    """
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def augment(
    image: np.ndarray, labels: np.ndarray | None, config: Data, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """One random geometry for an image and its label map.

    Each is sampled twice: at original size, then by the resize.

    Args:
        image: uint8 [H, W, 3].
        labels: uint8 [H, W] or None.

    Returns:
        uint8 [size, size, 3] and uint8 [target_size, target_size] (or None). Uncovered borders
        are black and ``label_border``.
    """
    angle = rng.uniform(-config.rotation, config.rotation)
    scale = rng.uniform(*config.scale)
    flip = rng.random() < config.flip
    height, width = image.shape[:2]
    geometry = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)

    def warp(pixels: np.ndarray, interpolation: int, border: int) -> np.ndarray:
        pixels = cv2.flip(pixels, 1) if flip else pixels
        return cv2.warpAffine(
            pixels, geometry, (width, height), flags=interpolation, borderValue=border
        )

    picture = resize_image(warp(image, cv2.INTER_CUBIC, 0), config.size)
    if labels is None:
        return picture, None
    return picture, resize_labels(
        warp(labels, cv2.INTER_NEAREST, config.label_border), config.target_size
    )


def jitter_colours(image: np.ndarray, config: Data, seed: int) -> np.ndarray:
    """torchvision's ColorJitter of uint8 [H, W, 3]: random changes in random order, by Pillow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.array(ColorJitter(*config.jitter)(Image.fromarray(image)))
