"""One fold of a data set: which classes are novel, and which images are labelled."""

from __future__ import annotations

from dataclasses import dataclass

from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.errors import InputError, nearest

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


def make_splits(
    data: SegmentationData, labels: LabelSpace, *, base_list: str = "published"
) -> Splits:
    """Split the training images of a fold by the classes that their masks hold.

    Args:
        base_list: what the base model is trained on. ``published`` takes every image with a base
            class, novel pixels as background: it includes images that are "unlabelled" later.
            ``strict`` takes images without a novel class.

    Raises:
        InputError: when the fold has no novel or no base image, or for another ``base_list``.
    """
    if base_list not in BASE_LISTS:
        raise InputError(f"data.base_list={base_list!r}: {nearest(base_list, BASE_LISTS)}")

    # one pixel of a class is enough
    presence = data.presence()
    novel = [i for i in data.train_ids if not set(labels.novel_ids).isdisjoint(presence[i])]
    any_base = [i for i in data.train_ids if not set(labels.base_ids).isdisjoint(presence[i])]
    unlabelled = set(novel)
    base = [i for i in data.train_ids if i not in unlabelled]

    # a fold needs both kinds
    for kind, ids, names in (
        ("novel", novel, labels.novel_names),
        ("base", any_base, labels.base_names),
    ):
        if not ids:
            raise InputError(
                f"no {kind} image: none of the {len(data.train_ids)} training masks of {data.name} "
                f"holds a {kind} class of this fold ({', '.join(names)}). Check the masks, or "
                "choose another fold (--fold)."
            )
    return Splits(base, novel, base if base_list == "strict" else any_base, list(data.val_ids))
