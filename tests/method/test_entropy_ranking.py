"""Entropy, its mean over a region, and the split into clean and unclean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncdss_lib.method.entropy_ranking import entropy_map, region_entropy, split_clean


def published_entropy(logits: np.ndarray) -> np.ndarray:
    """- sum_c P log2(P + 1e-30) / log2 C, float64."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return -(p * np.log2(p + 1e-30)).sum(1) / np.log2(logits.shape[1])


@given(st.integers(0, 2**32 - 1), st.integers(2, 26), st.floats(0.01, 30))
def test_entropy_is_the_published_formula(seed, classes, scale):
    logits = np.random.default_rng(seed).normal(scale=scale, size=(2, classes, 3, 4))
    found = entropy_map(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(found, published_entropy(logits), atol=1e-9)
    assert (found > -1e-9).all()
    assert (found < 1 + 1e-9).all()


def test_entropy_of_certain_and_of_uniform_predictions():
    logits = torch.zeros(1, 26, 1, 2)
    logits[0, 3, 0, 0] = 1000.0
    assert entropy_map(logits).flatten().tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_region_entropy_is_the_mean_over_the_region(memory_format):
    rng = np.random.default_rng(0)
    logits, region = rng.normal(scale=4, size=(3, 26, 5, 6)), rng.random((3, 5, 6)) < 0.4
    expected = [published_entropy(logits)[i][region[i]].mean() for i in range(3)]
    found = region_entropy(torch.from_numpy(logits).contiguous(memory_format=memory_format), torch.from_numpy(region))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_an_empty_region_is_infinite_and_therefore_unclean():
    logits = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    entropy = region_entropy(logits, torch.tensor([[[True, False], [False, False]], [[False] * 2] * 2]))
    assert entropy.tolist() == [pytest.approx(entropy_map(logits)[0, 0, 0].item()), np.inf]
    assert split_clean(entropy.numpy(), np.array([1, 1]), 0.99, "dataset").tolist() == [True, False]
    assert split_clean(np.full(4, np.inf), np.ones(4, int), 0.5, "cluster").tolist() == [False] * 4


#: N of PASCAL-5i's novel lists (an upper bound of the images used), and int(N * 0.67).
@pytest.mark.parametrize(("images", "clean"), [(2836, 1900), (3604, 2414), (5542, 3713), (2145, 1437), (100, 67), (3, 2), (1, 0)])
def test_published_number_of_clean_images(images, clean):
    entropy = np.random.default_rng(0).permutation(images).astype(float)
    found = split_clean(entropy, np.zeros(images, int), 0.67, "dataset")
    assert found.sum() == clean
    np.testing.assert_array_equal(np.sort(entropy[found]), np.arange(clean))  # those of lowest entropy


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 4)), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_each_cluster_keeps_its_own_share(pairs, share):
    entropy, clusters = (np.array(x) for x in zip(*pairs, strict=True))
    clean = split_clean(entropy, clusters, share, "cluster")
    for k in set(clusters):
        group, kept = entropy[clusters == k], clean[clusters == k]
        assert abs(kept.sum() - len(group) * share) <= 0.5 + 1e-9
        if kept.any() and not kept.all():
            assert group[kept].max() <= group[~kept].min()


def test_a_global_ranking_can_empty_a_cluster_and_ranking_by_cluster_cannot():
    entropy, clusters = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 0.95]), np.array([1, 1, 1, 2, 2, 2])
    assert split_clean(entropy, clusters, 0.5, "dataset").tolist() == [True, True, True, False, False, False]
    assert split_clean(entropy, clusters, 0.5, "cluster").tolist() == [True, True, False, True, True, False]


def test_equal_entropies_keep_their_order():
    assert split_clean(np.full(4, 0.5), np.ones(4, int), 0.5, "dataset").tolist() == [True, True, False, False]
