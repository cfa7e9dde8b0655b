"""Papermill over a grid of folds and seeds: the one place where notebooks are executed.

One process per run, because papermill changes the working directory while it executes: on this machine, one a GPU at a time, or as jobs of
a cluster. A run's executed notebooks lie in its folder under ``notebooks/``; each carries the key of what it was made from in its metadata
and is left alone while that key is current.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from ncdss_lib.system.errors import InputError, NCDSSError, RunError, did_you_mean
from ncdss_lib.system.folders import cache_root, project_root, runs_root

if TYPE_CHECKING:
    import submitit

CELL_TIMEOUT = 3600.0  # seconds; papermill's own default is none, and a kernel that hangs would wait for ever
GRACE = 30.0  # seconds in which a child that must end can end its kernel
CLUSTERS = ("slurm", "local")
PACKAGE = Path(__file__).resolve().parent
PATTERN = "[0-9][0-9]_*.ipynb"
SOURCES = (".py", ".js", ".css")


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
            raise InputError(f"{notebook_path.name} has no parameter {name!r}: {did_you_mean(name, known)}")


# --- one notebook -----------------------------------------------------------------------------------------------------------------------


def library_digest() -> str:
    """Of the source of this package: its modules, and the scripts and styles that it puts into outputs."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in SOURCES):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def execution_key(notebook: NotebookNode, parameters: Mapping[str, Any], inputs: str = "") -> str:
    """What an executed notebook was made from: its code, the library's source, the parameters and ``inputs`` (the data).

    Its text is not among them: other words around the same code change no result.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps([code, library_digest(), dict(parameters), inputs], sort_keys=True).encode()).hexdigest()


def cores() -> int:
    """Processor cores that this process and its kernels may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    key, library = execution_key(source, parameters, inputs), library_digest()
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
        executed.metadata["ncdss"] = {"key": key, "library": library, "cores": cores(), "beside": beside}
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

    @property
    def log(self) -> Path:
        return self.folder().resolve() / "notebooks" / "reproduce.log"


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


def _child(job: Job, timeout: float | None, environment: Mapping[str, str], log: Path | None) -> NCDSSError | None:
    """Run `execute_run` in a new process; return its error.

    Args:
        environment: what differs from this process's.
        log: where everything goes that the child shows; None shows it here.
    """
    command = [sys.executable, "-m", "ncdss_lib.batch", json.dumps({"job": asdict(job), "timeout": timeout, "progress": log is None})]
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") if log else nullcontext() as stream:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=stream, text=True)
        try:
            output, _ = process.communicate()
        except BaseException:  # this process must end: the child first, and before it its kernel
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            process.wait()
            raise
    if process.returncode == 0:
        return None
    lines = output.strip().splitlines()
    kind = InputError if process.returncode == InputError.exit_code else RunError
    return kind(lines[-1] if lines else f"the process ended with status {process.returncode}" + (f", see {log}" if log else ""))


def _environment(device: str, threads: int | None) -> dict[str, str]:
    """What a child's environment has of its own. Kernels start in the notebooks' folder, so paths are given in full."""
    changes = {"NCDSS_DEVICE": device, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    changes |= {"NCDSS_RUNS": str(runs_root().resolve()), "NCDSS_CACHE": str(cache_root().resolve())}
    if "NCDSS_DATA_ROOT" in os.environ:
        changes["NCDSS_DATA_ROOT"] = str(Path(os.environ["NCDSS_DATA_ROOT"]).resolve())
    if threads is not None:
        changes |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ}
    return changes


# --- many runs --------------------------------------------------------------------------------------------------------------------------


def cuda_devices(device: str) -> list[str]:
    """Names for ``CUDA_VISIBLE_DEVICES`` of the devices that this process sees; none for ``cpu``."""
    if device == "cpu":
        return []
    import torch

    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]


def _run_here(
    runs: Sequence[Job], jobs: int, timeout: float | None, device: str, devices: Sequence[str]
) -> Iterator[tuple[Job, NCDSSError | None]]:
    """Run ``jobs`` children at a time, each with a CUDA device of its own as far as there are; yield each run as it ends."""
    environment = _environment(device, max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for slot in range(jobs):
        free.put({"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices and jobs > 1 else {})

    def child(job: Job) -> NCDSSError | None:
        own = free.get()
        try:
            return _child(job, timeout, environment | own, job.log if jobs > 1 else None)
        finally:
            free.put(own)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(child, job): job for job in runs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class Submission:
    """A run as submitit carries it to another machine and calls it there."""

    job: Job
    timeout: float | None
    environment: Mapping[str, str]
    log: Path

    def __call__(self) -> NCDSSError | None:
        return _child(self.job, self.timeout, self.environment, self.log)

    def checkpoint(self) -> Any:
        """What is submitted when the job's time is over, or it is preempted: the same again, since a run goes on where it stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def executor(folder: Path, cluster: str, options: Mapping[str, Any], device: str, name: str = "ncdss") -> submitit.AutoExecutor:
    """A submitit executor for one run; its logs and pickles go to ``folder``.

    Args:
        options: as of ``submitit.AutoExecutor.update_parameters``, such as ``timeout_min``, ``cpus_per_task`` or ``slurm_partition``;
            also ``max_num_timeout``, how often a run is submitted again when its time is over (10). Without them a job may take a day
            each time, and has one GPU unless ``device`` is cpu.

    Raises:
        InputError: an unknown cluster or option, a value of the wrong type, more than one process a run, or there is no SLURM here.
    """
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)  # its warnings would break the progress bar
    if cluster not in CLUSTERS:
        raise InputError(f"--submit {cluster!r}: {did_you_mean(cluster, CLUSTERS)}")
    chosen = {"timeout_min": 24 * 60, "gpus_per_node": 0 if device == "cpu" or cluster == "local" else 1, "name": name, **options}
    requeues = chosen.pop("max_num_timeout", 10)
    if not isinstance(requeues, int):
        raise InputError(f"--submit-option max_num_timeout={requeues!r}: a number of times is expected.")
    if "slurm_time" in chosen:
        raise InputError("--submit-option slurm_time: give the minutes as timeout_min instead, by which a run is submitted again in time.")
    try:
        made = submitit.AutoExecutor(folder, cluster, **{f"{cluster}_max_num_timeout": requeues})
        made.update_parameters(**chosen)
    except RuntimeError as error:
        raise InputError(f"--submit {cluster}: {error} Call it where sbatch and srun are, or run here with --jobs.") from None
    except (NameError, AssertionError, TypeError, ValueError) as error:  # submitit says so of options
        raise InputError(f"--submit-option: {' '.join(str(error).split())}") from None
    if any((made.parameters.get(key) or 1) != 1 for key in ("nodes", "tasks_per_node", "ntasks_per_node")):
        raise InputError("--submit-option: a run of `reproduce` is one process, so nodes and tasks_per_node are 1.")
    return made


def _run_elsewhere(
    runs: Sequence[Job], cluster: str, options: Mapping[str, Any], timeout: float | None, device: str, devices: Sequence[str]
) -> Iterator[tuple[Job, NCDSSError | None]]:
    """Submit all runs; yield each as it ends. When this process is interrupted, those that have not ended are cancelled."""
    environment = _environment(device, max(1, (os.cpu_count() or 1) // len(runs)) if cluster == "local" else None)
    waiting: dict[Job, submitit.Job[NCDSSError | None]] = {}
    try:
        for number, job in enumerate(runs):
            own = {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if cluster == "local" and devices else {}
            place = executor(job.log.parent / "submitit", cluster, options, device, f"ncdss-{job.dataset}-fold{job.fold}-seed{job.seed}")
            try:
                waiting[job] = place.submit(Submission(job, timeout, environment | own, job.log))
            except RuntimeError as error:  # what sbatch said
                raise RunError(f"{job.name} was not accepted by {cluster}: {error} Check --submit-option and submit again.") from error
        while waiting:
            for job in [job for job, handle in waiting.items() if handle.done()]:
                yield job, _outcome(waiting.pop(job))
            time.sleep(1)
    finally:
        for handle in waiting.values():
            handle.cancel(check=False)


def _outcome(handle: submitit.Job[NCDSSError | None]) -> NCDSSError | None:
    try:
        return handle.result()
    except RuntimeError as error:  # submitit's, with a traceback or a whole log as its message
        said = [line.strip() for line in str(error).splitlines() if "Error: " in line]
        reason = said[-1] if said else "out of memory, cancelled or killed?"
        return RunError(f"job {handle.job_id} ended without a result ({reason}). See {handle.paths.stderr}.")


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts of ``--submit-option`` as a dictionary; values are JSON (``2``, ``true``, ``["module load cuda"]``) or text.

    Raises:
        InputError: a text is not of that form, or a key is given twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--submit-option {text!r} is not of the form key=value, such as slurm_partition=gpu.")
        if key in options:
            raise InputError(f"--submit-option {key} is given twice.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def reproduce(
    dataset: str = "toyscenes",
    data_root: str | Path | None = None,
    folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    recipe: str = "laptop",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    timeout: float | None = CELL_TIMEOUT,
    submit: str | None = None,
    submit_options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Execute the notebooks for every fold and seed, one process per run.

    Args:
        out: a single run's folder, or for a grid the folder under which ``DATASET/foldF/RECIPE/seedS`` is made.
        jobs: how many runs at a time on this machine; None: one per visible CUDA device, or one. With more than one, each has a CUDA
            device of its own as far as there are, the threads are divided among them, and each run's output goes to
            ``notebooks/reproduce.log`` in its folder.
        timeout: seconds that one cell may take; None for no limit.
        submit: ``slurm``, or ``local`` to try a submission on this machine (all runs at once): each run is a job of submitit, and goes
            on in a new job when its time is over or it is preempted. Output as above; submitit's own goes to ``notebooks/submitit``.
        submit_options: see :func:`executor`.

    Returns:
        The folder of each run, folds outermost.

    Raises:
        InputError, RunError: after all others have ended, when a run failed; the message lists every failure.
    """
    from ncdss_lib.recipes import load_recipe

    load_recipe(recipe, overrides, dataset)
    if not folds or not seeds or len(set(folds)) < len(folds) or len(set(seeds)) < len(seeds):
        raise InputError(f"--folds and --seeds each need at least one number, without repetition; found {list(folds)} and {list(seeds)}.")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, found {jobs}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("`reproduce` starts its own processes: call it without torchrun. Several GPUs for one run: torchrun ... run.")
    if submit is None and submit_options:
        raise InputError("--submit-option needs --submit slurm (or local).")
    if submit is not None:
        if jobs is not None:
            raise InputError("--jobs counts runs on this machine; with --submit the cluster decides. Leave one of them out.")
        with tempfile.TemporaryDirectory() as nowhere:  # an executor makes its folder
            executor(Path(nowhere), submit, submit_options or {}, device)
    root = None if data_root is None else str(Path(data_root).resolve())
    base = None if out is None else Path(out).resolve()
    notebooks()  # refuses a place without any

    grid = [(fold, seed) for fold in folds for seed in seeds]
    runs: list[Job] = []
    for fold, seed in grid:
        place = base if base is None or len(grid) == 1 else base / dataset / f"fold{fold}" / recipe / f"seed{seed}"
        runs.append(Job(dataset, root, fold, seed, recipe, None if place is None else str(place), tuple(overrides)))

    devices = cuda_devices(device)
    if submit:
        ended = _run_elsewhere(runs, submit, submit_options or {}, timeout, device, devices)
    else:
        ended = _run_here(runs, min(jobs or len(devices) or 1, len(runs)), timeout, device, devices)
    errors: dict[Job, NCDSSError] = {}
    with tqdm(total=len(runs), unit="run", desc="reproduce", disable=len(runs) == 1) as bar:
        for job, error in ended:
            if error:
                errors[job] = error
            bar.update()
    if errors:
        kind = InputError if all(isinstance(error, InputError) for error in errors.values()) else RunError
        if len(runs) == 1:
            raise kind(str(next(iter(errors.values()))))
        failures = "\n".join(f"  {job.name}: {errors[job]}" for job in runs if job in errors)
        raise kind(f"{len(errors)} of {len(runs)} runs failed:\n{failures}")
    return [job.folder() for job in runs]


def _main() -> int:
    """The child's side of `_child`: the error's message is the last line of standard output, its kind is the exit status."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":  # it signals all processes of a job: submitit's acts upon that, and ends this one
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # the kernels inherit it
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
