"""Devices, precision and processes, behind one object, so that the loops of the stages stay plain.

Lightning Fabric does the work: it starts nothing by itself, reads torchrun's environment, and turns
the same loop into mixed precision or DDP. (Accelerate would do as well; Fabric keeps its state in
one explicit object rather than in environment variables.)
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from ncdss_lib.recipes import Compute
from ncdss_lib.system.errors import InputError, NCDSSError
from ncdss_lib.system.folders import write_json

# report.json says what it would announce.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

S = TypeVar("S")
T = TypeVar("T")
Batches = dict[str, dict[str, Tensor]]  # source name -> what its views hold


DEFAULTS = Compute()


class Runtime:
    """One process of a run: alone, or one of those that torchrun started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; None takes ``$NCDSS_DEVICE``, or auto.
        compute: precision, memory format, compilation.

    Raises:
        InputError: ``cuda`` is asked for and there is none, or too few for the processes of this
            machine; or the machines run different numbers of processes.
    """

    def __init__(self, device: str | None = "auto", compute: Compute = DEFAULTS) -> None:
        device = device or os.environ.get("NCDSS_DEVICE") or "auto"
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"unknown device {device!r}: choose auto, cpu or cuda (--device).")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "--device cuda: PyTorch sees no CUDA device here. Use --device cpu, or check the "
                "driver with nvidia-smi."
            )
        accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        bf16 = compute.precision == "bf16" or (
            compute.precision == "auto" and _multiplies_bf16(accelerator)
        )
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        if world % local:
            raise InputError(
                f"{world} processes in all are no multiple of the {local} on this machine: start "
                "torchrun with the same --nproc-per-node on every machine."
            )
        if accelerator == "cuda" and local > torch.cuda.device_count():
            raise InputError(
                f"{local} processes on this machine, but PyTorch sees {torch.cuda.device_count()} "
                "CUDA device(s): start torchrun with --nproc-per-node "
                f"{torch.cuda.device_count()}, or use --device cpu."
            )
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=local,
            num_nodes=world // local,
            # torchrun's variables alone decide: Fabric by itself would also act upon those of a
            # SLURM allocation.
            plugins=TorchElasticEnvironment() if world > 1 else LightningEnvironment(),
            # Buffers are synchronised by us (sync_buffers): DDP's own broadcast writes into
            # batch-norm buffers between the forwards of one step, which breaks the backward pass.
            strategy=DDPStrategy(broadcast_buffers=False) if world > 1 else "auto",
            precision="bf16-mixed" if bf16 else "32-true",
        )
        self.fabric.launch()
        self.precision = "bf16" if bf16 else "tf32" if compute.precision == "tf32" else "fp32"
        self.device: torch.device = self.fabric.device
        if accelerator == "cuda":
            # The shapes of a training never change, so cuDNN may try its algorithms once and keep
            # the fastest.
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        self.rank, self.world_size = self.fabric.global_rank, self.fabric.world_size
        self.is_main = self.rank == 0
        self._channels_last, self._compile = compute.channels_last, compute.compile

    def describe(self) -> dict[str, Any]:
        """The ``device`` entry of report.json."""
        name = platform.processor() or platform.machine()
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return {
            "type": self.device.type,
            "name": name,
            "processes": self.world_size,
            "precision": self.precision,
        }

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, channels-last."""
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self._channels_last else module

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """The training form of a prepared model and its optimiser: autocast, DDP, compiled."""
        return self.fabric.setup(self.compiled(model), optimizer, move_to_device=False)

    def compiled(self, model: nn.Module) -> Any:
        """The compiled form of a network where the recipe asks for it: one graph, one shape.

        ``model`` itself stays as it is, for inference: other modes and shapes would be compiled
        anew.
        """
        return torch.compile(model, fullgraph=True, dynamic=False) if self._compile else model

    def autocast(self) -> Any:
        """Context of mixed precision, for forwards of a model that is not set up."""
        return self.fabric.autocast()

    def to_device(self, batch: T) -> T:
        return self.fabric.to_device(batch)

    def prefetch(self, batches: Iterable[Batches]) -> Iterator[Batches]:
        """Batches on the device.

        On CUDA the next one is copied, from pinned memory by a stream of its own, while one is
        worked on.
        """
        if self.device.type != "cuda":
            yield from map(self.to_device, batches)
            return
        copies = torch.cuda.Stream(self.device)
        ready: Batches | None = None
        for batch in chain(batches, [None]):
            # What is ready now was copied while the step before was computed.
            torch.cuda.current_stream().wait_stream(copies)
            current = ready
            if batch is not None:
                with torch.cuda.stream(copies):
                    ready = self.to_device(batch)
            if current is not None:
                for tensor in (tensor for views in current.values() for tensor in views.values()):
                    tensor.record_stream(torch.cuda.current_stream())
                yield current

    def map(self, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """``function`` of each item, in order, by threads: for files while the device computes."""
        return list(self._threads.map(function, items))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores())

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of a list; shares are disjoint and cover it."""
        return items[self.rank :: self.world_size]

    def gather(self, shares: list[T]) -> list[T]:
        """All processes' lists (anything that pickles), concatenated in rank order."""
        if self.world_size == 1:
            return shares
        everything: list[list[T]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(everything, shares)
        return [item for share in everything for item in share]

    def from_main(self, function: Callable[[], T]) -> T:
        """What ``function`` returns in the main process, in all of them; the others do not call it.

        For what must not differ between processes, such as whether a file was there, or is best
        done once.
        """
        return self.gather([function()] if self.is_main else [])[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        return sum_over_processes(tensor)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def sync_buffers(self, module: nn.Module) -> None:
        """Average the floating-point buffers (batch-norm statistics) over processes.

        Each process normalises its own shard and keeps its own running statistics; evaluation,
        checkpoints and teacher copies need one set. Averaged in double precision, in which the
        frozen encoder's, equal everywhere, stay exactly what they are.
        """
        if self.world_size > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.sum(buffer.double()) / self.world_size)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all processes of a run; the tensor itself where there is one only."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def cores() -> int:
    """CPU cores for this process; those of the machine are shared with others of the run."""
    usable = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def report_failure(error: BaseException | None) -> None:
    """Leave the message of a process that is about to end for torchrun's closing report.

    Without torchrun, do nothing.

    The process that failed first must be the one that torchrun sees, since it then ends all others.
    Those only see a broken
    connection, or the same wrong input: they wait a moment, in which they are normally ended.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None or not isinstance(error, Exception):  # an interruption is torchrun's own affair
        return
    known = isinstance(error, NCDSSError)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (known and os.environ.get("RANK") == "0"):
        time.sleep(1 if known else 5)
    write_json(
        Path(path),
        {
            "message": str(error) if known else f"{type(error).__name__}: {error}",
            "timestamp": int(time.time()),
        },
    )


def _multiplies_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())
