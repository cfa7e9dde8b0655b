"""The one training loop that base training, the basic framework and EUMS share."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.loading import LoadEpoch, Source
from ncdss_lib.method.context import Context
from ncdss_lib.recipes import Training
from ncdss_lib.system.distributed import Batches, Runtime, sum_over_processes, world_size
from ncdss_lib.system.errors import InputError, RunError

Losses = dict[str, Tensor]  # "loss" is minimised, the rest is recorded
StepLoss = Callable[[Any, Batches, int], Losses]  # (network, batches by source name, epoch)


def learning_rate_factor(config: Training, epoch: int, progress: float) -> float:
    """What the learning rate is multiplied with.

    Args:
        epoch: 0-based. ``step``: 0.1 once it is greater than the milestone (published).
        progress: share of all steps that are done. ``cosine``: half a cosine from 1 to 0.
    """
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 0.1 if epoch > config.milestone else 1.0


def pixel_cross_entropy(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, of all processes together.

    Args:
        logits: float [B, C, h, w], resized bilinearly to the target's size.
        target: uint8 or int64 [B, H, W], classes or 255.
        valid: number of pixels to divide by; None: those of ``target`` that are not ignored. DDP
            averages gradients over processes, so each divides by the mean of their numbers.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    # In NCHW, as the softmax over classes wants it: cheaper to change now than at the target's
    # size.
    logits = logits.float().contiguous()
    logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, target.long(), ignore_index=IGNORE, reduction="sum")
    if valid is None:
        valid = sum_over_processes((target != IGNORE).sum()) / world_size()
    return total / valid.clamp(min=1)


def fit(
    run: Context,
    name: str,
    model: nn.Module,
    sources: Sequence[Source],
    step_loss: StepLoss,
    config: Training,
    folder: Path,
    *,
    extra: dict[str, nn.Module] | None = None,
    before_epoch: Callable[[int, Any], None] | None = None,
    validate: Callable[[Any], float] | None = None,
) -> None:
    """Train ``model`` in place; leave ``NAME.safetensors`` (last epoch), ``NAME_best.safetensors``
    and ``NAME_history.csv``.

    Every random choice depends only on (seed, epoch, step), and a checkpoint is kept after each
    epoch until the stage is done: an interrupted training goes on from there and ends with the same
    weights.

    Args:
        sources: lists of images; each step takes one batch from each.
        step_loss: (model, batches by source name, epoch) -> losses; ``loss`` is minimised.
        extra: further modules to keep in checkpoints (the teacher).
        before_epoch: called with (epoch, model) before each epoch, also for the epochs of a resumed
            run that are over.
        validate: called after each epoch when the config tracks or selects the best one; the
            highest value is kept as best.

    Raises:
        RunError: a loss is not finite.
        InputError: a list is shorter than one batch.
    """
    runtime = run.runtime
    optimizer = make_optimizer(model, config, fused=runtime.device.type == "cuda")
    modules = {"model": model, **(extra or {})}
    checkpoint = folder / f"{name}_checkpoint.pt"
    state: dict[str, Any] = {"epoch": 0, "history": [], "best": -math.inf}
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=runtime.device, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        for key, module in modules.items():
            module.load_state_dict(state["modules"][key])
    network, optimizer = runtime.setup(model, optimizer)
    history: list[dict[str, float]] = state["history"]
    load_epoch = run.views.train_loader(sources)
    progress = tqdm(
        total=config.epochs,
        initial=state["epoch"],
        desc=f"train {name}",
        unit="epoch",
        disable=not runtime.is_main,
    )
    for epoch in range(config.epochs):
        if before_epoch:
            before_epoch(epoch, model)
        if epoch < state["epoch"]:
            continue
        _check_lists(
            name,
            sources,
            config,
            epoch,
            least=runtime.world_size * (2 if run.recipe.model.head == "aspp" else 1),
        )
        means = train_epoch(
            runtime, network, optimizer, sources, load_epoch, step_loss, config, run.seed, epoch
        )
        if not all(math.isfinite(value) for value in means.values()):
            raise RunError(
                f"{name}: a loss is not finite in epoch {epoch} ({means}). Lower "
                f"{_section(config)}.lr (now {config.lr}) "
                "and run again; earlier stages are kept."
            )
        for module in modules.values():
            runtime.sync_buffers(module)
        history.append({"epoch": epoch, **means})
        if validate and config.validates:
            miou = history[-1]["val_miou"] = validate(model)
            if miou > state["best"]:
                state["best"] = miou
                _save(run, modules, folder, name, "_best")
        if runtime.is_main:
            weights = {key: module.state_dict() for key, module in modules.items()}
            temporary = checkpoint.with_suffix(".tmp")
            kept = {
                "epoch": epoch + 1,
                "history": history,
                "best": state["best"],
                "optimizer": optimizer.state_dict(),
                "modules": weights,
            }
            torch.save(kept, temporary)
            temporary.replace(checkpoint)
        progress.set_postfix(loss=f"{means['loss']:.3f}")
        progress.update()
    progress.close()
    _save(run, modules, folder, name, "")
    if runtime.is_main:
        with (folder / f"{name}_history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(history[-1]))
            writer.writeheader()
            writer.writerows(history)
    runtime.barrier()


def make_optimizer(model: Any, config: Training, *, fused: bool = False) -> torch.optim.SGD:
    """SGD with a learning rate for the head and one for the encoder, each kept as ``base_lr`` in
    its group.

    Args:
        model: a network with ``head`` and ``encoder``; parameters without gradient are left out.
        fused: one kernel for all parameters (CUDA).
    """
    groups = []
    for module, lr in ((model.head, config.lr), (model.encoder, config.encoder_lr)):
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": lr, "base_lr": lr})
    return torch.optim.SGD(
        groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
    )


def read_history(folder: Path, name: str) -> pd.DataFrame:
    """What :func:`fit` recorded, a row an epoch: mean losses, and ``val_miou`` where epochs were
    scored.
    """
    return pd.read_csv(folder / f"{name}_history.csv")


def train_epoch(
    runtime: Runtime,
    network: Any,
    optimizer: Any,
    sources: Sequence[Source],
    load_epoch: LoadEpoch,
    step_loss: StepLoss,
    config: Training,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One epoch of steps, each with one batch from each source.

    Nothing here waits for the device before the epoch ends: learning rates are known on the host,
    losses are summed on the device.

    Args:
        network, optimizer: from :meth:`Runtime.setup`.
        load_epoch: from the ``train_loader`` of the views.

    Returns:
        ``steps``, and the mean of each loss over steps and processes.
    """
    steps = config.steps_per_epoch or min(
        len(source.ids) // source.batch_size for source in sources
    )
    orders = {source.name: source.batches(seed, epoch, steps) for source in sources}
    plan = [
        {name: runtime.shard(batches[step]) for name, batches in orders.items()}
        for step in range(steps)
    ]
    sums: dict[str, Tensor] = {}
    network.train()
    for step, batches in enumerate(runtime.prefetch(load_epoch(plan, seed, epoch))):
        torch.manual_seed(_step_seed(seed, epoch, step, runtime.rank))
        factor = learning_rate_factor(
            config, epoch, (epoch * steps + step) / (config.epochs * steps)
        )
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        with runtime.autocast():  # also for networks that are not set up: a teacher
            losses = step_loss(network, batches, epoch)
        optimizer.zero_grad(set_to_none=True)
        runtime.fabric.backward(losses["loss"])
        optimizer.step()
        sums = {key: value.detach() + sums.get(key, 0) for key, value in losses.items()}
    return {
        "steps": steps,
        **{
            key: runtime.sum(value).item() / steps / runtime.world_size
            for key, value in sums.items()
        },
    }


def _step_seed(*parts: int) -> int:
    """A seed for dropout that depends only on run seed, epoch, step and process."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _check_lists(
    name: str, sources: Sequence[Source], config: Training, epoch: int, least: int
) -> None:
    """Refuse lists that cannot fill a batch; they may have shrunk since the last epoch."""
    section = _section(config)
    for source in sources:
        if source.batch_size < least:
            raise InputError(
                f"{name}: {section}.batch_size={source.batch_size} is too small: batch-norm needs "
                f"at least {least} images a step "
                "over all processes. Set it higher, or use fewer processes."
            )
        if not source.ids:
            raise InputError(
                f"{name}: the list {source.name!r} is empty in epoch {epoch}. Use more images, or "
                "other clean shares."
            )
        if len(source.ids) < source.batch_size and config.steps_per_epoch is None:
            raise InputError(
                f"{name}: the list {source.name!r} has {len(source.ids)} images, fewer than one "
                f"batch of {source.batch_size}. "
                f"Set {section}.batch_size lower or {section}.steps_per_epoch to a number."
            )


def _save(
    run: Context, modules: dict[str, nn.Module], folder: Path, name: str, suffix: str
) -> None:
    if run.runtime.is_main:
        for key, module in modules.items():
            stem = name if key == "model" else f"{name}_{key}"
            safetensors.torch.save_file(
                {n: t.contiguous() for n, t in module.state_dict().items()},
                folder / f"{stem}{suffix}.safetensors",
            )


def _section(config: Training) -> str:
    return {"BaseTraining": "base_training", "BasicFramework": "basic_framework", "EUMS": "eums"}[
        type(config).__name__
    ]
