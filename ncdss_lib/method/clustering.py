"""Stage 2, clustering pseudo-labelling.

Saliency minus base classes, one prototype an image, k-means, and what comes of all that: a label.

In: the base model; novel images with their saliency maps; the ImageNet encoder.
Out: ``base_pred/ID.png`` (confident base classes), ``novel_map/ID.png`` ({0, 1}), ``images.csv``
(what became of each novel image and its clusters), ``regions.csv`` (what was clustered, and its
clusters), ``prototypes.safetensors``, and for each K ``pseudo_labels_K/ID.png``.

As published there is one region an image, its whole novel mask. Where the recipe says ``part``, an
image has a region for each connected part of the mask, and may hold several clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, resize_labels, write_labels
from ncdss_lib.method.base_class_removal import novel_regions, read_regions, remove_base_classes
from ncdss_lib.method.check_settings import check_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.number_of_classes import estimate_number
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.system.folders import write_json

NUMBER = "num_novel.json"


def adjoint_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Weights at feature resolution that pool as the mask does after bilinear upsampling.

    Upsampling is linear, ``u = W f``, so the sum of ``u`` over a mask ``m`` is
    ``sum (W f) m = sum f (W^T m)``. W is separable, so W^T m is a product with two small matrices,
    and the upsampled features are never made (2 GB an image at 512 px and 2048 channels).

    Args:
        mask: bool or float [S, T].
        height, width: of the features.

    Returns:
        float32 [height, width]; its sum is that of the mask.
    """
    rows = _bilinear_matrix(mask.shape[0], height)
    columns = _bilinear_matrix(mask.shape[1], width)
    return rows.T @ mask.astype(np.float32) @ columns


@cache
def _bilinear_matrix(large: int, small: int) -> np.ndarray:
    """W of 1-D bilinear upsampling (align_corners=False), float32 [large, small]."""
    unit = torch.eye(small)[:, None, :]
    upsampled = F.interpolate(unit, large, mode="linear", align_corners=False)
    return upsampled[:, 0].T.numpy()


def masked_prototype(features: Tensor, weights: Tensor) -> Tensor:
    """One L2-normalised prototype an image: the sum of features under the novel mask.

    Args:
        features: float [b, C, h, w].
        weights: float [b, h, w] from :func:`adjoint_mask`.

    Returns:
        float32 [b, C] of unit length.
    """
    sums = [
        image.float().flatten(1) @ weight.float().flatten()
        for image, weight in zip(features, weights, strict=True)
    ]
    return F.normalize(torch.stack(sums), dim=1)


def within_class_whitening(prototypes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A metric learned from base objects: what differs within a class counts less.

    Ours, because base classes tell which directions of the features do not tell classes
    apart. The covariance of prototypes about the mean of their class is shrunk as
    Ledoit and Wolf (2004) estimate it, and whitened away.

    Args:
        prototypes: float [M, C] of base objects.
        classes: int [M].

    Returns:
        float64 [C, C], symmetric: new prototypes are multiplied by it.
    """
    deviations = prototypes.astype(np.float64)
    for label in np.unique(classes):
        deviations[classes == label] -= deviations[classes == label].mean(0)
    covariance = LedoitWolf(assume_centered=True).fit(deviations).covariance_
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(values)) @ vectors.T


def fuse(
    base_pred: np.ndarray,
    novel_map: np.ndarray,
    cluster: int | np.ndarray,
    num_base: int,
) -> np.ndarray:
    """The pseudo-label of an image: confident base classes, else its cluster on the novel mask.

    What is neither is background.

    Args:
        base_pred: uint8 [H, W], 0..B.
        novel_map: bool [H, W].
        cluster: 1..K, one for the image, or of each pixel, int [H, W].

    Returns:
        uint8 [H, W]: 0, 1..B, or B + cluster.
    """
    clusters = novel_map * (num_base + cluster)
    return np.where(base_pred > 0, base_pred, clusters).astype(np.uint8)


def cluster_prototypes(
    prototypes: np.ndarray,
    clusters: int,
    *,
    dims: int,
    whiten: bool,
    n_init: int,
    seed: int,
) -> tuple[np.ndarray, PCA]:
    """PCA, then k-means++.

    Args:
        prototypes: float [n, C].
        clusters: K.
        dims: dimensions kept, at most n - 1.

    Returns:
        Cluster of each prototype, int64 [n] in 1..K, and the fitted PCA.
    """
    kept = min(dims, len(prototypes) - 1, prototypes.shape[1])
    pca = PCA(kept, whiten=whiten, svd_solver="full")
    reduced = pca.fit_transform(prototypes)
    assigned = KMeans(clusters, n_init=n_init, random_state=seed).fit_predict(reduced)
    return assigned.astype(np.int64) + 1, pca


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """From the base model to pseudo-labels, for K = N and for over-clustering."""
    config = run.recipe.clustering
    images = remove_base_classes(run, folder)
    used = images.index[images["status"] == "used"].tolist()
    check_images(run, Counter(images["status"]))

    # A prototype a region: by default the novel mask of an image.
    regions, prototypes = masked_regions(run, folder, used)
    found = run.runtime.from_main(partial(_number_of_classes, run, prototypes))
    check_images(run, Counter(images["status"]), len(prototypes), found)
    largest = regions["region"] == 1
    if run.runtime.is_main:
        write_json(folder / NUMBER, {"num_novel": found})
        tensors = {"prototypes": torch.from_numpy(prototypes[largest])}
        save_file(tensors, folder / "prototypes.safetensors")

    # For each K: a cluster a region, and the labels.
    numbers = {}
    for k in sorted(set(run.clusters_for(found).values())):
        cluster = partial(cluster_prototypes, prototypes, k, **config.k_means, seed=run.seed)
        # Once: machines that round otherwise might number the clusters otherwise.
        assigned, pca = run.runtime.from_main(cluster)
        regions[f"cluster_{k}"] = assigned
        of_image = regions[largest].set_index("id")[f"cluster_{k}"]
        images[f"cluster_{k}"] = of_image.reindex(images.index).astype("Int64")
        numbers = {
            "pca_dims": int(pca.n_components_),
            "explained_variance": float(pca.explained_variance_ratio_.sum()),
        }
        labelled = regions.assign(cluster=regions[f"cluster_{k}"])
        write_pseudo_labels(run, folder, folder, k, labelled)
    if run.runtime.is_main:
        images.to_csv(folder / "images.csv")
        regions.to_csv(folder / "regions.csv", index=False)
    status = images["status"].value_counts()
    return {
        "novel_used": len(used),
        "no_saliency": int(status.get("no_saliency", 0)),
        "below_min_area": int(status.get("below_min_area", 0)),
        "num_novel": found,
        **numbers,
    }


def _number_of_classes(run: Context, prototypes: np.ndarray) -> int:
    """N as the recipe wants it: of the data set, given, or estimated."""
    given = run.num_novel
    return estimate_number(prototypes, seed=run.seed) if given is None else given


def masked_regions(
    run: Context, folder: Path, used: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """The regions of the used images and their prototypes, in the metric of the recipe.

    Args:
        folder: of the clustering stage, with the novel masks.

    Returns:
        As :func:`region_prototypes`.
    """
    regions, prototypes = region_prototypes(run, used, partial(novel_regions, run, folder))
    if run.recipe.clustering.metric == "base":
        prototypes = _learned_metric(run, prototypes)
    return regions, prototypes


def write_pseudo_labels(
    run: Context, masks: Path, folder: Path, clusters: int, regions: pd.DataFrame
) -> None:
    """Write ``pseudo_labels_K/ID.png`` of each image with a region.

    Args:
        masks: the clustering stage's folder, with novel masks and confident base classes.
        folder: where the labels go.
        regions: ``id``, ``region`` and ``cluster`` (1..K) of each region, by image and region.
    """
    by_image = regions.groupby("id", sort=False)["cluster"].agg(list)
    write = partial(_write_pseudo_label, run, masks, folder / f"pseudo_labels_{clusters}")
    run.runtime.map(write, run.runtime.shard(list(by_image.items())))
    run.runtime.barrier()


def _write_pseudo_label(
    run: Context, folder: Path, labels: Path, found: tuple[str, list[int]]
) -> None:
    image_id, cluster_of_region = found
    base_pred = read_labels(folder / "base_pred" / f"{image_id}.png")
    regions = read_regions(run, folder, image_id)
    cluster = np.array([0, *cluster_of_region])[regions]
    pseudo = fuse(base_pred, regions > 0, cluster, run.labels.num_base)
    if run.recipe.clustering.uncertain_label == IGNORE:
        pseudo[(pseudo == 0) & (read_labels(folder / "uncertain" / f"{image_id}.png") > 0)] = IGNORE
    if band := round(run.recipe.clustering.ignored_band * max(pseudo.shape)):
        pseudo[_edge(regions > 0, band) & (base_pred == 0)] = IGNORE
    write_labels(labels / f"{image_id}.png", pseudo)


def _edge(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels within ``width`` pixels of the border of a mask, bool [H, W]."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    pixels = mask.astype(np.uint8)
    return cv2.dilate(pixels, kernel) != cv2.erode(pixels, kernel)


def base_objects(run: Context, image_id: str) -> dict[int, np.ndarray]:
    """Base classes in the truth of a labelled image at the network's size: class -> bool [S, S]."""
    truth = resize_labels(run.truth(image_id, hide_novel=True), run.views.size)
    masks = {label: truth == label for label in range(1, 1 + run.labels.num_base)}
    least = run.recipe.clustering.min_area_fraction
    return {label: mask for label, mask in masks.items() if mask.mean() > least}


def _learned_metric(run: Context, prototypes: np.ndarray) -> np.ndarray:
    """The prototypes in the metric of the labelled base objects, of unit length again."""
    objects, known = region_prototypes(run, run.splits.base, partial(base_objects, run))
    metric = within_class_whitening(known, objects["region"].to_numpy())
    moved = prototypes @ metric
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


@torch.inference_mode()
def region_prototypes(
    run: Context, ids: Sequence[str], regions: Callable[[str], dict[int, np.ndarray]]
) -> tuple[pd.DataFrame, np.ndarray]:
    """A prototype a region, from the ImageNet encoder's deepest stage.

    Args:
        regions: image id -> its regions by number, bool [S, S].

    Returns:
        A table with ``id`` and ``region``, sorted by both in the order of the ids, and float32
        [M, C], a row for each of its rows.
    """
    runtime = run.runtime
    views = run.views
    encoder: nn.Module = nn.Identity()  # cached features are the encoder's
    if not views.channels:
        encoder = runtime.prepare(Encoder(run.recipe.model).eval())
    deepest = (views.channels or encoder.channels)[-1]  # type: ignore[index]

    found: list[tuple[str, tuple[list[int], np.ndarray]]] = []
    for batch, inputs in views.clean(runtime.shard(ids), run.recipe.compute.inference_batch):
        with runtime.autocast():
            features = encoder(runtime.to_device(inputs))[:, -deepest:]
        masks = runtime.map(regions, batch)  # while the device is at work
        for i, image, own in zip(batch, features, masks, strict=True):
            if own:
                weights = [adjoint_mask(mask, *image.shape[-2:]) for mask in own.values()]
                where = runtime.to_device(torch.from_numpy(np.stack(weights)))
                repeated = image.expand(len(own), *image.shape)
                prototypes = masked_prototype(repeated, where).cpu().numpy()
                found.append((i, (list(own), prototypes)))
    by_id = dict(runtime.gather(found))
    known = [i for i in ids if i in by_id]
    rows = [(i, number) for i in known for number in by_id[i][0]]
    return (
        pd.DataFrame(rows, columns=["id", "region"]),
        np.concatenate([by_id[i][1] for i in known]),
    )


def images_table(folder: Path) -> pd.DataFrame:
    """``images.csv`` of a clustering folder, indexed by image id."""
    return pd.read_csv(folder / "images.csv", index_col="id", dtype={"id": str})


def used_images(folder: Path) -> list[str]:
    """Ids of the novel images that have a pseudo-label, sorted."""
    images = images_table(folder)
    return images.index[images["status"] == "used"].tolist()


def read_pseudo_label(folder: Path, clusters: int, image_id: str) -> np.ndarray:
    """Pseudo-label of an image for K clusters, uint8 [H, W]."""
    return read_labels(folder / f"pseudo_labels_{clusters}" / f"{image_id}.png")


def read_prototypes(folder: Path) -> np.ndarray:
    """Prototypes of :func:`used_images`, of the largest region each, float32 [n, C]."""
    return load_file(folder / "prototypes.safetensors")["prototypes"].numpy()
