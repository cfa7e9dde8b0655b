"""What the choices of chapter 9 are worth before any training, on finished runs.

::

    python -m benchmarks.beyond RUN [RUN ...] --data-root DIR --seeds 100 101 102 --out FILE

runs
    for each run, the novel mIoU of the pseudo-labels themselves, for images and parts, with and
    without the metric of base objects
wrong_number
    the same for half, once, twice and four times as many clusters as classes
ways
    the same by each way to cluster of :mod:`benchmarks.clusterings`; with each seed the masks
    change by a pixel, so the spread says how much a clustering hangs on its masks
cells
    the same where each cell of the features is clustered, and where the cells of a connected part
    vote for its cluster; with the seconds and the memory that it takes for 1, 4 and 16 times as
    many images
numbers
    for each fold of a run's data set, what each signal says of the number of novel classes, from
    prototypes under saliency minus true base classes, so that no training and no luck of a base
    model is in it
rankings
    what else than entropy tells right pseudo-labels from wrong ones (:mod:`benchmarks.rankings`)

The book's tables are read from FILE; parts that are not asked for stay in it as they are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks import cells
from benchmarks.clusterings import CLUSTERINGS
from benchmarks.measure import peak_bytes
from benchmarks.rankings import compare_rankings
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
                found = [_by_k_means(variant, table, prototypes, clusters, seed) for seed in seeds]
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
        found = [_by_k_means(run, table, prototypes, clusters, seed) for seed in seeds]
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


def compare_ways(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """The entry of one run: ``labels``, a row a way to cluster and a number of clusters."""
    folder, novel = run.folder / "clustering", run.labels.num_novel
    ids = used_images(folder)
    found: dict[tuple[str, int], list[list[float]]] = {}
    for seed in seeds:
        nudged = partial(_nudged_mask, run, seed)
        table, prototypes = region_prototypes(run, ids, nudged)
        for clusters in (novel, 2 * novel):
            for way, cluster in CLUSTERINGS.items():
                assigned = cluster(prototypes.astype(np.float64), clusters, seed)
                scores = _score(run, table, assigned, clusters)
                found.setdefault((way, clusters), []).append(scores)
    rows = [
        {"way": way, "clusters": clusters, "published": scores, "seeds": list(seeds)}
        for (way, clusters), scores in found.items()
    ]
    return {"dataset": run.data.name, "fold": run.fold, "seed": run.seed, "labels": rows}


def _nudged_mask(run: Run, seed: int, image_id: str) -> dict[int, np.ndarray]:
    """The novel mask, a pixel larger or a pixel smaller."""
    mask = cells.novel_mask(run, image_id).astype(np.uint8)
    larger = np.random.default_rng([seed, crc32(image_id.encode())]).random() < 0.5
    change = cv2.dilate if larger else cv2.erode
    nudged = change(mask, np.ones((3, 3), np.uint8))
    return {1: (nudged if nudged.any() else mask) > 0}


def compare_cells(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """The entry of one run: ``labels``, and ``cost`` for 1, 4 and 16 times as many images."""
    ids = used_images(run.folder / "clustering")
    rows = []
    for clusters in (run.labels.num_novel, 2 * run.labels.num_novel):
        fitted = [cells.fit(run, ids, clusters, seed) for seed in seeds]
        for vote in (False, True):
            found = [_score_cells(run, ids, own, clusters, vote=vote) for own in fitted]
            unit = "cells, a part votes" if vote else "cells"
            row = {"unit": unit, "clusters": clusters}
            rows.append({**row, "published": found, "seeds": list(seeds)})
    cost = []
    for times in (1, 4, 16):
        started = time.perf_counter()
        grown = peak_bytes(partial(cells.fit, run, ids * times, run.labels.num_novel, 0))
        seconds = time.perf_counter() - started
        cost.append({"images": len(ids) * times, "seconds": seconds, "megabytes": grown / 1e6})
    known = {"dataset": run.data.name, "fold": run.fold, "seed": run.seed}
    return {**known, "labels": rows, "cost": cost}


def _score_cells(
    run: Run, ids: Sequence[str], fitted: cells.CellClusters, clusters: int, *, vote: bool
) -> list[float]:
    found = {}
    for image_id, own in cells.read(run, ids):
        found[image_id] = fitted.of_pixels(own, cells.novel_mask(run, image_id), vote=vote)
    return _score_maps(run, found, clusters)


def _by_k_means(
    run: Run, table: pd.DataFrame, prototypes: np.ndarray, clusters: int, seed: int
) -> list[float]:
    config = run.recipe.clustering
    assigned, _ = cluster_prototypes(prototypes, clusters, **config.k_means, seed=seed)
    return _score(run, table, assigned, clusters)


def _score(run: Run, table: pd.DataFrame, assigned: np.ndarray, clusters: int) -> list[float]:
    """The scores of a cluster for each region of a table."""
    folder, size = run.folder / "clustering", run.recipe.data.size
    found = {}
    for image_id, own in table.assign(cluster=assigned).groupby("id", sort=False):
        masks = novel_regions(run, folder, image_id)
        found[image_id] = np.zeros((size, size), np.int64)
        for number, of_region in zip(own["region"], own["cluster"], strict=True):
            found[image_id][masks[number]] = of_region
    return _score_maps(run, found, clusters)


def _score_maps(run: Run, found: Mapping[str, np.ndarray], clusters: int) -> list[float]:
    """Novel mIoU of the pseudo-labels of one clustering: published matching, and one-to-one.

    Args:
        found: image id -> cluster of each pixel, int [S, S]; 0 outside the novel mask.
    """
    folder, size = run.folder / "clustering", run.recipe.data.size
    first, rows = 1 + run.labels.num_base, len(run.labels.names)
    confusion = torch.zeros(rows, first + clusters, dtype=torch.int64)
    for image_id, cluster in found.items():
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
    "ways": lambda runs, seeds: [compare_ways(run, seeds) for run in runs],
    "cells": lambda runs, seeds: [compare_cells(run, seeds) for run in runs],
    "rankings": lambda runs, seeds: [compare_rankings(run) for run in runs],
}


if __name__ == "__main__":
    main()
