"""Stage 6, evaluation: one pass a model, one confusion matrix, all scores from it (method reference, section 11).

In: the trained networks and the validation set; for the pseudo-labels, the masks of the unlabelled training images, which are used
here and nowhere before.
Out: ``confusion_MODEL.csv`` (rows truth, columns prediction), ``pseudo_label_counts.csv``, and the scores in the manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ncdss_lib.data.views import resize_labels
from ncdss_lib.inference import load_model, predict
from ncdss_lib.metrics import confusion_matrix, score
from ncdss_lib.stages.clustering import read_pseudo_label, used_images
from ncdss_lib.stages.entropy_ranking import read_ranking

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run

PROTOCOLS = ("published", "hungarian", "argmax_iou", "majority")
MODELS = ("base", "basic", "basic_oc", "eums")


def confusion_on_val(run: Run, model: nn.Module, size: int) -> np.ndarray:
    """Confusion matrix of a model on the validation images.

    Returns:
        int64 [1 + B + N, outputs]: truth by prediction, counted at ``size`` x ``size`` pixels, summed over all processes.
    """
    rows = len(run.labels.names)
    total = torch.zeros(1, dtype=torch.int64, device=run.runtime.device)
    for ids, logits in predict(run, model, run.splits.val, size, "evaluate"):
        truth = torch.from_numpy(np.stack([resize_labels(run.truth(i), size) for i in ids]))
        total = total + confusion_matrix(run.runtime.to_device(truth), logits.argmax(1), rows, logits.shape[1])
    return np.sum(np.broadcast_arrays(*run.runtime.gather([total.cpu().numpy()])), 0)  # a process without images has a lone 0


def pseudo_label_counts(truth: np.ndarray, pseudo: np.ndarray, run: Run, clusters: int) -> np.ndarray:
    """Ground truth under each cluster of one image.

    Args:
        truth: contiguous ids, uint8 [H, W], 255 left out.
        pseudo: pseudo-labels, uint8 [H, W].

    Returns:
        int64 [1 + B + N, K].
    """
    first, rows = 1 + run.labels.num_base, len(run.labels.names)
    novel = (pseudo >= first) & (pseudo < first + clusters)
    counts = confusion_matrix(torch.from_numpy(truth[novel]), torch.from_numpy(pseudo[novel].astype(np.int64) - first), rows, clusters)
    return counts.numpy()


def pseudo_label_quality(counts: np.ndarray, first_novel: int) -> dict[str, float | None]:
    """How right pseudo-labels are, clusters mapped to classes by majority.

    Args:
        counts: int64 [images, 1 + B + N, K] from :func:`pseudo_label_counts`.
        first_novel: 1 + B.

    Returns:
        ``correct_share``: share of pseudo-novel pixels (255 left out) whose truth is the class of their cluster; background counts
        as wrong. ``purity``: share of images whose most frequent novel class is that of most images in their cluster.
    """
    return _quality(counts, counts, first_novel)


def _quality(counts: np.ndarray, all_counts: np.ndarray, first_novel: int) -> dict[str, float | None]:
    mapping = all_counts.sum(0)[first_novel:].argmax(0) + first_novel  # [K]
    total = counts.sum(0)
    right = sum(int(total[label, cluster]) for cluster, label in enumerate(mapping))
    novel = counts[:, first_novel:].sum(2)  # [images, N]
    known = novel.sum(1) > 0
    cluster, label = counts.sum(1).argmax(1)[known], novel.argmax(1)[known]
    table = np.zeros((counts.shape[2], novel.shape[1]), np.int64)
    np.add.at(table, (cluster, label), 1)
    return {
        "correct_share": right / int(total.sum()) if total.sum() else None,
        "purity": int(table.max(1).sum()) / len(label) if len(label) else None,
    }


def compute(run: Run, folder: Path) -> dict[str, Any]:
    """Score the four models and the pseudo-labels."""
    size = run.recipe.evaluation.size
    models = {name: _evaluate(run, name, folder, size) for name in MODELS}
    return {"models": models, "pseudo_labels": _pseudo_labels(run, folder)}


def _evaluate(run: Run, name: str, folder: Path, size: int) -> dict[str, Any]:
    config = run.training_config(name)
    confusion = _confusion(run, name, "", folder, size)
    rules = PROTOCOLS if run.clusters.get(name) else ()
    entry = {
        "clusters": run.clusters.get(name, 0),
        "epoch": config.epochs - 1,
        "size": size,
        **score(confusion, run.labels).as_dict(),
        "protocols": {rule: score(confusion, run.labels, rule).as_dict() for rule in rules},
        "confusion": f"evaluation/confusion_{name}.csv",
    }
    if config.select == "best_val":
        best = _confusion(run, name, "_best", folder, size)
        entry["protocols"]["best_epoch"] = {**score(best, run.labels).as_dict(), "confusion": f"evaluation/confusion_{name}_best.csv"}
    return entry


def _confusion(run: Run, name: str, suffix: str, folder: Path, size: int) -> np.ndarray:
    confusion = confusion_on_val(run, load_model(run, name, suffix), size)
    names = run.labels.names
    columns = [*names[: 1 + run.labels.num_base], *(f"cluster {k + 1}" for k in range(run.clusters.get(name, 0)))]
    if run.runtime.is_main:
        pd.DataFrame(confusion, index=pd.Index(names, name="truth"), columns=columns).to_csv(folder / f"confusion_{name}{suffix}.csv")
    return confusion


def _pseudo_labels(run: Run, folder: Path) -> dict[str, Any]:
    first = 1 + run.labels.num_base
    used = used_images(run.folder / "clustering")
    quality: dict[str, Any] = {}
    counts: dict[str, np.ndarray] = {}
    for name in ("basic", "basic_oc"):
        k = run.clusters[name]
        counts[name] = np.stack(
            [pseudo_label_counts(run.truth(i), read_pseudo_label(run.folder / "clustering", k, i), run, k) for i in used]
        )
        quality[name] = {"images": len(used), **pseudo_label_quality(counts[name], first)}
    ranking = read_ranking(run.folder / "entropy_ranking")
    for split in ("clean", "unclean"):
        rows = [row for row, i in enumerate(used) if ranking.loc[i, "split"] == split]
        # The clusters' classes are those of all images, not of this half alone.
        quality[split] = {"images": len(rows), **_quality(counts["basic_oc"][rows], counts["basic_oc"], first)}
    return quality
