"""Borders that follow the edges of the image."""

from __future__ import annotations

import numpy as np
import torch

from ncdss_lib.method.edges import follow_edges, guided_filter


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
