"""COCO's annotation files: read once, checked, and kept as arrays.

pycocotools' own reader takes half as much memory again and checks nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pycocotools.mask as rle_masks
from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, ValidationError

from ncdss_lib.data.coco20i import COCO_CLASSES
from ncdss_lib.data.image_files import list_files, picture_size
from ncdss_lib.system.errors import InputError

SPLITS = ("train", "val")
LAYOUT = (
    "COCO 2014 as distributed: train2014/, val2014/, annotations/instances_{train,val}2014.json"
)


class Thing(NamedTuple):
    """An annotation: an object or, with ``crowd``, a region of many."""

    id: int
    image_id: int
    category_id: int
    crowd: bool
    polygons: list[np.ndarray]  # float64 [N, 2] each, x and y; empty where ``rle`` is given
    rle: dict[str, Any] | None  # run-length encoding as COCO and pycocotools write it


class Picture(NamedTuple):
    """An image with at least one object that is no crowd, and its annotations in file order."""

    path: Path
    height: int
    width: int
    things: list[Thing]
    labels: Mapping[int, int]  # category id -> id of the class of that name, from 1


Pictures = dict[str, dict[str, Picture]]  # by split and stem


# --------------------------------------------------------------------------------- the file format
FAR = 1e5  # far outside the image pycocotools' memory explodes


def _coordinate(value: float) -> float:
    if not abs(value) <= FAR:
        raise ValueError(f"the coordinate {value} is no number of pixels")
    return value


def _run(value: int) -> int:
    if value < 0:
        raise ValueError(f"a run of {value} pixels")
    return value


def _file_name(value: str) -> str:
    if not value.endswith(".jpg") or "/" in value or "\\" in value or value == ".jpg":
        raise ValueError(f"{value!r} is not the name of a .jpg file without a folder")
    return value


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "text"


Polygons = list[list[Annotated[float, AfterValidator(_coordinate)]]]
Runs = list[Annotated[int, AfterValidator(_run)]]


class _Rle(BaseModel):
    size: tuple[int, int]
    counts: Annotated[
        Annotated[str, Tag("text")] | Annotated[Runs, Tag("list")], Discriminator(_is_list)
    ]


class _Annotation(BaseModel):
    id: int
    image_id: int
    category_id: int
    iscrowd: Literal[0, 1] = 0  # files of other tools leave it out
    segmentation: Annotated[
        Annotated[Polygons, Tag("polygons")] | Annotated[_Rle, Tag("rle")],
        Discriminator(lambda value: "rle" if isinstance(value, dict) else "polygons"),
    ]


class _Image(BaseModel):
    id: int
    file_name: Annotated[str, AfterValidator(_file_name)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class _Category(BaseModel):
    id: int
    name: str


class _File(BaseModel):
    images: list[_Image]
    annotations: list[Any]
    categories: list[_Category]


def read_annotations(data_root: Path) -> tuple[Pictures, Counter[str], list[str]]:
    """Both annotation files, checked.

    Returns:
        The images with an object that is no crowd; how often something odd was met; a hash of each
        file.

    Raises:
        InputError: for a file that is not in COCO's instances format, or contradicts itself, the
            other one or the photos.
    """
    pictures: Pictures = {}
    odd: Counter[str] = Counter()
    digests = []
    folder = data_root / "annotations"
    for split in SPLITS:
        path = folder / f"instances_{split}2014.json"
        content = path.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        parsed = _parse(path, content)
        pictures[split] = _pictures(path, parsed, data_root / f"{split}2014", odd)

    # what the two files say together
    if both := sorted(set(pictures["train"]) & set(pictures["val"])):
        found = f"train2014 and val2014 share {len(both)} images (first: {both[0]})"
        raise _wrong(folder, found, "each image in one of them")
    return pictures, odd, digests


def _parse(path: Path, content: bytes) -> _File:
    """An annotation file, checked."""
    try:
        read = json.loads(content, object_hook=partial(_compact, path))
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"no valid JSON ({error})") from error
    if not isinstance(read, dict):
        raise _wrong(path, f"a {type(read).__name__} instead of images, annotations, categories")
    try:
        return _File.model_validate(read)
    except ValidationError as error:
        raise _wrong(path, _first(error)) from error


def _compact(path: Path, node: dict[str, Any]) -> Any:
    """Make an annotation a :class:`Thing` as soon as it is read; leave any other node as it is.

    A whole file of lists of numbers takes several times the memory.
    """
    if "segmentation" not in node:
        return node
    try:
        read = _Annotation.model_validate(node)
    except ValidationError as error:
        raise _wrong(path, f"annotation {node.get('id')}: {_first(error)}") from error
    polygons: list[np.ndarray] = []
    rle = None
    if isinstance(read.segmentation, _Rle):
        rle = read.segmentation.model_dump()
    else:
        for numbers in read.segmentation:
            if len(numbers) % 2:
                found = f"annotation {read.id}: a polygon of {len(numbers)} numbers"
                raise _wrong(path, found, "x and y for each point")
            polygons.append(np.array(numbers).reshape(-1, 2))
    return Thing(read.id, read.image_id, read.category_id, bool(read.iscrowd), polygons, rle)


def _pictures(path: Path, parsed: _File, folder: Path, odd: Counter[str]) -> dict[str, Picture]:
    """Stem -> picture of one annotation file; what is odd but harmless is counted in ``odd``."""
    # categories and images, each once
    labels = _labels(path, parsed.categories)
    images = {image.id: image for image in parsed.images}
    _refuse_repeated(path, "image ids", [image.id for image in parsed.images])
    _refuse_repeated(path, "file names", [image.file_name for image in parsed.images])

    # annotations by image
    things: dict[int, list[Thing]] = {}
    for thing in parsed.annotations:
        if not isinstance(thing, Thing):
            found = f"an annotation without segmentation ({str(thing)[:60]})"
            raise _wrong(path, found, "one for each annotation")
        about = f"annotation {thing.id}:"
        if thing.image_id not in images:
            found = f"{about} image {thing.image_id} is not among the images"
            raise _wrong(path, found, "the id of an image")
        if thing.category_id not in labels:
            found = f"{about} category {thing.category_id} is not among the categories"
            raise _wrong(path, found, "the id of a category")
        if problem := _rle_problem(thing.rle, images[thing.image_id]):
            raise _wrong(path, f"{about} {problem}", "a run-length encoding of its image")
        _count_oddities(thing, images[thing.image_id], odd)
        things.setdefault(thing.image_id, []).append(thing)

    # images with an object, and their photos
    stems = {}
    for image in parsed.images:
        if not all(thing.crowd for thing in things.get(image.id, [])):
            stems[Path(image.file_name).stem] = image
    left_out = "without an object that is no crowd: they get no mask and are in no list"
    odd[f"images of {folder.name} {left_out}"] += len(images) - len(stems)
    if not stems:
        raise _wrong(path, "no image holds an object", "annotations of objects")
    advice = "Get the images again, or the annotations that fit."
    listing = list_files(folder, (".jpg",), LAYOUT)
    photos = listing.pick(list(stems), f"{path} annotates", advice)
    return {
        stem: Picture(photos[stem], image.height, image.width, things[image.id], labels)
        for stem, image in stems.items()
    }


def _labels(path: Path, categories: list[_Category]) -> dict[int, int]:
    """Category id -> class id, by the name: neither the order of the list nor its ids matter."""
    _refuse_repeated(path, "category ids", [category.id for category in categories])
    _refuse_repeated(path, "category names", [category.name for category in categories])
    own = [category.name for category in categories if category.name not in COCO_CLASSES]
    if own or len(categories) != len(COCO_CLASSES):
        first = f", of which {len(own)} are not COCO's (first: {own[0]!r})" if own else ""
        raise InputError(
            f"{path}: {len(categories)} categories{first}. Expected the {len(COCO_CLASSES)} of "
            "COCO 2014 by their names, since COCO-20i is made of them. For classes of your own "
            "use --dataset folder, with masks made from your annotations."
        )
    return {category.id: COCO_CLASSES.index(category.name) + 1 for category in categories}


def _rle_problem(rle: dict[str, Any] | None, image: _Image) -> str | None:
    """What makes a run-length encoding useless.

    pycocotools itself fills what one does not cover with chance bytes.
    """
    if rle is None:
        return None
    height, width = rle["size"]
    counts = rle["counts"]
    pixels = image.height * image.width
    if (height, width) != (image.height, image.width):
        size = f"{image.file_name} has {image.width}x{image.height}"
        return f"its run-length encoding is for {width}x{height} pixels, {size}"
    if isinstance(counts, list):
        return None if sum(counts) == pixels else f"its runs cover {sum(counts)} of {pixels} pixels"
    try:
        whole = bool(counts) and rle_masks.decode(rle).sum() == rle_masks.area(rle)
    except ValueError:
        whole = False
    return None if whole else "its compressed run-length encoding is damaged"


def _count_oddities(thing: Thing, image: _Image, odd: Counter[str]) -> None:
    points = [len(polygon) for polygon in thing.polygons]
    corners = np.concatenate(thing.polygons) if sum(points) else np.zeros((1, 2))
    outside = bool((corners < 0).any() or (corners > (image.width, image.height)).any())
    is_object = not thing.crowd
    empty_first = sum(points) > 0 and not points[0]
    drawn = "left out of published masks"
    odd["crowd regions: background in published masks, 255 in complete ones"] += thing.crowd
    odd["annotations that reach over the edge of their image: cut there"] += outside
    odd["annotations without a point: nothing is drawn"] += not thing.rle and not sum(points)
    odd["polygons of one or two points: left out of complete masks"] += sum(
        0 < n < 3 for n in points
    )
    odd[f"objects as run-length encoding: {drawn}, which draw polygons"] += (
        bool(thing.rle) and is_object
    )
    odd[f"objects whose first polygon is empty: {drawn}"] += is_object and empty_first


def _refuse_repeated(path: Path, what: str, values: Iterable[int | str]) -> None:
    if repeated := [value for value, times in Counter(values).items() if times > 1]:
        found = f"{len(repeated)} {what} occur more than once (first: {repeated[0]})"
        raise _wrong(path, found, "each image once")


def _first(error: ValidationError) -> str:
    """Where and what the first of pydantic's complaints is."""
    first = error.errors(include_url=False)[0]
    tags = ("polygons", "rle", "text", "list")
    where = ".".join(str(part) for part in first["loc"] if part not in tags)
    said = first["msg"].removeprefix("Value error, ")
    return ": ".join(filter(None, (where, said[0].lower() + said[1:])))


def _wrong(path: Path, found: str, expected: str = "COCO's instances format") -> InputError:
    return InputError(
        f"{path}: {found}. Expected {expected}: correct the file, or get COCO's annotations again."
    )


def check_size(picture: Picture) -> None:
    """Compare the size of a photo with its annotations'; only the header is read."""
    width, height = picture_size(picture.path)
    if (width, height) != (picture.width, picture.height):
        raise InputError(
            f"{picture.path} is {width}x{height} pixels. Expected {picture.width}x{picture.height}"
            ", as its annotations say: get the image again, or scale its annotations with it."
        )
