"""``ncdss run`` as a user calls it, in short: what each stage takes, and that the card gives what
it should.

Each run is a process of its own. Weights are random, since none can be had where nothing can be
fetched; scores therefore mean nothing here, times and memory do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu import FOLD, Kit, Row

ROOT = Path(__file__).resolve().parents[2]
TRAININGS = ("base_training", "basic_framework", "eums")
WEIGHTS = ("base_training/base", "basic_framework/basic_oc", "eums/eums", "eums/eums_teacher")

#: Two runs that do the same arithmetic in another order may differ by this much, relative to the
#: weights' norm.
TOLERANCE = 1e-3


def run(kit: Kit) -> Iterator[Row]:
    """The paper recipe by stage, with few epochs."""
    with tempfile.TemporaryDirectory() as place:
        yield from _stages(kit, Path(place) / "stages", _short(kit))


def checks(kit: Kit) -> Iterator[Row]:
    """Small runs, all at once since nothing of them is timed: killed and resumed; on the device and
    on the CPU; under torchrun.
    """
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
        begun = [
            pool.submit(check, kit, Path(place)) for check in (_resumed, _equal_to_cpu, _torchrun)
        ]
        for check in begun:
            yield from check.result()


def laptop(kit: Kit) -> Iterator[Row]:
    """The laptop recipe with 3 epochs of 8, features extracted anew: on the card, then on the CPU
    of the same machine.
    """
    with tempfile.TemporaryDirectory() as place:
        few = ["eums.reassign_epochs=[1]", *(f"{stage}.epochs=3" for stage in TRAININGS)]
        short = few if kit.device == "cuda" else _tiny("laptop")
        for device in dict.fromkeys((kit.device, "cpu")):
            cache = {"NCDSS_CACHE": str(Path(place) / f"cache_{device}")}
            yield from _stages(
                kit, Path(place) / device, short, recipe="laptop", device=device, environment=cache
            )


def _short(kit: Kit) -> list[str]:
    """The paper recipe with few epochs."""
    if kit.device == "cpu":
        return _tiny("paper")
    few = [
        f"{stage}.{field}" for stage in TRAININGS for field in ("epochs=2", "steps_per_epoch=15")
    ]
    return ["model.weights=none", "eums.reassign_epochs=[1]", *few]


def _tiny(recipe: str) -> list[str]:
    """Every stage within seconds on a CPU, in fp32."""
    small = [
        "data.size=64",
        "evaluation.size=64",
        "clustering.n_init=2",
        "compute.precision=fp32",
        "eums.reassign_epochs=[1]",
    ]
    if recipe == "paper":
        small += [
            "data.target_size=64",
            "model.encoder=resnet18",
            "model.weights=none",
            "clustering.min_area_pixels=20",
        ]
    else:
        small += ["data.target_size=16", "model.head_channels=16"]
    fields = ("epochs=3", "steps_per_epoch=2", "batch_size=2", "select=last", "track_best=false")
    return [*small, *(f"{stage}.{field}" for stage in TRAININGS for field in fields)]


def _stages(
    kit: Kit,
    out: Path,
    overrides: Sequence[str],
    *,
    recipe: str = "paper",
    device: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[Row]:
    device = device or kit.device
    started = time.perf_counter()
    report = _run(kit, out, overrides, recipe=recipe, device=device, environment=environment)
    whole = time.perf_counter() - started
    for stage, entry in report["stages"].items():
        peak = (entry["peak_memory_bytes"] or 0) / 1e9
        yield {
            "what": f"{recipe}, {device}: {stage}",
            "value": entry["seconds"],
            "unit": "s",
            "peak_gb": peak,
        }
    yield {"what": f"{recipe}, {device}: whole command", "value": whole, "unit": "s"}


def _resumed(kit: Kit, folder: Path) -> list[Row]:
    """A run ended by SIGKILL in the middle of EUMS, and resumed.

    Two undisturbed ones are the yardstick of what may differ. Nothing in them decides by a
    threshold: on a card the same step rounds differently every time, and one image that goes to the
    other list changes a tenth of the weights. Ten times their difference is allowed.
    """
    smooth = ["eums.dynamic_reassignment=false", "eums.confidence=0.9999"]
    overrides = [*_tiny("paper"), *smooth, "eums.epochs=4"]
    with ThreadPoolExecutor() as pool:
        whole = [pool.submit(_run, kit, folder / name, overrides) for name in ("whole", "again")]
        was_killed = _killed(kit, folder / "killed", overrides)
        _run(kit, folder / "killed", overrides)
        for undisturbed in whole:
            undisturbed.result()
    twice = _difference(folder / "whole", folder / "again")
    allowed = max(TOLERANCE, 10 * twice["value"])
    killed = _difference(folder / "whole", folder / "killed", tolerance=allowed)
    what = "killed in EUMS and resumed, difference of weights"
    return [
        {"what": what, "killed_in_eums": was_killed, **killed},
        {"what": "two undisturbed runs, difference of weights", **twice},
    ]


def _killed(kit: Kit, out: Path, overrides: Sequence[str]) -> bool:
    """Start a run, kill it as soon as EUMS has a checkpoint; whether that came about."""
    checkpoint = out / ".eums.partial" / "eums_checkpoint.pt"
    process = subprocess.Popen(
        _command(kit, out, overrides),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not checkpoint.is_file() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return checkpoint.is_file()


def _equal_to_cpu(kit: Kit, folder: Path) -> list[Row]:
    """Two steps of base training in fp32 on both.

    Later stages decide by thresholds, which amplify rounding.
    """
    overrides = [*_tiny("paper"), "base_training.epochs=1", "model.dropout=0"]
    for device in ("cpu", kit.device):
        _run(kit, folder / f"on_{device}", overrides, device=device)
    found = _difference(folder / "on_cpu", folder / f"on_{kit.device}", WEIGHTS[:1])
    return [{"what": "base training on the device and on the CPU, difference of weights", **found}]


def _torchrun(kit: Kit, folder: Path) -> list[Row]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    report = _run(kit, folder / "torchrun", _tiny("paper"), launch=launch)
    backend = "NCCL" if kit.device == "cuda" else "gloo"
    return [
        {"what": f"torchrun, {backend}", "value": report["device"]["processes"], "unit": "process"}
    ]


def _difference(
    one: Path, two: Path, names: Sequence[str] = WEIGHTS, *, tolerance: float = TOLERANCE
) -> Row:
    """Greatest difference of the weights of two runs, relative to their norm, and whether it is
    within the tolerance.
    """
    worst = 0.0
    for name in names:
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (one, two))
        flat = [
            torch.cat([tensor.flatten().double() for tensor in weights.values()])
            for weights in (left, right)
        ]
        worst = max(worst, float((flat[0] - flat[1]).norm() / flat[0].norm()))
    return {
        "value": worst,
        "unit": "relative",
        "tolerance": tolerance,
        "within": worst <= tolerance,
    }


def _command(
    kit: Kit,
    out: Path,
    overrides: Sequence[str],
    *,
    recipe: str = "paper",
    device: str = "",
    launch: Sequence[str] = (),
) -> list[str]:
    chosen = [word for override in overrides for word in ("--set", override)]
    options = [
        "--dataset",
        "pascal5i",
        "--data-root",
        str(kit.data.root),
        "--fold",
        str(FOLD),
        "--recipe",
        recipe,
    ]
    return [
        sys.executable,
        *launch,
        "-m",
        "ncdss_lib",
        "run",
        *options,
        "--device",
        device or kit.device,
        "--out",
        str(out),
        *chosen,
    ]


def _run(
    kit: Kit,
    out: Path,
    overrides: Sequence[str],
    *,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run to the end; its report.

    Raises:
        RuntimeError: the command failed; the message is the end of what it said.
    """
    command = _command(kit, out, overrides, **options)
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-600:]}")
    return json.loads((out / "report.json").read_text())
