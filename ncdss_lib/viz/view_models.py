"""What the explorers show and what they read out, apart from how it is drawn: plain arrays and pure functions of a setting.

Each view model is made from a run once. The explorers of a page (:mod:`ncdss_lib.viz.explorers`) hand its arrays to a script that
computes the same numbers; the live widgets (:mod:`ncdss_lib.viz.widgets`) call the functions here. Ground truth of unlabelled images is
read, to look at what a stage did; no stage reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import pandas as pd

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.inference import load_model, predict
from ncdss_lib.metrics import UNMATCHED, Scores, match_clusters, score
from ncdss_lib.stages.clustering import cluster_prototypes, images_table, read_prototypes, read_pseudo_label, used_images
from ncdss_lib.stages.entropy_ranking import entropy_map, split_clean
from ncdss_lib.stages.eums import read_watched
from ncdss_lib.viz import artefacts
from ncdss_lib.viz.palette import BAD, Look, class_look, cluster_look, rgb

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run

SIDE = 224  # of a picture that is shown alone, in pixels
NOTHING = float("nan")  # a share of nothing


@dataclass(frozen=True)
class Picture:
    """One image of an explorer.

    Attributes:
        image: uint8 [h, w, 3].
        maps: uint8 [h, w] by name: labels, masks of 0 and 1, or quantised numbers.
    """

    id: str
    image: np.ndarray
    maps: dict[str, np.ndarray]


def shrunken(run: Run, image_id: str, side: int, **maps: np.ndarray) -> Picture:
    """A picture whose longer side has at most ``side`` pixels; maps of any size are brought to its size by nearest neighbour."""
    image = run.data.image(image_id)
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return Picture(image_id, small, {name: resize_labels(np.asarray(m, np.uint8), (height, width)) for name, m in maps.items()})


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else NOTHING


def _salient(run: Run, image_id: str) -> np.ndarray:
    found = run.data.saliency(image_id)
    return np.zeros(run.data.image(image_id).shape[:2], bool) if found is None else found


# --- pictures with layers ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layers:
    """Pictures, each with label maps to lay over it and to compare.

    Attributes:
        pictures: their maps are the layers, in the order of ``looks``.
        looks: how each layer is painted, and its title.
    """

    pictures: list[Picture]
    looks: dict[str, Look]

    def shares(self, picture: Picture, layer: str) -> dict[int, float]:
        """Share of the picture's pixels with each label of a layer, greatest first."""
        counts = np.bincount(picture.maps[layer].ravel(), minlength=256)
        return {int(label): float(counts[label] / counts.sum()) for label in np.argsort(-counts, kind="stable") if counts[label]}


def told_layers(run: Run) -> Layers:
    """Training images with their whole truth, what base training and fine-tuning are told of it, and what is salient."""
    leaked, look = set(run.splits.base_train), class_look(run.labels)
    ids = [*artefacts.novel_examples(run, 4), *artefacts.mixed_examples(run, 3), *artefacts.base_examples(run, 3)]
    pictures = []
    for i in dict.fromkeys(ids):
        truth, hidden, base_image = run.truth(i), run.truth(i, hide_novel=True), i not in run.splits.novel
        nothing = np.full_like(truth, IGNORE)
        told = {"in base training": hidden if i in leaked else nothing, "in fine-tuning": hidden if base_image else nothing}
        salient = np.where(_salient(run, i), SALIENT, 0)
        pictures.append(shrunken(run, i, SIDE, **{"the whole truth": truth, **told, "salient pixels": salient}))
    told_look = Look(look.colours, {**look.names, IGNORE: "nothing is told, or ignored"}, look.striped)
    looks = {"the whole truth": look, "in base training": told_look, "in fine-tuning": told_look, "salient pixels": salient_look()}
    return Layers(pictures, looks)


SALIENT = 253  # label of salient pixels in a layer that shows them


def salient_look() -> Look:
    """How saliency maps are painted: orange where salient."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[SALIENT] = rgb(BAD)
    return Look(colours, {0: "not salient", SALIENT: "salient"}, np.zeros(256, bool))


def pseudo_label_layers(run: Run, count: int = 10) -> Layers:
    """Novel images with their pseudo-labels for both numbers of clusters, and the truth that the method never sees."""
    folder, choices = run.folder / "clustering", sorted({run.clusters["basic"], run.clusters["basic_oc"]})
    looks = {f"pseudo-label, K = {k}": cluster_look(run.labels, k) for k in choices}
    pictures = []
    for i in _used_examples(run, count):
        pseudo = {f"pseudo-label, K = {k}": read_pseudo_label(folder, k, i) for k in choices}
        pictures.append(shrunken(run, i, SIDE, **pseudo, **{"the truth (hidden)": run.truth(i)}))
    return Layers(pictures, {**looks, "the truth (hidden)": class_look(run.labels)})


def _used_examples(run: Run, count: int) -> list[str]:
    """Images with a pseudo-label: half of them with a base object as well."""
    used = used_images(run.folder / "clustering")
    some = [*artefacts.mixed_examples(run, count // 2, used), *artefacts.novel_examples(run, count, used)]
    return list(dict.fromkeys(some))[:count] or used[:count]


# --- the threshold of base-class removal ------------------------------------------------------------------------------------------------

KINDS = ("novel", "base", "background")


@dataclass(frozen=True)
class Threshold:
    """What a threshold on the base model's probability leaves of the salient pixels.

    Attributes:
        pictures: maps ``label`` (most probable class), ``probability`` (of it, 255 is certain), ``salient`` and ``truth``.
        counts: int64 [3, 256], salient pixels of all novel images by what they are (:data:`KINDS`) and by the probability of the most
            probable class where that is a base class (0 where it is background).
        novel: pixels of novel classes in all novel images.
        chosen: the threshold of the run.
    """

    pictures: list[Picture]
    counts: np.ndarray
    novel: int
    chosen: float
    num_base: int
    look: Look

    @staticmethod
    def masks(picture: Picture, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Confident base classes, uint8 [h, w], 0 where there is none, and the novel mask, bool [h, w]."""
        sure = (picture.maps["label"] > 0) & (picture.maps["probability"] / 255 > threshold)
        return np.where(sure, picture.maps["label"], 0).astype(np.uint8), (picture.maps["salient"] > 0) & ~sure

    def numbers(self, threshold: float) -> dict[str, float]:
        """Over all novel images: ``novel``, ``base`` and ``background`` share of the novel masks, and the share of novel pixels in them."""
        stays = self.counts[:, np.arange(256) / 255 <= threshold].sum(1)
        shares = {kind: _share(count, stays.sum()) for kind, count in zip(KINDS, stays, strict=True)}
        return {**shares, "covered": _share(stays[0], self.novel)}

    def picture_numbers(self, picture: Picture, threshold: float) -> dict[str, float]:
        """Of one picture: ``base``, the share of its pixels that is confidently base; ``mask``, the share in the novel mask; ``novel``, the
        share of the mask that is of a novel class (255 left out)."""
        base, mask = self.masks(picture, threshold)
        truth = picture.maps["truth"]
        known = mask & (truth != IGNORE)
        novel = known & (truth > self.num_base)
        return {
            "base": _share((base > 0).sum(), base.size),
            "mask": _share(mask.sum(), mask.size),
            "novel": _share(novel.sum(), known.sum()),
        }


def threshold_model(run: Run, count: int = 10) -> Threshold:
    """:class:`Threshold` of a run: the base model looks at all its novel images."""
    salient = {i: run.data.saliency(i) for i in run.splits.novel}
    examples = set(_mixed_first(run, count))
    pictures, counts, novel = {}, np.zeros((3, 256), np.int64), 0
    for batch, logits in predict(run, load_model(run, "base"), run.splits.novel, run.views.size, "base model"):
        probability, label = (x.cpu().numpy() for x in logits.softmax(1).max(1))
        for i, p, own in zip(batch, (probability * 255).round().astype(np.uint8), label.astype(np.uint8), strict=True):
            truth = run.truth(i)
            novel += int(((truth > run.labels.num_base) & (truth != IGNORE)).sum())
            found = salient[i]
            if found is not None:
                bins = resize_labels(np.where(own > 0, p, 0).astype(np.uint8), truth.shape)
                kinds = ((truth > run.labels.num_base) & (truth != IGNORE), (truth > 0) & (truth <= run.labels.num_base), truth == 0)
                counts += np.stack([np.bincount(bins[found & kind], minlength=256) for kind in kinds])
            if i in examples:
                pictures[i] = shrunken(run, i, SIDE, label=own, probability=p, salient=_salient(run, i), truth=truth)
    chosen = run.recipe.clustering.base_confidence
    ordered = [pictures[i] for i in _mixed_first(run, count)]
    return Threshold(ordered, counts, novel, chosen, run.labels.num_base, class_look(run.labels))


def _mixed_first(run: Run, count: int) -> list[str]:
    ids = [i for i in run.splits.novel if run.data.saliency(i) is not None]
    some = [*artefacts.mixed_examples(run, count * 2 // 3, ids), *artefacts.novel_examples(run, count, ids)]
    return list(dict.fromkeys(some))[:count] or ids[:count]


# --- clusters ---------------------------------------------------------------------------------------------------------------------------


THUMBNAILS = 200


@dataclass(frozen=True)
class Clusters:
    """The prototypes of a run, to be divided into any number of clusters.

    Attributes:
        thumbnails: by position in ``ids``, at most :data:`THUMBNAILS` of them, evenly: pale outside the novel mask; uint8 [72, 72, 3].
        main_class: the novel class of most pixels under each mask, contiguous id; 0 where there is none.
        assign: K -> cluster of each image, int [N] in 1..K.
        choices: values of K to offer, and ``chosen``, the K of ``basic``.
    """

    ids: list[str]
    thumbnails: dict[int, np.ndarray]
    main_class: np.ndarray
    assign: Callable[[int], np.ndarray]
    choices: list[int]
    chosen: int
    look: Look

    def members(self, clusters: int, cluster: int) -> dict[str, float | int]:
        """Of one cluster: ``images``, ``label`` (the class of most of them, 0: none has one) and ``right``, how many are of that class."""
        classes = self.main_class[self.assign(clusters) == cluster]
        counts = np.bincount(classes[classes > 0], minlength=1)
        return {"images": len(classes), "label": int(counts.argmax()) if counts.any() else 0, "right": int(counts.max(initial=0))}

    def purity(self, clusters: int) -> float:
        """Share of the images with a novel class whose class is that of most images in their cluster, as in report.json."""
        right = sum(self.members(clusters, k)["right"] for k in range(1, clusters + 1))
        return _share(right, (self.main_class > 0).sum())


def clusters_model(run: Run) -> Clusters:
    """:class:`Clusters` of a run. The K of its own models are read from its files, others are clustered when first asked for."""
    folder, config = run.folder / "clustering", run.recipe.clustering
    ids, prototypes, table = used_images(folder), read_prototypes(folder), images_table(folder)
    own = {k: table.loc[ids, f"cluster_{k}"].astype(int).to_numpy() for k in set(run.clusters.values())}

    def assign(clusters: int) -> np.ndarray:
        if clusters not in own:
            settings = {"dims": config.pca_dims, "whiten": config.whiten, "n_init": config.n_init, "seed": run.seed}
            own[clusters] = cluster_prototypes(prototypes, clusters, **settings)[0]  # type: ignore[arg-type]
        return own[clusters]

    main_class = artefacts.pseudo_label_table(run, run.clusters["basic"])["main_class"].to_numpy()
    wanted = {round(run.labels.num_novel * factor) for factor in (0.4, 0.6, 0.8, 1, 1.2, 1.6, 2, 2.4, 3)} | set(own)
    choices = sorted(k for k in wanted if 2 <= k <= len(ids))
    thumbnails = {ids.index(i): _thumbnail(run, i) for i in artefacts.thin(ids, THUMBNAILS)}
    return Clusters(ids, thumbnails, main_class, assign, choices, run.clusters["basic"], class_look(run.labels))


def _thumbnail(run: Run, image_id: str, side: int = 72) -> np.ndarray:
    """The middle square of an image, pale outside its pseudo-novel region."""
    pseudo = read_pseudo_label(run.folder / "clustering", run.clusters["basic"], image_id)
    image = run.data.image(image_id).astype(np.float32)
    outside = (pseudo <= run.labels.num_base)[..., None]
    image = np.where(outside, image * 0.25 + 255 * 0.6, image)
    height, width = image.shape[:2]
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    return cv2.resize(image[top : top + length, left : left + length], (side, side), interpolation=cv2.INTER_AREA).round().astype(np.uint8)


# --- the entropy ranking ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """All images with a pseudo-label in the order of their entropy.

    Attributes:
        table: by id in ascending entropy: ``entropy``, ``cluster``, ``right`` and ``pixels`` of the pseudo-label.
        pictures: some of them, evenly over the order; maps ``pseudo``, ``entropy`` (255 is 1) and ``truth``.
        per, chosen: how the run ranks, and its clean share.
    """

    table: pd.DataFrame
    pictures: list[Picture]
    per: Literal["dataset", "cluster"]
    chosen: float
    pseudo_look: Look
    truth_look: Look

    def clean(self, share: float) -> np.ndarray:
        """bool [N] by row of the table."""
        return split_clean(self.table["entropy"].to_numpy(), self.table["cluster"].to_numpy(), share, self.per)

    def numbers(self, share: float) -> dict[str, float]:
        """``clean`` and ``unclean``: images; ``clean_right`` and ``unclean_right``: share of right pixels in their pseudo-labels."""
        clean = self.clean(share)
        parts = {"clean": self.table[clean], "unclean": self.table[~clean]}
        right = {f"{name}_right": artefacts.right_share(part) for name, part in parts.items()}
        return {**{name: len(part) for name, part in parts.items()}, **right}


def ranking_model(run: Run, count: int = 40, side: int = 144) -> Ranking:
    """:class:`Ranking` of a run."""
    table, clusters = artefacts.ranking_table(run), run.clusters["eums"]
    pictures = []
    shown = artefacts.thin(table.index.tolist(), count)
    maps = artefacts.logits_of(run, "basic_oc", shown)
    for i in shown:
        entropy = (entropy_map(maps[i][None])[0] * 255).round().numpy()
        pseudo = read_pseudo_label(run.folder / "clustering", clusters, i)
        pictures.append(shrunken(run, i, side, pseudo=pseudo, entropy=entropy, truth=run.truth(i)))
    config = run.recipe.entropy_ranking
    return Ranking(table, pictures, config.per, config.clean_share, cluster_look(run.labels, clusters), class_look(run.labels))


# --- student and teacher ----------------------------------------------------------------------------------------------------------------

STEPS = 20  # a probability is kept as its whole number of twentieths


@dataclass(frozen=True)
class Teaching:
    """What student and teacher said about a few unclean images, before each epoch and at the end.

    Attributes:
        epochs: the moments.
        pictures: maps ``truth``, ``pseudo`` (the label that was thrown away), and for each epoch E ``student_E``, ``teacher_E`` (labels)
            and ``sure_E`` (the teacher's probability in twentieths, rounded down).
        mapping: int64 [256], the class of each label: clusters have that of most of their pixels in the training masks.
        chosen: the confidence threshold of the run.
    """

    epochs: list[int]
    pictures: list[Picture]
    mapping: np.ndarray
    num_base: int
    chosen: float
    pseudo_look: Look
    truth_look: Look

    def numbers(self, epoch: int, threshold: float, pictures: Sequence[Picture] | None = None) -> dict[str, float]:
        """Over some pictures (None: all).

        Returns:
            ``agree``: share of pixels on which both say the same; ``kept``: share of pixels that the teacher labels with at least the
            threshold (taken in twentieths); ``student`` and ``teacher``: share of novel pixels that they label rightly; ``taught``: the
            teacher's share among those that it labels.
        """
        agree, kept, count, novel, taught = 0, 0, 0, 0, 0
        right = {"student": 0, "teacher": 0, "taught": 0}
        for picture in self.pictures if pictures is None else pictures:
            maps, truth = picture.maps, picture.maps["truth"]
            student, teacher = maps[f"student_{epoch}"], maps[f"teacher_{epoch}"]
            sure = maps[f"sure_{epoch}"] >= round(threshold * STEPS)
            inside = (truth > self.num_base) & (truth != IGNORE)
            good = {"student": inside & (self.mapping[student] == truth), "teacher": inside & (self.mapping[teacher] == truth)}
            good["taught"] = good["teacher"] & sure
            right = {key: right[key] + int(pixels.sum()) for key, pixels in good.items()}
            agree, kept, count = agree + int((student == teacher).sum()), kept + int(sure.sum()), count + truth.size
            novel, taught = novel + int(inside.sum()), taught + int((inside & sure).sum())
        parts = {"student": novel, "teacher": novel, "taught": taught}
        return {"agree": _share(agree, count), "kept": _share(kept, count), **{k: _share(right[k], parts[k]) for k in right}}


def teaching_model(run: Run, side: int = 144) -> Teaching:
    """:class:`Teaching` of a run that watched some images (``eums.watch``)."""
    kept = read_watched(run.folder / "eums")
    clusters, first = run.clusters["eums"], 1 + run.labels.num_base
    quality = artefacts.pseudo_label_table(run, clusters)
    mapping = np.full(256, UNMATCHED, np.int64)
    mapping[:first] = np.arange(first)
    mapping[first + quality["cluster"] - 1] = quality["cluster_class"]
    pictures = []
    for k, i in enumerate(next(iter(kept.values()))["ids"].tolist() if kept else []):
        maps = {"truth": run.truth(i), "pseudo": read_pseudo_label(run.folder / "clustering", clusters, i)}
        for epoch, arrays in kept.items():
            sure = np.floor(arrays["teacher_probability"][k] / 255 * STEPS + 1e-6)
            maps |= {f"student_{epoch}": arrays["student"][k], f"teacher_{epoch}": arrays["teacher"][k], f"sure_{epoch}": sure}
        pictures.append(shrunken(run, i, side, **maps))
    looks = cluster_look(run.labels, clusters), class_look(run.labels)
    return Teaching(list(kept), pictures, mapping, run.labels.num_base, run.recipe.eums.confidence, *looks)


# --- predictions against truth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """Validation images with the truth and the predictions of some models, clusters matched to classes.

    Attributes:
        pictures: maps ``truth`` and one of each model's name; :data:`ncdss_lib.viz.artefacts.UNMATCHED_LABEL` where a cluster has no class.
        scores: of each model over all validation images.
    """

    pictures: list[Picture]
    scores: dict[str, Scores]
    look: Look

    @staticmethod
    def iou(picture: Picture, model: str, label: int) -> float:
        """IoU of a class on one picture as shown; NaN where it is neither there nor predicted. Ignored pixels do not count."""
        truth = picture.maps["truth"]
        known = truth != IGNORE
        there, said = (truth == label) & known, (picture.maps[model] == label) & known
        return _share((there & said).sum(), (there | said).sum())


def predictions_model(run: Run, confusions: Mapping[str, np.ndarray], count: int = 12) -> Predictions:
    """:class:`Predictions` of the models whose confusion matrices are given (from :func:`ncdss_lib.stages.evaluation.confusions`)."""
    look, ids = class_look(run.labels), artefacts.val_examples(run, count)
    look.names[artefacts.UNMATCHED_LABEL] = "cluster without a class"
    look.colours[artefacts.UNMATCHED_LABEL] = (20, 20, 20)
    maps: dict[str, dict[str, np.ndarray]] = {i: {"truth": run.truth(i)} for i in ids}
    for model, confusion in confusions.items():
        mapping = match_clusters(confusion, run.labels, "published")
        for i, logits in artefacts.logits_of(run, model, ids).items():
            maps[i][model] = artefacts.to_classes(logits.argmax(0).numpy(), mapping, run.labels.num_base)
    scores = {model: score(confusion, run.labels) for model, confusion in confusions.items()}
    return Predictions([shrunken(run, i, SIDE, **maps[i]) for i in ids], scores, look)
