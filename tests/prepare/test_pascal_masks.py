"""PASCAL-5i from fake VOC and SBD: every mask, list and count; what is refused; and the real photos where they are at hand."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ncdss_lib.data.pascal5i import FOLDS, Pascal5i
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.prepare import pascal_masks
from ncdss_lib.prepare.pascal_masks import prepare
from ncdss_lib.system.errors import InputError, RunError
from tests.prepare.fake_raw import (
    CLASSES,
    SPARE,
    TRAINAUG,
    VOC_TRAIN,
    VOC_VAL,
    make_sbd,
    make_voc,
    pack,
    save_mat,
    save_palette,
    sbd_mask,
    serving,
    tree,
    voc_mask,
    write_list,
)

REPO = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "pascal_mini"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Extracted VOC and SBD, for a test to spoil."""
    make_voc(tmp_path / "raw")
    make_sbd(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def rows(summary: str) -> dict[tuple[str, str], list[str]]:
    """The cells after fold and list of each row of a summary's table."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in summary.splitlines() if line.startswith("|")]
    return {(row[0], row[1]): row[2:] for row in cells[2:]}


# --- what is made ---------------------------------------------------------------------------------------------------------------


def test_masks_are_vocs_where_it_has_one_else_sbds(raw: Path, out: Path) -> None:
    summary = prepare(out, sources=raw)
    for image_id in [*TRAINAUG, *VOC_VAL]:
        expected = voc_mask(image_id) if image_id in VOC_TRAIN + VOC_VAL else sbd_mask(image_id)
        with Image.open(out / "SegmentationClassAug" / f"{image_id}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.array(picture), expected)
            colours = np.array(picture.getpalette("RGB")).reshape(256, 3)
        assert colours[[0, 1, 2, 15, 20, 255]].tolist() == [
            [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
        ]  # fmt: skip
        photo = f"{image_id}.jpg"
        assert (out / "images" / photo).read_bytes() == (raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / photo).read_bytes()
    assert sorted(p.stem for p in (out / "SegmentationClassAug").iterdir()) == sorted(CLASSES)
    assert sorted(p.stem for p in (out / "images").iterdir()) == sorted(CLASSES)
    assert (raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{SPARE}.jpg").exists()  # in no list, so not taken
    for image_id in VOC_TRAIN + VOC_VAL:
        with Image.open(out / "SegmentationClass" / f"{image_id}.png") as picture:
            np.testing.assert_array_equal(np.array(picture), voc_mask(image_id))
    assert len(list((out / "SegmentationClass").iterdir())) == len(VOC_TRAIN + VOC_VAL)
    assert "Masks: 5 of VOC 2012 (wherever it has one), 3 of SBD." in summary


def test_lists(raw: Path, out: Path) -> None:
    prepare(out, sources=raw)
    assert lines(out / "sets" / "trainaug.txt") == TRAINAUG  # SBD's and VOC's training images, none of VOC's validation list
    assert lines(out / "sets" / "train.txt") == VOC_TRAIN
    assert lines(out / "sets" / "val.txt") == VOC_VAL
    expected = {
        0: (VOC_TRAIN, ["2007_000003", "2008_000001", "2008_000003"], ["2007_000102"]),
        1: (["2008_000001"], [*VOC_TRAIN, "2008_000001", "2008_000003"], VOC_VAL),
        2: (["2008_000001"], [*VOC_TRAIN, "2008_000001", "2008_000003"], ["2007_000101"]),
        3: (["2007_000003", "2008_000003"], ["2007_000001", "2007_000002", "2007_000003", "2008_000001"], VOC_VAL),
        4: ([], [*VOC_TRAIN, "2008_000001", "2008_000003"], ["2007_000101"]),
    }
    for fold, (novel, base_train, base_val) in expected.items():
        folder = out / "sets" / f"fold{fold}"
        assert lines(folder / "novel.txt") == novel
        assert lines(folder / "base.txt") == [i for i in TRAINAUG if i not in novel]
        assert lines(folder / "base_train.txt") == base_train
        assert lines(folder / "base_val.txt") == base_val


def test_a_run_reads_the_same_lists(raw: Path, out: Path) -> None:
    prepare(out, sources=raw)
    data = Pascal5i(out, needs_saliency=False, val_masks="SegmentationClass")
    assert (data.train_ids, data.val_ids) == (TRAINAUG, VOC_VAL)
    for fold in range(4):
        splits = make_splits(data, label_space(data, fold))
        folder = out / "sets" / f"fold{fold}"
        assert (splits.novel, splits.base, splits.base_train) == tuple(lines(folder / f"{n}.txt") for n in ("novel", "base", "base_train"))


def test_the_summary_compares_with_the_published_counts(raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(prepare(out, sources=raw))
    assert table["", "trainaug"] == ["6", "10,582", "differs"]
    assert table["", "val"] == ["2", "1,449", "differs"]
    assert table["0", "novel"] == ["3", "2,836", "differs"]
    assert table["0", "base_train_and_novel"] == ["1", "1,083", "differs"]
    assert len(table) == 2 + 5 * 5
    real = pascal_masks.published_counts
    monkeypatch.setattr(pascal_masks, "published_counts", lambda fold: {**real(fold), "novel": 3})
    table = rows(prepare(out))
    assert table["0", "novel"] == ["3", "3", "equal"]
    assert table["1", "novel"] == ["1", "3", "differs"]


def test_the_summary_tells_the_leak_and_the_next_step(raw: Path, out: Path) -> None:
    summary = prepare(out, sources=raw)
    assert "0 to 1 images a fold are in the published base-training list *and*" in summary
    assert "--set data.base_list=strict" in summary
    assert f"`ncdss prepare saliency --data-root {out}`" in summary
    (out / "saliency_supervised_model").mkdir()
    assert "ncdss prepare saliency" not in prepare(out)


def test_nothing_else_is_written(raw: Path, out: Path) -> None:
    before = tree(raw)
    prepare(out, sources=raw)
    assert tree(raw) == before
    assert sorted(p.name for p in out.iterdir()) == ["SegmentationClass", "SegmentationClassAug", "images", "sets"]


def test_photos_are_linked_or_copied(raw: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(out, sources=raw)
    source = raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{VOC_TRAIN[0]}.jpg"
    assert (out / "images" / source.name).samefile(source)

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    prepare(tmp_path / "copied", sources=raw)
    copy = tmp_path / "copied" / "images" / source.name
    assert not copy.samefile(source)
    assert copy.read_bytes() == source.read_bytes()


# --- archives and downloads -----------------------------------------------------------------------------------------------------


def pack_raw(raw: Path, folder: Path) -> None:
    """Both archives, as they are distributed, into a folder."""
    folder.mkdir(exist_ok=True)
    for name, archive in (("VOCdevkit", pascal_masks.VOC.archive), ("benchmark_RELEASE", pascal_masks.SBD.archive)):
        (raw.parent / "one").mkdir()
        (raw / name).rename(raw.parent / "one" / name)
        pack(raw.parent / "one", folder / archive)
        shutil.rmtree(raw.parent / "one")


def test_from_archives(raw: Path, out: Path) -> None:
    pack_raw(raw, out)  # the archives lie in the data folder itself
    prepare(out)
    assert lines(out / "sets" / "trainaug.txt") == TRAINAUG
    assert not (out / "VOCdevkit" / "VOC2012" / "Annotations").exists()
    assert (out / "images" / f"{VOC_TRAIN[0]}.jpg").samefile(out / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{VOC_TRAIN[0]}.jpg")


def test_download(raw: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_raw(raw, tmp_path / "site")
    with serving(tmp_path / "site") as (address, asked):
        for name in ("VOC", "SBD"):
            part = getattr(pascal_masks, name)
            md5 = hashlib.md5((tmp_path / "site" / part.archive).read_bytes()).hexdigest()
            monkeypatch.setattr(pascal_masks, name, dataclasses.replace(part, url=f"{address}/{part.archive}", md5=md5))
        prepare(out, sources=tmp_path / "archives", download=True)
        assert [name for name, _ in asked] == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
        prepare(out, sources=tmp_path / "archives", download=True)
        assert len(asked) == 2
    assert tree(tmp_path / "archives") == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
    assert lines(out / "sets" / "trainaug.txt") == TRAINAUG


def test_addresses_and_checksums_are_torchvisions() -> None:
    voc = DATASET_YEAR_DICT["2012"]
    assert (pascal_masks.VOC.url, pascal_masks.VOC.archive, pascal_masks.VOC.md5) == (voc["url"], voc["filename"], voc["md5"])
    assert (pascal_masks.SBD.url, pascal_masks.SBD.archive, pascal_masks.SBD.md5) == (SBDataset.url, SBDataset.filename, SBDataset.md5)


# --- what is there already ------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(raw: Path, out: Path) -> Path:
    prepare(out, sources=raw)
    shutil.rmtree(raw)
    return out


def test_a_layout_that_is_there_is_verified(made: Path) -> None:
    before = {name: (made / name).read_bytes() for name in tree(made)}
    summary = prepare(made)
    assert summary.startswith(f"# PASCAL-5i in {made}\n\nVerified: 6 training and 2 validation images")
    assert f"Lists there: {made}/sets/fold" in summary
    assert {name: (made / name).read_bytes() for name in tree(made)} == before


def test_absent_lists_are_written_others_are_compared(made: Path) -> None:
    expected = {name: (made / name).read_text() for name in tree(made) if "fold" in name}
    shutil.rmtree(made / "sets" / "fold1")
    write_list(made / "sets" / "fold2" / "novel.txt", ["2007_000001"])
    (made / "sets" / "fold3" / "base.txt").unlink()
    summary = prepare(made)
    assert "Lists written: " in summary
    assert "sets, fold2/novel.txt say something else than the masks" in summary
    for name in ("sets/fold3/base.txt", *(f"sets/fold1/{n}.txt" for n in ("novel", "base", "base_train", "base_val"))):
        assert (made / name).read_text() == expected[name]
    assert lines(made / "sets" / "fold2" / "novel.txt") == ["2007_000001"]


def test_a_read_only_folder_is_only_verified(made: Path) -> None:
    shutil.rmtree(made / "sets" / "fold0")
    (made / "sets").chmod(0o555)
    before = tree(made)
    try:
        summary = prepare(made)
    finally:
        (made / "sets").chmod(0o755)
    assert "The lists of the folds were not written" in summary
    assert rows(summary)["0", "novel"][0] == "3"
    assert tree(made) == before


def test_a_killed_move_is_finished(raw: Path, out: Path) -> None:
    prepare(out, sources=raw)
    expected = tree(out)
    partial = out / pascal_masks.PARTIAL
    partial.mkdir()
    for name in ("SegmentationClass", "sets"):
        (out / name).rename(partial / name)
    (partial / pascal_masks.WHOLE).touch()
    shutil.rmtree(raw)
    prepare(out)
    assert tree(out) == expected


@pytest.mark.parametrize("name", ["images", "SegmentationClassAug", "SegmentationClass", "sets"])
def test_half_a_layout_is_not_replaced(raw: Path, out: Path, name: str) -> None:
    (out / name).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{out} holds {name} but not .*add what is missing, or move these away"):
        prepare(out, sources=raw)
    assert [p.name for p in out.iterdir()] == [name]


# --- what is refused ------------------------------------------------------------------------------------------------------------


def without_voc(raw: Path) -> None:
    shutil.rmtree(raw / "VOCdevkit")


def without_sbd(raw: Path) -> None:
    shutil.rmtree(raw / "benchmark_RELEASE")


def without_voc_lists(raw: Path) -> None:
    shutil.rmtree(raw / "VOCdevkit" / "VOC2012" / "ImageSets")


def without_a_photo(raw: Path) -> None:
    (raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2008_000002.jpg").unlink()


def without_a_voc_mask(raw: Path) -> None:
    (raw / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000102.png").unlink()


def without_an_sbd_mask(raw: Path) -> None:
    (raw / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000003.mat").unlink()


def with_an_unknown_id(raw: Path) -> None:
    save_palette(raw / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000002.png", np.where(voc_mask("2007_000002") == 2, 21, 0))


def with_another_size(raw: Path) -> None:
    save_mat(raw / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000001.mat", sbd_mask("2008_000001")[:-1])


def with_a_coloured_mask(raw: Path) -> None:
    path = raw / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000002.png"
    with Image.open(path) as picture:
        picture.convert("RGB").save(path)


def with_a_truncated_mat(raw: Path) -> None:
    path = raw / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000001.mat"
    path.write_bytes(path.read_bytes()[:200])


def with_another_mat(raw: Path) -> None:
    save_mat(raw / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000001.mat", sbd_mask("2008_000001").astype(np.float64))


def with_a_list_twice(raw: Path) -> None:
    path = raw / "benchmark_RELEASE" / "dataset" / "train.txt"
    path.write_text(path.read_text() * 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_voc, r"VOC 2012 missing \(SBD found\).*VOCtrainval_11-May-2012.tar"),
        (without_sbd, r"SBD missing \(VOC 2012 found\).*benchmark.tgz"),
        (without_voc_lists, r"VOC 2012 missing \(SBD found\).*VOC2012/ImageSets/Segmentation"),
        (without_a_photo, r"JPEGImages has no file for 1 of them \(first missing: 2008_000002.jpg\). Get VOC 2012 again"),
        (without_a_voc_mask, r"SegmentationClass has no file for 1 of them \(first missing: 2007_000102.png\). Get VOC 2012 again"),
        (without_an_sbd_mask, r"cls has no file for 1 of them \(first missing: 2008_000003.mat\). Get SBD again"),
        (with_an_unknown_id, r"VOC2012/SegmentationClass/2007_000002.png holds label ids \[21\]. Expected 0 \(background\), 1..20"),
        (with_another_size, r"cls/2008_000001.mat is 30x19 pixels. Expected 30x20, the size of .*2008_000001.jpg"),
        (with_a_coloured_mask, r"2007_000002.png is a picture of mode RGB"),
        (with_a_truncated_mat, r"cls/2008_000001.mat cannot be read .*Expected a .mat file with GTcls.Segmentation"),
        (with_another_mat, r"2008_000001.mat holds GTcls.Segmentation of float64 \[20, 30\]. Expected uint8"),
        (with_a_list_twice, r"train.txt names 3 ids more than once"),
    ],
)
def test_bad_sources_are_named_and_leave_nothing(raw: Path, out: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(raw)
    with pytest.raises(InputError, match=message):
        prepare(out, sources=raw)
    assert not out.exists() or list(out.iterdir()) == []


def test_a_truncated_archive_leaves_nothing(raw: Path, out: Path) -> None:
    pack_raw(raw, out)
    path = out / pascal_masks.VOC.archive
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"VOCtrainval_11-May-2012.tar cannot be read to its end"):
        prepare(out)
    assert tree(out) == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]


@pytest.mark.parametrize("name", ["SegmentationClassAug", "SegmentationClass"])
def test_a_layout_with_a_wrong_mask_is_refused(made: Path, name: str) -> None:
    path = made / name / "2007_000102.png"
    mask = voc_mask("2007_000102")
    save_palette(path, mask[1:])
    with pytest.raises(InputError, match=rf"{name}/2007_000102.png is 20x29 pixels. Expected 20x30"):
        prepare(made)
    save_palette(path, np.where(mask == 12, 77, mask))
    with pytest.raises(InputError, match=rf"{name}/2007_000102.png holds label ids \[77\]"):
        prepare(made)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name} has no file for 1 of them \(first missing: 2007_000102.png\)"):
        prepare(made)


def test_a_disk_that_refuses_is_a_run_error(raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(pascal_masks, "write_labels", full)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\). Make room"):
        prepare(out, sources=raw)
    assert not out.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_read_only_folder_is_told_to_root_too(raw: Path, out: Path, packed: bool) -> None:
    if packed:
        pack_raw(raw, raw)
    out.mkdir()
    out.chmod(0o555)
    with pytest.raises(RunError, match=rf"{out} cannot be written \(it is read-only\).*--data-root"):
        prepare(out, sources=raw)
    assert list(out.iterdir()) == []
    out.chmod(0o755)


# --- the real photos ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real photos at {REAL}; set NCDSS_SHARED_DATA")
def test_pascal_mini_is_verified(tmp_path: Path) -> None:
    for name in ("images", "SegmentationClassAug", "saliency_supervised_model"):
        (tmp_path / name).symlink_to(REAL / name)
    shutil.copytree(REAL / "sets", tmp_path / "sets", copy_function=shutil.copyfile)
    (tmp_path / "sets").chmod(0o755)
    table = rows(prepare(tmp_path))
    assert (table["", "trainaug"][0], table["", "val"][0]) == ("650", "200")
    assert [(table[str(fold), "novel"][0], table[str(fold), "base"][0]) for fold in range(4)] == [
        ("121", "529"), ("316", "334"), ("350", "300"), ("265", "385"),
    ]  # fmt: skip
    for fold in FOLDS:
        assert len(lines(tmp_path / "sets" / f"fold{fold}" / "novel.txt")) == int(table[str(fold), "novel"][0])
    assert "ncdss prepare saliency" not in prepare(tmp_path)
