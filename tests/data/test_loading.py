"""What the network is shown: nearest resize, one geometry for image and labels, borders, order, seeds."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncdss_lib.data.augmentation import augment, resize_image
from ncdss_lib.data.loading import ImageViews, Source
from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.models.cached_features import feature_cache_key, load_view
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.recipes import Data, load_recipe
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.errors import InputError
from tests.conftest import TINY_LAPTOP
from tests.data.fake_voc import make_fake_voc

# --- resizing ---------------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 90), st.integers(1, 90))
def test_labels_are_resized_to_the_pixel_at_or_before(height, width, new_height, new_width):
    """OpenCV's nearest: source index floor(i * old / new), in exact arithmetic."""
    rows, columns = np.arange(height, dtype=np.uint8), np.arange(width, dtype=np.uint8)
    down = resize_labels(np.repeat(rows[:, None], width, 1), (new_height, new_width))
    right = resize_labels(np.repeat(columns[None], height, 0), (new_height, new_width))
    assert down[:, 0].tolist() == [i * height // new_height for i in range(new_height)]
    assert right[0].tolist() == [i * width // new_width for i in range(new_width)]
    assert (down == down[:, :1]).all()
    assert (right == right[:1]).all()


def test_a_known_nearest_resize():
    labels = np.array([[1, 2, 3], [4, 5, 255]], np.uint8)
    assert resize_labels(labels, 4).tolist() == [[1, 1, 2, 3], [1, 1, 2, 3], [4, 4, 5, 255], [4, 4, 5, 255]]
    assert resize_labels(labels > 3, (1, 3)).tolist() == [[False, False, False]]


@pytest.mark.parametrize(("height", "width"), [(5, 13), (90, 64), (1, 7), (600, 40)])
def test_images_are_resized_by_opencv(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = resize_image(image[:, ::-1], 64)  # a view of a picture is as good as a picture
    np.testing.assert_array_equal(found, cv2.resize(np.ascontiguousarray(image[:, ::-1]), (64, 64), interpolation=cv2.INTER_CUBIC))


def cubic(x: float, a: float = -0.75) -> float:
    """The cubic convolution kernel of OpenCV."""
    x = abs(x)
    return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def test_the_resize_is_cubic_without_anti_aliasing():
    image = np.random.default_rng(0).integers(80, 176, (5, 13, 3), dtype=np.uint8)  # nothing overshoots 0 or 255

    def matrix(old: int, new: int) -> np.ndarray:
        weights = np.zeros((new, old))
        for i in range(new):
            x = (i + 0.5) * old / new - 0.5
            for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                weights[i, min(max(tap, 0), old - 1)] += cubic(x - tap)
        return weights

    expected = np.einsum("ij,jkc,lk->ilc", matrix(5, 8), image.astype(float), matrix(13, 8))
    found = resize_image(image, 8)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 2  # 8-bit weights, rounded after each direction


# --- order of the images ----------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000), st.integers(0, 50))
def test_batches_are_shuffled_passes_over_the_list(images, batch, steps, seed, epoch):
    ids = [f"i{n}" for n in range(images)]
    source = Source("a", ids, None, batch)
    batches = source.batches(seed, epoch, steps)
    assert [len(b) for b in batches] == [batch] * steps
    order = [i for b in batches for i in b]
    for start in range(0, len(order), images):
        one_pass = order[start : start + images]
        assert len(set(one_pass)) == len(one_pass)  # nothing twice before everything was seen
    counts = Counter(order)
    assert set(counts) <= set(ids)
    assert max(counts.values()) - min(counts.get(i, 0) for i in ids) <= 1
    assert source.batches(seed, epoch, steps) == batches


def test_order_follows_seed_epoch_and_name():
    source = Source("a", list(map(str, range(50))), None, 5)
    orders = [
        source.batches(0, 0, 10),
        source.batches(1, 0, 10),
        source.batches(0, 1, 10),
        Source("b", source.ids, None, 5).batches(0, 0, 10),
    ]
    assert len({str(order) for order in orders}) == 4


# --- augmentation -----------------------------------------------------------------------------------------------------------------------

#: Three colours far from each other and from black, by label.
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def coloured_mask() -> np.ndarray:
    mask = np.full((90, 120), 1, np.uint8)
    mask[20:70, 30:70] = 2
    mask[40:80, 60:110] = 3
    return mask


class OneImage:
    """A data set of one image, which is its own label map in colours."""

    def image(self, image_id: str) -> np.ndarray:
        return COLOURS[coloured_mask()]


def data(**settings: object) -> Data:
    return Data(size=64, target_size=64, workers=0, **settings)  # type: ignore[arg-type]


def views(**settings: object) -> ImageViews:
    return ImageViews(OneImage(), data(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_image_and_labels_share_one_geometry(seed):
    """Where the image is clearly one colour, the label map holds that colour's label; borders are black and 0."""
    image, target = augment(COLOURS[coloured_mask()], coloured_mask(), data(rotation=30.0, scale=(0.6, 1.4)), np.random.default_rng(seed))
    assert image.shape == (64, 64, 3)
    assert image.dtype == target.dtype == np.uint8
    distance = torch.from_numpy(np.abs(image[None].astype(int) - COLOURS[:, None, None].astype(int)).sum(3))
    nearest, label = distance.min(0)
    target = torch.from_numpy(target)
    clear = nearest < 40
    assert clear.float().mean() > 0.7
    # Labels are resized to the pixel at or before, images about pixel centres: up to a pixel apart along edges.
    wrong = clear & (label != target)
    assert wrong.float().mean() < 0.05
    inner = torch.nn.functional.max_pool2d(-nearest[None].float(), 5, 1, 2)[0] > -40
    interior = clear & inner & (torch.nn.functional.avg_pool2d(label[None].float(), 5, 1, 2)[0] == label)
    assert interior.float().mean() > 0.3
    assert (label[interior] == target[interior]).all()


def test_a_flip_alone_is_exact():
    mask = coloured_mask()[:64, :64]
    unchanged = {"rotation": 0.0, "scale": (1.0, 1.0)}
    for flip in (0.0, 1.0):
        image, target = augment(COLOURS[mask], mask, data(flip=flip, **unchanged), np.random.default_rng(0))
        expected = mask[:, ::-1] if flip else mask
        np.testing.assert_array_equal(target, expected)
        np.testing.assert_array_equal(image, COLOURS[expected])


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_is_flip_warp_and_resize_as_published(seed):
    """As published, written out: cubic for the image and nearest for labels, at original size about the centre, then to 512 x 512."""
    rng = np.random.default_rng(seed)
    image, labels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), rng.integers(0, 21, (90, 120), dtype=np.uint8)
    found, target = augment(image, labels, Data(), np.random.default_rng([seed, 1]))

    rng = np.random.default_rng([seed, 1])
    angle, scale, flip = rng.uniform(-5, 5), rng.uniform(0.75, 1.25), rng.random() < 0.5
    matrix = cv2.getRotationMatrix2D((60, 45), angle, scale)
    for pixels, interpolation, result in ((image, cv2.INTER_CUBIC, found), (labels, cv2.INTER_NEAREST, target)):
        pixels = np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels
        warped = cv2.warpAffine(pixels, matrix, (120, 90), flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        np.testing.assert_array_equal(result, cv2.resize(warped, (512, 512), interpolation=interpolation))


@pytest.mark.parametrize("border", [0, 255])
def test_the_uncovered_border_is_black_and_filled_with_the_chosen_label(border):
    """At scale .75 the uncovered area is 43.75 %."""
    shrunk = data(rotation=0.0, scale=(0.75, 0.75), label_border=border)
    image, target = augment(np.full((128, 128, 3), 200, np.uint8), np.full((128, 128), 7, np.uint8), shrunk, np.random.default_rng(0))
    assert (target == border).mean() == pytest.approx(0.4375, abs=1e-3)
    assert ((target == border) | (target == 7)).all()
    assert image[:7].max() == 0
    assert (image[12:52, 12:52] == 200).all()


def test_targets_may_be_smaller_than_images():
    small = Data(size=64, target_size=16, rotation=0.0, scale=(1.0, 1.0), flip=0.0)
    _, target = augment(COLOURS[coloured_mask()], coloured_mask(), small, np.random.default_rng(0))
    np.testing.assert_array_equal(target, resize_labels(coloured_mask(), 16))


def test_weak_and_strong_have_the_same_geometry():
    quiet = views(rotation=30.0, jitter=(0.0, 0.0, 0.0, 0.0)).sample(Source("u", ["x"], None, 1), "x", (0, 0, 0))
    np.testing.assert_array_equal(quiet["weak"], quiet["strong"])
    loud = views(rotation=30.0).sample(Source("u", ["x"], None, 1), "x", (0, 0, 0))
    np.testing.assert_array_equal(loud["weak"], quiet["weak"])
    assert not np.array_equal(loud["weak"], loud["strong"])


def test_samples_are_seeded_and_leave_the_global_generators_alone():
    source = Source("u", ["x"], None, 1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state()
    one = [views().sample(source, "x", key)["strong"] for key in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    np.testing.assert_array_equal(one[0], one[1])
    assert not any(np.array_equal(one[0], other) for other in one[2:])
    assert torch.equal(before, torch.get_rng_state())


# --- loading --------------------------------------------------------------------------------------------------------------------------


def samples(data: Pascal5i, workers: int) -> list[dict[str, torch.Tensor]]:
    labels = label_space(data, 0)
    view = ImageViews(data, Data(size=32, target_size=32, workers=workers))
    labelled = Source("base", data.train_ids, lambda i: labels.to_contiguous(data.mask(i)), 3)
    unlabelled = Source("unclean", data.train_ids, None, 3)
    plans = {source.name: source.batches(1, 2, 3) for source in (labelled, unlabelled)}
    steps = [{name: plan[step] for name, plan in plans.items()} for step in range(3)]
    found = list(view.train_loader((labelled, unlabelled))(steps, 1, 2))
    return [step[name] for name in plans for step in found]


def test_loading_processes_give_the_same_samples(voc):
    data = Pascal5i(voc, None)
    here, there = samples(data, 0), samples(data, 2)
    assert len(here) == len(there) == 6
    for one, two in zip(here, there, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert here[0]["x"].shape == (3, 3, 32, 32)
    assert here[0]["x"].dtype == torch.uint8
    assert here[0]["x"].is_contiguous(memory_format=torch.channels_last)
    assert here[0]["y"].shape == (3, 32, 32)
    assert here[0]["y"].dtype == torch.uint8
    assert set(here[3]) == {"weak", "strong"}
    assert not torch.equal(here[0]["x"][0], here[0]["x"][1])


def test_loading_processes_live_for_the_whole_training_and_are_shared_by_its_lists(voc):
    data = Pascal5i(voc, None)

    def process(image_id: str) -> np.ndarray:
        return np.full(data.mask(image_id).shape, os.getpid() % 251, np.uint8)

    sources = [Source(name, data.train_ids, process, 2) for name in ("base", "clean", "other")]
    view = ImageViews(data, Data(size=32, target_size=32, rotation=0.0, scale=(1.0, 1.0), workers=2))
    load_epoch = view.train_loader(sources)
    seen = []
    for epoch in range(3):
        steps = [{source.name: batch for source in sources} for batch in sources[0].batches(0, epoch, 6)]
        seen.append({int(value) for step in load_epoch(steps, 0, epoch) for batch in step.values() for value in batch["y"].unique()})
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 2
    assert os.getpid() % 251 not in seen[0]


def test_an_epoch_that_is_broken_off_does_not_leak_into_the_next(voc):
    data = Pascal5i(voc, None)
    source = Source("u", data.train_ids, None, 2)
    load_epoch = ImageViews(data, Data(size=32, target_size=32, workers=2)).train_loader([source])
    steps = [{"u": batch} for batch in source.batches(0, 0, 5)]
    whole = list(load_epoch(steps, 0, 1))
    next(iter(load_epoch(steps, 0, 0)))
    again = list(load_epoch(steps, 0, 1))
    assert all(torch.equal(a["u"]["strong"], b["u"]["strong"]) for a, b in zip(whole, again, strict=True))


def test_loading_processes_default_to_the_cores(voc, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(24), raising=False)
    view = ImageViews(Pascal5i(voc, None), Data())
    assert view.workers == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert view.workers == 6
    assert ImageViews(view.data, Data(workers=3)).workers == 3


def test_clean_inputs_come_in_order(voc):
    data = Pascal5i(voc, None)
    found = list(ImageViews(data, Data(size=32, workers=0)).clean(data.val_ids, 3))
    assert [i for ids, _ in found for i in ids] == data.val_ids
    assert [len(ids) for ids, _ in found] == [len(x) for _, x in found] == [3, 3, 2]
    np.testing.assert_array_equal(found[1][1][1].permute(1, 2, 0).numpy(), resize_image(data.image(data.val_ids[4]), 32))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line_also_from_a_loading_process(tmp_path, workers):
    make_fake_voc(tmp_path / "voc", train=8, val=2)
    data = Pascal5i(tmp_path / "voc", None)
    path = tmp_path / "voc" / "images" / f"{data.train_ids[1]}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    view = ImageViews(data, Data(size=32, target_size=32, workers=workers))
    load_epoch = view.train_loader([Source("u", data.train_ids, None, 2)])
    for batches in (view.clean(data.train_ids, 2), load_epoch([{"u": data.train_ids[:2]}], 0, 0)):
        with pytest.raises(InputError) as caught:
            list(batches)
        assert str(caught.value).startswith(f"{path} cannot be read")
        assert "\n" not in str(caught.value)


# --- cached features --------------------------------------------------------------------------------------------------------------------


def test_cached_features_are_those_of_the_images_whatever_the_masks(tmp_path):
    make_fake_voc(tmp_path / "voc", train=8, val=2)
    config, model = Data(), load_recipe("laptop").model

    def key() -> dict:
        return feature_cache_key(Pascal5i(tmp_path / "voc", None), config, model)

    before, image_id = key(), Pascal5i(tmp_path / "voc", None).train_ids[0]
    (tmp_path / "voc" / "SegmentationClassAug" / f"{image_id}.png").touch()
    (tmp_path / "voc" / "saliency_supervised_model" / f"{image_id}.png").unlink()
    assert key() == before
    (tmp_path / "voc" / "images" / f"{image_id}.jpg").write_bytes(b"another")
    assert key() != before


def test_cached_views_are_of_the_augmented_images(voc):
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", None, TINY_LAPTOP)
    encoder, config, image_id = Encoder(run.recipe.model).eval(), run.recipe.data, run.splits.novel[1]
    views = ("clean", "flip", "jitter", "flip_jitter")
    pictures = {view: load_view(run.data, config, view, image_id) for view in views}
    np.testing.assert_array_equal(pictures["clean"], resize_image(run.data.image(image_id), 64))
    np.testing.assert_array_equal(pictures["flip"], pictures["clean"][:, ::-1])
    assert not np.array_equal(pictures["jitter"], pictures["clean"])
    for view, picture in pictures.items():
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])
        found = run.views.cache.read([view], [image_id]).float()  # type: ignore[attr-defined]
        span = expected.amax((2, 3), keepdim=True) - expected.amin((2, 3), keepdim=True)
        assert ((found - expected).abs() <= span / 510 + expected.abs() * 2**-9 + 2e-3).all()  # eight bits, see to_rows


@pytest.mark.parametrize("flip", [0.0, 1.0, 0.5])
def test_flipped_features_come_with_flipped_targets(voc, flip):
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", None, [*TINY_LAPTOP, f"data.flip={flip}"])
    ids = run.splits.base[:6]
    cache = run.views.cache  # type: ignore[attr-defined]
    seen = set()
    for epoch in range(3):
        (step,) = run.views.train_loader([Source("base", ids, run.truth, 6)])([{"base": ids}], 0, epoch)
        batch = step["base"]
        clean, flipped = cache.read(["clean"] * 6, ids), cache.read(["flip"] * 6, ids)
        for x, y, plain, mirrored, image_id in zip(batch["x"], batch["y"], clean, flipped, ids, strict=True):
            is_flipped = torch.equal(x, mirrored)
            assert is_flipped or torch.equal(x, plain)
            target = resize_labels(run.truth(image_id), 16)
            np.testing.assert_array_equal(y.numpy(), target[:, ::-1] if is_flipped else target)
            seen.add(is_flipped)
    assert seen == {0.0: {False}, 1.0: {True}, 0.5: {False, True}}[flip]


def test_strong_cached_views_have_the_geometry_of_the_weak_ones(voc):
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", None, TINY_LAPTOP)
    ids = run.splits.novel[:6]
    cache = run.views.cache  # type: ignore[attr-defined]
    (step,) = run.views.train_loader([Source("unclean", ids, None, 6)])([{"unclean": ids}], 0, 0)
    batch = step["unclean"]
    for weak, strong, i in zip(batch["weak"], batch["strong"], ids, strict=True):
        suffix = "flip" if torch.equal(weak, cache.read(["flip"], [i])[0]) else "clean"
        assert torch.equal(weak, cache.read([suffix], [i])[0])
        assert torch.equal(strong, cache.read(["flip_jitter" if suffix == "flip" else "jitter"], [i])[0])


def test_read_labels_gives_indices_not_colours(tmp_path, voc):
    path = next(Path(voc / "SegmentationClassAug").glob("*.png"))
    assert set(np.unique(read_labels(path))) <= {*range(21), 255}
