"""COCO-20i from COCO 2014's photos and annotations: ``ncdss prepare coco20i``.

::

    train2014/, val2014/                            or  train2014.zip, val2014.zip
    annotations/instances_{train,val}2014.json      or  annotations_trainval2014.zip

get ``masks_published``, ``masks_complete`` and ``sets`` of :mod:`ncdss_lib.data.coco20i`. Masks are
drawn by threads and written one by one, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pycocotools.mask as rle_masks

from ncdss_lib.data.coco20i import (
    COCO_CLASSES,
    FOLDS,
    MASKS_NOTE,
    Coco20i,
    published_counts,
)
from ncdss_lib.data.image_files import check_size, in_threads, picture_size, write_list
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import classes_in, read_labels, write_labels
from ncdss_lib.data.splits import images_with
from ncdss_lib.prepare import counts_table, next_step, refuse_read_only, writing
from ncdss_lib.prepare.archives import Part, obtain
from ncdss_lib.prepare.coco_annotations import (
    SPLITS,
    Picture,
    Pictures,
    read_annotations,
)
from ncdss_lib.system.errors import InputError, did_you_mean
from ncdss_lib.system.folders import (
    commit_folder,
    fingerprint,
    manifest,
    one_at_a_time,
    partial_folder,
    whole_file,
)

IMAGES = tuple(
    Part(
        name=f"COCO {split}2014",
        archive=f"{split}2014.zip",
        url=f"http://images.cocodataset.org/zips/{split}2014.zip",
        md5=None,
        members=(f"{split}2014",),
    )
    for split in SPLITS
)
ANNOTATIONS = Part(
    name="COCO's annotations",
    archive="annotations_trainval2014.zip",
    url="http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
    md5=None,
    members=tuple(f"annotations/instances_{split}2014.json" for split in SPLITS),
)
MADE_BY = "ncdss prepare coco20i"
RULES_VERSION = 2  # raise it when the masks change


# ---------------------------------------------------------------------------------- the two rules
def published_mask(picture: Picture) -> np.ndarray:
    """The paper's mask, uint8 [H, W]: 0 and the labels.

    Of each object that is no crowd only the first polygon, its coordinates cut to integers; later
    objects cover earlier ones; crowds are background. An object without a polygon (run-length
    encoded, or empty) is left out.
    """
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for thing in picture.things:
        if thing.has_first_polygon:
            corners = thing.polygons[0].astype(np.int32)
            cv2.fillPoly(mask, [corners], (picture.labels[thing.category_id],))
    return mask


def complete_mask(picture: Picture) -> np.ndarray:
    """The whole truth, uint8 [H, W]: 0, the labels, and 255 in crowds where no object covers them.

    Of each object all polygons, or its run-length encoding; large objects first, so that small ones
    stay visible. Ours: the published masks turn parts of occluded objects and all crowds into
    background.
    """
    drawn = []
    for thing in picture.things:
        rle = thing.encoding(picture.height, picture.width)
        if rle is not None:
            drawn.append((thing, rle))
    # crowds first, then large objects before small ones
    drawn.sort(key=lambda pair: (not pair[0].iscrowd, -int(rle_masks.area(pair[1]))))

    mask = np.zeros((picture.height, picture.width), np.uint8, order="F")  # as the encodings
    for thing, rle in drawn:
        label = IGNORE if thing.iscrowd else picture.labels[thing.category_id]
        np.copyto(mask, label, where=rle_masks.decode(rle).view(bool))
    return np.ascontiguousarray(mask)


Kind = Literal["published", "complete"]
RULES: dict[Kind, Callable[[Picture], np.ndarray]] = {
    "published": published_mask,
    "complete": complete_mask,
}
Lists = dict[str, list[str]]  # stems by the path of a list below ``sets``, without suffix


# ------------------------------------------------------------------------------------ the command
def prepare(
    data_root: Path,
    *,
    sources: Path | None = None,
    download: bool = False,
    masks: Sequence[Kind] = ("published", "complete"),
) -> str:
    """Draw the masks, write the lists, verify both, and count.

    Masks that were made from the same annotations are kept and verified; an interrupted run goes on
    where it stopped.

    Args:
        sources: folder with the archives, or with what they hold, which ``data_root`` is linked to
            then; ``data_root`` when not given.
        download: fetch archives that are not there.
        masks: ``published``, ``complete`` or both. The lists of the folds count the classes in the
            first of them.

    Returns:
        A summary in Markdown: the images of each list of each fold beside the published number, and
        what was odd in the annotations.

    Raises:
        InputError: something is missing or damaged, or annotations and images do not fit; folders
            of the names of ours that this command did not make.
        RunError: a download or the disk failed.
    """
    data_root = Path(data_root).expanduser()
    for kind in masks:
        if kind not in RULES:
            raise InputError(f"unknown masks {kind!r}: {did_you_mean(kind, RULES)}")
    with writing(data_root), one_at_a_time(data_root, "coco20i"):
        _refuse_foreign(data_root, masks)
        _link_parts(data_root, Path(sources or data_root).expanduser(), download)
        pictures, odd, digests = read_annotations(data_root)
        everything = pictures["train"] | pictures["val"]
        in_threads(_check_photo, list(everything.values()), "checking photos")
        key = fingerprint([RULES_VERSION, digests])
        presence = [_draw(data_root / f"masks_{kind}", kind, everything, key) for kind in masks]
        lists = make_lists(presence[0], pictures)
        _write_lists(data_root / "sets", lists, fingerprint([key, masks[0]]))
    return _summary(data_root, masks, lists, odd)


def make_lists(presence: Mapping[str, tuple[int, ...]], pictures: Pictures) -> Lists:
    """All images of each split; of each fold those with a base and those with a novel class.

    Args:
        presence: stem -> labels in its mask.
    """
    lists = {f"{split}2014": sorted(pictures[split]) for split in SPLITS}
    for fold, novel in FOLDS.items():
        base = set(range(1, len(COCO_CLASSES) + 1)) - set(novel)
        for split in SPLITS:
            stems = lists[f"{split}2014"]
            lists[f"fold{fold}/{split}/base"] = images_with(base, presence, stems)
            lists[f"fold{fold}/{split}/novel"] = images_with(novel, presence, stems)
    return lists


def _check_photo(picture: Picture) -> None:
    """Compare the size of a photo with its annotations'; only the header is read."""
    expected = (picture.width, picture.height)
    found = picture_size(picture.path)
    check_size(picture.path, found, expected, "its annotations", "get the image again")


# ---------------------------------------------------------------------------------------- folders
def _link_parts(data_root: Path, sources: Path, download: bool) -> None:
    """Have photos and annotations below ``data_root``: extracted, or as links to where they are."""
    parts = (*IMAGES, ANNOTATIONS)
    folders = obtain(parts, data_root, sources, download=download)
    for part, folder in zip(parts, folders, strict=True):
        for member in part.members:
            link = data_root / member
            if not link.exists():
                refuse_read_only(data_root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)  # a link that leads nowhere
                link.symlink_to((folder / member).resolve())


def _refuse_foreign(data_root: Path, masks: Sequence[Kind]) -> None:
    for name in (*(f"masks_{kind}" for kind in masks), "sets"):
        folder = data_root / name
        if folder.exists() and manifest(folder).get("made_by") != MADE_BY:
            raise InputError(
                f"{folder} was not made by `{MADE_BY}`, which would replace it. Expected no such "
                "folder: move it away."
            )


def _draw(
    folder: Path, kind: Kind, pictures: Mapping[str, Picture], key: str
) -> dict[str, tuple[int, ...]]:
    """Draw the masks of one kind that are not there yet, and read all of them back.

    Returns:
        Stem -> classes in its mask.
    """
    current = manifest(folder).get("key") == key
    if not current:
        refuse_read_only(folder.parent)
    into = folder if current else partial_folder(folder, key)

    def classes_of(item: tuple[str, Picture]) -> tuple[int, ...]:
        stem, picture = item
        path = into / f"{stem}.png"
        if not path.exists():
            with whole_file(path) as draft:
                write_labels(draft, RULES[kind](picture))
        mask = read_labels(path)
        expected = (picture.width, picture.height)
        advice = f"remove {into} and run again"
        check_size(path, mask.shape[::-1], expected, picture.path, advice)
        return classes_in(mask)

    classes = in_threads(classes_of, list(pictures.items()), f"drawing {kind} masks")
    if not current:
        about = {"made_by": MADE_BY, "key": key, "masks": MASKS_NOTE[kind]}
        commit_folder(into, folder, about)
    return dict(zip(pictures, classes, strict=True))


def _write_lists(sets: Path, lists: Lists, key: str) -> None:
    if manifest(sets).get("key") == key:
        return
    partial = partial_folder(sets, key)
    for name, stems in lists.items():
        write_list(partial / f"{name}.txt", stems)
    commit_folder(partial, sets, {"made_by": MADE_BY, "key": key})


def _summary(data_root: Path, masks: Sequence[Kind], lists: Lists, odd: Mapping[str, int]) -> str:
    train = len(lists["train2014"])
    val = len(lists["val2014"])
    rows: list[tuple[str | int, ...]] = [
        ("", "train", "all", train, published_counts(0)["train"]["union"]),
        ("", "val", "all", val, published_counts(0)["val"]["union"]),
    ]
    for fold in FOLDS:
        for split, published in published_counts(fold).items():
            base = lists[f"fold{fold}/{split}/base"]
            novel = lists[f"fold{fold}/{split}/novel"]
            both = set(base) & set(novel)
            for name, stems in (("base", base), ("novel", novel), ("overlap", both)):
                rows.append((fold, split, name, len(stems), published[name]))
    data = Coco20i(data_root, needs_saliency=False, masks=masks[0])
    lines = [
        f"# COCO-20i in {data_root}",
        "",
        f"Verified: {train:,} training and {val:,} validation images with masks of their size: "
        f"{'; '.join(MASKS_NOTE[kind] for kind in masks)}. The lists of the folds count classes in "
        f"the {masks[0]} masks.",
        "",
        counts_table(("fold", "split", "list"), rows),
        "",
        "- Fine-tuning takes the `base` images that are not `novel`; base training takes all of "
        '`base`, so it sees ground truth of the `overlap`, which is "unlabelled" later. '
        "`--set data.base_list=strict` leaves it out.",
        "- The folds are contiguous in COCO's list of categories, unlike those of few-shot "
        "segmentation: do not compare figures across.",
        *(f"- {times:,} {what}." for what, times in odd.items() if times),
        *(f"- {line}." for line in data.left_out),
        *next_step(data_root),
    ]
    return "\n".join(lines) + "\n"
