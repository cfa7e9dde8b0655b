"""Further rows of a run: the paper's ablation (its first table), and oracles.

In: what EUMS itself is made from, so that the rows of one run share base model, pseudo-labels and
ranking.
Out: for each row a folder with its weights, histories and the confusion matrices of its evaluation.

The rows ``basic``, ``basic_oc`` and ``eums`` of the table are the models of every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ncdss_lib.method import eums, evaluation
from ncdss_lib.method.basic_framework import fine_tune
from ncdss_lib.method.clustering import used_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.oracles import ORACLES

#: Row -> switches of the EUMS stage. ER entropy ranking, DR dynamic reassignment, ST self-training.
ROWS: dict[str, dict[str, bool]] = {
    "er": {"dynamic_reassignment": False, "self_training": False},
    "er_dr": {"dynamic_reassignment": True, "self_training": False},
    "er_st": {"dynamic_reassignment": False, "self_training": True},
}


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train and score the rows that the recipe asks for.

    Returns:
        Row -> the entry of its model, as in ``models`` of report.json.
    """
    config = run.recipe.ablation
    rows = {}
    for row, switches in ROWS.items() if config.enabled else ():
        variant, place = run.with_settings("eums", **switches), folder / row
        place.mkdir(exist_ok=True)
        eums.compute(variant, place)
        rows[row] = evaluation.evaluate(variant, "eums", place, f"ablation/{row}", weights=place)

    used, clusters = used_images(run.folder / "clustering"), run.labels.num_novel
    for row, targets in ORACLES.items() if config.oracles else ():
        place = folder / row
        place.mkdir(exist_ok=True)
        fine_tune(run, "basic", clusters, used, targets(run), place)
        rows[row] = evaluation.evaluate(run, "basic", place, f"ablation/{row}", weights=place)
    return rows
