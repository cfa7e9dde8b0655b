"""COCO's annotation files: read once, checked, and kept as arrays.

pycocotools' own reader takes as much memory and checks nothing.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pycocotools.mask as rle_masks
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from ncdss_lib.data.coco20i import COCO_CLASSES
from ncdss_lib.data.image_files import list_files
from ncdss_lib.system.errors import InputError

SPLITS = ("train", "val")
LAYOUT = (
    "COCO 2014 as distributed: train2014/, val2014/, annotations/instances_{train,val}2014.json"
)
FAR = 1e5  # so far outside the image pycocotools' memory explodes


# --------------------------------------------------------------------------------- the file format
def _points(numbers: list[float]) -> np.ndarray:
    if len(numbers) % 2:
        raise ValueError(f"a polygon of {len(numbers)} numbers, not of x and y for each point")
    points = np.array(numbers)
    far = points[~(np.abs(points) <= FAR)]
    if len(far):
        raise ValueError(f"the coordinate {far[0]} is no number of pixels")
    return points.reshape(-1, 2)


class _Rle(BaseModel):
    size: tuple[int, int]
    counts: str | list[NonNegativeInt]  # compressed, or not


@dataclass(slots=True)
class Thing:
    """An annotation: an object or, with ``iscrowd``, a region of many."""

    id: int
    image_id: int
    category_id: int
    segmentation: list[Annotated[list[float], AfterValidator(_points)]] | _Rle
    iscrowd: Literal[0, 1] = 0  # files of other tools leave it out

    @property
    def polygons(self) -> list[np.ndarray]:
        """Its polygons, float64 [N, 2] each, x and y; none of a run-length encoding."""
        return (
            [] if isinstance(self.segmentation, _Rle) else list(map(np.asarray, self.segmentation))
        )

    @property
    def has_first_polygon(self) -> bool:
        """Whether published masks show it, which draw nothing else."""
        return not self.iscrowd and bool(self.polygons) and len(self.polygons[0]) > 0

    def encoding(self, height: int, width: int) -> dict[str, Any] | None:
        """pycocotools' compressed encoding; None where no polygon has three points or more.

        Raises:
            ValueError: for a run-length encoding of another size than the image's, or a damaged
                one: pycocotools fills what its runs do not cover with chance bytes.
        """
        if not isinstance(self.segmentation, _Rle):
            polygons = [polygon.ravel() for polygon in self.polygons if len(polygon) >= 3]
            if not polygons:
                return None
            return rle_masks.merge(rle_masks.frPyObjects(polygons, height, width))
        rle = self.segmentation.model_dump()
        counts = self.segmentation.counts
        if self.segmentation.size != (height, width):
            found = "{1}x{0}".format(*self.segmentation.size)
            raise ValueError(f"its runs are for {found} pixels, its image has {width}x{height}")
        if isinstance(counts, list):
            if sum(counts) != height * width:
                raise ValueError(f"its runs cover {sum(counts)} of {height * width} pixels")
            return rle_masks.frPyObjects(rle, height, width)
        if not counts or rle_masks.decode(rle).sum() != rle_masks.area(rle):
            raise ValueError("its compressed run-length encoding is damaged")
        return rle


class _Image(BaseModel):
    id: int
    file_name: Annotated[str, Field(pattern=r"^[^/\\]+\.jpg$")]
    height: PositiveInt
    width: PositiveInt


class _Category(BaseModel):
    id: int
    name: str


class _File(BaseModel):
    images: list[_Image]
    annotations: list[Thing]
    categories: list[_Category]


# ------------------------------------------------------------------------------------ what it says
class Picture(NamedTuple):
    """An image with at least one object that is no crowd, and its annotations in file order."""

    path: Path
    height: int
    width: int
    things: list[Thing]
    labels: Mapping[int, int]  # category id -> id of the class of that name, from 1


Pictures = dict[str, dict[str, Picture]]  # by split and stem


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
        try:
            parsed = _File.model_validate_json(content)
        except ValidationError as error:
            raise _wrong(path, _deepest(error)) from error
        pictures[split] = _pictures(path, parsed, data_root / f"{split}2014", odd)

    # what the two files say together
    _refuse_repeated(folder, "images", [*pictures["train"], *pictures["val"]])
    return pictures, odd, digests


def _pictures(path: Path, parsed: _File, folder: Path, odd: Counter[str]) -> dict[str, Picture]:
    """Stem -> picture of one annotation file; what is odd but harmless is counted in ``odd``."""
    # categories and images, each once
    labels = _labels(path, parsed.categories)
    images = {image.id: image for image in parsed.images}
    _refuse_repeated(path, "image ids", [image.id for image in parsed.images])
    _refuse_repeated(path, "file names", [image.file_name for image in parsed.images])

    # annotations by image
    things: dict[int, list[Thing]] = {image_id: [] for image_id in images}
    for thing in parsed.annotations:
        about = f"annotation {thing.id}:"
        if thing.image_id not in images:
            raise _wrong(path, f"{about} image {thing.image_id} is not among the images")
        if thing.category_id not in labels:
            raise _wrong(path, f"{about} category {thing.category_id} is not among the categories")
        if isinstance(thing.segmentation, _Rle):
            try:
                thing.encoding(images[thing.image_id].height, images[thing.image_id].width)
            except ValueError as error:
                raise _wrong(path, f"{about} {error}") from error
        things[thing.image_id].append(thing)

        # what masks do not show
        short = [polygon for polygon in thing.polygons if len(polygon) < 3]
        hidden = not thing.iscrowd and not thing.has_first_polygon
        odd["crowd regions: background in published masks, 255 in complete ones"] += thing.iscrowd
        odd["objects without a first polygon: left out of published masks"] += hidden
        odd["polygons of less than three points: left out of complete masks"] += len(short)

    # images with an object, and their photos
    stems = {}
    for image in parsed.images:
        if not all(thing.iscrowd for thing in things[image.id]):
            stems[Path(image.file_name).stem] = image
    left_out = "without an object that is no crowd: they get no mask and are in no list"
    odd[f"images of {folder.name} {left_out}"] += len(images) - len(stems)
    if not stems:
        raise _wrong(path, "no image holds an object")
    advice = "Get the images again, or the annotations that fit."
    listing = list_files(folder, (".jpg",), LAYOUT)
    photos = listing.pick(list(stems), f"{path} annotates", advice)
    return {
        stem: Picture(photos[stem], image.height, image.width, things[image.id], labels)
        for stem, image in stems.items()
    }


def _labels(path: Path, categories: list[_Category]) -> dict[int, int]:
    """Category id -> class id, by the name: neither the order of the list nor its ids matter."""
    names = {category.id: category.name for category in categories}
    missing = [name for name in COCO_CLASSES if name not in names.values()]
    if missing or len(categories) != len(COCO_CLASSES):
        first = f", none of its own for {missing[0]!r}" if missing else ""
        raise InputError(
            f"{path}: {len(categories)} categories{first}. Expected the {len(COCO_CLASSES)} of "
            "COCO 2014 by their names, each with an id, since COCO-20i is made of them. For "
            "classes of your own use --dataset folder, with masks made from your annotations."
        )
    return {category_id: COCO_CLASSES.index(name) + 1 for category_id, name in names.items()}


def _refuse_repeated(path: Path, what: str, values: Sequence[int | str]) -> None:
    if repeated := [value for value, times in Counter(values).items() if times > 1]:
        raise _wrong(path, f"{len(repeated)} {what} occur more than once (first: {repeated[0]})")


def _deepest(error: ValidationError) -> str:
    """Where and what the most specific of pydantic's complaints is."""
    worst = max(error.errors(include_url=False), key=lambda found: len(found["loc"]))
    names = [str(part) for part in worst["loc"]]
    where = ".".join(name for name in names if re.fullmatch("[a-z_]+|[0-9]+", name))
    found = f" (found {reprlib.repr(worst['input'])})" if where else ""
    return f"{where or 'the file'}: {worst['msg'].removeprefix('Value error, ')}{found}"


def _wrong(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: {found}. Expected COCO's instances format: correct the file, or get COCO's "
        "annotations again."
    )
