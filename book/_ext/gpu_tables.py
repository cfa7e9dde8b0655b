"""``{gpu-table} NAME``: what ``python -m benchmarks.gpu`` measured, from ``book/measured``.

Names: ``steps``, ``memory``, ``loading``, ``inference``, ``machine``, ``runs``, ``checks``,
``feed`` and ``hours`` (computed from the others) and ``open`` (what was not measured, and why). No
figure of a GPU stands anywhere else in the book.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from sphinx.util.docutils import SphinxDirective

from ncdss_lib.data.pascal5i import published_counts
from ncdss_lib.recipes import load_recipe

MEASURED = Path(__file__).resolve().parents[1] / "measured" / "h100.json"
TITLES = {
    "base_training": "base training",
    "basic_framework": "basic framework",
    "eums": "EUMS",
}
#: What the ``paper`` recipe does on a card.
OURS = "ours, bf16, channels-last, folded norms"

#: COCO-20i by fold: images with a base class, of them without a novel one, with a novel class, and
#: validation images with a base class.
COCO = [
    (62515, 21479, 60602, 30467),
    (77860, 46398, 35683, 38008),
    (78457, 55761, 26320, 38340),
    (76902, 55189, 26892, 37506),
]
DOLLARS = 3  # assumed price of a card's hour
VAL = {"pascal5i": 1449, "coco20i": 40137}


def read_measured() -> dict[str, Any]:
    """The contents of the file."""
    return json.loads(MEASURED.read_text())


def steps_table(found: dict[str, Any]) -> str:
    """Milliseconds of a step by training and variant."""
    columns: dict[str, dict[str, str]] = {}
    for row in _steps(found):
        earlier = " ᵃ" if "code" in row else ""
        columns.setdefault(row["variant"], {})[TITLES[row["training"]]] = (
            f"{row['ms']:.0f}{earlier}"
        )
    table = pd.DataFrame(columns).T.reindex(columns=list(TITLES.values())).fillna("not run")
    table.index.name = "milliseconds a step"
    return table.to_markdown()


def memory_table(found: dict[str, Any]) -> str:
    """Gigabytes of a step: measured, as published and ours, and as computed."""
    published, measured = (
        {row["training"]: row["peak_gb"] for row in _steps(found, variant)}
        for variant in ("published, tf32", OURS)
    )
    computed = {
        row["training"]: row["peak_gb"]
        for row in found["parts"]["compiled"]["rows"]
        if row["variant"] == "computed by benchmarks.hardware_needs, bf16, folded norms"
    }
    rows = {
        title: {
            "computed, GB": f"{computed[name]:.1f}",
            "measured, GB": f"{measured[name]:.1f}",
            "published, tf32, GB": f"{published[name]:.1f}" if published[name] else "not run",
        }
        for name, title in TITLES.items()
    }
    return pd.DataFrame(rows).T.to_markdown()


def rows_table(found: dict[str, Any], part: str) -> str:
    """The lines of a part: what, and its value with its unit."""
    rows = {}
    for row in found["parts"][part]["rows"]:
        values = row["value"] if isinstance(row["value"], list) else [row["value"]]
        rows[row["what"]] = f"{' x '.join(f'{value:.3g}' for value in values)} {row['unit']}"
    return pd.Series(rows, name="measured").to_frame().to_markdown()


def feed_table(found: dict[str, Any]) -> str:
    """Time in which processes load what a step shows, over the step's own: above 100 % it waits."""
    ms = {row["training"]: row["ms"] for row in _steps(found, OURS)}
    rates = {row["what"]: row["value"] for row in found["parts"]["loading"]["rows"]}
    recipe = load_recipe("paper")
    batches = {
        "base_training": {"base": recipe.base_training.batch_size},
        "basic_framework": {"base": 2 * recipe.basic_framework.batch_size},
        "eums": {"base": 2 * recipe.eums.batch_size, "unclean": recipe.eums.batch_size},
    }
    rows = {}
    for processes in (1, 4, 8, 16):
        seconds = {
            name: sum(
                images / rates[f"{kind} images from files, {processes} processes"]
                for kind, images in batch.items()
            )
            for name, batch in batches.items()
        }
        shares = {TITLES[name]: f"{1e5 * s / ms[name]:.0f} %" for name, s in seconds.items()}
        rows[f"{processes} process{'es' * (processes > 1)}"] = shares
    return pd.DataFrame(rows).T.to_markdown()


def open_table(found: dict[str, Any]) -> str:
    """Parts that are not done, and why."""
    parts = {name: part["status"] for name, part in found["parts"].items()}
    waiting = {name: status for name, status in parts.items() if status != "done"}
    return pd.Series(waiting, name="on the card").to_frame().to_markdown()


def hours_table(found: dict[str, Any]) -> str:
    """Hours of one seed of all four folds, computed: steps by their time, images by their rate."""
    ms = {row["training"]: row["ms"] for row in _steps(found, OURS)}
    rate = next(
        row["value"]
        for row in found["parts"]["inference"]["rows"]
        if row["what"].startswith("evaluation")
    )
    rows = {}
    for dataset, title in (("pascal5i", "PASCAL-5i"), ("coco20i", "COCO-20i")):
        counts = [work(dataset, fold) for fold in range(4)]
        training = sum(steps[name] * ms[name] / 3.6e6 for steps, _ in counts for name in ms)
        scoring = sum(images for _, images in counts) / rate / 3600
        rows[title] = {
            "training steps, hours": f"{training:.1f}",
            "scoring every epoch, hours": f"{scoring:.1f}",
            "one card, hours": f"{training + scoring:.1f}",
            f"at {DOLLARS} dollars an hour": f"{DOLLARS * (training + scoring):.0f}",
            "eight cards, at best": f"{(training + scoring) / 8:.1f}",
        }
    return pd.DataFrame(rows).T.to_markdown(disable_numparse=True)


def work(dataset: str, fold: int) -> tuple[dict[str, int], int]:
    """Steps of each training of a fold under the ``paper`` recipe, and images that are scored.

    Both fine-tuned models of the basic framework are counted. Every novel image is taken to have a
    pseudo-label, which is an upper bound.
    """
    recipe = load_recipe("paper", dataset=dataset)
    if dataset == "pascal5i":
        counts = published_counts(fold)
        base_train, base, novel = counts["base_train"], counts["base"], counts["novel"]
        base_val = counts["base_val"]
    else:
        base_train, base, novel, base_val = COCO[fold]

    # Clean and unclean images before and after the reassignment.
    eums = recipe.eums
    clean = int(novel * recipe.entropy_ranking.clean_share)
    kept = int(clean * eums.reassign_share)
    (reassigned,) = eums.reassign_epochs
    before = min(base, clean, novel - clean) // eums.batch_size
    after = min(base, kept, novel - kept) // eums.batch_size
    steps = {
        "base_training": base_train
        // recipe.base_training.batch_size
        * recipe.base_training.epochs,
        "basic_framework": 2
        * (min(base, novel) // recipe.basic_framework.batch_size)
        * recipe.basic_framework.epochs,
        "eums": reassigned * before + (eums.epochs - reassigned) * after,
    }
    scored = recipe.base_training.epochs * base_val
    scored += (2 * recipe.basic_framework.epochs + eums.epochs) * VAL[dataset]
    return steps, scored


def _steps(found: dict[str, Any], variant: str | None = None) -> list[dict[str, Any]]:
    """Timed steps; of a variant measured twice the later one."""
    parts = (found["parts"][name]["rows"] for name in ("steps", "compiled"))
    rows = [row for part in parts for row in part if "loss" in row]
    last = {(row["training"], row["variant"]): row["call"] for row in rows}
    return [
        row
        for row in rows
        if (variant is None or row["variant"] == variant)
        and row["call"] == last[row["training"], row["variant"]]
    ]


TABLES = {
    "steps": steps_table,
    "memory": memory_table,
    "loading": lambda found: rows_table(found, "loading"),
    "feed": feed_table,
    "inference": lambda found: rows_table(found, "inference"),
    "machine": lambda found: rows_table(found, "machine"),
    "runs": lambda found: rows_table(found, "runs"),
    "checks": lambda found: rows_table(found, "checks"),
    "hours": hours_table,
    "open": open_table,
}


class GpuTable(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[Any]:
        self.env.note_dependency(str(MEASURED))
        found = read_measured()
        machine = found["machine"]
        where = f"{machine['card']}, PyTorch {machine['torch']}, CUDA {machine['cuda']}"
        computed = self.arguments[0] in ("hours", "feed")
        kind = "Computed from what was measured on" if computed else "Measured on"
        text = f"{TABLES[self.arguments[0]](found)}\n\n*{kind} one {where}, {found['date']}.*"
        return self.parse_text_to_nodes(text)


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("gpu-table", GpuTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
