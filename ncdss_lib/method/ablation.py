"""The paper's ablation (its first table): EUMS without one or two of its parts.

In: what EUMS itself is made from, so that the rows of one run share base model, pseudo-labels and
ranking.
Out: for each row a folder with the weights and histories of the EUMS stage and the confusion
matrices of the evaluation.

The rows ``basic``, ``basic_oc`` and ``eums`` of the table are the models of every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ncdss_lib.method import eums, evaluation
from ncdss_lib.method.context import Context

#: Row -> switches of the EUMS stage. ER entropy ranking, DR dynamic reassignment, ST self-training.
ROWS: dict[str, dict[str, bool]] = {
    "er": {"dynamic_reassignment": False, "self_training": False},
    "er_dr": {"dynamic_reassignment": True, "self_training": False},
    "er_st": {"dynamic_reassignment": False, "self_training": True},
}


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train and score each row.

    Returns:
        Row -> the entry of its model, as in ``models`` of report.json.
    """
    rows = {}
    for row, switches in ROWS.items():
        variant, place = run.with_settings("eums", **switches), folder / row
        place.mkdir(exist_ok=True)
        eums.compute(variant, place)
        rows[row] = evaluation.evaluate(variant, "eums", place, f"ablation/{row}", weights=place)
    return rows
