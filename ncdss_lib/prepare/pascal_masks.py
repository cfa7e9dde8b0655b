"""PASCAL-5i from VOC 2012 and the masks of SBD: ``ncdss prepare pascal5i``.

::

    VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}
                                                       or  VOCtrainval_11-May-2012.tar
    benchmark_RELEASE/dataset/{cls,train.txt,val.txt}  or  benchmark.tgz

become ``images``, ``SegmentationClassAug``, ``SegmentationClass`` and ``sets`` of
:mod:`ncdss_lib.data.pascal5i`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.io import loadmat

from ncdss_lib.data.file_dataset import refuse_unknown_ids
from ncdss_lib.data.image_files import (
    check_size,
    in_threads,
    list_files,
    picture_size,
    read_list,
    write_list,
)
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, write_labels
from ncdss_lib.data.pascal5i import FOLDS, MASKS, VOC_CLASSES, Pascal5i, published_counts
from ncdss_lib.data.splits import images_with, label_space
from ncdss_lib.prepare import counts_table, next_step, refuse_read_only, writable, writing
from ncdss_lib.prepare.archives import Part, obtain
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import one_at_a_time

VOC = Part(
    name="VOC 2012",
    archive="VOCtrainval_11-May-2012.tar",
    url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
    members=(
        "VOCdevkit/VOC2012/JPEGImages",
        "VOCdevkit/VOC2012/SegmentationClass",
        "VOCdevkit/VOC2012/ImageSets/Segmentation",
    ),
)
SBD = Part(
    name="SBD",
    archive="benchmark.tgz",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz",
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
    members=(
        "benchmark_RELEASE/dataset/cls",
        "benchmark_RELEASE/dataset/train.txt",
        "benchmark_RELEASE/dataset/val.txt",
    ),
)
VOC_LAYOUT = "VOC 2012 as distributed: " + ", ".join(VOC.members)
SBD_LAYOUT = "SBD as distributed: " + ", ".join(SBD.members)

VOC_MASKS: Literal["SegmentationClass"] = "SegmentationClass"
MADE = ("images", MASKS, VOC_MASKS, "sets")  # the lists last: with them the layout is complete
NEEDED = ("images", MASKS, "sets/trainaug.txt", "sets/val.txt")
PARTIAL = ".pascal5i.partial"
WHOLE = ".whole"  # a file in it once all is made

FoldLists = dict[int, dict[str, list[str]]]  # by fold and name of the list


def prepare(data_root: Path, *, sources: Path | None = None, download: bool = False) -> str:
    """Make the VOCSegmentation layout, or verify the one that is there, and count its lists.

    Args:
        data_root: the folder of the layout.
        sources: folder with the archives, or with what they hold; ``data_root`` when not given.
            Photos are hard links into it where that is possible.
        download: fetch archives that are not there.

    Returns:
        A summary in Markdown: the images of each list of each fold beside the published number.

    Raises:
        InputError: VOC or SBD is missing, or something of them is damaged; an image without mask,
            of another size, or with unknown ids.
        RunError: a download or the disk failed.
    """
    data_root = Path(data_root).expanduser()
    sources = Path(sources or data_root).expanduser()
    notes = []
    with writing(data_root), one_at_a_time(data_root, "pascal5i"):
        if (data_root / PARTIAL / WHOLE).exists():  # a process was killed while it moved folders
            _move_into_place(data_root)
        if all((data_root / name).exists() for name in NEEDED):
            data = Pascal5i(data_root, needs_saliency=False)
            data.presence()
            own = Pascal5i(data_root, val_masks=VOC_MASKS, needs_saliency=False)
            in_threads(own.verified, own.val_ids, f"reading {VOC_MASKS}")
        else:
            _refuse_half(data_root)
            voc, sbd = obtain((VOC, SBD), data_root, sources, download=download)
            data, origin = _build(
                data_root, voc / "VOCdevkit/VOC2012", sbd / "benchmark_RELEASE/dataset"
            )
            notes.append(origin)
        lists = {fold: fold_lists(data, fold) for fold in FOLDS}
        notes.append(_write_fold_lists(data_root / "sets", lists))
    return _summary(data_root, data, lists, " ".join(notes))


def fold_lists(data: Pascal5i, fold: int) -> dict[str, list[str]]:
    """The lists of one fold, sorted.

    Returns:
        ``novel``: training images with a novel class; ``base``: without one; ``base_train``: with a
        base class; ``base_val``: validation images with a base class.
    """
    labels = label_space(data, fold)
    presence = data.presence()
    novel = images_with(labels.novel_ids, presence, data.train_ids)
    return {
        "novel": novel,
        "base": sorted(set(data.train_ids) - set(novel)),
        "base_train": images_with(labels.base_ids, presence, data.train_ids),
        "base_val": images_with(labels.base_ids, presence, data.val_ids),
    }


# --------------------------------------------------------------------------------------- building
def _build(data_root: Path, voc: Path, sbd: Path) -> tuple[Pascal5i, str]:
    """Make the layout in a partial folder, verify it as a run would read it, move it into place.

    Returns:
        The data, and a sentence on where the masks are from.
    """
    # the lists: SBD's and VOC's training images, none of VOC's validation list
    sets = voc / "ImageSets" / "Segmentation"
    voc_train = read_list(sets / "train.txt", "2007_000032")
    val = read_list(sets / "val.txt", "2007_000033")
    sbd_ids = [
        i for name in ("train", "val") for i in read_list(sbd / f"{name}.txt", "2008_000002")
    ]
    trainaug = sorted({*sbd_ids, *voc_train} - set(val))
    ids = [*trainaug, *val]
    voc_ids = {*voc_train, *val}

    # their masks, VOC's wherever it has one, and their photos
    again = "Get VOC 2012 again."
    voc_masks = list_files(voc / VOC_MASKS, (".png",), VOC_LAYOUT)
    voc_masks.pick(sorted(voc_ids), f"{sets} lists", again)
    from_voc = voc_masks.files
    named = f"beside VOC's own masks, the lists in {sbd} need those of"
    others = [i for i in ids if i not in from_voc]
    from_sbd = list_files(sbd / "cls", (".mat",), SBD_LAYOUT).pick(others, named, "Get SBD again.")
    listing = list_files(voc / "JPEGImages", (".jpg",), VOC_LAYOUT)
    photos = listing.pick(ids, f"{sbd} and {sets} list", again)

    def write(image_id: str) -> None:
        if image_id in from_sbd:
            path = from_sbd[image_id]
            mask = read_sbd_mask(path)
        else:
            path = from_voc[image_id]
            mask = read_labels(path)
        refuse_unknown_ids(path, mask, len(VOC_CLASSES), "restore the file")
        photo = photos[image_id]
        check_size(path, mask.shape[::-1], picture_size(photo), photo, "restore the pair")
        write_labels(partial / MASKS / f"{image_id}.png", mask)
        if image_id in voc_ids:
            write_labels(partial / VOC_MASKS / f"{image_id}.png", mask)
        _link(photos[image_id], partial / "images" / f"{image_id}.jpg")

    refuse_read_only(data_root)
    partial = data_root / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in MADE:
            (partial / name).mkdir(parents=True)
        in_threads(write, ids, "writing masks")
        write_list(partial / "sets" / "trainaug.txt", trainaug)
        write_list(partial / "sets" / "train.txt", voc_train)
        write_list(partial / "sets" / "val.txt", val)
        data = Pascal5i(partial, needs_saliency=False)
        data.presence()
        (partial / WHOLE).touch()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _move_into_place(data_root)
    ours = f"{len(ids) - len(from_sbd):,} of VOC 2012 (wherever it has one)"
    return data, f"Masks: {ours}, {len(from_sbd):,} of SBD."


def read_sbd_mask(path: Path) -> np.ndarray:
    """The class mask of a .mat file of SBD, uint8 [H, W]: 0..20, without ignored pixels.

    Raises:
        InputError: for any other file.
    """
    try:
        mask = loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy meets a damaged file with errors of any kind
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Expected a .mat file with "
            "GTcls.Segmentation: get SBD again."
        ) from error
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(
            f"{path} holds GTcls.Segmentation of {mask.dtype} {list(mask.shape)}. Expected uint8 "
            "[H, W]: get SBD again."
        )
    return mask


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _refuse_half(data_root: Path) -> None:
    """Raise InputError for a folder with a part of the layout: somebody made it, so it stays."""
    if there := [name for name in MADE if (data_root / name).exists()]:
        lacking = [name for name in NEEDED if not (data_root / name).exists()]
        raise InputError(
            f"{data_root} holds {', '.join(there)} but not {', '.join(lacking)}. Expected all or "
            "none of the layout: add what is missing, or move these away to have them made from "
            "VOC 2012 and SBD."
        )


def _move_into_place(data_root: Path) -> None:
    for name in MADE:
        if (data_root / PARTIAL / name).exists():
            (data_root / PARTIAL / name).rename(data_root / name)
    shutil.rmtree(data_root / PARTIAL)


# ------------------------------------------------------------------------------------- the summary
def _write_fold_lists(sets: Path, lists: FoldLists) -> str:
    """Write the lists ``sets/foldF`` that are absent, where that is allowed.

    Returns:
        A sentence on what was done, and which lists say something else.
    """
    absent: dict[Path, list[str]] = {}
    other = []
    for fold, of_fold in lists.items():
        for name, ids in of_fold.items():
            path = sets / f"fold{fold}" / f"{name}.txt"
            if not path.exists():
                absent[path] = ids
            elif path.read_text().split() != ids:
                other.append(f"fold{fold}/{name}.txt")
    note = ""
    if other:
        others = ", ".join(other)
        note = f" In {sets}, {others} say something else than the masks; runs do not read them."
    if absent and not writable(sets):
        reason = f"{sets} is read-only. Runs do not need them."
        return f"The lists of the folds were not written: {reason}{note}"
    for path, ids in absent.items():
        write_list(path, ids)
    state = "Lists written" if absent else "Lists there"
    return f"{state}: {sets}/fold{{0..4}}/{{{','.join(lists[0])}}}.txt.{note}"


def _summary(data_root: Path, data: Pascal5i, lists: FoldLists, note: str) -> str:
    rows: list[tuple[str | int, ...]] = [
        ("", "trainaug", len(data.train_ids), 10_582),
        ("", "val", len(data.val_ids), 1_449),
    ]
    shared = []
    for fold, of_fold in lists.items():
        counts = {name: len(ids) for name, ids in of_fold.items()}
        both = len(set(of_fold["base_train"]) & set(of_fold["novel"]))
        counts["base_train_and_novel"] = both
        shared.append(both)
        for name, published in published_counts(fold).items():
            rows.append((fold, name, counts[name], published))
    lines = [
        f"# PASCAL-5i in {data_root}",
        "",
        f"Verified: {len(data.train_ids):,} training and {len(data.val_ids):,} validation images, "
        f"each with a mask of its size that holds 0..{len(VOC_CLASSES)} and {IGNORE} only. {note}",
        "",
        counts_table(("fold", "list"), rows),
        "",
        f"- `base_train_and_novel`: {min(shared):,} to {max(shared):,} images a fold are in the "
        'published base-training list *and* are "unlabelled" novel images later, so the base model '
        "has seen ground truth of them. `--set data.base_list=strict` trains it on `base` alone.",
        "- The published `base` list of fold 4 equals its `base_train`; the number here is without "
        "the novel images.",
        *(f"- {line}." for line in data.left_out),
        *next_step(data_root),
    ]
    return "\n".join(lines) + "\n"
