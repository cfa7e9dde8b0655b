"""Stage 5, EUMS: dynamic reassignment and self-training with a mean teacher (section 10).

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
from ncdss_lib.method.inference import predict
from ncdss_lib.method.mean_teacher import (
    ema_update,
    hard_pseudo_labels,
    make_teacher,
    settle_disputes,
)
from ncdss_lib.method.training_loop import Losses, fit, pixel_cross_entropy
from ncdss_lib.models.segmenter import warm_start
from ncdss_lib.recipes import EUMS
from ncdss_lib.system.distributed import Batches


def ramp_up(epoch: float, length: float, maximum: float = 1.0) -> float:
    """Weight of the self-training loss: ``maximum * exp(-5 (1 - min(epoch, length) / length)^2)``.

    With length 5: .0067, .0408, .1653, .4493, .8187, then 1.
    """
    return maximum * math.exp(-5 * (1 - min(epoch, length) / length) ** 2) if length else maximum


def eums_step(
    student: nn.Module, teacher: nn.Module, batches: Batches, weight: float, config: EUMS
) -> Losses:
    """One step: the student learns from truth, from pseudo-labels and from the teacher, who follows
    it.

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
    base_logits, clean_logits, unclean_logits = (
        student(base["x"]),
        student(clean["x"]),
        student(unclean["strong"]),
    )

    # The teacher follows the student's weights before this step, then labels what the student is to
    # learn.
    ema_update(teacher, student, config.teacher_momentum, config.teacher_buffers)
    teacher.train(config.teacher_mode == "train")
    size = clean["y"].shape[-2:]
    taught = hard_pseudo_labels(teacher_logits(teacher, unclean["weak"], size), config.confidence)
    pseudo = clean["y"]
    if config.disputed != "keep":
        pseudo = settle_disputes(
            pseudo, teacher_logits(teacher, clean["x"], size), config.confidence, config.disputed
        )

    on_base = pixel_cross_entropy(base_logits, base["y"])
    on_clean = pixel_cross_entropy(clean_logits, pseudo)
    on_unclean = pixel_cross_entropy(unclean_logits, taught)
    loss = (on_base + on_clean) / 2 + weight * on_unclean
    return {
        "loss": loss,
        "base": on_base,
        "clean": on_clean,
        "unclean": on_unclean,
        "kept": (taught != IGNORE).float().mean(),
    }


@torch.no_grad()
def teacher_logits(teacher: nn.Module, inputs: Tensor, size: Sequence[int]) -> Tensor:
    """What the teacher says of its inputs, float32 [B, C, H, W] of the given size.

    No gradient goes there.
    """
    return F.interpolate(teacher(inputs).float(), size, mode="bilinear", align_corners=False)


def watch(
    run: Context, path: Path, ids: Sequence[str], student: nn.Module, teacher: nn.Module
) -> None:
    """Keep what student and teacher say about some images, unless it is kept already (a run that
    goes on, whose networks are older now).

    Args:
        path: an ``.npz`` file with ``ids``, and for ``student`` and ``teacher`` labels, uint8 [n,
            S, S], and under ``NAME_probability`` the probability of each label, uint8 [n, S, S],
            255 for certain.
    """
    if not ids or path.is_file():
        return
    rows: list[tuple[str, dict[str, np.ndarray]]] = []
    for name, network in {"student": student, "teacher": teacher}.items():
        for batch, logits in predict(run, network, ids, run.views.size, "watch"):
            probability, label = logits.softmax(1).max(1)
            both = (x.to(torch.uint8).cpu().numpy() for x in (label, (probability * 255).round()))
            rows += [
                (i, {name: own, f"{name}_probability": p})
                for i, own, p in zip(batch, *both, strict=True)
            ]
    found: dict[str, dict[str, np.ndarray]] = {i: {} for i in ids}
    for i, own in run.runtime.gather(rows):
        found[i] |= own
    if run.runtime.is_main:
        path.parent.mkdir(exist_ok=True)
        maps: dict[str, Any] = {
            key: np.stack([own[key] for own in found.values()]) for key in found[ids[0]]
        }
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, ids=np.array(ids), **maps)
        temporary.replace(path)


def read_watched(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """What :func:`watch` kept in the folder of the stage: epoch -> arrays; empty where nothing was
    kept.
    """
    files = {
        int(path.stem.removeprefix("epoch_")): path
        for path in (folder / "watched").glob("epoch_*.npz")
    }
    return {epoch: dict(np.load(files[epoch])) for epoch in sorted(files)}


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train student and teacher."""
    config, clusters = run.recipe.eums, run.clusters["eums"]
    ranking = read_ranking(run.folder / "entropy_ranking")
    student = run.new_segmenter(clusters, seed=run.seed + 1_000)
    if config.init == "basic_oc":
        warm_start(student, run.load_state("basic_oc"))
    teacher = make_teacher(
        student,
        run.new_segmenter(clusters, seed=run.seed + 2_000)
        if config.teacher_init == "independent"
        else None,
    )
    if config.teacher_init == "independent" and config.init == "imagenet":
        teacher.encoder.load_state_dict(student.encoder.state_dict())  # type: ignore[union-attr]

    base = Source(
        "base", run.splits.base, partial(read_truth, run.data, run.labels), config.batch_size
    )
    clean = Source(
        "clean",
        ranking.index[ranking["split"] == "clean"].tolist(),
        partial(read_pseudo_label, run.folder / "clustering", clusters),
        config.batch_size,
    )
    unclean = Source(
        "unclean", ranking.index[ranking["split"] == "unclean"].tolist(), None, config.batch_size
    )
    splits = {"epoch_0": ranking["split"] == "clean"}

    def reassign(epoch: int, student: Any) -> None:
        """Dynamic reassignment: the clean images of which the student is sure stay clean."""
        if not config.dynamic_reassignment or epoch not in config.reassign_epochs:
            return
        record = folder / f"reassigned_{epoch}.csv"
        if not record.is_file():  # there already when a run resumes after this epoch
            entropies = image_entropies(run, student, clean.ids)
            scores, groups = (
                np.array([entropies[i] for i in clean.ids]),
                ranking.loc[clean.ids, "cluster"].to_numpy(),
            )
            stays = split_clean(
                scores, groups, config.reassign_share, run.recipe.entropy_ranking.per
            )
            run.runtime.barrier()
            if run.runtime.is_main:
                temporary = record.with_suffix(".tmp")
                pd.DataFrame({"id": clean.ids, "entropy": scores, "clean": stays}).to_csv(
                    temporary, index=False
                )
                temporary.replace(record)
            run.runtime.barrier()
        table = pd.read_csv(record, dtype={"id": str})
        unclean.ids = [*unclean.ids, *table.loc[~table["clean"], "id"]]
        clean.ids = table.loc[table["clean"], "id"].tolist()
        splits[f"epoch_{epoch}"] = pd.Series(ranking.index.isin(clean.ids), index=ranking.index)

    watched = (
        unclean.ids[:: max(1, len(unclean.ids) // max(1, config.watch))][: config.watch]
        if config.self_training
        else []
    )

    def before_epoch(epoch: int, student: Any) -> None:
        reassign(epoch, student)
        watch(run, folder / "watched" / f"epoch_{epoch}.npz", watched, student, teacher)

    labeller = run.runtime.compiled(teacher)

    def step_loss(student: Any, batches: Batches, epoch: int) -> Losses:
        if not config.self_training:
            return supervised_step(student, batches)
        return eums_step(
            student,
            labeller,
            batches,
            ramp_up(epoch, config.ramp_up_epochs, config.max_weight),
            config,
        )

    fit(
        run,
        "eums",
        student,
        [base, clean, unclean] if config.self_training else [base, clean],
        step_loss,
        config,
        folder,
        extra={"teacher": teacher} if config.self_training else {},
        before_epoch=before_epoch,
        validate=lambda student: novel_miou(run, teacher if config.evaluates_teacher else student),
    )
    watch(run, folder / "watched" / f"epoch_{config.epochs}.npz", watched, student, teacher)
    if run.runtime.is_main:
        pd.DataFrame(splits).to_csv(folder / "splits.csv")
    return {"clean": len(clean.ids), "unclean": len(unclean.ids), "epochs": config.epochs}
