"""The mean teacher of self-training (Tarvainen and Valpola 2017) and what it teaches."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(
    teacher: nn.Module,
    student: nn.Module,
    momentum: float,
    buffers: Literal["own", "copy", "average"],
) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place.

    Args:
        teacher, student: networks with the same parameters and buffers.
        momentum: 0.99 as published; the half-life is log(1/2) / log(momentum) = 69 steps.
        buffers: batch-norm statistics. ``own`` (published) leaves those that the teacher gathered
            itself, ``copy`` takes the student's, ``average`` (laptop recipe, because they should
            fit the averaged weights) treats them as the parameters.
    """
    averaged: list[tuple[Tensor, Tensor]] = list(
        zip(teacher.parameters(), student.parameters(), strict=True)
    )
    copied: list[tuple[Tensor, Tensor]] = []
    if buffers != "own":
        copied = list(zip(teacher.buffers(), student.buffers(), strict=True))
    if buffers == "average":
        averaged += [pair for pair in copied if pair[0].is_floating_point()]
        copied = [pair for pair in copied if not pair[0].is_floating_point()]
    teachers = [teacher for teacher, _ in averaged]
    students = [student for _, student in averaged]
    torch._foreach_lerp_(teachers, students, 1 - momentum)
    for teachers_own, students_own in copied:
        teachers_own.copy_(students_own)


def make_teacher(student: nn.Module, other: nn.Module | None = None) -> nn.Module:
    """A frozen copy of the student, or of ``other``: one with its own random head, as published."""
    teacher = copy.deepcopy(other if other is not None else student)
    return teacher.requires_grad_(False)


@torch.no_grad()
def hard_pseudo_labels(logits: Tensor, confidence: float) -> Tensor:
    """The teacher's labels for unlabelled pixels.

    Args:
        logits: float [b, C, H, W].
        confidence: pixels whose highest probability is below become 255; 0 (published) keeps all.

    Returns:
        int64 [b, H, W], classes 0..C-1 or 255.
    """
    probability, label = logits.softmax(1).max(1)
    return label.masked_fill_(probability < confidence, 255)


@torch.no_grad()
def settle_disputes(
    target: Tensor,
    logits: Tensor,
    confidence: float,
    disputed: Literal["keep", "ignore", "relabel"],
) -> Tensor:
    """Pseudo-labels of clean images, checked by the teacher.

    Args:
        target: uint8 or int64 [b, H, W], pseudo-labels or 255.
        logits: float [b, C, H, W] of the teacher.
        confidence: a pixel is disputed where the teacher's label is another one with at least this
            probability.
        disputed: ``keep`` the pseudo-label (published), ``ignore`` the pixel, or ``relabel`` it as
            the teacher says (laptop recipe, because one cluster an image on a saliency mask is
            wrong wherever a second object or the background is salient).

    Returns:
        Integer [b, H, W].
    """
    if disputed == "keep":
        return target
    label = hard_pseudo_labels(logits, confidence)
    differs = (label != target) & (label != 255) & (target != 255)
    return torch.where(differs, label if disputed == "relabel" else 255, target)
