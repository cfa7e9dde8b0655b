"""Lists, label ids, augmentation and COCO's masks, as published."""

from __future__ import annotations

import ast
import colorsys
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ncdss_lib.data.augmentation import augment, jitter_colours
from ncdss_lib.data.coco20i import Coco20i
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import ImageViews
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.prepare.coco_masks import prepare
from ncdss_lib.recipes import Recipe
from tests.data.fake_coco import make_fake_coco, run_lengths
from tests.faithful import plain
from tests.faithful.plain import data as published
from tests.prepare.fake_raw import annotation, box, image, make_coco

REPO = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data"))
PAPER = Recipe()


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"real photos are not here: {REAL / name}, or set NCDSS_SHARED_DATA")
    return REAL / name


def test_the_plain_implementations_know_nothing_of_the_library():
    for path in Path(plain.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        assert not [name for name in names if name.startswith("ncdss_lib")], path
        assert [name for name in names if name != "__future__"] or path.name == "__init__.py"


# --- lists and ids ----------------------------------------------------------------------------------------------------------------------


def masks_of(folder: Path, list_file: Path) -> dict[str, np.ndarray]:
    masks = {}
    for image_id in list_file.read_text().split():
        with Image.open(folder / f"{image_id}.png") as png:
            masks[image_id] = np.array(png)
    return masks


@pytest.fixture(scope="module", params=["drawn", "photos"])
def pascal(request: pytest.FixtureRequest, voc: Path) -> Path:
    return voc if request.param == "drawn" else real("pascal_mini")


@pytest.fixture(scope="module")
def pascal_masks(pascal: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    folder = pascal / "SegmentationClassAug"
    return masks_of(folder, pascal / "sets" / "trainaug.txt"), masks_of(folder, pascal / "sets" / "val.txt")


@pytest.mark.parametrize("fold", range(5))
def test_pascal_lists_and_ids(fold, pascal, pascal_masks):
    """Exact: ids and integers."""
    data, novel_ids = Pascal5i(pascal, None), published.PASCAL_FOLDS[fold]
    labels = label_space(data, fold)
    found, expected = make_splits(data, labels, base_list=PAPER.data.base_list), published.pascal_lists(*pascal_masks, novel_ids)
    assert found.novel == expected["novel"]
    assert found.base == expected["base"]
    assert found.base_train == expected["base_train"]
    assert found.val == sorted(pascal_masks[1])
    base_ids = [i for i in range(1, 21) if i not in novel_ids]
    assert list(labels.names[1:]) == [published.VOC_NAMES[i - 1] for i in [*base_ids, *novel_ids]]
    for image_id, mask in [*pascal_masks[0].items()][:60]:
        for hide in (False, True):
            expected_ids = published.reindexed(mask, 20, novel_ids, hide_novel=hide)
            np.testing.assert_array_equal(read_truth(data, labels, image_id, hide_novel=hide), expected_ids)
        np.testing.assert_array_equal(labels.to_original(labels.to_contiguous(mask)), mask)


@pytest.mark.parametrize("fold", range(4))
def test_coco_lists_and_ids(fold, tmp_path):
    """Exact. Base training takes every image with a base class, fine-tuning those of them without a novel one."""
    make_fake_coco(tmp_path / "coco", train=40, val=4)
    masks = masks_of(tmp_path / "coco" / "masks_published", tmp_path / "coco" / "sets" / "train2014.txt")
    data = Coco20i(tmp_path / "coco", None, masks=PAPER.data.coco_masks)
    labels, expected = label_space(data, fold), published.coco_lists(masks, published.COCO_FOLDS[fold])
    found = make_splits(data, labels, base_list=PAPER.data.base_list)
    assert {"novel": found.novel, "base": found.base, "base_train": found.base_train} == expected
    assert set(expected["base_train"]) & set(expected["novel"])  # they overlap
    for image_id, mask in masks.items():
        np.testing.assert_array_equal(read_truth(data, labels, image_id), published.reindexed(mask, 80, published.COCO_FOLDS[fold]))


# --- the network's input ----------------------------------------------------------------------------------------------------------------


class Drawn:
    """Stands in for a random generator: gives the angle, the scale and the flip that it was told, and notes from where they are drawn."""

    def __init__(self, angle: float, scale: float, flip: bool) -> None:
        self.angle, self.scale, self.flip, self.ranges = angle, scale, flip, set()

    def uniform(self, low: float, high: float) -> float:
        self.ranges.add((low, high))
        return self.angle if low < 0 else self.scale

    def random(self) -> float:
        return 0.4999 if self.flip else 0.5


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (48, 64), (512, 512), (281, 500)])
@pytest.mark.parametrize(("angle", "scale", "flip"), [(-5.0, 0.75, False), (3.3, 1.25, True), (0.0, 1.0, True), (4.9, 0.9, False)])
def test_augmentation_is_the_published_chain(height, width, angle, scale, flip):
    """Exact: the same operations on uint8. These are sizes at which OpenCV's nearest resize is free of rounding errors."""
    rng = np.random.default_rng(height + width)
    picture, mask = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), rng.integers(0, 21, (height, width), dtype=np.uint8)
    drawn = Drawn(angle, scale, flip)
    found = augment(picture, mask, PAPER.data, drawn)
    expected = published.augmented(picture, mask, angle=angle, scale=scale, flip=flip, size=512)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert drawn.ranges == {(-5, 5), (0.75, 1.25)}


def test_nearest_resizing_is_that_of_opencv_but_for_its_rounding_errors():
    """OpenCV multiplies by a rounded reciprocal: where i * old / new is an integer, it may take the pixel before. Nowhere else."""
    different = 0
    for old, new in [(size, 512) for size in range(60, 641)] + [(512, size) for size in range(60, 641)]:
        row = np.arange(old, dtype=np.uint16)[None].repeat(2, 0)
        ours, opencv = (
            resize_labels(row, (2, new))[0].astype(int),
            cv2.resize(row, (new, 2), interpolation=cv2.INTER_NEAREST)[0].astype(int),
        )
        np.testing.assert_array_equal(ours, published.nearest(row, 2, new)[0])
        np.testing.assert_array_equal(ours, resize_labels(row.T, (new, 2))[:, 0])
        wrong = np.flatnonzero(ours != opencv)
        assert (wrong * old % new == 0).all()
        assert (opencv[wrong] == ours[wrong] - 1).all()
        different += len(wrong)
    assert different < 100  # of 595,000 rows


def test_the_input_of_inference_is_the_resized_image(voc):
    data = Pascal5i(voc, None)
    views = ImageViews(data, PAPER.data.model_copy(update={"workers": 0}))
    ((ids, found),) = views.clean(data.val_ids[:2], 2)
    for image_id, x in zip(ids, found, strict=True):
        with Image.open(voc / "images" / f"{image_id}.jpg") as photo:
            expected = published.resized(np.array(photo.convert("RGB")), 512)
        np.testing.assert_array_equal(x.permute(1, 2, 0).numpy(), expected)


class Keep(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_normalisation():
    """To float32's rounding of values up to 2.7."""
    encoder = Encoder(PAPER.model.model_copy(update={"weights": "none"}))
    encoder.backbone = Keep()
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = encoder(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(found.numpy(), published.normalised(picture), rtol=0, atol=1e-6)


def test_the_strong_view_is_always_jittered_as_published():
    """ColorJitter(0.5, 0.5, 0.5, 0.25). Grey shows the brightness alone, a colour the hue alone; 8 bits round both."""
    grey, red = np.full((4, 4, 3), 128, np.uint8), np.broadcast_to(np.array([160, 64, 64], np.uint8), (4, 4, 3)).copy()
    brightness = np.array([jitter_colours(grey, PAPER.data, seed)[0, 0, 0] / 128 for seed in range(200)])
    assert 0.5 - 0.02 <= brightness.min() < 0.55
    assert 1.45 < brightness.max() <= 1.5 + 0.02
    hues = np.array([colorsys.rgb_to_hsv(*jitter_colours(red, PAPER.data, seed)[0, 0] / 255)[0] for seed in range(200)])
    hues = (hues + 0.5) % 1 - 0.5
    assert -0.27 <= hues.min() < -0.22
    assert 0.22 < hues.max() <= 0.27
    assert not any(np.array_equal(jitter_colours(red, PAPER.data, seed), red) for seed in range(200))


# --- COCO's masks -----------------------------------------------------------------------------------------------------------------------


def rounded_things(rng: np.random.Generator, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Overlapping objects of one to three polygons with fractional coordinates, some beyond the edge; crowds of both kinds."""
    things: list[dict[str, Any]] = []
    for entry in images:
        for _ in range(rng.integers(0, 5)):
            corners = [rng.uniform(-3, 23, (rng.integers(3, 7), 2)).round(2).ravel().tolist() for _ in range(rng.integers(1, 4))]
            crowd = int(rng.random() < 0.2)
            region = np.zeros((entry["height"], entry["width"]), bool)
            region[2:9, 3:11] = True
            rle = {"size": list(region.shape), "counts": run_lengths(region)}
            shape = rle if crowd and rng.random() < 0.5 else corners
            things.append(annotation(len(things) + 1, entry["id"], int(rng.integers(1, 81)), shape, crowd=crowd))
    return [things[i] for i in rng.permutation(len(things))]


def assert_masks_and_lists(root: Path, source: Path) -> None:
    for split in ("train", "val"):
        content = json.loads((source / "annotations" / f"instances_{split}2014.json").read_text())
        expected = published.coco_masks(content)
        stems = (root / "sets" / f"{split}2014.txt").read_text().split()
        assert stems == sorted(expected)  # an image without an object that is no crowd has no mask
        for stem, mask in masks_of(root / "masks_published", root / "sets" / f"{split}2014.txt").items():
            np.testing.assert_array_equal(mask, expected[stem])
        for fold, novel_ids in published.COCO_FOLDS.items():
            lists = {n: (root / "sets" / f"fold{fold}" / split / f"{n}.txt").read_text().split() for n in ("base", "novel")}
            wanted = published.coco_lists(expected, novel_ids)
            assert lists == {"base": wanted["base_train"], "novel": wanted["novel"]}


@pytest.mark.parametrize("seed", range(3))
def test_published_coco_masks_of_random_polygons(seed, tmp_path):
    """Exact."""
    rng = np.random.default_rng(seed)
    contents = {}
    for split, count in (("train", 12), ("val", 6)):
        images = [image(i, split) for i in range(1, count + 1)]
        always = [annotation(1000 + i["id"], i["id"], 80, [box(1.9, 1.1, 7.9, 4.5), box(12, 2, 15, 9)]) for i in images[:2]]
        contents[split] = (images, rounded_things(rng, images) + always)
    root = make_coco(tmp_path / "coco", contents)
    prepare(root, masks=("published",))
    assert_masks_and_lists(root, root)


def test_published_coco_masks_of_real_annotations(tmp_path):
    source = real("coco_mini")
    (tmp_path / "coco").mkdir()
    prepare(tmp_path / "coco", sources=source, masks=("published",))
    assert_masks_and_lists(tmp_path / "coco", source)
