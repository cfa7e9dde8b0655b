"""``{beyond-table} NAME``: what was measured beyond the paper, from ``book/measured/beyond*.json``.

Names: ``labels`` (pseudo-labels by unit and metric), ``number`` (how many classes each signal sees)
from ``python -m benchmarks.beyond``; ``gate`` (models behind each gate) from ``ncdss report
--export``. A table without its file says "not run".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from sphinx.util.docutils import SphinxDirective

from ncdss_lib.runs.report import FURTHER, NAMES, percent

MEASURED = Path(__file__).resolve().parents[1] / "measured"
UNITS = {"image": "one region an image", "part": "a region a part"}
METRICS = {"plain": "plain", "base": "of base objects"}
SIGNALS = {
    "bic": "BIC",
    "silhouette": "silhouette",
    "stability": "stability",
    "base_found_again": "base found again",
}
GATES = {"plain": "no gate", "gate_part": "by part", "gate_image": "by image"}


def read(name: str) -> dict[str, Any]:
    """The contents of a file of measurements; empty where there is none."""
    path = MEASURED / name
    return json.loads(path.read_text()) if path.is_file() else {}


def labels_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Novel mIoU of pseudo-labels in percent, mean and spread over seeds of k-means."""
    rows: dict[str, dict[str, str]] = {}
    for run in measured.get("runs", []):
        for row in run["labels"]:
            name = f"{UNITS[row['unit']]}, metric {METRICS[row['metric']]}, K = {row['clusters']}"
            cells = rows.setdefault(name, {})
            published, alone = zip(*row["published"], strict=True)
            cells[f"{run['dataset']}, published"] = percent(published)
            cells[f"{run['dataset']}, one-to-one"] = percent(alone)
    return pd.DataFrame.from_dict(rows, orient="index")


def number_table(measured: dict[str, Any]) -> pd.DataFrame:
    """The number of novel classes by each signal; bold where it is within a fifth of the truth."""
    rows = {}
    for fold in measured.get("numbers", []):
        cells = {"truth": str(fold["truth"]), "images": str(fold["images"])}
        for key, title in SIGNALS.items():
            near = abs(fold[key] - fold["truth"]) <= 0.2 * fold["truth"]
            cells[title] = f"**{fold[key]}**" if near else str(fold[key])
        rows[f"{fold['dataset']}, fold {fold['fold']}"] = cells
    return pd.DataFrame.from_dict(rows, orient="index")


def gate_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Novel and base mIoU of each model, as it is and behind both gates, over the file's runs."""
    rows: dict[str, dict[str, str]] = {}
    reports = measured.get("runs", [])
    for name, model in (NAMES | FURTHER).items():
        entries = [own["models"][name]["protocols"] for own in reports if name in own["models"]]
        for score, title in (("novel_miou", "novel"), ("base_miou", "base")) if entries else ():
            cells = {
                heading: percent([entry[protocol][score] for entry in entries])
                for protocol, heading in GATES.items()
            }
            rows[f"{model}, {title}"] = cells
    return pd.DataFrame.from_dict(rows, orient="index")


TABLES: dict[str, tuple[Callable[[dict[str, Any]], pd.DataFrame], str]] = {
    "labels": (labels_table, "beyond.json"),
    "number": (number_table, "beyond.json"),
    "gate": (gate_table, "photos.json"),
}


def markdown(name: str) -> str:
    make, file = TABLES[name]
    table = make(read(file))
    return table.fillna("").to_markdown() if len(table) else "Not run."


class BeyondTable(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[Any]:
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"no table {name!r}: choose one of {', '.join(TABLES)}")
        self.env.note_dependency(str(MEASURED / TABLES[name][1]))
        return self.parse_text_to_nodes(markdown(name))


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("beyond-table", BeyondTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
