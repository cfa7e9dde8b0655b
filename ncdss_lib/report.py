"""Tables from report.json files: ours, with mean and spread over seeds, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ncdss_lib.errors import InputError
from ncdss_lib.store import read_json

MODELS = ("basic", "basic_oc", "eums")
NAMES = {"basic": "basic framework", "basic_oc": "+ over-clustering", "eums": "EUMS"}
# Novel-class mIoU in percent: folds 0 to 3 and their mean, tables 1 and 2 of the paper.
PAPER = {
    "pascal5i": {
        "basic": (60.83, 58.90, 42.53, 36.96, 49.81),
        "basic_oc": (62.43, 57.02, 51.53, 47.05, 54.51),
        "eums": (69.79, 60.11, 56.28, 50.18, 59.09),
    },
    "coco20i": {
        "basic": (24.58, 24.14, 15.36, 15.57, 19.91),
        "basic_oc": (39.39, 25.01, 17.95, 15.53, 24.47),
        "eums": (42.39, 26.89, 19.75, 18.19, 26.81),
    },
}
PASCAL_TRAIN_IMAGES = 10582


def find_reports(paths: Iterable[str | Path]) -> list[Path]:
    """All ``report.json`` files that are, or lie below, the given paths.

    Raises:
        InputError: a path does not exist or holds no report.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        below = [path] if path.is_file() else sorted(path.rglob("report.json"))
        if not below:
            raise InputError(f"no report.json in {path}: give run folders, or a folder above them, of runs that are finished.")
        found.update(below)
    return sorted(found)


def read_reports(paths: Iterable[str | Path]) -> pd.DataFrame:
    """One row a run and model: dataset, recipe, fold, seed, model, protocol, and the scores as fractions.

    Raises:
        InputError: a file is not a report of schema 1.
    """
    rows: list[dict[str, Any]] = []
    for path in find_reports(paths):
        try:
            report = read_json(path)
            if report["schema"] != 1:
                raise InputError(f"{path} has schema {report['schema']}; this version reads schema 1.")
            run = {key: report[key] for key in ("dataset", "recipe", "fold", "seed")}
            run["train_images"] = report["images"]["base"] + report["images"]["novel"]
            for name, model in report["models"].items():
                for protocol, scores in ({"published": model} | model["protocols"]).items():
                    values = {k: scores[k] for k in ("novel_miou", "base_miou", "background_iou", "all_miou", "harmonic_mean")}
                    rows.append({**run, "model": name, "protocol": protocol, **values, "path": str(path)})
            for name, quality in report["pseudo_labels"].items():
                rows.append({**run, "model": name, "protocol": "pseudo_labels", **quality, "path": str(path)})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a report of this program ({type(error).__name__}: {error}).") from None
    return pd.DataFrame(rows)


def percent(values: pd.Series) -> str:
    """``mean ± standard deviation`` in percent, without a spread where there is one value."""
    values = values.dropna() * 100
    if values.empty:
        return "not run"
    return f"{values.mean():.1f}" if len(values) == 1 else f"{values.mean():.1f} ± {values.std():.1f}"


def novel_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Novel mIoU in percent, a row a model, a column a fold and one for all runs; the paper's row under ours where there is one."""
    rows: dict[str, dict[str, str]] = {}
    dataset = table["dataset"].iloc[0]
    chosen = table[table["protocol"] == protocol]
    for model in MODELS:
        of_model = chosen[chosen["model"] == model]
        row = {f"fold {fold}": percent(runs["novel_miou"]) for fold, runs in of_model.groupby("fold")}
        rows[NAMES[model]] = {**row, "all runs": percent(of_model["novel_miou"])}
        if dataset in PAPER and protocol == "published":
            paper = PAPER[dataset][model]
            columns = {f"fold {fold}": f"{value:.2f}" for fold, value in enumerate(paper[:4]) if f"fold {fold}" in row}
            rows[f"{NAMES[model]} (paper)"] = {**columns, "all runs": f"{paper[4]:.2f} (4 folds)"}
    return pd.DataFrame.from_dict(rows, orient="index")


def difference_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Paired differences of novel mIoU in points over runs (same fold and seed): mean, spread, in how many runs EUMS is higher."""
    scores = table[(table["protocol"] == protocol)].pivot_table(index=["fold", "seed"], columns="model", values="novel_miou") * 100
    rows = {}
    for better, worse in (("eums", "basic"), ("eums", "basic_oc"), ("basic_oc", "basic")):
        if {better, worse} <= set(scores):
            gain = (scores[better] - scores[worse]).dropna()
            spread = f"{gain.std():.1f}" if len(gain) > 1 else "-"
            rows[f"{NAMES[better]} minus {NAMES[worse]}"] = {
                "mean": f"{gain.mean():+.1f}", "standard deviation": spread, "higher in": f"{int((gain > 0).sum())} of {len(gain)}",
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def score_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Novel, base, background, all and harmonic mean in percent, over all runs."""
    chosen = table[table["protocol"] == protocol]
    columns = {"novel_miou": "novel", "base_miou": "base", "background_iou": "background", "all_miou": "all", "harmonic_mean": "harmonic"}
    return (
        pd.DataFrame(
            {
                {"base": "base model", **NAMES}[m]: {title: percent(chosen[chosen["model"] == m][c]) for c, title in columns.items()}
                for m in ("base", *MODELS)
            }
        )
        .replace({"base model": {"not run": "-"}})
        .T
    )  # a base model has no novel scores


def protocol_table(table: pd.DataFrame) -> pd.DataFrame:
    """Novel mIoU in percent under each matching, over all runs."""
    protocols = [p for p in table["protocol"].unique() if p != "pseudo_labels"]
    return pd.DataFrame(
        {NAMES[m]: {p: percent(table[(table["model"] == m) & (table["protocol"] == p)]["novel_miou"]) for p in protocols} for m in MODELS}
    ).T


def pseudo_label_table(table: pd.DataFrame) -> pd.DataFrame:
    """Images, share of right pixels and purity of the pseudo-labels, over all runs; clean above unclean in how many runs."""
    chosen = table[table["protocol"] == "pseudo_labels"]
    rows = {
        name: {
            "images a run": f"{of['images'].mean():.0f}",
            "right pixels": percent(of["correct_share"]),
            "purity": percent(of["purity"]),
        }
        for name, of in chosen.groupby("model", sort=False)
    }
    wide = chosen.pivot_table(index=["fold", "seed"], columns="model", values="correct_share")
    if {"clean", "unclean"} <= set(wide):
        better = wide["clean"] > wide["unclean"]
        rows["clean above unclean"] = {"images a run": "", "right pixels": f"in {int(better.sum())} of {len(better)} runs", "purity": ""}
    return pd.DataFrame.from_dict(rows, orient="index")


def caution(table: pd.DataFrame) -> str:
    """What may be compared with the paper, in one sentence."""
    dataset, images = table["dataset"].iloc[0], int(table["train_images"].max())
    if dataset == "toyscenes":
        return "Toyscenes are drawings with simulated saliency: not comparable with any published number."
    if dataset == "pascal5i" and images == PASCAL_TRAIN_IMAGES and set(table["recipe"]) == {"paper"}:
        return "Full PASCAL-5i with the paper recipe: comparable with the paper's rows."
    return f"{images} training images with the {'/'.join(sorted(set(table['recipe'])))} recipe: not comparable with the paper's rows."


def _markdown(table: pd.DataFrame) -> str:
    return table.fillna("").to_markdown(disable_numparse=True)


def report_tables(paths: Iterable[str | Path], protocol: str = "published") -> str:
    """All tables of a set of runs as Markdown, a section a data set and recipe.

    Raises:
        InputError: no reports, or an unknown protocol.
    """
    everything = read_reports(paths)
    protocols = sorted(set(everything["protocol"]) - {"pseudo_labels"})
    if protocol not in protocols:
        raise InputError(f"unknown protocol {protocol!r}: these reports have {', '.join(protocols)}.")
    parts = []
    for (dataset, recipe), table in everything.groupby(["dataset", "recipe"]):
        runs = table[["fold", "seed"]].drop_duplicates()
        parts += [
            f"## {dataset}, {recipe} recipe: {len(runs)} runs (mean ± standard deviation)",
            caution(table),
            f"Novel mIoU, % (matching: {protocol})",
            _markdown(novel_table(table, protocol)),
            "Paired differences of novel mIoU, points",
            _markdown(difference_table(table, protocol)),
            f"All scores, % (matching: {protocol})",
            _markdown(score_table(table, protocol)),
            "Novel mIoU, %, by matching",
            _markdown(protocol_table(table)),
            "Pseudo-labels, %",
            _markdown(pseudo_label_table(table)),
        ]
    return "\n\n".join(parts)
