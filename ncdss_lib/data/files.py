"""Images, masks and saliency maps that are files: listed when a data set is opened, read when asked for, each checked as it is read.

:class:`FileData` is all that PASCAL-5i, COCO-20i and a folder of one's own images share. Opening one scans its folders and lists, and
reads no image; the masks are read, and checked, once, by :meth:`FileData.presence`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ncdss_lib.data.base import classes_in
from ncdss_lib.labels import IGNORE
from ncdss_lib.system.errors import InputError, RunError

SALIENCY = "saliency_supervised_model"


class File(NamedTuple):
    """A file, as its folder listed it when the data set was opened."""

    folder: Path
    name: str
    size: int  # bytes
    modified: int  # ns

    @property
    def path(self) -> Path:
        return self.folder / self.name


class FileData:
    """A :class:`~ncdss_lib.data.base.SegmentationData` of files. A data set says which; how they are read is the same for all.

    Args:
        root: the folder of the data set.
        cache_dir: where the class table is kept between runs; None keeps it in memory only.
        train_ids, val_ids: sorted and disjoint.
        images: the photo of every id.
        masks: the mask of every id that has one.
        need_saliency: the training images that ask for a saliency map; single ones may lack it, not all. Empty: nothing is asked.

    Attributes:
        missing_saliency: those of ``need_saliency`` without a map, sorted.

    Raises:
        InputError: when no image of ``need_saliency`` has a map.
    """

    name: str
    classes: tuple[str, ...]
    folds: dict[int, tuple[int, ...]]
    saliency_note = f"saliency maps from {SALIENCY}"
    masks_note: str

    def __init__(
        self, root: Path, cache_dir: Path | None, train_ids: list[str], val_ids: list[str], *,
        images: Mapping[str, File], masks: Mapping[str, File], need_saliency: Sequence[str],
    ) -> None:  # fmt: skip
        self.root, self.cache_dir, self.train_ids, self.val_ids = root, cache_dir, train_ids, val_ids
        maps = list_files(root / SALIENCY, (".png",), "saliency maps, STEM.png").files if (root / SALIENCY).is_dir() else {}
        self.missing_saliency = [i for i in need_saliency if i not in maps]
        if need_saliency and len(self.missing_saliency) == len(need_saliency):
            raise InputError(
                f"{root / SALIENCY} has no map for any of the {len(need_saliency)} training images that need one (first missing: "
                f"{need_saliency[0]}.png). Make the maps with `ncdss prepare saliency --data-root {root}`, or put ready ones there: "
                "one PNG for each image with something salient, named as the image."
            )
        self._images, self._masks = images, masks
        self._maps = {i: maps[i] for i in [*train_ids, *val_ids] if i in maps}

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [H, W, 3]. Raises InputError when the file is truncated."""
        return read_image(self._images[image_id].path)

    def mask(self, image_id: str) -> np.ndarray:
        """Original class ids, uint8 [H, W], 0..len(classes) and 255.

        Raises InputError for an image without a mask, a truncated file, or any other id.
        """
        if not self.has_truth(image_id):
            raise InputError(f"{self.root} holds no mask of {image_id!r}, so there is no truth to read. Add its mask, or leave it out.")
        path, (highest, advice) = self._masks[image_id].path, self._allowed_ids(image_id)
        mask = read_indices(path)
        if unknown := [c for c in classes_in(mask) if c > highest]:
            raise InputError(f"{path} holds label ids {unknown}. Expected 0 (background), 1..{highest} or {IGNORE} (ignore): {advice}.")
        return mask

    def _allowed_ids(self, image_id: str) -> tuple[int, str]:
        """The highest class id that the mask of an image may hold, and what to do when it holds another."""
        return len(self.classes), "write class indices, neither colours nor object numbers"

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Salient pixels, bool [H, W], or None where nothing is salient: MaskContrast writes no file then.

        Files may hold {0, 1}, {0, 255} or soft values 0..255. They are binarised here, once, so that nothing soft is passed on
        (ours; method reference, section 2): above 127, or above 0 where no value exceeds 1.
        """
        if image_id not in self._maps:
            return None
        values = read_indices(self._maps[image_id].path, modes=("P", "L", "1"))
        salient = values > (127 if values.max() > 1 else 0)
        return salient if salient.any() else None

    def has_truth(self, image_id: str) -> bool:
        """Whether :meth:`mask` can be asked for."""
        return image_id in self._masks

    def fingerprint(self) -> str:
        """16 hex digits that change when a list or class name changes, or the name, size or modification time of a listed file."""
        return self._fingerprint

    def images_fingerprint(self) -> str:
        """As :meth:`fingerprint`, of the lists and the photos alone: what features depend on."""
        return self._digest(self._images)

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> sorted original ids of the classes with at least one pixel (0 and 255 left out).

        The first call reads every mask and verifies it; the table is cached in ``cache_dir`` until :meth:`fingerprint` changes.

        Raises:
            InputError: for a mask that :meth:`mask` refuses, or a mask or saliency map that is not the size of its image.
        """
        return self._presence

    @cached_property
    def _fingerprint(self) -> str:
        return self._digest(self._images, self._masks, self._maps, about=(self.masks_note, *self.classes))

    def _digest(self, *kinds: Mapping[str, File], about: tuple[str, ...] = ()) -> str:
        """A hash of the lists and of name, size and time of their files; the place of the data set is no part of it."""
        digest = hashlib.sha256(f"{about}\n".encode())
        for ids in (self.train_ids, self.val_ids):
            for image_id in ids:
                files = [files[image_id][1:] if image_id in files else None for files in kinds]
                digest.update(f"{image_id} {files}\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    @cached_property
    def _presence(self) -> dict[str, tuple[int, ...]]:
        ids = [*self.train_ids, *self.val_ids]
        cache = self.cache_dir / self.name / f"presence-{self._fingerprint}.json" if self.cache_dir else None
        if cache and (known := _read_table(cache)) and list(known) == ids:
            return known
        chunks = [ids[start : start + 64] for start in range(0, len(ids), 64)]  # a task for each mask would be 120,000 of COCO's
        table: dict[str, tuple[int, ...]] = {}
        with ThreadPoolExecutor() as pool, tqdm(desc="reading masks", total=len(ids), unit="mask") as bar:
            for rows in pool.map(lambda chunk: {i: self._verified_classes(i) for i in chunk}, chunks):
                table |= rows
                bar.update(len(rows))
        if cache:
            _write_table(cache, table)
        return table

    def _verified_classes(self, image_id: str) -> tuple[int, ...]:
        """The classes of one image, after comparing the sizes of its files; of photo and map only the headers are read."""
        classes = self._classes_of(image_id)
        image = self._images[image_id].path
        with opened(image) as picture:
            width, height = picture.size
        for path in [files[image_id].path for files in (self._masks, self._maps) if image_id in files]:
            with opened(path) as picture:
                if picture.size != (width, height):
                    raise InputError(
                        f"{path} is {picture.width}x{picture.height} pixels. Expected {width}x{height}, the size of {image}: "
                        "resize it with nearest-neighbour, or restore the file that belongs to the image."
                    )
        return classes

    def _classes_of(self, image_id: str) -> tuple[int, ...]:
        return classes_in(self.mask(image_id))


# ------------------------------------------------------------------------------------------------------------ folders and lists
def data_folder(root: Path | str | None, name: str, layout: str) -> Path:
    """The folder of a data set. Raises InputError, which tells the layout, when none is given or there is none."""
    if root is None:
        raise InputError(f"{name} needs its data folder: give it with --data-root or $NCDSS_DATA_ROOT. Expected {layout}.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Expected {layout}; correct --data-root or $NCDSS_DATA_ROOT.")
    return folder


@dataclass(frozen=True)
class Listing:
    """The files of a folder with one of some suffixes, by stem.

    Attributes:
        suffixes: lower case; files may have them in either case. The first is named where a file is missing.
    """

    folder: Path
    suffixes: tuple[str, ...]
    files: dict[str, File]

    def pick(self, ids: Sequence[str], named: str, advice: str = "Add the files, or take these ids off the list.") -> dict[str, File]:
        """The file of each id.

        Args:
            named: who names the ids, for the message: "PATH lists", "PATH holds".
            advice: what to do about missing files.

        Raises:
            InputError: when there is none for some ids.
        """
        if missing := [i for i in ids if i not in self.files]:
            raise InputError(
                f"{named} {len(ids)} images, but {self.folder} has no file for {len(missing)} of them "
                f"(first missing: {missing[0]}{self.suffixes[0]}). {advice}"
            )
        return {i: self.files[i] for i in ids}


def list_files(folder: Path, suffixes: tuple[str, ...], expected: str) -> Listing:
    """List a folder; hidden files are left out.

    Args:
        expected: the layout that the message tells when the folder cannot be read.

    Raises:
        InputError: when the folder cannot be read, or two files have the same stem.
    """
    files: dict[str, File] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if stem.startswith(".") or suffix.lower() not in suffixes or not entry.is_file():
                    continue
                if stem in files:
                    names = sorted((files[stem].name, entry.name))
                    raise InputError(
                        f"{folder} holds {names[0]} and {names[1]}. Expected one file of a name: rename or remove one of them."
                    )
                files[stem] = File(folder, entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}). Expected {expected}; add the folder, or correct --data-root."
        ) from error
    return Listing(folder, suffixes, files)


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, stripped; a byte-order mark is dropped. Raises InputError when the file cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Expected {expected}: add the list.") from error


def read_list(path: Path, example: str) -> list[str]:
    """The ids of a list, sorted: one a line, in any order, blank lines left out.

    Raises:
        InputError: when the list cannot be read, is empty or names an id twice.
    """
    ids = sorted(line for line in read_lines(path, "one image id a line") if line)
    if not ids:
        raise InputError(f"{path} is empty. Expected one image id a line, e.g. {example}: fill the list.")
    if repeated := [i for i, times in Counter(ids).items() if times > 1]:
        raise InputError(f"{path} names {len(repeated)} ids more than once (first: {repeated[0]}). Keep one line for each.")
    return ids


def refuse_shared(
    some: Sequence[str], others: Sequence[str], where: str,
    advice: str = "Validation images must not be trained on: take them off one of the lists.",
) -> None:  # fmt: skip
    """Raise InputError when two lists of ids, found at ``where`` ("A and B"), share one."""
    if both := sorted(set(some) & set(others)):
        raise InputError(f"{where} share {len(both)} ids (first: {both[0]}). {advice}")


# ------------------------------------------------------------------------------------------------------------------- pictures
@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file (Pillow reads only the header); whatever fails, here or while decoding, is an InputError that names it."""
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({reason}). Expected a complete {path.suffix[1:].upper()} file: copy or download it again."
        ) from error


def read_image(path: Path) -> np.ndarray:
    """Decode a picture completely, to RGB, uint8 [H, W, 3]. Raises InputError."""
    with opened(path) as picture:
        return np.array(picture.convert("RGB"))


def read_indices(path: Path, modes: tuple[str, ...] = ("P", "L")) -> np.ndarray:
    """Decode a PNG of indices completely, to uint8 [H, W]; a palette is not applied.

    Args:
        modes: the PIL modes that the file may have.

    Raises:
        InputError: for another mode, or a file that cannot be decoded.
    """
    with opened(path) as picture:
        if picture.mode not in modes:
            raise InputError(
                f"{path} is a picture of mode {picture.mode}. Expected an 8-bit palette or grey PNG, one index a pixel: convert it."
            )
        return np.array(picture, dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------------ the class table
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
