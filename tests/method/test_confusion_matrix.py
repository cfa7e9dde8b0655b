"""Counting runs of equal pixels gives the very numbers that counting pixels gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncdss_lib.method import metrics
from ncdss_lib.method.metrics import confusion_matrix


def by_pixels(truth: np.ndarray, prediction: np.ndarray, rows: int, columns: int) -> np.ndarray:
    counts = np.zeros((256, columns), np.int64)
    np.add.at(counts, (truth.ravel(), prediction.ravel()), 1)
    return counts[:rows]


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Truth and prediction, noisy or of blocks; every size from no pixel on, some pixels ignored, some maps constant."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, 255)), draw(st.integers(1, 300))
    shape, block = draw(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40))), draw(st.integers(1, 50))
    coarse = (shape[0], -(-shape[1] // block), -(-shape[2] // block))

    def blocks(high: int) -> np.ndarray:
        return rng.integers(0, high, coarse).repeat(block, 1).repeat(block, 2)[:, : shape[1], : shape[2]]

    truth = np.where(blocks(4) == 0, 255, blocks(rows)).astype(draw(st.sampled_from([np.uint8, np.int64])))
    return truth, blocks(columns).astype(draw(st.sampled_from([np.int64, np.int16]))), rows, columns


@given(label_maps())
def test_runs_pixels_and_the_plain_loop_agree(maps):
    truth, prediction, rows, columns = maps
    expected = by_pixels(truth, prediction, rows, columns)
    tensors = torch.from_numpy(truth), torch.from_numpy(prediction)
    # The second is what a CUDA device does.
    for found in (confusion_matrix(*tensors, rows, columns), metrics._count_pixels(*tensors, columns)[:rows]):
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.numpy(), expected)


def test_maps_of_areas_are_counted_by_runs_and_noise_by_pixels(monkeypatch):
    """Both ways are taken, and neither by accident: the number of additions says which."""
    added = []
    real = np.bincount
    monkeypatch.setattr(np, "bincount", lambda index, *rest: added.append(len(index)) or real(index, *rest))
    areas = np.zeros((64, 64), np.uint8)
    areas[20:40, 10:50], areas[30:35, 30:35] = 3, 255
    noise = np.random.default_rng(0).integers(0, 5, (64, 64), dtype=np.uint8)
    for maps in ((areas, areas % 7), (areas, noise)):
        found = confusion_matrix(*map(torch.from_numpy, maps), 6, 7).numpy()
        np.testing.assert_array_equal(found, by_pixels(*maps, 6, 7))
    # Background before, between and after the 20 rows of class 3, five of which the ignored square cuts in two.
    assert added == [21 + 20 + 5 + 5, 64 * 64]


def test_more_pixels_than_a_float_holds_exactly():
    """Runs are added as float64, exact up to 2**53 pixels; float32 would stop at 2**24."""
    truth = torch.zeros(2**24 + 3, dtype=torch.uint8)
    truth[-2:] = 1
    assert confusion_matrix(truth, torch.zeros_like(truth), 2, 1).flatten().tolist() == [2**24 + 1, 2]


def test_a_label_beyond_the_rows_is_an_error_not_a_count():
    truth = torch.full((4, 8), 7, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"the truth holds label 7, not only 0\.\.5 and 255"):
        confusion_matrix(truth, torch.zeros_like(truth), 6, 8)
