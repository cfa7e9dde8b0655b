"""Time of work that a device does on its own: warmed up, waited for, a median of rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.gpu import Kit


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], kit: Kit, *, per_round: int | None = None) -> float:
    """Median seconds of one call.

    Args:
        per_round: calls between two looks at the clock; None: as many as fill a twentieth of a
            second.
    """
    for _ in range(3 if kit.device == "cuda" else 1):
        call()
    synchronize(kit.device)
    if per_round is None:
        per_round = max(1, min(50, int(0.05 / max(1e-6, _round(call, kit, 1)))))
    return median(_round(call, kit, per_round) for _ in range(kit.scale.rounds)) / per_round


def _round(call: Callable[[], Any], kit: Kit, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(kit.device)
    return time.perf_counter() - started


def reset_peak(device: str) -> None:
    """Free what nobody holds, and begin to count the peak of memory anew."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float | None:
    """Gigabytes of tensors at the peak since :func:`reset_peak`.

    None where the device does not count.
    """
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
