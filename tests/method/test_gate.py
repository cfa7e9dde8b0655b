"""The gate against its definition, part by part and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ncdss_lib.method.gate import connected_parts, gate, part_totals


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
