"""The VOCSegmentation reader: exact read-back, splits recomputed from the masks, and one clear message for each bad input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncdss_lib.data import open_dataset
from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.pascal5i import FOLDS, VOC_CLASSES, Pascal5i, published_counts
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.recipes import Data
from ncdss_lib.system.errors import InputError, RunError
from tests.data.fake_voc import FakeImage, make_fake_voc

FIRST = "2007_000001"
REPO = Path(__file__).parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "pascal_mini"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, FakeImage]]:
    root = tmp_path_factory.mktemp("fake") / "voc"
    return root, make_fake_voc(root)


@pytest.fixture
def root(written: tuple[Path, dict[str, FakeImage]], tmp_path: Path) -> Path:
    """A copy of the fake data that a test may spoil."""
    return Path(shutil.copytree(written[0], tmp_path / "voc"))


def image_file(root: Path, image_id: str = FIRST) -> Path:
    return root / "images" / f"{image_id}.jpg"


def mask_file(root: Path, image_id: str = FIRST) -> Path:
    return root / "SegmentationClassAug" / f"{image_id}.png"


def saliency_file(root: Path, image_id: str = FIRST) -> Path:
    return root / "saliency_supervised_model" / f"{image_id}.png"


# --- what is read ---------------------------------------------------------------------------------------------------------------


def test_reads_back_what_was_written(written: tuple[Path, dict[str, FakeImage]]) -> None:
    root, fakes = written
    data: SegmentationData = Pascal5i(root, None)
    assert sorted(fakes) == [*data.train_ids, *data.val_ids]
    assert (len(data.train_ids), len(data.val_ids)) == (24, 8)
    for image_id, fake in fakes.items():
        image, mask, saliency = data.image(image_id), data.mask(image_id), data.saliency(image_id)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == fake.image.shape
        assert np.abs(image.astype(int) - fake.image).mean() < 8
        np.testing.assert_array_equal(mask, fake.mask)
        if fake.saliency is None:
            assert saliency is None
        else:
            assert saliency is not None
            assert saliency.dtype == bool
            np.testing.assert_array_equal(saliency, fake.saliency)
        assert data.presence()[image_id] == tuple(sorted(set(fake.mask.ravel().tolist()) - {0, 255}))


def test_classes_and_folds() -> None:
    assert len(VOC_CLASSES) == 20
    assert (VOC_CLASSES[0], VOC_CLASSES[19]) == ("aeroplane", "tvmonitor")
    assert [FOLDS[f] for f in range(4)] == [(1, 2, 3, 4, 5), (6, 7, 8, 9, 10), (11, 12, 13, 14, 15), (16, 17, 18, 19, 20)]
    assert [VOC_CLASSES[i - 1] for i in FOLDS[4]] == ["cat", "cow", "dog", "horse", "sheep"]


@pytest.mark.parametrize("fold", range(5))
def test_splits_follow_the_masks(written: tuple[Path, dict[str, FakeImage]], fold: int) -> None:
    root, fakes = written
    data = Pascal5i(root, None)
    splits = make_splits(data, label_space(data, fold))
    novel_ids = list(FOLDS[fold])
    novel = {i for i in data.train_ids if np.isin(fakes[i].mask, novel_ids).any()}
    any_base = {i for i in data.train_ids if np.isin(fakes[i].mask, [c for c in range(1, 21) if c not in novel_ids]).any()}
    assert 0 < len(novel) < len(data.train_ids)
    assert splits.novel == sorted(novel)
    assert splits.base == sorted(set(data.train_ids) - novel)
    assert splits.base_train == sorted(any_base)
    assert splits.val == data.val_ids


@pytest.mark.parametrize("fold", range(5))
def test_published_counts_add_up(fold: int) -> None:
    counts = published_counts(fold)
    assert counts["novel"] + counts["base"] == 10582
    assert counts["base"] + counts["base_train_and_novel"] == counts["base_train"]


def test_lists_may_have_any_order_blank_lines_and_windows_line_ends(root: Path) -> None:
    path = root / "sets" / "trainaug.txt"
    ids = path.read_text().split()
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(ids[::-1]).encode() + b"\r\n \r\n")
    assert Pascal5i(root, None).train_ids == ids


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([0, 1, 1, 0], "L", [0, 1, 1, 0]),
        ([0, 255, 255, 0], "L", [0, 1, 1, 0]),
        ([0, 127, 128, 2], "L", [0, 0, 1, 0]),
        ([0, 1, 1, 0], "P", [0, 1, 1, 0]),
        ([0, 255, 255, 0], "1", [0, 1, 1, 0]),
        ([0, 100, 127, 2], "L", None),
        ([0, 0, 0, 0], "L", None),
    ],
)
def test_saliency_is_binarised(root: Path, values: list[int], mode: str, expected: list[int] | None) -> None:
    height, width = Pascal5i(root, None).mask(FIRST).shape
    columns = np.repeat(np.array(values, np.uint8), width // 4)
    picture = Image.fromarray(np.tile(columns, (height, 1)))
    if mode == "P":
        picture.putpalette([200, 10, 10, 5, 5, 5])
    elif mode == "1":
        picture = picture.convert("1")
    picture.save(saliency_file(root))
    saliency = Pascal5i(root, None).saliency(FIRST)
    if expected is None:
        assert saliency is None
    else:
        np.testing.assert_array_equal(saliency, np.tile(np.repeat(np.array(expected, bool), width // 4), (height, 1)))


def test_missing_saliency_is_counted(root: Path) -> None:
    before = Pascal5i(root, None)
    assert before.missing_saliency == ["2007_000011", "2007_000022"]
    saliency_file(root).unlink()
    saliency_file(root, before.val_ids[0]).unlink()  # validation images need none
    after = Pascal5i(root, None)
    assert after.missing_saliency == [FIRST, "2007_000011", "2007_000022"]
    assert after.saliency(FIRST) is None
    assert after.saliency_note == "saliency maps from saliency_supervised_model"


def test_nothing_is_opened_without_saliency_maps_unless_asked(root: Path) -> None:
    remove_all(root / SALIENCY)
    data = open_dataset("pascal5i", root, needs_saliency=False)
    assert data.saliency(FIRST) is None
    (root / SALIENCY).rmdir()
    assert open_dataset("pascal5i", root, needs_saliency=False).presence() == data.presence()
    with pytest.raises(InputError, match="prepare saliency"):
        open_dataset("pascal5i", root)


# --- which masks ----------------------------------------------------------------------------------------------------------------


def write_voc_masks(root: Path) -> dict[str, np.ndarray]:
    """SegmentationClass for all ids, each mask turned upside down, so that it is told from the other kind."""
    (root / "SegmentationClass").mkdir()
    masks = {path.stem: np.array(Image.open(path))[::-1] for path in (root / MASKS).iterdir()}
    for image_id, mask in masks.items():
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{image_id}.png")
    return masks


def test_validation_masks_may_come_from_segmentation_class(root: Path) -> None:
    published = Pascal5i(root)
    flipped = write_voc_masks(root)
    data = open_dataset("pascal5i", root, None, Data(val_masks="SegmentationClass"))
    assert data.masks_note == "SegmentationClassAug, for validation SegmentationClass"
    for image_id in data.train_ids:
        np.testing.assert_array_equal(data.mask(image_id), published.mask(image_id))
    for image_id in data.val_ids:
        np.testing.assert_array_equal(data.mask(image_id), flipped[image_id])
        np.testing.assert_array_equal(data.mask(image_id), published.mask(image_id)[::-1])
    assert data.fingerprint() != published.fingerprint()
    assert data.images_fingerprint() == published.images_fingerprint()
    assert open_dataset("pascal5i", root).masks_note == published.masks_note == "SegmentationClassAug"


def test_without_segmentation_class_the_other_masks_are_taken_and_named(root: Path) -> None:
    data, published = Pascal5i(root, val_masks="SegmentationClass"), Pascal5i(root)
    assert data.masks_note == "SegmentationClassAug (no SegmentationClass here)"
    np.testing.assert_array_equal(data.mask(data.val_ids[0]), published.mask(data.val_ids[0]))


def test_an_incomplete_segmentation_class_is_refused(root: Path) -> None:
    write_voc_masks(root)
    (root / "SegmentationClass" / "2008_000003.png").unlink()
    (root / "SegmentationClass" / f"{FIRST}.png").unlink()  # a training image: its mask is not read from there
    with pytest.raises(InputError, match=rf"{VAL} lists 8 images, but .*SegmentationClass has no file for 1 of them .*2008_000003.png"):
        Pascal5i(root, val_masks="SegmentationClass")


def test_every_listed_image_has_truth(root: Path) -> None:
    data = Pascal5i(root)
    assert all(map(data.has_truth, [*data.train_ids, *data.val_ids]))
    assert not data.has_truth("2009_000001")
    with pytest.raises(InputError, match="holds no mask of '2009_000001'"):
        data.mask("2009_000001")


# --- the cached class table -----------------------------------------------------------------------------------------------------


@pytest.fixture
def masks_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids whose masks are read while a test runs."""
    read: list[str] = []
    original = Pascal5i.mask

    def counting(self: Pascal5i, image_id: str) -> np.ndarray:
        read.append(image_id)
        return original(self, image_id)

    monkeypatch.setattr(Pascal5i, "mask", counting)
    return read


def test_presence_is_computed_once(root: Path, tmp_path: Path, masks_read: list[str]) -> None:
    cache = tmp_path / "cache"
    data = Pascal5i(root, cache)
    table = data.presence()
    assert data.presence() == table
    assert Pascal5i(root, cache).presence() == table
    assert Pascal5i(root.rename(tmp_path / "elsewhere"), cache).presence() == table  # the place is no part of the fingerprint
    assert sorted(masks_read) == [*data.train_ids, *data.val_ids]
    assert [p.name for p in (cache / "pascal5i").iterdir()] == [f"contents-{data.fingerprint()}.json"]


def rewrite_mask(root: Path) -> None:
    with Image.open(mask_file(root)) as picture:
        changed = np.array(picture)
    changed[0, 0] = 20
    Image.fromarray(changed).save(mask_file(root))


def touch_image(root: Path) -> None:
    os.utime(image_file(root), ns=(1, 1))


def drop_saliency(root: Path) -> None:
    saliency_file(root).unlink()


def shorten_list(root: Path) -> None:
    path = root / "sets" / "trainaug.txt"
    path.write_text("\n".join(path.read_text().split()[:-1]))


def move_to_val(root: Path) -> None:
    train, val = (root / "sets" / f"{name}.txt" for name in ("trainaug", "val"))
    *kept, moved = train.read_text().split()
    train.write_text("\n".join(kept))
    val.write_text("\n".join([*val.read_text().split(), moved]))


@pytest.mark.parametrize("change", [rewrite_mask, touch_image, drop_saliency, shorten_list, move_to_val])
def test_any_change_gives_another_fingerprint_and_table(
    root: Path, tmp_path: Path, masks_read: list[str], change: Callable[[Path], None]
) -> None:
    before = Pascal5i(root, tmp_path / "cache")
    before.presence()
    masks_read.clear()
    change(root)
    after = Pascal5i(root, tmp_path / "cache")
    assert after.fingerprint() != before.fingerprint()
    assert (after.images_fingerprint() == before.images_fingerprint()) == (change in (rewrite_mask, drop_saliency))
    assert list(after.presence()) == sorted(masks_read) == [*after.train_ids, *after.val_ids]
    assert (20 in after.presence()[FIRST]) == (change is rewrite_mask)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"2007_000001": [1]}', '{"2007_000001": 1}'])
def test_a_damaged_table_is_computed_again(root: Path, tmp_path: Path, content: str) -> None:
    data = Pascal5i(root, tmp_path)
    path = tmp_path / "pascal5i" / f"contents-{data.fingerprint()}.json"
    path.parent.mkdir()
    path.write_text(content)
    assert data.presence() == Pascal5i(root, None).presence() == Pascal5i(root, tmp_path).presence()


def test_a_full_disk_is_reported_and_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"cannot be written to .*contents-.*json: No space left on device"):
        Pascal5i(root, tmp_path / "cache").presence()
    assert list((tmp_path / "cache" / "pascal5i").iterdir()) == []


# --- bad input ------------------------------------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resize(path: Path) -> None:
    with Image.open(path) as picture:
        smaller = picture.resize((20, 10), Image.Resampling.NEAREST)
    smaller.save(path)


def relabel(root: Path) -> None:
    with Image.open(mask_file(root)) as picture:
        mask = np.array(picture)
    mask[2:4, 2:4] = [21, 254]
    Image.fromarray(mask).save(mask_file(root))


def colour(path: Path) -> None:
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    rgb.save(path)


def append(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


IMAGES, MASKS, SALIENCY = "images", "SegmentationClassAug", "saliency_supervised_model"
IMAGE, MASK, MAP = f"{IMAGES}/{FIRST}.jpg", f"{MASKS}/{FIRST}.png", f"{SALIENCY}/{FIRST}.png"
TRAIN, VAL = "sets/trainaug.txt", "sets/val.txt"

#: name: (how to spoil the folder, when that is noticed, the path in the message, what else the message says)
BAD: dict[str, tuple[Callable[[Path], object], str, str, tuple[str, ...]]] = {
    "no root": (shutil.rmtree, "open", "", ("is not a folder", "--data-root", "$NCDSS_DATA_ROOT")),
    "root is empty": (remove_all, "open", IMAGES, ("No such file", "VOCSegmentation layout", "--data-root")),
    "no images folder": (lambda r: shutil.rmtree(r / IMAGES), "open", IMAGES, ("No such file", "layout", "add the folder")),
    "no mask folder": (lambda r: shutil.rmtree(r / MASKS), "open", MASKS, ("No such file", "layout", "add the folder")),
    "no saliency folder": (
        lambda r: shutil.rmtree(r / SALIENCY),
        "open",
        SALIENCY,
        ("24 training images", "`ncdss prepare saliency --data"),
    ),
    "no sets folder": (lambda r: shutil.rmtree(r / "sets"), "open", TRAIN, ("No such file", "one image id a line")),
    "no val list": (lambda r: (r / VAL).unlink(), "open", VAL, ("No such file", "add the list")),
    "empty list": (lambda r: (r / TRAIN).write_text("\n \n"), "open", TRAIN, ("is empty", "fill the list")),
    "duplicate ids": (lambda r: append(r / TRAIN, "2007_000003", FIRST), "open", TRAIN, ("names 2 ids", f"first: {FIRST}", "Keep one")),
    "overlap": (lambda r: append(r / TRAIN, "2008_000001"), "open", "sets", ("share 1 ids", "2008_000001", "must not be trained on")),
    "missing image": (lambda r: (r / IMAGE).unlink(), "open", TRAIN, ("lists 24 images", "for 1 of them", f"{FIRST}.jpg", "Add")),
    "missing images": (lambda r: append(r / TRAIN, "a/b", "c"), "open", TRAIN, ("lists 26 images", "for 2 of them", "a/b.jpg")),
    "missing mask": (lambda r: (r / MASK).unlink(), "open", f"{MASKS} has no", ("for 1 of them", f"{FIRST}.png", "off the list")),
    "missing val mask": (lambda r: mask_file(r, "2008_000003").unlink(), "open", VAL, ("lists 8 images", "2008_000003.png")),
    "no saliency at all": (lambda r: remove_all(r / SALIENCY), "open", SALIENCY, ("any of the 24 training images", "put ready ones there")),
    "two files of a name": (
        lambda r: shutil.copy(r / IMAGE, r / IMAGES / f"{FIRST}.JPG"),
        "open",
        IMAGES,
        (f"{FIRST}.JPG and {FIRST}.jpg", "rename or remove"),
    ),
    "mask size": (lambda r: resize(r / MASK), "verify", MASK, ("is 20x10", "Expected 64x48", IMAGE, "restore the file")),
    "saliency size": (lambda r: resize(r / MAP), "verify", MAP, ("is 20x10", "Expected 64x48", IMAGE, "resize it")),
    "label ids": (relabel, "verify", MASK, ("label ids [21, 254]", "1..20 or 255", "class indices")),
    "colour mask": (lambda r: colour(r / MASK), "verify", MASK, ("mode RGB", "palette or grey", "convert")),
    "truncated mask": (lambda r: halve(r / MASK), "verify", MASK, ("cannot be read", "complete PNG", "copy or download")),
    "text for a mask": (lambda r: (r / MASK).write_text("?"), "verify", MASK, ("not an image", "complete PNG")),
    "empty image": (lambda r: (r / IMAGE).write_text(""), "verify", IMAGE, ("not an image", "complete JPG")),
    "truncated image": (lambda r: halve(r / IMAGE), "verify", IMAGE, ("truncated", "complete JPG", "copy or download")),
    "truncated saliency": (lambda r: halve(r / MAP), "verify", MAP, ("cannot be read", "complete PNG", "copy or download")),
}


def refusal(root: Path) -> tuple[str, str]:
    """Use the data as a run does; return the step that is refused, and the message."""
    step = "open"
    try:
        data = Pascal5i(root, None)
        step = "verify"
        data.presence()
        step = "read"
        for image_id in data.train_ids:
            data.image(image_id)
            data.saliency(image_id)
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


def test_a_file_that_vanishes_later_is_refused(root: Path) -> None:
    data = Pascal5i(root, None)
    mask_file(root).unlink()
    with pytest.raises(InputError, match=rf"{MASK} cannot be read \(No such file or directory\)"):
        data.presence()


def test_no_root_at_all() -> None:
    with pytest.raises(InputError, match=r"--data-root or \$NCDSS_DATA_ROOT.*images/"):
        Pascal5i(None, None)


def test_a_refused_mask_leaves_no_table(root: Path, tmp_path: Path) -> None:
    halve(mask_file(root))
    with pytest.raises(InputError):
        Pascal5i(root, tmp_path / "cache").presence()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("path", [IMAGE, MASK, MAP])
def test_a_file_cut_anywhere_is_refused_or_read_whole(root: Path, path: str) -> None:
    """No cut raises anything but InputError, and none gives other pixels."""
    data, content = Pascal5i(root, None), (root / path).read_bytes()
    read: Callable[[str], np.ndarray | None] = {IMAGE: data.image, MASK: data.mask, MAP: data.saliency}[path]
    whole = read(FIRST)
    harmless = 0
    for end in [*range(0, len(content) - 100, 5), *range(len(content) - 100, len(content))]:
        (root / path).write_bytes(content[:end])
        with suppress(InputError):
            np.testing.assert_array_equal(read(FIRST), whole)
            harmless += 1
    assert harmless <= 20  # what ends a PNG and holds no pixel: Adler-32, CRC and IEND chunk, 4 + 4 + 12 bytes


# --- real photos ----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photos: set NCDSS_SHARED_DATA to the folder that holds pascal_mini")
def test_documented_counts_of_pascal_mini() -> None:
    data = Pascal5i(REAL, None, val_masks="SegmentationClass")
    assert data.masks_note == "SegmentationClassAug (no SegmentationClass here)"
    assert (len(data.train_ids), len(data.val_ids)) == (650, 200)
    splits = [make_splits(data, label_space(data, fold)) for fold in range(4)]
    assert [(len(s.novel), len(s.base)) for s in splits] == [(121, 529), (316, 334), (350, 300), (265, 385)]
    assert sum(data.saliency(i) is None for i in [*data.train_ids, *data.val_ids]) == 23
    assert sum(len(set(FOLDS[2]) & set(data.presence()[i])) >= 2 for i in data.train_ids) == 100
    for fold in range(5):
        labels = label_space(data, fold)
        published, strict = (make_splits(data, labels, base_list=kind) for kind in ("published", "strict"))
        base_only, novel = set(published.base), set(published.novel)
        assert base_only | novel == set(data.train_ids)
        assert not base_only & novel
        leaked = set(published.base_train) & novel
        assert leaked
        assert leaked | base_only == set(published.base_train)  # every image of the 850 holds a class
        assert set(strict.base_train) == base_only
