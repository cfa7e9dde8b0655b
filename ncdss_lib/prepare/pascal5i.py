"""PASCAL-5i from VOC 2012 and the masks of SBD: ``ncdss prepare pascal5i`` (method reference, section 1.1).

::

    VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}   or  VOCtrainval_11-May-2012.tar
    benchmark_RELEASE/dataset/{cls,train.txt,val.txt}                         or  benchmark.tgz

become ``images``, ``SegmentationClassAug``, ``SegmentationClass`` and ``sets`` of :mod:`ncdss_lib.data.pascal5i`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from tqdm.auto import tqdm

from ncdss_lib.data.base import classes_in
from ncdss_lib.data.files import SALIENCY, list_files, opened, read_indices, read_list
from ncdss_lib.data.label_maps import write_labels
from ncdss_lib.data.pascal5i import FOLDS, MASKS, VOC_CLASSES, Pascal5i, published_counts
from ncdss_lib.labels import IGNORE
from ncdss_lib.prepare import in_threads, refuse_read_only, writable, writing
from ncdss_lib.prepare.archives import Part, obtain
from ncdss_lib.system.errors import InputError

VOC = Part(
    name="VOC 2012",
    archive="VOCtrainval_11-May-2012.tar",
    url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
    members=tuple(f"VOCdevkit/VOC2012/{folder}" for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")),
)
SBD = Part(
    name="SBD",
    archive="benchmark.tgz",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
    members=tuple(f"benchmark_RELEASE/dataset/{name}" for name in ("cls", "train.txt", "val.txt")),
)
VOC_LAYOUT = "VOC 2012 as distributed: VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}"
SBD_LAYOUT = "SBD as distributed: benchmark_RELEASE/dataset/{cls,train.txt,val.txt}"

MADE = ("images", MASKS, "SegmentationClass", "sets")  # the lists last: with them the layout is complete
NEEDED = ("images", MASKS, "sets/trainaug.txt", "sets/val.txt")
PARTIAL, WHOLE = ".pascal5i.partial", ".whole"


def prepare(data_root: Path, *, sources: Path | None = None, download: bool = False) -> str:
    """Make the VOCSegmentation layout in ``data_root``, or verify the one that is there, and count its lists.

    Args:
        sources: folder with the archives, or with what they hold; ``data_root`` when not given. Photos are hard links into it where
            that is possible.
        download: fetch archives that are not there.

    Returns:
        A summary in Markdown: the images of each list of each fold beside the published number.

    Raises:
        InputError: VOC or SBD is missing, or something of them is damaged; an image without mask, of another size, or with unknown ids.
        RunError: a download or the disk failed.
    """
    data_root = Path(data_root).expanduser()
    sources = Path(sources).expanduser() if sources else data_root
    origin = ""
    with writing(data_root):
        if (data_root / PARTIAL / WHOLE).exists():  # a process was killed while it moved the finished folders
            _move_into_place(data_root)
        if all((data_root / name).exists() for name in NEEDED):
            data = Pascal5i(data_root, needs_saliency=False)
            data.presence()
            _verify_voc_masks(data)
        else:
            data, origin = _build(data_root, *obtain((VOC, SBD), _empty(data_root), sources, download=download))
        lists = {fold: fold_lists(data.presence(), data.train_ids, data.val_ids, novel) for fold, novel in FOLDS.items()}
        state = _write_lists(data_root / "sets", lists)
    return _summary(data_root, data, lists, " ".join(filter(None, (origin, state))))


def fold_lists(presence: Mapping[str, tuple[int, ...]], train: list[str], val: list[str], novel: tuple[int, ...]) -> dict[str, list[str]]:
    """The lists of one fold (method reference, section 1.1); one pixel of a class is enough.

    Args:
        presence: image id -> original ids of its classes.
        novel: original ids of the novel classes of the fold.

    Returns:
        ``novel``: training images with a novel class; ``base``: without one; ``base_train``: with a base class;
        ``base_val``: validation images with a base class. Sorted as ``train`` and ``val`` are.
    """
    has_novel = {i for i in train if set(presence[i]) & set(novel)}
    has_base = {i for i in (*train, *val) if set(presence[i]) - set(novel)}
    return {
        "novel": [i for i in train if i in has_novel],
        "base": [i for i in train if i not in has_novel],
        "base_train": [i for i in train if i in has_base],
        "base_val": [i for i in val if i in has_base],
    }


# ----------------------------------------------------------------------------------------------------------------------- building
def _build(data_root: Path, voc_folder: Path, sbd_folder: Path) -> tuple[Pascal5i, str]:
    """Write images, masks and lists to a partial folder, verify them as a run would read them, and move them into place."""
    voc, sbd = voc_folder / "VOCdevkit" / "VOC2012", sbd_folder / "benchmark_RELEASE" / "dataset"
    sets, partial = voc / "ImageSets" / "Segmentation", data_root / PARTIAL
    voc_train, val = (read_list(sets / f"{name}.txt", "2007_000032") for name in ("train", "val"))
    sbd_ids = [i for name in ("train", "val") for i in read_list(sbd / f"{name}.txt", "2008_000002")]
    trainaug = sorted({*sbd_ids, *voc_train} - set(val))
    ids = [*trainaug, *val]

    from_voc = list_files(voc / "SegmentationClass", (".png",), VOC_LAYOUT).files
    if lost := sorted({*voc_train, *val} - set(from_voc)):
        raise InputError(f"{voc / 'SegmentationClass'} lacks {len(lost)} masks of {sets} (first: {lost[0]}.png). Get VOC 2012 again.")
    from_sbd = list_files(sbd / "cls", (".mat",), SBD_LAYOUT).pick(
        [i for i in ids if i not in from_voc], f"beside VOC's own masks, the lists in {sbd} need those of", "Get SBD again."
    )
    masks = {i: (from_sbd.get(i) or from_voc[i]).path for i in ids}
    photos = list_files(voc / "JPEGImages", (".jpg",), VOC_LAYOUT).pick(ids, f"{sbd} and {sets} list", "Get VOC 2012 again.")

    def write(image_id: str) -> None:
        mask = read_sbd_mask(masks[image_id]) if image_id in from_sbd else read_indices(masks[image_id])
        _check(mask, masks[image_id], photos[image_id].path)
        write_labels(partial / MASKS / f"{image_id}.png", mask)
        if image_id in own:
            write_labels(partial / "SegmentationClass" / f"{image_id}.png", mask)
        _link(photos[image_id].path, partial / "images" / f"{image_id}.jpg")

    own = {*voc_train, *val}
    refuse_read_only(data_root)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in MADE:
            (partial / name).mkdir(parents=True)
        in_threads(write, ids, "writing masks")
        for name, members in (("trainaug", trainaug), ("train", voc_train), ("val", val)):
            _write_list(partial / "sets" / f"{name}.txt", members)
        data = Pascal5i(partial, needs_saliency=False)
        data.presence()
        (partial / WHOLE).touch()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _move_into_place(data_root)
    return data, f"Masks: {len(ids) - len(from_sbd):,} of VOC 2012 (wherever it has one), {len(from_sbd):,} of SBD."


def read_sbd_mask(path: Path) -> np.ndarray:
    """The class mask of a .mat file of SBD, uint8 [H, W]: 0..20, without ignored pixels. Raises InputError for any other file."""
    try:
        mask = loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy meets a damaged file with errors of any kind
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Expected a .mat file with GTcls.Segmentation: get SBD again."
        ) from error
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(f"{path} holds GTcls.Segmentation of {mask.dtype} {list(mask.shape)}. Expected uint8 [H, W]: get SBD again.")
    return mask


def _check(mask: np.ndarray, path: Path, photo: Path) -> None:
    """Raise InputError unless a mask has known ids and the size of its photo."""
    if unknown := [c for c in classes_in(mask) if c > len(VOC_CLASSES)]:
        raise InputError(f"{path} holds label ids {unknown}. Expected 0..{len(VOC_CLASSES)} and {IGNORE} (ignore): restore the file.")
    with opened(photo) as picture:
        width, height = picture.size
    if mask.shape != (height, width):
        raise InputError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels. Expected {width}x{height}, the size of {photo}: restore the pair."
        )


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _empty(data_root: Path) -> Path:
    """``data_root``, after refusing one that holds a part of the layout: it is someone's, and is not replaced."""
    if there := [name for name in MADE if (data_root / name).exists()]:
        lacking = [name for name in NEEDED if not (data_root / name).exists()]
        raise InputError(
            f"{data_root} holds {', '.join(there)} but not {', '.join(lacking)}. Expected all or none of the layout: add what is "
            "missing, or move these away to have them made from VOC 2012 and SBD."
        )
    return data_root


def _move_into_place(data_root: Path) -> None:
    for name in MADE:
        if (data_root / PARTIAL / name).exists():
            (data_root / PARTIAL / name).rename(data_root / name)
    shutil.rmtree(data_root / PARTIAL)


# ---------------------------------------------------------------------------------------------------------------- what is there
def _verify_voc_masks(data: Pascal5i) -> None:
    """Check ``SegmentationClass``, where there is one, as ``presence`` checks ``SegmentationClassAug``."""
    if not (data.root / "SegmentationClass").is_dir():
        return
    own = Pascal5i(data.root, val_masks="SegmentationClass", needs_saliency=False)
    for image_id in tqdm(own.val_ids, desc="reading SegmentationClass", unit="mask"):
        path = data.root / "SegmentationClass" / f"{image_id}.png"
        _check(own.mask(image_id), path, data.root / "images" / f"{image_id}.jpg")


def _write_lists(sets: Path, lists: dict[int, dict[str, list[str]]]) -> str:
    """Write ``sets/foldF`` where absent and allowed; say in a sentence what was done, and which lists say something else."""
    absent = [fold for fold in lists if not (sets / f"fold{fold}").exists()]
    other = [
        f"fold{fold}/{name}.txt"
        for fold in lists
        if fold not in absent
        for name, ids in lists[fold].items()
        if not (sets / f"fold{fold}" / f"{name}.txt").is_file() or (sets / f"fold{fold}" / f"{name}.txt").read_text().split() != ids
    ]
    note = f" In {sets}, {', '.join(other)} say something else than the masks; runs do not read them." if other else ""
    if absent and not writable(sets):
        return f"The lists of the folds were not written: {sets} is read-only. Runs do not need them." + note
    for fold in absent:
        partial = sets / f".fold{fold}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, ids in lists[fold].items():
            _write_list(partial / f"{name}.txt", ids)
        partial.rename(sets / f"fold{fold}")
    return ("Lists written: " if absent else "Lists there: ") + f"{sets}/fold{{0..4}}/{{{','.join(lists[0])}}}.txt." + note


def _write_list(path: Path, ids: list[str]) -> None:
    path.write_text("".join(f"{i}\n" for i in ids))


def _summary(data_root: Path, data: Pascal5i, lists: dict[int, dict[str, list[str]]], note: str) -> str:
    rows = [("", "trainaug", len(data.train_ids), 10_582), ("", "val", len(data.val_ids), 1_449)]
    for fold, of_fold in lists.items():
        counts = {name: len(ids) for name, ids in of_fold.items()}
        counts["base_train_and_novel"] = len(set(of_fold["base_train"]) & set(of_fold["novel"]))
        rows += [(str(fold), name, counts[name], published) for name, published in published_counts(fold).items()]
    shared = sorted(len(set(of_fold["base_train"]) & set(of_fold["novel"])) for of_fold in lists.values())
    lines = [
        f"# PASCAL-5i in {data_root}",
        "",
        f"Verified: {len(data.train_ids):,} training and {len(data.val_ids):,} validation images, each with a mask of its size that holds "
        f"0..{len(VOC_CLASSES)} and {IGNORE} only. {note}",
        "",
        "| fold | list | images | published | |",
        "|---|---|---:|---:|---|",
        *(f"| {fold} | {name} | {n:,} | {published:,} | {'equal' if n == published else 'differs'} |" for fold, name, n, published in rows),
        "",
        f"- `base_train_and_novel`: {shared[0]:,} to {shared[-1]:,} images a fold are in the published base-training list *and* are "
        '"unlabelled" novel images later, so the base model has seen ground truth of them. `--set data.base_list=strict` trains it on '
        "`base` alone.",
        "- The published `base` list of fold 4 equals its `base_train`; the number here is without the novel images.",
    ]
    if not (data_root / SALIENCY).is_dir():
        lines.append(f"- Next, the saliency maps: `ncdss prepare saliency --data-root {data_root}`.")
    return "\n".join(lines) + "\n"
