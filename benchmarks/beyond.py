"""What the choices of chapter 9 are worth before any training, on finished runs.

::

    python -m benchmarks.beyond RUN [RUN ...] --data-root DIR --seeds 100 101 102 --out FILE

runs
    for each run, the novel mIoU of the pseudo-labels themselves, for images and parts, with and
    without the metric of base objects
wrong_number
    the same for half, once, twice and four times as many clusters as classes
numbers
    for each fold of a run's data set, what each signal says of the number of novel classes, from
    prototypes under saliency minus true base classes, so that no training and no luck of a base
    model is in it

The book's tables are read from FILE; parts that are not asked for stay in it as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.method import number_of_classes
from ncdss_lib.method.base_class_removal import novel_regions
from ncdss_lib.method.clustering import (
    base_objects,
    cluster_prototypes,
    fuse,
    read_prototypes,
    region_prototypes,
    used_images,
    within_class_whitening,
)
from ncdss_lib.method.metrics import confusion_matrix, score
from ncdss_lib.runs.pipeline import Run, reopen
from ncdss_lib.system.folders import read_json, write_json

UNITS = ("image", "part")
METRICS = ("plain", "base")


def measure(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """The entry of one run: ``labels``, a row a choice."""
    objects, known = region_prototypes(run, run.splits.base, partial(base_objects, run))
    classes = objects["region"].to_numpy()
    metric = within_class_whitening(known, classes)
    rows = []
    for unit in UNITS:
        variant = run.with_settings("clustering", unit=unit)
        regions = partial(novel_regions, variant, run.folder / "clustering")
        table, plain = region_prototypes(variant, used_images(run.folder / "clustering"), regions)
        moved = plain @ metric
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        for name, prototypes in zip(METRICS, (plain, moved), strict=True):
            for clusters in (run.labels.num_novel, 2 * run.labels.num_novel):
                found = [_score(variant, table, prototypes, clusters, seed) for seed in seeds]
                row = {"unit": unit, "metric": name, "clusters": clusters, "regions": len(table)}
                rows.append({**row, "published": found, "seeds": list(seeds)})
    return {"dataset": run.data.name, "fold": run.fold, "seed": run.seed, "labels": rows}


def miss_number(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """The entry of one run: ``labels``, a row a number of clusters."""
    folder, novel = run.folder / "clustering", run.labels.num_novel
    table = pd.DataFrame({"id": used_images(folder), "region": 1})
    prototypes = read_prototypes(folder)
    rows = []
    numbers = [k for k in (novel // 2, novel, 2 * novel, 4 * novel) if k <= len(prototypes)]
    for clusters in numbers:
        found = [_score(run, table, prototypes, clusters, seed) for seed in seeds]
        rows.append({"clusters": clusters, "published": found, "seeds": list(seeds)})
    known = {"dataset": run.data.name, "fold": run.fold, "seed": run.seed}
    return {**known, "truth": novel, "labels": rows}


def count_classes(run: Run, fold: int) -> dict[str, Any]:
    """What each signal says of one fold of the run's data set."""
    other = Run(run.data, fold, run.seed, run.recipe, run.folder)
    other.views = run.views
    objects, base = region_prototypes(other, other.splits.base, partial(base_objects, other))
    _, novel = region_prototypes(other, other.splits.novel, partial(_ideal_region, other))
    found = _number(novel, base, objects["region"].to_numpy(), run.seed)
    truth = {"images": len(novel), "truth": other.labels.num_novel}
    return {"dataset": run.data.name, "fold": fold, **truth, **found}


def _ideal_region(run: Run, image_id: str) -> dict[int, np.ndarray]:
    """Saliency minus true base classes at the network's size, where it is large enough."""
    truth, salient = run.truth(image_id), run.data.saliency(image_id)
    if salient is None:
        return {}
    mask = salient & ~((truth > 0) & (truth <= run.labels.num_base))
    if mask.mean() <= run.recipe.clustering.min_area_fraction:
        return {}
    return {1: resize_labels(mask.astype(np.uint8), run.views.size) > 0}


def _score(run: Run, table: Any, prototypes: np.ndarray, clusters: int, seed: int) -> list[float]:
    """Novel mIoU of the pseudo-labels of one clustering: published matching, and one-to-one."""
    config, folder, size = run.recipe.clustering, run.folder / "clustering", run.recipe.data.size
    assigned, _ = cluster_prototypes(prototypes, clusters, **config.k_means, seed=seed)
    first, rows = 1 + run.labels.num_base, len(run.labels.names)
    confusion = torch.zeros(rows, first + clusters, dtype=torch.int64)
    for image_id, own in table.assign(cluster=assigned).groupby("id", sort=False):
        masks = novel_regions(run, folder, image_id)
        cluster = np.zeros((size, size), np.int64)
        for number, of_region in zip(own["region"], own["cluster"], strict=True):
            cluster[masks[number]] = of_region
        base_pred = resize_labels(read_labels(folder / "base_pred" / f"{image_id}.png"), size)
        pseudo = torch.from_numpy(fuse(base_pred, cluster > 0, cluster, run.labels.num_base))
        truth = torch.from_numpy(resize_labels(run.truth(image_id), size))
        confusion += confusion_matrix(truth, pseudo, rows, first + clusters)
    scores = [score(confusion.numpy(), run.labels, rule) for rule in ("published", "hungarian")]
    return [float(found.novel_miou or 0) for found in scores]


def _number(
    prototypes: np.ndarray, base: np.ndarray, classes: np.ndarray, seed: int
) -> dict[str, int]:
    """What each signal says."""
    numbers = number_of_classes.candidates(len(prototypes))
    curves = {
        "bic": number_of_classes.bic(prototypes, numbers, seed=seed),
        "silhouette": number_of_classes.silhouette(prototypes, numbers, seed=seed),
        "stability": number_of_classes.stability(prototypes, numbers, seed=seed),
        "base_found_again": number_of_classes.held_out_classes(
            prototypes, base, classes, numbers, seed=seed
        ),
    }
    return {name: numbers[int(np.argmax(curve))] for name, curve in curves.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    runs = [_open(path, options.data_root) for path in options.runs]
    contents = read_json(options.out) if options.out.is_file() else {"schema": 1}
    for part in options.parts:
        contents[part] = PARTS[part](runs, options.seeds)
        write_json(options.out, contents)


def _open(path: Path, data_root: str | None) -> Run:
    """A run, on the photos of ``data_root`` if it is not one of toyscenes."""
    toyscenes = read_json(path / "report.json")["dataset"] == "toyscenes"
    return reopen(path, None if toyscenes else data_root)


def _numbers(runs: Sequence[Run], seeds: Sequence[int]) -> list[dict[str, Any]]:
    first = {run.data.name: run for run in runs}
    return [count_classes(run, fold) for run in first.values() for fold in run.data.folds]


PARTS: dict[str, Callable[[Sequence[Run], Sequence[int]], list[dict[str, Any]]]] = {
    "runs": lambda runs, seeds: [measure(run, seeds) for run in runs],
    "wrong_number": lambda runs, seeds: [miss_number(run, seeds) for run in runs],
    "numbers": _numbers,
}


if __name__ == "__main__":
    main()
