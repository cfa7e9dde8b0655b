"""What the benchmarks share: taking turns, peak memory, the data, and the printed lines."""

from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.toyscenes import ToyScenes
from ncdss_lib.system.folders import write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Figure:
    """One result.

    Attributes:
        unit: ``x`` for how many times better ours is than the published formulation.
        target: what ``value`` should reach at least; None where the figure only informs.
    """

    what: str
    value: float
    unit: str = "x"
    target: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        verdict = (
            ""
            if self.target is None
            else f"  [target {self.target:g}: "
            f"{'reached' if self.value >= self.target else 'MISSED'}]"
        )
        detail = f"  {self.detail}" if self.detail else ""
        return f"{self.what}: {self.value:.4g} {self.unit}{verdict}{detail}"


def interleaved(
    sides: Mapping[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True
) -> dict[str, float]:
    """Median seconds of each side.

    The sides take turns, so that whatever else the machine does hits all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + warm_up):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def faster(
    what: str,
    seconds: Mapping[str, float],
    target: float | None,
    *,
    published: str = "published",
    per: int = 1,
) -> Figure:
    """How many times faster ``ours`` is than the ``published`` side.

    Args:
        seconds: from :func:`interleaved`.
        per: images (or whatever the detail should be about) in one call.
    """
    theirs, ours = seconds[published] / per, seconds["ours"] / per
    return Figure(
        what,
        theirs / ours,
        "x faster",
        target,
        f"{published} {1e3 * theirs:.4g} ms, ours {1e3 * ours:.4g} ms",
    )


def peak_bytes(call: Callable[[], Any]) -> int:
    """By how much this process grows at its largest while ``call`` runs (resident memory, Linux
    only, a page at least).
    """
    gc.collect()
    # Memory that is free but not given back would hide what the call takes.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 4096)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


@contextmanager
def open_data(root: str | None, *, images: int = 48, size: int = 256) -> Iterator[Pascal5i]:
    """The data in ``root``, or as many toy scenes in the same layout, drawn into a temporary
    folder.
    """
    if root:
        yield Pascal5i(root, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        ToyScenes(train=images, val=images, size=size).export(Path(folder))
        yield Pascal5i(folder, None)


def main(benchmarks: Mapping[str, Callable[[Pascal5i], list[Figure]]], doc: str | None) -> None:
    """Command line of one benchmark or of several."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", help="a data set in the layout of PASCAL-5i; without it toy scenes are drawn"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    processor = platform.processor() or platform.machine()
    machine = f"{processor}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    results: dict[str, Any] = {
        "machine": machine,
        "data": "given" if arguments.data_root else "toyscenes",
        "figures": {},
    }
    print(f"{results['machine']}; images: {arguments.data_root or 'toyscenes'}")
    with open_data(arguments.data_root) as data:
        for name, run in benchmarks.items():
            print(f"\n{name}", flush=True)
            started = time.perf_counter()
            figures = run(data)
            for figure in figures:
                print(f"  {figure}", flush=True)
            print(f"  ({time.perf_counter() - started:.0f} s)", file=sys.stderr)
            results["figures"][name] = [asdict(figure) for figure in figures]
    if arguments.json:
        write_json(arguments.json, results)
