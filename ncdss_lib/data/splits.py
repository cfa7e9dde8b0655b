"""One fold of a data set: which classes are novel, and which images are labelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.system.errors import InputError, did_you_mean

BASE_LISTS = ("published", "strict")


@dataclass(frozen=True)
class Splits:
    """The image lists of one fold, all sorted."""

    base: list[str]  # training images without a novel class: ground truth is given
    novel: list[str]  # training images with a novel class: unlabelled
    base_train: list[str]  # what the base model is trained on
    val: list[str]


def label_space(data: SegmentationData, fold: int) -> LabelSpace:
    """The label space of a fold. Raises InputError for a fold that the data set has not."""
    if fold not in data.folds:
        raise InputError(
            f"fold {fold} does not exist in {data.name}: choose one of {sorted(data.folds)} "
            "(--fold)."
        )
    return LabelSpace(tuple(data.classes), tuple(data.folds[fold]))


def images_with(
    classes: Iterable[int], presence: Mapping[str, tuple[int, ...]], ids: Iterable[str]
) -> list[str]:
    """Those of the images that hold one of the classes; one pixel is enough.

    Args:
        classes: original ids.
        presence: image id -> original ids of its classes.
    """
    wanted = set(classes)
    return [i for i in ids if not wanted.isdisjoint(presence[i])]


def make_splits(
    data: SegmentationData,
    labels: LabelSpace,
    *,
    base_list: str = "published",
    mixed: float = 0.0,
) -> Splits:
    """Split the training images of a fold by the classes that their masks hold.

    Args:
        base_list: what the base model is trained on. ``published`` takes every image with a base
            class, novel pixels as background: it includes images that are "unlabelled" later.
            ``strict`` takes images without a novel class.
        mixed: share of the unlabelled images that hold nothing new: so many images without a novel
            class, spread evenly over their list, lose their labels. Ours, because nobody who
            collects images knows that each holds something new.

    Raises:
        InputError: when the fold has no novel or no base image, or for another ``base_list``.
    """
    if base_list not in BASE_LISTS:
        hint = did_you_mean(base_list, BASE_LISTS)
        raise InputError(f"data.base_list={base_list!r}: {hint}")

    # an image with both kinds of class is novel, and may be in base training too
    presence = data.presence()
    novel = images_with(labels.novel_ids, presence, data.train_ids)
    any_base = images_with(labels.base_ids, presence, data.train_ids)
    unlabelled = set(novel)
    base = [i for i in data.train_ids if i not in unlabelled]
    count = round(mixed / (1 - mixed) * len(novel)) if base else 0
    nothing_new = {base[place * len(base) // count] for place in range(count)}

    check_fold(data, labels, novel, any_base)
    if count >= len(base):
        raise InputError(
            f"data.mixed={mixed}: {count} images without a novel class would lose "
            f"their labels, but there are only {len(base)}. Set a smaller share."
        )
    base = [i for i in base if i not in nothing_new]
    any_base = [i for i in any_base if i not in nothing_new]
    novel = sorted([*novel, *nothing_new])
    base_train = base if base_list == "strict" else any_base
    return Splits(base, novel, base_train, list(data.val_ids))


def check_fold(
    data: SegmentationData, labels: LabelSpace, novel: Sequence[str], any_base: Sequence[str]
) -> None:
    """Refuse a fold without a novel or without a base image.

    Raises:
        InputError: with what the masks hold instead.
    """
    presence = data.presence()
    if not any(presence[i] for i in data.train_ids):
        raise InputError(
            f"no training mask of {data.name} holds a class: all pixels are 0 "
            "(background) or 255 (ignore). Expected class ids from 1 on: are the masks "
            "black and white? Write the id of its class into each pixel."
        )
    found = {"novel": (novel, labels.novel_names), "base": (any_base, labels.base_names)}
    for kind, (ids, names) in found.items():
        if not ids:
            raise InputError(
                f"no {kind} image: none of the {len(data.train_ids)} training masks of "
                f"{data.name} holds a {kind} class of this fold "
                f"({', '.join(names)}). Check the masks, or choose another fold "
                "(--fold)."
            )
