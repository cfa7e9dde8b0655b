"""The gate: one object, one class, at inference and without training.

Ours, because a pixel does not know its object: a small head decides pixel by pixel, and inside one
object its answer flickers between classes. What the object as a whole says decides.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

Gate = Literal["none", "part", "image"]


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
