"""The image lists of a fold, on a class table small enough to split by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ncdss_lib.data.base import Splits, classes_in, label_space, make_splits
from ncdss_lib.errors import InputError


class Table:
    """A data set that is only its class table: four classes in two folds, and fold 2 whose class no training mask holds."""

    name = "table"
    classes: tuple[str, ...] = ("ant", "bee", "cow", "dog", "eel")
    folds: dict[int, tuple[int, ...]] = {0: (1, 2), 1: (3, 4), 2: (5,), 3: (1, 2, 3, 4)}  # noqa: RUF012
    saliency_note = "none"

    def __init__(self) -> None:
        self.train_ids = ["base", "both", "neither", "novel", "two novel"]
        self.val_ids = ["v0", "v1"]

    def presence(self) -> dict[str, tuple[int, ...]]:
        train = {"base": (3,), "both": (2, 4), "neither": (), "novel": (1,), "two novel": (1, 2)}
        return {**train, "v0": (5,), "v1": ()}

    def image(self, image_id: str) -> np.ndarray:
        raise AssertionError("splits are made from the class table alone")

    mask = saliency = image

    def fingerprint(self) -> str:
        raise AssertionError("splits are made from the class table alone")


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
