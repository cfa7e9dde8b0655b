"""PASCAL-5i from the VOCSegmentation folder layout: the full data set, or any subset of it that keeps the layout.

::

    ROOT/images/ID.jpg                        photos
    ROOT/SegmentationClassAug/ID.png          class ids 0..20, 255 = ignore; a palette or grey PNG
    ROOT/saliency_supervised_model/ID.png     saliency map; no file where nothing is salient
    ROOT/sets/trainaug.txt, sets/val.txt      one image id a line

The lists of a fold are not read: ``make_splits`` regenerates them from the masks (method reference, section 1.1).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ncdss_lib.data.base import classes_in
from ncdss_lib.errors import InputError, RunError
from ncdss_lib.labels import IGNORE

VOC_CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

#: Fold -> original ids of its novel classes. Fold 4, the animals, was released with the lists; no published result uses it.
FOLDS: dict[int, tuple[int, ...]] = {fold: tuple(range(5 * fold + 1, 5 * fold + 6)) for fold in range(4)} | {4: (8, 10, 12, 13, 17)}

IMAGES, MASKS, SALIENCY = "images", "SegmentationClassAug", "saliency_supervised_model"
SUFFIX = {IMAGES: ".jpg", MASKS: ".png", SALIENCY: ".png"}
LAYOUT = f"the VOCSegmentation layout: {IMAGES}/, {MASKS}/, {SALIENCY}/, sets/trainaug.txt, sets/val.txt"


class Pascal5i:
    """PASCAL VOC images with masks and saliency maps on disk; a :class:`~ncdss_lib.data.base.SegmentationData`.

    Opening lists the folders and reads no image. The masks are read, and checked, once, by :meth:`presence`.

    Args:
        root: the folder that holds ``images`` and its neighbours.
        cache_dir: where the class table is kept between runs; ``None`` keeps it in memory only.

    Attributes:
        missing_saliency: training images without a saliency map, sorted.

    Raises:
        InputError: when a folder or list is missing, or a list is empty, repeats an id or names a file that is not there.
    """

    name = "pascal5i"
    classes = VOC_CLASSES
    folds = FOLDS
    saliency_note = f"saliency maps from {SALIENCY}"

    def __init__(self, root: Path | str | None, cache_dir: Path | None) -> None:
        if root is None:
            raise InputError(f"{self.name} needs its data folder: give it with --data-root or $NCDSS_DATA_ROOT. Expected {LAYOUT}.")
        self.root, self.cache_dir = Path(root).expanduser(), cache_dir
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder. Expected {LAYOUT}; correct --data-root or $NCDSS_DATA_ROOT.")
        self._files = {folder: _list_files(self.root / folder) for folder in SUFFIX}
        self.train_ids = self._read_list("trainaug")
        self.val_ids = self._read_list("val")
        if both := sorted(set(self.train_ids) & set(self.val_ids)):
            raise InputError(
                f"{self.root / 'sets'}: trainaug.txt and val.txt share {len(both)} ids (first: {both[0]}). "
                "Validation images must not be trained on: remove them from one of the lists."
            )
        self.missing_saliency = [i for i in self.train_ids if not self._has(SALIENCY, i)]
        if len(self.missing_saliency) == len(self.train_ids):
            raise InputError(
                f"{self.root / SALIENCY} has no map for any of the {len(self.train_ids)} training images of sets/trainaug.txt "
                f"(first missing: {self.train_ids[0]}.png). Expected ID.png for each image with something salient: put the maps there."
            )

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [H, W, 3]. Raises InputError when the file is truncated."""
        return _pixels(self._path(IMAGES, image_id))

    def mask(self, image_id: str) -> np.ndarray:
        """Original class ids, uint8 [H, W], 0..20 and 255. Raises InputError for a truncated file or any other id."""
        path = self._path(MASKS, image_id)
        mask = _pixels(path, index_modes=("P", "L"))
        if unknown := [c for c in classes_in(mask) if c > len(VOC_CLASSES)]:
            raise InputError(
                f"{path} holds label ids {unknown}. Expected 0 (background), 1..{len(VOC_CLASSES)} or {IGNORE} (ignore): "
                "write class indices, neither colours nor object numbers."
            )
        return mask

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Salient pixels, bool [H, W], or None where nothing is salient: MaskContrast writes no file then.

        Files may hold {0, 1}, {0, 255} or soft values 0..255. They are binarised here, once, so that nothing soft is passed on
        (ours; section 2): above 127, or above 0 where no value exceeds 1.
        """
        if not self._has(SALIENCY, image_id):
            return None
        values = _pixels(self._path(SALIENCY, image_id), index_modes=("P", "L", "1"))
        salient = values > (127 if values.max() > 1 else 0)
        return salient if salient.any() else None

    def fingerprint(self) -> str:
        """16 hex digits that change when a list changes, or the name, size or modification time of a listed file."""
        return self._fingerprint

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> sorted original ids of the classes with at least one pixel (0 and 255 left out).

        The first call reads every mask and verifies it; the table is cached in ``cache_dir`` until :meth:`fingerprint` changes.

        Raises:
            InputError: for a mask that :meth:`mask` refuses, or a mask or saliency map that is not the size of its image.
        """
        return self._presence

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for ids in (self.train_ids, self.val_ids):
            for image_id in ids:
                stats = [self._files[folder].get(image_id + suffix) for folder, suffix in SUFFIX.items()]
                digest.update(f"{image_id} {stats}\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    @cached_property
    def _presence(self) -> dict[str, tuple[int, ...]]:
        ids = [*self.train_ids, *self.val_ids]
        cache = self.cache_dir / self.name / f"presence-{self._fingerprint}.json" if self.cache_dir else None
        if cache and (table := _read_table(cache)) and list(table) == ids:
            return table
        with ThreadPoolExecutor() as pool:
            rows = pool.map(self._verified_classes, ids)
            table = dict(zip(ids, tqdm(rows, desc="reading masks", total=len(ids), unit="mask"), strict=True))
        if cache:
            _write_table(cache, table)
        return table

    def _verified_classes(self, image_id: str) -> tuple[int, ...]:
        """The classes of one image, after comparing the sizes of its files; of image and saliency map only the headers are read."""
        classes = classes_in(self.mask(image_id))
        image, *maps = [self._path(folder, image_id) for folder in SUFFIX if self._has(folder, image_id)]
        with _opened(image) as picture:
            width, height = picture.size
        for path in maps:
            with _opened(path) as picture:
                if picture.size != (width, height):
                    raise InputError(
                        f"{path} is {picture.width}x{picture.height} pixels. Expected {width}x{height}, the size of {image}: "
                        "resize it with nearest-neighbour, or restore the file that belongs to the image."
                    )
        return classes

    def _path(self, folder: str, image_id: str) -> Path:
        return self.root / folder / (image_id + SUFFIX[folder])

    def _has(self, folder: str, image_id: str) -> bool:
        return image_id + SUFFIX[folder] in self._files[folder]

    def _read_list(self, name: str) -> list[str]:
        """The sorted ids of ``sets/NAME.txt``, each with an image and a mask."""
        path = self.root / "sets" / f"{name}.txt"
        try:
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}). Expected one image id a line: add the list.") from error
        ids = sorted(line.strip() for line in lines if line.strip())
        if not ids:
            raise InputError(f"{path} is empty. Expected one image id a line, e.g. 2007_000032: fill the list.")
        if repeated := [i for i, times in Counter(ids).items() if times > 1]:
            raise InputError(f"{path} names {len(repeated)} ids more than once (first: {repeated[0]}). Keep one line for each.")
        for folder in (IMAGES, MASKS):
            if missing := [i for i in ids if not self._has(folder, i)]:
                raise InputError(
                    f"{path} lists {len(ids)} images, but {self.root / folder} has no file for {len(missing)} of them "
                    f"(first missing: {missing[0]}{SUFFIX[folder]}). Add the files, or take these ids off the list."
                )
        return ids


def published_counts(fold: int) -> dict[str, int]:
    """Images in the lists of the released code (method reference, section 1.1), to compare a full VOC with; 10,582 for training.

    ``base`` has no novel class. ``base_train`` has a base class, and ``base_train_and_novel`` of these a novel class too;
    ``base_val`` are the validation images with a base class. The released ``base.txt`` of fold 4 is its ``base_train`` list.
    """
    rows = {
        0: (2836, 7746, 8829, 1083, 1165),
        1: (3604, 6978, 8713, 1735, 1194),
        2: (5542, 5040, 7679, 2639, 1129),
        3: (2145, 8437, 9568, 1131, 1240),
        4: (3131, 7451, 8309, 858, 1125),
    }
    return dict(zip(("novel", "base", "base_train", "base_train_and_novel", "base_val"), rows[fold], strict=True))


def _list_files(folder: Path) -> dict[str, tuple[int, int]]:
    """File name -> (size in bytes, modification time in ns) of everything in a folder."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: (e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.is_file()}
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}). Expected {LAYOUT}; add the folder, or correct --data-root."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file (Pillow reads only the header); whatever fails, here or while decoding, is an InputError that names it."""
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({reason}). Expected a complete {path.suffix[1:].upper()} file: copy or download it again."
        ) from error


def _pixels(path: Path, index_modes: tuple[str, ...] = ()) -> np.ndarray:
    """Decode a file completely: to uint8 RGB [H, W, 3], or, given the PIL modes it may have, to uint8 indices [H, W]."""
    with _opened(path) as picture:
        if index_modes and picture.mode not in index_modes:
            raise InputError(
                f"{path} is a picture of mode {picture.mode}. Expected an 8-bit palette or grey PNG, one index a pixel: convert it."
            )
        return np.array(picture if index_modes else picture.convert("RGB"), dtype=np.uint8)


def _read_table(path: Path) -> dict[str, tuple[int, ...]] | None:
    """A cached class table, or None when there is no usable one."""
    try:
        return {image_id: tuple(classes) for image_id, classes in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write_table(path: Path, table: dict[str, tuple[int, ...]]) -> None:
    """Write a class table so that it appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(table))
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error.strerror}). Free some space, or choose another cache folder.") from error
