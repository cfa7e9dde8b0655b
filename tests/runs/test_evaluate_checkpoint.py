"""A checkpoint alone gets the scores of the run itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.runs.evaluate_checkpoint import evaluate_checkpoint, evaluation_tables
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.folders import read_json
from tests.models.test_checkpoints import OUTPUTS
from tests.runs.conftest import FOLD, SMALL, refused

COUNTS = {"total": "", "half": "_half", "original": "_original"}


def own_counts(run: Path, stem: str) -> dict[str, np.ndarray]:
    return {
        kind: pd.read_csv(run / "evaluation" / f"confusion_{stem}{suffix}.csv", index_col=0).to_numpy() for kind, suffix in COUNTS.items()
    }


def counts(result: dict) -> dict[str, np.ndarray]:
    halves = np.array(result["confusion"]["halves"])
    return {
        "total": halves.sum(0),
        "half": halves[0],
        "original": np.array(result["confusion"]["original_size"]),
    }


# --- ours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("eums/eums", "eums"),
        ("eums/eums_best", "eums_best"),
        ("basic_framework/basic", "basic"),
        ("base_training/base", "base"),
    ],
)
def test_a_paper_checkpoint_gets_exactly_the_counts_and_scores_of_its_run(runs, voc, file, stem):
    run = runs["paper"]
    result = evaluate_checkpoint(run / f"{file}.safetensors", "pascal5i", str(voc), FOLD)
    for kind, expected in own_counts(run, stem).items():
        np.testing.assert_array_equal(counts(result)[kind], expected)
    assert (counts(result)["total"].sum(0) > 0).sum() > 5  # were one class predicted everywhere, equal counts would show little
    entry = read_json(run / "report.json")["models"][stem.removesuffix("_best")]
    if stem.endswith("_best"):
        assert {**entry["protocols"]["best_epoch"], **result["protocols"]["published"]} == entry["protocols"]["best_epoch"]
        return
    for protocol in {*entry["protocols"]} & {*result["protocols"]}:
        assert {k: v for k, v in entry["protocols"][protocol].items() if k != "confusion"} == result["protocols"][protocol]
    assert (result["novel_miou"], result["per_class"], result["clusters"]) == (
        entry["novel_miou"],
        entry["per_class"],
        entry["clusters"],
    )


def test_a_laptop_checkpoint_gets_the_counts_of_its_run_up_to_half_precision(runs, voc):
    """The run scored cached features in half precision, here images go through the encoder.

    Under 0.2 % of the pixels change.
    """
    run = runs["laptop"]
    result = evaluate_checkpoint(run / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD, network="teacher")
    assert (result["network"], Path(result["checkpoint"]).name) == (
        "teacher",
        "eums_teacher.safetensors",
    )
    for kind, expected in own_counts(run, "eums").items():
        assert counts(result)[kind].sum() == expected.sum()
        assert (expected.sum(0) > 0).sum() > 2
        assert np.abs(counts(result)[kind] - expected).sum() / 2 < 0.002 * expected.sum()
    student = evaluate_checkpoint(run / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD)
    assert student["network"] == "student"
    assert student["confusion"] != result["confusion"]


def test_the_result_is_written_as_json_and_printed_with_names(runs, voc, tmp_path):
    out = tmp_path / "new" / "scores.json"
    result = evaluate_checkpoint(runs["paper"] / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD, out=out)
    assert json.loads(json.dumps(result)) == read_json(out)
    text = evaluation_tables(result)
    for part in (
        "bus (novel)",
        "| aeroplane",
        "one-to-one",
        "original size",
        "held out",
        "cluster 10 is",
        "8 validation images",
    ):
        assert part in text
    assert "aeroplane (novel)" not in text
    assert "EUMS 60.11" in text  # the paper's fold 1
    row = next(line for line in text.splitlines() if line.startswith("| published matching "))
    assert f" {100 * result['base_miou']:.1f} " in row


def test_the_masks_of_validation_can_be_chosen(runs, voc, tmp_path):
    data = Path(shutil.copytree(voc, tmp_path / "voc"))
    shutil.copytree(data / "SegmentationClassAug", data / "SegmentationClass")
    for path in (data / "SegmentationClass").iterdir():  # all to be ignored
        with Image.open(path) as picture:
            mask = Image.fromarray(np.full(np.array(picture).shape, 255, np.uint8))
        mask.save(path)
    file = runs["paper"] / "eums" / "eums.safetensors"
    result = evaluate_checkpoint(file, "pascal5i", str(data), FOLD, overrides=["data.val_masks=SegmentationClass"])
    assert counts(result)["total"].sum() == 0
    assert result["novel_miou"] is None
    assert "SegmentationClass" in result["masks"]


# --- released ------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_a_released_checkpoint_is_scored_as_its_own_network_predicts(released, references, voc, network):
    result = evaluate_checkpoint(released, "pascal5i", str(voc), FOLD, overrides=SMALL, network=network)
    assert (result["layout"], result["network"], result["clusters"]) == (
        "released EUMS",
        network,
        10,
    )
    few = [*SMALL, "eums.batch_size=2"]
    run = open_run("pascal5i", str(voc), FOLD, 0, "paper", "unused", few)
    expected, at_original = np.zeros((21, OUTPUTS), int), np.zeros((21, OUTPUTS), int)
    for i in run.splits.val:
        inputs = torch.from_numpy(resize_image(run.data.image(i), 64)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            prediction = F.interpolate(references[network](inputs), (64, 64), mode="bilinear").argmax(1)[0].numpy()
        truth = run.truth(i)
        for table, y, p in (
            (expected, resize_labels(truth, 64), prediction),
            (at_original, truth, resize_labels(prediction, truth.shape)),
        ):
            np.add.at(table, (y[y != 255], p[y != 255]), 1)
    for found, own in (
        (counts(result)["total"], expected),
        (counts(result)["original"], at_original),
    ):
        assert found.sum() == own.sum()
        assert np.abs(found - own).sum() / 2 <= 0.001 * own.sum()  # rounding decides a few ties of random weights


def test_with_fewer_clusters_than_classes_some_classes_have_none(references, voc, tmp_path):
    state = references["student"].state_dict()
    narrow = {name: tensor[:18] if name.startswith("decoder.4") else tensor for name, tensor in state.items()}
    torch.save(narrow, tmp_path / "k2.pth")
    found = evaluate_checkpoint(tmp_path / "k2.pth", "pascal5i", str(voc), FOLD, overrides=SMALL)
    matched = [name for name in found["matching"]["cluster_to_class"].values() if name]
    assert found["clusters"] == len(set(matched)) == 2
    assert {found["per_class"][name] for name in found["classes"]["novel"] if name not in matched} <= {0.0, None}


# --- what is wrong -------------------------------------------------------------------------------


def test_a_folder_is_no_place_for_scores(runs, voc, tmp_path):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    refused(
        "is a folder. Expected a file name",
        evaluate_checkpoint,
        file,
        "pascal5i",
        str(voc),
        FOLD,
        out=tmp_path,
    )
