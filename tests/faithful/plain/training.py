"""Losses, steps and optimiser of the three trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.faithful.plain.network import BACKBONE, HEAD, Weights, segment

Batch = dict[str, Tensor]  # normalised images "x" with labels "y", or "weak" and "strong" images


def is_parameter(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def groups(w: Weights) -> dict[str, list[str]]:
    """Names of what is trained: the head, and layer3 and layer4 with the affine weights of their batch-norm."""
    deep = (f"{BACKBONE}layer3", f"{BACKBONE}layer4")
    return {
        "head": [name for name in w if name.startswith(HEAD) and is_parameter(name)],
        "backbone": [name for name in w if name.startswith(deep) and is_parameter(name)],
    }


def learning_rate(epoch: int, milestones: Sequence[int], start: float = 0.1) -> float:
    """A tenth for each milestone that the 0-based epoch is greater than."""
    return start * 0.1 ** sum(epoch > milestone for milestone in milestones)


def ramp_up(epoch: int) -> float:
    return 1.0 * math.exp(-5 * (1 - min(epoch, 5) / 5) ** 2)


def cross_entropy_of_pixels(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax at the label, over the pixels that are not 255, one pixel after the other."""
    terms = []
    for (b, y, x), label in np.ndenumerate(labels):
        if label != 255:
            pixel = logits[b, :, y, x]
            total = sum(math.exp(value - pixel[label]) for value in pixel)
            terms.append(math.log(total))
    return sum(terms) / len(terms)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The same, of tensors, so that it has a gradient."""
    log_p = logits - logits.logsumexp(1, keepdim=True)
    valid = labels != 255
    picked = log_p.gather(1, torch.where(valid, labels, 0)[:, None])[:, 0]
    return -(picked[valid]).sum() / valid.sum()


def base_loss(w: Weights, batches: dict[str, Batch], dropout: float) -> Tensor:
    """As published."""
    batch = batches["base_train"]
    return cross_entropy(segment(w, batch["x"], batch["y"].shape[-1], training=True, dropout=dropout), batch["y"])


def basic_loss(w: Weights, batches: dict[str, Batch], dropout: float) -> Tensor:
    """As published: two forwards, each with the batch statistics of its own domain."""
    losses = []
    for name in ("base", "novel"):
        labels = batches[name]["y"]
        size = labels.shape[-1]
        logits = segment(w, batches[name]["x"], size, training=True, dropout=dropout)
        losses.append(cross_entropy(logits, labels))
    return (losses[0] + losses[1]) / 2


def eums_loss(
    student: Weights,
    teacher: Weights,
    batches: dict[str, Batch],
    epoch: int,
    dropout: float,
    threshold: float = 0.0,
) -> Tensor:
    """As published: the student on base, clean and strong; then the teacher follows; then it labels weak, in training mode."""
    base, clean, unclean = batches["base"], batches["clean"], batches["unclean"]
    size = base["y"].shape[-1]
    mode = {"training": True, "dropout": dropout}
    on_base = segment(student, base["x"], size, **mode)
    on_clean = segment(student, clean["x"], size, **mode)
    on_strong = segment(student, unclean["strong"], size, **mode)
    with torch.no_grad():
        for name in filter(is_parameter, teacher):
            teacher[name] = 0.99 * teacher[name] + 0.01 * student[name]
        said = segment(teacher, unclean["weak"], size, **mode)
        probability, label = said.softmax(1).max(1)
        label[probability < threshold] = 255
    supervised = cross_entropy(on_base, base["y"]) + cross_entropy(on_clean, clean["y"])
    return supervised / 2 + ramp_up(epoch) * cross_entropy(on_strong, label)


class Sgd:
    """SGD with momentum 0.9 and weight decay 1e-4: v <- 0.9 v + g + 1e-4 w, then w <- w - lr v; the backbone at a hundredth of the rate."""

    def __init__(self, backbone_share: float = 0.01) -> None:
        self.backbone_share = backbone_share
        self.velocity: Weights = {}

    def step(self, w: Weights, gradients: Weights, lr: float) -> None:
        for name, gradient in gradients.items():
            rate = lr if name.startswith(HEAD) else self.backbone_share * lr
            self.velocity[name] = 0.9 * self.velocity.get(name, torch.zeros(())) + gradient + 1e-4 * w[name]
            w[name] = w[name] - rate * self.velocity[name]


def gradients(w: Weights, loss: Tensor, names: Sequence[str]) -> Weights:
    return dict(zip(names, torch.autograd.grad(loss, [w[name] for name in names]), strict=True))
