"""The toy scenes as a data set: splits, a cache that tells the truth, export."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ncdss_lib.data import toyscenes
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.data.toyscenes import ToyScenes
from toyscenes import FOLDS


def test_novel_classes_meet():
    """Images with two novel objects are what makes one pseudo-label per image wrong: some, not most."""
    data = ToyScenes(train=150, val=0, size=32)
    for ids in FOLDS.values():
        novel = [len(set(present) & set(ids)) for present in data.presence().values() if set(present) & set(ids)]
        assert 0.08 < np.mean(np.array(novel) > 1) < 0.4


@pytest.mark.parametrize("size", [31, 0, -5])
def test_too_small_is_refused(size):
    with pytest.raises(ValueError, match="size >= 32"):
        ToyScenes(size=size)


def test_train_and_val_differ():
    data = ToyScenes(train=12, val=12, size=32)
    assert not set(data.train_ids) & set(data.val_ids)
    pictures = {data.image(i).tobytes() for i in data.train_ids + data.val_ids}
    assert len(pictures) == 24


def test_longer_data_set_starts_with_the_same_images():
    short, long = ToyScenes(train=3, val=1, size=32), ToyScenes(train=9, val=4, size=32)
    np.testing.assert_array_equal(short.image("train_00002"), long.image("train_00002"))


def test_cached_equals_fresh(tmp_path):
    fresh, cached = ToyScenes(train=5, val=3, size=48), ToyScenes(tmp_path, train=5, val=3, size=48)
    again = ToyScenes(tmp_path, train=5, val=3, size=48)
    assert fresh.presence() == cached.presence() == again.presence()
    for image_id in fresh.train_ids + fresh.val_ids:
        for data in (cached, again):
            np.testing.assert_array_equal(fresh.image(image_id), data.image(image_id))
            np.testing.assert_array_equal(fresh.mask(image_id), data.mask(image_id))
            np.testing.assert_array_equal(fresh.saliency(image_id), data.saliency(image_id))
    assert not list(tmp_path.rglob(".*"))  # no drafts left behind


def test_second_use_renders_nothing(tmp_path, monkeypatch):
    ToyScenes(tmp_path, train=3, val=1, size=32).presence()
    monkeypatch.setattr(toyscenes, "render", lambda *_: pytest.fail("rendered again"))
    data = ToyScenes(tmp_path, train=3, val=1, size=32)
    monkeypatch.setattr(data, "_load", lambda *_: pytest.fail("presence read the masks again"))
    assert len(data.presence()) == 4
    ToyScenes(tmp_path, train=3, val=1, size=32).image("val_00000")


def test_presence_table_grows_with_the_data_set(tmp_path):
    ToyScenes(tmp_path, train=2, val=1, size=32).presence()
    data = ToyScenes(tmp_path, train=4, val=2, size=32)
    assert data.presence() == ToyScenes(train=4, val=2, size=32).presence()


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        ToyScenes(tmp_path, train=1, val=1, size=32).image("train_00000")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_returned_arrays_are_the_callers_own():
    data = ToyScenes(train=1, val=0, size=32)
    before = data.mask("train_00000")
    data.mask("train_00000")[:] = 7
    np.testing.assert_array_equal(data.mask("train_00000"), before)


def test_unknown_id():
    with pytest.raises(KeyError, match="train_00009"):
        ToyScenes(train=9, val=1, size=32).image("train_00009")


def test_fingerprint_names_everything_that_matters(tmp_path, monkeypatch):
    base = ToyScenes(train=4, val=2, size=32).fingerprint()
    assert base == ToyScenes(tmp_path, train=4, val=2, size=32).fingerprint()
    others = [ToyScenes(train=5, val=2, size=32), ToyScenes(train=4, val=3, size=32), ToyScenes(train=4, val=2, size=33)]
    assert base not in {data.fingerprint() for data in others}
    monkeypatch.setattr(toyscenes, "VERSION", toyscenes.VERSION + 1)
    assert base != ToyScenes(train=4, val=2, size=32).fingerprint()


def test_every_fold_can_be_split():
    data = ToyScenes(train=60, val=5, size=32)
    for fold in FOLDS:
        splits = make_splits(data, label_space(data, fold))
        assert len(splits.novel) > 5
        assert len(splits.base) > 20


def test_export_reads_back(tmp_path):
    data = ToyScenes(train=4, val=2, size=40)
    data.export(tmp_path)
    for split, ids in (("trainaug", data.train_ids), ("val", data.val_ids)):
        assert (tmp_path / "sets" / f"{split}.txt").read_text().split() == ids
    for image_id in data.train_ids + data.val_ids:
        labels = Image.open(tmp_path / "SegmentationClassAug" / f"{image_id}.png")
        assert labels.mode == "P"
        assert labels.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # VOC's colours of classes 1 and 2
        np.testing.assert_array_equal(np.asarray(labels), data.mask(image_id))
        photo = np.asarray(Image.open(tmp_path / "images" / f"{image_id}.jpg"), float)
        assert np.abs(photo - data.image(image_id)).mean() < 8
        salient = tmp_path / "saliency_supervised_model" / f"{image_id}.png"
        expected = data.saliency(image_id)
        assert salient.exists() == (expected is not None)
        if expected is not None:
            np.testing.assert_array_equal(np.asarray(Image.open(salient)), expected.astype(np.uint8))
