"""Papermill as the executor, on tiny notebooks: parameters, failures, skipping, time limits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from ncdss_lib.runs import notebooks
from ncdss_lib.system.errors import InputError, RunError
from tests.conftest import REPO

PARAMETERS = 'fold: int = 0  # 0..3\ndata_root: str | None = None\noverrides: list = []\nname: str = "x"'


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
    notebook.cells = [
        tagged,
        *(nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def printed(path: Path) -> str:
    return "".join(o.get("text", "") for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" for o in c.outputs)


@pytest.fixture
def out_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "notebooks" / "01_small.ipynb"


def run(notebook: Path, out_path: Path, parameters: dict | None = None, **options) -> bool:
    return notebooks.execute(notebook, out_path, parameters or {}, **options)


# --- parameters ---------------------------------------------------------------------------------


def test_parameters_are_read_with_their_annotations_and_defaults(tmp_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb")
    assert notebooks.parameters_of(notebooks.read_notebook(notebook)) == {
        "fold": 0,
        "data_root": None,
        "overrides": [],
        "name": "x",
    }
    notebooks.check_parameters(notebook, {"data_root": "d", "overrides": ["a.b=1"]})


def test_an_unknown_parameter_is_refused_with_the_nearest_name_before_anything_runs(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb")
    with pytest.raises(InputError, match="no parameter 'flod': did you mean 'fold'"):
        run(notebook, out_path, {"flod": 1})
    assert not out_path.parent.exists()


def test_a_parameters_cell_must_exist_and_hold_literals(tmp_path):
    with pytest.raises(InputError, match="no cell tagged `parameters`"):
        notebooks.check_parameters(write_notebook(tmp_path / "a.ipynb", parameters="# nothing"), {})
    with pytest.raises(InputError, match="`fold = 1 \\+ n`, which is not a literal"):
        notebooks.check_parameters(write_notebook(tmp_path / "b.ipynb", parameters="fold = 1 + n"), {})


def test_an_unreadable_notebook_is_an_input_error(tmp_path):
    (tmp_path / "01.ipynb").write_text("{")
    with pytest.raises(InputError, match="not a notebook that can be read"):
        notebooks.check_parameters(tmp_path / "01.ipynb", {})


# --- the key ------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package of some modules, and a notebook that imports one of them."""
    package = tmp_path / "ncdss_lib"
    (package / "viz").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "viz" / "__init__.py").write_text("from ncdss_lib import used")
    (package / "viz" / "explorer.js").write_text("1")
    (package / "used.py").write_text('def add(a, b):\n    """Add."""\n    return a + b  # both\n')
    (package / "unused.py").write_text("x = 1")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "checks.py").write_text("def check():\n    import ncdss_lib.lazy")
    (package / "lazy.py").write_text("x = 1")
    monkeypatch.setattr(notebooks, "PACKAGE", package)
    return package


def read_written(path: Path, *cells: str):
    return notebooks.read_notebook(write_notebook(path, *cells))


def test_the_key_follows_code_parameters_and_inputs_and_not_the_text(tmp_path, library):
    one = read_written(tmp_path / "notebooks" / "01_small.ipynb", "1")
    two = read_written(tmp_path / "notebooks" / "02_small.ipynb", "2")
    keys = [
        notebooks.execution_key(one, {"fold": 0}, "d"),
        notebooks.execution_key(two, {"fold": 0}, "d"),
        notebooks.execution_key(one, {"fold": 1}, "d"),
        notebooks.execution_key(one, {"fold": 0}, "e"),
    ]
    assert len(set(keys)) == len(keys)
    one.cells.insert(1, nbformat.v4.new_markdown_cell("other words"))
    assert notebooks.execution_key(one, {"fold": 0}, "d") == keys[0]


CHANGES = {
    "used.py": 'def add(a, b):\n    """Add."""\n    return a - b  # both\n',
    "viz/__init__.py": "from ncdss_lib import used, lazy",
    "viz/explorer.js": "2",
    "lazy.py": "x = 2",
    "../notebooks/checks.py": "def check():\n    import ncdss_lib.lazy\n    return 1",
}
NO_CHANGES = {
    "used.py": 'def add(a, b):\n    """Add two."""\n\n    # here\n    return (a + b)\n',
    "unused.py": "x = 2",
    "viz/other.cpython-311.pyc": "compiled",
    "../notebooks/other.py": "x = 1",
}


@pytest.mark.parametrize("changed", [*CHANGES.items(), *NO_CHANGES.items()], ids=lambda pair: pair[0])
def test_the_key_follows_the_code_of_what_a_notebook_imports(tmp_path, library, changed):
    """Also through other modules and inside functions; not comments, docstrings and layout."""
    path = tmp_path / "notebooks" / "01_small.ipynb"
    notebook = read_written(path, "%matplotlib inline\nimport checks", "from ncdss_lib import viz", "!ls", "1 +")
    before = notebooks.execution_key(notebook, {})
    name, content = changed
    (library / name).write_text(content)
    os.utime(library / name, ns=(1, 1))
    assert (notebooks.execution_key(notebook, {}) != before) == (changed in CHANGES.items())


# --- execution (each starts a kernel) -----------------------------------------------------------


def test_executes_once_and_again_only_when_something_changed(tmp_path, out_path):
    """Parameters arrive, and the kernel starts beside the notebook.

    An unchanged call does nothing, each kind of change executes.
    """
    log = tmp_path / "log"
    work = "from pathlib import Path\n"
    work += f"with open({str(log)!r}, 'a') as f: f.write('x')\n"
    work += "print(fold, data_root, Path.cwd().name)"
    notebook = write_notebook(tmp_path / "notebooks" / "01_small.ipynb", work)

    assert run(notebook, out_path, {"fold": 2, "name": "x"}, inputs="data")
    assert printed(out_path) == "2 None notebooks\n"
    injected = [c.source for c in nbformat.read(out_path, as_version=4).cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert injected == ["# Parameters\nfold = 2\n"]  # `name` has its default
    assert [path.name for path in out_path.parent.iterdir()] == [out_path.name]
    made = nbformat.read(out_path, as_version=4).metadata["ncdss"]
    assert made["library"] == notebooks.library_digest(notebooks.read_notebook(notebook))
    assert 1 <= made["cores"] <= os.cpu_count()

    assert not run(notebook, out_path, {"fold": 2, "name": "x"}, inputs="data")
    assert log.read_text() == "x"
    assert run(notebook, out_path, {"fold": 3, "name": "x"}, inputs="data")
    assert printed(out_path) == "3 None notebooks\n"
    write_notebook(notebook, work + "\nprint('more')")
    assert run(notebook, out_path, {"fold": 3, "name": "x"}, inputs="data")
    assert printed(out_path).endswith("more\n")
    assert log.read_text() == "xxx"


@pytest.mark.parametrize("name", ["u{fold}o {x", "a 'b' \"c\" $HOME %j #1 & ä"])
def test_a_path_is_taken_literally_whatever_its_name(tmp_path, name):
    """Papermill would fill parameters into braces."""
    out_path = tmp_path / name / "notebooks" / "01_small.ipynb"
    notebook = write_notebook(tmp_path / f"{name} too" / "01_small.ipynb", "print(name)")
    assert run(notebook, out_path, {"fold": 5, "name": name})
    assert printed(out_path) == f"{name}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((name, f"{name} too"))


def test_an_execution_is_not_current_when_what_stood_beside_it_is_gone(tmp_path, out_path):
    stage = out_path.parent.parent / "clustering"
    stage.mkdir(parents=True)
    notebook = write_notebook(tmp_path / "01_small.ipynb", "1")
    assert run(notebook, out_path)
    key = notebooks.execution_key(notebooks.read_notebook(notebook), {})
    assert notebooks.is_current(out_path, key)
    stage.rmdir()
    assert not notebooks.is_current(out_path, key)


def test_a_failing_cell_names_notebook_cell_and_error_and_keeps_the_earlier_execution(tmp_path, out_path):
    notebook = write_notebook(tmp_path / "01_small.ipynb", "print('good')")
    run(notebook, out_path)
    write_notebook(notebook, "print('before')", "# divide\n1 / 0")
    message = r"failed in cell \[3\] `# divide`: ZeroDivisionError: division by zero"
    with pytest.raises(RunError, match=rf"notebook 01_small\.ipynb {message}") as error:
        run(notebook, out_path)
    failed = out_path.with_name("01_small.failed.ipynb")
    assert str(failed) in str(error.value)
    assert "before" in printed(failed)
    assert printed(out_path) == "good\n"
    assert sorted(path.name for path in out_path.parent.iterdir()) == [
        "01_small.failed.ipynb",
        "01_small.ipynb",
    ]
    write_notebook(notebook, "print('good')")
    assert not run(notebook, out_path)
    assert not failed.exists()


def test_an_input_error_in_a_cell_stays_an_input_error(tmp_path, out_path):
    notebook = write_notebook(
        tmp_path / "01_small.ipynb",
        "class InputError(Exception): pass\nraise InputError('no images in d')",
    )
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


# --- where the notebooks are --------------------------------------------------------------------


def test_the_project_is_found_from_a_folder_below_it_and_its_notebooks_are_in_order(tmp_path, monkeypatch):
    for name in ("02_b", "01_a"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "notebooks" / "scratch.ipynb").write_text("{}")
    below = tmp_path / "book" / "deep"
    below.mkdir(parents=True)
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "site-packages" / "ncdss_lib")
    monkeypatch.chdir(below)
    assert {path.parent for path in notebooks.notebook_paths()} == {tmp_path / "notebooks"}
    assert [path.name for path in notebooks.notebook_paths()] == ["01_a.ipynb", "02_b.ipynb"]


def test_without_notebooks_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "site-packages" / "ncdss_lib")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="ncdss run"):
        notebooks.notebook_paths()


def test_what_a_killed_execution_left_is_written_over(tmp_path, out_path):
    slow = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(0 if pathlib.Path('again').exists() else 60)"
    notebook = write_notebook(tmp_path / "01_small.ipynb", slow)
    code = "import pathlib, sys; from ncdss_lib.runs import notebooks; notebooks.execute(*map(pathlib.Path, sys.argv[1:]), {})"
    process = subprocess.Popen([sys.executable, "-c", code, notebook, out_path], env={**os.environ, "PYTHONPATH": str(REPO)})
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not out_path.exists()
    assert list(out_path.parent.iterdir()) != []  # the draft
    (tmp_path / "again").touch()
    assert run(notebook, out_path)
    assert [path.name for path in out_path.parent.iterdir()] == ["01_small.ipynb"]
