"""Papermill as the executor, on tiny notebooks: parameters, failures, skipping, time limits, the grid, here and as submitted jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import torch

from ncdss_lib import batch
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import read_json
from tests.conftest import TINY_LAPTOP

PARAMETERS = 'fold: int = 0  # 0..3\ndata_root: str | None = None\noverrides: list = []\nname: str = "x"'


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
    notebook.cells = [tagged, *(nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells))]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def printed(path: Path) -> str:
    return "".join(o.get("text", "") for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" for o in c.outputs)


@pytest.fixture
def out_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "notebooks" / "01_small.ipynb"


def run(notebook: Path, out_path: Path, parameters: dict | None = None, **options) -> bool:
    return batch.execute(notebook, out_path, parameters or {}, progress=False, **options)


# --- parameters -------------------------------------------------------------------------------------------------------------------------


def test_parameters_are_read_with_their_annotations_and_defaults(tmp_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb")
    assert batch.parameters_of(batch.read_notebook(notebook)) == {"fold": 0, "data_root": None, "overrides": [], "name": "x"}
    batch.check_parameters(notebook, {"data_root": "d", "overrides": ["a.b=1"]})


def test_an_unknown_parameter_is_refused_with_the_nearest_name_before_anything_runs(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb")
    with pytest.raises(InputError, match="no parameter 'flod': did you mean 'fold'"):
        run(notebook, out_path, {"flod": 1})
    assert not out_path.parent.exists()


def test_a_parameters_cell_must_exist_and_hold_literals(tmp_path):
    with pytest.raises(InputError, match="no cell tagged `parameters`"):
        batch.check_parameters(write_notebook(tmp_path / "a.ipynb", parameters="# nothing"), {})
    with pytest.raises(InputError, match="`fold = 1 \\+ n`, which is not a literal"):
        batch.check_parameters(write_notebook(tmp_path / "b.ipynb", parameters="fold = 1 + n"), {})


def test_an_unreadable_notebook_is_an_input_error(tmp_path):
    (tmp_path / "01.ipynb").write_text("{")
    with pytest.raises(InputError, match="not a notebook that can be read"):
        batch.check_parameters(tmp_path / "01.ipynb", {})


# --- the key ----------------------------------------------------------------------------------------------------------------------------


def test_the_key_follows_code_parameters_inputs_and_library_and_not_the_text(tmp_path, monkeypatch):
    one = batch.read_notebook(write_notebook(tmp_path / "a.ipynb", "1"))
    two = batch.read_notebook(write_notebook(tmp_path / "b.ipynb", "2"))
    library = tmp_path / "library"
    (library / "viz").mkdir(parents=True)
    monkeypatch.setattr(batch, "PACKAGE", library)
    keys = [batch.execution_key(one, {"fold": 0}, "d"), batch.execution_key(two, {"fold": 0}, "d")]
    keys += [batch.execution_key(one, {"fold": 1}, "d"), batch.execution_key(one, {"fold": 0}, "e")]
    one.cells.insert(1, nbformat.v4.new_markdown_cell("other words"))
    assert batch.execution_key(one, {"fold": 0}, "d") == keys[0]
    libraries = [batch.library_digest()]
    for name in ("m.py", "viz/explorer.js", "viz/explorer.css"):
        for content in ("1", "2"):
            (library / name).write_text(content)
            keys.append(batch.execution_key(one, {"fold": 0}, "d"))
            libraries.append(batch.library_digest())
    assert len(set(keys)) == len(keys) == 10
    assert len(set(libraries)) == len(libraries)
    (library / "m.cpython-311.pyc").write_text("compiled")
    assert batch.library_digest() == libraries[-1]


# --- execution (each starts a kernel) ---------------------------------------------------------------------------------------------------


def test_executes_once_and_again_only_when_something_changed(tmp_path, out_path):
    """Parameters arrive, the kernel starts beside the notebook, an unchanged call does nothing, each kind of change executes."""
    log = tmp_path / "log"
    work = f"from pathlib import Path\nwith open({str(log)!r}, 'a') as f: f.write('x')\nprint(fold, data_root, Path.cwd().name)"
    notebook = write_notebook(tmp_path / "notebooks" / "01_small.ipynb", work)

    assert run(notebook, out_path, {"fold": 2, "name": "x"}, inputs="data")
    assert printed(out_path) == "2 None notebooks\n"
    injected = [c.source for c in nbformat.read(out_path, as_version=4).cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert injected == ["# Parameters\nfold = 2\n"]  # `name` has its default
    assert [path.name for path in out_path.parent.iterdir()] == [out_path.name]
    made = nbformat.read(out_path, as_version=4).metadata["ncdss"]
    assert made["library"] == batch.library_digest()
    assert 1 <= made["cores"] <= os.cpu_count()

    assert not run(notebook, out_path, {"fold": 2, "name": "x"}, inputs="data")
    assert log.read_text() == "x"
    assert run(notebook, out_path, {"fold": 3, "name": "x"}, inputs="data")
    assert printed(out_path) == "3 None notebooks\n"
    write_notebook(notebook, work + "\nprint('more')")
    assert run(notebook, out_path, {"fold": 3, "name": "x"}, inputs="data")
    assert printed(out_path).endswith("more\n")
    assert log.read_text() == "xxx"


def test_an_execution_is_not_current_when_what_stood_beside_it_is_gone(tmp_path, out_path):
    stage = out_path.parent.parent / "clustering"
    stage.mkdir(parents=True)
    notebook = write_notebook(tmp_path / "01_small.ipynb", "1")
    assert run(notebook, out_path)
    key = batch.execution_key(batch.read_notebook(notebook), {})
    assert batch.is_current(out_path, key)
    stage.rmdir()
    assert not batch.is_current(out_path, key)


def test_a_failing_cell_names_notebook_cell_and_error_and_keeps_the_earlier_execution(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb", "print('good')")
    run(notebook, out_path)
    write_notebook(notebook, "print('before')", "# divide\n1 / 0")
    with pytest.raises(
        RunError, match=r"notebook 01_small\.ipynb failed in cell \[3\] `# divide`: ZeroDivisionError: division by zero"
    ) as error:
        run(notebook, out_path)
    failed = out_path.with_name("01_small.failed.ipynb")
    assert str(failed) in str(error.value)
    assert "before" in printed(failed)
    assert printed(out_path) == "good\n"
    assert sorted(path.name for path in out_path.parent.iterdir()) == ["01_small.failed.ipynb", "01_small.ipynb"]
    write_notebook(notebook, "print('good')")
    assert not run(notebook, out_path)
    assert not failed.exists()


def test_an_input_error_in_a_cell_stays_an_input_error(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb", "class InputError(Exception): pass\nraise InputError('no images in d')")
    with pytest.raises(InputError, match="^no images in d"):
        run(notebook, out_path)


def test_a_cell_that_takes_too_long_fails(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb", "import time; time.sleep(60)")
    with pytest.raises(RunError, match=r"a cell took longer than 1 s \(--timeout\)"):
        run(notebook, out_path, timeout=1)
    assert not out_path.exists()
    assert out_path.with_name("01_small.failed.ipynb").exists()


def test_a_killed_kernel_is_a_run_error(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb", "import os; os._exit(9)")
    with pytest.raises(RunError, match="the kernel died"):
        run(notebook, out_path)
    assert not out_path.exists()


# --- the grid ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def children(tmp_path, monkeypatch):
    """Replace the processes by a list of what would have run; a test may put errors in ``fails``."""
    started: list[batch.Job] = []
    fails: dict[tuple[int, int], Exception] = {}

    def child(job, *_):
        started.append(job)
        return fails.get((job.fold, job.seed))

    monkeypatch.setattr(batch, "_child", child)
    monkeypatch.setattr(batch, "notebooks", lambda: [tmp_path / "01_small.ipynb"])
    return started, fails


def test_a_grid_makes_one_folder_a_run(tmp_path, children):
    folders = batch.reproduce(folds=[0, 2], seeds=[0, 1], out=tmp_path, overrides=["eums.epochs=2"], data_root="d")
    expected = [tmp_path / "toyscenes" / f"fold{fold}" / "laptop" / f"seed{seed}" for fold in (0, 2) for seed in (0, 1)]
    assert folders == expected
    assert [Path(job.out) for job in children[0]] == expected
    assert {(job.data_root, job.overrides) for job in children[0]} == {(str(Path("d").resolve()), ("eums.epochs=2",))}


def test_a_single_run_takes_out_as_its_folder(tmp_path, children):
    assert batch.reproduce(out=tmp_path / "x") == [tmp_path / "x"]


def test_a_failing_run_stops_no_other_and_is_listed(tmp_path, children):
    started, fails = children
    fails[0, 1] = RunError("disk full")
    with pytest.raises(RunError, match=r"1 of 4 runs failed:\n  toyscenes fold 0 seed 1 laptop: disk full"):
        batch.reproduce(folds=[0, 1], seeds=[0, 1], out=tmp_path, jobs=2)
    assert len(started) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": []}, "at least one number"),
        ({"seeds": [1, 1]}, "without repetition"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"submit": "slrum"}, "--submit 'slrum': did you mean 'slurm'"),
        ({"submit": "local", "jobs": 2}, "--jobs counts runs on this machine"),
        ({"submit_options": {"timeout_min": 5}}, "--submit-option needs --submit"),
        ({"submit": "local", "submit_options": {"timeout_minutes": 5}}, "Unknown executor 'timeout' in parameter 'timeout_minutes'"),
        ({"submit": "local", "submit_options": {"slurm_partitoin": "gpu"}}, "slurm_partitoin.*Valid arguments: .*partition"),
        ({"submit": "local", "submit_options": {"timeout_min": "long"}}, '"timeout_min" expected type.*long'),
        ({"submit": "local", "submit_options": {"tasks_per_node": 4}}, "nodes and tasks_per_node are 1"),
        ({"submit": "local", "submit_options": {"max_num_timeout": "often"}}, "max_num_timeout='often'"),
        ({"submit": "local", "submit_options": {"slurm_time": 60}}, "as timeout_min instead"),
        ({"recipe": "labtop"}, "laptop"),
        ({"overrides": ["eums.epoch=1"]}, "epochs"),
    ],
)
def test_wrong_options_start_nothing(tmp_path, children, options, message):
    with pytest.raises(InputError, match=message):
        batch.reproduce(out=tmp_path / "runs", **options)
    assert not children[0]
    assert not (tmp_path / "runs").exists()


def test_torchrun_is_refused_and_so_is_slurm_where_there_is_none(tmp_path, children, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--submit slurm: Could not detect .srun.*--jobs"):
        batch.reproduce(out=tmp_path, submit="slurm")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        batch.reproduce(out=tmp_path)
    assert not children[0]


def test_a_child_process_hands_its_error_back(tmp_path):
    job = batch.Job("toyscenes", None, 99, 0, "laptop", str(tmp_path / "run"), ())
    error = batch._child(job, 60.0, batch._environment("cpu", 1), tmp_path / "log")
    assert isinstance(error, InputError)
    assert "fold 99" in str(error)
    assert "Traceback" in (tmp_path / "log").read_text()


# --- CUDA devices -----------------------------------------------------------------------------------------------------------------------


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
    assert batch.cuda_devices(device) == expected


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
    batch.reproduce(folds=[0, 1, 2], seeds=[0, 1], out=tmp_path / "runs")
    found = environments()
    assert len(found) == 6
    assert {one["CUDA_VISIBLE_DEVICES"] for one in found} == {"GPU-a", "GPU-b"}
    assert {one["OMP_NUM_THREADS"] for one in found} == {str(max(1, (os.cpu_count() or 1) // 2))}
    assert {one["NCDSS_DEVICE"] for one in found} == {"auto"}


@pytest.mark.parametrize("options", [{"jobs": 1}, {"device": "cpu"}])
def test_one_run_at_a_time_sees_all_devices(tmp_path, environments, options):
    batch.reproduce(folds=[0, 1], out=tmp_path / "runs", **options)
    assert [(one["CUDA_VISIBLE_DEVICES"], "OMP_NUM_THREADS" in one) for one in environments()] == [("GPU-a,GPU-b", False)] * 2


def test_more_jobs_than_devices_share_them(tmp_path, environments):
    """The children of this test refuse to share, so two of four at once fail."""
    with pytest.raises(RunError, match="2 of 4 runs failed:\n.*: the process ended with status 3, see .*reproduce.log"):
        batch.reproduce(folds=[0, 1, 2, 3], out=tmp_path / "runs", jobs=4)


# --- submitted jobs ---------------------------------------------------------------------------------------------------------------------


def test_options_of_a_submission():
    texts = ["timeout_min=600", "slurm_partition=gpu", "slurm_exclusive=true", 'slurm_setup=["a=b"]', "slurm_comment=12:00:00"]
    assert batch.parse_options(texts) == {
        "timeout_min": 600, "slurm_partition": "gpu", "slurm_exclusive": True, "slurm_setup": ["a=b"], "slurm_comment": "12:00:00",
    }  # fmt: skip
    with pytest.raises(InputError, match="'gpu' is not of the form key=value"):
        batch.parse_options(["gpu"])
    with pytest.raises(InputError, match="name is given twice"):
        batch.parse_options(["name=a", "name=b"])


def test_slurm_is_told_every_option(tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = {"timeout_min": 90, "cpus_per_task": 6, "mem_gb": 40, "slurm_partition": "gpu", "slurm_additional_parameters": {"qos": "low"}}
    made = batch.executor(tmp_path / "run", "slurm", options, "auto", "ncdss-x")
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
    plain = batch.executor(tmp_path / "run", "slurm", {"max_num_timeout": 2}, "cpu")
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
    """A project of its own whose only notebook a test writes; its processes import this copy of the library."""
    root = tmp_path / "project"
    shutil.copytree(batch.PACKAGE, root / "ncdss_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "_toc.yml").touch()
    monkeypatch.setattr(batch, "notebooks", lambda: [root / "notebooks" / "01_small.ipynb"])
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(root)
    return root


def test_submitted_runs_leave_what_local_ones_leave_and_their_errors_are_collected(project, voc):
    write_notebook(
        project / "notebooks" / "01_small.ipynb",
        "from ncdss_lib.pipeline import open_run",
        "open_run(dataset, data_root, fold, seed, recipe, out, overrides).write_report()",
        parameters=ALL_PARAMETERS,
    )
    with pytest.raises(InputError, match=r"1 of 2 runs failed:\n  pascal5i fold 9 seed 0 laptop: .*fold 9"):
        batch.reproduce("pascal5i", voc, [0, 9], overrides=TINY_LAPTOP, out="grid", device="cpu", submit="local")
    run = project / "grid" / "pascal5i" / "fold0" / "laptop" / "seed0"
    assert read_json(run / "report.json")["fold"] == 0
    assert (run / "notebooks" / "01_small.ipynb").exists()
    assert "Job completed successfully" in next((run / "notebooks" / "submitit").glob("*_log.out")).read_text()
    assert "fold 9" in (project / "grid" / "pascal5i" / "fold9" / "laptop" / "seed0" / "notebooks" / "reproduce.log").read_text()


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
def test_a_preempted_run_is_submitted_again_and_a_killed_one_is_a_run_error_that_names_its_log(project, voc, monkeypatch):
    """Of two runs, seed 0 gets the signal that a cluster sends before it takes a machine away; seed 1 is killed."""
    write_notebook(
        project / "notebooks" / "01_small.ipynb",
        "import os, time\nfrom pathlib import Path",
        "attempts = Path(out) / 'attempts'\nwith attempts.open('a') as file: file.write(f'{os.getpid()}\\n')",
        "if len(attempts.read_text().split()) == 1: time.sleep(600)",
        "(Path(out) / 'report.json').write_text('{}')",
        parameters=ALL_PARAMETERS,
    )
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    preempted, killed = (project / "grid" / "pascal5i" / "fold0" / "laptop" / f"seed{seed}" for seed in range(2))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            batch.reproduce, "pascal5i", voc, seeds=[0, 1], overrides=TINY_LAPTOP, out=project / "grid", device="cpu", submit="local"
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
    reason = r"seed 1 laptop: job \d+ ended without a result \(out of memory, cancelled or killed\?\). See .*/seed1/.*_log.err"
    assert re.search(reason, str(caught.value))
    kernels = (preempted / "attempts").read_text().split()
    assert len(kernels) == 2
    assert not Path(f"/proc/{kernels[0]}").exists()
    assert (preempted / "report.json").exists()
    assert not (killed / "report.json").exists()


# --- where the notebooks are ------------------------------------------------------------------------------------------------------------


def test_the_project_is_found_from_a_folder_below_it_and_its_notebooks_are_in_order(tmp_path, monkeypatch):
    for name in ("02_b", "01_a"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "notebooks" / "scratch.ipynb").write_text("{}")
    below = tmp_path / "book" / "deep"
    below.mkdir(parents=True)
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setattr(batch, "PACKAGE", tmp_path / "site-packages" / "ncdss_lib")
    monkeypatch.chdir(below)
    assert batch.notebooks_folder() == tmp_path / "notebooks"
    assert [path.name for path in batch.notebooks()] == ["01_a.ipynb", "02_b.ipynb"]


def test_without_notebooks_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "PACKAGE", tmp_path / "site-packages" / "ncdss_lib")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="ncdss run"):
        batch.notebooks()
