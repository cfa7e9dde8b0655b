"""How many novel classes are there? Signals from the prototypes alone, and the one that we take.

Ours, because the paper is given N. Of the signals below BIC alone came close on photos and drawings
alike, see the book; each is a curve over K whose best K is the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture

MOST = 40  # classes that are looked for


def candidates(images: int) -> range:
    """The numbers of classes that are tried: 2 to 40, with at least five images each."""
    return range(2, max(3, min(MOST, images // 5) + 1))


def estimate_number(prototypes: np.ndarray, *, seed: int = 0) -> int:
    """The number of classes that explains the prototypes best, by BIC.

    Args:
        prototypes: float [M, C], one a region.

    Returns:
        N, 2 or more.
    """
    numbers = candidates(len(prototypes))
    return numbers[int(np.argmax(bic(prototypes, numbers, seed=seed)))]


def bic(
    prototypes: np.ndarray, numbers: Sequence[int], *, dims: int = 16, seed: int = 0
) -> np.ndarray:
    """Minus the Bayesian information criterion of a mixture of K diagonal Gaussians.

    What another class explains must be worth its mean, its variances and its weight:
    that is the price that the other signals lack.

    Args:
        prototypes: float [M, C]; ``dims`` principal components are looked at, in which
            a Gaussian a class is not too much for some tens of images.
        numbers: the K to try.

    Returns:
        float [len(numbers)], higher is better.
    """
    points = _components(prototypes, dims)
    found = []
    for k in numbers:
        mixture = GaussianMixture(
            k, covariance_type="diag", n_init=10, reg_covar=1e-5, random_state=seed
        )
        found.append(-mixture.fit(points).bic(points))
    return np.array(found)


def silhouette(prototypes: np.ndarray, numbers: Sequence[int], *, seed: int = 0) -> np.ndarray:
    """How much nearer prototypes are to their own cluster than to the next (Rousseeuw 1987)."""
    points = _components(prototypes, 32)
    clusterings = [KMeans(k, n_init=10, random_state=seed).fit_predict(points) for k in numbers]
    return np.array([silhouette_score(points, labels) for labels in clusterings])


def stability(
    prototypes: np.ndarray, numbers: Sequence[int], *, samples: int = 6, seed: int = 0
) -> np.ndarray:
    """Agreement of clusterings that were each fitted to 80 % of the prototypes (adjusted Rand)."""
    points = _components(prototypes, 32)
    rng = np.random.default_rng(seed)
    size = int(0.8 * len(points))
    parts = [rng.choice(len(points), size, replace=False) for _ in range(samples)]
    found = []
    for k in numbers:
        fitted = [KMeans(k, n_init=5, random_state=seed).fit(points[part]) for part in parts]
        labels = [clustering.predict(points) for clustering in fitted]
        pairs = [(a, b) for place, a in enumerate(labels) for b in labels[:place]]
        found.append(np.mean([adjusted_rand_score(a, b) for a, b in pairs]))
    return np.array(found)


def held_out_classes(
    prototypes: np.ndarray,
    base: np.ndarray,
    classes: np.ndarray,
    numbers: Sequence[int],
    *,
    seed: int = 0,
) -> np.ndarray:
    """How well a clustering of everything finds the base classes again.

    The number of clusters is that of the base classes and K; the best one leaves K novel ones
    (Vaze et al. 2022, generalized category discovery).

    Args:
        prototypes: float [M, C] of novel regions.
        base: float [L, C] of base objects, ``classes`` int [L].

    Returns:
        float [len(numbers)]: adjusted Rand index on the base objects.
    """
    points = _components(np.concatenate([base, prototypes]), 32)
    known = len(np.unique(classes))
    found = []
    for k in numbers:
        labels = KMeans(known + k, n_init=5, random_state=seed).fit_predict(points)[: len(base)]
        found.append(adjusted_rand_score(classes, labels))
    return np.array(found)


def _components(prototypes: np.ndarray, dims: int) -> np.ndarray:
    return PCA(min(dims, len(prototypes) - 1, prototypes.shape[1])).fit_transform(prototypes)
