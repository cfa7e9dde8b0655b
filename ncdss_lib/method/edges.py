"""Borders: what a coarse head says follows the edges of the image, at inference, without training.

Ours, because a head of 28 x 28 or 36 x 36 cells draws every border a cell too far or too near. The
guided filter (He, Sun, Tang, ECCV 2010) takes what is said in a small window for a linear function
of the image's brightness there, so it changes where the brightness changes.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ncdss_lib.models.segmenter import upsample

Edges = Literal["none", "guided"]

RADIUS = 1 / 20  # of the window, as a share of the image's side
SMOOTHNESS = 1e-3  # variance of the brightness (0..1) below which a window is flat
COARSE = 4  # the linear functions are found on every 4th pixel (He and Sun, 2015)


def follow_edges(logits: Tensor, images: Tensor) -> Tensor:
    """Class probabilities of pixels, filtered by the guided filter under the image.

    Args:
        logits: float [b, C, S, S].
        images: uint8 [b, 3, S, S].

    Returns:
        Log-probabilities, float [b, C, S, S].
    """
    brightness = images.float().mean(1, keepdim=True) / 255
    filtered = guided_filter(logits.float().softmax(1), brightness, RADIUS, SMOOTHNESS)
    return filtered.clamp(min=1e-30).log()


def guided_filter(values: Tensor, guide: Tensor, radius: float, smoothness: float) -> Tensor:
    """The fast guided filter: values as a function of the guide that is linear within a window.

    Args:
        values: float [b, C, S, S].
        guide: float [b, 1, S, S], 0..1.
        radius: of the square window, as a share of S.
        smoothness: added to the variance of the guide: the larger, the smoother.

    Returns:
        float [b, C, S, S]. Channels that sum to 1 still do; single values may leave 0..1 a little.
    """
    size = values.shape[-1]
    cells = max(1, round(radius * size / COARSE))

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * cells + 1, 1, cells, count_include_pad=False)

    # In each window: values = slope * guide + offset, by least squares.
    p, g = (F.avg_pool2d(x, COARSE, ceil_mode=True) for x in (values, guide))
    covariance = mean(g * p) - mean(g) * mean(p)
    variance = mean(g * g) - mean(g) ** 2
    slope = covariance / (variance + smoothness)
    offset = mean(p) - slope * mean(g)

    # A pixel is in many windows.
    return upsample(mean(slope), size) * guide + upsample(mean(offset), size)
