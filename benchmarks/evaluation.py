"""Whole evaluation of the paper's network (random weights) on files: the published two passes
against one, both in our precision.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.inference import predict
from ncdss_lib.method.metrics import Scores, score
from ncdss_lib.recipes import load_recipe
from ncdss_lib.runs.pipeline import Run

OVERRIDES = ("data.workers=0", "model.weights=none", "compute.inference_batch=2")


def sides(
    data: Pascal5i, images: int, size: int, overrides: Sequence[str], folder: str
) -> dict[str, Callable[[], Any]]:
    """The published evaluation, which returns what :func:`published.scoring` does, and ours, which
    returns all scores.
    """
    run = Run(
        data,
        0,
        0,
        load_recipe("paper", [*OVERRIDES, f"data.size={size}", *overrides]),
        Path(folder),
    )
    run.splits = dataclasses.replace(run.splits, val=run.splits.val[:images])
    clusters = run.clusters["basic_oc"]
    model = run.new_segmenter(clusters, seed=0)

    def one_pass() -> tuple[list[np.ndarray], list[np.ndarray]]:
        truths, predictions = [], []
        for ids, logits in predict(run, model, run.splits.val, size):
            truths += [resize_labels(run.truth(i), size) for i in ids]
            predictions += list(logits.argmax(1).to(torch.uint8).numpy())
        return truths, predictions

    def two_passes() -> tuple[np.ndarray, np.ndarray]:
        one_pass()  # the first finds the matching, the second scores: both run the network
        return published.scoring(*one_pass(), run.labels.num_base, run.labels.num_novel, clusters)

    def ours() -> Scores:
        return score(confusion_on_val(run, model, size), run.labels)

    return {"published": two_passes, "ours": ours}


def run(
    data: Pascal5i,
    *,
    images: int = 4,
    size: int = 512,
    repeats: int = 3,
    overrides: Sequence[str] = (),
) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleaved(sides(data, images, size, overrides, folder), repeats)
    return [faster("evaluating an image", seconds, 1.9, per=images)]


if __name__ == "__main__":
    main({"evaluation": run}, __doc__)
