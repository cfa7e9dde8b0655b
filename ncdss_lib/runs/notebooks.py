"""The notebooks, and the one place where they are executed: by papermill.

An executed notebook carries in its metadata the key of what it was made from, and is left alone
while that key is current.
"""

from __future__ import annotations

import ast
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import papermill
from IPython.core.inputtransformer2 import TransformerManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

import toyscenes
from ncdss_lib.system.distributed import cores
from ncdss_lib.system.errors import InputError, NCDSSError, RunError, did_you_mean
from ncdss_lib.system.folders import disk_errors, fingerprint, project_root, whole_file

CELL_TIMEOUT = 3600.0  # seconds; papermill's own is none: a kernel that hangs would wait for ever
PACKAGE = Path(__file__).resolve().parents[1]
SCENES = Path(toyscenes.__file__).resolve().parent
PATTERN = "[0-9][0-9]_*.ipynb"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Their information lines would break the progress bar.
logging.getLogger("papermill").setLevel(logging.ERROR)
logging.getLogger("papermill.translators").setLevel(logging.CRITICAL)


# --- reading ------------------------------------------------------------------------------------


def notebook_paths() -> list[Path]:
    """The notebooks ``NN_name.ipynb`` in reading order.

    They are in ``notebooks/`` of the project that this package is part of, or else of the one that
    the working directory is in.

    Raises:
        InputError: neither holds any, as after installing a wheel.
    """
    folders = [root / "notebooks" for root in (PACKAGE.parent, project_root())]
    for folder in folders:
        if found := sorted(folder.glob(PATTERN)):
            return found
    raise InputError(
        f"no notebooks {PATTERN} in {folders[0]} or {folders[1]}: `reproduce` executes those of a "
        "clone of the project. Call it inside the clone, or use `ncdss run`, which needs no "
        "notebooks."
    )


def read_notebook(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:  # not JSON is a ValueError
        raise InputError(
            f"{path} is not a notebook that can be read ({error}). `make notebooks` writes it from "
            "its .md file."
        ) from None


def parameters_of(notebook: NotebookNode) -> dict[str, Any]:
    """Name -> default of the cell tagged ``parameters``; empty if there is none.

    Read with ``ast``: ``papermill.inspect_notebook`` does not see names annotated ``str | None``.

    Raises:
        InputError: a default is not a literal.
    """
    found: dict[str, Any] = {}
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for node in ast.parse(tagged[0].source).body if tagged else []:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        try:
            found[ast.unparse(target)] = ast.literal_eval(node.value)
        except ValueError:
            raise InputError(
                f"the cell tagged `parameters` holds `{ast.unparse(node)}`, which is not a "
                "literal; move it to the next cell."
            ) from None
    return found


def check_parameters(notebook_path: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse names that the notebook does not define: papermill would run on with the defaults.

    Raises:
        InputError: with the nearest valid name.
    """
    known = parameters_of(read_notebook(notebook_path))
    if not known:
        raise InputError(
            f"{notebook_path} has no cell tagged `parameters` with assignments of literals."
        )
    for name in parameters:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"{notebook_path.name} has no parameter {name!r}: {hint}")


# --- what an execution was made from --------------------------------------------------------------


def library_digest(notebook: NotebookNode) -> str:
    """Of the source that decides what a notebook shows: of each module that it imports, directly or
    through others, without comments and docstrings.

    Modules are those of this package (with the scripts and styles that it puts into outputs), of
    the toy scenes, and those beside the notebooks.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_imported_modules(notebook).items()):
        code, _ = _module(path, path.stat().st_mtime_ns)
        digest.update(f"{name}\0{code}\0".encode())
        if path.name == "__init__.py":
            for file in sorted(p for p in path.parent.iterdir() if p.suffix in (".js", ".css")):
                digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def _imported_modules(notebook: NotebookNode) -> dict[str, Path]:
    """Name -> file of every module of ours that a notebook's code imports, or that these import."""
    found: dict[str, Path] = {}
    waiting: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with suppress(SyntaxError):  # its execution will say so
                waiting += _imports(ast.parse(TransformerManager().transform_cell(cell.source)))
    while waiting:
        name = waiting.pop()
        path = None if name in found else _module_file(name)
        if path:
            found[name] = path
            waiting += _module(path, path.stat().st_mtime_ns)[1]
    return found


def _module_file(name: str) -> Path | None:
    """The file of a module of ours; None for all others, and for what is no module."""
    top, *below = name.split(".")
    roots = {PACKAGE.name: PACKAGE, SCENES.name: SCENES}
    place = roots.get(top, notebook_paths()[0].parent / top).joinpath(*below)
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imports(tree: ast.Module) -> set[str]:
    """All names that may be modules, with the packages that these are in."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    split = [name.split(".") for name in names]
    return {".".join(parts[:length]) for parts in split for length in range(1, len(parts) + 1)}


@cache
def _module(path: Path, changed: int) -> tuple[str, set[str]]:
    """Code of a file, without comments and docstrings, and its imports.

    Args:
        changed: when it was, so that a file that changes is read again.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree), _imports(tree)


def execution_key(notebook: NotebookNode, parameters: Mapping[str, Any], inputs: str = "") -> str:
    """Of the code cells, what they import, the parameters and ``inputs`` (the data).

    The text is not among them: other words around the same code change no result.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return fingerprint([code, library_digest(notebook), dict(parameters), inputs])


def is_current(executed: Path, key: str) -> bool:
    """Whether it is a whole execution with this key, and what stood beside it is still there."""
    try:
        made = nbformat.read(executed, as_version=4).metadata.get("ncdss", {})
    except (OSError, ValueError):
        return False
    beside = [executed.parent.parent / name for name in made.get("beside", [])]
    return made.get("key") == key and all(path.exists() for path in beside)


# --- execution ----------------------------------------------------------------------------------


def execute(
    notebook: Path,
    out_path: Path,
    parameters: Mapping[str, Any],
    *,
    inputs: str = "",
    timeout: float | None = CELL_TIMEOUT,
) -> bool:
    """Execute ``notebook`` into ``out_path``, in the notebook's own folder, unless it is current.

    Parameters equal to the notebook's defaults are not injected: the injected cell shows what
    differs.

    Args:
        inputs: a text that changes when what the notebook reads changes, such as the data set's
            fingerprint.
        timeout: seconds that one cell may take; None for no limit.

    Returns:
        False if ``out_path`` was current and nothing was done.

    Raises:
        InputError: an unknown parameter, or a cell that raised InputError.
        RunError: a cell failed or took too long. What was executed is kept as
            ``NAME.failed.ipynb``; an earlier ``out_path`` stays.
    """
    # is there anything to do?
    check_parameters(notebook, parameters)
    source = read_notebook(notebook)
    library = library_digest(source)
    key = execution_key(source, parameters, inputs)
    failed = out_path.with_name(f"{out_path.stem}.failed.ipynb")
    if is_current(out_path, key):
        failed.unlink(missing_ok=True)  # what failed was taken back since
        return False

    # execute, and sign what came out
    defaults = parameters_of(source)
    folder = out_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with disk_errors(notebook.name, folder), whole_file(out_path) as draft:
        try:
            papermill.execute_notebook(
                _taken_literally(notebook.resolve()),
                _taken_literally(draft.resolve()),
                {name: value for name, value in parameters.items() if value != defaults[name]},
                kernel_name="python3",
                cwd=notebook.resolve().parent,
                progress_bar={"desc": notebook.stem, "unit": "cell"},
                start_timeout=120,
                execution_timeout=timeout,
            )
        except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
            if draft.exists():
                draft.replace(failed)
            raise _failure(error, notebook, failed, timeout) from error
        except KeyboardInterrupt:
            # At exit it would tell of the cell that the kernel's own interruption ended.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise
        executed = nbformat.read(draft, as_version=4)
        beside = sorted(path.name for path in folder.parent.iterdir() if path != folder)
        executed.metadata["ncdss"] = {
            "key": key,
            "library": library,
            "cores": cores(),
            "beside": [name for name in beside if not name.startswith(".")],
        }
        nbformat.write(executed, draft)
    failed.unlink(missing_ok=True)
    return True


def _taken_literally(path: Path) -> str:
    """Of a path that papermill fills parameters into, wherever it finds a name in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failure(error: Exception, notebook: Path, failed: Path, timeout: float | None) -> NCDSSError:
    """The message for a notebook that stopped: which cell, what it said last, where to look."""
    what = f"notebook {notebook.name}"
    kept = f"What was executed is kept in {failed}."
    if isinstance(error, CellTimeoutError):
        return RunError(f"{what}: a cell took longer than {timeout:g} s (--timeout). {kept}")
    if not isinstance(error, PapermillExecutionError):
        return RunError(f"{what}: the kernel died, perhaps for lack of memory. {kept}")
    # papermill's number of the cell counts the injected one; its first line finds it in any case
    first = next((line.strip() for line in error.source.splitlines() if line.strip()), "")
    if error.ename == "InputError":
        return InputError(f"{error.evalue} ({what}, cell `{first}`. {kept})")
    said = ": ".join([error.ename, *error.evalue.strip().splitlines()[-1:]])
    return RunError(f"{what} failed in cell [{error.exec_count}] `{first}`: {said}. {kept}")
