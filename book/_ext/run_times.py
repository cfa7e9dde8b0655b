"""Below the title of a notebook's page: how long its execution took, and on how many cores, from
the executed notebook.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes  # type: ignore[import-untyped]
from executed_notebooks import executed_path
from sphinx.application import Sphinx


def run_time(executed: Path, manifest: Path) -> str | None:
    """One sentence or two, or None where nothing was executed.

    ``manifest`` is that of the notebook's stage, if it has one.
    """
    if not executed.is_file():
        return None
    metadata = nbformat.read(executed, as_version=4).metadata
    seconds, cores = (
        metadata.get("papermill", {}).get("duration"),
        metadata.get("ncdss", {}).get("cores"),
    )
    if seconds is None:
        return None
    where = f" on {cores} processor cores" if cores else ""
    text = f"This notebook took {seconds:.0f} s{where}, figures and explorers included."
    if manifest.is_file():
        own = json.loads(manifest.read_text())["seconds"]
        text += (
            f" Its stage, {manifest.parent.name}, took {own:.0f} s when it was computed; a "
            "notebook that finds the stage done does not compute it again."
        )
    return text


def add_run_time(app: Sphinx, doctree: nodes.document) -> None:
    source, title = Path(app.env.doc2path(app.env.docname)), doctree.next_node(nodes.title)
    if source.suffix != ".ipynb" or title is None:
        return
    executed, stage = executed_path(app, source), source.stem.partition("_")[2]
    manifest = executed.parents[1] / {"results": "evaluation"}.get(stage, stage) / "manifest.json"
    app.env.note_dependency(str(manifest))
    if text := run_time(executed, manifest):
        title.parent.insert(
            title.parent.index(title) + 1, nodes.paragraph("", text, classes=["run-time"])
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_run_time)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
