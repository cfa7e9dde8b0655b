"""The tables of the page "Beyond the paper", and the benchmark that they are read from."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks import beyond, cells
from benchmarks.clusterings import CLUSTERINGS, transport
from benchmarks.rankings import compare_rankings
from ncdss_lib.runs.pipeline import reopen
from tests.conftest import REPO

sys.path.insert(0, str(REPO / "book" / "_ext"))
import beyond_tables


def test_labels_are_means_and_spreads_over_seeds():
    row = {"unit": "part", "metric": "base", "clusters": 10, "regions": 7, "seeds": [1, 2], "published": [[0.4, 0.5], [0.6, 0.5]]}
    table = beyond_tables.labels_table({"runs": [{"dataset": "toyscenes", "fold": 0, "seed": 0, "labels": [row]}]})
    [(name, cells)] = table.to_dict("index").items()
    assert name == "a region a part, metric of base objects, K = 10"
    assert cells == {"toyscenes, published": "50.0 ± 14.1", "toyscenes, one-to-one": "50.0 ± 0.0"}


def test_numbers_within_a_fifth_of_the_truth_are_bold():
    fold = {"dataset": "pascal5i", "fold": 2, "images": 99, "truth": 5, "bic": 6, "silhouette": 7, "stability": 4, "base_found_again": 3}
    table = beyond_tables.number_table({"numbers": [fold]})
    assert table.loc["pascal5i, fold 2"].tolist() == ["5", "99", "**6**", "7", "**4**", "3"]


def test_the_gate_table_has_every_model_that_the_runs_have():
    scores = {"novel_miou": 0.25, "base_miou": 0.5}
    model = {"protocols": dict.fromkeys(("plain", "gate_part", "gate_image"), scores)}
    table = beyond_tables.gate_table({"runs": [{"models": {"eums": model}}, {"models": {"eums": model, "regions": model}}]})
    assert table.index.tolist() == ["EUMS, novel", "EUMS, base", "committee after EUMS (ours), novel", "committee after EUMS (ours), base"]
    assert table.loc["EUMS, novel"].tolist() == ["25.0 ± 0.0"] * 3


def test_wrong_numbers_stand_beside_the_right_one():
    labels = [{"clusters": k, "seeds": [1], "published": [[k / 20, k / 40]]} for k in (2, 5, 10, 20)]
    table = beyond_tables.wrong_table({"wrong_number": [{"dataset": "pascal5i", "fold": 1, "seed": 0, "truth": 5, "labels": labels}]})
    assert table.columns.tolist() == ["K = 0.4 N", "K = 1 N", "K = 2 N", "K = 4 N"]
    assert table.loc["pascal5i, fold 1, N = 5, one-to-one"].tolist() == ["5.0", "12.5", "25.0", "50.0"]


def test_regions_are_paired_with_laptop_by_fold_and_seed(monkeypatch):
    def model(published: float, gated: float = 0.0) -> dict:
        def scores(novel: float) -> dict:
            return {"novel_miou": novel, "base_miou": novel + 0.1}

        clustered = {"published": scores(published), "hungarian": scores(published / 2)}
        return {"protocols": {**clustered, "gate_image": scores(gated), "plain": scores(gated)}}

    def run(fold: int, **models: dict) -> dict:
        return {"fold": fold, "seed": 0, "models": models}

    laptop = {"runs": [run(1, eums=model(0.3)), run(2, eums=model(0.4)), run(3, eums=model(0.9))]}
    regions = {"runs": [run(2, eums=model(0.45, 0.42), regions=model(0.5, 0.4)), run(1, eums=model(0.35, 0.32), regions=model(0.3, 0.2))]}
    monkeypatch.setattr(beyond_tables, "read", lambda name: laptop)
    table = beyond_tables.regions_table(regions)
    assert table.loc["EUMS of laptop", "novel"] == "35.0 ± 7.1"
    assert table.loc["committee, gate, edges, views", "one-to-one"] == "20.0 ± 7.1"
    assert table.loc["gain over EUMS of laptop", "novel"] == "+5.0 ± 7.1 (1 of 2)"
    assert table.loc["gain over EUMS on Lite2, gate", "base"] == "+3.0 ± 7.1 (1 of 2)"
    assert beyond_tables.regions_table({"runs": [run(0)]}).empty


def test_ways_and_cells_have_a_row_each():
    ways = [{"way": way, "clusters": 5, "seeds": [1], "published": [[0.4, 0.3]]} for way in CLUSTERINGS]
    units = [{"unit": unit, "clusters": 5, "seeds": [1], "published": [[0.2, 0.1]]} for unit in ("cells", "cells, a part votes")]
    measured = {name: [{"dataset": "toyscenes", "labels": labels}] for name, labels in (("ways", ways), ("cells", units))}
    table = beyond_tables.ways_table(measured)
    assert len(table) == len(CLUSTERINGS)
    assert table.loc["consensus of 30 k-means, K = 5"].tolist() == ["40.0", "30.0"]
    assert beyond_tables.cells_table(measured).loc["cells, a part votes, K = 5"].tolist() == ["20.0", "10.0"]


@pytest.mark.parametrize("name", beyond_tables.TABLES)
def test_a_table_without_its_file_says_so(name, tmp_path, monkeypatch):
    monkeypatch.setattr(beyond_tables, "MEASURED", tmp_path)
    assert beyond_tables.markdown(name) == "Not run."


def test_the_benchmark_measures_a_finished_run(finished, voc):
    run = reopen(finished["laptop"], str(voc))
    entry = beyond.measure(run, [0, 1])
    rows = {(row["unit"], row["metric"], row["clusters"]): row for row in entry["labels"]}
    assert len(rows) == 8
    assert all(0 <= value <= 1 for row in rows.values() for pair in row["published"] for value in pair)
    images = rows["image", "plain", run.labels.num_novel]["regions"]
    assert images == run.report()["images"]["novel_used"]
    assert rows["part", "plain", run.labels.num_novel]["regions"] >= images
    wrong = beyond.miss_number(run, [0])
    novel = run.labels.num_novel
    numbers = [k for k in (novel // 2, novel, 2 * novel, 4 * novel) if k <= images]
    assert [row["clusters"] for row in wrong["labels"]] == numbers
    assert wrong["labels"][1]["published"][0] == rows["image", "plain", novel]["published"][0]
    number = beyond.count_classes(run, run.fold)
    assert number["truth"] == run.labels.num_novel
    assert number["bic"] >= 2


@pytest.fixture(scope="module")
def three_directions():
    """Unit vectors about three directions, of which one has four fifths of all: [100, 16], and their direction."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [80, 10, 10])
    points = np.eye(16)[truth] + 0.05 * rng.standard_normal((100, 16))
    return points / np.linalg.norm(points, axis=1, keepdims=True), truth


@pytest.mark.parametrize("way", sorted(CLUSTERINGS.keys() - {"balanced"}))
def test_every_way_but_the_balanced_one_finds_unequal_clusters(way, three_directions):
    points, truth = three_directions
    assert adjusted_rand_score(truth, CLUSTERINGS[way](points, 3, 0)) == 1


def test_balanced_transport_shares_out_the_largest_cluster(three_directions):
    points, truth = three_directions
    sizes = np.bincount(CLUSTERINGS["balanced"](points, 3, 0), minlength=4)[1:]
    assert sizes.min() >= 15
    assert sizes.max() <= 65
    free = transport(points, 3, 0, equality=1e-6)
    assert adjusted_rand_score(truth, free) == 1


def test_the_benchmark_compares_ways_and_cells(finished, voc):
    run = reopen(finished["laptop"], str(voc))
    novel = run.labels.num_novel
    rows = beyond.compare_ways(run, [0, 1])["labels"]
    assert [(row["way"], row["clusters"]) for row in rows] == [(way, k) for k in (novel, 2 * novel) for way in CLUSTERINGS]
    assert all(0 <= value <= 1 for row in rows for pair in row["published"] for value in pair)
    entry = beyond.compare_cells(run, [0])
    assert [row["unit"] for row in entry["labels"]] == ["cells", "cells, a part votes"] * 2
    assert [row["images"] // entry["cost"][0]["images"] for row in entry["cost"]] == [1, 4, 16]


def test_the_benchmark_compares_rankings(finished, voc):
    run = reopen(finished["laptop"], str(voc))
    entry = compare_rankings(run)
    rows = {row["doubt"]: row for row in entry["rankings"]}
    assert rows.keys() == beyond_tables.DOUBTS.keys()
    assert all(-1 <= row["correlation"] <= 1 for row in rows.values())
    table = beyond_tables.rankings_table({"rankings": [entry, entry]})
    assert table.loc["entropy (the paper's)", "runs"] == "2"
    clean = 100 * rows["entropy"]["clean_right"]
    assert table.loc["entropy (the paper's)", "clean"] == f"{clean:.1f} ± 0.0"


def test_cells_of_a_part_vote():
    """Two parts of one cluster each but for a cell; outside the mask there is none."""
    points = np.repeat([[0.0, 1.0], [1.0, 0.0]], 50, axis=0) + 0.01 * np.random.default_rng(0).standard_normal((100, 2))
    fitted = cells.CellClusters(*cells.fitted(points, 2, 0))
    label = fitted.of_pixels(np.array([[[0.0, 1.0], [1.0, 0.0]]], np.float32), np.ones((1, 2), bool), vote=False)
    left, right = label[0]
    assert left != right
    image = np.array([[[0.0, 1.0]] * 2 + [[1.0, 0.0], [0.0, 1.0]] + [[1.0, 0.0]] * 2], np.float32)
    mask = np.array([[True, True, True, False, True, True]])
    assert fitted.of_pixels(image, mask, vote=False).tolist() == [[left, left, right, 0, right, right]]
    assert fitted.of_pixels(image, mask, vote=True).tolist() == [[left, left, left, 0, right, right]]
