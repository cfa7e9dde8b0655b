"""The evaluation stage against counts made image by image, and the optional ablation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method import ablation
from ncdss_lib.method.evaluation import PseudoLabels, confusions
from ncdss_lib.method.inference import load_model
from ncdss_lib.method.training_loop import read_history
from ncdss_lib.runs.pipeline import Run
from ncdss_lib.system.folders import read_json
from ncdss_lib.viz.results import logits_of
from tests.conftest import opened


@pytest.fixture(params=["laptop", "paper"])
def run(request: pytest.FixtureRequest, finished: dict[str, Path], voc: Path) -> Run:
    return opened(voc, finished[request.param], request.param)


def counted(truth: np.ndarray, prediction: np.ndarray, columns: int) -> np.ndarray:
    table = np.zeros((21, columns), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255:
            table[t, p] += 1
    return table


def test_halves_and_original_size_are_counted_image_by_image(run):
    found = confusions(run, load_model(run, "eums"), 64)
    halves, original = np.zeros((2, 21, 26), np.int64), np.zeros((21, 26), np.int64)
    for position, (i, logits) in enumerate(sorted(logits_of(run, "eums", run.splits.val, 64).items())):
        prediction, truth = logits.argmax(0).numpy(), run.truth(i)
        halves[position % 2] += counted(resize_labels(truth, 64), prediction, 26)
        original += counted(truth, resize_labels(prediction, truth.shape), 26)
    np.testing.assert_array_equal(found.halves, halves)
    np.testing.assert_array_equal(found.original, original)
    assert original.sum() != halves.sum()  # the fake images are not 64 x 64


def test_each_protocol_names_the_matrix_that_it_comes_from(run):
    report = read_json(run.folder / "report.json")
    for name, model in report["models"].items():
        if name != "base":
            assert {"published", "hungarian", "majority", "argmax_iou", "held_out", "original_size"} <= set(model["protocols"])
            assert {k: model[k] for k in ("novel_miou", "per_class")} == {
                k: model["protocols"]["published"][k] for k in ("novel_miou", "per_class")
            }
            assert model["protocols"]["held_out"]["matching"]["rule"] == "held_out"
        for protocol in model["protocols"].values():
            assert (run.folder / protocol["confusion"]).is_file()
        total, half, original = (
            pd.read_csv(run.folder / f"evaluation/confusion_{name}{kind}.csv", index_col=0) for kind in ("", "_half", "_original")
        )
        assert list(total.index) == list(run.labels.names)
        assert (total.to_numpy() >= half.to_numpy()).all()
        assert total.to_numpy().sum() > half.to_numpy().sum() > 0
        assert original.to_numpy().sum() != total.to_numpy().sum()


def test_best_and_last_epoch_stand_side_by_side_where_epochs_are_scored(run):
    report = read_json(run.folder / "report.json")
    for name, model in report["models"].items():
        assert ("best_epoch" in model["protocols"]) == (run.recipe.name == "paper")
        if run.recipe.name == "paper":
            stage = {"base": "base_training", "eums": "eums"}.get(name, "basic_framework")
            scores = read_history(run.folder / stage, name)["val_miou"]
            best = model["protocols"]["best_epoch"]
            assert best["epoch"] == int(np.argmax(scores))
            if name != "base":
                assert best["novel_miou"] == pytest.approx(scores.max())
                assert best["novel_miou"] >= model["novel_miou"]


def test_tracking_the_best_epoch_leaves_the_last_one_to_the_next_stage(voc, finished, tmp_path):
    tracked = [f"{stage}.track_best=true" for stage in ("base_training", "basic_framework", "eums")]
    report = read_json(opened(voc, tmp_path / "run", "laptop", *tracked).write_report())
    plain = read_json(finished["laptop"] / "report.json")
    for name, model in report["models"].items():
        assert model["per_class"] == plain["models"][name]["per_class"]
        assert model["protocols"]["best_epoch"]["epoch"] in (0, 1, 2)
        if name != "base":
            assert model["protocols"]["best_epoch"]["novel_miou"] >= model["novel_miou"]


def test_quality_of_pseudo_labels_from_the_pixels_of_each_image():
    """Two base classes, two novel ones (3, 4), three clusters; counted pixel by pixel."""
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 5, 40), rng.integers(0, 3), rng.random(40) < 0.6) for _ in range(12)]  # truth, cluster, region
    images.append((np.zeros(40, int), 0, np.ones(40, bool)))  # nothing novel: no vote
    found = [PseudoLabels(np.zeros((5, 3), np.int64), []) for _ in range(2)]
    for position, (truth, cluster, region) in enumerate(images):
        counts = np.zeros((5, 3), np.int64)
        for t in truth[region]:
            counts[t, cluster] += 1
        found[position % 2].add(counts, 3)
    whole = found[0] + found[1]

    of_cluster = [Counter(t for truth, k, region in images if k == cluster for t in truth[region]) for cluster in range(3)]
    mapping = [3 if counter[3] >= counter[4] else 4 for counter in of_cluster]
    right = sum(counter[c] for counter, c in zip(of_cluster, mapping, strict=True))
    votes = [(k, Counter(t for t in truth[region] if t >= 3)) for truth, k, region in images]
    main = [(k, 3 if seen[3] >= seen[4] else 4) for k, seen in votes if seen]
    pure = sum(max(Counter(c for k, c in main if k == cluster).values(), default=0) for cluster in range(3))
    assert whole.majority(3).tolist() == mapping
    assert whole.quality(3) == {"images": 13, "correct_share": right / sum(c.total() for c in of_cluster), "purity": pure / len(main)}
    assert len(main) == 12


def test_without_truth_pseudo_labels_have_no_quality():
    unknown = PseudoLabels(np.zeros((5, 3), np.int64), [])
    unknown.add(np.zeros((5, 3), np.int64), 3)
    assert unknown.quality(3) == {"images": 1, "correct_share": None, "purity": None}


# --- the ablation -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ablated(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = opened(voc, tmp_path_factory.mktemp("ablation") / "run", "laptop", "ablation.enabled=true")
    run.write_report()
    return run


def test_every_row_of_the_ablation_is_trained_with_its_switches(ablated):
    report = read_json(ablated.folder / "report.json")
    assert list(report["ablation"]) == list(ablation.ROWS) == ["er", "er_dr", "er_st"]
    assert list(report["stages"])[-1] == "ablation"
    for row, entry in report["ablation"].items():
        folder = ablated.folder / "ablation" / row
        self_training, reassignment = "st" in row, "dr" in row
        assert (folder / "eums_teacher.safetensors").is_file() == self_training
        assert ("unclean" in read_history(folder, "eums")) == self_training
        assert (folder / "reassigned_1.csv").is_file() == reassignment
        assert (ablated.folder / entry["confusion"]).is_file()
        assert not list(folder.glob("*_checkpoint.pt"))
    assert len({entry["all_miou"] for entry in report["ablation"].values()} | {report["models"]["eums"]["all_miou"]}) > 1


def test_reassignment_without_self_training_goes_on_with_fewer_images(ablated):
    splits = pd.read_csv(ablated.folder / "ablation" / "er_dr" / "splits.csv", index_col="id")
    assert splits["epoch_1"].sum() == int(splits["epoch_0"].sum() * 0.5)
    assert not (splits["epoch_1"] & ~splits["epoch_0"]).any()


def test_the_ablation_is_made_once_and_only_when_asked_for(ablated, voc, finished):
    again = opened(voc, ablated.folder, "laptop", "ablation.enabled=true")
    again.write_report()
    assert all(again.skipped.values())
    assert "ablation" not in read_json(finished["laptop"] / "report.json")


def test_without_ranking_every_image_is_clean(voc, finished, tmp_path):
    run = opened(
        voc, tmp_path / "run", "laptop", "entropy_ranking.enabled=false", "eums.self_training=false", "eums.dynamic_reassignment=false"
    )  # fmt: skip
    report = read_json(run.write_report())
    assert report["pseudo_labels"]["clean"]["images"] == report["images"]["novel_used"]
    assert report["pseudo_labels"]["unclean"] == {"images": 0, "correct_share": None, "purity": None}
