"""The published formulations that the benchmarks compare with, from their description in the method
reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from ncdss_lib.models.folded_norm import FoldedNorm, ScaledConv2d

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def prototype(features: Tensor, mask: Tensor) -> Tensor:
    """As published: features upsampled to the mask's size, summed under it, normalised.

    Args:
        features: float32 [C, h, w].
        mask: float32 [S, S] in {0, 1}.

    Returns:
        float32 [C].
    """
    upsampled = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
    return F.normalize(upsampled.flatten(1) @ mask.flatten(), dim=0)


def scoring(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    num_base: int,
    num_novel: int,
    clusters: int,
) -> tuple[np.ndarray, np.ndarray]:
    """As published, K > N: all maps in float32 buffers, IoU of each class and cluster from their
    masks, then a meter of every class.

    Args:
        truths: contiguous ids, uint8 [S, S].
        predictions: uint8 [S, S].

    Returns:
        The class of each cluster, int64 [K], and the IoU of each class, float64 [1 + B + N].
    """
    first, classes = 1 + num_base, 1 + num_base + num_novel
    all_truth, all_predicted = (
        np.stack(truths).astype(np.float32),
        np.stack(predictions).astype(np.float32),
    )
    novel = (all_truth >= first) & (all_truth != 255) & (all_predicted >= first)
    truth, predicted = all_truth[novel], all_predicted[novel]
    iou = np.zeros((num_novel, clusters))
    for c in range(num_novel):
        for k in range(clusters):
            one, two = truth == first + c, predicted == first + k
            iou[c, k] = (one & two).sum() / max((one | two).sum(), 1)
    mapping = iou.argmax(0) + first

    hit, false_positive, missed = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for t, p in zip(truths, predictions, strict=True):
        relabelled, valid = p.copy(), t != 255
        for k in range(clusters):
            relabelled[p == first + k] = mapping[k]
        for c in range(classes):
            is_truth, is_predicted = t == c, relabelled == c
            hit[c] += (is_truth & is_predicted & valid).sum()
            false_positive[c] += (is_predicted & ~is_truth & valid).sum()
            missed[c] += (is_truth & ~is_predicted & valid).sum()
    return mapping, hit / np.maximum(hit + false_positive + missed, 1)


def histogram(truth: np.ndarray, prediction: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The customary confusion matrix of NumPy, int64 [rows, columns]: one ``bincount`` over the
    valid pixels.
    """
    valid = (truth >= 0) & (truth < rows)
    return np.bincount(
        columns * truth[valid].astype(int) + prediction[valid], minlength=rows * columns
    ).reshape(rows, columns)


def scoring_by_histograms(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    num_base: int,
    num_novel: int,
    clusters: int,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`scoring` in good NumPy: the same two passes, one to match and one to score, each a
    histogram an image.
    """
    first, classes = 1 + num_base, 1 + num_base + num_novel
    pairs = np.zeros((num_novel, clusters))
    for t, p in zip(truths, predictions, strict=True):
        novel = (t >= first) & (t != 255) & (p >= first)
        pairs += histogram(t[novel] - first, p[novel] - first, num_novel, clusters)
    union = pairs.sum(1, keepdims=True) + pairs.sum(0) - pairs
    mapping = (pairs / np.maximum(union, 1)).argmax(0) + first

    relabel = np.array([*range(first), *mapping], np.uint8)
    counts = np.zeros((classes, classes))
    for t, p in zip(truths, predictions, strict=True):
        counts += histogram(t, relabel[p], classes, classes)
    hit = np.diag(counts)
    return mapping, hit / np.maximum(counts.sum(0) + counts.sum(1) - hit, 1)


def entropy(logits: Tensor, region: Tensor) -> Tensor:
    """Normalised entropy of every pixel (no constant factor), then the mean under
    the region.

    Args:
        logits: float32 [B, C, S, S].
        region: bool [B, S, S].

    Returns:
        float32 [B].
    """
    p = logits.softmax(1)
    pixels = (-p * torch.log2(p + 1e-30) / math.log2(logits.shape[1])).sum(1)
    return torch.stack([image[where].mean() for image, where in zip(pixels, region, strict=True)])


class TrainSet(Dataset):
    """As published: flip, rotation and scaling at original size, resize, division by 255, ImageNet
    normalisation, channels first.

    Args:
        root: a data set in the layout of PASCAL-5i.
        draw: image id -> rotation in degrees, scale, and whether to flip.
        labels: original -> contiguous ids, uint8 [256].
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        draw: Callable[[str], tuple[float, float, bool]],
        labels: np.ndarray,
        size: int,
    ) -> None:
        self.root, self.ids, self.draw, self.labels, self.size = root, ids, draw, labels, size

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image_id = self.ids[index]
        image = np.array(Image.open(self.root / "images" / f"{image_id}.jpg").convert("RGB"))
        label = self.labels[
            np.array(Image.open(self.root / "SegmentationClassAug" / f"{image_id}.png"))
        ]
        angle, scale, flip = self.draw(image_id)
        if flip:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        height, width = label.shape
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
        label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST)
        image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        label = cv2.resize(label, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        x = torch.from_numpy(image.transpose(2, 0, 1)).float().div(255)
        x = x.sub_(torch.from_numpy(MEAN)[:, None, None]).div_(torch.from_numpy(STD)[:, None, None])
        return {"x": x, "y": torch.from_numpy(label).long()}


def training_step(
    backbone: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> Tensor:
    """As published: one step in float32 and the default memory format; x float32 [B, 3, S, S],
    normalised, y int64 [B, S, S].
    """
    (features,) = backbone(x)
    logits = F.interpolate(head(features), y.shape[-2:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(logits, y, ignore_index=255)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def losses_of_two(
    network: Callable[[Tensor], Tensor], base: tuple[Tensor, Tensor], novel: tuple[Tensor, Tensor]
) -> Tensor:
    """The loss of the basic framework: two forwards, the mean of two cross-entropies; each pair is
    x and y as in :func:`training_step`.
    """
    losses = [F.cross_entropy(network(x), y, ignore_index=255) for x, y in (base, novel)]
    return (losses[0] + losses[1]) / 2


def eums_loss(
    student: nn.Module,
    teacher: nn.Module,
    base: tuple[Tensor, Tensor],
    clean: tuple[Tensor, Tensor],
    weak: Tensor,
    strong: Tensor,
) -> Tensor:
    """The loss of EUMS after the ramp-up: parameter by parameter the teacher's average, its labels
    of the weak view, three forwards.
    """
    supervised, unclean = losses_of_two(student, base, clean), student(strong)
    with torch.no_grad():
        for mine, its in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.data = 0.99 * mine.data + 0.01 * its.data
        label = teacher(weak).softmax(1).argmax(1)
    return supervised + F.cross_entropy(unclean, label, ignore_index=255)


def take_norms_apart(network: nn.Module) -> None:
    """Undo :func:`ncdss_lib.models.folded_norm.fold_norms`, in place."""
    for module in network.modules():
        if isinstance(module, ScaledConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
        elif isinstance(module, FoldedNorm):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
