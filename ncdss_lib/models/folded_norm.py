"""Batch-norm with fixed statistics is a scale and a shift: here they go into the convolution.

Ours, because the encoder's batch-norm never takes statistics of a batch (as published): a pass of
its own over every feature map costs time and, for its gradient, a second copy of the map. The
function is the same, and so are the gradients of all parameters, up to rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn


def fold_norms(network: nn.Module) -> None:
    """Let each convolution do the work of the batch-norm that follows it, in place.

    Names and values of all parameters and buffers stay as they are.

    Args:
        network: one whose modules hold each convolution directly before its batch-norm, as
            ResNets do.
    """
    for module in network.modules():
        for conv, norm in pairwise(module.children()):
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and conv.bias is None:
                conv.__class__ = ScaledConv2d
                norm.__class__ = FoldedNorm
                # In a tuple, since a module that is assigned would be registered twice.
                cast(ScaledConv2d, conv).norm_after = (cast(FoldedNorm, norm),)


class FoldedNorm(nn.BatchNorm2d):
    """A batch-norm whose scale and shift the convolution before it applies."""

    def forward(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x


class ScaledConv2d(nn.Conv2d):
    """A convolution, and the batch-norm after it with its running statistics."""

    norm_after: tuple[FoldedNorm]

    def forward(self, x: Tensor) -> Tensor:
        """float [b, C, H, W] to what the batch-norm would give of the convolution of it."""
        norm = self.norm_after[0]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), shift)
