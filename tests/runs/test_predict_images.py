"""Images are segmented all or not at all, with masks, overlays and a legend."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from ncdss_lib.data.palette import class_look, cluster_look, to_hex
from ncdss_lib.runs.predict_images import predict_images
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.system.folders import read_json
from tests.models.test_checkpoints import OUTPUTS
from tests.runs.conftest import FOLD, SMALL, refused


def test_pictures_are_segmented(runs, pictures, tmp_path):
    file, out = runs["laptop"] / "eums" / "eums_teacher.safetensors", tmp_path / "out"
    text = predict_images(file, pictures, out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        *(
            "legend.csv",
            "legend.png",
            "manifest.json",
            "masks/grey.png",
            "masks/tall.png",
            "masks/wide.png",
        ),
        *("overlays/grey.jpg", "overlays/tall.jpg", "overlays/wide.jpg"),
    ]
    net = open_checkpoint(file)
    with (
        Image.open(pictures / "tall.PNG") as picture,
        Image.open(out / "masks" / "tall.png") as mask,
    ):
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
    assert f"{pictures}: left out files of other formats (1)" in text
    assert str(out) in text
    shares = [float(line.split("|")[2]) for line in text.splitlines() if line.startswith("| ") and "%" not in line]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def test_clusters_without_a_class_have_colours_and_names_of_their_own(released, pictures, tmp_path):
    out = tmp_path / "out"
    predict_images(
        released,
        pictures / "wide.jpg",
        out,
        dataset="pascal5i",
        fold=FOLD,
        overrides=SMALL,
        network="teacher",
    )
    with (out / "legend.csv").open() as file:
        rows = list(csv.DictReader(file))
    look = cluster_look(open_checkpoint(released, dataset="pascal5i", fold=FOLD, overrides=SMALL).labels, 10)
    assert [row["name"] for row in rows][15:18] == ["tvmonitor", "cluster 1", "cluster 2"]
    assert [row["colour"] for row in rows] == [to_hex(look.colours[i]) for i in range(OUTPUTS)]
    assert read_json(out / "manifest.json")["network"] == "teacher"
    assert [p.name for p in (out / "masks").iterdir()] == ["wide.png"]


def test_a_turned_photo_is_segmented_upright(runs, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for viewing
    Image.fromarray(np.full((30, 60, 3), 90, np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    predict_images(runs["laptop"] / "eums" / "eums.safetensors", tmp_path / "turned.jpg", tmp_path / "out")
    for name in ("masks/turned.png", "overlays/turned.jpg"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (30, 60)


def test_an_empty_folder_may_be_given_and_another_not(runs, pictures, tmp_path):
    file, out = runs["laptop"] / "eums" / "eums.safetensors", tmp_path / "out"
    out.mkdir()
    predict_images(file, pictures / "wide.jpg", out)
    before = sorted(out.rglob("*"))
    refused("exists already and is not an empty folder", predict_images, file, pictures, out)
    refused(
        "is a file. Expected a folder",
        predict_images,
        file,
        pictures,
        out / "legend.csv",
    )
    assert sorted(out.rglob("*")) == before


def test_a_broken_picture_is_named_and_nothing_is_written(runs, pictures, tmp_path):
    file, out, images = (
        runs["laptop"] / "eums" / "eums.safetensors",
        tmp_path / "out",
        tmp_path / "images",
    )
    shutil.copytree(pictures, images)
    whole = (images / "wide.jpg").read_bytes()
    (images / "wide.jpg").write_bytes(whole[: len(whole) // 2])
    refused("wide.jpg cannot be read", predict_images, file, images, out)
    (images / "wide.jpg").write_text("no picture at all")
    refused("wide.jpg cannot be read", predict_images, file, images, out)
    (images / "wide.jpg").unlink()
    shutil.copy(images / "tall.PNG", images / "tall.bmp")
    refused("tall.PNG and tall.bmp", predict_images, file, images, out)
    assert {p.name for p in tmp_path.iterdir()} == {"images"}


def test_other_failures_leave_nothing_either(runs, pictures, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ncdss_lib.runs.predict_images._write_legend", fail)
    with pytest.raises(KeyboardInterrupt):
        predict_images(runs["laptop"] / "eums" / "eums.safetensors", pictures, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_picture_is_refused(runs, tmp_path):
    file = runs["laptop"] / "eums" / "eums.safetensors"
    (tmp_path / "empty").mkdir()
    refused("holds no picture", predict_images, file, tmp_path / "empty", tmp_path / "out")
    refused(
        "absent is neither a folder nor a file",
        predict_images,
        file,
        tmp_path / "absent",
        tmp_path / "out",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_several_processes_are_refused(runs, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(
        "without torchrun",
        predict_images,
        runs["laptop"] / "eums" / "eums.safetensors",
        pictures,
        tmp_path / "out",
    )
