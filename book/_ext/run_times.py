"""Below the title of a notebook's page: how long its execution took, and on how many cores, from the executed notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes  # type: ignore[import-untyped]
from executed_notebooks import executed_path
from sphinx.application import Sphinx


def run_time(executed: Path) -> str | None:
    """One sentence or two, or None where nothing was executed."""
    if not executed.is_file():
        return None
    metadata = nbformat.read(executed, as_version=4).metadata
    seconds, cores = metadata.get("papermill", {}).get("duration"), metadata.get("ncdss", {}).get("cores")
    if seconds is None:
        return None
    text = f"Runs in {seconds:.0f} s" + (f" on {cores} cores" if cores else "")
    stage = executed.stem.partition("_")[2]
    manifest = executed.parents[1] / {"results": "evaluation"}.get(stage, stage) / "manifest.json"
    if not manifest.is_file():
        return f"{text}."
    own = json.loads(manifest.read_text())["seconds"]
    return f"{text}. Its stage, {manifest.parent.name}, takes {own:.0f} s by itself where it was not computed before."


def add_run_time(app: Sphinx, doctree: nodes.document) -> None:
    source = Path(app.env.doc2path(app.env.docname))
    title = doctree.next_node(nodes.title)
    if source.suffix == ".ipynb" and title is not None and (text := run_time(executed_path(app, source))):
        title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", text, classes=["run-time"]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_run_time)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
