"""Stage 5, EUMS: dynamic reassignment and self-training with a mean teacher.

In: the clean and unclean images, the pseudo-labels, and ``basic_oc`` where the student is
warm-started.
Out: ``eums.safetensors`` (student), ``eums_teacher.safetensors``, ``eums_history.csv``,
``splits.csv`` (clean images by epoch), and with ``eums.watch`` what both say about a few unclean
images before each epoch and at the end, ``watched/epoch_E.npz``.

Without self-training (rows of the paper's ablation; how is inferred, the text does not say) the
student learns from base and clean images alone, as in the basic framework, and there is no teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.loading import Source
from ncdss_lib.method.basic_framework import novel_miou, supervised_step
from ncdss_lib.method.clustering import read_pseudo_label
from ncdss_lib.method.context import Context
from ncdss_lib.method.entropy_ranking import image_entropies, read_ranking, split_clean
from ncdss_lib.method.mean_teacher import (
    ema_update,
    hard_pseudo_labels,
    make_teacher,
    settle_disputes,
)
from ncdss_lib.method.prediction_history import keep_snapshot, spread
from ncdss_lib.method.refinement import gate
from ncdss_lib.method.training_loop import Losses, fit, pixel_cross_entropy
from ncdss_lib.models.segmenter import warm_start
from ncdss_lib.recipes import EUMS
from ncdss_lib.system.distributed import Batches
from ncdss_lib.system.folders import whole_file


def ramp_up(epoch: float, length: float, maximum: float = 1.0) -> float:
    """Weight of the self-training loss: ``maximum * exp(-5 (1 - min(epoch, length) / length)^2)``.

    With length 5: .0067, .0408, .1653, .4493, .8187, then 1.
    """
    left = 1 - min(epoch, length) / length if length else 0.0
    return maximum * math.exp(-5 * left**2)


def eums_step(
    student: nn.Module,
    teacher: nn.Module,
    batches: Batches,
    weight: float,
    config: EUMS,
) -> Losses:
    """One step: learn from truth, from pseudo-labels, and from the teacher, who follows.

    Args:
        student, teacher: networks with 1 + B + K outputs; the teacher is changed in place.
        batches: ``base`` and ``clean`` with ``x`` and ``y``, ``unclean`` with a ``weak`` and a
            ``strong`` view of the same geometry.
        weight: of the self-training loss, see :func:`ramp_up`.
        config: the settings of the teacher.

    Returns:
        ``loss``, its three parts, and ``kept``, the share of unclean pixels that the teacher
        labels.
    """
    base, clean, unclean = batches["base"], batches["clean"], batches["unclean"]
    base_logits = student(base["x"])
    clean_logits = student(clean["x"])
    unclean_logits = student(unclean["strong"])

    # The teacher follows the student as it is before this step's gradient.
    ema_update(teacher, student, config.teacher_momentum, config.teacher_buffers)
    teacher.train(config.teacher_mode == "train")

    # Then it labels the unclean images.
    size = clean["y"].shape[-2:]
    said = teacher_logits(teacher, unclean["weak"], size)
    said = gate(said, config.gate, config.gate_strength)
    taught = hard_pseudo_labels(said, config.confidence)

    # Where the recipe says so (the paper does not), it also checks the clean labels.
    pseudo = clean["y"]
    if config.disputed != "keep":
        said = teacher_logits(teacher, clean["x"], size)
        pseudo = settle_disputes(pseudo, said, config.confidence, config.disputed)

    losses = {
        "base": pixel_cross_entropy(base_logits, base["y"]),
        "clean": pixel_cross_entropy(clean_logits, pseudo),
        "unclean": pixel_cross_entropy(unclean_logits, taught),
    }
    loss = (losses["base"] + losses["clean"]) / 2 + weight * losses["unclean"]
    return {"loss": loss, **losses, "kept": (taught != IGNORE).float().mean()}


@torch.no_grad()
def teacher_logits(teacher: nn.Module, inputs: Tensor, size: Sequence[int]) -> Tensor:
    """What the teacher says of its inputs, float32 [b, C, H, W] of the given size.

    No gradient goes there.
    """
    return F.interpolate(teacher(inputs).float(), size, mode="bilinear", align_corners=False)


class Lists:
    """The clean and the unclean images, which dynamic reassignment changes between epochs.

    Args:
        run: whose entropy ranking says which images are clean to begin with.
        folder: of this stage; what a reassignment decided is kept there for a run that resumes.

    Attributes:
        base, clean, unclean: the lists of a training step.
    """

    def __init__(self, run: Context, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.ranking = read_ranking(run.folder / "entropy_ranking")
        batch = run.recipe.eums.batch_size
        truth = partial(read_truth, run.data, run.labels)
        pseudo = partial(read_pseudo_label, run.folder / "clustering", run.clusters["eums"])
        self.base = Source("base", run.splits.base, truth, batch)
        self.clean = Source("clean", self._ranked("clean"), pseudo, batch)
        self.unclean = Source("unclean", self._ranked("unclean"), None, batch)
        self._splits = {"epoch_0": self.ranking["split"] == "clean"}

    def _ranked(self, split: str) -> list[str]:
        return self.ranking.index[self.ranking["split"] == split].tolist()

    def reassign(self, epoch: int, student: nn.Module) -> None:
        """Dynamic reassignment before an epoch: the images of which the student is sure stay clean.

        A resumed run finds what was decided before and does not rank again.
        """
        config = self.run.recipe.eums
        if not config.dynamic_reassignment or epoch not in config.reassign_epochs:
            return
        record = self.folder / f"reassigned_{epoch}.csv"
        if not record.is_file():
            self._rank_again(record, student)
        table = pd.read_csv(record, dtype={"id": str})
        self.unclean.ids = [*self.unclean.ids, *table.loc[~table["clean"], "id"]]
        self.clean.ids = table.loc[table["clean"], "id"].tolist()
        clean = self.ranking.index.isin(self.clean.ids)
        self._splits[f"epoch_{epoch}"] = pd.Series(clean, index=self.ranking.index)

    def _rank_again(self, record: Path, student: nn.Module) -> None:
        """Score today's clean images by the student, and write which of them stay."""
        run, ids = self.run, self.clean.ids
        entropies = image_entropies(run, student, ids)
        scores = np.array([entropies[i] for i in ids])
        clusters = self.ranking.loc[ids, "cluster"].to_numpy()
        per = run.recipe.entropy_ranking.per
        stays = split_clean(scores, clusters, run.recipe.eums.reassign_share, per)
        table = pd.DataFrame({"id": ids, "entropy": scores, "clean": stays})
        run.runtime.barrier()
        if run.runtime.is_main:
            with whole_file(record) as draft:
                table.to_csv(draft, index=False)
        run.runtime.barrier()

    def by_epoch(self) -> pd.DataFrame:
        """Which images were clean from each epoch on: bool, a row an image."""
        return pd.DataFrame(self._splits)


def make_networks(run: Context) -> tuple[nn.Module, nn.Module]:
    """Student and teacher as the recipe wants them to begin."""
    config, clusters = run.recipe.eums, run.clusters["eums"]
    student = run.new_segmenter(clusters, seed=run.seed + 1_000)
    if config.init == "basic_oc":
        warm_start(student, run.load_state("basic_oc"))
    if config.teacher_init == "student":
        return student, make_teacher(student)

    # As published: a head of its own on the student's encoder.
    teacher = make_teacher(run.new_segmenter(clusters, seed=run.seed + 2_000))
    if config.init == "imagenet":
        teacher.encoder.load_state_dict(student.encoder.state_dict())  # type: ignore[union-attr]
    return student, teacher


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train student and teacher."""
    config = run.recipe.eums
    lists = Lists(run, folder)
    student, teacher = make_networks(run)
    labeller = run.runtime.compiled(teacher)
    shown = spread(lists.unclean.ids, config.watch) if config.self_training else []

    def before_epoch(epoch: int, student: nn.Module) -> None:
        lists.reassign(epoch, student)
        keep_snapshot(run, folder, epoch, shown, {"student": student, "teacher": teacher})

    def step_loss(student: nn.Module, batches: Batches, epoch: int) -> Losses:
        if not config.self_training:
            return supervised_step(student, batches)
        weight = ramp_up(epoch, config.ramp_up_epochs, config.max_weight)
        return eums_step(student, labeller, batches, weight, config)

    def validate(student: nn.Module) -> float:
        return novel_miou(run, teacher if config.evaluates_teacher else student)

    sources = [lists.base, lists.clean, lists.unclean]
    fit(
        run,
        "eums",
        student,
        sources if config.self_training else sources[:2],
        step_loss,
        config,
        folder,
        extra={"teacher": teacher} if config.self_training else {},
        before_epoch=before_epoch,
        validate=validate,
    )
    keep_snapshot(run, folder, config.epochs, shown, {"student": student, "teacher": teacher})
    if run.runtime.is_main:
        lists.by_epoch().to_csv(folder / "splits.csv")
    return {
        "clean": len(lists.clean.ids),
        "unclean": len(lists.unclean.ids),
        "epochs": config.epochs,
    }
