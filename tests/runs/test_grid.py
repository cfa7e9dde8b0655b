"""The grid of runs: in turn, at once on the devices that there are, and as submitted jobs."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ncdss_lib.cli import build_parser
from ncdss_lib.runs import grid, grid_run, submit_jobs
from ncdss_lib.runs.notebooks import PACKAGE
from ncdss_lib.system.distributed import cores
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import read_json
from tests.conftest import TINY_LAPTOP
from tests.runs.test_notebooks import write_notebook
from tests.runs.test_report import write as write_report

# --- the grid -----------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Replace executions by a list of what would have run; a test may put errors in ``fails``."""
    runs: list[grid_run.GridRun] = []
    fails: dict[tuple[int, int], Exception] = {}

    def as_child(run, environment):
        runs.append(run)
        return fails.get((run.fold, run.seed))

    def in_turn(run):
        if error := as_child(run, {}):
            raise error

    monkeypatch.setattr(grid, "run_as_child", as_child)
    monkeypatch.setattr(grid, "execute_run", in_turn)
    monkeypatch.setattr(grid, "notebook_paths", lambda: [tmp_path / "01_small.ipynb"])
    return runs, fails


def test_a_grid_makes_one_folder_a_run(tmp_path, started):
    folders = grid.reproduce(folds=[0, 2], seeds=[0, 1], out=tmp_path, overrides=["eums.epochs=2"], data_root="d")
    expected = [tmp_path / "toyscenes" / f"fold{fold}" / "laptop" / f"seed{seed}" for fold in (0, 2) for seed in (0, 1)]
    assert folders == expected
    assert [Path(job.out) for job in started[0]] == expected
    assert {(job.data_root, job.overrides) for job in started[0]} == {(str(Path("d").resolve()), ("eums.epochs=2",))}


def test_a_single_run_takes_out_as_its_folder(tmp_path, started):
    assert grid.reproduce(out=tmp_path / "x") == [tmp_path / "x"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_run_stops_no_other_and_is_listed(tmp_path, started, jobs):
    runs, fails = started
    fails[0, 1] = RunError("disk full")
    with pytest.raises(RunError) as caught:
        grid.reproduce(folds=[0, 1], seeds=[0, 1], out=tmp_path, jobs=jobs)
    assert str(caught.value) == "1 of 4 runs failed:\n  toyscenes fold 0 seed 1 laptop: disk full"
    assert len(runs) == 4


def test_the_error_of_a_single_run_is_its_own_and_wrong_input_stays_wrong_input(tmp_path, started):
    _, fails = started
    fails[0, 0] = InputError("no images")
    with pytest.raises(InputError, match="^no images$"):
        grid.reproduce(out=tmp_path)
    fails[1, 0] = InputError("no masks")
    with pytest.raises(InputError, match="2 of 2 runs failed"):
        grid.reproduce(folds=[0, 1], out=tmp_path)
    fails[1, 0] = KeyError("masks")
    with pytest.raises(RunError, match="fold 1 seed 0 laptop: KeyError: 'masks'"):
        grid.reproduce(folds=[0, 1], out=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": []}, "at least one number"),
        ({"seeds": [1, 1]}, "without repetition"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"submit": "slrum"}, "--submit 'slrum': did you mean 'slurm'"),
        ({"submit": "local", "jobs": 2}, "--jobs counts runs on this machine"),
        ({"submit_options": {"timeout_min": 5}}, "--submit-option needs --submit"),
        (
            {"submit": "local", "submit_options": {"timeout_minutes": 5}},
            "Unknown executor 'timeout' in parameter 'timeout_minutes'",
        ),
        (
            {"submit": "local", "submit_options": {"slurm_partitoin": "gpu"}},
            "slurm_partitoin.*Valid arguments: .*partition",
        ),
        (
            {"submit": "local", "submit_options": {"timeout_min": "long"}},
            '"timeout_min" expected type.*long',
        ),
        (
            {"submit": "local", "submit_options": {"tasks_per_node": 4}},
            "nodes and tasks_per_node are 1",
        ),
        (
            {"submit": "local", "submit_options": {"max_num_timeout": "often"}},
            "max_num_timeout='often'",
        ),
        ({"submit": "local", "submit_options": {"slurm_time": 60}}, "as timeout_min instead"),
        ({"recipe": "labtop"}, "laptop"),
        ({"overrides": ["eums.epoch=1"]}, "epochs"),
    ],
)
def test_wrong_options_start_nothing(tmp_path, started, options, message):
    with pytest.raises(InputError, match=message):
        grid.reproduce(out=tmp_path / "runs", **options)
    assert not started[0]
    assert not (tmp_path / "runs").exists()


def test_a_percent_sign_in_a_path_is_refused_for_a_cluster(tmp_path):
    run = grid_run.GridRun("toyscenes", None, 0, 0, "laptop", str(tmp_path / "100%t"), ())
    with pytest.raises(InputError, match="100%t has a % in its path.*--out"):
        next(submit_jobs.run_on_cluster([run], "local", {}, []))
    assert not list(tmp_path.iterdir())


def test_torchrun_is_refused_and_so_is_slurm_where_there_is_none(tmp_path, started, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--submit slurm: Could not detect .srun.*--jobs"):
        grid.reproduce(out=tmp_path, submit="slurm")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        grid.reproduce(out=tmp_path)
    assert not started[0]


def test_a_child_process_hands_its_error_back(tmp_path, voc):
    run = grid_run.GridRun("pascal5i", str(voc), 99, 0, "laptop", str(tmp_path / "run"), ())
    error = grid_run.run_as_child(run, run.environment(threads=1))
    assert isinstance(error, InputError)
    assert str(error).startswith("fold 99 does not exist in pascal5i")
    assert "Traceback" in run.log.read_text()


def test_a_runs_own_command_gives_all_its_settings(tmp_path):
    """What a child is told is what the grid was told."""
    told = (
        "folder",
        str(tmp_path),
        0,
        3,
        "paper",
        str(tmp_path / "run"),
        ("eums.lr=0.1", "a.b=-1"),
    )
    run = grid_run.GridRun(*told, device="cpu", timeout=None)
    options = build_parser().parse_args(run.command[3:])
    assert (options.dataset, options.data_root, options.folds, options.seeds) == (
        *told[:2],
        [0],
        [3],
    )
    assert (options.recipe, options.out, tuple(options.overrides)) == told[4:]
    assert (options.device, options.timeout, options.jobs, options.submit) == ("cpu", 0, None, None)
    assert dataclasses.replace(run, timeout=5.0, out=None, data_root=None).command[-4:] == [
        "--device=cpu", "--timeout=5.0", "--set=eums.lr=0.1", "--set=a.b=-1",
    ]  # fmt: skip


# --- CUDA devices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "count", "device", "expected"),
    [
        (None, 2, "auto", ["0", "1"]),
        ("3,5", 2, "cuda", ["3", "5"]),
        ("GPU-a,GPU-b", 2, "auto", ["GPU-a", "GPU-b"]),
        ("0,7", 1, "auto", ["0"]),  # there is no 7
        ("", 0, "auto", []),
        (None, 0, "auto", []),
        (None, 2, "cpu", []),
    ],
)
def test_visible_devices_are_named_as_the_environment_names_them(monkeypatch, visible, count, device, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert grid.cuda_devices(device) == expected


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """Children that only write down their environment; two of them on one device at a time fail."""
    seen = tmp_path / "environments"
    seen.mkdir()
    python = tmp_path / "python"
    device = f'"{seen}/on $CUDA_VISIBLE_DEVICES"'
    python.write_text(f'#!/bin/sh\nmkdir {device} || exit 3\nenv > "{seen}/$$.env"\nsleep 0.3\nrmdir {device}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return lambda: [dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line) for path in seen.glob("*.env")]


def test_by_default_there_are_as_many_runs_at_a_time_as_devices_each_with_one_of_its_own(tmp_path, environments):
    grid.reproduce(folds=[0, 1, 2], seeds=[0, 1], out=tmp_path / "runs")
    found = environments()
    assert len(found) == 6
    assert {one["CUDA_VISIBLE_DEVICES"] for one in found} == {"GPU-a", "GPU-b"}
    assert {one["OMP_NUM_THREADS"] for one in found} == {str(max(1, cores() // 2))}
    assert {one["NCDSS_DEVICE"] for one in found} == {"auto"}


@pytest.mark.parametrize("options", [{"jobs": 1}, {"device": "cpu"}])
def test_one_run_at_a_time_sees_all_devices(tmp_path, monkeypatch, options):
    """It is executed here, and what its kernels find in the environment is taken back."""
    seen = []

    def execute(notebook, out_path, parameters, **_):
        seen.append(dict(os.environ))
        (out_path.parent.parent / "report.json").touch()
        return True

    data = SimpleNamespace(fingerprint=lambda: "")
    monkeypatch.setattr("ncdss_lib.runs.pipeline.open_run", lambda **_: SimpleNamespace(data=data, stages=list))
    monkeypatch.setattr(grid_run, "execute", execute)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(grid, "notebook_paths", list)
    monkeypatch.setattr(grid_run, "notebook_paths", lambda: [tmp_path / "01_small.ipynb"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    for fold in (0, 1):
        (tmp_path / f"toyscenes/fold{fold}/laptop/seed0").mkdir(parents=True)
    grid.reproduce(folds=[0, 1], out=tmp_path, **options)
    assert [(e["CUDA_VISIBLE_DEVICES"], "OMP_NUM_THREADS" in e) for e in seen] == [("GPU-a,GPU-b", False)] * 2
    assert {e["NCDSS_DEVICE"] for e in seen} == {options.get("device", "auto")}
    assert "NCDSS_DEVICE" not in os.environ


def test_more_jobs_than_devices_share_them(tmp_path, environments):
    """The children of this test refuse to share, so two of four at once fail."""
    with pytest.raises(
        RunError,
        match="2 of 4 runs failed:\n.*: the process ended with status 3, see .*reproduce.log",
    ):
        grid.reproduce(folds=[0, 1, 2, 3], out=tmp_path / "runs", jobs=4)


# --- submitted jobs -----------------------------------------------------------------------------


def test_options_of_a_submission():
    texts = [
        "timeout_min=600",
        "slurm_partition=gpu",
        "slurm_exclusive=true",
        'slurm_setup=["a=b"]',
        "slurm_comment=12:00:00",
    ]
    assert submit_jobs.parse_options(texts) == {
        "timeout_min": 600,
        "slurm_partition": "gpu",
        "slurm_exclusive": True,
        "slurm_setup": ["a=b"],
        "slurm_comment": "12:00:00",
    }
    with pytest.raises(InputError, match="'gpu' is not of the form key=value"):
        submit_jobs.parse_options(["gpu"])
    with pytest.raises(InputError, match="name is given twice"):
        submit_jobs.parse_options(["name=a", "name=b"])


def test_slurm_is_told_every_option(tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = {
        "timeout_min": 90,
        "cpus_per_task": 6,
        "mem_gb": 40,
        "slurm_partition": "gpu",
        "slurm_additional_parameters": {"qos": "low"},
    }
    made = submit_jobs.cluster_executor(tmp_path / "run", "slurm", options, "auto", "ncdss-x")
    text = made._executor._make_submission_file_text("command", "id")
    for line in (
        "time=90",
        "cpus-per-task=6",
        "mem=40GB",
        "partition=gpu",
        "qos=low",
        "gpus-per-node=1",
        "job-name=ncdss-x",
        "signal=USR2@90",
    ):
        assert f"#SBATCH --{line}\n" in text
    assert made._executor.max_num_timeout == 10
    plain = submit_jobs.cluster_executor(tmp_path / "run", "slurm", {"max_num_timeout": 2}, "cpu")
    assert plain.parameters["time"] == 24 * 60
    assert "gpus-per-node=0" in plain._executor._make_submission_file_text("command", "id")
    assert plain._executor.max_num_timeout == 2


ALL_PARAMETERS = """dataset: str = "toyscenes"
data_root: str | None = None
fold: int = 0
seed: int = 0
recipe: str = "laptop"
out: str | None = None
overrides: list = []"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project whose only notebook a test writes; its processes import its copy of the library."""
    root = tmp_path / "project"
    shutil.copytree(PACKAGE, root / "ncdss_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "_toc.yml").touch()
    monkeypatch.setattr(grid, "notebook_paths", lambda: [root / "notebooks" / "01_small.ipynb"])
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(root)
    return root


def test_submitted_runs_leave_what_local_ones_leave_and_their_errors_are_collected(project, voc):
    write_notebook(
        project / "notebooks" / "01_small.ipynb",
        "from ncdss_lib.runs.pipeline import open_run",
        "open_run(dataset, data_root, fold, seed, recipe, out, overrides).write_report()",
        parameters=ALL_PARAMETERS,
    )
    with pytest.raises(InputError, match=r"1 of 2 runs failed:\n  pascal5i fold 9 seed 0 laptop: .*fold 9"):
        grid.reproduce("pascal5i", voc, [0, 9], overrides=TINY_LAPTOP, out="grid", device="cpu", submit="local")
    run = project / "grid" / "pascal5i" / "fold0" / "laptop" / "seed0"
    assert read_json(run / "report.json")["fold"] == 0
    assert (run / "notebooks" / "01_small.ipynb").exists()
    assert "Job completed successfully" in next((run / "notebooks" / "submitit").glob("*_log.out")).read_text()
    assert "fold 9" in (project / "grid" / "pascal5i" / "fold9" / "laptop" / "seed0" / "notebooks" / "reproduce.log").read_text()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for kernels in /proc")
def test_an_interruption_ends_the_kernels_and_says_how_to_go_on(project, voc, jobs):
    """The signal goes to all processes of the command, as from a terminal."""
    write_notebook(
        project / "notebooks" / "01_small.ipynb",
        "import os, time\nfrom pathlib import Path",
        "(Path(out) / 'kernel').write_text(str(os.getpid()))",
        "time.sleep(600)",
        parameters=ALL_PARAMETERS,
    )
    out = project / "grid"
    options = [
        "--dataset",
        "pascal5i",
        "--data-root",
        str(voc),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    options += ["--seeds", *map(str, range(jobs)), "--jobs", str(jobs)]
    command = [sys.executable, "-m", "ncdss_lib", "reproduce", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 240
    while len(kernels := list(out.rglob("kernel"))) < jobs or not all(map(read, kernels)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "ncdss: interrupted; run the same command again to go on."
    assert not any(Path("/proc", read(kernel)).exists() for kernel in kernels)


def read(path: Path) -> str:
    return path.read_text()


def process_of(folder: Path) -> int | None:
    """The process of submitit that executes a run."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().decode(errors="replace").split("\0") if path.exists() else []
        if "submitit.core._submit" in words and str(folder) in words:
            return int(path.parent.name)
    return None


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes by their command in /proc")
def test_a_preempted_run_is_submitted_again_and_a_killed_one_is_a_run_error_that_names_its_log(project, voc, tmp_path, monkeypatch):
    """Seed 0 gets the signal that a cluster sends before it takes a machine away.

    Seed 1 is killed.
    """
    report = write_report(tmp_path, 0, 0, {"basic": 0.2})
    write_notebook(
        project / "notebooks" / "01_small.ipynb",
        "import os, time\nfrom pathlib import Path",
        "attempts = Path(out) / 'attempts'",
        "with attempts.open('a') as file: file.write(f'{os.getpid()}\\n')",
        "if len(attempts.read_text().split()) == 1: time.sleep(600)",
        f"(Path(out) / 'report.json').write_text({report.read_text()!r})",
        parameters=ALL_PARAMETERS,
    )
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    preempted, killed = (project / "grid" / "pascal5i" / "fold0" / "laptop" / f"seed{seed}" for seed in range(2))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            grid.reproduce,
            "pascal5i",
            voc,
            seeds=[0, 1],
            overrides=TINY_LAPTOP,
            out=project / "grid",
            device="cpu",
            submit="local",
        )
        deadline = time.monotonic() + 240
        while not all((out / "attempts").exists() for out in (preempted, killed)):
            assert time.monotonic() < deadline
            assert not future.done(), future.result()
            time.sleep(0.1)
        first, second = (process_of(out / "notebooks" / "submitit") for out in (preempted, killed))
        assert first
        assert second
        os.kill(first, signal.SIGUSR2)
        for pid in (second, *children_of(second)):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RunError, match="1 of 2 runs failed") as caught:
            future.result(timeout=240)
    reason = r"job \d+ ended without a result \(out of memory, cancelled or killed\?\)"
    where = r"See .*/seed1/.*_log.err"
    assert re.search(rf"seed 1 laptop: {reason}. {where}", str(caught.value))
    kernels = (preempted / "attempts").read_text().split()
    assert len(kernels) == 2
    assert not Path(f"/proc/{kernels[0]}").exists()
    assert (preempted / "report.json").exists()
    assert not (killed / "report.json").exists()
