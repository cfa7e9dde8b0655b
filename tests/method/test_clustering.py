"""Pseudo-labels: each formula against the slow or published way of computing it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from ncdss_lib.data.masks import read_labels, write_labels
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.clustering import adjoint_mask, cluster_prototypes, fuse, masked_prototype

# --- adjoint pooling --------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 41), st.integers(1, 41))
def test_adjoint_pooling_equals_pooling_the_upsampled_features(seed, height, width, rows, columns):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < 0.5
    features = torch.from_numpy(rng.normal(size=(1, 5, height, width)))
    upsampled = F.interpolate(features, (rows, columns), mode="bilinear", align_corners=False)[0].numpy()
    expected = (upsampled * mask).sum((1, 2))
    found = (features[0].numpy() * adjoint_mask(mask, height, width)).sum((1, 2))
    # The weights are float32: each of up to 41 * 41 terms is rounded once.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * (1 + np.abs(upsampled).sum((1, 2)).max()))


def test_adjoint_pooling_at_the_published_sizes():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 3, 64, 64, generator=generator)
    mask = np.zeros((512, 512), bool)
    mask[100:300, 37:401] = True
    expected = F.interpolate(features, (512, 512), mode="bilinear", align_corners=False)[0][:, torch.from_numpy(mask)].double().sum(1)
    found = (features[0].double() * torch.from_numpy(adjoint_mask(mask, 64, 64))).sum((1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-2)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))), st.integers(1, 8), st.integers(1, 8))
def test_adjoint_weights_sum_to_the_mask_area(mask, height, width):
    weights = adjoint_mask(mask, height, width)
    assert weights.shape == (height, width)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(mask.sum(), rel=1e-5, abs=1e-5)


# --- prototypes -------------------------------------------------------------------------------------------------------------------------


def test_prototypes_are_the_normalised_masked_mean_of_the_upsampled_features():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(4, 7, 5, 6)).astype(np.float32))
    masks = rng.random((4, 31, 40)) < 0.3
    weights = torch.from_numpy(np.stack([adjoint_mask(mask, 5, 6) for mask in masks]))
    found = masked_prototype(features.half(), weights)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    upsampled = F.interpolate(features, (31, 40), mode="bilinear", align_corners=False).numpy()
    for row, image, mask in zip(found.numpy(), upsampled, masks, strict=True):
        mean = np.mean([image[:, y, x] for y, x in zip(*np.nonzero(mask), strict=True)], axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=5e-3)  # the features were rounded to half precision


def blobs(seed: int, groups: int = 4, each: int = 15, dims: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(groups), each)
    centres = rng.normal(size=(groups, dims))
    points = centres[truth] + 0.05 * rng.normal(size=(len(truth), dims))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("whiten", [False, True])
def test_separated_blobs_are_found(whiten):
    points, truth = blobs(0)
    clusters, pca = cluster_prototypes(points, 4, dims=3 if whiten else 32, whiten=whiten, n_init=10, seed=0)
    assert adjusted_rand_score(truth, clusters) == 1
    assert set(clusters) == {1, 2, 3, 4}
    assert pca.whiten is whiten


@pytest.mark.parametrize(("images", "channels", "expected"), [(60, 64, 32), (20, 64, 19), (60, 8, 8), (33, 64, 32), (32, 64, 31)])
def test_pca_keeps_at_most_images_minus_one_dimensions(images, channels, expected):
    points = np.random.default_rng(0).normal(size=(images, channels)).astype(np.float32)
    assert cluster_prototypes(points, 2, dims=32, whiten=True, n_init=1, seed=0)[1].n_components_ == expected


def test_clustering_is_deterministic_for_a_seed_and_follows_it():
    points = np.random.default_rng(1).normal(size=(80, 16)).astype(np.float32)
    runs = [cluster_prototypes(points, 10, dims=8, whiten=True, n_init=1, seed=seed)[0].tolist() for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_whitened_components_have_unit_variance():
    points, _ = blobs(1)
    pca = cluster_prototypes(points, 4, dims=5, whiten=True, n_init=1, seed=0)[1]
    np.testing.assert_allclose(pca.transform(points).std(0, ddof=1), 1, rtol=1e-3)


# --- base-class removal and fusion ------------------------------------------------------------------------------------------------------


def test_confidence_is_compared_strictly():
    """Pixels: two base classes at probability 1/2 exactly, base just above 1/2, background."""
    logits = torch.tensor([[[[-1000.0, -1000.0, 1.0]], [[0.0, 0.0, 0.0]], [[0.0, 1e-3, 0.0]]]])  # [1, 3, 1, 3]
    assert confident_base(logits, 0.5).tolist() == [[[0, 2, 0]]]
    assert confident_base(logits, 0.499).tolist() == [[[1, 2, 0]]]  # background stays 0
    assert confident_base(logits, 0.9).sum() == 0
    assert confident_base(logits, 0.5).dtype == torch.uint8


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.95))
def test_removal_is_the_published_uint8_arithmetic(seed, confidence):
    """As published: novel_map = (~(high > 0 ? 255 : 0)) * sal * 255 in int64, cast to uint8, with saliency {0, 1} or {0, 255}."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(1, 4, 6, 7))
    salient = rng.random((6, 7)) < 0.5
    e = np.exp(logits - logits.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    if np.abs(p - confidence).min() < 1e-6:
        return  # on the threshold rounding decides
    high = p.argmax(1)[0] * (p.max(1)[0] > confidence)
    base_pred = confident_base(torch.from_numpy(logits), confidence)[0].numpy()
    np.testing.assert_array_equal(base_pred, high)
    for value in (1, 255):
        published = (~np.where(high > 0, 255, 0).astype(np.int64) * (salient.astype(np.int64) * value) * 255).astype(np.uint8)
        np.testing.assert_array_equal(published, (salient & (base_pred == 0)) * value)


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Confident base classes and a novel mask of the same size."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 15))), draw(hnp.arrays(bool, shape))


@given(images(), st.integers(1, 100))
def test_fusion(image, cluster):
    base_pred, novel_map = image
    pseudo = fuse(base_pred, novel_map, cluster, 15)
    assert pseudo.dtype == np.uint8
    published = base_pred + (cluster + 15) * novel_map * (base_pred == 0)  # as published
    np.testing.assert_array_equal(pseudo, published)
    assert set(np.unique(pseudo)) <= {0, *range(1, 16), 15 + cluster}
    assert (pseudo[base_pred > 0] == base_pred[base_pred > 0]).all()  # base wins


# --- files ------------------------------------------------------------------------------------------------------------------------------


def test_labels_round_trip_with_every_id(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_labels(tmp_path / "new" / "x.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "new" / "x.png"), labels)


def test_the_palette_is_that_of_voc_and_has_256_colours(tmp_path):
    write_labels(tmp_path / "x.png", np.arange(256, dtype=np.uint8)[None])
    with Image.open(tmp_path / "x.png") as png:
        assert png.mode == "P"
        colours = np.array(png.convert("RGB"))[0]
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {i: tuple(map(int, colours[i])) for i in known} == known
    assert tuple(colours[255]) == (224, 224, 192)
    assert len({tuple(c) for c in colours}) == 256
