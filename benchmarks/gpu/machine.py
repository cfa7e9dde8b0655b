"""Card, driver and versions, and the machine's own limits: matrix products, convolutions and copies
of random numbers.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu import Kit, Row
from benchmarks.gpu.timing import seconds_of


def describe(device: str) -> dict[str, Any]:
    """What is measured on: names and versions, no path and no host."""
    found: dict[str, Any] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        **{
            name: version(name)
            for name in ("torch", "torchvision", "timm", "lightning-fabric", "numpy")
        },
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": torch.cuda.get_device_name(0),
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def run(kit: Kit) -> list[Row]:
    """Rates of one operation each, the best precision last."""
    rows = [_matrix(kit, precision) for precision in ("fp32", "tf32", "bf16")]
    rows += [_convolution(kit, precision) for precision in ("fp32", "tf32", "bf16")]
    return [*rows, _copy(kit)]


def convolution_rate(kit: Kit, precision: str) -> float:
    """Operations a second of a 3x3 convolution in the shape of the network's largest: the ceiling
    of a training step.
    """
    scale, side = kit.scale, kit.scale.size // 8
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(scale.batch, scale.channels, side, side, device=kit.device, dtype=dtype).to(
        memory_format=torch.channels_last
    )
    weight = torch.randn(scale.channels, scale.channels, 3, 3, device=kit.device, dtype=dtype).to(
        memory_format=torch.channels_last
    )
    with _precision(precision):
        seconds = seconds_of(lambda: F.conv2d(x, weight, padding=2, dilation=2), kit)
    return 2 * x.numel() * scale.channels * 9 / seconds


def _matrix(kit: Kit, precision: str) -> Row:
    side = kit.scale.matrix
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=kit.device, dtype=dtype) for _ in range(2))
    with _precision(precision):
        seconds = seconds_of(lambda: left @ right, kit)
    return {
        "what": f"matrix product {side}^3, {precision}",
        "value": 2 * side**3 / seconds / 1e12,
        "unit": "TFLOP/s",
    }


def _convolution(kit: Kit, precision: str) -> Row:
    rate = convolution_rate(kit, precision)
    return {
        "what": f"3x3 convolution, {kit.scale.channels} channels, {precision}",
        "value": rate / 1e12,
        "unit": "TFLOP/s",
    }


def _copy(kit: Kit) -> Row:
    source = torch.randn(kit.scale.matrix**2, device=kit.device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), kit)
    return {
        "what": "copy on the device, bytes read and written",
        "value": 2 * source.nbytes / seconds / 1e9,
        "unit": "GB/s",
    }


class _precision:
    """TF32 switched on or off for what is multiplied in fp32, and put back."""

    def __init__(self, precision: str) -> None:
        self.wanted = precision == "tf32"

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.wanted

    def __exit__(self, *error: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.before


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip() or None
