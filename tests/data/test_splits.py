"""The image lists of a fold, on a class table small enough to split by hand; opening a data set by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ncdss_lib.data import open_dataset
from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.masks import classes_in
from ncdss_lib.data.splits import Splits, label_space, make_splits
from ncdss_lib.recipes import Data
from ncdss_lib.system.errors import InputError
from tests.data.fake_voc import make_fake_voc


class Table:
    """A data set that is only its class table: four classes in two folds, and fold 2 whose class no training mask holds."""

    name = "table"
    classes: tuple[str, ...] = ("ant", "bee", "cow", "dog", "eel")
    folds: dict[int, tuple[int, ...]] = {0: (1, 2), 1: (3, 4), 2: (5,), 3: (1, 2, 3, 4)}  # noqa: RUF012
    saliency_note = masks_note = "none"

    def __init__(self) -> None:
        self.train_ids = ["base", "both", "neither", "novel", "two novel"]
        self.val_ids = ["v0", "v1"]

    def presence(self) -> dict[str, tuple[int, ...]]:
        train = {"base": (3,), "both": (2, 4), "neither": (), "novel": (1,), "two novel": (1, 2)}
        return {**train, "v0": (5,), "v1": ()}

    def image(self, image_id: str) -> np.ndarray:
        raise AssertionError("splits are made from the class table alone")

    mask = saliency = has_truth = image

    def fingerprint(self) -> str:
        raise AssertionError("splits are made from the class table alone")

    images_fingerprint = fingerprint


def test_lists_of_a_fold() -> None:
    data = Table()
    expected = Splits(
        base=["base", "neither"],
        novel=["both", "novel", "two novel"],
        base_train=["base", "both"],  # as published: "both" is trained on here and unlabelled later
        val=["v0", "v1"],
    )
    assert make_splits(data, label_space(data, 0)) == expected
    assert make_splits(data, label_space(data, 0), base_list="published") == expected


def test_the_strict_list_has_no_novel_image() -> None:
    data = Table()
    splits = make_splits(data, label_space(data, 0), base_list="strict")
    assert splits.base_train == splits.base == ["base", "neither"]


def test_an_unknown_kind_of_base_list_is_refused() -> None:
    data = Table()
    with pytest.raises(InputError, match=r"data.base_list='stirct': did you mean 'strict'\? Valid: published, strict"):
        make_splits(data, label_space(data, 0), base_list="stirct")


def test_label_space_of_a_fold() -> None:
    labels = label_space(Table(), 1)
    assert (labels.base_names, labels.novel_names) == (("ant", "bee", "eel"), ("cow", "dog"))


@pytest.mark.parametrize("fold", [-1, 4])
def test_an_unknown_fold_is_refused(fold: int) -> None:
    with pytest.raises(InputError, match=rf"fold {fold} does not exist in table: choose one of \[0, 1, 2, 3\] \(--fold\)"):
        label_space(Table(), fold)


def test_a_fold_without_novel_image_is_refused() -> None:
    data = Table()
    with pytest.raises(InputError, match=r"no novel image: none of the 5 training masks of table .*\(eel\).*--fold"):
        make_splits(data, label_space(data, 2))


def test_a_fold_without_base_image_is_refused() -> None:
    data = Table()
    with pytest.raises(InputError, match=r"no base image: none of the 5 training masks of table .*\(eel\).*--fold"):
        make_splits(data, label_space(data, 3))


def test_classes_in_a_mask() -> None:
    assert classes_in(np.array([[0, 255, 20], [3, 3, 20]], np.uint8)) == (3, 20)
    assert classes_in(np.full((2, 2), 255, np.uint8)) == ()


# --- opening by name ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pascal5i", "coco20i", "folder"])
def test_a_data_set_of_files_needs_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name} needs its data folder: give it with --data-root or \$NCDSS_DATA_ROOT. Expected .*/,"):
        open_dataset(name)
    with pytest.raises(InputError, match=r"nowhere is not a folder. Expected .*/,.*; correct --data-root"):
        open_dataset(name, tmp_path / "nowhere")


def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fake_voc(tmp_path / "voc", train=4, val=1)
    monkeypatch.setenv("NCDSS_DATA_ROOT", str(tmp_path / "voc"))
    assert len(open_dataset("pascal5i").train_ids) == 4
    assert open_dataset("toyscenes").name == "toyscenes"


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown data set 'coco' .*Valid: coco20i, folder, pascal5i, toyscenes"):
        open_dataset("coco")


@pytest.mark.parametrize("name", ["toyscenes", "pascal5i", "coco20i"])
def test_the_number_of_novel_classes_is_for_own_images_only(name: str) -> None:
    with pytest.raises(InputError, match=rf"data.num_novel=3 is for --dataset folder: {name} knows its novel classes"):
        open_dataset(name, config=Data(num_novel=3))


def test_toy_scenes_offer_the_whole_protocol() -> None:
    data: SegmentationData = open_dataset("toyscenes")
    assert data.masks_note == "drawn with the scenes"
    assert data.images_fingerprint() == data.fingerprint()
    assert data.has_truth("train_00000")
    assert not data.has_truth("train_99999")
