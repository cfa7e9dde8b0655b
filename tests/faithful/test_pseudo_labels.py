"""Base-class removal, the area rule, prototypes, clusters, fusion and entropy ranking, as published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from ncdss_lib.data.masks import read_labels, resize_labels, write_labels
from ncdss_lib.method import base_class_removal
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.clustering import adjoint_mask, cluster_prototypes, fuse, masked_prototype
from ncdss_lib.method.entropy_ranking import region_entropy, split_clean
from ncdss_lib.recipes import Recipe
from ncdss_lib.runs.pipeline import Run
from tests.conftest import opened
from tests.data.fake_voc import make_fake_voc
from tests.faithful.plain import pseudo_labels as published

PAPER = Recipe()


# --- base-class removal -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("seed", range(4))
def test_removal_is_the_published_integer_arithmetic(value, seed):
    """Exact for saliency of {0, 1} and of {0, 255}, which keeps its value. (Random logits come nowhere near 0.9 by rounding.)"""
    rng = np.random.default_rng(seed)
    logits, salient = rng.normal(scale=4, size=(16, 40, 40)), rng.random((40, 40)) < 0.5
    assert np.abs(published.softmax(logits).max(0) - 0.9).min() > 1e-6
    high, novel_map = published.base_removal(logits, (salient * value).astype(np.uint8), PAPER.clustering.base_confidence)
    base_pred = confident_base(torch.from_numpy(logits)[None], PAPER.clustering.base_confidence)[0].numpy()
    np.testing.assert_array_equal(base_pred, high)
    np.testing.assert_array_equal((salient & (base_pred == 0)) * value, novel_map)
    assert 0 < np.count_nonzero(high) < high.size


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, dict[str, np.ndarray]]:
    """Novel maps of images that the network sees at another size than their own, under made-up logits of the base model."""
    root = tmp_path_factory.mktemp("removal")
    make_fake_voc(root / "voc", train=20, val=2, size=(57, 83))
    ids = [f"2007_{i:06d}" for i in range(1, 21)]
    for i, image_id in enumerate(ids):  # as MaskContrast's maps or as others': {0, 1} or {0, 255}
        path = root / "voc" / "saliency_supervised_model" / f"{image_id}.png"
        if path.is_file() and i % 2:
            with Image.open(path) as png:
                values = np.array(png) * 255
            Image.fromarray(values).save(path)
    run = opened(root / "voc", root / "run", "paper", "clustering.base_confidence=0.9", "clustering.over_clustering=1")
    rng = np.random.default_rng(0)
    logits = {i: F.interpolate(torch.from_numpy(rng.normal(scale=6, size=(1, 16, 8, 8))), (64, 64), mode="bilinear") for i in ids}

    def predict(run, model, ids, size, what, behind):
        assert (size, behind.gate) == (64, "none")
        for i in ids:
            yield [i], logits[i]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_class_removal, "predict", predict)
        patch.setattr(base_class_removal, "load_model", lambda run, name: None)
        base_class_removal.remove_base_classes(run, root)
    return run, root, {i: array[0].numpy() for i, array in logits.items()}


def map_values(voc: Path, image_id: str) -> np.ndarray | None:
    path = voc / "saliency_supervised_model" / f"{image_id}.png"
    if not path.is_file():
        return None
    with Image.open(path) as png:
        return np.array(png)


def test_base_predictions_on_disk(removed):
    """Exact: the confident classes at 64 pixels, back to 57 x 83 or 83 x 57 by nearest neighbour."""
    run, root, logits = removed
    compared = 0
    for image_id in run.splits.novel:
        saliency = map_values(root / "voc", image_id)
        if saliency is not None:
            expected, _ = published.removed_at_original_size(logits[image_id], saliency)
            np.testing.assert_array_equal(read_labels(root / "base_pred" / f"{image_id}.png"), expected)
            compared += len(np.unique(expected)) > 1
    assert compared >= 4


def test_novel_maps_on_disk(removed):
    """Exact, {0, 255} read as {0, 1}: saliency goes to the network's size first, and the map comes back from there."""
    run, root, logits = removed
    for image_id in run.splits.novel:
        saliency = map_values(root / "voc", image_id)
        if saliency is not None:
            _, expected = published.removed_at_original_size(logits[image_id], saliency)
            np.testing.assert_array_equal(read_labels(root / "novel_map" / f"{image_id}.png"), expected > 0)


def test_images_are_kept_by_their_area_at_original_size(tmp_path):
    """More than 1500 non-zero pixels: 1500 are too few, 1501 are enough. Square images of the network's size are not resampled."""
    make_fake_voc(tmp_path / "voc", train=20, val=2, size=(64, 64))
    run = opened(tmp_path / "voc", tmp_path / "run", "paper", "clustering.min_area_pixels=1500", "clustering.over_clustering=1")
    maps = {}
    for n, image_id in enumerate(run.splits.novel):
        path = tmp_path / "voc" / "saliency_supervised_model" / f"{image_id}.png"
        values = (np.arange(64 * 64).reshape(64, 64) < 1499 + n).astype(np.uint8) * (255 if n == 1 else 1)
        Image.fromarray(values).save(path)
        maps[image_id] = published.base_removal(np.zeros((16, 64, 64)), values)[1]
    run = opened(tmp_path / "voc", tmp_path / "run", "paper", "clustering.min_area_pixels=1500", "clustering.over_clustering=1")

    def predict(run, model, ids, size, what, behind):
        return (([i], torch.zeros(1, 16, size, size)) for i in ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_class_removal, "predict", predict)
        patch.setattr(base_class_removal, "load_model", lambda run, name: None)
        images = base_class_removal.remove_base_classes(run, tmp_path)
    assert images.index[images["status"] == "used"].tolist() == published.used(maps)
    assert images["area"].tolist() == [1499 + n for n in range(len(images))]
    assert images["status"].tolist()[:3] == ["below_min_area", "below_min_area", "used"]


# --- prototypes and clusters ------------------------------------------------------------------------------------------------------------


def ours(features: torch.Tensor, novel_map: np.ndarray, size: int) -> np.ndarray:
    mask = resize_labels(novel_map, size) > 0
    return masked_prototype(features[None], torch.from_numpy(adjoint_mask(mask, *features.shape[1:]))[None])[0].numpy()


@pytest.mark.parametrize("value", [1, 255])
def test_prototypes_of_a_tiny_map(value):
    """Up to float32's rounding of 2000 weights: 1e-6 on a vector of length 1. A map's own value only scales the sum."""
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(7, 6, 6)).astype(np.float32))
    novel_map = (rng.random((31, 40)) < 0.4).astype(np.uint8) * value
    np.testing.assert_allclose(ours(features, novel_map, 48), published.prototype(features, novel_map, 48), rtol=0, atol=1e-6)


def test_prototypes_at_the_published_sizes():
    """2048 channels of 64 x 64, upsampled to 512 x 512: one vector of length 1, so components of 0.02, to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2048, 64, 64, generator=generator).relu()
    novel_map = np.zeros((375, 500), np.uint8)
    novel_map[90:260, 120:333] = 1
    novel_map[300:340, 20:90] = 1
    np.testing.assert_allclose(ours(features, novel_map, 512), published.prototype(features, novel_map, 512), rtol=0, atol=1e-6)


def unit(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def blobs(images: int, channels: int, groups: int = 10, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(groups, channels))[rng.integers(groups, size=images)] + spread * rng.normal(size=(images, channels)))


@pytest.mark.parametrize(("images", "clusters"), [(60, 5), (120, 10)])
@pytest.mark.parametrize("structure", ["blobs", "noise"])
def test_clusters(images, clusters, structure):
    """Equal up to the clusters' numbers, on prototypes with structure and without.

    Ours is the full solver of PCA, as the plain decomposition: components agree up to sign, and k-means sees distances alone.
    """
    rng = np.random.default_rng(images)
    points = blobs(images, 200) if structure == "blobs" else unit(rng.normal(size=(images, 200)))
    config = PAPER.clustering
    found, pca = cluster_prototypes(points, clusters, dims=config.pca_dims, whiten=config.whiten, n_init=config.n_init, seed=242133)
    white = published.whitened(points)
    mine = pca.transform(points)
    assert mine.shape == white.shape == (images, 32)
    signs = np.sign((mine * white).sum(0))
    np.testing.assert_allclose(mine * signs, white, rtol=0, atol=2e-3)  # float32, and the smallest of 32 components scaled up to 1
    assert adjusted_rand_score(found, published.clusters(points, clusters, seed=242133)) == 1
    assert set(found) == set(range(1, clusters + 1))


def test_clusters_with_the_randomised_solver_of_the_released_code():
    """Above 500 images scikit-learn chose the randomised solver, without a seed: an approximation, so equal only where groups are clear."""
    points = blobs(600, 700, spread=0.5)
    config = PAPER.clustering
    found, _ = cluster_prototypes(points, 10, dims=config.pca_dims, whiten=config.whiten, n_init=config.n_init, seed=242133)
    randomised = PCA(32, whiten=True, svd_solver="randomized", random_state=1).fit_transform(points)
    assert adjusted_rand_score(found, KMeans(10, n_init=10, random_state=242133).fit_predict(randomised)) == 1


# --- fusion -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_base", "clusters"), [(15, 5), (15, 10), (60, 40)])
def test_fusion_and_its_file(num_base, clusters, tmp_path):
    """Exact, through the PNG: ids above 20, for which the released palette has no colour, come back as they were."""
    rng = np.random.default_rng(num_base + clusters)
    for cluster in (1, clusters):
        confident, novel_map = rng.random((2, 21, 34)) < 0.5
        base_pred = (rng.integers(0, num_base + 1, (21, 34)) * confident).astype(np.uint8)
        expected = published.fused(base_pred, novel_map.astype(np.uint8), cluster, num_base)
        write_labels(tmp_path / "x.png", fuse(base_pred, novel_map, cluster, num_base))
        with Image.open(tmp_path / "x.png") as png:
            assert png.mode == "P"
            np.testing.assert_array_equal(np.array(png), expected)
        np.testing.assert_array_equal(read_labels(tmp_path / "x.png"), expected)
        assert num_base + cluster in expected


# --- entropy ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("channels", [26, 101])
def test_entropy_scores(channels, scale):
    """Ours is C times the published mean over classes and pixels. In float32 to 1e-5, with sure predictions (P = 0) too."""
    rng = np.random.default_rng(channels)
    logits, pseudo = rng.normal(scale=scale, size=(channels, 7, 9)).astype(np.float32), rng.integers(0, channels, (7, 9))
    num_base = channels * 3 // 5
    found = region_entropy(torch.from_numpy(logits)[None], torch.from_numpy(pseudo > num_base)[None]).item()
    assert found / channels == pytest.approx(published.entropy_score(logits, pseudo, num_base), rel=1e-5, abs=1e-9)


def test_an_image_without_a_region_is_unclean():
    """Published: NaN, which a sort puts anywhere. Ours is infinite, and the image unclean."""
    logits = np.random.default_rng(0).normal(size=(26, 3, 3))
    assert math.isnan(published.entropy_score(logits, np.zeros((3, 3), int), 15))
    empty = region_entropy(torch.from_numpy(logits)[None], torch.zeros(1, 3, 3, dtype=torch.bool)).item()
    scores = {"a": math.nan, "b": 0.4, "c": 0.2}
    values = np.array([empty, 0.4, 0.2])
    clean = split_clean(values, np.ones(3, int), 0.67, "dataset")
    assert [i for i, kept in zip(scores, clean, strict=True) if kept] == sorted(published.clean_and_unclean(scores)[0]) == ["b", "c"]
    assert split_clean(np.array([empty, empty, 0.1]), np.ones(3, int), 0.99, "dataset").tolist() == [False, False, True]


@pytest.mark.parametrize("images", [1, 2, 3, 15, 100, 1000, 2836, 5542])
def test_clean_and_unclean(images):
    """Exact: the int(N * 0.67) images of lowest score, and of these the int(n * 0.5) lowest at the reassignment."""
    config = PAPER.entropy_ranking
    scores = np.random.default_rng(images).permutation(images) / images
    by_id = {f"{n:05d}": score for n, score in enumerate(scores)}
    clean, unclean = published.clean_and_unclean(by_id)
    groups = np.arange(images) % 10
    found = split_clean(scores, groups, config.clean_share, config.per)
    assert [i for i, kept in zip(by_id, found, strict=True) if kept] == sorted(clean)
    stay, left = published.reassigned(clean, unclean, by_id)
    order = np.array([by_id[i] for i in clean])
    again = split_clean(order, groups[: len(clean)], PAPER.eums.reassign_share, config.per)
    assert [i for i, kept in zip(clean, again, strict=True) if kept] == stay
    assert sorted(stay + left) == sorted(by_id)
    assert (len(clean), len(stay)) == (int(images * 0.67), int(int(images * 0.67) * 0.5))
