"""The one training loop that base training, the basic framework and EUMS share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from ncdss_lib.system.folders import whole_file

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


def pixel_cross_entropy(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, of all processes together.

    Args:
        logits: float [b, C, h, w], resized bilinearly to the target's size.
        target: uint8 or int64 [b, H, W], classes or 255.
        valid: number of pixels to divide by; None: those of ``target`` that are not ignored. DDP
            averages gradients over processes, so each divides by the mean of their numbers.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    # In NCHW, as the softmax over classes wants it: cheaper before than after.
    logits = logits.float().contiguous()
    size = target.shape[-2:]
    logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
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
    before_epoch: Callable[[int, nn.Module], None] | None = None,
    validate: Callable[[nn.Module], float] | None = None,
) -> None:
    """Train ``model`` in place.

    In ``folder`` it leaves ``NAME.safetensors`` (the last epoch), ``NAME_best.safetensors`` where
    epochs are scored, and ``NAME_history.csv``. Every random choice depends only on (seed, epoch,
    step), and a checkpoint is kept after each epoch until the stage is done: an interrupted
    training goes on from there and ends with the same weights.

    Args:
        sources: lists of images; each step takes one batch from each.
        step_loss: (network, batches by source name, epoch) -> losses; ``loss`` is minimised.
        extra: further modules to keep in checkpoints (the teacher).
        before_epoch: called with (epoch, model) before each epoch, also for the epochs of a resumed
            run that are over.
        validate: called after each epoch when the config tracks or selects the best one; the
            highest value is kept as best.

    Raises:
        RunError: a loss is not finite.
        InputError: a list is shorter than one batch.
    """
    # A fresh optimiser, or everything as it was after the last whole epoch.
    runtime = run.runtime
    optimizer = make_optimizer(model, config, fused=runtime.device.type == "cuda")
    modules = {"model": model, **(extra or {})}
    checkpoint = folder / f"{name}_checkpoint.pt"
    state = _resume(checkpoint, modules, optimizer, runtime)
    network, optimizer = runtime.setup(model, optimizer)
    load_epoch = run.views.train_loader(sources)
    least = least_batch(run, runtime.world_size)

    bar = tqdm(
        desc=f"train {name}",
        total=config.epochs,
        initial=state["epoch"],
        unit="epoch",
        disable=not runtime.is_main,
    )
    for epoch in range(config.epochs):
        if before_epoch:
            before_epoch(epoch, model)
        if epoch < state["epoch"]:
            continue

        # Train; afterwards every process has the same buffers too.
        check_lists(name, {s.name: len(s.ids) for s in sources}, config, epoch, least)
        means = train_epoch(
            runtime, network, optimizer, sources, load_epoch, step_loss, config, run.seed, epoch
        )
        _check_finite(name, means, config, epoch)
        for module in modules.values():
            runtime.sync_buffers(module)
        state["history"].append({"epoch": epoch, **means})
        state["epoch"] = epoch + 1

        # Score the epoch; keep the best one's weights, and all that is needed to go on.
        if validate and config.validates:
            miou = state["history"][-1]["val_miou"] = validate(model)
            if miou > state["best"]:
                state["best"] = miou
                _save_weights(runtime, modules, folder, name, "_best")
        _save_checkpoint(runtime, checkpoint, state, modules, optimizer)
        bar.set_postfix(loss=f"{means['loss']:.3f}")
        bar.update()
    bar.close()

    _save_weights(runtime, modules, folder, name, "")
    if runtime.is_main:
        pd.DataFrame(state["history"]).to_csv(folder / f"{name}_history.csv", index=False)
    runtime.barrier()


def make_optimizer(model: Any, config: Training, *, fused: bool = False) -> torch.optim.SGD:
    """SGD with a learning rate for the head and one for the encoder.

    Each is kept as ``base_lr`` in its group too, since schedules change ``lr``.

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
    """A row an epoch of :func:`fit`: mean losses, and ``val_miou`` where epochs were scored."""
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
    # Which images each step shows, of them this process's share.
    shortest = min(len(source.ids) // source.batch_size for source in sources)
    steps = config.steps_per_epoch or shortest
    orders = {source.name: source.batches(seed, epoch, steps) for source in sources}
    plan = [
        {name: runtime.shard(batches[step]) for name, batches in orders.items()}
        for step in range(steps)
    ]

    sums: dict[str, Tensor] = {}
    network.train()
    for step, batches in enumerate(runtime.prefetch(load_epoch(plan, seed, epoch))):
        torch.manual_seed(_step_seed(seed, epoch, step, runtime.rank))
        progress = (epoch * steps + step) / (config.epochs * steps)
        factor = learning_rate_factor(config, epoch, progress)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        with runtime.autocast():  # also for networks that are not set up: a teacher
            losses = step_loss(network, batches, epoch)
        optimizer.zero_grad(set_to_none=True)
        runtime.fabric.backward(losses["loss"])
        optimizer.step()
        sums = {key: value.detach() + sums.get(key, 0) for key, value in losses.items()}

    count = steps * runtime.world_size
    means = {key: runtime.sum(value).item() / count for key, value in sums.items()}
    return {"steps": steps, **means}


def _step_seed(*parts: int) -> int:
    """A seed for dropout that depends only on run seed, epoch, step and process."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def least_batch(run: Context, processes: int) -> int:
    """The smallest batch that batch-norm can normalise; ASPP's has one value an image."""
    return processes * (2 if run.recipe.model.head == "aspp" else 1)


def check_lists(
    name: str, lengths: Mapping[str, int], config: Training, epoch: int, least: int
) -> None:
    """Refuse lists that cannot fill a batch; they may have shrunk since the last epoch.

    Args:
        name: of the training, for the message.
        lengths: of each list, by name.
        least: see :func:`least_batch`.
    """
    section = _section(config)
    if config.batch_size < least:
        raise InputError(
            f"{name}: {section}.batch_size={config.batch_size} is too small: batch-norm needs "
            f"at least {least} images a step over all processes. Set it higher, or use fewer "
            "processes."
        )
    for source, length in lengths.items():
        if not length:
            raise InputError(
                f"{name}: the list {source!r} is empty in epoch {epoch}. Use more images, or "
                "other clean shares (entropy_ranking.clean_share, eums.reassign_share)."
            )
        if length < config.batch_size and config.steps_per_epoch is None:
            raise InputError(
                f"{name}: the list {source!r} has {length} images, fewer than one "
                f"batch of {config.batch_size}. Set {section}.batch_size lower or "
                f"{section}.steps_per_epoch to a number."
            )


def _check_finite(name: str, means: dict[str, float], config: Training, epoch: int) -> None:
    if not all(math.isfinite(value) for value in means.values()):
        raise RunError(
            f"{name}: a loss is not finite in epoch {epoch} ({means}). Lower "
            f"{_section(config)}.lr (now {config.lr}) and run again; earlier stages are kept."
        )


def _resume(
    checkpoint: Path, modules: dict[str, nn.Module], optimizer: Any, runtime: Runtime
) -> dict[str, Any]:
    """Fill modules and optimiser from a checkpoint where there is one.

    Returns:
        ``epoch`` (those that are done), ``history`` (a row an epoch) and ``best`` (highest score).
    """
    if not checkpoint.is_file():
        return {"epoch": 0, "history": [], "best": -math.inf}
    state = torch.load(checkpoint, map_location=runtime.device, weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    for key, module in modules.items():
        module.load_state_dict(state["modules"][key])
    return {key: state[key] for key in ("epoch", "history", "best")}


def _save_checkpoint(
    runtime: Runtime,
    path: Path,
    state: dict[str, Any],
    modules: dict[str, nn.Module],
    optimizer: Any,
) -> None:
    if runtime.is_main:
        weights = {key: module.state_dict() for key, module in modules.items()}
        with whole_file(path) as draft:
            torch.save({**state, "optimizer": optimizer.state_dict(), "modules": weights}, draft)


def _save_weights(
    runtime: Runtime, modules: dict[str, nn.Module], folder: Path, name: str, suffix: str
) -> None:
    if runtime.is_main:
        for key, module in modules.items():
            stem = name if key == "model" else f"{name}_{key}"
            weights = {n: tensor.contiguous() for n, tensor in module.state_dict().items()}
            safetensors.torch.save_file(weights, folder / f"{stem}{suffix}.safetensors")


def _section(config: Training) -> str:
    sections = {"BaseTraining": "base_training", "BasicFramework": "basic_framework"}
    return sections.get(type(config).__name__, "eums")
