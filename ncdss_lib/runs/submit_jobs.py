"""Runs of a grid as jobs of a cluster, through submitit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable, as_completed

from ncdss_lib.runs.grid_run import GridRun, run_as_child
from ncdss_lib.system.distributed import cores
from ncdss_lib.system.errors import InputError, NCDSSError, RunError, did_you_mean

CLUSTERS = ("slurm", "local")


@dataclass
class Submission(Checkpointable):
    """A run as submitit carries it to another machine and calls it there.

    It is submitted again, as it is, when the job's time is over or it is preempted: a run goes on
    where it stopped.
    """

    run: GridRun
    environment: Mapping[str, str]

    def __call__(self) -> NCDSSError | None:
        return run_as_child(self.run, self.environment)


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts of ``--submit-option`` as a dictionary.

    Values are JSON (``2``, ``true``, ``["module load cuda"]``) or text.

    Raises:
        InputError: a text is not of that form, or a key is given twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(
                f"--submit-option {text!r} is not of the form key=value, such as "
                "slurm_partition=gpu."
            )
        if key in options:
            raise InputError(f"--submit-option {key} is given twice.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def cluster_executor(
    folder: Path, cluster: str, options: Mapping[str, Any], device: str, name: str = "ncdss"
) -> submitit.AutoExecutor:
    """A submitit executor for one run; its logs and pickles go to ``folder``.

    Args:
        cluster: ``slurm``, or ``local`` to try a submission on this machine.
        options: as of ``submitit.AutoExecutor.update_parameters``, such as ``timeout_min``,
            ``cpus_per_task`` or ``slurm_partition``; also ``max_num_timeout``, how often a run is
            submitted again when its time is over (10). Without them a job may take a day each
            time, and has one GPU unless ``device`` is cpu.

    Raises:
        InputError: an unknown cluster or option, a value of the wrong type, more than one process
            a run, or there is no SLURM here.
    """
    # the options, with defaults of ours
    if cluster not in CLUSTERS:
        raise InputError(f"--submit {cluster!r}: {did_you_mean(cluster, CLUSTERS)}")
    gpus = 0 if device == "cpu" or cluster == "local" else 1
    chosen = {"timeout_min": 24 * 60, "gpus_per_node": gpus, "name": name, **options}
    requeues = chosen.pop("max_num_timeout", 10)
    if not isinstance(requeues, int):
        raise InputError(
            f"--submit-option max_num_timeout={requeues!r}: a number of times is expected."
        )
    if "slurm_time" in chosen:
        raise InputError(
            "--submit-option slurm_time: give the minutes as timeout_min instead, by which a run "
            "is submitted again in time."
        )

    # submitit checks most of them itself
    logging.getLogger("submitit").setLevel(logging.ERROR)  # it would break the progress bar
    try:
        made = submitit.AutoExecutor(folder, cluster, **{f"{cluster}_max_num_timeout": requeues})
        made.update_parameters(**chosen)
    except RuntimeError as error:
        raise InputError(
            f"--submit {cluster}: {error} Call it where sbatch and srun are, or run here with "
            "--jobs."
        ) from None
    except (NameError, AssertionError, TypeError, ValueError) as error:  # about an option
        raise InputError(f"--submit-option: {' '.join(str(error).split())}") from None
    counts = [made.parameters.get(key) for key in ("nodes", "tasks_per_node", "ntasks_per_node")]
    if any(count not in (None, 0, 1) for count in counts):
        raise InputError(
            "--submit-option: a run of `reproduce` is one process, so nodes and tasks_per_node "
            "are 1."
        )
    return made


def run_on_cluster(
    runs: Sequence[GridRun], cluster: str, options: Mapping[str, Any], devices: Sequence[str]
) -> Iterator[tuple[GridRun, NCDSSError | None]]:
    """Submit all runs; yield each as it ends, with its error.

    Those that have not ended when this process is interrupted are cancelled.

    Args:
        devices: the CUDA devices that the runs share when the cluster is ``local``.

    Raises:
        InputError: a run's folder has a ``%`` in its path, for which clusters put numbers.
    """
    for run in runs:
        if "%" in str(run.log):
            raise InputError(
                f"--submit: {run.folder} has a % in its path, for which clusters put numbers of "
                "jobs. Choose another place with --out or $NCDSS_RUNS."
            )
    submitted: dict[submitit.Job[NCDSSError | None], GridRun] = {}
    try:
        for number, run in enumerate(runs):
            environment = run.environment()
            if cluster == "local":
                cuda = devices[number % len(devices)] if devices else None
                environment = run.environment(max(1, cores() // len(runs)), cuda)
            name = f"ncdss-{run.dataset}-fold{run.fold}-seed{run.seed}"
            folder = run.log.parent / "submitit"
            executor = cluster_executor(folder, cluster, options, run.device, name)
            try:
                job = executor.submit(Submission(run, environment))
            except RuntimeError as error:  # what sbatch said
                raise RunError(
                    f"{run.name} was not accepted by {cluster}: {error} Check --submit-option and "
                    "submit again."
                ) from error
            submitted[job] = run
        for job in as_completed(list(submitted), poll_frequency=1):
            yield submitted.pop(job), _outcome(job)
    finally:
        for job in submitted:
            job.cancel(check=False)


def _outcome(job: submitit.Job[NCDSSError | None]) -> NCDSSError | None:
    try:
        return job.result()
    except RuntimeError as error:  # submitit's, with a traceback or a whole log as its message
        said = [line.strip() for line in str(error).splitlines() if "Error: " in line]
        reason = said[-1] if said else "out of memory, cancelled or killed?"
        return RunError(
            f"job {job.job_id} ended without a result ({reason}). See {job.paths.stderr}."
        )
