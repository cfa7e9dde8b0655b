"""The tables of the page "Beyond the paper", and the benchmark that they are read from."""

from __future__ import annotations

import sys

import pytest

from benchmarks import beyond
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
    number = beyond.count_classes(run, run.fold)
    assert number["truth"] == run.labels.num_novel
    assert number["bic"] >= 2
