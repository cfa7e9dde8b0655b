"""COCO-20i from COCO 2014's photos and annotations: ``ncdss prepare coco20i`` (method reference, section 1.2).

::

    train2014/, val2014/                            or  train2014.zip, val2014.zip
    annotations/instances_{train,val}2014.json      or  annotations_trainval2014.zip

get ``masks_published``, ``masks_complete`` and ``sets`` of :mod:`ncdss_lib.data.coco20i`. Annotations are read once and kept as arrays;
masks are drawn by threads and written one by one, so that memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as rle_masks
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError

from ncdss_lib.data.base import classes_in
from ncdss_lib.data.coco20i import COCO_CLASSES, FOLDS, MASKS_NOTE, published_counts
from ncdss_lib.data.files import SALIENCY, list_files, opened, read_indices
from ncdss_lib.data.label_maps import write_labels
from ncdss_lib.labels import IGNORE
from ncdss_lib.prepare import in_threads, refuse_read_only, writing
from ncdss_lib.prepare.archives import Part, obtain
from ncdss_lib.system.errors import InputError, did_you_mean
from ncdss_lib.system.folders import commit_folder, fingerprint, manifest, partial_folder

SPLITS = ("train", "val")
IMAGES = tuple(
    Part(f"COCO {split}2014", f"{split}2014.zip", f"http://images.cocodataset.org/zips/{split}2014.zip", None, (f"{split}2014",))
    for split in SPLITS
)
ANNOTATIONS = Part(
    name="COCO's annotations",
    archive="annotations_trainval2014.zip",
    url="http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
    md5=None,
    members=tuple(f"annotations/instances_{split}2014.json" for split in SPLITS),
)
LAYOUT = "COCO 2014 as distributed: train2014/, val2014/, annotations/instances_{train,val}2014.json"
RULES_VERSION = 1  # raise it when the masks change


# ----------------------------------------------------------------------------------------------------------------- the two rules
class Thing(NamedTuple):
    """An annotation: an object or, with ``crowd``, a region of many.

    Attributes:
        label: place of its category in the list of categories, from 1.
        polygons: float64 [N, 2] each, x and y; empty where ``rle`` is given.
        rle: run-length encoding as COCO and pycocotools write it.
    """

    label: int
    crowd: bool
    polygons: list[np.ndarray]
    rle: dict[str, Any] | None


class Picture(NamedTuple):
    """An image with at least one object that is no crowd, and its annotations in the file's order."""

    path: Path
    height: int
    width: int
    things: list[Thing]


Pictures = dict[str, dict[str, Picture]]  # by split and stem
FoldLists = dict[int, dict[str, dict[str, list[str]]]]  # stems by fold, split, and "base" or "novel"


def published_mask(picture: Picture) -> np.ndarray:
    """The paper's mask, uint8 [H, W]: 0 and the labels.

    Of each object that is no crowd only the first polygon, its coordinates cut to integers; later objects cover earlier ones; crowds are
    background. An object without a polygon (run-length encoded, or empty) is left out. Method reference, section 1.2.
    """
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for thing in picture.things:
        if not thing.crowd and thing.polygons and len(thing.polygons[0]):
            cv2.fillPoly(mask, [thing.polygons[0].astype(np.int32)], (thing.label,))
    return mask


def complete_mask(picture: Picture) -> np.ndarray:
    """The whole truth, uint8 [H, W]: 0, the labels, and 255 in crowds where no object covers them.

    Of each object all polygons, or its run-length encoding; large objects first, so that small ones stay visible. Ours: the published
    masks turn parts of occluded objects and all crowds into background.
    """
    mask = np.zeros((picture.height, picture.width), np.uint8, order="F")  # the order of run-length encodings
    drawn = [(thing, rle) for thing in picture.things if (rle := to_rle(thing, picture.height, picture.width)) is not None]
    for thing, rle in sorted(drawn, key=lambda pair: (not pair[0].crowd, -int(rle_masks.area(pair[1])))):  # crowds first
        np.copyto(mask, IGNORE if thing.crowd else thing.label, where=rle_masks.decode(rle).view(bool))
    return np.ascontiguousarray(mask)


def to_rle(thing: Thing, height: int, width: int) -> dict[str, Any] | None:
    """pycocotools' run-length encoding of an annotation; None where it has no polygon with an area (three points or more)."""
    if thing.rle is not None:
        return thing.rle if isinstance(thing.rle["counts"], str) else rle_masks.frPyObjects(thing.rle, height, width)
    polygons = [polygon.ravel() for polygon in thing.polygons if len(polygon) >= 3]
    return rle_masks.merge(rle_masks.frPyObjects(polygons, height, width)) if polygons else None


RULES: dict[str, Callable[[Picture], np.ndarray]] = {"published": published_mask, "complete": complete_mask}


# --------------------------------------------------------------------------------------------------------------------- the command
def prepare(
    data_root: Path, *, sources: Path | None = None, download: bool = False, masks: Sequence[str] = ("published", "complete")
) -> str:
    """Draw the masks, write the lists, verify both, and count.

    Masks that were made from the same annotations are kept and verified; an interrupted run goes on where it stopped.

    Args:
        sources: folder with the archives, or with what they hold, which ``data_root`` is linked to then; ``data_root`` when not given.
        download: fetch archives that are not there.
        masks: ``published``, ``complete`` or both. The lists of the folds count the classes in the first of them.

    Returns:
        A summary in Markdown: the images of each list of each fold beside the published number, and what was odd in the annotations.

    Raises:
        InputError: something is missing or damaged, or annotations and images do not fit; folders of the names of ours that this command
            did not make.
        RunError: a download or the disk failed.
    """
    data_root = Path(data_root).expanduser()
    if not masks or (unknown := [kind for kind in masks if kind not in RULES]):
        raise InputError(
            f"unknown masks {unknown[0]!r}: {did_you_mean(unknown[0], RULES)}" if masks else "no masks asked for: name one kind."
        )
    with writing(data_root):
        _refuse_foreign(data_root, masks)
        _link_parts(data_root, Path(sources).expanduser() if sources else data_root, download)
        pictures, odd, digests = _read_annotations(data_root)
        _check_sizes(pictures)
        key = fingerprint([RULES_VERSION, digests])
        presence = {kind: _draw(data_root / f"masks_{kind}", kind, pictures, key) for kind in masks}[masks[0]]
        lists = fold_lists(presence, pictures)
        _write_lists(data_root / "sets", pictures, lists, fingerprint([key, masks[0]]))
    return _summary(data_root, masks, pictures, lists, odd)


def fold_lists(presence: dict[str, tuple[int, ...]], pictures: Pictures) -> FoldLists:
    """The lists of each fold and split: ``base``, images with a base class, and ``novel``, with a novel class; they overlap. Sorted.

    Args:
        presence: stem -> labels in its mask.
    """

    def of(stems: Iterable[str], novel: tuple[int, ...]) -> dict[str, list[str]]:
        base = [stem for stem in stems if set(presence[stem]) - set(novel)]
        return {"base": base, "novel": [stem for stem in stems if set(presence[stem]) & set(novel)]}

    return {fold: {split: of(sorted(pictures[split]), novel) for split in SPLITS} for fold, novel in FOLDS.items()}


# ------------------------------------------------------------------------------------------------------------------- annotations
Coordinate = Annotated[float, Field(ge=-1e5, le=1e5)]  # no NaN either; far outside the image pycocotools' memory explodes


class _Rle(BaseModel):
    size: tuple[int, int]
    counts: str | list[Annotated[int, Field(ge=0)]]


class _Annotation(BaseModel):
    id: int
    image_id: int
    category_id: int
    iscrowd: Literal[0, 1]
    segmentation: Annotated[
        Annotated[list[list[Coordinate]], Tag("polygons")] | Annotated[_Rle, Tag("rle")],
        Discriminator(lambda value: "rle" if isinstance(value, dict) else "polygons"),
    ]


class _Image(BaseModel):
    id: int
    file_name: Annotated[str, Field(pattern=r"^[^/\\]+\.jpg$")]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class _Category(BaseModel):
    id: int
    name: str


class _File(BaseModel):
    images: list[_Image]
    annotations: list[Any]
    categories: list[_Category]


class _Compact(NamedTuple):
    """An annotation as it is kept while its file is read."""

    id: int
    image_id: int
    category_id: int
    crowd: bool
    polygons: list[np.ndarray]
    rle: dict[str, Any] | None


def _read_annotations(data_root: Path) -> tuple[Pictures, Counter[str], list[str]]:
    """Both annotation files, checked.

    Returns:
        The images with an object that is no crowd; how often something odd was met; a hash of each file.
    """
    pictures: Pictures = {}
    odd: Counter[str] = Counter()
    digests, names = [], []
    for split in SPLITS:
        path = data_root / "annotations" / f"instances_{split}2014.json"
        content = path.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        parsed = _parse(path, content)
        names.append([category.name for category in parsed.categories])
        pictures[split] = _pictures(path, parsed, data_root / f"{split}2014", odd)
    if names[0] != names[1]:
        raise _wrong(path.parent, "the categories of train2014 and val2014 differ", "the same list in both")
    if both := sorted(set(pictures["train"]) & set(pictures["val"])):
        raise _wrong(path.parent, f"train2014 and val2014 share {len(both)} images (first: {both[0]})", "each image in one of them")
    if other := [(i, name) for i, name in enumerate(names[0], 1) if name != COCO_CLASSES[i - 1]]:
        i, name = other[0]
        odd[f"categories with names of their own (first: category {i}, {name!r}; runs call it {COCO_CLASSES[i - 1]!r})"] = len(other)
    return pictures, odd, digests


def _parse(path: Path, content: bytes) -> _File:
    def compact(node: dict[str, Any]) -> Any:
        """Annotations become arrays as soon as they are read: a whole file of lists of numbers takes several times the memory."""
        if "segmentation" not in node:
            return node
        try:
            read = _Annotation.model_validate(node)
        except ValidationError as error:
            raise _wrong(path, f"annotation {node.get('id')}: {_first(error)}", "COCO's instances format") from error
        if isinstance(read.segmentation, _Rle):
            return _Compact(read.id, read.image_id, read.category_id, bool(read.iscrowd), [], read.segmentation.model_dump())
        if odd := [len(numbers) for numbers in read.segmentation if len(numbers) % 2]:
            raise _wrong(path, f"annotation {read.id}: a polygon of {odd[0]} numbers", "x and y for each point")
        polygons = [np.array(numbers).reshape(-1, 2) for numbers in read.segmentation]
        return _Compact(read.id, read.image_id, read.category_id, bool(read.iscrowd), polygons, None)

    try:
        return _File.model_validate(json.loads(content, object_hook=compact))
    except ValidationError as error:
        raise _wrong(path, _first(error), "COCO's instances format") from error
    except ValueError as error:
        raise _wrong(path, f"no valid JSON ({error})", "COCO's instances format") from error


def _pictures(path: Path, parsed: _File, folder: Path, odd: Counter[str]) -> dict[str, Picture]:
    """Stem -> picture of one annotation file; what is odd but harmless is counted in ``odd``."""
    labels = {category.id: label for label, category in enumerate(parsed.categories, 1)}
    images = {image.id: image for image in parsed.images}
    if len(parsed.categories) != len(COCO_CLASSES) or len(labels) != len(COCO_CLASSES):
        found = f"{len(parsed.categories)} categories with {len(labels)} ids"
        raise _wrong(path, found, f"COCO's {len(COCO_CLASSES)}, each with its own id")
    _refuse_repeated(path, "image ids", [image.id for image in parsed.images])
    _refuse_repeated(path, "file names", [image.file_name for image in parsed.images])

    things: dict[int, list[Thing]] = {}
    for read in parsed.annotations:
        if not isinstance(read, _Compact):
            raise _wrong(path, f"an annotation without segmentation ({str(read)[:60]})", "one for each annotation")
        if read.image_id not in images:
            raise _wrong(path, f"annotation {read.id}: image {read.image_id} is not among the images", "the id of an image")
        if read.category_id not in labels:
            raise _wrong(path, f"annotation {read.id}: category {read.category_id} is not among the categories", "the id of a category")
        thing = Thing(labels[read.category_id], read.crowd, read.polygons, read.rle)
        image = images[read.image_id]
        if problem := _rle_problem(thing.rle, image):
            raise _wrong(path, f"annotation {read.id}: {problem}", "a run-length encoding of its image")
        _count_oddities(thing, image, odd)
        things.setdefault(read.image_id, []).append(thing)

    drawn = [image for image in parsed.images if not all(thing.crowd for thing in things.get(image.id, []))]
    odd[f"images of {folder.name} without an object that is no crowd: they get no mask and are in no list"] += len(images) - len(drawn)
    if not drawn:
        raise _wrong(path, "no image holds an object", "annotations of objects")
    stems = {Path(image.file_name).stem: image for image in drawn}
    advice = "Get the images again, or the annotations that fit."
    files = list_files(folder, (".jpg",), LAYOUT).pick(list(stems), f"{path} annotates", advice)
    return {stem: Picture(files[stem].path, image.height, image.width, things[image.id]) for stem, image in stems.items()}


def _rle_problem(rle: dict[str, Any] | None, image: _Image) -> str | None:
    """What makes a run-length encoding useless; pycocotools itself fills what one does not cover with chance bytes."""
    if rle is None:
        return None
    size, counts = tuple(rle["size"]), rle["counts"]
    if size != (image.height, image.width):
        return f"its run-length encoding is for {size[1]}x{size[0]} pixels, {image.file_name} has {image.width}x{image.height}"
    if isinstance(counts, list):
        return None if sum(counts) == image.height * image.width else f"its runs cover {sum(counts)} of {image.height * image.width} pixels"
    try:
        whole = rle_masks.decode(rle).sum() == rle_masks.area(rle)
    except ValueError:
        whole = False
    return None if whole and counts else "its compressed run-length encoding is damaged"


def _count_oddities(thing: Thing, image: _Image, odd: Counter[str]) -> None:
    points = [len(polygon) for polygon in thing.polygons]
    corners = np.concatenate(thing.polygons) if sum(points) else np.zeros((1, 2))
    outside = (corners < 0).any() or (corners > (image.width, image.height)).any()
    odd["crowd regions: background in published masks, 255 in complete ones"] += thing.crowd
    odd["annotations that reach over the edge of their image: cut there"] += bool(outside)
    odd["annotations without a point: nothing is drawn"] += not thing.rle and not sum(points)
    odd["polygons of one or two points: left out of complete masks"] += sum(0 < n < 3 for n in points)
    odd["objects as run-length encoding: left out of published masks, which draw polygons"] += bool(thing.rle) and not thing.crowd
    odd["objects whose first polygon is empty: left out of published masks"] += not thing.crowd and sum(points) > 0 and not points[0]


def _refuse_repeated(path: Path, what: str, values: Sequence[int | str]) -> None:
    if repeated := [value for value, times in Counter(values).items() if times > 1]:
        raise _wrong(path, f"{len(repeated)} {what} occur more than once (first: {repeated[0]})", "each image once")


def _first(error: ValidationError) -> str:
    """Where and what the first of pydantic's complaints is."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _wrong(path: Path, found: str, expected: str) -> InputError:
    return InputError(f"{path}: {found}. Expected {expected}: get COCO's annotations again.")


# ----------------------------------------------------------------------------------------------------------------------- folders
MADE_BY = "ncdss prepare coco20i"


def _link_parts(data_root: Path, sources: Path, download: bool) -> None:
    """Have photos and annotations below ``data_root``: extracted there, or as links to where they are."""
    parts = (*IMAGES, ANNOTATIONS)
    for part, folder in zip(parts, obtain(parts, data_root, sources, download=download), strict=True):
        for member in part.members:
            link = data_root / member
            if not link.exists():
                refuse_read_only(data_root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)  # a link that leads nowhere
                link.symlink_to((folder / member).resolve())


def _check_sizes(pictures: Pictures) -> None:
    """Compare the size of each photo with its annotations'; only the headers are read."""

    def check(picture: Picture) -> None:
        with opened(picture.path) as photo:
            if photo.size != (picture.width, picture.height):
                raise InputError(
                    f"{picture.path} is {photo.width}x{photo.height} pixels. Expected {picture.width}x{picture.height}, as its annotations "
                    "say: get the image again, or scale its annotations with it."
                )

    in_threads(check, [picture for split in SPLITS for picture in pictures[split].values()], "checking photos")


def _refuse_foreign(data_root: Path, masks: Sequence[str]) -> None:
    for folder in (*(data_root / f"masks_{kind}" for kind in masks), data_root / "sets"):
        if folder.exists() and manifest(folder).get("made_by") != MADE_BY:
            raise InputError(f"{folder} was not made by `{MADE_BY}`, which would replace it. Expected no such folder: move it away.")


def _draw(folder: Path, kind: str, pictures: Pictures, key: str) -> dict[str, tuple[int, ...]]:
    """Draw the masks of one kind that are not there yet; return the classes of each image, read back from those that are."""
    current = manifest(folder).get("key") == key
    if not current:
        refuse_read_only(folder.parent)
    into = folder if current else partial_folder(folder, key)

    def classes_of(item: tuple[str, Picture]) -> tuple[int, ...]:
        stem, picture = item
        path, draft = into / f"{stem}.png", into / f".{stem}.png"
        if path.exists():
            mask = read_indices(path)
            if mask.shape != (picture.height, picture.width):
                raise InputError(f"{path} has not the size of {picture.path}. Expected what was drawn: remove {into} and run again.")
        else:
            mask = RULES[kind](picture)
            write_labels(draft, mask)
            draft.replace(path)
        return classes_in(mask)

    items = [item for split in SPLITS for item in pictures[split].items()]
    presence = dict(zip((stem for stem, _ in items), in_threads(classes_of, items, f"drawing {kind} masks"), strict=True))
    if not current:
        commit_folder(into, folder, {"made_by": MADE_BY, "key": key, "masks": MASKS_NOTE[kind]})
    return presence


def _write_lists(sets: Path, pictures: Pictures, lists: FoldLists, key: str) -> None:
    if manifest(sets).get("key") == key:
        return
    partial = partial_folder(sets, key)
    for split in SPLITS:
        _write_list(partial / f"{split}2014.txt", sorted(pictures[split]))
        for fold in lists:
            for name, stems in lists[fold][split].items():
                _write_list(partial / f"fold{fold}" / split / f"{name}.txt", stems)
    commit_folder(partial, sets, {"made_by": MADE_BY, "key": key})


def _write_list(path: Path, stems: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stem}\n" for stem in stems))


def _summary(data_root: Path, masks: Sequence[str], pictures: Pictures, lists: FoldLists, odd: Counter[str]) -> str:
    rows = []
    for fold in lists:
        for split, published in published_counts(fold).items():
            base, novel = (set(lists[fold][split][name]) for name in ("base", "novel"))
            counts = {"base": len(base), "novel": len(novel), "overlap": len(base & novel), "union": len(pictures[split])}
            rows += [(fold, split, name, counts[name], published[name]) for name in published if name != "union" or fold == 0]
    rows.sort(key=lambda row: row[2] != "union")  # once, before the folds
    lines = [
        f"# COCO-20i in {data_root}",
        "",
        f"Verified: {len(pictures['train']):,} training and {len(pictures['val']):,} validation images with masks of their size: "
        f"{'; '.join(MASKS_NOTE[kind] for kind in masks)}. The lists of the folds count classes in the {masks[0]} masks.",
        "",
        "| fold | split | list | images | published | |",
        "|---|---|---|---:|---:|---|",
        *(
            f"| {'' if name == 'union' else fold} | {split} | {'all' if name == 'union' else name} | {n:,} | {published:,} | "
            f"{'equal' if n == published else 'differs'} |"
            for fold, split, name, n, published in rows
        ),
        "",
        "- Fine-tuning takes the `base` images that are not `novel`; base training takes all of `base`, so it sees ground truth of the "
        '`overlap`, which is "unlabelled" later. `--set data.base_list=strict` leaves it out.',
        "- The folds are contiguous in COCO's list of categories, unlike those of few-shot segmentation: do not compare figures across.",
        *(f"- {times:,} {what}." for what, times in odd.items() if times),
    ]
    if not (data_root / SALIENCY).is_dir():
        lines.append(f"- Next, the saliency maps: `ncdss prepare saliency --data-root {data_root}`.")
    return "\n".join(lines) + "\n"
