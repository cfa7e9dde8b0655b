"""What the explorers show, apart from how it is drawn: plain arrays, made from a run once.

A page's explorer (:mod:`ncdss_lib.viz.explorer_html`) hands the arrays to a script, which computes
what it reads out; the live widgets (:mod:`ncdss_lib.viz.widgets`) call the functions here. Ground
truth of unlabelled images is read, to look at what a stage did; no stage reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import pandas as pd
import torch

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.palette import BAD, Look, class_look, cluster_look, rgb
from ncdss_lib.method.cluster_matching import UNMATCHED, match_clusters
from ncdss_lib.method.clustering import (
    cluster_prototypes,
    images_table,
    read_prototypes,
    used_images,
)
from ncdss_lib.method.entropy_ranking import entropy_map
from ncdss_lib.method.evaluation import purity
from ncdss_lib.method.metrics import Scores, score
from ncdss_lib.method.prediction_history import read_snapshots
from ncdss_lib.recipes import EUMS, Clustering, EntropyRanking
from ncdss_lib.viz import examples, results
from ncdss_lib.viz.results import share_of

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

SIDE = 224  # of a picture that is shown alone, in pixels
SMALL_SIDE = 144  # of one among many
THUMBNAILS = 200  # members of clusters that are shown at most


@dataclass(frozen=True)
class Picture:
    """One image of an explorer.

    Attributes:
        image: uint8 [h, w, 3].
        maps: uint8 [h, w] by name: labels, masks of 0 and 1, or quantised numbers.
        note: how well the method does on it, in a word, from :func:`examples.kinds`.
    """

    id: str
    image: np.ndarray
    maps: dict[str, np.ndarray]
    note: str = ""


def shrunken(
    run: Run, image_id: str, side: int | None, maps: Mapping[str, np.ndarray], note: str = ""
) -> Picture:
    """A picture whose longer side has at most ``side`` pixels (None: as it is).

    Maps of any size are brought to its size by nearest neighbour.
    """
    image = run.data.image(image_id)
    scale = min(1.0, side / max(image.shape[:2])) if side else 1.0
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    resized = {
        name: resize_labels(np.asarray(values, np.uint8), (height, width))
        for name, values in maps.items()
    }
    return Picture(image_id, small, resized, note)


# --- pictures with layers -------------------------------------------------------------------------

SALIENT = 253  # label of salient pixels in a layer that shows them


@dataclass(frozen=True)
class Layers:
    """Pictures, each with label maps to lay over it and to compare.

    Attributes:
        pictures: their maps are the layers, in the order of ``looks``.
        looks: how each layer is painted, and its title.
    """

    pictures: list[Picture]
    looks: dict[str, Look]


def salient_look() -> Look:
    """How saliency maps are painted: orange where salient."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[SALIENT] = rgb(BAD)
    return Look(colours, {0: "not salient", SALIENT: "salient"}, np.zeros(256, bool))


def label_layers(run: Run) -> Layers:
    """Training images: their truth, what base training and fine-tuning see of it, and saliency."""
    ids = [*examples.mixed(run, 3), *examples.base(run, 2), *examples.novel(run, 4)]
    pictures = []
    for i in dict.fromkeys(ids):
        truth = run.truth(i)
        seen = run.truth(i, hide_novel=True)
        nothing = np.full_like(truth, IGNORE)
        maps = {
            "the whole truth": truth,
            "in base training": seen if i in run.splits.base_train else nothing,
            "in fine-tuning": nothing if i in run.splits.novel else seen,
            "salient pixels": np.where(results.salient_pixels(run, i), SALIENT, 0),
        }
        pictures.append(shrunken(run, i, SIDE, maps))

    look = class_look(run.labels)
    seen_look = class_look(run.labels)
    seen_look.names[IGNORE] = "nothing is told, or ignored"
    looks = {
        "the whole truth": look,
        "in base training": seen_look,
        "in fine-tuning": seen_look,
        "salient pixels": salient_look(),
    }
    return Layers(pictures, looks)


def pseudo_label_layers(run: Run, count: int = 10) -> Layers:
    """Novel images: their pseudo-labels for both numbers of clusters, and the hidden truth."""
    choices = sorted({run.clusters["basic"], run.clusters["basic_oc"]})
    kinds = examples.kinds(examples.pseudo_label_quality(run, choices[-1]))
    pictures = []
    for i in examples.used(run, count):
        maps = {f"pseudo-label, K = {k}": results.pseudo_label(run, k, i) for k in choices}
        maps["the truth (hidden)"] = run.truth(i)
        pictures.append(shrunken(run, i, SIDE, maps, kinds.get(i, "")))
    looks = {f"pseudo-label, K = {k}": cluster_look(run.labels, k) for k in choices}
    looks["the truth (hidden)"] = class_look(run.labels)
    return Layers(pictures, looks)


# --- the threshold of base-class removal ----------------------------------------------------------

KINDS = ("novel", "base", "background")
#: Thresholds to choose from: closer together near 1, where networks are.
THRESHOLDS = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    *(0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0),
)


def threshold_choices(run: Run) -> list[float]:
    """The thresholds that are offered, in ascending order, with that of the run."""
    return sorted({*THRESHOLDS, run.recipe.clustering.base_confidence})


@dataclass(frozen=True)
class Threshold:
    """What a threshold on the base model's probability leaves of the salient pixels.

    Attributes:
        pictures: their maps are :func:`threshold_maps`.
        thresholds: those that are offered.
        counts: int64 [3, T + 1], salient pixels of all novel images by what they are
            (:data:`KINDS`) and by how many thresholds are below the probability of the most
            probable class where that is a base class (0 where it is background).
        novel: pixels of novel classes in all novel images.
        chosen, published: the threshold of the run, and of the paper.
    """

    pictures: list[Picture]
    thresholds: list[float]
    counts: np.ndarray
    novel: int
    chosen: float
    published: float
    num_base: int
    look: Look

    def shares(self, threshold: float) -> dict[str, float]:
        """Over all novel images, by kind: its share of the masks. ``covered``: of novel pixels."""
        kept = self.counts[:, : self.thresholds.index(threshold) + 1].sum(1)
        shares = {kind: share_of(n, kept.sum()) for kind, n in zip(KINDS, kept, strict=True)}
        return {**shares, "covered": share_of(kept[0], self.novel)}


def threshold_maps(
    run: Run, image_id: str, logits: torch.Tensor, thresholds: Sequence[float]
) -> dict[str, np.ndarray]:
    """What the base model says of an image, beside saliency and truth.

    Args:
        logits: float32 [1 + B, h, w] of the base model.
        thresholds: T of them, ascending.

    Returns:
        ``label``, the most probable class, and ``level``, how many thresholds are below its
        probability: uint8 [h, w]; ``salient`` and ``truth`` in the size of the image.
    """
    probability, label = (x.numpy() for x in logits.softmax(0).max(0))
    return {
        "label": label.astype(np.uint8),
        "level": np.searchsorted(np.asarray(thresholds, np.float32), probability).astype(np.uint8),
        "salient": results.salient_pixels(run, image_id),
        "truth": run.truth(image_id),
    }


def threshold_masks(
    picture: Picture, thresholds: Sequence[float], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Confident base classes and the novel mask of a picture with :func:`threshold_maps`.

    Returns:
        uint8 [h, w], 0 where no base class is confident, and bool [h, w].
    """
    label = picture.maps["label"]
    sure = (label > 0) & (picture.maps["level"] > thresholds.index(threshold))
    return np.where(sure, label, 0).astype(np.uint8), (picture.maps["salient"] > 0) & ~sure


def novel_share(picture: Picture, mask: np.ndarray, num_base: int) -> float:
    """Of the pixels of a mask that are not ignored, those of a novel class."""
    truth = picture.maps["truth"]
    known = mask & (truth != IGNORE)
    return share_of((known & (truth > num_base)).sum(), known.sum())


def threshold_data(run: Run, count: int = 8) -> Threshold:
    """:class:`Threshold` of a run: the base model looks at all its novel images."""
    num_base = run.labels.num_base
    thresholds = threshold_choices(run)
    kinds = examples.kinds(examples.pseudo_label_quality(run))
    shown = examples.used(run, count)
    pictures = {}
    counts = np.zeros((len(KINDS), len(thresholds) + 1), np.int64)
    novel_pixels = 0
    for i, logits in results.stream_logits(run, "base", run.splits.novel, what="base model"):
        maps = threshold_maps(run, i, logits, thresholds)
        truth = maps["truth"]
        levels = np.where(maps["label"] > 0, maps["level"], 0).astype(np.uint8)
        levels = resize_labels(levels, truth.shape)
        is_novel = (truth > num_base) & (truth != IGNORE)
        is_base = (truth > 0) & (truth <= num_base)
        for row, kind in enumerate((is_novel, is_base, truth == 0)):
            found = levels[maps["salient"] & kind]
            counts[row] += np.bincount(found, minlength=counts.shape[1])
        novel_pixels += int(is_novel.sum())
        if i in shown:
            pictures[i] = shrunken(run, i, SIDE, maps, kinds.get(i, ""))

    return Threshold(
        [pictures[i] for i in shown],
        thresholds,
        counts,
        novel_pixels,
        run.recipe.clustering.base_confidence,
        Clustering().base_confidence,
        num_base,
        class_look(run.labels),
    )


# --- the whole pipeline of an image ---------------------------------------------------------------


@dataclass(frozen=True)
class Pipeline:
    """What every stage made of some unlabelled training images.

    Attributes:
        pictures: maps as in :class:`Threshold`, ``entropy`` of the over-clustered network (255 is
            1), and ``prediction`` of EUMS, its clusters made the classes of most of their pixels in
            the training masks.
        about: by id: ``cluster`` 1..K, its ``label`` and its ``class`` (contiguous ids) and
            ``class_name``; ``rank`` 1.. in ascending entropy, and ``split``, clean or unclean.
        images: that were ranked.
    """

    pictures: list[Picture]
    about: dict[str, dict[str, Any]]
    images: int
    thresholds: list[float]
    chosen: float
    published: float
    num_base: int
    look: Look
    pseudo_look: Look


def pipeline_data(run: Run, count: int = 6) -> Pipeline:
    """:class:`Pipeline` of a run that is finished."""
    # the images, and what the stages say of them
    num_base, clusters = run.labels.num_base, run.clusters["eums"]
    thresholds = threshold_choices(run)
    kinds = examples.kinds(examples.pseudo_label_quality(run, clusters))
    ids = examples.used(run, count)
    table = results.ranking_table(run)
    mapping = results.training_classes(run, clusters)
    base, doubt, final = (
        results.logits_of(run, name, ids) for name in ("base", "basic_oc", "eums")
    )

    # their maps
    pictures = []
    for i in ids:
        said = final[i].argmax(0).numpy()
        maps = {
            **threshold_maps(run, i, base[i], thresholds),
            "entropy": (entropy_map(doubt[i][None])[0] * 255).round().numpy(),
            "prediction": results.to_classes(said, mapping, num_base),
        }
        pictures.append(shrunken(run, i, SIDE, maps, kinds.get(i, "")))

    # what is known of each
    ranks = pd.Series(range(1, 1 + len(table)), table.index)
    about = {}
    for i in ids:
        row = table.loc[i]
        of_cluster = int(row["cluster_class"]) if row["pixels"] else 0
        about[i] = {
            "cluster": int(row["cluster"]),
            "label": num_base + int(row["cluster"]),
            "class": of_cluster,
            "class_name": run.labels.names[of_cluster] if of_cluster else None,
            "rank": int(ranks[i]),
            "split": str(row["split"]),
        }
    return Pipeline(
        pictures,
        about,
        len(table),
        thresholds,
        run.recipe.clustering.base_confidence,
        Clustering().base_confidence,
        num_base,
        _prediction_look(run),
        cluster_look(run.labels, clusters),
    )


def _prediction_look(run: Run) -> Look:
    """Classes, and one more: pixels of clusters that no class was given to."""
    look = class_look(run.labels)
    look.names[results.UNMATCHED_LABEL] = "cluster without a class"
    look.colours[results.UNMATCHED_LABEL] = (20, 20, 20)
    return look


# --- clusters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """The prototypes of a run, to be divided into any number of clusters.

    Attributes:
        thumbnails: by position in ``ids``, at most :data:`THUMBNAILS` of them, evenly: pale outside
            the novel mask; uint8 [72, 72, 3].
        main_class: the novel class of most pixels under each mask, contiguous id; 0: there is none.
        assign: K -> cluster of each image, int [N] in 1..K.
        choices: values of K to offer; ``chosen`` and ``over``, the K of ``basic`` and ``basic_oc``.
    """

    ids: list[str]
    thumbnails: dict[int, np.ndarray]
    main_class: np.ndarray
    assign: Callable[[int], np.ndarray]
    choices: list[int]
    chosen: int
    over: int
    look: Look

    def for_page(self) -> dict[str, Any]:
        """The fields, with the clusters of every K that is offered."""
        return {**vars(self), "assign": {k: self.assign(k) for k in self.choices}}

    def members(self, clusters: int, cluster: int) -> dict[str, int]:
        """Of one cluster.

        Returns:
            ``images``; ``label``, the class of most of them (0: none has one); ``right``, how many
            are of that class.
        """
        classes = self.main_class[self.assign(clusters) == cluster]
        counts = np.bincount(classes[classes > 0], minlength=1)
        return {
            "images": len(classes),
            "label": int(counts.argmax()) if counts.any() else 0,
            "right": int(counts.max()),
        }

    def purity(self, clusters: int) -> float | None:
        """:func:`ncdss_lib.method.evaluation.purity`, as in report.json."""
        return purity(self.assign(clusters), self.main_class)


def clusters_data(run: Run) -> Clusters:
    """:class:`Clusters` of a run.

    The K of its own models are read from its files, others are clustered when first asked for.
    """
    # what the stage left behind
    config = run.recipe.clustering
    ids = used_images(run.folder / "clustering")
    prototypes = read_prototypes(run.folder / "clustering")
    table = images_table(run.folder / "clustering").loc[ids]
    known = {k: table[f"cluster_{k}"].astype(int).to_numpy() for k in run.clusters.values()}

    def assign(clusters: int) -> np.ndarray:
        if clusters not in known:
            known[clusters], _ = cluster_prototypes(
                prototypes, clusters, **config.k_means, seed=run.seed
            )
        return known[clusters]

    # the K to offer, around the number of novel classes
    factors = (0.4, 0.6, 0.8, 1, 1.2, 1.6, 2, 2.4, 3)
    offered = {round(run.labels.num_novel * factor) for factor in factors} | set(known)
    return Clusters(
        ids,
        {ids.index(i): _thumbnail(run, i) for i in examples.spread(ids, THUMBNAILS)},
        results.pseudo_label_table(run, run.clusters["basic"])["main_class"].to_numpy(),
        assign,
        sorted(k for k in offered if 2 <= k <= len(ids)),
        run.clusters["basic"],
        run.clusters["basic_oc"],
        class_look(run.labels),
    )


def middle_square(image: np.ndarray) -> np.ndarray:
    """The greatest square in the middle of an image [H, W, ...]."""
    height, width = image.shape[:2]
    side = min(height, width)
    top = (height - side) // 2
    left = (width - side) // 2
    return image[top : top + side, left : left + side]


def _thumbnail(run: Run, image_id: str, side: int = 72) -> np.ndarray:
    """The middle square of an image, pale outside its pseudo-novel region."""
    outside = results.pseudo_label(run, run.clusters["basic"], image_id) <= run.labels.num_base
    image = run.data.image(image_id).astype(np.float32)
    image[outside] = image[outside] * 0.25 + 255 * 0.6
    small = cv2.resize(middle_square(image), (side, side), interpolation=cv2.INTER_AREA)
    return small.round().astype(np.uint8)


# --- the entropy ranking --------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """All images with a pseudo-label in the order of their entropy.

    Attributes:
        table: by id in ascending entropy: ``entropy``, ``cluster``, ``right`` and ``pixels`` of the
            pseudo-label.
        pictures: some of them, evenly over the order; maps ``pseudo``, ``entropy`` (255 is 1) and
            ``truth``.
        per, chosen, published: how the run ranks, its clean share, and the paper's.
    """

    table: pd.DataFrame
    pictures: list[Picture]
    per: Literal["dataset", "cluster"]
    chosen: float
    published: float
    pseudo_look: Look
    truth_look: Look

    def clean(self, share: float) -> np.ndarray:
        """bool [N] by row of the table."""
        return results.clean_rows(self.table, share, self.per)

    def numbers(self, share: float) -> dict[str, float]:
        """``clean``/``unclean``: images; with ``_right``: share of right pixels in their labels."""
        clean = self.clean(share)
        sides = {"clean": self.table[clean], "unclean": self.table[~clean]}
        right = {f"{name}_right": results.right_share(side) for name, side in sides.items()}
        return {**{name: len(side) for name, side in sides.items()}, **right}


def ranking_data(run: Run, count: int = 40, side: int = SMALL_SIDE) -> Ranking:
    """:class:`Ranking` of a run."""
    clusters = run.clusters["eums"]
    config = run.recipe.entropy_ranking
    table = results.ranking_table(run)[["entropy", "cluster", "right", "pixels"]]
    shown = examples.spread(table.index.tolist(), count)
    pictures = []
    for i, logits in results.logits_of(run, "basic_oc", shown).items():
        maps = {
            "pseudo": results.pseudo_label(run, clusters, i),
            "entropy": (entropy_map(logits[None])[0] * 255).round().numpy(),
            "truth": run.truth(i),
        }
        pictures.append(shrunken(run, i, side, maps))
    looks = cluster_look(run.labels, clusters), class_look(run.labels)
    published = EntropyRanking().clean_share
    return Ranking(table, pictures, config.per, config.clean_share, published, *looks)


# --- student and teacher --------------------------------------------------------------------------

STEPS = 20  # a probability is kept as its whole number of twentieths


@dataclass(frozen=True)
class Teaching:
    """What student and teacher said about a few unclean images, before each epoch and at the end.

    Attributes:
        epochs: the moments.
        pictures: maps ``truth``, ``pseudo`` (the label that was thrown away), and for each epoch E
            ``student_E``, ``teacher_E`` (labels) and ``sure_E`` (the teacher's probability in
            steps, rounded down).
        mapping: int64 [256], the class of each label: clusters have that of most of their pixels in
            the training masks.
        chosen, published: the confidence threshold of the run, and of the paper.
        steps: into which probabilities are divided.
    """

    epochs: list[int]
    pictures: list[Picture]
    mapping: np.ndarray
    num_base: int
    chosen: float
    published: float
    pseudo_look: Look
    truth_look: Look
    steps: int = STEPS

    def right_by_epoch(self) -> dict[str, list[float]]:
        """``student`` and ``teacher``: of the novel pixels of all pictures, those that are right.

        One number an epoch.
        """
        truth = np.concatenate([p.maps["truth"].ravel() for p in self.pictures])
        novel = (truth > self.num_base) & (truth != IGNORE)

        def right(name: str) -> float:
            said = np.concatenate([p.maps[name].ravel() for p in self.pictures])
            return share_of((self.mapping[said[novel]] == truth[novel]).sum(), novel.sum())

        return {
            who: [right(f"{who}_{epoch}") for epoch in self.epochs]
            for who in ("student", "teacher")
        }


def teaching_data(run: Run, side: int = SMALL_SIDE) -> Teaching:
    """:class:`Teaching` of a run that watched some images (``eums.watch``)."""
    clusters = run.clusters["eums"]
    first = 1 + run.labels.num_base
    mapping = np.full(256, UNMATCHED, np.int64)
    mapping[:first] = np.arange(first)
    mapping[first : first + clusters] = results.training_classes(run, clusters)

    watched = read_snapshots(run.folder / "eums")
    ids = next(iter(watched.values()))["ids"].tolist() if watched else []
    pictures = []
    for n, i in enumerate(ids):
        maps = {"truth": run.truth(i), "pseudo": results.pseudo_label(run, clusters, i)}
        for epoch, said in watched.items():
            maps[f"student_{epoch}"] = said["student"][n]
            maps[f"teacher_{epoch}"] = said["teacher"][n]
            probability = said["teacher_probability"][n] / 255
            maps[f"sure_{epoch}"] = np.floor(probability * STEPS + 1e-6)
        pictures.append(shrunken(run, i, side, maps))

    looks = cluster_look(run.labels, clusters), class_look(run.labels)
    return Teaching(
        list(watched),
        pictures,
        mapping,
        run.labels.num_base,
        run.recipe.eums.confidence,
        EUMS().confidence,
        *looks,
    )


# --- predictions against truth --------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """Validation images: the truth and the predictions of some models, clusters made classes.

    Attributes:
        pictures: maps ``truth`` and one of each model's name;
            :data:`ncdss_lib.viz.results.UNMATCHED_LABEL` where a cluster has no class.
        scores: of each model over all validation images.
    """

    pictures: list[Picture]
    scores: dict[str, Scores]
    look: Look


def predictions_data(
    run: Run, confusions: Mapping[str, np.ndarray], count: int = 10
) -> Predictions:
    """:class:`Predictions` of some models.

    Args:
        confusions: of each, from :func:`ncdss_lib.method.evaluation.confusion_on_val`.
    """
    ids = examples.val(run, count)
    maps: dict[str, dict[str, np.ndarray]] = {i: {"truth": run.truth(i)} for i in ids}
    for model, confusion in confusions.items():
        mapping = match_clusters(confusion, run.labels, "published")
        for i, logits in results.logits_of(run, model, ids).items():
            label = logits.argmax(0).numpy()
            maps[i][model] = results.to_classes(label, mapping, run.labels.num_base)
    scores = {model: score(confusion, run.labels) for model, confusion in confusions.items()}
    pictures = [shrunken(run, i, SIDE, maps[i]) for i in ids]
    return Predictions(pictures, scores, _prediction_look(run))
