"""What else than entropy could tell right pseudo-labels from wrong ones, by one more training.

The over-clustered network is trained as in the basic framework, with its predictions of the novel
images kept after some epochs. A ranking puts images with right labels first; the paper's is by the
entropy of the last epoch. Measured by :mod:`benchmarks.beyond` alone.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import Source
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.basic_framework import supervised_step
from ncdss_lib.method.clustering import read_pseudo_label, used_images
from ncdss_lib.method.entropy_ranking import region_entropy
from ncdss_lib.method.inference import predict
from ncdss_lib.method.training_loop import fit
from ncdss_lib.runs.pipeline import Run
from ncdss_lib.viz.results import pseudo_label_table, right_share

DOUBTS = ("entropy", "instability", "dissent")  # the image with the least comes first


def compare_rankings(run: Run) -> dict[str, Any]:
    """The entry of one run: ``rankings``, a row a doubt."""
    table = pseudo_label_table(run, run.clusters["basic_oc"])
    right = table["right"] / table["pixels"]
    doubts = _doubts(run).loc[table.index]
    share = run.recipe.entropy_ranking.clean_share
    rows = []
    for name in DOUBTS:
        order = doubts[name].sort_values(kind="stable").index
        clean = int(len(order) * share)
        row = {
            "doubt": name,
            "correlation": -float(spearmanr(doubts[name], right).statistic),
            "clean_right": right_share(table.loc[order[:clean]]),
            "unclean_right": right_share(table.loc[order[clean:]]),
        }
        rows.append(row)
    return {"dataset": run.data.name, "fold": run.fold, "seed": run.seed, "rankings": rows}


def _doubts(run: Run) -> pd.DataFrame:
    """Each doubt of each image with a pseudo-label, by one training."""
    config = run.recipe.basic_framework
    folder, clusters = run.folder / "clustering", run.clusters["basic_oc"]
    ids = used_images(folder)
    label = partial(read_pseudo_label, folder, clusters)
    model = run.new_segmenter(clusters, seed=run.seed)
    base = Source(
        "base", run.splits.base, partial(read_truth, run.data, run.labels), config.batch_size
    )
    novel = Source("novel", ids, label, config.batch_size)
    kept: dict[int, dict[str, torch.Tensor]] = {n * config.epochs // 3: {} for n in (1, 2)}

    def before_epoch(epoch: int, model: Any) -> None:
        if epoch in kept:
            for batch, logits in predict(run, model, ids, None):
                kept[epoch].update(zip(batch, logits.argmax(1), strict=True))

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            run,
            "basic_oc",
            model,
            [base, novel],
            lambda model, batches, epoch: supervised_step(model, batches),
            config.model_copy(update={"track_best": False, "select": "last"}),
            Path(scratch),
            before_epoch=before_epoch,
        )

    rows = {}
    for batch, logits in predict(run, model, ids, None):
        for i, own in zip(batch, logits, strict=True):
            pseudo = torch.from_numpy(resize_labels(label(i), own.shape[-1]).astype(np.int64))
            region = pseudo > run.labels.num_base
            said = own.argmax(0)
            before = torch.stack([maps[i] for maps in kept.values()])
            rows[i] = {
                "entropy": float(region_entropy(own[None], region[None])),
                "instability": float((before != said)[:, region].float().mean()),
                "dissent": float((pseudo != said)[region].float().mean()),
            }
    return pd.DataFrame.from_dict(rows, orient="index")
