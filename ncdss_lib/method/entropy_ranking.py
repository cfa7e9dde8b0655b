"""Stage 4, entropy ranking: novel images into clean and unclean by the basic model's entropy.

In: ``basic_oc`` and its pseudo-labels.
Out: ``ranking.csv``: id, cluster, entropy (ascending), split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.clustering import images_table, read_pseudo_label, used_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.inference import load_model, predict


def entropy_map(logits: Tensor) -> Tensor:
    """Entropy of the prediction at each pixel, divided by log2 C.

    Args:
        logits: float [b, C, ...], of maps or of single pixels.

    Returns:
        float [b, ...] in 0..1.
    """
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def region_entropy(logits: Tensor, region: Tensor) -> Tensor:
    """Score of an image: mean entropy over its pseudo-novel region.

    No other pixel is looked at: a region is a fifth of a typical image.

    Args:
        logits: float [b, C, H, W].
        region: bool [b, H, W].

    Returns:
        float [b]; infinite where the region is empty, so that such an image is unclean (the
        published NaN has no place in an order).
    """
    empty = logits.new_tensor(math.inf)
    scores = []
    for image, where in zip(logits.permute(0, 2, 3, 1), region, strict=True):
        inside = image[where]  # [n, C]
        scores.append(entropy_map(inside).mean() if len(inside) else empty)
    return torch.stack(scores)


def split_clean(
    entropy: np.ndarray,
    clusters: np.ndarray,
    share: float,
    per: Literal["dataset", "cluster"],
) -> np.ndarray:
    """Which images are clean: the ``share`` of lowest entropy.

    Args:
        entropy: float [n].
        clusters: int [n].
        per: rank all images together (both recipes), or each cluster by itself (an option, because
            one ranking may call few images of a hard cluster clean).

    Returns:
        bool [n]; int(n * share) are True (of each group, rounded half up where the groups are
        clusters). Infinite entropy is never clean.
    """
    clean = np.zeros(len(entropy), bool)
    groups = (
        [np.arange(len(entropy))]
        if per == "dataset"
        else [np.flatnonzero(clusters == k) for k in np.unique(clusters)]
    )
    for group in groups:
        half = 0.0 if per == "dataset" else 0.5  # cut as published, or rounded
        count = int(len(group) * share + half)
        clean[group[np.argsort(entropy[group], kind="stable")[:count]]] = True
    return clean & np.isfinite(entropy)


def image_entropies(run: Context, model: nn.Module, ids: Sequence[str]) -> dict[str, float]:
    """Entropy score of each image under a model, over its over-clustered pseudo-label."""
    clusters, first, size = run.clusters["eums"], 1 + run.labels.num_base, run.views.size
    found: list[tuple[str, float]] = []

    def read(image_id: str) -> np.ndarray:
        return resize_labels(read_pseudo_label(run.folder / "clustering", clusters, image_id), size)

    for batch, logits in predict(run, model, ids, size, "entropy", run.recipe.entropy_ranking):
        labels = np.stack(run.runtime.map(read, batch))  # while the device is at work
        region = run.runtime.to_device(torch.from_numpy((labels >= first) & (labels != IGNORE)))
        found += zip(batch, region_entropy(logits, region).tolist(), strict=True)
    return dict(run.runtime.gather(found))


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Rank the novel images with ``basic_oc``."""
    config, clusters = run.recipe.entropy_ranking, run.clusters["eums"]
    used = used_images(run.folder / "clustering")
    entropies = image_entropies(run, load_model(run, "basic_oc"), used)
    ranking = pd.DataFrame(index=pd.Index(used, name="id"))
    ranking["cluster"] = (
        images_table(run.folder / "clustering").loc[used, f"cluster_{clusters}"].astype(int)
    )
    ranking["entropy"] = [entropies[i] for i in used]
    clean = split_clean(
        ranking["entropy"].to_numpy(), ranking["cluster"].to_numpy(), config.clean_share, config.per
    )
    clean |= not config.enabled
    ranking["split"] = np.where(clean, "clean", "unclean")
    if run.runtime.is_main:
        ranking.sort_values("entropy", kind="stable").to_csv(folder / "ranking.csv")
    return {"clean": int(clean.sum()), "unclean": int((~clean).sum())}


def read_ranking(folder: Path) -> pd.DataFrame:
    """``ranking.csv``, indexed by image id, ascending entropy."""
    return pd.read_csv(folder / "ranking.csv", index_col="id", dtype={"id": str})
