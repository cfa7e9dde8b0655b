"""What follows the network, at inference and without training: one object has one class, and its
border is where the image has an edge.

Ours. A pixel does not know its object: a small head decides pixel by pixel, and inside one object
its answer flickers between classes; what the object as a whole says decides (:func:`gate`). And a
head of 28 x 28 cells draws every border a cell too far or too near; the guided filter (He, Sun,
Tang, ECCV 2010) takes what is said in a small window for a linear function of the image's
brightness there, so it changes where the brightness changes (:func:`follow_edges`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ncdss_lib.models.segmenter import upsample

Gate = Literal["none", "part", "image"]
Edges = Literal["none", "guided"]

RADIUS = 1 / 20  # of the window, as a share of the image's side
SMOOTHNESS = 1e-3  # variance of the brightness (0..1) below which a window is flat
COARSE = 4  # the linear functions are found on every 4th pixel (He and Sun, 2015)


def refine(
    logits: Tensor, kind: Gate, strength: float, size: int, images: Tensor | None = None
) -> Tensor:
    """All that follows the network: the gate, the resize, and the edges of the images.

    Args:
        logits: float [b, C, h, w] as the network gives them.
        kind, strength: see :func:`gate`.
        size: the side S that is asked for.
        images: uint8 [b, 3, S, S]; without them borders stay where they are.

    Returns:
        float [b, C, S, S]: logits, or log-probabilities where something was done to them.
    """
    said = upsample(gate(logits, kind, strength), size)
    return said if images is None else follow_edges(said, images)


def gate(logits: Tensor, kind: Gate, strength: float) -> Tensor:
    """Weigh the foreground classes of a pixel by what its object, or its image, says.

    Args:
        logits: float [b, C, H, W]; channel 0 is background.
        kind: ``none``: nothing is changed. ``image``: a class counts as much as its
            total probability in the image; ``part``: in the connected foreground part
            of the pixel (what is background stays as it is).
        strength: the power of that weight, >= 0; at 0 nothing changes, at infinity the
            largest class takes all.

    Returns:
        Log-probabilities, float [b, C, H, W]. A pixel's probability of background, and
        so the sum of all others, is what it was.
    """
    if kind == "none":
        return logits
    probability = logits.float().softmax(1)
    classes = probability[:, 1:]

    # How much of each class its region holds, beside the class it holds most of.
    if kind == "image":
        total = classes.sum((2, 3), keepdim=True)
    else:
        total = part_totals(classes, connected_parts(probability.argmax(1) > 0))
    weight = (total / total.amax(1, keepdim=True)).nan_to_num(1.0) ** strength

    gated = classes * weight
    gated *= classes.sum(1, keepdim=True) / gated.sum(1, keepdim=True).clamp(min=1e-30)
    return torch.cat([probability[:, :1], gated], 1).clamp(min=1e-30).log()


def part_totals(classes: Tensor, parts: Tensor) -> Tensor:
    """Sum of each class over the part that a pixel belongs to.

    Args:
        classes: float [b, C, H, W].
        parts: int64 [b, H, W] from :func:`connected_parts`.

    Returns:
        float [b, C, H, W]; 0 where a pixel belongs to no part.
    """
    flat = classes.transpose(0, 1).flatten(1)  # [C, B * H * W]
    which = parts.flatten()
    totals = flat.new_zeros(len(flat), int(which.max()) + 1).index_add_(1, which, flat)
    totals[:, 0] = 0
    return totals[:, which].view(classes.shape[1], *parts.shape).transpose(0, 1)


def connected_parts(mask: Tensor) -> Tensor:
    """Number the 4-connected parts of some masks.

    Args:
        mask: bool [b, H, W].

    Returns:
        int64 [b, H, W] on the device of the mask: 1, 2, ... through all images, 0 outside.
    """
    within = np.zeros((3, 3, 3), bool)  # neighbours in the same image alone
    within[1] = ndimage.generate_binary_structure(2, 1)
    numbers, _ = ndimage.label(mask.cpu().numpy(), structure=within)
    return torch.from_numpy(numbers.astype(np.int64)).to(mask.device)


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


def guided_filter(
    values: Tensor,
    guide: Tensor,
    radius: float,
    smoothness: float,
) -> Tensor:
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
