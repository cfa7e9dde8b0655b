"""The gate against its definition, part by part and pixel by pixel; borders that follow the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ncdss_lib.method.refinement import connected_parts, follow_edges, gate, guided_filter, part_totals


def logits(seed: int = 0, images: int = 3, classes: int = 5, side: int = 9) -> torch.Tensor:
    drawn = torch.randn(images, classes, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(3 * drawn, (side, side), mode="bilinear")


def by_hand(image: np.ndarray, kind: str, strength: float) -> np.ndarray:
    """One image, float [C, H, W] probabilities, in plain loops."""
    classes, height, width = image.shape
    parts, _ = ndimage.label(image.argmax(0) > 0)
    gated = image.copy()
    for y in range(height):
        for x in range(width):
            if kind == "part" and not parts[y, x]:
                continue
            region = parts == parts[y, x] if kind == "part" else np.ones((height, width), bool)
            totals = [image[c][region].sum() for c in range(1, classes)]
            weights = [(total / max(totals)) ** strength for total in totals]
            weighed = [image[c, y, x] * weights[c - 1] for c in range(1, classes)]
            for c in range(1, classes):
                gated[c, y, x] = weighed[c - 1] / sum(weighed) * image[1:, y, x].sum()
    return gated


@pytest.mark.parametrize("kind", ["image", "part"])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_it_is_what_the_loops_say(kind, strength):
    found = gate(logits(), kind, strength).exp().numpy()
    expected = [by_hand(image.double().numpy(), kind, strength) for image in logits().softmax(1)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from(["image", "part"]), st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_background_keeps_its_probability_and_all_sum_to_one(seed, kind, strength):
    before = logits(seed).softmax(1)
    after = gate(logits(seed), kind, strength).exp()
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after.sum(1), torch.ones_like(after[:, 0]), rtol=1e-4, atol=1e-5)


def test_none_and_strength_0_change_nothing():
    torch.testing.assert_close(gate(logits(), "none", 2.0), logits(), rtol=0, atol=0)
    for kind in ("image", "part"):
        same = gate(logits(), kind, 0.0)
        torch.testing.assert_close(same, logits().log_softmax(1), rtol=1e-4, atol=1e-4)


def test_one_object_gets_one_class():
    """A part that is mostly class 1 with a flicker of class 2 is class 1 throughout."""
    probability = torch.full((1, 3, 8, 8), 0.05)
    probability[0, 0] = 0.9
    probability[0, :, 2:6, 2:6] = torch.tensor([0.1, 0.6, 0.3]).view(3, 1, 1)
    probability[0, :, 3, 3] = torch.tensor([0.1, 0.3, 0.6])
    gated = gate(probability.log(), "part", 2.0).argmax(1)[0]
    assert set(gated[2:6, 2:6].flatten().tolist()) == {1}
    assert gated[0].sum() == 0


def test_two_parts_keep_their_own_classes_and_an_image_gives_one():
    probability = torch.full((1, 3, 6, 12), 0.05)
    probability[0, 0] = 0.9
    probability[0, :, 1:5, 1:5] = torch.tensor([0.1, 0.7, 0.2]).view(3, 1, 1)
    probability[0, :, 2:4, 9:11] = torch.tensor([0.1, 0.35, 0.55]).view(3, 1, 1)
    parts = gate(probability.log(), "part", 2.0).argmax(1)[0]
    assert (parts[2, 2], parts[2, 9]) == (1, 2)
    image = gate(probability.log(), "image", 2.0).argmax(1)[0]
    assert (image[2, 2], image[2, 9]) == (1, 1)


def test_parts_are_numbered_through_the_batch_and_do_not_leak_between_images():
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = mask[0, 3, 3] = mask[1, 0, :2] = True
    parts = connected_parts(mask)
    assert parts[0, 0, :2].tolist() == [1, 1]
    assert sorted({int(parts[0, 3, 3]), int(parts[1, 0, 0])}) == [2, 3]
    assert (parts > 0).equal(mask)
    totals = part_totals(torch.ones(2, 1, 4, 4), parts)
    assert totals[0, 0, 0, :2].tolist() == [2, 2]
    assert totals[0, 0, 3, 3] == 1
    assert totals[0, 0, 1, 1] == 0


def test_an_image_of_background_alone_has_no_part():
    sure = torch.zeros(1, 4, 5, 5)
    sure[:, 0] = 50
    for kind in ("image", "part"):
        assert torch.isfinite(gate(sure, kind, 2.0)).all()
        assert gate(sure, kind, 2.0).argmax(1).sum() == 0


# --- borders ---


def test_a_border_moves_to_the_edge_of_the_image():
    """An object's left edge is at column 112; the network says 106."""
    image = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    image[..., 112:] = 200
    logits = torch.zeros(1, 2, 224, 224)
    logits[:, 1, :, 106:] = 3
    logits[:, 0, :, :106] = 3
    before, after = (x.argmax(1)[0] for x in (logits, follow_edges(logits, image)))
    truth = image[0, 0] > 0
    assert (before != truth).sum() == 6 * 224
    assert (after != truth).sum() <= 224  # one column


def test_under_an_image_without_edges_it_is_a_mean_over_windows():
    values = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    filtered = guided_filter(values, torch.full((2, 1, 32, 32), 0.5), radius=1 / 8, smoothness=1e-3)
    # One cell is 4 pixels: twice the mean over 3 x 3 cells, then bilinear; at the centre of a cell region exact.
    cells = torch.nn.functional.avg_pool2d(values, 4)
    for _ in range(2):
        cells = torch.nn.functional.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)
    expected = torch.nn.functional.interpolate(cells, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(filtered, expected, atol=1e-5, rtol=0)


def test_probabilities_sum_to_one_at_any_size():
    rng = torch.Generator().manual_seed(1)
    for size in (30, 33, 64):
        image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=rng)
        values = torch.randn(2, 5, size, size, generator=rng).softmax(1)
        filtered = guided_filter(values, image.float().mean(1, keepdim=True) / 255, 1 / 20, 1e-3)
        assert filtered.shape == values.shape
        torch.testing.assert_close(filtered.sum(1), torch.ones(2, size, size), atol=1e-4, rtol=0)
        said = follow_edges(values.log(), image)
        assert torch.isfinite(said).all()


def test_it_agrees_with_the_definition_by_least_squares():
    """Coefficients of one window, by NumPy's least squares with a penalty on the slope."""
    rng = np.random.default_rng(2)
    guide, values = rng.random((12, 12)), rng.random((12, 12))
    cell = lambda x: x.reshape(3, 4, 3, 4).mean((1, 3))  # noqa: E731
    g, p = cell(guide), cell(values)
    slope, offset = np.empty((3, 3)), np.empty((3, 3))
    for y in range(3):
        for x in range(3):
            rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
            own, told = g[rows, columns].ravel(), p[rows, columns].ravel()
            centred = own - own.mean()
            slope[y, x] = (centred * told).mean() / ((centred**2).mean() + 0.01)
            offset[y, x] = told.mean() - slope[y, x] * own.mean()
    found = guided_filter(*(torch.tensor(x, dtype=torch.float32)[None, None] for x in (values, guide)), radius=1 / 3, smoothness=0.01)

    def spread(table: np.ndarray) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(torch.tensor(table)[None, None], 3, 1, 1, count_include_pad=False)
        return torch.nn.functional.interpolate(mean, (12, 12), mode="bilinear", align_corners=False)

    expected = spread(slope) * torch.tensor(guide) + spread(offset)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
