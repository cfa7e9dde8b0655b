"""``{run-status} KIND``: how the book was made, from the files of the run that it shows and from
this build.

KIND is ``notebooks`` (seconds of each execution), ``stages`` (seconds and peak memory), ``run``
(what it was and where it ran), ``versions`` (of the run's packages) or ``build`` (what built these
pages, and from which commit). What is not there reads "not run".
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from docutils import nodes  # type: ignore[import-untyped]
from executed_notebooks import executed_path
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from ncdss_lib.recipes import Recipe
from ncdss_lib.runs.report import as_text

NOT_RUN = "not run"
# From the recipe, since the pipeline itself loads torch.
OTHERS = ("name", "data", "model", "compute")
STAGES = [name for name in Recipe.model_fields if name not in OTHERS]
TOOLS = (
    "jupyter-book",
    "sphinx",
    "sphinx-book-theme",
    "myst-nb",
    "myst-parser",
    "sphinxcontrib-bibtex",
    "sphinx-mathjax-offline",
)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file or nothing readable in it."""
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def notebook_rows(app: Sphinx) -> list[dict[str, str]]:
    rows = []
    for source in sorted(Path(app.srcdir, "notebooks").glob("[0-9][0-9]_*.ipynb")):
        executed = executed_path(app, source)
        made = nbformat.read(executed, as_version=4).metadata if executed.is_file() else {}
        job = made.get("papermill", {})
        rows.append(
            {
                "notebook": f"{{doc}}`/notebooks/{source.stem}`",
                "seconds": NOT_RUN if job.get("duration") is None else f"{job['duration']:.1f}",
                "cores": str(made.get("ncdss", {}).get("cores", "not recorded"))
                if made
                else NOT_RUN,
                "executed": (job.get("end_time") or NOT_RUN)[:16].replace("T", " "),
            }
        )
    return rows


def stage_rows(run: Path) -> list[dict[str, str]]:
    """The stages in their order, each from its own manifest."""
    rows = []
    for stage in STAGES:
        made = read_json(run / stage / "manifest.json")
        if not made and stage in ("ablation", "regions"):
            continue  # only some recipes ask for it
        memory = made.get("peak_memory_bytes")
        rows.append(
            {
                "stage": f"`{stage}`",
                "seconds": f"{made['seconds']:.1f}" if made else NOT_RUN,
                "peak memory": f"{memory / 1e9:.2f} GB"
                if memory
                else ("not measured" if made else NOT_RUN),
            }
        )
    return rows


def run_rows(run: Path) -> list[dict[str, str]]:
    report = read_json(run / "report.json")
    device = report.get("device", {})
    facts = {
        "data set": report.get("dataset"),
        "fold": report.get("fold"),
        "seed": report.get("seed"),
        "recipe": report.get("recipe"),
        "device": device and f"{device.get('type')} ({device.get('name')})",
        "precision": device.get("precision"),
        "processes": device.get("processes"),
    }
    return [
        {"what": name, "value": NOT_RUN if value in (None, {}) else as_text(value)}
        for name, value in facts.items()
    ]


def version_rows(run: Path) -> list[dict[str, str]]:
    versions = read_json(run / "report.json").get("versions", {})
    rows = [{"package": as_text(name), "version": as_text(versions[name])} for name in versions]
    return rows or [{"package": NOT_RUN, "version": NOT_RUN}]


def commit(root: Path) -> str:
    """The commit of the working tree, and whether files differ from it.

    Says so where there is no git.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.CalledProcessError):
        said = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        return said.replace("-dirty", ", with changes that are not committed")
    return "built outside of git"


def build_rows(app: Sphinx) -> list[dict[str, str]]:
    rows = [{"built with": tool, "version": version(tool)} for tool in TOOLS]
    return [*rows, {"built with": "commit of the sources", "version": commit(Path(app.srcdir))}]


class RunStatus(SphinxDirective):
    """The directive."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        app, kind = self.env.app, self.arguments[0]
        run = Path(app.srcdir, app.config.executed_run)
        if kind == "notebooks":
            rows = notebook_rows(app)
        elif kind == "build":
            rows = build_rows(app)
        elif kind in ("stages", "run", "versions"):
            rows = {"stages": stage_rows, "run": run_rows, "versions": version_rows}[kind](run)
        else:
            raise self.error(
                f"unknown run-status {kind!r}: known are notebooks, stages, run, versions, build."
            )
        text = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
        return self.parse_text_to_nodes(
            f"````{{table}} {' '.join(self.content)}\n:name: tab-status-{kind}\n\n{text}\n````"
        )


def always_read(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> Iterable[str]:
    """Pages that show a status: it may have changed without any file of the book."""
    pages = {name: Path(env.doc2path(name)) for name in env.found_docs - added - removed}
    return [
        name
        for name, page in pages.items()
        if page.suffix == ".md" and "{run-status}" in page.read_text(encoding="utf-8")
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("run-status", RunStatus)
    app.connect("env-get-outdated", always_read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
