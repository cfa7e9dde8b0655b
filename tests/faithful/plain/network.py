"""ResNet dilated to output stride 8 with the DeepLabv3 head, as functions of a dictionary of weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
BACKBONE, HEAD = "encoder.backbone.", "head."
#: Layer -> stride of its first block, dilation of that block's strided 3x3 convolution, dilation of all other 3x3 convolutions.
LAYERS = {"layer1": (1, 1, 1), "layer2": (2, 1, 1), "layer3": (1, 1, 2), "layer4": (1, 2, 4)}
RATES = (12, 24, 36)


def batch_norm(x: Tensor, w: Weights, name: str, *, batch_statistics: bool) -> Tensor:
    """In training by the batch's own mean and (biased) variance, which also move the running ones by a tenth (variance unbiased)."""
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    if batch_statistics:
        mean, variance, count = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False), x.numel() / x.shape[1]
        with torch.no_grad():
            w[f"{name}.running_mean"] = 0.9 * w[f"{name}.running_mean"] + 0.1 * mean
            w[f"{name}.running_var"] = 0.9 * w[f"{name}.running_var"] + 0.1 * variance * count / (count - 1)
    scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def block(x: Tensor, w: Weights, name: str, stride: int, first: int, others: int) -> Tensor:
    """A residual block: of two 3x3 convolutions (ResNet-18), or of 1x1, 3x3 and 1x1 (ResNet-50)."""

    def conv_bn(x: Tensor, number: int, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = w[f"{name}.conv{number}.weight"]
        x = F.conv2d(x, kernel, stride=stride, dilation=dilation, padding=dilation * (kernel.shape[-1] // 2))
        return batch_norm(x, w, f"{name}.bn{number}", batch_statistics=False)

    if f"{name}.conv3.weight" in w:
        y = conv_bn(conv_bn(conv_bn(x, 1).relu(), 2, stride, first).relu(), 3)
    else:
        y = conv_bn(conv_bn(x, 1, stride, first).relu(), 2, 1, others)
    if f"{name}.downsample.0.weight" in w:
        x = batch_norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), w, f"{name}.downsample.1", batch_statistics=False)
    return (x + y).relu()


def backbone(w: Weights, images: Tensor) -> Tensor:
    """layer4 of normalised images, at stride 8. All batch-norm of the backbone always uses ImageNet's statistics."""
    x = batch_norm(F.conv2d(images, w[f"{BACKBONE}conv1.weight"], stride=2, padding=3), w, f"{BACKBONE}bn1", batch_statistics=False)
    x = F.max_pool2d(x.relu(), 3, stride=2, padding=1)
    for layer, (stride, first, others) in LAYERS.items():
        number = 0
        while f"{BACKBONE}{layer}.{number}.conv1.weight" in w:
            strided = number == 0
            x = block(x, w, f"{BACKBONE}{layer}.{number}", stride if strided else 1, first if strided else others, others)
            number += 1
    return x


def head(w: Weights, x: Tensor, *, training: bool, dropout: float) -> Tensor:
    """ASPP with rates 12, 24, 36, 1x1 and image pooling; project, dropout; 3x3; classifier. Logits at stride 8."""

    def conv_bn_relu(x: Tensor, conv: str, bn: str, dilation: int = 1) -> Tensor:
        kernel = w[f"{HEAD}{conv}.weight"]
        x = F.conv2d(x, kernel, dilation=dilation, padding=dilation * (kernel.shape[-1] // 2))
        return batch_norm(x, w, f"{HEAD}{bn}", batch_statistics=training).relu()

    branches = [conv_bn_relu(x, "0.convs.0.0", "0.convs.0.1")]
    branches += [conv_bn_relu(x, f"0.convs.{n}.0", f"0.convs.{n}.1", rate) for n, rate in enumerate(RATES, 1)]
    pooled = conv_bn_relu(x.mean((2, 3), keepdim=True), "0.convs.4.1", "0.convs.4.2")
    branches.append(pooled.expand(-1, -1, *x.shape[2:]))
    x = conv_bn_relu(torch.cat(branches, 1), "0.project.0", "0.project.1")
    x = conv_bn_relu(F.dropout(x, dropout, training), "1", "2")
    return F.conv2d(x, w[f"{HEAD}4.weight"], w[f"{HEAD}4.bias"])


def segment(w: Weights, images: Tensor, size: int, *, training: bool = False, dropout: float = 0.5) -> Tensor:
    """Logits at ``size`` pixels of normalised images: the network's output, upsampled bilinearly (align_corners=False)."""
    logits = head(w, backbone(w, images), training=training, dropout=dropout)
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
