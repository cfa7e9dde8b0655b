"""One run of a grid: all notebooks, in this process or in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tqdm.auto import tqdm

from ncdss_lib.runs.notebooks import CELL_TIMEOUT, execute, notebook_paths
from ncdss_lib.system.errors import InputError, NCDSSError, RunError
from ncdss_lib.system.folders import cache_root, damaged_files, run_folder, runs_root

GRACE = 30.0  # seconds in which a child that must end can end its kernel


@dataclass(frozen=True)
class GridRun:
    """A run and how it is executed.

    Attributes:
        dataset, data_root, fold, seed, recipe, out, overrides: the parameters of its notebooks;
            ``out`` is its folder, or None for the default one.
        device: auto, cpu or cuda.
        timeout: seconds that one cell may take; None for no limit.
    """

    dataset: str
    data_root: str | None
    fold: int
    seed: int
    recipe: str
    out: str | None
    overrides: tuple[str, ...]
    device: str = "auto"
    timeout: float | None = CELL_TIMEOUT

    @property
    def name(self) -> str:
        return f"{self.dataset} fold {self.fold} seed {self.seed} {self.recipe}"

    @property
    def folder(self) -> Path:
        if self.out is not None:
            return Path(self.out)
        return run_folder(self.dataset, self.fold, self.recipe, self.seed)

    @property
    def log(self) -> Path:
        """What a process of its own shows."""
        return self.folder.resolve() / "notebooks" / "reproduce.log"

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its notebooks."""
        names = ("dataset", "data_root", "fold", "seed", "recipe", "out")
        return {name: getattr(self, name) for name in names} | {"overrides": list(self.overrides)}

    @property
    def command(self) -> list[str]:
        """This program's command for this run alone."""
        options = {
            "dataset": self.dataset,
            "data-root": self.data_root,
            "folds": self.fold,
            "seeds": self.seed,
            "recipe": self.recipe,
            "out": self.out,
            "device": self.device,
            "timeout": self.timeout or 0,
        }
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        given += [f"--set={override}" for override in self.overrides]
        return [sys.executable, "-m", "ncdss_lib", "reproduce", "--debug", *given]

    def environment(self, threads: int | None = None, cuda: str | None = None) -> dict[str, str]:
        """What its kernels find in their environment beside what is there.

        They start in the notebooks' folder, so paths are given in full.

        Args:
            threads: how many threads it may use, unless the environment says so already.
            cuda: the CUDA device that it has alone; None leaves it those that there are.
        """
        changes = {
            "NCDSS_DEVICE": self.device,
            "NCDSS_RUNS": str(runs_root().resolve()),
            "NCDSS_CACHE": str(cache_root().resolve()),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if "NCDSS_DATA_ROOT" in os.environ:
            changes["NCDSS_DATA_ROOT"] = str(Path(os.environ["NCDSS_DATA_ROOT"]).resolve())
        if cuda is not None:
            changes["CUDA_VISIBLE_DEVICES"] = cuda
        if threads is not None:
            changes["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        return changes


def execute_run(run: GridRun) -> None:
    """Execute all notebooks of a run in order, in this process.

    Raises:
        InputError, RunError: as :func:`~ncdss_lib.runs.notebooks.execute`, or no ``report.json``
            was there at the end.
    """
    from ncdss_lib.runs.pipeline import open_run

    with patch.dict(os.environ, run.environment()):
        opened = open_run(**run.parameters)  # refuses wrong input before any kernel starts
        for stage in opened.stages():
            if damaged_files(opened.folder / stage):
                opened.ensure(stage)  # the same again: what notebooks show of it stays true
        inputs = opened.data.fingerprint()
        for notebook in notebook_paths():
            out_path = run.folder / "notebooks" / notebook.name
            made = execute(notebook, out_path, run.parameters, inputs=inputs, timeout=run.timeout)
            if not made:
                tqdm.write(f"{notebook.stem}: unchanged", file=sys.stderr)
    if not (run.folder / "report.json").is_file():
        raise RunError(
            f"all notebooks of {run.name} were executed, but {run.folder / 'report.json'} is "
            "missing: the last one should write it."
        )


def run_as_child(run: GridRun, environment: Mapping[str, str]) -> NCDSSError | None:
    """Execute a run in a process of its own, which writes to the run's log; return its error.

    Args:
        environment: what differs from this process's.
    """
    # run it to its end, or to the end of this process
    run.log.parent.mkdir(parents=True, exist_ok=True)
    on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    with run.log.open("w") as log:
        process = subprocess.Popen(
            run.command,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            preexec_fn=_ignore_signals_of_slurm if on_slurm else None,
        )
        _children.add(process)
        try:
            status = process.wait()
        except BaseException:  # this process must end: first the child, which ends its kernel
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            process.wait()
            raise
        finally:
            _children.discard(process)

    # what it said last is its error
    if status == 0:
        return None
    kind = InputError if status == InputError.exit_code else RunError
    shown = run.log.read_text(errors="replace")
    message = re.search(r"^ncdss: (.*)\Z", shown, re.DOTALL | re.MULTILINE)
    if message is None:
        return kind(f"the process ended with status {status}, see {run.log}")
    return kind(" ".join(message[1].split()))


_children: set[subprocess.Popen[bytes]] = set()


def interrupt_children() -> None:
    """What Ctrl-C does to all processes of a terminal: end the runs that others wait for."""
    for process in list(_children):
        process.send_signal(signal.SIGINT)


def _ignore_signals_of_slurm() -> None:
    """It signals all processes of a job: submitit's acts upon that, and ends its child itself."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the kernels inherit it
