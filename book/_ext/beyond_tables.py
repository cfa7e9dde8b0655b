"""``{beyond-table} NAME``: what was measured beyond the paper, from ``book/measured/beyond*.json``.

Names, from ``python -m benchmarks.beyond``: ``labels`` (pseudo-labels by unit and metric),
``number`` (how many classes each signal sees), ``wrong`` (pseudo-labels by number of clusters),
``ways`` (by way to cluster, where masks change a little), ``cells`` (clusters of cells),
``rankings`` (what tells right pseudo-labels from wrong ones).
From ``ncdss report --export``: ``gate`` (models behind each gate), ``regions`` (the recipe beside
``laptop``). A table without its file says "not run".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
WAYS = {
    "k_means": "k-means",
    "spherical": "spherical k-means",
    "semi_relaxed": "optimal transport, semi-relaxed",
    "balanced": "optimal transport, balanced",
    "consensus": "consensus of 30 k-means",
}
DOUBTS = {
    "entropy": "entropy (the paper's)",
    "instability": "predictions that change over the epochs",
    "dissent": "predictions that deny the label",
}
GATES = {"plain": "no gate", "gate_part": "by part", "gate_image": "by image"}


def read(name: str) -> dict[str, Any]:
    """The contents of a file of measurements; empty where there is none."""
    path = MEASURED / name
    return json.loads(path.read_text()) if path.is_file() else {}


def labels_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Novel mIoU of pseudo-labels in percent, mean and spread over seeds of k-means."""

    def title(row: dict[str, Any]) -> str:
        return f"{UNITS[row['unit']]}, metric {METRICS[row['metric']]}, K = {row['clusters']}"

    return _labels_by(title, measured.get("runs", []))


def ways_table(measured: dict[str, Any]) -> pd.DataFrame:
    """The same by way to cluster; with each seed the masks change by a pixel."""

    def title(row: dict[str, Any]) -> str:
        return f"{WAYS[row['way']]}, K = {row['clusters']}"

    return _labels_by(title, measured.get("ways", []))


def cells_table(measured: dict[str, Any]) -> pd.DataFrame:
    """The same where cells are clustered."""

    def title(row: dict[str, Any]) -> str:
        return f"{row['unit']}, K = {row['clusters']}"

    return _labels_by(title, measured.get("cells", []))


def _labels_by(
    title: Callable[[dict[str, Any]], str], runs: Sequence[dict[str, Any]]
) -> pd.DataFrame:
    """A row for each row of the runs, under its title; a column a data set and matching."""
    rows: dict[str, dict[str, str]] = {}
    for run in runs:
        for row in run["labels"]:
            cells = rows.setdefault(title(row), {})
            published, alone = zip(*row["published"], strict=True)
            cells[f"{run['dataset']}, published"] = percent(published)
            cells[f"{run['dataset']}, one-to-one"] = percent(alone)
    return pd.DataFrame.from_dict(rows, orient="index")


def rankings_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Right pixels of clean and unclean images in percent, by what they are ranked by."""
    rows = {}
    for doubt, title in DOUBTS.items():
        found = [
            row
            for run in measured.get("rankings", [])
            for row in run["rankings"]
            if row["doubt"] == doubt
        ]
        if found:
            apart = [row["clean_right"] - row["unclean_right"] for row in found]
            correlation = pd.Series([row["correlation"] for row in found])
            rows[title] = {
                "clean": percent([row["clean_right"] for row in found]),
                "unclean": percent([row["unclean_right"] for row in found]),
                "difference": percent(apart),
                "rank correlation": f"{correlation.mean():.2f}",
                "runs": str(len(found)),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def wrong_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Novel mIoU of pseudo-labels in percent by the number of clusters beside the truth's."""
    rows: dict[str, dict[str, str]] = {}
    for run in measured.get("wrong_number", []):
        name = f"{run['dataset']}, fold {run['fold']}, N = {run['truth']}"
        for rule, title in enumerate(("published", "one-to-one")):
            rows[f"{name}, {title}"] = {
                f"K = {row['clusters'] / run['truth']:.2g} N": percent(
                    [pair[rule] for pair in row["published"]]
                )
                for row in run["labels"]
            }
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


def regions_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Runs of the recipe ``regions`` beside ``laptop``'s of the same folds and seeds.

    A row is a network and what follows it; the last ones are paired differences, with the number of
    runs in which they are positive.
    """
    regions = {(own["fold"], own["seed"]): own["models"] for own in measured.get("runs", [])}
    laptop = {
        (own["fold"], own["seed"]): own["models"] for own in read("photos.json").get("runs", [])
    }
    pairs = sorted(regions.keys() & laptop.keys())
    if not pairs:
        return pd.DataFrame()
    before = [laptop[pair]["eums"] for pair in pairs]
    eums, committee = ([regions[pair][name] for pair in pairs] for name in ("eums", "regions"))
    followers = {
        "EUMS of laptop": (before, "published"),
        "EUMS on Lite2": (eums, "plain"),
        "EUMS on Lite2, gate": (eums, "gate_image"),
        "EUMS on Lite2, gate, edges, views": (eums, "published"),
        "committee, gate": (committee, "gate_image"),
        "committee, gate, edges, views": (committee, "published"),
    }
    found = {name: _scores(*own) for name, own in followers.items()}
    rows = {
        name: {title: percent(values) for title, values in own.items() if any(values)}
        for name, own in found.items()
    }
    best = found["committee, gate, edges, views"]
    for name in ("EUMS of laptop", "EUMS on Lite2, gate", "EUMS on Lite2, gate, edges, views"):
        rows[f"gain over {name}"] = {
            title: _gain(best[title], values)
            for title, values in found[name].items()
            if any(values)
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _scores(models: Sequence[dict[str, Any]], protocol: str) -> dict[str, list[float | None]]:
    """Novel mIoU, the same one-to-one where the protocol has it, and base mIoU of each run."""
    alone = [own["protocols"]["hungarian"] if protocol == "published" else {} for own in models]
    return {
        "novel": [own["protocols"][protocol]["novel_miou"] for own in models],
        "one-to-one": [own.get("novel_miou") for own in alone],
        "base": [own["protocols"][protocol]["base_miou"] for own in models],
    }


def _gain(after: Sequence[float | None], before: Sequence[float | None]) -> str:
    """Mean and spread of paired differences in percent, and in how many runs they are positive."""
    gains = [a - b for a, b in zip(after, before, strict=True) if a is not None and b is not None]
    sign = "+" if sum(gains) > 0 else ""
    return f"{sign}{percent(gains)} ({sum(gain > 0 for gain in gains)} of {len(gains)})"


TABLES: dict[str, tuple[Callable[[dict[str, Any]], pd.DataFrame], str]] = {
    "labels": (labels_table, "beyond.json"),
    "number": (number_table, "beyond.json"),
    "wrong": (wrong_table, "beyond.json"),
    "ways": (ways_table, "beyond.json"),
    "cells": (cells_table, "beyond.json"),
    "rankings": (rankings_table, "beyond.json"),
    "gate": (gate_table, "photos.json"),
    "regions": (regions_table, "photos_regions.json"),
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
