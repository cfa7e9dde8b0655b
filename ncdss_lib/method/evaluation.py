"""Stage 6, evaluation: one pass a model, one confusion matrix, all scores from it.

In: the trained networks and the validation set; for the pseudo-labels, the masks of the unlabelled
training images, which are used here and nowhere before.
Out: ``confusion_MODEL.csv`` (rows truth, columns prediction), the same for one half of the images
and at original size, and the scores in the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.method.clustering import read_pseudo_label, used_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.entropy_ranking import read_ranking
from ncdss_lib.method.inference import load_model, predict_views, read_images
from ncdss_lib.method.metrics import Scores, confusion_matrix, score, score_held_out, score_matched
from ncdss_lib.method.refinement import Edges, Gate, refine
from ncdss_lib.method.training_loop import read_history
from ncdss_lib.models.segmenter import Segmenter

RULES = ("published", "hungarian", "argmax_iou", "majority")
MODELS = ("base", "basic", "basic_oc", "eums")
#: Gate -> the protocol of the published matching behind it.
GATED: dict[Gate, str] = {"none": "plain", "part": "gate_part", "image": "gate_image"}
#: What follows the network: its gate, and whether borders follow the image.
After = tuple[Gate, Edges]


@dataclass(frozen=True)
class Confusions:
    """Pixels of the validation images by truth and by one model's prediction.

    Every score follows from them.

    Attributes:
        halves: int64 [2, 1 + B + N, 1 + B + K] at ``size``: the images of even and of odd position
            in the sorted list.
        original: int64 [1 + B + N, 1 + B + K] at the images' original size, predictions resized by
            nearest neighbour, as the released evaluation script does.
    """

    halves: np.ndarray
    original: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Over all images at ``size``, int64 [1 + B + N, 1 + B + K]."""
        return self.halves.sum(0)


def confusions(
    run: Context,
    model: Segmenter,
    size: int,
    ids: Sequence[str] | None = None,
) -> Confusions:
    """Score a model, as the recipe refines what it says, on the validation images in one pass.

    The images are shared among all processes.

    Args:
        size: side in pixels at which labels are predicted.
        ids: some of the validation images; None: all.
    """
    config = run.recipe.evaluation
    after = (config.gate, config.edges)
    return refined_confusions(run, model, size, (after,), ids, config.views)[after]


def refined_confusions(
    run: Context,
    model: Segmenter,
    size: int,
    kinds: Sequence[After],
    ids: Sequence[str] | None = None,
    views: str = "one",
) -> dict[After, Confusions]:
    """:func:`confusions` of several ways to refine, from one pass through the network.

    Args:
        views: a key of :data:`ncdss_lib.method.inference.VIEWS`.
    """
    ids = run.splits.val if ids is None else ids
    half_of = {i: position % 2 for position, i in enumerate(ids)}
    strength = run.recipe.evaluation.gate_strength
    rows = len(run.labels.names)
    columns = model.outputs
    # Of each way two halves, and all at original size.
    counts = torch.zeros(len(kinds), 3, rows, columns, dtype=torch.int64, device=run.runtime.device)

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        truth = run.truth(image_id)
        return truth, resize_labels(truth, size)

    for batch, logits in predict_views(run, model, ids, views, "evaluate"):
        truths = run.runtime.map(read, batch)  # while the device is at work
        resized = run.runtime.to_device(torch.from_numpy(np.stack([small for _, small in truths])))
        flat = np.concatenate([truth.ravel() for truth, _ in truths])
        original = run.runtime.to_device(torch.from_numpy(flat))
        for (kind, edges), found in zip(kinds, counts, strict=True):
            images = read_images(run, batch, size) if edges == "guided" else None
            predictions = refine(logits, kind, strength, size, images).argmax(1).to(torch.uint8)

            # At the size of the network, each half of the images by itself.
            for half in (0, 1):
                mine = [place for place, i in enumerate(batch) if half_of[i] == half]
                found[half] += confusion_matrix(resized[mine], predictions[mine], rows, columns)

            # At the size of each image.
            pairs = zip(predictions, truths, strict=True)
            enlarged = [nearest(own, truth.shape).flatten() for own, (truth, _) in pairs]
            found[2] += confusion_matrix(original, torch.cat(enlarged), rows, columns)
    total = run.runtime.sum(counts).cpu().numpy()
    return {kind: Confusions(found[:2], found[2]) for kind, found in zip(kinds, total, strict=True)}


def nearest(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """:func:`ncdss_lib.data.masks.resize_labels` on the device: uint8 [h, w] to [H, W]."""
    rows, columns = (
        torch.arange(target, device=labels.device) * source // target
        for source, target in zip(labels.shape, shape, strict=True)
    )
    return labels[rows[:, None], columns]


def confusion_on_val(run: Context, model: Segmenter, size: int) -> np.ndarray:
    """:attr:`Confusions.total` of a model: int64 [1 + B + N, outputs] at ``size`` pixels."""
    return confusions(run, model, size).total


def protocols(found: Confusions, labels: LabelSpace) -> dict[str, Scores]:
    """The scores of one model under every protocol, from the same predictions.

    ``published``, ``hungarian``, ``argmax_iou`` and ``majority`` match clusters on all images, see
    :func:`ncdss_lib.method.cluster_matching.match_clusters`; ``held_out`` on the half that it does
    not score; ``original_size`` scores the published matching at the images' own size, as the
    released evaluation script does. A base model has no clusters: only the first and the last
    differ.
    """
    if found.total.shape[1] == 1 + labels.num_base:
        return {
            "published": score(found.total, labels),
            "original_size": score(found.original, labels),
        }
    mapping = match_clusters(found.total, labels, "published")
    return {
        **{rule: score(found.total, labels, rule) for rule in RULES},
        "held_out": score_held_out(found.halves, labels),
        "original_size": score_matched(found.original, mapping, labels, "published"),
    }


def pseudo_label_counts(
    truth: np.ndarray, pseudo: np.ndarray, labels: LabelSpace, clusters: int
) -> np.ndarray:
    """Ground truth under each cluster of one image.

    Args:
        truth: contiguous ids, uint8 [H, W], 255 left out.
        pseudo: pseudo-labels, uint8 [H, W].
        clusters: K.

    Returns:
        int64 [1 + B + N, K].
    """
    first = 1 + labels.num_base
    novel = (pseudo >= first) & (pseudo < first + clusters)
    under = torch.from_numpy(truth[novel])
    cluster = torch.from_numpy(pseudo[novel].astype(np.int64) - first)
    return confusion_matrix(under, cluster, len(labels.names), clusters).numpy()


def purity(
    clusters: Sequence[int] | np.ndarray, classes: Sequence[int] | np.ndarray
) -> float | None:
    """Share of images whose class is that of most images in their cluster.

    The one answer to "how pure are the clusters?": of images, not of pixels.

    Args:
        clusters, classes: of each image; images of class 0, without a novel object, do not count.

    Returns:
        0..1, or None where no image has a class.
    """
    known = np.asarray(classes) > 0
    if not known.any():
        return None
    pairs = pd.crosstab(np.asarray(clusters)[known], np.asarray(classes)[known])
    return float(pairs.max(axis=1).sum() / known.sum())


@dataclass
class PseudoLabels:
    """What the pseudo-labels of some images got right.

    Of each image two numbers are kept, whatever the number of classes.

    Attributes:
        total: int64 [1 + B + N, K], truth under each cluster, summed over the images.
        votes: (cluster, most frequent novel class) of each image with novel truth: 0-based number,
            contiguous id.
        images: how many there are.
    """

    total: np.ndarray
    votes: list[tuple[int, int]]
    images: int = 0

    def add(self, counts: np.ndarray, first_novel: int) -> None:
        """Add an image, by its counts from :func:`pseudo_label_counts`."""
        self.total = self.total + counts
        self.images += 1
        novel = counts[first_novel:].sum(1)
        if novel.any():
            self.votes.append((int(counts.sum(0).argmax()), first_novel + int(novel.argmax())))

    def __add__(self, other: PseudoLabels) -> PseudoLabels:
        return PseudoLabels(
            self.total + other.total, self.votes + other.votes, self.images + other.images
        )

    def quality(self, first_novel: int, mapping: np.ndarray | None = None) -> dict[str, Any]:
        """``images``, ``correct_share`` and ``purity``.

        Args:
            first_novel: 1 + B.
            mapping: class of each cluster, int64 [K] contiguous ids; None: of most of its novel
                pixels (majority).

        Returns:
            ``correct_share``: share of pseudo-novel pixels (255 left out) whose truth is the class
            of their cluster; background counts as wrong. ``purity``: :func:`purity` by the most
            frequent novel class of each image. None where there is nothing to count.
        """
        if mapping is None:
            mapping = self.majority(first_novel)
        right = int(self.total[mapping, range(len(mapping))].sum())
        everything = int(self.total.sum())
        clusters, classes = zip(*self.votes, strict=True) if self.votes else ((), ())
        return {
            "images": self.images,
            "correct_share": right / everything if everything else None,
            "purity": purity(clusters, classes),
        }

    def majority(self, first_novel: int) -> np.ndarray:
        """The novel class of most pixels in each cluster, int64 [K] contiguous ids."""
        return self.total[first_novel:].argmax(0) + first_novel


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Score the four models and the pseudo-labels."""
    return {
        "models": {name: evaluate(run, name, folder) for name in MODELS},
        "pseudo_labels": _pseudo_labels(run, folder),
    }


def evaluate(
    run: Context, name: str, folder: Path, place: str = "evaluation", weights: Path | None = None
) -> dict[str, Any]:
    """The entry of one model in report.json; its confusion matrices are left in ``folder``.

    The headline is the last epoch under the published matching. Where the best epoch on the
    validation set was kept, its scores stand under ``best_epoch``: that choice reads the truth of
    the images that it is scored on.

    Args:
        place: what ``folder`` will be called in the run folder, once it is finished.
        weights: the folder with the model's weights; None is that of its stage.
    """
    size, config = run.recipe.evaluation.size, run.training_config(name)
    entry: dict[str, Any] = {
        "clusters": run.clusters.get(name, 0),
        "epoch": config.epochs - 1,
        "size": size,
    }
    scores = _protocols(run, name, "", folder, place, weights)
    shown = {
        protocol: found
        for protocol, found in scores.items()
        if entry["clusters"] or protocol != "published"
    }
    entry |= scores["published"] | {"protocols": shown}
    if config.validates and name != "regions":  # a committee has no epochs of its own
        best = _protocols(run, name, "_best", folder, place, weights)
        epoch = int(read_history(run.weights(name, "", weights).parent, name)["val_miou"].idxmax())
        entry["protocols"]["best_epoch"] = {"epoch": epoch, **best["published"]}
        entry["protocols"]["best_epoch_original_size"] = {"epoch": epoch, **best["original_size"]}
    return entry


def _protocols(
    run: Context, name: str, suffix: str, folder: Path, place: str, weights: Path | None
) -> dict[str, dict[str, Any]]:
    """Score one file of weights under every protocol; its confusion matrices go to ``folder``."""
    model = load_model(run, name, suffix, weights)
    config = run.recipe.evaluation
    headline: After = (config.gate, config.edges)
    gates: dict[Gate, After] = {kind: (kind, "none") for kind in GATED}
    ways = tuple(dict.fromkeys([*gates.values(), headline]))
    refined = refined_confusions(run, model, config.size, ways)

    # As the recipe refines, all that is counted is kept; behind each gate alone, of one view of
    # each image, the total.
    stem = f"confusion_{name}{suffix}"
    found = refined[headline] if config.views == "one" else confusions(run, model, config.size)
    counts = {"": found.total, "_half": found.halves[0], "_original": found.original}
    counts |= {f"_{kind}": refined[after].total for kind, after in gates.items()}
    for kind, confusion in counts.items():
        _write(run, confusion, folder / f"{stem}{kind}.csv")

    entries = {}
    for protocol, scores in protocols(found, run.labels).items():
        kind = "_original" if protocol == "original_size" else ""
        entries[protocol] = {**scores.as_dict(), "confusion": f"{place}/{stem}{kind}.csv"}
    for gate_kind, after in gates.items():
        scores = score(refined[after].total, run.labels)
        path = f"{place}/{stem}_{gate_kind}.csv"
        entries[GATED[gate_kind]] = {**scores.as_dict(), "confusion": path}
    return entries


def _write(run: Context, confusion: np.ndarray, path: Path) -> None:
    names = run.labels.names
    first = 1 + run.labels.num_base
    columns = [*names[:first], *(f"cluster {k + 1}" for k in range(confusion.shape[1] - first))]
    if run.runtime.is_main:
        pd.DataFrame(confusion, index=pd.Index(names, name="truth"), columns=columns).to_csv(path)


def _pseudo_labels(run: Context, folder: Path) -> dict[str, Any]:
    """Quality of all pseudo-labels, and of clean and unclean ones, clusters mapped by majority."""
    first = 1 + run.labels.num_base
    clustering = run.folder / "clustering"
    split = read_ranking(run.folder / "entropy_ranking")["split"]
    over = run.clusters["basic_oc"]
    sizes = {"basic": run.clusters["basic"], "basic_oc": over, "clean": over, "unclean": over}
    rows = len(run.labels.names)
    found = {name: PseudoLabels(np.zeros((rows, k), np.int64), []) for name, k in sizes.items()}

    def count(image_id: str) -> dict[int, np.ndarray]:
        truth = run.truth(image_id)
        pseudo = {k: read_pseudo_label(clustering, k, image_id) for k in set(sizes.values())}
        return {k: pseudo_label_counts(truth, p, run.labels, k) for k, p in pseudo.items()}

    mine = run.runtime.shard(used_images(clustering))
    for i, counts in zip(mine, run.runtime.map(count, mine), strict=True):
        for name in ("basic", "basic_oc", str(split[i])):
            found[name].add(counts[sizes[name]], first)
    everywhere = {name: reduce(add, run.runtime.gather([own])) for name, own in found.items()}
    # The classes of clean and unclean clusters are those of all images, not of a part alone.
    whole = everywhere["basic_oc"].majority(first)
    return {
        name: labels.quality(first, None if name == "basic" else whole)
        for name, labels in everywhere.items()
    }
