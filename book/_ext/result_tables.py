"""``{result-table} KIND``: the results of every run of a data set, from the ``report.json`` files
that exist when the book is built.

    ```{result-table} novel
    :dataset: toyscenes
    :recipe: laptop
    :name: tab-toyscenes

    The caption.
    ```

KIND is one of ``TABLES`` or of :data:`sentences.SENTENCES`. Where nothing was run the table says
so, beside the paper's numbers where there are any. Files are looked for in ``$NCDSS_RUNS``, or in
the configuration value ``result_runs``, relative to the book's root; with ``:file:`` it is one file
of ``ncdss report --export``, relative to ``book/``, which comes with the book. A page is read again
when one of its files changes, comes or goes; a file that cannot be read is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from docutils import nodes  # type: ignore[import-untyped]
from docutils.parsers.rst import directives  # type: ignore[import-untyped]
from sentences import NOT_RUN, SENTENCES
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from ncdss_lib.runs import report
from ncdss_lib.system.errors import InputError

logger = logging.getLogger(__name__)

BOOK = Path(__file__).resolve().parents[1]


def novel_by_protocol(found: pd.DataFrame) -> pd.DataFrame:
    """Novel mIoU, a row a protocol and a column a model, both in the order of the report."""
    table = report.protocol_table(found)
    wide = table.pivot(index="protocol", columns="model", values="novel")
    return wide.loc[list(dict.fromkeys(table["protocol"])), list(dict.fromkeys(table["model"]))]


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "novel": report.novel_table,
    "scores": report.score_table,
    "protocols": novel_by_protocol,
    "differences": report.difference_table,
    "gain": report.gain_table,
    "classes": lambda found: report.class_table(sorted(set(found["path"]))),
    "pseudo-labels": report.pseudo_label_table,
    "ablation": report.ablation_table,
}


def report_files(runs: Path, dataset: str) -> list[Path]:
    """The reports of one data set, sorted; none where it was never run."""
    return sorted((runs / dataset).rglob("report.json"))


def paper_only(kind: str, dataset: str) -> pd.DataFrame | None:
    """The paper's rows of a table of which nothing was run, each under an empty row for ours.

    None where the paper has none.
    """
    published: dict[str, tuple[float, ...]] = {}
    if kind == "novel":
        published = {
            name: report.PAPER[dataset][model]
            for model, name in report.NAMES.items()
            if dataset in report.PAPER
        }
    elif kind == "ablation" and dataset == "pascal5i":
        published = {
            switches: report.PAPER[dataset][row] for row, switches in report.SWITCHES.items()
        }
    columns = [*(f"fold {fold}" for fold in range(4)), "mean of 4 folds"]
    rows: dict[str, dict[str, str]] = {}
    for name, values in published.items():
        rows[name] = dict.fromkeys(columns, NOT_RUN)
        rows[f"{name} (paper)"] = {
            column: f"{value:.2f}" for column, value in zip(columns, values, strict=True)
        }
    return pd.DataFrame.from_dict(rows, orient="index") if rows else None


KINDS = (*TABLES, *SENTENCES)


def markdown(kind: str, dataset: str, recipe: str, found: pd.DataFrame) -> str:
    """A table, or a sentence.

    Args:
        found: rows of :func:`ncdss_lib.runs.report.read_reports` with this data set and recipe;
            empty where nothing was run.
    """
    if kind in SENTENCES:
        if found.empty:
            return f"{dataset} with the {recipe} recipe: {NOT_RUN}."
        return report.as_text(SENTENCES[kind](found))
    if found.empty:
        table = paper_only(kind, dataset)
        if table is None:
            table = pd.DataFrame({"result": [NOT_RUN]}, index=[f"{dataset}, {recipe} recipe"])
    else:
        table = TABLES[kind](found)
    text = report.to_markdown(table)
    # A number is not broken over lines.
    text = text.replace(" ± ", "\u00a0±\u00a0")
    return text.replace(NOT_RUN, NOT_RUN.replace(" ", "\u00a0"))


class ResultDirective(SphinxDirective):
    """What tables and figures of results have in common: where their numbers come from."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "dataset": directives.unchanged_required,
        "recipe": directives.unchanged_required,
        "file": directives.unchanged_required,
        "name": directives.unchanged_required,
    }

    @property
    def dataset(self) -> str:
        return str(self.options.get("dataset", "toyscenes"))

    @property
    def recipe(self) -> str:
        return str(self.options.get("recipe", "laptop"))

    def what(self) -> str:
        return f"{self.dataset} with the {self.recipe} recipe"

    def found(self) -> pd.DataFrame:
        """Every readable report that is asked for; the others are warnings that name the file."""
        if file := self.options.get("file"):
            self.env.note_dependency(str(BOOK / file))
            paths = [path] if (path := BOOK / file).is_file() else []
        else:
            paths = report_files(runs_folder(self.env.app), self.dataset)
        parts = [pd.DataFrame()]
        for path in paths:
            try:
                parts.append(report.read_reports([path]))
                self.env.note_dependency(str(path))
            except InputError as error:
                logger.warning(
                    "left out of the results: %s",
                    error,
                    location=self.get_location(),
                    type="result_tables",
                )
        found = pd.concat(parts, ignore_index=True)
        return found[found["recipe"] == self.recipe] if len(found) else found


class ResultTable(ResultDirective):
    """The directive."""

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind not in KINDS:
            raise self.error(f"unknown result-table {kind!r}: known are {', '.join(KINDS)}.")
        text = markdown(kind, self.dataset, self.recipe, self.found())
        if kind not in TABLES:
            return self.parse_text_to_nodes(text)
        name = f":name: {self.options['name']}\n" if "name" in self.options else ""
        return self.parse_text_to_nodes(
            f"````{{table}} {' '.join(self.content)}\n{name}\n{text}\n````"
        )


def runs_folder(app: Sphinx) -> Path:
    return Path(app.srcdir, os.environ.get("NCDSS_RUNS") or app.config.result_runs)


def read_again(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> Iterable[str]:
    """Pages with result tables whose readable reports are not those that lie there now: one came,
    went, or cannot be read.
    """
    pages = []
    for name in env.found_docs - added - removed:
        page = Path(env.doc2path(name))
        text = page.read_text(encoding="utf-8") if page.suffix == ".md" else ""
        if "{result-" not in text:
            continue
        datasets = [
            folder.name for folder in sorted(runs_folder(app).glob("*/")) if folder.name in text
        ]
        there = {
            str(path) for dataset in datasets for path in report_files(runs_folder(app), dataset)
        }
        if there != {path for path in env.dependencies[name] if Path(path).name == "report.json"}:
            pages.append(name)
    return pages


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("result_runs", "runs", "env", [str])
    app.add_directive("result-table", ResultTable)
    app.connect("env-get-outdated", read_again)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
