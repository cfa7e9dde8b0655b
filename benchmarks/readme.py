"""What was measured on photos, from the files of ``ncdss report --export`` into the README.

::

    ncdss report runs/pascal5i/fold*/laptop --export book/measured/photos.json
    python -m benchmarks.readme

The part of the README between two comments is written anew, a table for each file
``book/measured/photos*.json`` (one data set and one recipe each). No number there is typed: a test
compares the README with the files.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from ncdss_lib.runs import report

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- measured: python -m benchmarks.readme -->", "<!-- end of measured -->"
#: Further columns of the table: protocol -> its name there, where the runs have it.
RULERS = {
    "hungarian": "one-to-one",
    "held_out": "matched on the other half",
    "best_epoch": "best epoch",
    "gate_image": "gate by image (ours)",
}

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import sentences  # noqa: E402  (the book's own words on some runs)


def novel_table(found: pd.DataFrame) -> pd.DataFrame:
    """Novel mIoU in percent: a row a model; folds, all runs, then all runs by other rulers."""
    runs = found[["fold", "seed"]].drop_duplicates()
    rulers = {p: name for p, name in RULERS.items() if p in report.protocols_in(found)}
    rows = {}
    for model, name in report.names_in(found).items():
        published = sentences.of_model(found, "published", model) / 100
        row = {
            f"fold {fold}": report.percent(published.xs(fold, level="fold"))
            for fold in sorted(runs["fold"].unique())
        }
        row[f"all {len(runs)} runs"] = report.percent(published)
        for protocol, title in rulers.items():
            row[title] = report.percent(sentences.of_model(found, protocol, model) / 100)
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def machines(file: Path) -> str:
    """How many runs of a file were made on what, in which precision."""
    devices = [run["device"] for run in report.reports_in(file)]
    count = Counter(
        f"{d['name'] if d['type'] == 'cuda' else 'a CPU'} in {d['precision']}" for d in devices
    )
    return ", ".join(f"{number} on {machine}" for machine, number in count.items())


def measured(folder: Path) -> str:
    """The whole part: for each file its runs, its table and what that says."""
    parts = []
    for file in sorted(folder.glob("photos*.json")):
        found = report.read_reports([file])
        recipe, *others = sorted(set(found["recipe"]))
        assert not others, f"{file} holds one recipe, as --export writes it"
        told = ("headline", "rule", "chosen-epoch", "clean")
        parts += [
            f"The `{recipe}` recipe, {sentences.SENTENCES['runs'](found)} Novel mIoU in percent, "
            f"mean ± standard deviation (`book/measured/{file.name}`; {machines(file)}):",
            report.to_markdown(novel_table(found)),
            " ".join(sentences.SENTENCES[kind](found) for kind in told),
        ]
    return "\n\n".join(parts)


def filled(readme: str, part: str) -> str:
    """The README with ``part`` between the two comments."""
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    assert len(between.findall(readme)) == 1, f"README.md needs {BEGIN} and {END}, once each"
    return between.sub(lambda _: f"{BEGIN}\n\n{part}\n\n{END}", readme)


if __name__ == "__main__":
    README.write_text(filled(README.read_text(), measured(ROOT / "book" / "measured")))
