"""After EUMS (ours): a second clustering teaches a head of its own, and both heads decide.

In: EUMS; the novel masks of the clustering stage, which are clustered once more, in another metric.
Out: ``clusters.csv`` (the cluster of each region), ``pseudo_labels_K/ID.png``,
``second.safetensors`` and its history, and ``regions.safetensors``: one network whose head is the
committee of EUMS and the second head.

Ours, because two clusterings of the same masks fail on other images. On the fold of photos on which
it was chosen that was worth some points, on the others nothing; the book's page "Beyond the paper"
has the table. The numbers of clusters mean nothing, so those of the second head are first brought
into the order of EUMS's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment
from torch import nn

from ncdss_lib.method.basic_framework import fine_tune
from ncdss_lib.method.clustering import (
    cluster_prototypes,
    masked_regions,
    read_pseudo_label,
    used_images,
    write_pseudo_labels,
)
from ncdss_lib.method.context import Context
from ncdss_lib.method.evaluation import evaluate
from ncdss_lib.method.inference import load_model, predict
from ncdss_lib.models.segmenter import Committee, Segmenter


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Cluster again, train the second head, and join it with EUMS."""
    clusters = run.clusters["eums"]
    used = used_images(run.folder / "clustering")
    cluster_again(run, folder, clusters, used)
    eums = load_model(run, "eums")
    second = fine_tune(
        run,
        "second",
        clusters,
        used,
        partial(read_pseudo_label, folder, clusters),
        folder,
        seed=run.seed + 3_000,
        encoder=eums.encoder,
    )

    # The same cluster under the same number.
    together = overlaps(run, eums, second)
    reorder_clusters(second.head, 1 + run.labels.num_base, best_order(together))
    network = Segmenter(eums.encoder, Committee([eums.head, second.head]))
    if run.runtime.is_main:
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, folder / "regions.safetensors")
    run.runtime.barrier()
    return {"model": evaluate(run, "regions", folder, "regions", weights=folder)}


def cluster_again(run: Context, folder: Path, clusters: int, used: Sequence[str]) -> None:
    """Pseudo-labels of the same masks, clustered in the metric of the recipe's ``regions``."""
    other = run.with_settings("clustering", metric=run.recipe.regions.metric)
    regions, prototypes = masked_regions(other, run.folder / "clustering", used)
    config = other.recipe.clustering
    again = partial(
        cluster_prototypes, prototypes, clusters, **config.k_means, seed=run.seed + 3_000
    )
    regions["cluster"], _ = run.runtime.from_main(again)
    write_pseudo_labels(other, run.folder / "clustering", folder, clusters, regions)
    if run.runtime.is_main:
        regions.to_csv(folder / "clusters.csv", index=False)


@torch.inference_mode()
def overlaps(run: Context, one: nn.Module, two: nn.Module) -> np.ndarray:
    """How much two networks agree on clusters in the novel training images.

    Returns:
        float64 [K, K]: the sum over pixels of the product of what ``one`` gives cluster k and
        ``two`` gives cluster l.
    """
    first = 1 + run.labels.num_base
    clusters = run.clusters["eums"]
    together = torch.zeros(clusters, clusters, dtype=torch.double, device=run.runtime.device)
    streams = [predict(run, network, run.splits.novel, None, "match") for network in (one, two)]
    for (_, logits), (_, others) in zip(*streams, strict=True):
        said, other = (own.softmax(1)[:, first:].double() for own in (logits, others))
        together += torch.einsum("bkhw,blhw->kl", said, other)
    return run.runtime.sum(together).cpu().numpy()


def best_order(together: np.ndarray) -> np.ndarray:
    """One-to-one matching that keeps as much of the overlap as possible (Hungarian method).

    Args:
        together: float [K, K] from :func:`overlaps`.

    Returns:
        int64 [K]: the cluster of the second network for each of the first.
    """
    return linear_sum_assignment(together, maximize=True)[1]


@torch.no_grad()
def reorder_clusters(head: nn.Module, first: int, order: np.ndarray) -> None:
    """Bring the clusters of a head into another order, in place.

    Args:
        head: its last module is the classifier, a 1x1 convolution.
        first: channel of cluster 1; those before it stay.
        order: int64 [K], the cluster (from 0) that takes each place.
    """
    classifier: Any = head[-1]  # type: ignore[index]
    channels = torch.cat([torch.arange(first), first + torch.from_numpy(order)])
    for parameter in (classifier.weight, classifier.bias):
        parameter.copy_(parameter[channels.to(parameter.device)])
