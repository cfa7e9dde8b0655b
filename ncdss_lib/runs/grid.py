"""A grid of runs over folds and seeds; each executes all notebooks, here or as a job of a cluster.

Runs in turn are executed by this process. Runs at the same time are child processes: each is the
same command for one run alone, and what it shows goes to ``notebooks/reproduce.log`` in its folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm.auto import tqdm

from ncdss_lib.recipes import load_recipe
from ncdss_lib.runs.grid_run import GridRun, execute_run, interrupt_children, run_as_child
from ncdss_lib.runs.notebooks import CELL_TIMEOUT, notebook_paths
from ncdss_lib.runs.submit_jobs import cluster_executor, run_on_cluster
from ncdss_lib.system.distributed import cores
from ncdss_lib.system.errors import InputError, NCDSSError, RunError, Terminated
from ncdss_lib.system.folders import refuse_file, run_folder


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
    """Execute the notebooks for every fold and seed.

    Args:
        out: a single run's folder, or for a grid the folder under which
            ``DATASET/foldF/RECIPE/seedS`` is made.
        jobs: how many runs at a time on this machine; None: one per visible CUDA device, or one.
            With more than one, each has a CUDA device of its own as far as there are, and the
            threads are divided among them.
        timeout: seconds that one cell may take; None for no limit.
        submit: ``slurm``, or ``local`` to try a submission on this machine (all runs at once). Each
            run is a job of submitit, whose own output goes to ``notebooks/submitit``, and goes on
            in a new job when its time is over or it is preempted.
        submit_options: see :func:`~ncdss_lib.runs.submit_jobs.cluster_executor`.

    Returns:
        The folder of each run, folds outermost.

    Raises:
        InputError, RunError: a run failed; all others have ended, and the message lists every
            failure.
    """
    # what is wrong with the options is said before anything starts
    load_recipe(recipe, overrides, dataset)
    _check_grid(folds, seeds, jobs)
    if out is not None:
        refuse_file(Path(out), "--out")
    _check_submission(submit, submit_options or {}, jobs, device)
    notebook_paths()

    # one run a fold and seed
    root = None if data_root is None else str(Path(data_root).resolve())
    grid = [(fold, seed) for fold in folds for seed in seeds]
    runs = []
    for fold, seed in grid:
        place = None if out is None else Path(out).resolve()
        if place and len(grid) > 1:
            place = run_folder(dataset, fold, recipe, seed, place)
        own = None if place is None else str(place)
        settings = (recipe, own, tuple(overrides), device, timeout)
        runs.append(GridRun(dataset, root, fold, seed, *settings))

    # all at once, some at once, or one after the other
    ended: Iterator[tuple[GridRun, Exception | None]]
    devices = cuda_devices(device)
    at_once = min(jobs or len(devices) or 1, len(runs))
    if submit:
        ended = run_on_cluster(runs, submit, submit_options or {}, devices)
    elif at_once > 1:
        ended = _run_at_once(runs, at_once, devices)
    else:
        ended = _run_in_turn(runs)

    # every failure, once all have ended
    errors: dict[GridRun, Exception] = {}
    with tqdm(total=len(runs), unit="run", desc="reproduce", disable=len(runs) == 1) as bar:
        for run, error in ended:
            if error:
                errors[run] = error
            bar.update()
    if errors:
        raise _failure(runs, errors)
    return [run.folder for run in runs]


def cuda_devices(device: str) -> list[str]:
    """The devices that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them; none on cpu."""
    if device == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[:count]


def _run_in_turn(runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Exception | None]]:
    for run in runs:
        try:
            execute_run(run)
        except Exception as error:
            yield run, error
        else:
            yield run, None


def _run_at_once(
    runs: Sequence[GridRun], jobs: int, devices: Sequence[str]
) -> Iterator[tuple[GridRun, NCDSSError | None]]:
    """Run ``jobs`` children at a time, each with a CUDA device of its own as far as there are."""
    threads = max(1, cores() // jobs)
    free: SimpleQueue[str | None] = SimpleQueue()
    for slot in range(jobs):
        free.put(devices[slot % len(devices)] if devices else None)

    def run_with_a_device(run: GridRun) -> NCDSSError | None:
        cuda = free.get()
        try:
            return run_as_child(run, run.environment(threads, cuda))
        finally:
            free.put(cuda)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_with_a_device, run): run for run in runs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except KeyboardInterrupt as stop:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(stop, Terminated):  # Ctrl-C reaches them by itself
                interrupt_children()
            raise


def _check_grid(folds: Sequence[int], seeds: Sequence[int], jobs: int | None) -> None:
    if not folds or not seeds or len(set(folds)) < len(folds) or len(set(seeds)) < len(seeds):
        raise InputError(
            "--folds and --seeds each need at least one number, without repetition; found "
            f"{list(folds)} and {list(seeds)}."
        )
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, found {jobs}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "`reproduce` starts its own processes: call it without torchrun. Several GPUs for one "
            "run: torchrun ... run."
        )


def _check_submission(
    submit: str | None, options: Mapping[str, Any], jobs: int | None, device: str
) -> None:
    if submit is None:
        if options:
            raise InputError("--submit-option needs --submit slurm (or local).")
        return
    if jobs is not None:
        raise InputError(
            "--jobs counts runs on this machine; with --submit the cluster decides. Leave one of "
            "them out."
        )
    with tempfile.TemporaryDirectory() as nowhere:  # an executor makes its folder
        cluster_executor(Path(nowhere), submit, options, device)


def _failure(runs: Sequence[GridRun], errors: Mapping[GridRun, Exception]) -> Exception:
    """The error of a single run as it is, or one error that lists those of a grid."""
    if len(runs) == 1:
        return errors[runs[0]]
    lines = [f"{len(errors)} of {len(runs)} runs failed:"]
    for run in runs:
        if error := errors.get(run):
            unknown = "" if isinstance(error, NCDSSError) else f"{type(error).__name__}: "
            lines.append(f"  {run.name}: {unknown}{error}")
    wrong_input = all(isinstance(error, InputError) for error in errors.values())
    failure = InputError("\n".join(lines)) if wrong_input else RunError("\n".join(lines))
    failure.__cause__ = ExceptionGroup("the failures", list(errors.values()))
    return failure
