"""The segmentation network: an encoder (or cached features) and a head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ncdss_lib.models.encoders import Encoder
from ncdss_lib.recipes import Model


class Segmenter(nn.Module):
    """Encoder, head, and logits at any size.

    Args:
        encoder: maps its input to features [b, C, h, w]; ``nn.Identity()`` where the input is
            cached features.
        head: maps features to logits [b, outputs, h, w].
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def outputs(self) -> int:
        """Channels of the logits, background included."""
        return next(
            m for m in reversed(list(self.head.modules())) if isinstance(m, nn.Conv2d)
        ).out_channels

    def forward(self, inputs: Tensor, size: int | None = None) -> Tensor:
        """Logits [b, outputs, size, size], or [b, outputs, h, w] without ``size``.

        Args:
            inputs: uint8 images [b, 3, H, W], or cached features [b, C, h, w].
        """
        features = self.encoder(inputs)
        if not torch.is_autocast_enabled(features.device.type):
            features = features.float()  # cached features are half precision
        return upsample(self.head(features), size)


def upsample(logits: Tensor, size: int | None) -> Tensor:
    """Bilinear resize of [b, C, h, w] to [b, C, size, size] (align_corners=False, as published)."""
    if size is None or logits.shape[-2:] == (size, size):
        return logits
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)


class Committee(nn.Module):
    """Several heads on the same features that decide by the mean of their probabilities (ours).

    Args:
        members: heads with the same outputs.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, features: Tensor) -> Tensor:
        """float [B, C, h, w] to log-probabilities [B, outputs, h, w]."""
        return mean_log_probability([head(features) for head in self.members])


def mean_log_probability(logits: Sequence[Tensor]) -> Tensor:
    """The mean of the probabilities of several heads or networks, as log-probabilities.

    Args:
        logits: of each, float [B, C, h, w].

    Returns:
        float32 [B, C, h, w].
    """
    mean = torch.stack([own.float().softmax(1) for own in logits]).mean(0)
    return mean.clamp(min=1e-30).log()


class ImagePooling(nn.Sequential):
    """The image-level branch of torchvision's ASPP, in the memory format of its input.

    It is a mean, a 1x1 convolution, batch-norm and ReLU.

    The original gives NCHW output and, in the backward pass, NCHW gradients to channels-last
    features; every operation that meets both formats then walks through memory in the wrong order.
    """

    def forward(self, features: Tensor) -> Tensor:
        """float [b, C, h, w] to [b, 256, h, w], the same at every pixel."""
        height, width = features.shape[-2:]
        pooled = features.sum((2, 3), keepdim=True) / (height * width)
        for module in list(self)[1:]:  # the first is the mean
            pooled = module(pooled)
        everywhere = pooled.expand(-1, -1, height, width)
        channels_last = features.is_contiguous(memory_format=torch.channels_last)
        return everywhere.contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )


def build_head(config: Model, in_channels: int, outputs: int) -> nn.Module:
    """``aspp``: torchvision's DeepLabv3 head, rates 12, 24, 36, as published.

    ``conv`` (ours, because frozen features already see a wide context): 1x1 and 3x3 convolution,
    then the classifier.
    """
    if config.head == "aspp":
        head: nn.Module = DeepLabHead(in_channels, outputs, atrous_rates=(12, 24, 36))
        branches = head[0].convs  # type: ignore[index]
        branches[-1] = ImagePooling(*branches[-1])
        for module in head.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        return head
    width = config.head_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        nn.Conv2d(width, outputs, 1),
    )


def build_segmenter(
    config: Model,
    outputs: int,
    *,
    feature_channels: int | None = None,
    seed: int = 0,
    members: int = 1,
) -> Segmenter:
    """A fresh segmenter: pretrained encoder, random head drawn from ``seed``.

    Args:
        outputs: channels of the logits, background included.
        feature_channels: channels of cached features, which then take the encoder's place.
        members: heads; several are a :class:`Committee`.
    """
    encoder: nn.Module = nn.Identity() if feature_channels else Encoder(config)
    channels = feature_channels or sum(encoder.channels)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = [build_head(config, channels, outputs) for _ in range(members)]
        head = heads[0] if members == 1 else Committee(heads)
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return Segmenter(encoder, head)


def warm_start(model: Segmenter, state: dict[str, Tensor]) -> None:
    """Copy a trained segmenter into another one, as far as their shapes agree.

    The rows of a classifier with more outputs keep their fresh values, so a base model (1 + B
    outputs) starts a novel one (1 + B + K).
    """
    own = model.state_dict()
    for name, tensor in state.items():
        rows = min(len(tensor), len(own[name])) if tensor.ndim else 0
        if tensor.shape == own[name].shape:
            own[name].copy_(tensor)
        elif tensor.shape[1:] == own[name].shape[1:]:
            own[name][:rows].copy_(tensor[:rows])
        else:
            raise ValueError(f"{name}: {tuple(tensor.shape)} does not fit {tuple(own[name].shape)}")
