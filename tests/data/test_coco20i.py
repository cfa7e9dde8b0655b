"""The COCO-20i reader: exact read-back of both kinds of masks, splits recomputed from them, and one clear message for each bad input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ncdss_lib.data import open_dataset
from ncdss_lib.data.coco20i import COCO_CLASSES, FOLDS, Coco20i, published_counts
from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.recipes import Data
from ncdss_lib.system.errors import InputError
from tests.data.fake_coco import CATEGORY_IDS, FakeImage, make_fake_coco, make_toy_coco

FIRST, FIRST_VAL = "COCO_train2014_000000000001", "COCO_val2014_000000000001"
REPO = Path(__file__).parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "coco_mini"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, FakeImage]]:
    root = tmp_path_factory.mktemp("fake") / "coco"
    return root, make_fake_coco(root)


@pytest.fixture
def root(written: tuple[Path, dict[str, FakeImage]], tmp_path: Path) -> Path:
    """A copy of the fake data that a test may spoil."""
    return Path(shutil.copytree(written[0], tmp_path / "coco"))


# --- what is read ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["published", "complete"])
def test_reads_back_what_was_written(written: tuple[Path, dict[str, FakeImage]], kind: Any) -> None:
    root, fakes = written
    data: SegmentationData = open_dataset("coco20i", root, None, Data(coco_masks=kind))
    assert [*data.train_ids, *data.val_ids] == sorted(fakes)
    assert (len(data.train_ids), len(data.val_ids)) == (24, 8)
    assert data.masks_note == {
        "published": "published COCO masks (first polygon of each object, crowds as background)",
        "complete": "complete COCO masks (all polygons, crowds ignored)",
    }[kind]  # fmt: skip
    for stem, fake in fakes.items():
        expected = getattr(fake, kind)
        assert data.has_truth(stem)
        np.testing.assert_array_equal(data.mask(stem), expected)
        assert np.abs(data.image(stem).astype(int) - fake.image).mean() < 8
        assert data.presence()[stem] == tuple(sorted(set(expected.ravel().tolist()) - {0, 255}))
        saliency = data.saliency(stem)
        if fake.saliency is None or stem in data.val_ids:
            assert saliency is None
        else:
            np.testing.assert_array_equal(saliency, fake.saliency)


def test_published_masks_are_the_default(written: tuple[Path, dict[str, FakeImage]]) -> None:
    data, complete = Coco20i(written[0]), Coco20i(written[0], masks="complete")
    assert data.masks_note == open_dataset("coco20i", written[0]).masks_note != complete.masks_note
    assert data.fingerprint() != complete.fingerprint()
    assert data.images_fingerprint() == complete.images_fingerprint()
    assert data.missing_saliency == ["COCO_train2014_000000000011", "COCO_train2014_000000000022"]


def test_classes_and_folds() -> None:
    """Spot checks of the annotation order, and folds that are contiguous, not interleaved."""
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    first_and_last = [(COCO_CLASSES[ids[0] - 1], COCO_CLASSES[ids[-1] - 1]) for ids in FOLDS.values()]
    assert first_and_last == [("person", "cow"), ("elephant", "bottle"), ("wine glass", "bed"), ("dining table", "toothbrush")]
    assert COCO_CLASSES[10] == "fire hydrant"
    assert [(fold, ids[0], ids[-1], len(ids)) for fold, ids in FOLDS.items()] == [(f, 20 * f + 1, 20 * f + 20, 20) for f in range(4)]


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("kind", ["published", "complete"])
def test_splits_follow_the_masks(written: tuple[Path, dict[str, FakeImage]], fold: int, kind: Any) -> None:
    root, fakes = written
    data = Coco20i(root, masks=kind)
    splits = make_splits(data, label_space(data, fold))
    held = {i: set(getattr(fakes[i], kind).ravel().tolist()) - {0, 255} for i in data.train_ids}
    novel = [i for i in data.train_ids if held[i] & set(FOLDS[fold])]
    any_base = [i for i in data.train_ids if held[i] - set(FOLDS[fold])]
    assert set(novel) & set(any_base)  # as in COCO, many images hold both
    assert (splits.novel, splits.base_train) == (novel, any_base)
    assert splits.base == [i for i in data.train_ids if i not in novel]
    assert make_splits(data, label_space(data, fold), base_list="strict").base_train == splits.base
    assert splits.val == data.val_ids


@pytest.mark.parametrize("fold", range(4))
def test_published_counts(fold: int) -> None:
    """The counts of both splits add up to the images that have masks; fine-tuning's base list is base minus novel."""
    counts = published_counts(fold)
    assert {split: row["union"] for split, row in counts.items()} == {"train": 82081, "val": 40137}
    assert counts["train"]["base"] - counts["train"]["overlap"] == [21479, 46398, 55761, 55189][fold]


def test_the_class_table_is_kept_apart_for_each_kind(root: Path, tmp_path: Path) -> None:
    tables = {kind: Coco20i(root, tmp_path / "cache", masks=kind).presence() for kind in ("published", "complete")}  # type: ignore[arg-type]
    assert len(list((tmp_path / "cache" / "coco20i").iterdir())) == 2
    shutil.rmtree(root / "masks_complete")
    assert Coco20i(root, tmp_path / "cache").presence() == tables["published"]


def test_opening_reads_no_file_but_the_lists(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("read a picture"))
    data = Coco20i(root)
    assert len(data.fingerprint()) == len(data.images_fingerprint()) == 16


# --- bad input ------------------------------------------------------------------------------------------------------------------


def append(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))


def relabel(root: Path) -> None:
    with Image.open(root / MASK) as picture:
        mask = np.array(picture)
    mask[2:4, 2:4] = [81, 90]
    Image.fromarray(mask).save(root / MASK)


def unprepare(root: Path) -> None:
    for folder in ("masks_published", "masks_complete", "sets"):
        shutil.rmtree(root / folder)


def shrink(path: Path) -> None:
    with Image.open(path) as picture:
        smaller = picture.resize((20, 10), Image.Resampling.NEAREST)
    smaller.save(path)


IMAGE, VAL_IMAGE, MASK = f"train2014/{FIRST}.jpg", f"val2014/{FIRST_VAL}.jpg", f"masks_published/{FIRST}.png"
SALIENCY = "saliency_supervised_model"
MAP, TRAIN, VAL = f"{SALIENCY}/{FIRST}.png", "sets/train2014.txt", "sets/val2014.txt"
PREPARE = "`ncdss prepare coco20i --data-root "

#: name: (how to spoil the folder, when that is noticed, the path in the message, what else the message says)
BAD: dict[str, tuple[Callable[[Path], object], str, str, tuple[str, ...]]] = {
    "not prepared": (unprepare, "open", "masks_published", ("is not there", PREPARE)),
    "no masks": (lambda r: shutil.rmtree(r / "masks_published"), "open", "masks_published", ("is not there", PREPARE)),
    "no train list": (lambda r: (r / TRAIN).unlink(), "open", TRAIN, ("is not there", PREPARE)),
    "no val list": (lambda r: (r / VAL).unlink(), "open", VAL, ("is not there", PREPARE)),
    "empty list": (lambda r: (r / TRAIN).write_text("\n"), "open", TRAIN, ("is empty", "COCO_train2014_000000000009")),
    "duplicates": (lambda r: append(r / TRAIN, FIRST), "open", TRAIN, ("names 1 ids", FIRST, "Keep one")),
    "overlap": (lambda r: append(r / TRAIN, FIRST_VAL), "open", TRAIN, ("share 1 ids", FIRST_VAL, "must not be trained on")),
    "no photos": (lambda r: shutil.rmtree(r / "val2014"), "open", "val2014", ("No such file", "COCO 2014: train2014/", "add the folder")),
    "a photo is missing": (lambda r: (r / IMAGE).unlink(), "open", TRAIN, ("lists 24 images", "for 1 of them", f"{FIRST}.jpg", "Add")),
    "a val photo is missing": (lambda r: (r / VAL_IMAGE).unlink(), "open", VAL, ("lists 8 images", "val2014 has no", f"{FIRST_VAL}.jpg")),
    "a mask is missing": (lambda r: (r / MASK).unlink(), "open", "masks_published", ("for 1 of them", f"{FIRST}.png", PREPARE, "again")),
    "no saliency": (lambda r: shutil.rmtree(r / SALIENCY), "open", SALIENCY, ("24 training images", "prepare saliency --data-root")),
    "mask size": (lambda r: shrink(r / MASK), "verify", MASK, ("is 20x10", "Expected 64x48", IMAGE)),
    "saliency size": (lambda r: shrink(r / MAP), "verify", MAP, ("is 20x10", "Expected 64x48", IMAGE)),
    "label ids": (relabel, "verify", MASK, ("label ids [81, 90]", "1..80 or 255", "class indices")),
    "text for a mask": (lambda r: (r / MASK).write_text("?"), "verify", MASK, ("not an image", "complete PNG")),
}  # fmt: skip


def refusal(root: Path) -> tuple[str, str]:
    """Open and verify the data; return the step that is refused, and the message."""
    step = "open"
    try:
        data = Coco20i(root)
        step = "verify"
        data.presence()
    except InputError as error:
        return step, str(error)
    return "none", ""


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_path_and_hint(root: Path, name: str) -> None:
    spoil, when, path, phrases = BAD[name]
    assert refusal(root) == ("none", "")
    spoil(root)
    step, message = refusal(root)
    assert step == when
    assert str(root / path) in message
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert "\n" not in message


# --- toy scenes in COCO's format: what the test data promises --------------------------------------------------------------------


def test_toy_coco_is_what_it_says(tmp_path: Path) -> None:
    truth = make_toy_coco(tmp_path, train=40, val=3, size=64)
    content = json.loads((tmp_path / "annotations" / "instances_train2014.json").read_text())
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(zip(CATEGORY_IDS, COCO_CLASSES, strict=True))
    assert (len(CATEGORY_IDS), CATEGORY_IDS[-1]) == (80, 90)
    stems = {image["id"]: image["file_name"].removesuffix(".jpg") for image in content["images"]}
    assert len(truth) == 43
    assert sorted(stems.values()) == sorted(path.stem for path in (tmp_path / "train2014").iterdir())
    crowds, several = 0, 0
    folds: dict[str, set[int]] = {stem: set() for stem in stems.values()}
    for annotation in content["annotations"]:
        class_id, stem = CATEGORY_IDS.index(annotation["category_id"]) + 1, stems[annotation["image_id"]]
        folds[stem].add((class_id - 1) // 20)
        if annotation["iscrowd"]:
            crowds += 1
            region = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 64, 64)).astype(bool)
            assert region.sum() == annotation["area"]
            assert (truth[stem][region] == 255).all()
            continue
        several += len(annotation["segmentation"]) > 1
        drawn = np.zeros((64, 64), np.uint8)
        for polygon in annotation["segmentation"]:
            cv2.fillPoly(drawn, [np.array(polygon, np.int32).reshape(-1, 2)], 1)
        assert drawn[truth[stem] == class_id].mean() > 0.9  # a part of one or two pixels has no polygon
    assert crowds > 0
    assert several > 0
    assert {fold for held in folds.values() for fold in held} == {0, 1, 2, 3}
    assert any(len(held) > 1 for held in folds.values())


# --- real photos ----------------------------------------------------------------------------------------------------------------


def prepare_mini(root: Path) -> dict[str, set[int]]:
    """Masks and lists of coco_mini under ``root``, plainly; return the categories by stem, as the annotations tell them."""
    (root / "masks_published").mkdir()
    (root / "sets").mkdir()
    for folder in ("train2014", "val2014", "saliency_supervised_model"):
        (root / folder).symlink_to(REAL / folder)
    held: dict[str, set[int]] = {}
    for split in ("train2014", "val2014"):
        content = json.loads((REAL / "annotations" / f"instances_{split}.json").read_text())
        stems = []
        for image in content["images"]:
            objects = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
            mask, stem = np.zeros((image["height"], image["width"]), np.uint8), image["file_name"].removesuffix(".jpg")
            for a in objects:
                class_id = CATEGORY_IDS.index(a["category_id"]) + 1
                cv2.fillPoly(mask, [np.array(a["segmentation"][0]).reshape(-1, 2).astype(np.int32)], class_id)
                held.setdefault(stem, set()).add(class_id)
            if objects:
                Image.fromarray(mask).save(root / "masks_published" / f"{stem}.png")
                stems.append(stem)
        (root / "sets" / f"{split}.txt").write_text("\n".join(stems))
    return held


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photos: set NCDSS_SHARED_DATA to the folder that holds coco_mini")
def test_documented_counts_of_coco_mini(tmp_path: Path) -> None:
    held = prepare_mini(tmp_path)
    data = Coco20i(tmp_path)
    assert (len(data.train_ids), len(data.val_ids)) == (49, 48)  # one and two of 50 hold no object but crowds
    assert len(data.missing_saliency) == 6
    with_map = []
    for fold in range(4):
        splits = make_splits(data, label_space(data, fold))
        by_annotation = {i for i in data.train_ids if held[i] & set(FOLDS[fold])}
        assert set(splits.novel) <= by_annotation  # a later object may cover an earlier one
        assert len(by_annotation - set(splits.novel)) <= 1
        assert set(splits.base) | set(splits.novel) == set(splits.base_train) | set(splits.novel) == set(data.train_ids)
        assert not set(splits.base) & set(splits.novel)
        with_map.append(sum(data.saliency(i) is not None for i in splits.novel))
    assert with_map == [27, 18, 15, 32]
