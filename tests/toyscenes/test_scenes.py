"""The drawings: one scene for one seed at any size, and honest masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from toyscenes import CLASSES, FOLDS, VERSION, render_scene
from toyscenes.canvas import Canvas, light_ramp
from toyscenes.scenes import compose, with_rim


def classes_of(mask: np.ndarray) -> list[int]:
    return [c for c in np.unique(mask).tolist() if c not in (0, 255)]


def test_twenty_classes_in_four_folds():
    assert len(set(CLASSES)) == 20
    assert sorted(c for ids in FOLDS.values() for c in ids) == list(range(1, 21))


@pytest.mark.parametrize("seed", [7, (1, 7), [3, 1, 4]])
def test_a_seed_gives_one_scene(seed):
    np.random.seed(0)  # noqa: NPY002  the global generator has no say
    one = render_scene(seed, 64)
    np.random.seed(1)  # noqa: NPY002
    two = render_scene(seed, 64)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.mask, two.mask)
    np.testing.assert_array_equal(one.saliency, two.saliency)
    assert one.objects == two.objects
    assert (render_scene(12345, 64).image != one.image).mean() > 0.5


def test_shapes_dtypes_and_ids(scenes):
    for scene in scenes:
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        assert scene.saliency is None or (scene.saliency.dtype == bool and scene.saliency.shape == scene.mask.shape)
        assert set(np.unique(scene.mask)) <= {0, *range(1, 21), 255}
        assert set(classes_of(scene.mask)) == {class_id for class_id, _ in scene.objects} != set()


def test_every_class_is_common(scenes):
    counts = np.bincount([c for scene in scenes for c in classes_of(scene.mask)], minlength=21)[1:]
    assert counts.min() >= 2
    several = np.mean([len(scene.objects) > 1 for scene in scenes])
    assert 0.3 < several < 0.6


def test_objects_are_large_enough_to_be_learnt(scenes):
    main = [max((scene.mask == c).mean() for c in classes_of(scene.mask)) for scene in scenes]
    assert 0.15 < np.median(main) < 0.3
    assert min(main) > 0.03


def test_the_rim_lies_outside_of_what_is_in_front():
    owner = np.zeros((64, 64), np.uint8)
    owner[10:30, 10:30] = 1  # class 5, behind
    owner[20:40, 20:40] = 2  # class 8, in front
    owner[50:52, 5:60] = 3  # class 5, two pixels thin: keeps its label
    owner[35:38, 35:38] = 4  # a distractor in front of it all
    mask = with_rim(np.array([0, 5, 8, 5, 0], np.uint8)[owner], owner)
    np.testing.assert_array_equal(mask[15, 8:33], [0, 255] + [5] * 20 + [255, 0, 0])
    np.testing.assert_array_equal(mask[25, 17:24], [5, 5, 255, 8, 8, 8, 8])
    np.testing.assert_array_equal(mask[48:54, 30], [0, 255, 5, 5, 255, 0])
    np.testing.assert_array_equal(mask[36, 33:43], [8, 8, 255, 0, 255, 8, 8, 255, 0, 0])


@pytest.mark.parametrize("size", [32, 64, 200])
def test_another_size_shows_the_same_scene(size):
    agreement, colour = [], []
    for i in range(8):
        small, large = render_scene((4, i), size), render_scene((4, i), 256)
        near = np.asarray(Image.fromarray(large.mask).resize((size, size), Image.Resampling.NEAREST))
        judged = (near < 255) & (small.mask < 255)
        agreement.append((near == small.mask)[judged].mean())
        shrunk = np.asarray(Image.fromarray(large.image).resize((16, 16), Image.Resampling.BOX), float)
        colour.append(np.abs(shrunk - np.asarray(Image.fromarray(small.image).resize((16, 16), Image.Resampling.BOX), float)).mean())
        assert {c for c, _ in small.objects} == {c for c, _ in large.objects}
    assert min(agreement) > 0.97
    assert max(colour) < 10


@pytest.mark.parametrize("size", [31, 0, -5])
def test_too_small_is_refused(size):
    with pytest.raises(ValueError, match="size >= 32"):
        render_scene(0, size)


def test_boxes_enclose_what_is_seen(scenes):
    for scene in scenes[:40]:
        inside = np.zeros(scene.mask.shape, bool)
        for _, (left, top, right, bottom) in scene.objects:
            inside[top:bottom, left:right] = True
        assert inside[(scene.mask > 0) & (scene.mask < 255)].all()


def test_painters_stay_on_their_canvas():
    """A painter that draws beyond the canvas would be cut off by a straight line."""
    light = light_ramp(270)
    for i in range(150):
        for thing in compose(np.random.default_rng([77, i]), horizon=0.5):
            canvas = Canvas(thing.rng, thing.pose, 48, light, detail=1)
            thing.paint(canvas)
            cover = np.asarray(canvas.cover)
            edges = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
            assert not edges.any(), thing


def test_changed_scenes_need_a_new_version():
    """When this fails on purpose: raise VERSION, so that no cache holds old scenes, and set the figures anew."""
    expected = {(0, 0): {1: 557, 4: 321, 20: 267}, (0, 1): {17: 604, 18: 188}, (0, 2): {13: 846}}
    assert VERSION == 1
    for seed, areas in expected.items():
        mask = render_scene(seed, 64).mask
        found = {c: int((mask == c).sum()) for c in classes_of(mask)}
        assert found == pytest.approx(areas, abs=12)  # another Pillow may fill a few pixels differently
