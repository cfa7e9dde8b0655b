"""The drawn collection of the notebook on one's own images is a folder data set as a user would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import own_images
from ncdss_lib.data import open_dataset
from ncdss_lib.recipes import Data
from toyscenes import CLASSES


def test_the_collection_opens_as_a_folder_and_is_drawn_once(tmp_path: Path):
    root = tmp_path / "collection"
    own_images.draw_collection(root, labelled=4, unlabelled=3, val=2, size=64)
    data = open_dataset("folder", root, None, Data(num_novel=2), needs_saliency=False)
    assert list(data.classes[:3]) == [CLASSES[c - 1] for c in own_images.BASE]
    assert (len(data.train_ids), len(data.val_ids)) == (7, 2)
    assert sum(not data.has_truth(i) for i in data.train_ids) == 3
    for i in [*data.val_ids, *(i for i in data.train_ids if data.has_truth(i))]:
        assert set(np.unique(data.mask(i))) <= {0, 1, 2, 3, 255}
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    own_images.draw_collection(root, labelled=4, unlabelled=3, val=2, size=64)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written
    assert "unlabelled/" in own_images.tree(root)
    assert "(3 files)" in own_images.tree(root)


def test_a_collection_of_another_version_or_of_other_numbers_is_drawn_again(tmp_path: Path, monkeypatch):
    root = tmp_path / "collection"

    def drawn(**numbers: int) -> int:
        """The time at which the collection was drawn."""
        own_images.draw_collection(root, **{"labelled": 1, "unlabelled": 1, "val": 1, "size": 32, **numbers})
        return (root / "classes.txt").stat().st_mtime_ns

    first = drawn()
    assert drawn() == first
    second = drawn(labelled=2)
    assert second > first
    monkeypatch.setattr("toyscenes.VERSION", -1)
    assert drawn(labelled=2) > second
    (root / own_images.DRAWN_BY).unlink()  # somebody's own, or of an earlier version
    third = drawn(labelled=2)
    assert drawn() == third


def test_images_go_where_more_are_wanted_and_every_fourth_to_validation():
    plain, new = np.zeros((2, 2), np.uint8), np.full((2, 2), own_images.NOVEL[0], np.uint8)
    wanted = {"labelled": 1, "unlabelled": 1, "val": 1}
    assert own_images._kind(0, plain, wanted) == "labelled"
    assert own_images._kind(0, new, wanted) == "unlabelled"
    assert own_images._kind(3, new, wanted) == "val"
    assert own_images._kind(3, new, wanted | {"val": 0}) == "unlabelled"
    assert own_images._kind(7, new, wanted) == "val"
    assert own_images._kind(0, plain, wanted | {"labelled": 0}) is None
