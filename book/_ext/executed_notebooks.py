"""Sphinx extension: each notebook page shows what papermill executed; the book itself executes
nothing.

The source of a page is ``notebooks/NN_name.ipynb``, which is committed without outputs. When Sphinx
reads it, the outputs of the execution with the same name in ``RUN/notebooks/`` are put in. Text
always comes from the source, so a change of wording needs no new execution, but the code cells must
be those that were executed, and what they import of the library and ``notebooks/*.py`` must be the
code that is there now; comments and docstrings do not count. A missing, stale or failed execution
is a warning, so that a build with ``-W`` fails.

The run folder is ``$NCDSS_BOOK_RUN``, or the configuration value ``executed_run``; relative to the
book's root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from ncdss_lib.runs.notebooks import library_digest

logger = logging.getLogger(__name__)

# A line that tqdm drew: " 40%|####   | 4/10 [00:02<00:03]"
PROGRESS = re.compile(r"%\||\[[\d:]+[<,]")
ADVICE = "Run `make reproduce`, or choose another run with NCDSS_BOOK_RUN."


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("executed_run", "runs/toyscenes/fold0/laptop/seed0", "env", [str])
    app.connect("config-inited", take_run_from_environment)
    app.connect("env-get-outdated", read_again_while_wrong)
    app.connect("source-read", show_executed)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def take_run_from_environment(app: Sphinx, config: Config) -> None:
    config.executed_run = os.environ.get("NCDSS_BOOK_RUN") or config.executed_run


def executed_path(app: Sphinx, source: Path) -> Path:
    return Path(app.srcdir, app.config.executed_run, "notebooks", source.name)


def problem(source: NotebookNode, path: Path) -> str | None:
    """What is wrong with the execution at ``path``, or None."""
    failed = path.with_name(f"{path.stem}.failed.ipynb")
    if failed.exists():
        return f"its last execution failed, see {failed}."
    if not path.exists():
        return f"it was not executed: {path} is missing."
    executed = nbformat.read(path, as_version=4)
    if executed.metadata.get("papermill", {}).get("exception"):
        return f"its execution failed, see {path}."
    if [cell.source for cell in code_cells(source)] != [
        cell.source for cell in code_cells(executed)
    ]:
        return f"its code was changed after it was executed into {path}."
    if executed.metadata.get("ncdss", {}).get("library") != library_digest(source):
        return (
            f"code that it imports was changed after it was executed into {path}, in ncdss_lib, "
            "toyscenes or notebooks/*.py."
        )
    return None


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that the author wrote."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not is_injected(cell)]


def is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def merge(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """``source`` with the outputs of ``executed`` and, after the cell tagged ``parameters``, the
    values that papermill injected.
    """
    injected = [cell for cell in executed.cells if is_injected(cell)]
    outputs = iter(code_cells(executed))
    cells = []
    for cell in source.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        done = next(outputs)
        cell.execution_count = done.execution_count
        cell.outputs = [output for output in done.outputs if not is_progress(output)]
        if "parameters" in cell.metadata.get("tags", []):
            cells += injected
    source.cells = cells
    if "language_info" in executed.metadata:
        source.metadata["language_info"] = executed.metadata["language_info"]
    return source


def is_progress(output: NotebookNode) -> bool:
    """Whether an output is a progress bar: noise on a page, and its widget form would ask the
    network for scripts.
    """
    if output.output_type == "stream":
        lines = [line for line in re.split(r"[\r\n]", output.text) if line.strip()]
        return output.name == "stderr" and all(PROGRESS.search(line) for line in lines)
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" in data and bool(
        PROGRESS.search(data.get("text/plain", ""))
    )


def show_executed(app: Sphinx, docname: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    source = nbformat.reads(content[0], as_version=4)
    executed = executed_path(app, path)
    app.env.note_dependency(str(executed))
    if wrong := problem(source, executed):
        logger.warning(
            "the page cannot show its results: %s %s",
            wrong,
            ADVICE,
            location=docname,
            type="executed_notebooks",
        )
    else:
        content[0] = nbformat.writes(merge(source, nbformat.read(executed, as_version=4)))


def read_again_while_wrong(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> Iterable[str]:
    """Pages to read although their source is unchanged: Sphinx repeats a warning only when it reads
    the page again.
    """
    pages = {name: Path(env.doc2path(name)) for name in env.found_docs - added - removed}
    return [
        name
        for name, path in pages.items()
        if path.suffix == ".ipynb"
        and problem(nbformat.read(path, as_version=4), executed_path(app, path))
    ]
