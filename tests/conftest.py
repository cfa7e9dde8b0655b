"""Shared by all tests: one thread, runs and caches in temporary folders, and recipes small enough for seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from filelock import FileLock

from ncdss_lib.runs.pipeline import Run, open_run
from tests.data.fake_voc import make_fake_voc

REPO = Path(__file__).resolve().parents[1]

TRAININGS = ("base_training", "basic_framework", "eums")
#: Overrides under which all stages of ``laptop`` take about a second: 64-pixel images, 8 x 8 features, a few steps.
TINY_LAPTOP = [
    *("data.size=64", "data.target_size=16", "evaluation.size=64", "model.head_channels=16", "clustering.n_init=2"),
    *("compute.precision=fp32", "eums.reassign_epochs=[1]", "eums.ramp_up_epochs=2"),
    *(f"{stage}.{field}" for stage in TRAININGS for field in ("epochs=3", "steps_per_epoch=2", "batch_size=4")),
]
#: The same for ``paper``: published head, schedule and selection; images through an encoder without weights.
TINY_PAPER = [
    *("data.size=64", "data.target_size=64", "evaluation.size=64", "data.workers=0", "model.encoder=resnet18", "model.weights=none"),
    *("clustering.min_area_pixels=20", "clustering.n_init=2", "compute.precision=fp32", "eums.reassign_epochs=[1]"),
    *(f"{stage}.{field}" for stage in TRAININGS for field in ("epochs=2", "steps_per_epoch=1", "batch_size=2")),
]
OVERRIDES = {"laptop": TINY_LAPTOP, "paper": TINY_PAPER}


def opened(voc: Path, out: Path, recipe: str = "laptop", *overrides: str, fold: int = 0, seed: int = 0) -> Run:
    """A tiny run of a recipe on fake PASCAL-5i."""
    return open_run("pascal5i", str(voc), fold, seed, recipe, str(out), [*OVERRIDES[recipe], *overrides])


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from or written to the user's runs, caches or data. The cache lives for the session, as it does for a user."""
    root = tmp_path_factory.mktemp("ncdss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCDSS_RUNS", str(root / "runs"))
        patch.setenv("NCDSS_CACHE", str(root / "cache"))
        for name in ("NCDSS_DATA_ROOT", "NCDSS_DEVICE"):
            patch.delenv(name, raising=False)
        yield root


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCDSS_RUNS", str(tmp_path / "runs"))


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder that all processes of the tests (pytest -n) read: the first that asks for it fills it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        path = shared / f"shared_{name}"
        with FileLock(f"{path}.lock"):
            if not (path / ".filled").exists():
                path.mkdir()
                fill(path)
                (path / ".filled").touch()
        return path

    return folder


@pytest.fixture(scope="session")
def voc(once: Once) -> Path:
    """48 training and eight validation images in the VOCSegmentation layout; read only."""
    return once("data", lambda root: make_fake_voc(root / "voc", train=48, val=8)) / "voc"


@pytest.fixture(scope="session")
def finished(voc: Path, once: Once) -> dict[str, Path]:
    """A finished tiny run of each recipe; read only."""

    def fill(root: Path) -> None:
        for recipe in OVERRIDES:
            opened(voc, root / recipe, recipe).write_report()

    return {recipe: once("finished", fill) / recipe for recipe in OVERRIDES}


BROWSER = "`make browser-tools`"  # the remedy that every test without its browser names


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out for lack of a browser, where nobody overlooks it."""
    reports = terminalreporter.stats.get("skipped", [])
    if count := sum(BROWSER in str(report.longrepr) for report in reports):
        line = f"{count} browser tests were not run: a Chromium, its driver or axe-core is missing. {BROWSER} names or"
        terminalreporter.write_line(f"{line} installs them; then: python -m pytest tests/browser", yellow=True)
