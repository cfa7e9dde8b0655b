"""Ways to cluster other than the library's, measured by :mod:`benchmarks.beyond` alone.

Each takes prototypes of unit length, float [n, C], a number of clusters K and a seed, and returns
the cluster of each prototype, int [n] in 1..K.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA

Clustering = Callable[[np.ndarray, int, int], np.ndarray]

RESTARTS = 10
ROUNDS = 30  # of assignments and centres, one after the other
SHARPNESS = 0.05  # of transport: the temperature of assignments


def k_means(prototypes: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """As the recipe ``laptop``: 32 principal components, 50 restarts."""
    points = components(prototypes)
    return KMeans(clusters, n_init=50, random_state=seed).fit_predict(points) + 1


def spherical_k_means(prototypes: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """By cosine: the mean of a cluster is brought back to unit length. The best of ten restarts."""
    rng = np.random.default_rng(seed)
    best, found = -np.inf, np.zeros(len(prototypes), int)
    for _ in range(RESTARTS):
        centres = prototypes[rng.choice(len(prototypes), clusters, replace=False)]
        for _ in range(ROUNDS):
            assigned = (prototypes @ centres.T).argmax(1)
            centres = _means(prototypes, np.eye(clusters)[assigned], centres)
        similarity = (prototypes @ centres.T).max(1).sum()
        if similarity > best:
            best, found = similarity, assigned
    return found + 1


def transport(prototypes: np.ndarray, clusters: int, seed: int, *, equality: float) -> np.ndarray:
    """Assignments by optimal transport, of which each cluster should take an equal share.

    Args:
        equality: how much it costs (Kullback-Leibler) when one does not; infinite: balanced
            transport, as SwAV has it; a small number: semi-relaxed.
    """
    first = k_means(prototypes, clusters, seed) - 1
    centres = _means(prototypes, np.eye(clusters)[first], prototypes[:clusters])
    damping = 1.0 if np.isinf(equality) else equality / (equality + SHARPNESS)
    for _ in range(ROUNDS):
        affinity = prototypes @ centres.T / SHARPNESS
        columns = np.zeros(clusters)
        for _ in range(100):  # Sinkhorn: rows sum to 1 / n, columns to 1 / K as far as they must
            rows = -np.log(len(prototypes)) - logsumexp(affinity + columns, axis=1)
            given = logsumexp(affinity + rows[:, None], axis=0)
            columns = damping * (-np.log(clusters) - given)
        plan = np.exp(affinity + rows[:, None] + columns)
        centres = _means(prototypes, plan, centres)
    return plan.argmax(1) + 1


def consensus(prototypes: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Average linkage of how often 30 k-means, each of 80 % of the images, put two together."""
    points = components(prototypes)
    rng = np.random.default_rng(seed)
    together = np.zeros((len(points), len(points)))
    for restart in range(30):
        part = rng.choice(len(points), int(0.8 * len(points)), replace=False)
        fitted = KMeans(clusters, n_init=5, random_state=seed + restart).fit(points[part])
        found = fitted.predict(points)
        together += found[:, None] == found
    linkage = AgglomerativeClustering(clusters, metric="precomputed", linkage="average")
    return linkage.fit_predict(1 - together / 30) + 1


def components(prototypes: np.ndarray) -> np.ndarray:
    """Their 32 principal components."""
    kept = min(32, len(prototypes) - 1, prototypes.shape[1])
    return PCA(kept, svd_solver="full").fit_transform(prototypes)


def _means(prototypes: np.ndarray, weights: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Weighted means of unit length; a cluster without weight stays where it was."""
    sums = weights.T @ prototypes
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 1e-12, sums / np.maximum(lengths, 1e-12), before)


#: How each is called in ``beyond.json``.
CLUSTERINGS: dict[str, Clustering] = {
    "k_means": k_means,
    "spherical": spherical_k_means,
    "semi_relaxed": partial(transport, equality=0.05),
    "balanced": partial(transport, equality=np.inf),
    "consensus": consensus,
}
