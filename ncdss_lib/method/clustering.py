"""Stage 2, clustering pseudo-labelling.

Saliency minus base classes, one prototype an image, k-means, and what comes of all that: a label.

In: the base model; novel images with their saliency maps; the ImageNet encoder.
Out: ``base_pred/ID.png`` (confident base classes), ``novel_map/ID.png`` ({0, 1}), ``images.csv``
(what became of each novel image and its clusters), ``prototypes.safetensors``, and for each K
``pseudo_labels_K/ID.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, resize_labels, write_labels
from ncdss_lib.method.context import Context
from ncdss_lib.method.inference import load_model, predict
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.system.errors import InputError


def confident_base(logits: Tensor, confidence: float) -> Tensor:
    """Pixels that the base model takes for a base class with confidence.

    Args:
        logits: float [b, 1 + B, H, W] of the base model.
        confidence: the published value is 0.9, compared strictly.

    Returns:
        uint8 [b, H, W]: the base class 1..B where its probability is greater than ``confidence``,
        else 0.
    """
    probability, label = logits.softmax(1).max(1)
    return torch.where(probability > confidence, label, 0).to(torch.uint8)


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


def fuse(
    base_pred: np.ndarray,
    novel_map: np.ndarray,
    cluster: int,
    num_base: int,
) -> np.ndarray:
    """The pseudo-label of an image: confident base classes, else its cluster on the novel mask.

    What is neither is background.

    Args:
        base_pred: uint8 [H, W], 0..B.
        novel_map: bool [H, W].
        cluster: 1..K.

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
    images = _novel_maps(run, folder)
    used = images.index[images["status"] == "used"].tolist()
    _check_number(run, images["status"])

    # One prototype an image.
    prototypes = _prototypes(run, folder, used)
    if run.runtime.is_main:
        save_file({"prototypes": torch.from_numpy(prototypes)}, folder / "prototypes.safetensors")

    # For each K: one cluster an image, and its label.
    numbers = {}
    for k in sorted(set(run.clusters.values())):
        cluster = partial(
            cluster_prototypes,
            prototypes,
            k,
            dims=config.pca_dims,
            whiten=config.whiten,
            n_init=config.n_init,
            seed=run.seed,
        )
        # Once: machines that round otherwise might number the clusters otherwise.
        assigned, pca = run.runtime.from_main(cluster)
        column = pd.Series(assigned, index=used).reindex(images.index)
        images[f"cluster_{k}"] = column.astype("Int64")
        numbers = {
            "pca_dims": int(pca.n_components_),
            "explained_variance": float(pca.explained_variance_ratio_.sum()),
        }
        shares = zip(run.runtime.shard(used), run.runtime.shard(assigned.tolist()), strict=True)
        run.runtime.map(partial(_write_pseudo_label, run, folder, k), shares)
    if run.runtime.is_main:
        images.to_csv(folder / "images.csv")
    status = images["status"].value_counts()
    return {
        "novel_used": len(used),
        "no_saliency": int(status.get("no_saliency", 0)),
        "below_min_area": int(status.get("below_min_area", 0)),
        **numbers,
    }


def _check_number(run: Context, status: pd.Series) -> None:
    """Refuse to look for more clusters than images are left."""
    counts = status.value_counts()
    largest = max(run.clusters.values())
    used = counts.get("used", 0)
    if used < largest:
        raise InputError(
            f"more clusters than images: K = {largest}, but only {used} of {len(status)} novel "
            f"images are left ({counts.get('no_saliency', 0)} without saliency, "
            f"{counts.get('below_min_area', 0)} below the area limit). Use more images, lower "
            "clustering.min_area_fraction / min_area_pixels, or clustering.over_clustering."
        )


def _novel_maps(run: Context, folder: Path) -> pd.DataFrame:
    """Base-class removal and the area rule: one row a novel image, with its area and status."""
    config = run.recipe.clustering
    salient = [i for i in run.splits.novel if run.data.saliency(i) is not None]
    write = partial(_write_novel_map, run, folder)
    rows: list[tuple[str, int, float]] = []
    base_model = load_model(run, "base")
    for ids, logits in predict(run, base_model, salient, run.views.size, "base-class removal"):
        base_preds = confident_base(logits, config.base_confidence).cpu().numpy()
        guesses = (logits.argmax(1) > 0).to(torch.uint8).cpu().numpy()
        rows += run.runtime.map(write, zip(ids, base_preds, guesses, strict=True))

    index = pd.Index(run.splits.novel, name="id")
    images = pd.DataFrame(index=index, columns=["area", "share"], dtype=float)
    images["status"] = "no_saliency"
    for i, area, share in run.runtime.gather(rows):
        large = area > config.min_area_pixels and share > config.min_area_fraction
        status = "used" if large else "below_min_area"
        images.loc[i, ["area", "share", "status"]] = [area, share, status]
    return images


def _write_novel_map(
    run: Context, folder: Path, found: tuple[str, np.ndarray, np.ndarray]
) -> tuple[str, int, float]:
    """Write what is known of one image at its own size.

    Returns:
        Its id, and pixels and share of its novel mask.
    """
    image_id, small, guess = found
    config = run.recipe.clustering
    salient = run.data.saliency(image_id)
    assert salient is not None
    base_pred = resize_labels(small, salient.shape)
    if config.mask_size == "network":
        salient = resize_labels(resize_labels(salient, run.views.size), salient.shape)
    novel_map = salient & (base_pred == 0)
    write_labels(folder / "base_pred" / f"{image_id}.png", base_pred)
    write_labels(folder / "novel_map" / f"{image_id}.png", novel_map.astype(np.uint8))
    if config.uncertain_label == IGNORE:
        write_labels(folder / "uncertain" / f"{image_id}.png", resize_labels(guess, salient.shape))
    return image_id, int(novel_map.sum()), float(novel_map.mean())


def _write_pseudo_label(run: Context, folder: Path, clusters: int, found: tuple[str, int]) -> None:
    image_id, cluster = found
    base_pred = read_labels(folder / "base_pred" / f"{image_id}.png")
    novel_map = read_labels(folder / "novel_map" / f"{image_id}.png") > 0
    pseudo = fuse(base_pred, novel_map, cluster, run.labels.num_base)
    if run.recipe.clustering.uncertain_label == IGNORE:
        pseudo[(pseudo == 0) & (read_labels(folder / "uncertain" / f"{image_id}.png") > 0)] = IGNORE
    write_labels(folder / f"pseudo_labels_{clusters}" / f"{image_id}.png", pseudo)


@torch.inference_mode()
def _prototypes(run: Context, folder: Path, used: list[str]) -> np.ndarray:
    """One prototype a used image, from the ImageNet encoder's deepest stage: float32 [n, C]."""
    runtime = run.runtime
    views = run.views
    encoder: nn.Module = nn.Identity()  # cached features are the encoder's
    if not views.channels:
        encoder = runtime.prepare(Encoder(run.recipe.model).eval())
    deepest = (views.channels or encoder.channels)[-1]  # type: ignore[index]

    found: list[tuple[str, np.ndarray]] = []
    for ids, inputs in views.clean(runtime.shard(used), run.recipe.compute.inference_batch):
        with runtime.autocast():
            features = encoder(runtime.to_device(inputs))[:, -deepest:]
        pooling = partial(_pooling_weights, folder, views.size, features.shape[-2:])
        weights = runtime.to_device(torch.from_numpy(np.stack(runtime.map(pooling, ids))))
        found += zip(ids, masked_prototype(features, weights).cpu().numpy(), strict=True)
    by_id = dict(runtime.gather(found))
    return np.stack([by_id[i] for i in used])


def _pooling_weights(folder: Path, size: int, shape: Sequence[int], image_id: str) -> np.ndarray:
    mask = resize_labels(read_labels(folder / "novel_map" / f"{image_id}.png"), size) > 0
    return adjoint_mask(mask, *shape)


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
    """Prototypes of :func:`used_images`, float32 [n, C]."""
    return load_file(folder / "prototypes.safetensors")["prototypes"].numpy()
