"""Tables from report.json files: ours, with mean and spread over seeds, beside the paper's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import read_json, whole_file

#: The models with novel classes, as tables call them.
NAMES = {"basic": "basic framework", "basic_oc": "+ over-clustering", "eums": "EUMS"}
TITLES = {"base": "base model", **NAMES}
FURTHER = {"regions": "committee after EUMS (ours)"}  # only in runs whose recipe asks for it
#: The rows of the paper's first table, which switches on one part after another.
SWITCHES = {
    "basic": "basic framework",
    "basic_oc": "over-clustering (OC)",
    "er": "OC + entropy ranking (ER)",
    "er_dr": "OC + ER + dynamic reassignment (DR)",
    "er_st": "OC + ER + self-training (ST)",
    "eums": "EUMS: OC + ER + DR + ST",
}
#: Novel-class mIoU in percent: folds 0 to 3 and their mean, tables 1 and 2 of the paper.
PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "pascal5i": {
        "basic": (60.83, 58.90, 42.53, 36.96, 49.81),
        "basic_oc": (62.43, 57.02, 51.53, 47.05, 54.51),
        "er": (63.22, 56.26, 49.82, 48.12, 54.36),
        "er_dr": (61.36, 57.90, 55.10, 46.80, 55.29),
        "er_st": (65.12, 57.49, 57.46, 46.55, 56.66),
        "eums": (69.79, 60.11, 56.28, 50.18, 59.09),
    },
    "coco20i": {
        "basic": (24.58, 24.14, 15.36, 15.57, 19.91),
        "basic_oc": (39.39, 25.01, 17.95, 15.53, 24.47),
        "eums": (42.39, 26.89, 19.75, 18.19, 26.81),
    },
}
SCORES = {
    "novel_miou": "novel",
    "base_miou": "base",
    "background_iou": "background",
    "all_miou": "all",
    "harmonic_mean": "harmonic",
}
PROTOCOLS = {
    "published": "published matching",
    "hungarian": "one-to-one; leftover clusters are errors",
    "majority": "majority vote",
    "argmax_iou": "highest IoU (many-to-one)",
    "held_out": "matched on the other half of the images",
    "original_size": "published matching, at original size",
    "gate_part": "published matching, behind the gate by part",
    "gate_image": "published matching, behind the gate by image",
    "best_epoch": "published matching, best epoch on validation",
    "best_epoch_original_size": "the same at original size",
}
TRAIN_IMAGES = {"pascal5i": 10582, "coco20i": 82081}  # of the full data sets


# --- reading ------------------------------------------------------------------------------------


def find_reports(paths: Iterable[str | Path]) -> list[Path]:
    """All ``report.json`` files that are, or lie below, the given paths.

    Raises:
        InputError: a path does not exist or holds no report.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        below = [path] if path.is_file() else list(path.rglob("report.json"))
        if not below:
            raise InputError(
                f"no report.json in {path}: give run folders, or a folder above them, of runs that "
                "are finished."
            )
        found.update(below)
    return sorted(found)


def read_report(path: Path) -> dict[str, Any]:
    """The report of one run, or the file into which :func:`export` put some.

    Raises:
        InputError: it is none, or of another schema.
    """
    contents = read_json(path)
    schema = contents.get("schema") if isinstance(contents, dict) else None
    if schema != 1:
        raise InputError(
            f"{path} has schema {schema}; this version reads schema 1. `ncdss run` makes a report."
        )
    return contents


def reports_in(path: Path) -> list[dict[str, Any]]:
    """The reports in a file: that of one run, or those that :func:`export` put together."""
    contents = read_report(path)
    return contents.get("runs", [contents])


def read_reports(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Scores of runs as fractions, with dataset, recipe, fold, seed, model and protocol.

    A row a model and protocol, and under ``pseudo_labels`` a row a kind of pseudo-label.

    Raises:
        InputError: a file is not a report of schema 1.
    """
    rows: list[dict[str, Any]] = []
    for path in find_reports(paths):
        try:
            for report in reports_in(path):
                rows += _rows(report, path)
        except (ValueError, KeyError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is not a report of this program ({what}).") from None
    return pd.DataFrame(rows)


def _rows(report: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    run = {key: report[key] for key in ("dataset", "recipe", "fold", "seed", "masks")}
    run["train_images"] = report["images"]["base"] + report["images"]["novel"]
    run["path"] = str(path)
    for name, model in (report["models"] | report.get("ablation", {})).items():
        for protocol, scores in ({"published": model} | model["protocols"]).items():
            values = {score: scores[score] for score in SCORES}
            yield {**run, "model": name, "protocol": protocol, **values}
    for name, quality in report["pseudo_labels"].items():
        yield {**run, "model": name, "protocol": "pseudo_labels", **quality}


def protocols_in(table: pd.DataFrame) -> list[str]:
    """The protocols of :data:`PROTOCOLS` under which there are scores, in its order."""
    return [protocol for protocol in PROTOCOLS if protocol in set(table["protocol"])]


def names_in(table: pd.DataFrame) -> dict[str, str]:
    """The models with novel classes: those of every run, and further ones that are there."""
    return NAMES | {m: name for m, name in FURTHER.items() if m in set(table["model"])}


# --- cells --------------------------------------------------------------------------------------


def percent(values: Iterable[float | None], missing: str = "not run") -> str:
    """``mean ± standard deviation`` in percent, without a spread where there is one value.

    Args:
        values: fractions; None and NaN are left out.
        missing: what stands where no value is left.
    """
    known = 100 * pd.Series(values, dtype=float).dropna()
    if known.empty:
        return missing
    spread = f" ± {known.std():.1f}" if len(known) > 1 else ""
    return f"{known.mean():.1f}{spread}"


def to_markdown(table: pd.DataFrame, *, index: bool = True) -> str:
    """A table in Markdown. Whatever stands in it is text: no name makes a tag, a link or a cell."""
    shown = table.fillna("").map(as_text).rename(index=as_text, columns=as_text)
    return shown.to_markdown(disable_numparse=True, index=index)


def as_text(value: object) -> str:
    """A value as Markdown that shows it as it is."""
    return re.sub(r"[<>&|`\[\]{}\\]", lambda mark: f"&#{ord(mark[0])};", str(value))


def _from_rows(rows: dict[Any, dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index")


def _mean_scores(chosen: pd.DataFrame) -> dict[str, str]:
    return {title: percent(chosen[score]) for score, title in SCORES.items()}


# --- tables: each takes what read_reports gives, of one data set and recipe -----------------------


def novel_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Novel mIoU in percent, a row a model, a column a fold and one for all runs.

    The paper's row stands under ours where there is one.
    """
    return _by_fold(table, protocol, names_in(table))


def ablation_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """The rows of the paper's first table, ours above the paper's; "not run" where one was not."""
    return _by_fold(table, protocol, SWITCHES)


def _by_fold(table: pd.DataFrame, protocol: str, names: dict[str, str]) -> pd.DataFrame:
    chosen = table[table["protocol"] == protocol]
    folds = sorted(chosen["fold"].unique())
    published = PAPER.get(table["dataset"].iloc[0], {}) if protocol == "published" else {}
    rows = {}
    for model, name in names.items():
        scores = chosen[chosen["model"] == model].set_index("fold")["novel_miou"]
        row = {f"fold {fold}": percent(scores[scores.index == fold]) for fold in folds}
        rows[name] = {**row, "all runs": percent(scores)}
        if model in published:
            *by_fold, mean = published[model]
            row = {f"fold {fold}": f"{by_fold[fold]:.2f}" for fold in folds if fold < len(by_fold)}
            rows[f"{name} (paper)"] = {**row, "all runs": f"{mean:.2f} (4 folds)"}
    return _from_rows(rows)


def difference_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Differences of novel mIoU in points between models, paired by fold and seed."""
    rows = {}
    for pair, gain in _gains(table, protocol).items():
        rows[pair] = {
            "mean": f"{gain.mean():+.1f}",
            "standard deviation": f"{gain.std():.1f}" if len(gain) > 1 else "-",
            "higher in": f"{int((gain > 0).sum())} of {len(gain)}",
        }
    return _from_rows(rows)


def gain_table(table: pd.DataFrame) -> pd.DataFrame:
    """The same differences under every protocol: what is left of a gain under another ruler."""
    rows: dict[str, dict[str, str]] = {}
    for protocol in protocols_in(table):
        row = {}
        for pair, gain in _gains(table, protocol).items():
            spread = f" ± {gain.std():.1f}" if len(gain) > 1 else ""
            row[pair] = f"{gain.mean():+.1f}{spread}"
        rows[PROTOCOLS[protocol]] = row
    return _from_rows(rows)


def _gains(table: pd.DataFrame, protocol: str) -> dict[str, pd.Series]:
    """ "A minus B" -> a difference in points for each run that has both."""
    chosen = table[table["protocol"] == protocol]
    by_run = chosen.pivot_table(index=["fold", "seed"], columns="model", values="novel_miou")
    gains = {}
    names = names_in(table)
    pairs = (("basic_oc", "basic"), ("eums", "basic"), ("eums", "basic_oc"), ("regions", "eums"))
    for better, worse in pairs:
        if {better, worse} <= set(by_run):
            gain = (100 * (by_run[better] - by_run[worse])).dropna()
            if len(gain):
                gains[f"{names[better]} minus {names[worse]}"] = gain
    return gains


def score_table(table: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """All scores of every model under one protocol, in percent, over all runs."""
    chosen = table[table["protocol"] == protocol]
    titles = {"base": TITLES["base"], **names_in(table)}
    rows = {title: _mean_scores(chosen[chosen["model"] == m]) for m, title in titles.items()}
    rows[TITLES["base"]] |= dict.fromkeys(("novel", "harmonic"), "-")  # it has no novel classes
    return _from_rows(rows)


def protocol_table(table: pd.DataFrame) -> pd.DataFrame:
    """All scores of every model under every protocol, in percent, over all runs."""
    rows = []
    for model, name in names_in(table).items():
        for protocol in protocols_in(table):
            chosen = table[(table["model"] == model) & (table["protocol"] == protocol)]
            if len(chosen):
                names = {"model": name, "protocol": PROTOCOLS[protocol]}
                rows.append({**names, **_mean_scores(chosen)})
    return pd.DataFrame(rows)


def class_table(paths: Iterable[str | Path], protocol: str = "published") -> pd.DataFrame:
    """IoU of each class in percent, by name, over the runs in which it is base.

    Over the runs in which it is novel it has a row of its own, marked so. No rows where the files
    do not tell: exported ones know classes under the published protocol alone.
    """
    rows: list[dict[str, Any]] = []
    for report in (report for path in find_reports(paths) for report in reports_in(path)):
        for model, entry in report["models"].items():
            scores = {**entry["protocols"], "published": entry}.get(protocol, {})
            for name, iou in scores.get("per_class", {}).items():
                novel = name in report["classes"]["novel"]
                rows.append({"novel": novel, "name": name, "model": model, "iou": iou})
    values = pd.DataFrame(rows, columns=["novel", "name", "model", "iou"])
    values = values.sort_values("novel", kind="stable")
    table = {}
    for (novel, name), chosen in values.groupby(["novel", "name"], sort=False):
        table[f"{name} (novel)" if novel else name] = {
            title: percent(chosen[chosen["model"] == model]["iou"], missing="-")
            for model, title in TITLES.items()
        }
    return _from_rows(table)


def pseudo_label_table(table: pd.DataFrame) -> pd.DataFrame:
    """Images, right pixels and purity of pseudo-labels; clean above unclean in how many runs."""
    chosen = table[table["protocol"] == "pseudo_labels"]
    rows = {}
    for name, quality in chosen.groupby("model", sort=False):
        rows[name] = {
            "images a run": f"{quality['images'].mean():.0f}",
            "right pixels": percent(quality["correct_share"]),
            "purity": percent(quality["purity"]),
        }
    by_run = chosen.pivot_table(index=["fold", "seed"], columns="model", values="correct_share")
    if {"clean", "unclean"} <= set(by_run):
        higher = by_run["clean"] > by_run["unclean"]
        runs = f"in {int(higher.sum())} of {len(higher)} runs"
        rows["clean above unclean"] = {"images a run": "", "right pixels": runs, "purity": ""}
    return _from_rows(rows)


# --- summaries to ship --------------------------------------------------------------------------


def export(paths: Iterable[str | Path], file: Path) -> int:
    """Write the summaries of some runs into one file, which is read as their reports are.

    Returns:
        The number of runs.

    Raises:
        InputError: no reports, or not of one data set and recipe.
    """
    table = read_reports(paths)
    kinds = table[["dataset", "recipe"]].drop_duplicates().agg(" with ".join, axis=1).tolist()
    if len(kinds) > 1:
        raise InputError(
            f"--export writes runs of one data set and recipe, not of {', '.join(kinds)}: name the "
            "folders of one of them."
        )
    reports = [report for path in find_reports(paths) for report in reports_in(path)]
    reports.sort(key=lambda report: (report["fold"], report["seed"]))
    lines = ",\n".join(json.dumps(summary(report), allow_nan=False) for report in reports)
    with whole_file(file) as draft:  # a line a run, so that a changed run is a changed line
        draft.write_text(f'{{"schema": 1, "runs": [\n{lines}\n]}}\n')
    return len(reports)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a report without its configuration, versions, files and matchings.

    A few kB, with the keys of a report.
    """
    kept = "schema dataset fold seed recipe device classes images saliency masks"
    short = {key: report[key] for key in kept.split() if key in report}
    for part in ("models", "ablation"):
        if part in report:
            short[part] = {name: _short_scores(entry) for name, entry in report[part].items()}
    return _rounded({**short, "pseudo_labels": report["pseudo_labels"]})


def _short_scores(entry: dict[str, Any]) -> dict[str, Any]:
    """One model: all its means, each class under the headline, and the means of each protocol."""
    headline = {key: entry[key] for key in ("clusters", *SCORES, "per_class") if key in entry}
    protocols = {
        name: {score: scores[score] for score in SCORES}
        for name, scores in entry["protocols"].items()
    }
    return {**headline, "protocols": protocols}


def _rounded(value: Any) -> Any:
    """The same with four digits: a hundredth of a point, and one digit more than is printed."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


# --- everything about some runs -------------------------------------------------------------------


def caution(table: pd.DataFrame) -> str:
    """What may be compared with the paper, and on which masks, in two sentences."""
    dataset = table["dataset"].iloc[0]
    images = int(table["train_images"].max())
    recipes = sorted(set(table["recipe"]))
    masks = f" Masks: {', '.join(sorted(set(table['masks'])))}."
    if dataset == "toyscenes":
        return (
            "Toyscenes are drawings with simulated saliency: not comparable with any published "
            "number."
        )
    if dataset == "folder":
        return "Images of your own: there is no published number to compare with." + masks
    if images == TRAIN_IMAGES[dataset] and recipes == ["paper"]:
        return f"Full {dataset} with the paper recipe: comparable with the paper's rows." + masks
    what = f"{images} training images with the {'/'.join(recipes)} recipe"
    return f"{what}: not comparable with the paper's rows." + masks


def report_tables(paths: Iterable[str | Path], protocol: str = "published") -> str:
    """All tables of a set of runs as Markdown, a section a data set and recipe.

    Raises:
        InputError: no reports, or an unknown protocol.
    """
    # all reports, if they know the protocol
    everything = read_reports(paths)
    known = protocols_in(everything)
    if protocol not in known:
        these = ", ".join(sorted(known))
        raise InputError(f"unknown protocol {protocol!r}: these reports have {these}.")

    # a section a data set and recipe
    parts = []
    for (dataset, recipe), table in everything.groupby(["dataset", "recipe"]):
        count = len(table[["fold", "seed"]].drop_duplicates())
        runs = f"{count} run{'s' * (count > 1)} (mean ± standard deviation)"
        parts += [
            f"## {dataset}, {recipe} recipe: {runs}",
            caution(table),
            f"Novel mIoU, % ({PROTOCOLS[protocol]})",
            to_markdown(novel_table(table, protocol)),
            "Paired differences of novel mIoU, points",
            to_markdown(difference_table(table, protocol)),
            "The same differences under every protocol, points",
            to_markdown(gain_table(table)),
            "All scores under every protocol, %",
            to_markdown(protocol_table(table), index=False),
            f"IoU by class, % ({PROTOCOLS[protocol]})",
            to_markdown(class_table(set(table["path"]), protocol)),
            "Pseudo-labels, %",
            to_markdown(pseudo_label_table(table)),
        ]
        if set(table["model"]) & {"er", "er_dr", "er_st"}:
            heading = f"Ablation: novel mIoU, % ({PROTOCOLS[protocol]})"
            parts += [heading, to_markdown(ablation_table(table, protocol))]
    return "\n\n".join(parts)
