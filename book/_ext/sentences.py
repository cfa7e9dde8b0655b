"""What some runs showed, in sentences: each function takes rows of
:func:`ncdss_lib.runs.report.read_reports` of one data set and recipe, and gives Markdown.

For the pages of the book (:mod:`result_tables`) and for the README (:mod:`benchmarks.readme`).
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ncdss_lib.runs import report

NOT_RUN = "not run"


def runs_sentence(found: pd.DataFrame) -> str:
    """How many runs there are, and which: folds, and seeds of each."""
    seeds = found.groupby("fold")["seed"].unique()
    runs = found[["fold", "seed"]].drop_duplicates()
    which = "; ".join(
        f"fold {fold} with seed {', '.join(map(str, sorted(of)))}" for fold, of in seeds.items()
    )
    return f"{len(runs)} run{'s' * (len(runs) > 1)}: {which}."


def headline(found: pd.DataFrame) -> str:
    """What each step gained, on average and in how many runs."""
    chosen = found[(found["protocol"] == "published") & found["novel_miou"].notna()]
    table = 100 * chosen.pivot_table(index=["fold", "seed"], columns="model", values="novel_miou")
    if not set(report.NAMES) <= set(table):
        return runs_sentence(found)
    basic, over, eums = (table[model] for model in report.NAMES)
    runs = "the one run" if len(table) == 1 else f"{len(table)} runs"
    images = IMAGES.get(found["dataset"].iloc[0], "")
    higher = [f"in {int((eums > other).sum())} of {len(table)}" for other in (basic, over)]
    return (
        f"Over {runs}{images} the novel mIoU is **{basic.mean():.1f} %** for the basic framework, "
        f"**{over.mean():.1f} %** with over-clustering, and **{eums.mean():.1f} %** for EUMS. "
        f"EUMS is above the basic framework {higher[0]} runs, above over-clustering {higher[1]}."
    )


def steps(found: pd.DataFrame) -> str:
    """What each row of the ablation adds to the one that it extends, beside the paper's mean."""
    chosen = found[(found["protocol"] == "published") & found["novel_miou"].notna()]
    table = 100 * chosen.pivot_table(index=["fold", "seed"], columns="model", values="novel_miou")
    published = {name: values[-1] for name, values in report.PAPER["pascal5i"].items()}
    parts = []
    for after, before, what in STEPS:
        if {after, before} <= set(table):
            gain = table[after] - table[before]
            paper = published[after] - published[before]
            parts.append(
                f"{what} {gain.mean():+.1f} points, up in {int((gain > 0).sum())} of {len(gain)} "
                f"(the paper: {paper:+.1f})"
            )
    missing = [name for model, name in report.SWITCHES.items() if model not in table]
    text = f"Step by step: {'; '.join(parts)}."
    return f"{text} Not run: {', '.join(missing)}." if missing else text


def rule(found: pd.DataFrame) -> str:
    """How much of over-clustering's gain is left where both models are matched by one rule."""
    parts = []
    for protocol, words in RULES.items():
        gain = gain_of(found, protocol, "basic_oc", "basic")
        if len(gain):
            spread = f" ± {gain.std():.1f}" if len(gain) > 1 else ""
            parts.append(f"{gain.mean():+.1f}{spread} {words}")
    return (
        f"Over-clustering minus basic framework, in points: {', '.join(parts)}."
        if parts
        else f"Over-clustering and basic framework in one run: {NOT_RUN}."
    )


def chosen_epoch(found: pd.DataFrame) -> str:
    """What choosing the best epoch on the images that score adds to each model."""
    gains = {}
    for model, name in report.NAMES.items():
        by_protocol = {p: of_model(found, p, model) for p in ("best_epoch", "published")}
        gain = (by_protocol["best_epoch"] - by_protocol["published"]).dropna()
        if len(gain):
            gains[name] = f"{gain.mean():+.1f} to {name.removeprefix('+ ')}"
    if not gains:
        return "In these runs the epochs were not scored, so what choosing one adds is not known."
    return f"Choosing the best epoch on the images that score adds {', '.join(gains.values())}."


def clean_labels(found: pd.DataFrame) -> str:
    """Whether clean pseudo-labels are better than unclean ones."""
    chosen = found[found["protocol"] == "pseudo_labels"]
    by_run = chosen.pivot_table(index=["fold", "seed"], columns="model", values="correct_share")
    if not {"clean", "unclean"} <= set(by_run):
        return f"The clean and unclean pseudo-labels: {NOT_RUN}."
    clean, unclean = by_run["clean"], by_run["unclean"]
    return (
        f"Of the pixels of clean pseudo-labels {100 * clean.mean():.1f} % are right, of unclean "
        f"ones {100 * unclean.mean():.1f} %; clean is better in {int((clean > unclean).sum())} of "
        f"{len(by_run)} runs."
    )


def of_model(found: pd.DataFrame, protocol: str, model: str) -> pd.Series:
    """Novel mIoU in percent of one model, a value a run (fold, seed)."""
    chosen = found[(found["protocol"] == protocol) & (found["model"] == model)]
    return 100 * chosen.set_index(["fold", "seed"])["novel_miou"].astype(float)


def gain_of(found: pd.DataFrame, protocol: str, better: str, worse: str) -> pd.Series:
    """The difference of two models in points, a value a run that has both."""
    return (of_model(found, protocol, better) - of_model(found, protocol, worse)).dropna()


#: What the images of a data set are.
IMAGES = {"pascal5i": " on real photos", "coco20i": " on real photos", "toyscenes": " on drawings"}
#: Ways to match clusters under which the gain of over-clustering is told.
RULES = {
    "published": "as published",
    "hungarian": "one-to-one",
    "held_out": "with clusters matched on the other half of the images",
}
#: A row of the ablation, the row that it extends, and what was added.
STEPS = (
    ("basic_oc", "basic", "over-clustering"),
    ("er", "basic_oc", "training on the clean images alone"),
    ("er_dr", "er", "dynamic reassignment"),
    ("er_st", "er", "self-training"),
    ("eums", "er_st", "reassignment on top of self-training"),
)
SENTENCES: dict[str, Callable[[pd.DataFrame], str]] = {
    "runs": runs_sentence,
    "caution": report.caution,
    "headline": headline,
    "steps": steps,
    "rule": rule,
    "chosen-epoch": chosen_epoch,
    "clean": clean_labels,
}
