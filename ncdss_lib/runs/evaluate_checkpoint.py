"""Score a trained network on the validation images of a data set, from its checkpoint alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from ncdss_lib.data import open_dataset
from ncdss_lib.method.evaluation import confusions, protocols
from ncdss_lib.models.checkpoints import Network
from ncdss_lib.runs.pipeline import Run
from ncdss_lib.runs.report import NAMES, PAPER, PROTOCOLS, SCORES, percent, to_markdown
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import cache_root, disk_errors, refuse_file, write_json


def evaluate_checkpoint(
    path: Path,
    dataset: str,
    data_root: str | None = None,
    fold: int = 0,
    *,
    overrides: Sequence[str] = (),
    device: str | None = None,
    network: Network = "student",
    clusters: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Score a checkpoint under every protocol; :func:`evaluation_tables` prints the result.

    Args:
        path, dataset, fold, overrides, device, network, clusters: see
            :func:`~ncdss_lib.runs.trained_network.open_checkpoint`.
        out: a JSON file to write the result to.

    Returns:
        What was scored on what, then as ``models.NAME`` of report.json the scores and
        ``protocols``, and ``confusion``: the counts of both halves of the images at ``size``
        pixels, and of all at original size, rows truth, columns prediction.

    Raises:
        InputError: see :func:`~ncdss_lib.runs.trained_network.open_checkpoint`; no validation
            images; ``out`` is a folder.
    """
    if out is not None and out.is_dir():
        raise InputError(
            f"--out {out} is a folder. Expected a file name for the scores, e.g. "
            f"{out / 'scores.json'}."
        )
    if out is not None:
        refuse_file(out.parent, "--out")

    # the network, in a run on this data set
    trained = open_checkpoint(path, dataset, data_root, fold, overrides, device, network, clusters)
    checkpoint = trained.checkpoint
    recipe = trained.recipe
    data = open_dataset(dataset, data_root, cache_root(), recipe.data, needs_saliency=False)
    if not data.val_ids:
        raise InputError(
            f"{dataset} has no validation images to score on ({data.masks_note}). Add some, or use "
            "`ncdss predict`."
        )
    for line in data.left_out:
        tqdm.write(line, file=sys.stderr)
    run = Run(data, fold, 0, recipe, checkpoint.path.parent, device)

    # its scores
    size = recipe.evaluation.size
    counts = confusions(run, trained.model, size)
    scores = {name: entry.as_dict() for name, entry in protocols(counts, run.labels).items()}
    sections = {name: getattr(recipe, name) for name in ("data", "model", "evaluation")}
    result = {
        "schema": 1,
        "checkpoint": str(checkpoint.path),
        "layout": checkpoint.layout,
        "network": checkpoint.network,
        "dataset": dataset,
        "fold": fold,
        "classes": {"base": list(run.labels.base_names), "novel": list(run.labels.novel_names)},
        "masks": data.masks_note,
        "images": {"val": len(run.splits.val)},
        "config": {name: section.model_dump(mode="json") for name, section in sections.items()},
        "device": run.runtime.describe(),
        "clusters": trained.clusters,
        "size": size,
        **scores["published"],
        "protocols": scores,
        "confusion": {
            "halves": counts.halves.tolist(),
            "original_size": counts.original.tolist(),
        },
    }
    if out is not None and run.runtime.is_main:
        with disk_errors("the scores", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, result)
    return result


def evaluation_tables(result: dict[str, Any]) -> str:
    """What :func:`evaluate_checkpoint` gives as Markdown.

    Scores by protocol, IoU by class and protocol, and what each cluster was taken for.
    """
    # the tables
    base = result["classes"]["base"]
    novel = result["classes"]["novel"]
    shown = result["protocols"]
    rows = {}
    for protocol, entry in shown.items():
        cells = {title: percent([entry[score]], "-") for score, title in SCORES.items()}
        rows[PROTOCOLS[protocol]] = cells
    classes = {}
    for name in result["per_class"]:
        cells = {p.replace("_", " "): percent([shown[p]["per_class"][name]], "-") for p in shown}
        classes[f"{name} (novel)" if name in novel else name] = cells

    # what was scored, and the tables
    dataset = result["dataset"]
    fold = result["fold"]
    network = f"{result['layout']}, {result['network']}" if result["network"] else result["layout"]
    parts = [
        f"## {Path(result['checkpoint']).name} on {dataset}, fold {fold}",
        f"{result['images']['val']} validation images, {result['masks']}; {network}, {len(base)} "
        f"base classes, {result['clusters']} clusters for {len(novel)} novel classes; predicted at "
        f"{result['size']} pixels.",
        "All scores, %",
        to_markdown(pd.DataFrame.from_dict(rows, orient="index")),
        "IoU by class and protocol, %",
        to_markdown(pd.DataFrame.from_dict(classes, orient="index")),
    ]

    # what clusters were taken for, and the paper's numbers
    if matching := result["matching"]["cluster_to_class"]:
        pairs = [f"cluster {k} is {name or 'nothing'}" for k, name in matching.items()]
        parts.append(f"Published matching: {', '.join(pairs)}.")
    if dataset in PAPER and result["clusters"] and fold < 4:
        values = [f"{name} {PAPER[dataset][model][fold]:.2f}" for model, name in NAMES.items()]
        parts.append(
            f"The paper's novel mIoU on this fold, %: {', '.join(values)} (published matching, "
            "best epoch on all validation images)."
        )
    return "\n\n".join(parts)
