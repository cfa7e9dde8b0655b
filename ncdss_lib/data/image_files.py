"""Folders of pictures and lists of ids: found, read and checked, each with an error that helps.

Nothing here knows of classes or data sets; see :mod:`ncdss_lib.data.masks` for masks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ncdss_lib.system.errors import InputError

PHOTOS = (".jpg", ".jpeg", ".png")
CHUNK = 64  # a task for each image would be 120,000 of COCO's

Item = TypeVar("Item")
Result = TypeVar("Result")


# --------------------------------------------------------------------------------------- pictures
@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; Pillow reads only its header until pixels are asked for.

    Raises:
        InputError: that names the file, whatever fails, here or while the caller decodes it.
    """
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        kind = path.suffix[1:].upper()
        raise InputError(
            f"{path} cannot be read ({reason}). Expected a complete {kind} file: copy or download "
            "it again."
        ) from error


def read_image(path: Path) -> np.ndarray:
    """Decode a picture completely, to RGB, uint8 [H, W, 3]. Raises InputError."""
    with opened(path) as picture:
        return np.array(picture.convert("RGB"))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header of a picture. Raises InputError."""
    with opened(path) as picture:
        return picture.size


def check_size(
    path: Path, size: tuple[int, int], expected: tuple[int, int], image: Path, advice: str
) -> None:
    """Compare width and height of a mask or map with those of its image.

    Args:
        advice: what to do where they differ.

    Raises:
        InputError: where they do.
    """
    if size != expected:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} pixels. Expected {expected[0]}x{expected[1]}, the "
            f"size of {image}: {advice}."
        )


# ------------------------------------------------------------------------------ folders and lists
def data_folder(root: Path | str | None, name: str, layout: str) -> Path:
    """The folder of the data set ``name``.

    Raises:
        InputError: that tells the layout, when no folder is given or there is none.
    """
    if root is None:
        raise InputError(
            f"{name} needs its data folder: give it with --data-root or $NCDSS_DATA_ROOT. "
            f"Expected {layout}."
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder. Expected {layout}; correct --data-root or $NCDSS_DATA_ROOT."
        )
    return folder


@dataclass(frozen=True)
class Listing:
    """The files of a folder with one of some suffixes, by stem.

    Attributes:
        suffix: the first of them, which is named where a file is missing.
    """

    folder: Path
    suffix: str
    files: dict[str, Path]

    def pick(
        self,
        ids: Sequence[str],
        named: str,
        advice: str = "Add the files, or take these ids off the list.",
    ) -> dict[str, Path]:
        """The file of each id.

        Args:
            named: who names the ids, for the message: "PATH lists", "PATH holds".
            advice: what to do about missing files.

        Raises:
            InputError: when there is none for some ids.
        """
        if missing := [i for i in ids if i not in self.files]:
            raise InputError(
                f"{named} {len(ids)} images, but {self.folder} has no file for {len(missing)} of "
                f"them (first missing: {missing[0]}{self.suffix}). {advice}"
            )
        return {i: self.files[i] for i in ids}


def list_files(folder: Path, suffixes: tuple[str, ...], expected: str) -> Listing:
    """List a folder; hidden files are left out.

    Args:
        suffixes: in lower case; files may have them in either case.
        expected: the layout that the message tells when the folder cannot be read.

    Raises:
        InputError: when the folder cannot be read, or two files have the same stem.
    """
    files: dict[str, Path] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if path.stem.startswith(".") or path.suffix.lower() not in suffixes:
                    continue
                if not entry.is_file():
                    continue
                if path.stem in files:
                    first, second = sorted((files[path.stem].name, path.name))
                    raise InputError(
                        f"{folder} holds {first} and {second}. Expected one file of a name: "
                        "rename or remove one of them."
                    )
                files[path.stem] = path
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}). Expected {expected}; add the "
            "folder, or correct --data-root."
        ) from error
    return Listing(folder, suffixes[0], files)


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, stripped, without a byte-order mark. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Expected {expected}: add the list."
        ) from error
    return [line.strip() for line in text.splitlines()]


def read_list(path: Path, example: str) -> list[str]:
    """The ids of a list, sorted: one a line, in any order, blank lines left out.

    Raises:
        InputError: when the list cannot be read, is empty or names an id twice.
    """
    ids = sorted(line for line in read_lines(path, "one image id a line") if line)
    if not ids:
        raise InputError(
            f"{path} is empty. Expected one image id a line, e.g. {example}: fill the list."
        )
    if repeated := [i for i, times in Counter(ids).items() if times > 1]:
        raise InputError(
            f"{path} names {len(repeated)} ids more than once (first: {repeated[0]}). Keep one "
            "line for each."
        )
    return ids


def write_list(path: Path, ids: Sequence[str]) -> None:
    """Write ids, one a line, as :func:`read_list` reads them; the folder is made where absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{i}\n" for i in ids))


def refuse_shared(
    some: Sequence[str],
    others: Sequence[str],
    where: str,
    advice: str = "Validation images must not be trained on: take them off one of the lists.",
) -> None:
    """Raise InputError when two lists of ids, found at ``where`` ("A and B"), share one."""
    if both := sorted(set(some) & set(others)):
        raise InputError(f"{where} share {len(both)} ids (first: {both[0]}). {advice}")


# ------------------------------------------------------------------------------ writing, and speed
def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], text: str
) -> list[Result]:
    """``function`` of each item, in order; the first error stops the rest.

    Args:
        text: what the progress bar says.
    """

    def of_chunk(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + CHUNK]]

    results: list[Result] = []
    with ThreadPoolExecutor() as pool, tqdm(desc=text, total=len(items), unit="image") as bar:
        for some in pool.map(of_chunk, range(0, len(items), CHUNK)):
            results += some
            bar.update(len(some))
    return results
