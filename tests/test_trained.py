"""Trained networks from a checkpoint alone: the scores of the run itself, pictures segmented, and one message for each thing wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ncdss_lib import trained
from ncdss_lib.data.coco20i import COCO_CLASSES
from ncdss_lib.data.label_maps import resize_labels
from ncdss_lib.data.pascal5i import VOC_CLASSES
from ncdss_lib.data.views import resize_image
from ncdss_lib.pipeline import open_run
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import read_json, write_json
from ncdss_lib.trained import evaluate, open_trained, predict, score_text
from ncdss_lib.viz.palette import class_look, cluster_look, to_hex
from tests.conftest import TINY_LAPTOP, TINY_PAPER, TRAININGS
from tests.models.test_checkpoints import OUTPUTS, Reference

FOLD = 1  # its novel classes are not the last ones, so that wrong names show
SMALL = ["data.size=64", "evaluation.size=64", "data.workers=0", "compute.precision=fp32"]
COUNTS = {"total": "", "half": "_half", "original": "_original"}


@pytest.fixture(scope="module")
def runs(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each recipe; read only."""
    root = tmp_path_factory.mktemp("runs")
    small = [*TINY_PAPER, "data.size=32", "data.target_size=32", "evaluation.size=32"]
    slow = [f"{stage}.lr=0.001" for stage in TRAININGS]  # still nearly random, the networks predict many classes
    for recipe, overrides in (("laptop", TINY_LAPTOP), ("paper", [*small, *slow])):
        open_run("pascal5i", str(voc), FOLD, 0, recipe, str(root / recipe), overrides).write_report()
    return {recipe: root / recipe for recipe in ("laptop", "paper")}


@pytest.fixture
def laptop(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the laptop run that a test may change."""
    return Path(shutil.copytree(runs["laptop"], tmp_path / "laptop"))


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {network: Reference(seed).eval() for network, seed in (("student", 1), ("teacher", 2))}


@pytest.fixture(scope="module")
def released(references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released EUMS checkpoint with random weights, as test_checkpoints.py makes it; PASCAL-5i with K = 10."""
    state = {"queue": torch.zeros(256, 1280)}
    for prefix, network in (("model_q", "student"), ("model_k", "teacher")):
        for name, tensor in references[network].state_dict().items():
            state[f"{prefix}.{name.replace('decoder.4', 'head')}"] = tensor
    path = tmp_path_factory.mktemp("released") / "eums_f1.pth.tar"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different size and format, and a text."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("wide.jpg", (40, 90)), ("tall.PNG", (100, 50)), ("grey.webp", (33, 34))):
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        (picture.convert("L") if name.startswith("grey") else picture).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def refused(match: str, function, *args, **options) -> None:
    with pytest.raises(InputError, match=match) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)


def own_counts(run: Path, stem: str) -> dict[str, np.ndarray]:
    return {
        kind: pd.read_csv(run / "evaluation" / f"confusion_{stem}{suffix}.csv", index_col=0).to_numpy() for kind, suffix in COUNTS.items()
    }


def counts(result: dict) -> dict[str, np.ndarray]:
    halves = np.array(result["confusion"]["halves"])
    return {"total": halves.sum(0), "half": halves[0], "original": np.array(result["confusion"]["original_size"])}


# --- evaluation: ours -------------------------------------------------------------------------------------------------------------------


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
    result = evaluate(run / f"{file}.safetensors", "pascal5i", str(voc), FOLD)
    for kind, expected in own_counts(run, stem).items():
        np.testing.assert_array_equal(counts(result)[kind], expected)
    assert (counts(result)["total"].sum(0) > 0).sum() > 5  # were one class predicted everywhere, equal counts would show little
    entry = read_json(run / "report.json")["models"][stem.removesuffix("_best")]
    if stem.endswith("_best"):
        assert {**entry["protocols"]["best_epoch"], **result["protocols"]["published"]} == entry["protocols"]["best_epoch"]
        return
    for protocol in {*entry["protocols"]} & {*result["protocols"]}:
        assert {k: v for k, v in entry["protocols"][protocol].items() if k != "confusion"} == result["protocols"][protocol]
    assert (result["novel_miou"], result["per_class"], result["clusters"]) == (entry["novel_miou"], entry["per_class"], entry["clusters"])


def test_a_laptop_checkpoint_gets_the_counts_of_its_run_up_to_half_precision(runs, voc):
    """The run scored cached features in half precision, here the images go through the encoder: under 0.2 % of the pixels change."""
    run = runs["laptop"]
    result = evaluate(run / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD, network="teacher")
    assert (result["network"], Path(result["checkpoint"]).name) == ("teacher", "eums_teacher.safetensors")
    for kind, expected in own_counts(run, "eums").items():
        assert counts(result)[kind].sum() == expected.sum()
        assert (expected.sum(0) > 0).sum() > 2
        assert np.abs(counts(result)[kind] - expected).sum() / 2 < 0.002 * expected.sum()
    student = evaluate(run / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD)
    assert student["network"] == "student"
    assert student["confusion"] != result["confusion"]


def test_the_result_is_written_as_json_and_printed_with_names(runs, voc, tmp_path):
    out = tmp_path / "new" / "scores.json"
    result = evaluate(runs["paper"] / "eums" / "eums.safetensors", "pascal5i", str(voc), FOLD, out=out)
    assert json.loads(json.dumps(result)) == read_json(out)
    text = score_text(result)
    for part in ("bus (novel)", "| aeroplane", "one-to-one", "original size", "held out", "cluster 10 is", "8 validation images"):
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
    result = evaluate(file, "pascal5i", str(data), FOLD, overrides=["data.val_masks=SegmentationClass"])
    assert counts(result)["total"].sum() == 0
    assert result["novel_miou"] is None
    assert "SegmentationClass" in result["masks"]


# --- evaluation: released ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_a_released_checkpoint_is_scored_as_its_own_network_predicts(released, references, voc, network):
    result = evaluate(released, "pascal5i", str(voc), FOLD, overrides=SMALL, network=network)
    assert (result["layout"], result["network"], result["clusters"]) == ("released EUMS", network, 10)
    run = open_run("pascal5i", str(voc), FOLD, 0, "paper", "unused", SMALL)
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
    for found, own in ((counts(result)["total"], expected), (counts(result)["original"], at_original)):
        assert found.sum() == own.sum()
        assert np.abs(found - own).sum() / 2 <= 0.001 * own.sum()  # rounding decides a few ties of random weights


def test_clusters_follow_from_the_outputs(released):
    assert open_trained(released, dataset="pascal5i", fold=FOLD, overrides=SMALL, clusters=10).clusters == 10
    refused("26 outputs, so K = 10 with 15 base classes, not the K = 5", open_trained, released, dataset="pascal5i", fold=FOLD, clusters=5)
    refused("26 outputs, but background and 60 base classes need 61", open_trained, released, dataset="coco20i", fold=0)


def test_with_fewer_clusters_than_classes_some_classes_have_none(references, voc, tmp_path):
    state = references["student"].state_dict()
    narrow = {name: tensor[:18] if name.startswith("decoder.4") else tensor for name, tensor in state.items()}
    torch.save(narrow, tmp_path / "k2.pth")
    found = evaluate(tmp_path / "k2.pth", "pascal5i", str(voc), FOLD, overrides=SMALL)
    matched = [name for name in found["matching"]["cluster_to_class"].values() if name]
    assert found["clusters"] == len(set(matched)) == 2
    assert {found["per_class"][name] for name in found["classes"]["novel"] if name not in matched} <= {0.0, None}


# --- prediction of one image ------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_clusters_take_the_classes_of_the_runs_published_matching(runs):
    """Fold 1: bus, car, cat, chair and cow are novel."""
    net = open_trained(runs["laptop"] / "eums" / "eums_teacher.safetensors")
    matching = read_json(runs["laptop"] / "report.json")["models"]["eums"]["matching"]["cluster_to_class"]
    assert net.cluster_to_class == {int(k): name for k, name in matching.items()}
    assert net.names == ("background", *VOC_CLASSES[:5], *VOC_CLASSES[10:], *VOC_CLASSES[5:10])
    image = np.random.default_rng(1).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    labels, probability = net.predict_image(image)
    assert (labels.dtype, labels.shape, probability.dtype, probability.shape) == (np.uint8, (50, 80), np.float32, (50, 80))
    logits = net.model(torch.from_numpy(resize_image(image, 64)).permute(2, 0, 1)[None], 64)[0]
    wanted = np.array([net.names.index(matching[str(i - 15)]) if i > 15 else i for i in range(26)])
    np.testing.assert_array_equal(labels, resize_labels(wanted[logits.argmax(0).numpy()].astype(np.uint8), (50, 80)))
    np.testing.assert_allclose(probability, resize_labels(logits.softmax(0).amax(0).numpy(), (50, 80)), rtol=1e-4)


@pytest.mark.parametrize("file", ["eums/eums.safetensors", "basic_framework/basic_oc.safetensors"])
def test_names_are_only_given_to_the_network_that_the_run_scored(runs, file):
    """The laptop recipe scores the teacher; the student's clusters have no matching of their own."""
    net = open_trained(runs["laptop"] / file)
    scored = not file.startswith("eums")
    assert (net.cluster_to_class is not None) == scored
    assert net.names[16:] == (VOC_CLASSES[5:10] if scored else tuple(f"cluster {k}" for k in range(1, 11)))


def test_the_best_epoch_has_its_own_matching(runs):
    best = open_trained(runs["paper"] / "eums" / "eums_best.safetensors")
    matching = read_json(runs["paper"] / "report.json")["models"]["eums"]["protocols"]["best_epoch"]["matching"]["cluster_to_class"]
    assert best.cluster_to_class == {int(k): name for k, name in matching.items()}


def test_a_report_that_is_older_than_the_checkpoint_names_no_cluster(laptop):
    report = laptop / "report.json"
    os.utime(report, ns=(0, (laptop / "eums" / "manifest.json").stat().st_mtime_ns - 1))
    assert open_trained(laptop / "eums" / "eums_teacher.safetensors").names[16] == "cluster 1"


def test_a_row_of_the_ablation_has_the_matching_of_its_row(laptop):
    place = laptop / "ablation" / "er"
    place.mkdir(parents=True)
    shutil.copy(laptop / "eums" / "manifest.json", place.parent)
    shutil.copy(laptop / "eums" / "eums.safetensors", place)  # no teacher: without self-training there is none
    report = read_json(laptop / "report.json")
    report["ablation"] = {"er": {**report["models"]["eums"], "matching": {"cluster_to_class": {str(k): "cow" for k in range(1, 11)}}}}
    write_json(laptop / "report.json", report)
    assert open_trained(place / "eums.safetensors").cluster_to_class == dict.fromkeys(range(1, 11), "cow")


def test_a_run_on_images_of_ones_own_brings_its_class_names(laptop):
    report = read_json(laptop / "report.json")
    report |= {"dataset": "folder", "fold": 0, "classes": {"base": [f"thing {i}" for i in range(15)], "novel": ["novel 1", "novel 2"]}}
    report["models"]["eums"]["matching"]["cluster_to_class"] = {str(k): None for k in range(1, 11)}  # nobody knows the novel classes
    write_json(laptop / "report.json", report)
    net = open_trained(laptop / "eums" / "eums_teacher.safetensors")
    assert net.names == ("background", *(f"thing {i}" for i in range(15)), *(f"cluster {k}" for k in range(1, 11)))


def test_a_base_model_knows_no_novel_class(runs):
    net = open_trained(runs["laptop"] / "base_training" / "base.safetensors")
    assert (net.clusters, net.network) == (0, None)
    assert net.names == ("background", *VOC_CLASSES[:5], *VOC_CLASSES[10:])


def test_an_unfinished_run_needs_to_be_told_its_classes(laptop):
    (laptop / "report.json").unlink()
    file = laptop / "eums" / "eums_teacher.safetensors"
    refused("does not say what its classes are.*--dataset pascal5i --fold 0", open_trained, file)
    net = open_trained(file, dataset="pascal5i", fold=FOLD)
    assert (net.names[1], net.names[16], net.size) == ("aeroplane", "cluster 1", 64)


def test_a_released_checkpoint_needs_to_be_told_its_classes(released):
    refused("does not say what its classes are", open_trained, released)
    names = open_trained(released, dataset="pascal5i", fold=FOLD).names
    assert names == ("background", *VOC_CLASSES[:5], *VOC_CLASSES[10:], *(f"cluster {k}" for k in range(1, 11)))


def test_coco_needs_no_data_folder_for_its_names(references, tmp_path):
    state = references["student"].state_dict()
    wide = {
        name: tensor.repeat(4, *[1] * (tensor.ndim - 1))[:101] if name.startswith("decoder.4") else tensor for name, tensor in state.items()
    }
    torch.save(wide, tmp_path / "coco.pth")
    net = open_trained(tmp_path / "coco.pth", dataset="coco20i", fold=3)
    assert net.names == ("background", *COCO_CLASSES[:60], *(f"cluster {k}" for k in range(1, 41)))


# --- prediction of pictures -------------------------------------------------------------------------------------------------------------


def test_pictures_are_segmented(runs, pictures, tmp_path):
    file, out = runs["laptop"] / "eums" / "eums_teacher.safetensors", tmp_path / "out"
    text = predict(file, pictures, out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        *("legend.csv", "legend.png", "manifest.json", "masks/grey.png", "masks/tall.png", "masks/wide.png"),
        *("overlays/grey.jpg", "overlays/tall.jpg", "overlays/wide.jpg"),
    ]
    net = open_trained(file)
    with Image.open(pictures / "tall.PNG") as picture, Image.open(out / "masks" / "tall.png") as mask:
        assert (mask.mode, mask.size) == ("P", picture.size)
        labels = net.predict_image(np.array(picture))[0]
        np.testing.assert_array_equal(np.array(mask), labels)
        np.testing.assert_array_equal(np.array(mask.convert("RGB")), class_look(net.labels).colours[labels])
    with Image.open(out / "overlays" / "wide.jpg") as overlay:
        assert overlay.size == (90, 40)
    with (out / "legend.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(net.names)
    assert [(int(row["id"]), row["colour"]) for row in rows] == [(i, to_hex(class_look(net.labels).colours[i])) for i in range(21)]
    with Image.open(out / "legend.png") as legend:
        seen = {to_hex(colour) for colour in np.array(legend.convert("RGB")).reshape(-1, 3)}
    assert {row["colour"] for row in rows} <= seen
    assert "3 pictures" in text
    assert str(out) in text
    shares = [float(line.split("|")[2]) for line in text.splitlines() if line.startswith("| ") and "%" not in line]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def test_clusters_without_a_class_have_colours_and_names_of_their_own(released, pictures, tmp_path):
    out = tmp_path / "out"
    predict(released, pictures / "wide.jpg", out, dataset="pascal5i", fold=FOLD, overrides=SMALL, network="teacher")
    with (out / "legend.csv").open() as file:
        rows = list(csv.DictReader(file))
    look = cluster_look(open_trained(released, dataset="pascal5i", fold=FOLD, overrides=SMALL).labels, 10)
    assert [row["name"] for row in rows][15:18] == ["tvmonitor", "cluster 1", "cluster 2"]
    assert [row["colour"] for row in rows] == [to_hex(look.colours[i]) for i in range(OUTPUTS)]
    assert read_json(out / "manifest.json")["network"] == "teacher"
    assert [p.name for p in (out / "masks").iterdir()] == ["wide.png"]


def test_a_turned_photo_is_segmented_upright(runs, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for viewing
    Image.fromarray(np.full((30, 60, 3), 90, np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    predict(runs["laptop"] / "eums" / "eums.safetensors", tmp_path / "turned.jpg", tmp_path / "out")
    for name in ("masks/turned.png", "overlays/turned.jpg"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (30, 60)


def test_an_empty_folder_may_be_given_and_another_not(runs, pictures, tmp_path):
    file, out = runs["laptop"] / "eums" / "eums.safetensors", tmp_path / "out"
    out.mkdir()
    predict(file, pictures / "wide.jpg", out)
    before = sorted(out.rglob("*"))
    refused("exists already and is not an empty folder", predict, file, pictures, out)
    refused("exists already and is not an empty folder", predict, file, pictures, out / "legend.csv")
    assert sorted(out.rglob("*")) == before


def test_a_broken_picture_is_named_and_nothing_is_written(runs, pictures, tmp_path):
    file, out, images = runs["laptop"] / "eums" / "eums.safetensors", tmp_path / "out", tmp_path / "images"
    shutil.copytree(pictures, images)
    whole = (images / "wide.jpg").read_bytes()
    (images / "wide.jpg").write_bytes(whole[: len(whole) // 2])
    refused("wide.jpg cannot be read", predict, file, images, out)
    (images / "wide.jpg").write_text("no picture at all")
    refused("wide.jpg cannot be read", predict, file, images, out)
    (images / "wide.jpg").unlink()
    shutil.copy(images / "tall.PNG", images / "tall.bmp")
    refused("tall.PNG and tall.bmp", predict, file, images, out)
    assert {p.name for p in tmp_path.iterdir()} == {"images"}


def test_other_failures_leave_nothing_either(runs, pictures, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(trained, "_write_legend", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(runs["laptop"] / "eums" / "eums.safetensors", pictures, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_picture_is_refused(runs, tmp_path):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    (tmp_path / "empty").mkdir()
    refused("holds no picture", predict, file, tmp_path / "empty", tmp_path / "out")
    refused("absent is neither a folder nor a file", predict, file, tmp_path / "absent", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_several_processes_are_refused(runs, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused("without torchrun", predict, runs["laptop"] / "eums" / "eums.safetensors", pictures, tmp_path / "out")


# --- what is wrong ----------------------------------------------------------------------------------------------------------------------


def test_classes_of_another_fold_are_refused(runs, voc):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    refused("trained on pascal5i, fold 1, .*fold 0. Give --dataset pascal5i --fold 1", evaluate, file, "pascal5i", str(voc), 0)
    refused("trained on pascal5i, fold 1", open_trained, file, dataset="toyscenes")
    refused("fold 7 does not exist in pascal5i", open_trained, file, dataset="pascal5i", fold=7)
    refused("unknown data set 'pascal'", open_trained, file, dataset="pascal")


def test_a_checkpoint_without_its_manifest_is_refused(runs, tmp_path):
    shutil.copy(runs["laptop"] / "eums" / "eums.safetensors", tmp_path)
    refused("manifest.json of its stage is not beside it", open_trained, tmp_path / "eums.safetensors")


def test_tensors_of_another_shape_are_refused(laptop):
    file = laptop / "eums" / "eums.safetensors"
    refused(r"head.0.weight has shape .* instead of", open_trained, file, overrides=["model.head_channels=8"])
    state = load_file(file)
    save_file({name: tensor for name, tensor in state.items() if name != "head.3.weight"}, file)
    refused("head.3.weight is missing", open_trained, file)


def test_a_damaged_run_folder_is_refused(laptop):
    file = laptop / "eums" / "eums.safetensors"
    (laptop / "report.json").write_text('{"schema": 9}')
    refused("schema 9", open_trained, file)
    (laptop / "report.json").write_text("{")
    refused("report.json is not valid JSON", open_trained, file)


def test_a_teacher_is_refused_where_there_is_none(runs):
    refused("one network", open_trained, runs["laptop"] / "basic_framework" / "basic.safetensors", network="teacher")
    refused("unknown network 'both'", open_trained, runs["laptop"] / "eums" / "eums.safetensors", network="both")


def test_a_folder_is_no_place_for_scores(runs, voc, tmp_path):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    refused("is a folder. Expected a file name", evaluate, file, "pascal5i", str(voc), FOLD, out=tmp_path)
