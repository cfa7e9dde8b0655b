"""Tables from report.json files: ours, with mean and spread over seeds, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import read_json

MODELS = ("basic", "basic_oc", "eums")
NAMES = {"basic": "basic framework", "basic_oc": "+ over-clustering", "eums": "EUMS"}
TITLES = {"base": "base model", **NAMES}
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
#: The paper's first table: OC over-clustering, ER entropy ranking, DR dynamic reassignment, ST self-training, on PASCAL-5i.
ABLATION = {
    "basic": ("- - - -", (60.83, 58.90, 42.53, 36.96, 49.81)),
    "basic_oc": ("OC - - -", (62.43, 57.02, 51.53, 47.05, 54.51)),
    "er": ("OC ER - -", (63.22, 56.26, 49.82, 48.12, 54.36)),
    "er_dr": ("OC ER DR -", (61.36, 57.90, 55.10, 46.80, 55.29)),
    "er_st": ("OC ER - ST", (65.12, 57.49, 57.46, 46.55, 56.66)),
    "eums": ("OC ER DR ST", (69.79, 60.11, 56.28, 50.18, 59.09)),
}
SCORES = {"novel_miou": "novel", "base_miou": "base", "background_iou": "background", "all_miou": "all", "harmonic_mean": "harmonic"}
PROTOCOLS = {
    "published": "published matching",
    "hungarian": "one-to-one; leftover clusters are errors",
    "majority": "majority vote",
    "argmax_iou": "highest IoU (many-to-one)",
    "held_out": "matched on the other half of the images",
    "original_size": "published matching, at original size",
    "best_epoch": "published matching, best epoch on validation",
    "best_epoch_original_size": "the same at original size",
}
TRAIN_IMAGES = {"pascal5i": 10582, "coco20i": 82081}  # of the full data sets


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
            run["masks"] = report["masks"]
            for name, model in (report["models"] | report.get("ablation", {})).items():
                for protocol, scores in ({"published": model} | model["protocols"]).items():
                    values = {k: scores[k] for k in SCORES}
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
        rows[NAMES[model]] = _by_fold(chosen[chosen["model"] == model])
        if dataset in PAPER and protocol == "published":
            rows[f"{NAMES[model]} (paper)"] = _paper_row(PAPER[dataset][model], rows[NAMES[model]])
    return pd.DataFrame.from_dict(rows, orient="index")


def ablation_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """The rows of the paper's first table, ours above the paper's; "not run" where the optional stage was not."""
    rows: dict[str, dict[str, str]] = {}
    chosen = table[table["protocol"] == protocol]
    columns = _by_fold(chosen)
    for row, (switches, published) in ABLATION.items():
        of_row = chosen[chosen["model"] == row]
        rows[switches] = _by_fold(of_row) if len(of_row) else dict.fromkeys(columns, "not run")
        if table["dataset"].iloc[0] == "pascal5i" and protocol == "published":
            rows[f"{switches} (paper)"] = _paper_row(published, columns)
    return pd.DataFrame.from_dict(rows, orient="index")


def _by_fold(chosen: pd.DataFrame) -> dict[str, str]:
    row = {f"fold {fold}": percent(runs["novel_miou"]) for fold, runs in chosen.groupby("fold")}
    return {**row, "all runs": percent(chosen["novel_miou"])}


def _paper_row(values: tuple[float, ...], columns: dict[str, str]) -> dict[str, str]:
    """Folds 0 to 3 as far as we ran them, and the mean."""
    folds = {f"fold {fold}": f"{value:.2f}" for fold, value in enumerate(values[:4]) if f"fold {fold}" in columns}
    return {**folds, "all runs": f"{values[4]:.2f} (4 folds)"}


def difference_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Paired differences of novel mIoU in points over runs (same fold and seed): mean, spread, in how many runs the first is higher."""
    rows = {}
    for (better, worse), gain in _gains(table, protocol).items():
        rows[f"{NAMES[better]} minus {NAMES[worse]}"] = {
            "mean": f"{gain.mean():+.1f}",
            "standard deviation": f"{gain.std():.1f}" if len(gain) > 1 else "-",
            "higher in": f"{int((gain > 0).sum())} of {len(gain)}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def gain_table(table: pd.DataFrame) -> pd.DataFrame:
    """The same paired differences, mean and spread, under every protocol: what is left of a gain when only the ruler changes."""
    rows: dict[str, dict[str, str]] = {}
    for protocol in _protocols(table):
        row = {}
        for (better, worse), gain in _gains(table, protocol).items():
            spread = f" ± {gain.std():.1f}" if len(gain) > 1 else ""
            row[f"{NAMES[better]} minus {NAMES[worse]}"] = f"{gain.mean():+.1f}{spread}"
        rows[PROTOCOLS[protocol]] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _gains(table: pd.DataFrame, protocol: str) -> dict[tuple[str, str], pd.Series]:
    scores = table[table["protocol"] == protocol].pivot_table(index=["fold", "seed"], columns="model", values="novel_miou") * 100
    pairs = (("basic_oc", "basic"), ("eums", "basic"), ("eums", "basic_oc"))
    return {pair: gain for pair in pairs if set(pair) <= set(scores) and len(gain := (scores[pair[0]] - scores[pair[1]]).dropna())}


def _protocols(table: pd.DataFrame) -> list[str]:
    return [protocol for protocol in PROTOCOLS if protocol in set(table["protocol"])]


def score_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Novel, base, background, all and harmonic mean in percent under one protocol, over all runs."""
    chosen = table[table["protocol"] == protocol]
    rows = {model: _means(chosen[chosen["model"] == model]) for model in ("base", *MODELS)}
    rows["base"] |= dict.fromkeys(("novel", "harmonic"), "-")  # it has no novel classes
    return pd.DataFrame.from_dict({TITLES[model]: row for model, row in rows.items()}, orient="index")


def protocol_table(table: pd.DataFrame) -> pd.DataFrame:
    """All scores of every model under every protocol, in percent, over all runs."""
    rows = {}
    for model in MODELS:
        for protocol in _protocols(table):
            chosen = table[(table["model"] == model) & (table["protocol"] == protocol)]
            if len(chosen):
                rows[NAMES[model], PROTOCOLS[protocol]] = _means(chosen)
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(found.index, names=["model", "protocol"])
    return found.reset_index()


def _means(chosen: pd.DataFrame) -> dict[str, str]:
    return {title: percent(chosen[column]) for column, title in SCORES.items()}


def class_table(paths: Iterable[str | Path], protocol: str = "published") -> pd.DataFrame:
    """IoU of each class in percent, by name, over the runs in which it is base and, marked, over those in which it is novel."""
    rows: list[dict[str, Any]] = []
    for path in find_reports(paths):
        report = read_json(path)
        for model, entry in report["models"].items():
            scores = entry if protocol == "published" else entry["protocols"].get(protocol, {"per_class": {}})
            for name, iou in scores["per_class"].items():
                rows.append({"novel": name in report["classes"]["novel"], "name": name, "model": model, "iou": iou})
    values = pd.DataFrame(rows).astype({"iou": float})
    found = {
        f"{name} (novel)" if novel else name: {title: percent(of[of["model"] == m]["iou"]) for m, title in TITLES.items()}
        for (novel, name), of in values.sort_values("novel", kind="stable").groupby(["novel", "name"], sort=False)
    }
    return pd.DataFrame.from_dict(found, orient="index").replace("not run", "-")


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
    """What may be compared with the paper, and on which masks, in two sentences."""
    dataset, images = table["dataset"].iloc[0], int(table["train_images"].max())
    masks = f" Masks: {', '.join(sorted(set(table['masks'])))}."
    if dataset == "toyscenes":
        return "Toyscenes are drawings with simulated saliency: not comparable with any published number."
    if dataset == "folder":
        return "Images of your own: there is no published number to compare with." + masks
    if images == TRAIN_IMAGES[dataset] and set(table["recipe"]) == {"paper"}:
        return f"Full {dataset} with the paper recipe: comparable with the paper's rows." + masks
    return (
        f"{images} training images with the {'/'.join(sorted(set(table['recipe'])))} recipe: not comparable with the paper's rows." + masks
    )


def _markdown(table: pd.DataFrame, *, index: bool = True) -> str:
    return table.fillna("").to_markdown(disable_numparse=True, index=index)


def report_tables(paths: Iterable[str | Path], protocol: str = "published") -> str:
    """All tables of a set of runs as Markdown, a section a data set and recipe.

    Raises:
        InputError: no reports, or an unknown protocol.
    """
    files = find_reports(paths)
    everything = read_reports(files)
    known = _protocols(everything)
    if protocol not in known:
        raise InputError(f"unknown protocol {protocol!r}: these reports have {', '.join(sorted(known))}.")
    parts = []
    for (dataset, recipe), table in everything.groupby(["dataset", "recipe"]):
        runs = table[["fold", "seed"]].drop_duplicates()
        parts += [
            f"## {dataset}, {recipe} recipe: {len(runs)} run{'s' * (len(runs) > 1)} (mean ± standard deviation)",
            caution(table),
            f"Novel mIoU, % ({PROTOCOLS[protocol]})",
            _markdown(novel_table(table, protocol)),
            "Paired differences of novel mIoU, points",
            _markdown(difference_table(table, protocol)),
            "The same differences under every protocol, points",
            _markdown(gain_table(table)),
            "All scores under every protocol, %",
            _markdown(protocol_table(table), index=False),
            f"IoU by class, % ({PROTOCOLS[protocol]})",
            _markdown(class_table(sorted(set(table["path"])), protocol)),
            "Pseudo-labels, %",
            _markdown(pseudo_label_table(table)),
        ]
        if set(table["model"]) & {"er", "er_dr", "er_st"}:
            parts += [f"Ablation: novel mIoU, % ({PROTOCOLS[protocol]})", _markdown(ablation_table(table, protocol))]
    return "\n\n".join(parts)
