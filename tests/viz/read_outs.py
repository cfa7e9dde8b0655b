"""What explorers must read out, in NumPy: the script of a page computes the same from the same arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.viz.explorer_data import KINDS, Picture, Teaching, Threshold
from ncdss_lib.viz.results import share_of


def label_shares(picture: Picture, layer: str) -> dict[int, float]:
    """Share of the picture's pixels with each label of a layer, greatest first."""
    counts = np.bincount(picture.maps[layer].ravel(), minlength=256)
    order = np.argsort(-counts, kind="stable")
    return {int(k): float(counts[k] / counts.sum()) for k in order if counts[k]}


def mask_shares(data: Threshold, threshold: float) -> dict[str, float]:
    """Over all novel images, the share of each kind in the novel masks; ``covered``: of novel pixels, those in the masks."""
    below = sum(t < threshold for t in data.thresholds)  # offered thresholds that a pixel may be above and still stay
    stays = data.counts[:, : below + 1].sum(1)
    shares = {kind: share_of(n, stays.sum()) for kind, n in zip(KINDS, stays, strict=True)}
    return {**shares, "covered": share_of(stays[0], data.novel)}


def teaching_shares(data: Teaching, epoch: int, threshold: float, pictures: Sequence[Picture] | None = None) -> dict[str, float]:
    """Over some pictures (None: all).

    Returns:
        ``agree``: of all pixels, those on which both say the same; ``kept``: those that the teacher labels with at least the threshold;
        ``student`` and ``teacher``: of the novel pixels, those that they label rightly; ``taught``: the teacher's among
        those that it labels.
    """
    names = ("truth", f"student_{epoch}", f"teacher_{epoch}", f"sure_{epoch}")
    chosen = data.pictures if pictures is None else pictures
    truth, student, teacher, sure = (np.concatenate([picture.maps[name].ravel() for picture in chosen]) for name in names)
    kept = sure >= round(threshold * data.steps)
    novel = (truth > data.num_base) & (truth != IGNORE)
    teacher_right = novel & (data.mapping[teacher] == truth)
    student_right = novel & (data.mapping[student] == truth)
    return {
        "agree": share_of((student == teacher).sum(), truth.size),
        "kept": share_of(kept.sum(), truth.size),
        "student": share_of(student_right.sum(), novel.sum()),
        "teacher": share_of(teacher_right.sum(), novel.sum()),
        "taught": share_of((teacher_right & kept).sum(), (novel & kept).sum()),
    }


def class_iou(picture: Picture, model: str, label: int) -> float:
    """IoU of a class on one picture as shown; NaN where it is neither there nor predicted. Ignored pixels do not count."""
    known = picture.maps["truth"] != IGNORE
    there = (picture.maps["truth"] == label) & known
    said = (picture.maps[model] == label) & known
    return share_of((there & said).sum(), (there | said).sum())
