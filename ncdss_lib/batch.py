"""Papermill over a grid of folds and seeds: the one place where notebooks are executed.

One process per run, because papermill changes the working directory while it executes. A run's executed notebooks lie in its folder under
``notebooks/``; each carries the key of what it was made from in its metadata and is left alone while that key is current.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from ncdss_lib.errors import InputError, NCDSSError, RunError, nearest
from ncdss_lib.store import cache_root, project_root, runs_root

CELL_TIMEOUT = 3600.0  # seconds; papermill's own default is none, and a kernel that hangs would wait for ever
PACKAGE = Path(__file__).resolve().parent
PATTERN = "[0-9][0-9]_*.ipynb"


# --- the notebooks ----------------------------------------------------------------------------------------------------------------------


def notebooks_folder() -> Path:
    """``notebooks/`` of the project that this package is part of, or else of the one that the working directory is in.

    Raises:
        InputError: neither holds any, as after installing a wheel.
    """
    for root in (PACKAGE.parent, project_root()):
        if any((root / "notebooks").glob(PATTERN)):
            return root / "notebooks"
    raise InputError(
        f"no notebooks {PATTERN} in {PACKAGE.parent / 'notebooks'} or {project_root() / 'notebooks'}: `reproduce` executes those of "
        "a clone of the project. Call it inside the clone, or use `ncdss run`, which needs no notebooks."
    )


def notebooks() -> list[Path]:
    """The notebooks in reading order (``NN_name.ipynb``)."""
    return sorted(notebooks_folder().glob(PATTERN))


def read_notebook(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:  # not JSON is a ValueError
        raise InputError(f"{path} is not a notebook that can be read ({error}). `make notebooks` writes it from its .md file.") from None


def parameters_of(notebook: NotebookNode) -> dict[str, Any]:
    """Name -> default of the cell tagged ``parameters``; empty if there is none.

    Read with ``ast`` rather than ``papermill.inspect_notebook``, which does not see a name annotated ``str | None``.
    """
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            for node in ast.parse(cell.source).body:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
                value = getattr(node, "value", None)
                try:
                    found |= {t.id: ast.literal_eval(value) for t in targets if isinstance(t, ast.Name) and value is not None}
                except ValueError:
                    raise InputError(
                        f"the cell tagged `parameters` holds `{ast.unparse(node)}`, which is not a literal; move it to the next cell."
                    ) from None
    return found


def check_parameters(notebook_path: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse names that the notebook does not define; papermill would only log a warning and run on with the defaults.

    Raises:
        InputError: with the nearest valid name.
    """
    known = parameters_of(read_notebook(notebook_path))
    if not known:
        raise InputError(f"{notebook_path} has no cell tagged `parameters` with assignments of literals.")
    for name in parameters:
        if name not in known:
            raise InputError(f"{notebook_path.name} has no parameter {name!r}: {nearest(name, known)}")


# --- one notebook -----------------------------------------------------------------------------------------------------------------------


def execution_key(notebook: NotebookNode, parameters: Mapping[str, Any], inputs: str = "") -> str:
    """What an executed notebook was made from: the cells' source, the library's source, the parameters and ``inputs`` (the data)."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        digest.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(json.dumps([dict(parameters), inputs], sort_keys=True).encode())
    return digest.hexdigest()


def is_current(executed: Path, key: str) -> bool:
    """Whether the file at ``executed`` is a whole execution with this key, and what stood beside it in the run folder still does."""
    try:
        made = nbformat.read(executed, as_version=4).metadata.get("ncdss", {})
    except (OSError, ValueError):
        return False
    return made.get("key") == key and all((executed.parent.parent / name).exists() for name in made.get("beside", []))


def execute(
    notebook: Path,
    out_path: Path,
    parameters: Mapping[str, Any],
    *,
    inputs: str = "",
    timeout: float | None = CELL_TIMEOUT,
    progress: bool = True,
) -> bool:
    """Execute ``notebook`` into ``out_path`` unless that is current. The kernel starts in the notebook's own folder, as in JupyterLab.

    Parameters equal to the notebook's defaults are not injected, so that its injected cell shows what differs.

    Args:
        inputs: a text that changes when what the notebook reads changes, such as the data set's fingerprint.
        timeout: seconds that one cell may take; None for no limit.

    Returns:
        False if ``out_path`` was current and nothing was done.

    Raises:
        InputError: an unknown parameter, or a cell that raised InputError.
        RunError: a cell failed or took too long. What was executed is kept as ``NAME.failed.ipynb``; an earlier ``out_path`` stays.
    """
    check_parameters(notebook, parameters)
    source = read_notebook(notebook)
    key = execution_key(source, parameters, inputs)
    failed = out_path.with_name(f"{out_path.stem}.failed.ipynb")
    if is_current(out_path, key):
        failed.unlink(missing_ok=True)  # what failed was taken back since
        return False
    defaults = parameters_of(source)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    partial = out_path.with_name(f".{out_path.stem}.{os.getpid()}.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # its information lines would break the progress bar
    logging.getLogger("papermill.translators").setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            str(notebook.resolve()),
            str(partial.resolve()),
            {name: value for name, value in parameters.items() if value != defaults[name]},
            kernel_name="python3",
            cwd=str(notebook.resolve().parent),
            progress_bar={"desc": notebook.stem, "unit": "cell"} if progress else False,
            start_timeout=120,
            execution_timeout=timeout,
        )
        executed = nbformat.read(partial, as_version=4)
        beside = sorted(p.name for p in out_path.parent.parent.iterdir() if p != out_path.parent and not p.name.startswith("."))
        executed.metadata["ncdss"] = {"key": key, "beside": beside}
        nbformat.write(executed, partial)
        partial.replace(out_path)
        failed.unlink(missing_ok=True)
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        if partial.exists():
            partial.replace(failed)
        raise _failure(error, notebook, failed, timeout) from error
    except OSError as error:
        raise RunError(f"{notebook.name} could not be written to {out_path.parent}: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return True


def _failure(error: Exception, notebook: Path, failed: Path, timeout: float | None) -> NCDSSError:
    """The message for a notebook that stopped: which cell, what it said last, where to look."""
    kept = f"What was executed is kept in {failed}."
    if isinstance(error, PapermillExecutionError):
        # papermill counts cells of what it executed, where one may be injected; the first line of the cell finds it in any case
        first = next((line for line in error.source.splitlines() if line.strip()), "")
        last = ": ".join([error.ename, *error.evalue.strip().splitlines()[-1:]])
        if error.ename == "InputError":
            return InputError(f"{error.evalue} (notebook {notebook.name}, cell `{first.strip()}`. {kept})")
        return RunError(f"notebook {notebook.name} failed in cell [{error.exec_count}] `{first.strip()}`: {last}. {kept}")
    if isinstance(error, CellTimeoutError):
        return RunError(f"notebook {notebook.name}: a cell took longer than {timeout:g} s (--timeout). {kept}")
    return RunError(f"notebook {notebook.name}: the kernel died, perhaps for lack of memory. {kept}")


# --- one run, in a process of its own ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One run of the grid; ``out`` is its folder, or None for the default one."""

    dataset: str
    data_root: str | None
    fold: int
    seed: int
    recipe: str
    out: str | None
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.dataset} fold {self.fold} seed {self.seed} {self.recipe}"

    def folder(self) -> Path:
        from ncdss_lib.pipeline import run_folder

        return Path(run_folder(self.dataset, self.fold, self.recipe, self.seed, self.out))


def execute_run(job: Job, *, timeout: float | None = CELL_TIMEOUT, progress: bool = True) -> None:
    """Execute all notebooks of one run in order, in this process.

    Raises:
        InputError, RunError: as `execute`, or no ``report.json`` was there at the end.
    """
    from ncdss_lib.pipeline import open_run

    parameters = asdict(job) | {"overrides": list(job.overrides)}
    run = open_run(**parameters)  # wrong input is refused here, before any kernel starts
    folder, inputs = job.folder(), run.data.fingerprint()
    for notebook in notebooks():
        out_path = folder / "notebooks" / notebook.name
        made = execute(notebook, out_path, parameters, inputs=inputs, timeout=timeout, progress=progress)
        if progress and not made:
            tqdm.write(f"{notebook.stem}: unchanged", file=sys.stderr)
    if not (folder / "report.json").is_file():
        raise RunError(f"all notebooks of {job.name} were executed, but {folder / 'report.json'} is missing: the last one should write it.")


def _child(job: Job, timeout: float | None, device: str, threads: int | None, log: Path | None) -> NCDSSError | None:
    """Run `execute_run` in a new process; return its error. With ``log``, everything it shows goes there."""
    environment = {**os.environ, "NCDSS_DEVICE": device, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    # Kernels start in the notebooks' folder: say there in full what is relative to this one.
    environment |= {"NCDSS_RUNS": str(runs_root().resolve()), "NCDSS_CACHE": str(cache_root().resolve())}
    if "NCDSS_DATA_ROOT" in environment:
        environment["NCDSS_DATA_ROOT"] = str(Path(environment["NCDSS_DATA_ROOT"]).resolve())
    if threads is not None:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ}
    command = [sys.executable, "-m", "ncdss_lib.batch", json.dumps({"job": asdict(job), "timeout": timeout, "progress": log is None})]
    if log is None:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stdout.strip().splitlines()
    kind = InputError if done.returncode == InputError.exit_code else RunError
    return kind(lines[-1] if lines else f"the process ended with status {done.returncode}" + (f", see {log}" if log else ""))


def reproduce(
    dataset: str = "toyscenes",
    data_root: str | Path | None = None,
    folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    recipe: str = "laptop",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    jobs: int = 1,
    timeout: float | None = CELL_TIMEOUT,
) -> list[Path]:
    """Execute the notebooks for every fold and seed, one process per run.

    Args:
        out: a single run's folder, or for a grid the folder under which ``DATASET/foldF/RECIPE/seedS`` is made.
        jobs: how many runs at a time; with more than one the threads are divided among them and each run's output goes to
            ``notebooks/reproduce.log`` in its folder.
        timeout: seconds that one cell may take; None for no limit.

    Returns:
        The folder of each run, folds outermost.

    Raises:
        InputError, RunError: after all others have ended, when a run failed; the message lists every failure.
    """
    from ncdss_lib.recipes import load_recipe

    load_recipe(recipe, overrides)
    if not folds or not seeds or len(set(folds)) < len(folds) or len(set(seeds)) < len(seeds):
        raise InputError(f"--folds and --seeds each need at least one number, without repetition; found {list(folds)} and {list(seeds)}.")
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, found {jobs}.")
    root = None if data_root is None else str(Path(data_root).resolve())
    base = None if out is None else Path(out).resolve()
    notebooks()  # refuses a place without any

    grid = [(fold, seed) for fold in folds for seed in seeds]
    runs: list[Job] = []
    for fold, seed in grid:
        place = base if base is None or len(grid) == 1 else base / dataset / f"fold{fold}" / recipe / f"seed{seed}"
        runs.append(Job(dataset, root, fold, seed, recipe, None if place is None else str(place), tuple(overrides)))

    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    errors: dict[Job, NCDSSError] = {}
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(runs), unit="run", desc="reproduce", disable=len(runs) == 1) as bar,
    ):
        waiting = {
            pool.submit(_child, job, timeout, device, threads, job.folder() / "notebooks" / "reproduce.log" if jobs > 1 else None): job
            for job in runs
        }
        try:
            for future in as_completed(waiting):
                if error := future.result():
                    errors[waiting[future]] = error
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if errors:
        kind = InputError if all(isinstance(error, InputError) for error in errors.values()) else RunError
        if len(runs) == 1:
            raise kind(str(next(iter(errors.values()))))
        failures = "\n".join(f"  {job.name}: {errors[job]}" for job in runs if job in errors)
        raise kind(f"{len(errors)} of {len(runs)} runs failed:\n{failures}")
    return [job.folder() for job in runs]


def _main() -> int:
    """The child's side of `_child`: the error's message is the last line of standard output, its kind is the exit status."""
    request = json.loads(sys.argv[1])
    request["job"]["overrides"] = tuple(request["job"]["overrides"])
    try:
        execute_run(Job(**request["job"]), timeout=request["timeout"], progress=request["progress"])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "NCDSS_DEBUG" in os.environ or not request["progress"]:  # without progress, standard error is the run's log
            traceback.print_exc()
        known = isinstance(error, NCDSSError)
        print(" ".join((str(error) if known else f"{type(error).__name__}: {error}").split()))
        return getattr(error, "exit_code", NCDSSError.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
