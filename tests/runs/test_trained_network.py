"""A network from its checkpoint alone: its classes, and one message for each thing wrong."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.data.coco20i import COCO_CLASSES
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import VOC_CLASSES
from ncdss_lib.runs.evaluate_checkpoint import evaluate_checkpoint
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.system.folders import read_json, write_json
from tests.runs.conftest import FOLD, SMALL, refused


def test_clusters_follow_from_the_outputs(released):
    assert open_checkpoint(released, dataset="pascal5i", fold=FOLD, overrides=SMALL, clusters=10).clusters == 10
    refused(
        "26 outputs, so K = 10 with 15 base classes, not the K = 5",
        open_checkpoint,
        released,
        dataset="pascal5i",
        fold=FOLD,
        clusters=5,
    )
    refused(
        "26 outputs, but background and 60 base classes need 61",
        open_checkpoint,
        released,
        dataset="coco20i",
        fold=0,
    )


@torch.inference_mode()
def test_clusters_take_the_classes_of_the_runs_published_matching(runs):
    """Fold 1: bus, car, cat, chair and cow are novel."""
    net = open_checkpoint(runs["laptop"] / "eums" / "eums_teacher.safetensors")
    matching = read_json(runs["laptop"] / "report.json")["models"]["eums"]["matching"]["cluster_to_class"]
    assert net.cluster_to_class == {int(k): name for k, name in matching.items()}
    assert net.names == ("background", *VOC_CLASSES[:5], *VOC_CLASSES[10:], *VOC_CLASSES[5:10])
    image = np.random.default_rng(1).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    labels, probability = net.predict_image(image)
    assert (labels.dtype, labels.shape, probability.dtype, probability.shape) == (
        np.uint8,
        (50, 80),
        np.float32,
        (50, 80),
    )
    logits = net.model(torch.from_numpy(resize_image(image, 64)).permute(2, 0, 1)[None], 64)[0]
    wanted = np.array([net.names.index(matching[str(i - 15)]) if i > 15 else i for i in range(26)])
    np.testing.assert_array_equal(labels, resize_labels(wanted[logits.argmax(0).numpy()].astype(np.uint8), (50, 80)))
    np.testing.assert_allclose(probability, resize_labels(logits.softmax(0).amax(0).numpy(), (50, 80)), rtol=1e-4)


@pytest.mark.parametrize("file", ["eums/eums.safetensors", "basic_framework/basic_oc.safetensors"])
def test_names_are_only_given_to_the_network_that_the_run_scored(runs, file):
    """The laptop recipe scores the teacher; the student's clusters have no matching."""
    net = open_checkpoint(runs["laptop"] / file)
    scored = not file.startswith("eums")
    assert (net.cluster_to_class is not None) == scored
    assert net.names[16:] == (VOC_CLASSES[5:10] if scored else tuple(f"cluster {k}" for k in range(1, 11)))


def test_the_best_epoch_has_its_own_matching(runs):
    best = open_checkpoint(runs["paper"] / "eums" / "eums_best.safetensors")
    matching = read_json(runs["paper"] / "report.json")["models"]["eums"]["protocols"]["best_epoch"]["matching"]["cluster_to_class"]
    assert best.cluster_to_class == {int(k): name for k, name in matching.items()}


def test_a_report_that_is_older_than_the_checkpoint_names_no_cluster(laptop):
    report = laptop / "report.json"
    os.utime(report, ns=(0, (laptop / "eums" / "manifest.json").stat().st_mtime_ns - 1))
    assert open_checkpoint(laptop / "eums" / "eums_teacher.safetensors").names[16] == "cluster 1"


def test_a_row_of_the_ablation_has_the_matching_of_its_row(laptop):
    place = laptop / "ablation" / "er"
    place.mkdir(parents=True)
    shutil.copy(laptop / "eums" / "manifest.json", place.parent)
    shutil.copy(laptop / "eums" / "eums.safetensors", place)  # no teacher: without self-training there is none
    report = read_json(laptop / "report.json")
    report["ablation"] = {
        "er": {
            **report["models"]["eums"],
            "matching": {"cluster_to_class": {str(k): "cow" for k in range(1, 11)}},
        }
    }
    write_json(laptop / "report.json", report)
    assert open_checkpoint(place / "eums.safetensors").cluster_to_class == dict.fromkeys(range(1, 11), "cow")


def test_a_run_on_images_of_ones_own_brings_its_class_names(laptop):
    report = read_json(laptop / "report.json")
    report |= {
        "dataset": "folder",
        "fold": 0,
        "classes": {"base": [f"thing {i}" for i in range(15)], "novel": ["novel 1", "novel 2"]},
    }
    report["models"]["eums"]["matching"]["cluster_to_class"] = {str(k): None for k in range(1, 11)}  # nobody knows the novel classes
    write_json(laptop / "report.json", report)
    net = open_checkpoint(laptop / "eums" / "eums_teacher.safetensors")
    assert net.names == (
        "background",
        *(f"thing {i}" for i in range(15)),
        *(f"cluster {k}" for k in range(1, 11)),
    )


def test_a_base_model_knows_no_novel_class(runs):
    net = open_checkpoint(runs["laptop"] / "base_training" / "base.safetensors")
    assert (net.clusters, net.checkpoint.network) == (0, None)
    assert net.names == ("background", *VOC_CLASSES[:5], *VOC_CLASSES[10:])


def test_an_unfinished_run_needs_to_be_told_its_classes(laptop):
    (laptop / "report.json").unlink()
    file = laptop / "eums" / "eums_teacher.safetensors"
    refused("does not say what its classes are.*--dataset pascal5i --fold 0", open_checkpoint, file)
    net = open_checkpoint(file, dataset="pascal5i", fold=FOLD)
    assert (net.names[1], net.names[16], net.size) == ("aeroplane", "cluster 1", 64)


def test_a_released_checkpoint_needs_to_be_told_its_classes(released):
    refused("does not say what its classes are", open_checkpoint, released)
    names = open_checkpoint(released, dataset="pascal5i", fold=FOLD).names
    assert names == (
        "background",
        *VOC_CLASSES[:5],
        *VOC_CLASSES[10:],
        *(f"cluster {k}" for k in range(1, 11)),
    )


def test_coco_needs_no_data_folder_for_its_names(references, tmp_path):
    state = references["student"].state_dict()
    wide = {
        name: tensor.repeat(4, *[1] * (tensor.ndim - 1))[:101] if name.startswith("decoder.4") else tensor for name, tensor in state.items()
    }
    torch.save(wide, tmp_path / "coco.pth")
    net = open_checkpoint(tmp_path / "coco.pth", dataset="coco20i", fold=3)
    assert net.names == ("background", *COCO_CLASSES[:60], *(f"cluster {k}" for k in range(1, 41)))


# --- what is wrong -------------------------------------------------------------------------------


def test_classes_of_another_fold_are_refused(runs, voc):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    refused(
        "trained on pascal5i, fold 1, .*fold 0. Give --dataset pascal5i --fold 1",
        evaluate_checkpoint,
        file,
        "pascal5i",
        str(voc),
        0,
    )
    refused("trained on pascal5i, fold 1", open_checkpoint, file, dataset="toyscenes")
    refused("fold 7 does not exist in pascal5i", open_checkpoint, file, dataset="pascal5i", fold=7)
    refused("unknown data set 'pascal'", open_checkpoint, file, dataset="pascal")


def test_a_checkpoint_without_its_manifest_is_refused(runs, tmp_path):
    shutil.copy(runs["laptop"] / "eums" / "eums.safetensors", tmp_path)
    refused(
        "manifest.json of its stage is not beside it",
        open_checkpoint,
        tmp_path / "eums.safetensors",
    )


def test_tensors_of_another_shape_are_refused(laptop):
    file = laptop / "eums" / "eums.safetensors"
    refused(
        r"head.0.weight has shape .* instead of",
        open_checkpoint,
        file,
        overrides=["model.head_channels=8"],
    )
    state = load_file(file)
    save_file({name: tensor for name, tensor in state.items() if name != "head.3.weight"}, file)
    (file.parent / "checksums.sha256").unlink()  # a file of one's own, then
    refused("head.3.weight is missing", open_checkpoint, file)


def test_a_damaged_run_folder_is_refused(laptop):
    file = laptop / "eums" / "eums.safetensors"
    (laptop / "report.json").write_text('{"schema": 9}')
    refused("schema 9", open_checkpoint, file)
    (laptop / "report.json").write_text("{")
    refused("report.json is not valid JSON", open_checkpoint, file)


def test_a_teacher_is_refused_where_there_is_none(runs):
    refused(
        "one network",
        open_checkpoint,
        runs["laptop"] / "basic_framework" / "basic.safetensors",
        network="teacher",
    )
    refused(
        "unknown network 'both'",
        open_checkpoint,
        runs["laptop"] / "eums" / "eums.safetensors",
        network="both",
    )
