"""Stage 6, evaluation: one pass a model, one confusion matrix, all scores from it (method reference, section 11).

In: the trained networks and the validation set; for the pseudo-labels, the masks of the unlabelled training images, which are used
here and nowhere before.
Out: ``confusion_MODEL.csv`` (rows truth, columns prediction), the same for one half of the images and at original size, and the scores in
the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ncdss_lib.data.label_maps import resize_labels
from ncdss_lib.inference import load_model, predict
from ncdss_lib.labels import LabelSpace
from ncdss_lib.metrics import Scores, confusion_matrix, match_clusters, score, score_held_out, score_matched
from ncdss_lib.models.segmenter import Segmenter
from ncdss_lib.stages.clustering import read_pseudo_label, used_images
from ncdss_lib.stages.entropy_ranking import read_ranking
from ncdss_lib.training import read_history

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run

RULES = ("published", "hungarian", "argmax_iou", "majority")
MODELS = ("base", "basic", "basic_oc", "eums")


@dataclass(frozen=True)
class Confusions:
    """Counts of one model over the validation images, int64, truth by prediction; every score follows from them.

    Attributes:
        halves: [2, 1 + B + N, 1 + B + K] at ``size``: the images of even and of odd position in the sorted list.
        original: [1 + B + N, 1 + B + K] at the images' original size, predictions resized by nearest neighbour (section 11).
    """

    halves: np.ndarray
    original: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Over all images at ``size``, int64 [1 + B + N, 1 + B + K]."""
        return self.halves.sum(0)


def confusions(run: Run, model: Segmenter, size: int) -> Confusions:
    """Score a model on the validation images in one pass, shared among all processes.

    Args:
        size: side in pixels at which labels are predicted.
    """
    half_of = {i: position % 2 for position, i in enumerate(run.splits.val)}
    counts = torch.zeros(3, len(run.labels.names), model.outputs, dtype=torch.int64)  # two halves, and at original size
    for ids, logits in predict(run, model, run.splits.val, size, "evaluate"):
        for i, prediction in zip(ids, logits.argmax(1).to(torch.uint8).cpu(), strict=True):
            truth = run.truth(i)
            counts[half_of[i]] += _count(resize_labels(truth, size), prediction.numpy(), counts)
            counts[2] += _count(truth, resize_labels(prediction.numpy(), truth.shape), counts)
    total = run.runtime.sum(counts.to(run.runtime.device)).cpu().numpy()
    return Confusions(total[:2], total[2])


def confusion_on_val(run: Run, model: Segmenter, size: int) -> np.ndarray:
    """Confusion matrix of a model on the validation images at ``size`` pixels, int64 [1 + B + N, outputs]."""
    return confusions(run, model, size).total


def _count(truth: np.ndarray, prediction: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return confusion_matrix(torch.from_numpy(truth), torch.from_numpy(prediction), *like.shape[1:])


def protocols(found: Confusions, labels: LabelSpace) -> dict[str, Scores]:
    """The scores of one model under every protocol, from the same predictions.

    ``published``, ``hungarian``, ``argmax_iou`` and ``majority`` match clusters on all images (:func:`ncdss_lib.metrics.match_clusters`);
    ``held_out`` on the half that it does not score; ``original_size`` scores the published matching at the images' own size, as the
    released evaluation script does. A base model has no clusters, so only the first and the last differ.
    """
    if found.total.shape[1] == 1 + labels.num_base:
        return {"published": score(found.total, labels), "original_size": score(found.original, labels)}
    matched = {rule: score(found.total, labels, rule) for rule in RULES}
    at_original = score_matched(found.original, match_clusters(found.total, labels, "published"), labels, "published")
    return {**matched, "held_out": score_held_out(found.halves, labels), "original_size": at_original}


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
    return {"models": {name: evaluate(run, name, folder) for name in MODELS}, "pseudo_labels": _pseudo_labels(run, folder)}


def evaluate(run: Run, name: str, folder: Path, place: str = "evaluation", weights: Path | None = None) -> dict[str, Any]:
    """The entry of one model in report.json; its confusion matrices are left in ``folder``.

    The headline is the last epoch under the published matching. Where the best epoch on the validation set was kept, its scores stand
    under ``best_epoch``: that choice reads the truth of the images that it is scored on.

    Args:
        place: what ``folder`` will be called in the run folder, once it is finished.
        weights: the folder with the model's weights; None is that of its stage.
    """
    size, config = run.recipe.evaluation.size, run.training_config(name)
    entry: dict[str, Any] = {"clusters": run.clusters.get(name, 0), "epoch": config.epochs - 1, "size": size}
    scores = _protocols(run, name, "", folder, place, weights)
    shown = scores if entry["clusters"] else {"original_size": scores["original_size"]}
    entry |= scores["published"] | {"protocols": shown}
    if config.validates:
        best = _protocols(run, name, "_best", folder, place, weights)
        epoch = int(read_history(run.weights(name, "", weights).parent, name)["val_miou"].idxmax())
        entry["protocols"]["best_epoch"] = {"epoch": epoch, **best["published"]}
        entry["protocols"]["best_epoch_original_size"] = {"epoch": epoch, **best["original_size"]}
    return entry


def _protocols(run: Run, name: str, suffix: str, folder: Path, place: str, weights: Path | None) -> dict[str, dict[str, Any]]:
    found = confusions(run, load_model(run, name, suffix, weights), run.recipe.evaluation.size)
    stem = f"confusion_{name}{suffix}"
    for kind, confusion in {"": found.total, "_half": found.halves[0], "_original": found.original}.items():
        _write(run, confusion, folder / f"{stem}{kind}.csv")
    entries = {protocol: scores.as_dict() for protocol, scores in protocols(found, run.labels).items()}
    for protocol, entry in entries.items():
        entry["confusion"] = f"{place}/{stem}{'_original' if protocol == 'original_size' else ''}.csv"
    return entries


def _write(run: Run, confusion: np.ndarray, path: Path) -> None:
    names = run.labels.names
    first = 1 + run.labels.num_base
    columns = [*names[:first], *(f"cluster {k + 1}" for k in range(confusion.shape[1] - first))]
    if run.runtime.is_main:
        pd.DataFrame(confusion, index=pd.Index(names, name="truth"), columns=columns).to_csv(path)


def _pseudo_labels(run: Run, folder: Path) -> dict[str, Any]:
    """Quality of the pseudo-labels; None where the unlabelled images have no masks to compare with, as images of one's own."""
    first, clustering = 1 + run.labels.num_base, run.folder / "clustering"
    used = used_images(clustering)
    ranking = read_ranking(run.folder / "entropy_ranking")
    parts = {split: [i for i in used if ranking.loc[i, "split"] == split] for split in ("clean", "unclean")}
    names = {"basic": used, "basic_oc": used, **parts}
    if not all(run.data.has_truth(i) for i in used):
        return {name: {"images": len(ids), "correct_share": None, "purity": None} for name, ids in names.items()}
    counts: dict[str, dict[str, np.ndarray]] = {}
    for name in ("basic", "basic_oc"):
        k = run.clusters[name]
        mine = [(i, pseudo_label_counts(run.truth(i), read_pseudo_label(clustering, k, i), run, k)) for i in run.runtime.shard(used)]
        counts[name] = dict(run.runtime.gather(mine))
    quality: dict[str, Any] = {}
    for name, ids in names.items():
        of_model = counts["basic" if name == "basic" else "basic_oc"]
        everything, chosen = np.stack([of_model[i] for i in used]), [of_model[i] for i in ids]
        # The clusters' classes are those of all images, not of a part alone.
        quality[name] = {"images": len(ids), **_quality(np.stack(chosen) if chosen else everything[:0], everything, first)}
    return quality
