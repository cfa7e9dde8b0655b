"""COCO-20i from annotations: both kinds of masks pixel by pixel, lists and counts, what is refused and what is only counted."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as rle_masks
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ncdss_lib.data.coco20i import FOLDS, Coco20i
from ncdss_lib.prepare import coco_masks
from ncdss_lib.prepare.coco_masks import prepare
from ncdss_lib.system.errors import InputError, RunError
from tests.data.fake_coco import run_lengths
from tests.prepare.fake_raw import annotation, annotations_file, box, image, make_coco, pack, serving, tree, write_annotations

REPO = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "coco_mini"
STEM = "COCO_train2014_{:012d}".format

Content = dict[str, Any]


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """bool [12, 20], the ends included."""
    region = np.zeros((12, 20), bool)
    region[top : bottom + 1, left : right + 1] = True
    return region


CROWD = {"size": [12, 20], "counts": run_lengths(rectangle(8, 11, 0, 19))}
TRAIN = (
    [image(9), image(2), image(3), image(4, width=12, height=20)],
    [
        annotation(1, 9, 1, [box(1.9, 1.2, 8.7, 6.9)]),
        annotation(2, 2, 80, [box(0, 0, 6, 4)]),
        annotation(3, 9, 21, [box(6, 5, 10, 9), box(12, 1, 15, 4)]),
        annotation(4, 9, 61, CROWD, crowd=1),
        annotation(5, 3, 5, CROWD, crowd=1),
        annotation(6, 2, 3, [box(0, 0, 19, 11)]),
    ],
)
VAL = ([image(1, "val"), image(2, "val")], [annotation(7, 1, 41, [box(2, 2, 5, 5)])])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training images with objects, one with a crowd only, one with nothing; a validation image with an object, one without."""
    return make_coco(tmp_path / "coco", {"train": TRAIN, "val": VAL})


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert len(picture.getpalette("RGB") or []) == 768
        return np.array(picture)


def rows(summary: str) -> dict[tuple[str, str, str], list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in summary.splitlines() if line.startswith("|")]
    return {(row[0], row[1], row[2]): row[3:] for row in cells[2:]}


# --- masks ----------------------------------------------------------------------------------------------------------------------


def test_published_masks(root: Path) -> None:
    """First polygon only, cut to integers and filled with its border; in the order of annotations; no crowd."""
    prepare(root, masks=["published"])
    expected = np.zeros((12, 20), np.uint8)
    expected[rectangle(1, 6, 1, 8)] = 1
    expected[rectangle(5, 9, 6, 10)] = 21
    np.testing.assert_array_equal(read(root / "masks_published" / f"{STEM(9)}.png"), expected)
    np.testing.assert_array_equal(read(root / "masks_published" / f"{STEM(2)}.png"), np.full((12, 20), 3))  # 3 covers 80
    assert not (root / "masks_complete").exists()


def test_complete_masks(root: Path) -> None:
    """All polygons, small objects over large ones, crowds 255 where no object is. The edges are pycocotools', so whole numbers here."""
    content = json.loads(annotations_file(root).read_text())
    content["annotations"][0]["segmentation"] = [box(2, 1, 9, 7)]
    write_annotations(root, "train", content)
    prepare(root, masks=["complete"])
    expected = np.zeros((12, 20), np.uint8)
    expected[rectangle(8, 11, 0, 19)] = 255
    expected[rectangle(1, 6, 2, 8)] = 1  # 42 pixels
    expected[rectangle(5, 8, 6, 9) | rectangle(1, 3, 12, 14)] = 21  # 16 + 9 pixels
    np.testing.assert_array_equal(read(root / "masks_complete" / f"{STEM(9)}.png"), expected)
    expected = np.full((12, 20), 3)
    expected[11], expected[:, 19] = 0, 0
    expected[rectangle(0, 3, 0, 5)] = 80
    np.testing.assert_array_equal(read(root / "masks_complete" / f"{STEM(2)}.png"), expected)


def test_the_same_images_get_masks_of_both_kinds(root: Path) -> None:
    prepare(root)
    for kind in ("published", "complete"):
        assert sorted(p.stem for p in (root / f"masks_{kind}").glob("*.png")) == [STEM(2), STEM(9), "COCO_val2014_000000000001"]
    assert (root / "sets" / "train2014.txt").read_text() == f"{STEM(2)}\n{STEM(9)}\n"
    assert (root / "sets" / "val2014.txt").read_text() == "COCO_val2014_000000000001\n"


def test_run_length_encoded_objects(root: Path) -> None:
    """An object without polygons: nothing in published masks, whole in complete ones, compressed or not."""
    region = rectangle(2, 5, 3, 9)
    plain = {"size": [12, 20], "counts": run_lengths(region)}
    packed = rle_masks.encode(np.asfortranarray(region, np.uint8))
    content = json.loads(annotations_file(root).read_text())
    content["annotations"] = [
        annotation(1, 9, 7, plain),
        annotation(2, 2, 8, {"size": packed["size"], "counts": packed["counts"].decode()}),
    ]
    write_annotations(root, "train", content)
    summary = prepare(root)
    for stem, label in ((STEM(9), 7), (STEM(2), 8)):
        np.testing.assert_array_equal(read(root / "masks_complete" / f"{stem}.png"), np.where(region, label, 0))
        assert not read(root / "masks_published" / f"{stem}.png").any()
    assert "2 objects without a first polygon: left out of published masks" in summary


def test_oddities_are_drawn_as_stated_and_counted(root: Path) -> None:
    content = json.loads(annotations_file(root).read_text())
    content["annotations"] = [
        annotation(1, 9, 7, [[2.0, 3.0], box(5, 5, 8, 8)]),  # a point first
        annotation(2, 9, 8, []),
        annotation(3, 9, 9, [[], box(12, 1, 15, 4)]),
        annotation(4, 2, 10, [box(-5.5, -3, 4, 30)]),
    ]
    write_annotations(root, "train", content)
    summary = prepare(root)
    published, complete = (read(root / f"masks_{kind}" / f"{STEM(9)}.png") for kind in ("published", "complete"))
    np.testing.assert_array_equal(published, np.where(rectangle(3, 3, 2, 2), 7, 0))
    np.testing.assert_array_equal(complete, np.where(rectangle(5, 7, 5, 7), 7, np.where(rectangle(1, 3, 12, 14), 9, 0)))
    np.testing.assert_array_equal(read(root / "masks_published" / f"{STEM(2)}.png"), np.where(rectangle(0, 11, 0, 4), 10, 0))
    np.testing.assert_array_equal(read(root / "masks_complete" / f"{STEM(2)}.png"), np.where(rectangle(0, 11, 0, 3), 10, 0))
    for line in (
        "- 2 polygons of less than three points: left out of complete masks.",
        "- 2 objects without a first polygon: left out of published masks.",
        "- 2 images of train2014 without an object that is no crowd: they get no mask and are in no list.",
        "- 1 images of val2014 without an object that is no crowd: they get no mask and are in no list.",
    ):
        assert line in summary.splitlines()
    assert "crowd regions" not in summary


# --- lists and summary ----------------------------------------------------------------------------------------------------------


def test_lists_of_the_folds(root: Path) -> None:
    prepare(root)
    both, nine, two, val = [STEM(2), STEM(9)], [STEM(9)], [STEM(2)], ["COCO_val2014_000000000001"]
    expected = {0: (nine, both, val, []), 1: (both, nine, val, []), 2: (both, [], [], val), 3: (both, [], val, [])}
    for fold, (base, novel, val_base, val_novel) in expected.items():
        folder = root / "sets" / f"fold{fold}"
        for name, stems in (("train/base", base), ("train/novel", novel), ("val/base", val_base), ("val/novel", val_novel)):
            assert (folder / f"{name}.txt").read_text().split() == stems, (fold, name)
    assert two == sorted(set(both) - set(nine))  # fine-tuning's base list of fold 1


def test_lists_count_the_classes_of_the_first_kind_of_masks(root: Path) -> None:
    """Category 80 is covered in the published mask and visible in the complete one."""
    prepare(root, masks=["complete", "published"])
    assert (root / "sets" / "fold3" / "train" / "novel.txt").read_text().split() == [STEM(2)]


def test_the_summary_compares_with_the_published_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = prepare(root)
    table = rows(summary)
    assert len(table) == 2 + 4 * 2 * 3
    assert table["", "train", "all"] == ["2", "82,081", "differs"]
    assert table["", "val", "all"] == ["1", "40,137", "differs"]
    assert table["1", "train", "base"] == ["2", "77,860", "differs"]
    assert table["1", "train", "novel"] == ["1", "35,683", "differs"]
    assert table["1", "train", "overlap"] == ["1", "31,462", "differs"]
    assert "2 crowd regions: background in published masks, 255 in complete ones" in summary
    assert f"`ncdss prepare saliency --data-root {root}`" in summary
    counts = {"base": 2, "novel": 1, "overlap": 2, "union": 2}
    monkeypatch.setattr(coco_masks, "published_counts", lambda fold: {"train": counts, "val": counts})
    table = rows(prepare(root))
    assert [table["1", "train", name][2] for name in ("base", "novel", "overlap")] == ["equal", "equal", "differs"]


def test_a_run_reads_what_was_prepared(root: Path) -> None:
    prepare(root)
    for kind in ("published", "complete"):
        data = Coco20i(root, masks=kind, needs_saliency=False)
        assert (len(data.train_ids), len(data.val_ids)) == (2, 1)
        assert data.presence() == {STEM(2): (3,) if kind == "published" else (3, 80), STEM(9): (1, 21), data.val_ids[0]: (41,)}


def test_categories_are_known_by_name_not_by_place(root: Path) -> None:
    """Other tools sort them by name, or give them ids of their own; the masks must be the same."""
    prepare(root)
    before = {path.name: read(path) for path in (root / "masks_published").glob("*.png")}
    content = json.loads(annotations_file(root).read_text())
    content["categories"].sort(key=lambda category: category["name"])
    write_annotations(root, "train", content)
    content = json.loads(annotations_file(root, "val").read_text())
    for entry in (*content["categories"], *content["annotations"]):
        key = "category_id" if "category_id" in entry else "id"
        entry[key] += 1000
    write_annotations(root, "val", content)
    prepare(root)
    for name, mask in before.items():
        np.testing.assert_array_equal(read(root / "masks_published" / name), mask)


def test_a_crowd_flag_may_be_missing(root: Path) -> None:
    content = json.loads(annotations_file(root).read_text())
    del content["annotations"][1]["iscrowd"]
    write_annotations(root, "train", content)
    prepare(root)
    assert (root / "masks_published" / f"{STEM(2)}.png").is_file()


# --- sources, resuming, running again -------------------------------------------------------------------------------------------


def test_sources_are_linked(root: Path, tmp_path: Path) -> None:
    before = tree(root)
    prepare(tmp_path / "out", sources=root)
    assert tree(root) == before
    assert (tmp_path / "out" / "train2014" / f"{STEM(9)}.jpg").samefile(root / "train2014" / f"{STEM(9)}.jpg")
    assert (tmp_path / "out" / "annotations" / "instances_val2014.json").samefile(annotations_file(root, "val"))
    prepare(tmp_path / "out")  # the links are found


def test_from_archives_and_downloads(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    site.mkdir()
    (root / "annotations" / "captions_train2014.json").write_text("{}")
    for name, archive in (("train2014", "train2014.zip"), ("val2014", "val2014.zip"), ("annotations", "annotations_trainval2014.zip")):
        (tmp_path / archive).mkdir()
        (root / name).rename(tmp_path / archive / name)
        pack(tmp_path / archive, site / archive)
    with serving(site) as (address, asked):
        parts = [dataclasses.replace(part, url=f"{address}/{part.archive}") for part in (*coco_masks.IMAGES, coco_masks.ANNOTATIONS)]
        monkeypatch.setattr(coco_masks, "IMAGES", tuple(parts[:2]))
        monkeypatch.setattr(coco_masks, "ANNOTATIONS", parts[2])
        with pytest.raises(InputError, match=r"COCO train2014 and COCO val2014 and COCO's annotations missing"):
            prepare(out)
        prepare(out, download=True)
    assert sorted(name for name, _ in asked) == ["annotations_trainval2014.zip", "train2014.zip", "val2014.zip"]
    assert (out / "masks_published" / f"{STEM(9)}.png").exists()
    assert not (out / "annotations" / "captions_train2014.json").exists()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems that are drawn while a test runs."""
    stems: list[str] = []
    for kind, rule in list(coco_masks.RULES.items()):

        def counting(picture: coco_masks.Picture, rule: Callable = rule) -> np.ndarray:
            stems.append(picture.path.stem)
            return rule(picture)

        monkeypatch.setitem(coco_masks.RULES, kind, counting)
    return stems


def test_masks_are_drawn_once(root: Path, drawn: list[str]) -> None:
    first = prepare(root)
    assert len(drawn) == 6
    before = {name: (root / name).stat().st_mtime_ns for name in tree(root)}
    assert prepare(root) == first
    assert len(drawn) == 6
    assert {name: (root / name).stat().st_mtime_ns for name in tree(root)} == before


def test_other_annotations_draw_again(root: Path, drawn: list[str]) -> None:
    prepare(root)
    content = json.loads(annotations_file(root).read_text())
    content["annotations"].pop()
    write_annotations(root, "train", content)
    prepare(root)
    assert len(drawn) == 12
    assert read(root / "masks_published" / f"{STEM(2)}.png").max() == 80
    assert (root / "sets" / "fold3" / "train" / "novel.txt").read_text().split() == [STEM(2)]


def test_an_interrupted_run_goes_on(root: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write = coco_masks.write_labels

    def full(path: Path, mask: np.ndarray) -> None:
        if STEM(2) in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, mask)

    before = tree(root)
    with monkeypatch.context() as patch:
        patch.setattr(coco_masks, "write_labels", full)
        with pytest.raises(RunError, match=rf"{STEM(2)}.png cannot be written \(No space left on device\). Make room"):
            prepare(root, masks=["published"])
    assert not (root / "masks_published").exists()
    assert [name for name in tree(root) if name not in before and ".masks_published.partial" not in name] == []
    prepare(root, masks=["published"])
    assert sorted(drawn) == sorted([STEM(9), STEM(2), STEM(2), "COCO_val2014_000000000001"])
    assert not any(".partial" in name for name in tree(root))


def test_a_read_only_folder_is_told_to_root_too(root: Path) -> None:
    before = tree(root)
    root.chmod(0o555)
    try:
        with pytest.raises(RunError, match=rf"{root} cannot be written \(it is read-only\).*--data-root .*--sources"):
            prepare(root)
    finally:
        root.chmod(0o755)
    assert tree(root) == before


@pytest.mark.parametrize("name", ["masks_published", "masks_complete", "sets"])
def test_folders_of_others_are_not_replaced(root: Path, name: str) -> None:
    (root / name).mkdir()
    (root / name / "own.txt").touch()
    before = tree(root)
    with pytest.raises(InputError, match=rf"{name} was not made by `ncdss prepare coco20i`.*move it away"):
        prepare(root)
    assert tree(root) == before


def test_a_replaced_mask_of_another_size_is_refused(root: Path) -> None:
    prepare(root)
    Image.new("L", (3, 3)).save(root / "masks_complete" / f"{STEM(2)}.png")
    with pytest.raises(InputError, match=rf"masks_complete/{STEM(2)}.png is 3x3 pixels. Expected 20x12.*remove .* and run again"):
        prepare(root)


# --- what is refused ------------------------------------------------------------------------------------------------------------


def _set(*path: Any, to: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        *way, last = path
        for key in way:
            content = content[key]
        content[last] = to

    return change


def _without(*path: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        *way, last = path
        for key in way:
            content = content[key]
        del content[last]

    return change


SEGMENTATION = ("annotations", 0, "segmentation")
BAD: list[tuple[Callable[[Content], None], str]] = [
    (_without("categories"), r"categories: Field required"),
    (_without("annotations"), r"annotations: Field required"),
    (_without("annotations", 1, "image_id"), r"annotations.1.image_id: Field required"),
    (_without("annotations", 1, "segmentation"), r"annotations.1.segmentation: Field required"),
    (_without("images", 0, "width"), r"images.0.width: Field required"),
    (_without("categories", 79), r"79 categories, none of its own for 'toothbrush'. Expected the 80 of COCO.*--dataset folder"),
    (_set("categories", 5, "id", to=1), r"80 categories, none of its own for 'person'"),
    (_set("categories", 0, "name", to="human"), r"80 categories, none of its own for 'person'"),
    (_set("annotations", 0, "category_id", to=12), r"annotation 1: category 12 is not among the categories"),
    (_set("annotations", 0, "image_id", to=99), r"annotation 1: image 99 is not among the images"),
    (_set("images", 1, "id", to=9), r"1 image ids occur more than once \(first: 9\)"),
    (_set("images", 1, "file_name", to=f"{STEM(9)}.jpg"), rf"1 file names occur more than once \(first: {STEM(9)}.jpg\)"),
    (_set("images", 0, "file_name", to="../evil.jpg"), r"images.0.file_name: String should match pattern .*jpg.* \(found '../evil.jpg'\)"),
    (_set("images", 0, "file_name", to="COCO_val2014_000000000001.jpg"), r"COCO_val2014_000000000001"),
    (_set(*SEGMENTATION, to=[[1, 2, 3, 4, 5, 6, 7]]), r"annotations.0.segmentation.0: a polygon of 7 numbers, not of x and y"),
    (_set(*SEGMENTATION, to=[1, 2, 3, 4, 5, 6]), r"annotations.0.segmentation.0: Input should be a valid array"),
    (_set(*SEGMENTATION, to=[[1, 2, 3, "x", 5, 6]]), r"annotations.0.segmentation.0.3: Input should be a valid number"),
    (_set(*SEGMENTATION, to=[[1, 2, float("nan"), 4, 5, 6]]), r"annotations.0.segmentation.0: the coordinate nan is no number of pixels"),
    (_set(*SEGMENTATION, to=[[1, 2, 1e9, 4, 5, 6]]), r"annotations.0.segmentation.0: the coordinate 1000000000.0 is no number"),
    (_set(*SEGMENTATION, to=None), r"annotations.0.segmentation: Input should be a valid array"),
    (_set("annotations", 3, "segmentation", "size", to=[20, 12]), r"annotation 4: its runs are for 12x20 pixels, its image has 20x12"),
    (_set("annotations", 3, "segmentation", "counts", to=[3, 5]), r"annotation 4: its runs cover 8 of 240 pixels"),
    (_set("annotations", 3, "segmentation", "counts", to=[]), r"annotation 4: its runs cover 0 of 240 pixels"),
    (_set("annotations", 3, "segmentation", "counts", to=[-3, 243]), r"annotations.3.segmentation.counts.0: .* equal to 0 \(found -3\)"),
    (_set("annotations", 3, "segmentation", "counts", to="zz~!"), r"annotation 4: (.* encoding is damaged|[Ii]nvalid RLE)"),
    (_set("annotations", 3, "segmentation", "counts", to=""), r"annotation 4: (.* encoding is damaged|[Ii]nvalid RLE)"),
    (_without("annotations", 3, "segmentation", "counts"), r"annotations.3.segmentation.counts: Field required"),
    (_set("annotations", 3, "iscrowd", to=2), r"annotations.3.iscrowd: Input should be 0 or 1"),
    (_set("annotations", to=[]), r"no image holds an object"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_annotations_are_named_and_leave_nothing(root: Path, change: Callable[[Content], None], message: str) -> None:
    content = json.loads(annotations_file(root).read_text())
    change(content)
    write_annotations(root, "train", content)
    before = tree(root)
    with pytest.raises(InputError, match=message) as caught:
        prepare(root)
    assert str(root) in str(caught.value)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: Invalid JSON"),
        ('{"images": [', "the file: Invalid JSON"),
        ("[1, 2]", "the file: Input should be an object"),
        ('{"images": 3}', "images: Input should be a valid array"),
        (b"\xff\xfe{", "the file: Invalid JSON"),
    ],
)
def test_no_json_is_refused(root: Path, text: str | bytes, message: str) -> None:
    annotations_file(root, "val").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"instances_val2014.json: .*{message}"):
        prepare(root)


def test_missing_photos_are_counted(root: Path) -> None:
    for number in (2, 9, 4):  # number 4 gets no mask: nobody misses it
        (root / "train2014" / f"{STEM(number)}.jpg").unlink()
    message = rf"instances_train2014.json annotates 2 images, but .*train2014 has no file for 2 of them \(first missing: {STEM(9)}.jpg\)"
    with pytest.raises(InputError, match=message):
        prepare(root)


def test_a_photo_of_another_size_is_refused(root: Path) -> None:
    Image.new("RGB", (10, 6)).save(root / "train2014" / f"{STEM(9)}.jpg")
    with pytest.raises(InputError, match=rf"{STEM(9)}.jpg is 10x6 pixels. Expected 20x12, the size of its annotations: get"):
        prepare(root)
    (root / "train2014" / f"{STEM(9)}.jpg").write_bytes(b"no photo")
    with pytest.raises(InputError, match=rf"{STEM(9)}.jpg cannot be read"):
        prepare(root)


@pytest.mark.parametrize(("masks", "message"), [(["complet"], "unknown masks 'complet': did you mean 'complete'")])
def test_unknown_masks_are_refused(root: Path, masks: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(root, masks=masks)


# --- the real photos ------------------------------------------------------------------------------------------------------------


def plain_published_mask(image: Content, annotations: list[Content], labels: dict[int, int]) -> np.ndarray:
    """The paper's rule once more, on the raw JSON."""
    mask = np.zeros((image["height"], image["width"]), np.uint8)
    for entry in annotations:
        if entry["image_id"] == image["id"] and not entry["iscrowd"]:
            points = [[int(x), int(y)] for x, y in zip(entry["segmentation"][0][::2], entry["segmentation"][0][1::2], strict=True)]
            cv2.fillPoly(mask, [np.array(points)], labels[entry["category_id"]])
    return mask


def annotated_mask(coco: COCO, image_id: int, labels: dict[int, int]) -> np.ndarray:
    """The complete rule once more, on pycocotools' masks and pixel counts."""
    found = [(entry, coco.annToMask(entry).astype(bool)) for entry in coco.imgToAnns[image_id]]
    mask = np.zeros(found[0][1].shape, np.uint8)
    for entry, region in found:
        if entry["iscrowd"]:
            mask[region] = 255
    for entry, region in sorted(found, key=lambda pair: pair[1].sum(), reverse=True):
        if not entry["iscrowd"]:
            mask[region] = labels[entry["category_id"]]
    return mask


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real photos at {REAL}; set NCDSS_SHARED_DATA")
def test_coco_mini_is_prepared_pixel_by_pixel(tmp_path: Path) -> None:
    summary = prepare(tmp_path, sources=REAL)
    table = rows(summary)
    assert (table["", "train", "all"][0], table["", "val", "all"][0]) == ("49", "48")
    several_parts = crowds = 0
    for split in ("train", "val"):
        path = annotations_file(REAL, split)
        content = json.loads(path.read_text())
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        labels = {category["id"]: label for label, category in enumerate(content["categories"], 1)}
        stems = (tmp_path / "sets" / f"{split}2014.txt").read_text().split()
        for entry in content["images"]:
            stem = entry["file_name"].removesuffix(".jpg")
            if stem not in stems:
                assert all(a["iscrowd"] for a in coco.imgToAnns[entry["id"]])
                assert not (tmp_path / "masks_published" / f"{stem}.png").exists()
                continue
            published, complete = (read(tmp_path / f"masks_{kind}" / f"{stem}.png") for kind in ("published", "complete"))
            np.testing.assert_array_equal(published, plain_published_mask(entry, copy.deepcopy(content["annotations"]), labels))
            np.testing.assert_array_equal(complete, annotated_mask(coco, entry["id"], labels))
            crowds += (complete == 255).any()
            several_parts += (published != complete).any()
    assert crowds > 3
    assert several_parts > 30


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real photos at {REAL}; set NCDSS_SHARED_DATA")
def test_novel_images_of_coco_mini(tmp_path: Path) -> None:
    prepare(tmp_path, sources=REAL)
    maps = {path.stem for path in (REAL / "saliency_supervised_model").iterdir()}
    novel = [set((tmp_path / "sets" / f"fold{fold}" / "train" / "novel.txt").read_text().split()) for fold in FOLDS]
    assert [len(stems & maps) for stems in novel] == [27, 18, 15, 32]
