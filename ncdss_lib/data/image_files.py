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
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from ncdss_lib.system.errors import InputError, NCDSSError
from ncdss_lib.system.folders import MANIFEST, whole_file

PHOTOS = (".jpg", ".jpeg", ".png")
#: PIL modes of 8 bits a channel; Pillow itself scales 16-bit colour to these by its range.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
ORIENTATION = 0x0112  # the EXIF tag of a picture that is stored turned; 1: upright
SIDEWAYS = (5, 6, 7, 8)  # its values for a quarter turn
OURS = (MANIFEST, "maps.csv")  # what this program itself leaves among pictures
CHUNK = 64  # a task for each image would be 120,000 of COCO's

Item = TypeVar("Item")
Result = TypeVar("Result")


# --------------------------------------------------------------------------------------- pictures
@contextmanager
def opened(path: Path, modes: Sequence[str] = MODES) -> Iterator[Image.Image]:
    """Open a picture file; Pillow reads only its header until pixels are asked for.

    Args:
        modes: the PIL modes that it may have; without others, 8 bits a channel.

    Raises:
        InputError: that names the file, whatever fails, here or while the caller decodes it; for
            another mode; for an animation or several pages, of which only one would be seen.
    """
    try:
        with Image.open(path) as picture:
            _check_kind(path, picture, modes)
            yield picture
    except NCDSSError:
        raise
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(
            f"{path} has too many pixels to be read into memory. Expected at most {most:,}: scale "
            "it down."
        ) from error
    except Exception as error:  # Pillow meets damaged files with errors of any kind
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image"
        raise InputError(
            f"{path} cannot be read ({reason}). Expected a complete {path.suffix[1:].upper()} "
            "file: copy or download it again."
        ) from error


def _check_kind(path: Path, picture: Image.Image, modes: Sequence[str]) -> None:
    # grey of 2 or 4 bits, which Pillow stretches to 0..255: class 1 would be class 17
    packed = any(tile[3] in ("L;2", "L;4") for tile in getattr(picture, "tile", ()))
    if picture.mode not in modes or (packed and modes is not MODES):
        expected = "one channel, an 8-bit palette or grey PNG: convert it"
        if modes is MODES:
            expected = (
                "8 bits a channel, grey or colour, not 16-bit grey or floating-point values: scale "
                "them to 0..255"
            )
        bits = " with less than 8 bits a pixel" if packed else ""
        raise InputError(f"{path} is a picture of mode {picture.mode}{bits}. Expected {expected}.")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a photo with previews, as some cameras write it
        raise InputError(
            f"{path} holds {frames} pictures (an animation, or pages). Expected one: save the one "
            "that is meant."
        )


def read_picture(path: Path, modes: Sequence[str] = MODES) -> Image.Image:
    """Decode a picture completely, and turn it upright: the rule of all readers.

    Photos, masks and maps are read as a viewer shows them, turned by their EXIF orientation. Raises
    InputError as :func:`opened`.
    """
    with opened(path, modes) as picture:
        return ImageOps.exif_transpose(picture)


def read_image(path: Path) -> np.ndarray:
    """A photo, RGB, uint8 [H, W, 3]; transparent pixels keep their colour. Raises InputError."""
    picture = read_picture(path)
    picture.info.pop("transparency", None)
    return np.array(picture.convert("RGB"))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as :func:`read_picture` gives it. Raises InputError."""
    with opened(path) as picture:
        width, height = picture.size
        sideways = picture.getexif().get(ORIENTATION, 1) in SIDEWAYS
        return (height, width) if sideways else (width, height)


def check_size(
    path: Path, size: tuple[int, ...], expected: tuple[int, int], of: Path | str, advice: str
) -> None:
    """Compare width and height of a picture with those that it must have.

    Args:
        of: what has the expected size.
        advice: what to do where they differ.

    Raises:
        InputError: where they do.
    """
    if size != expected:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} pixels. Expected {expected[0]}x{expected[1]}, the "
            f"size of {of}: {advice}."
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
        note: a line that says what else is in the folder, where there is anything else.
    """

    folder: Path
    suffix: str
    files: dict[str, Path]
    note: list[str]

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
    left_out: Counter[str] = Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if path.stem.startswith(".") or path.name in OURS:
                    continue
                if entry.is_dir():
                    left_out["subfolders"] += 1
                elif not entry.is_file():
                    left_out["links that lead nowhere"] += 1
                elif path.suffix.lower() not in suffixes:
                    left_out["files of other formats"] += 1
                else:
                    _add(files, path)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}). Expected {expected}; add the "
            "folder, or correct --data-root."
        ) from error
    counts = ", ".join(f"{kind} ({number})" for kind, number in left_out.items())
    note = [f"{folder}: left out {counts}"] if counts else []
    return Listing(folder, suffixes[0], files, note)


def _add(files: dict[str, Path], path: Path) -> None:
    """Add a file to a listing by its stem, which is then an id."""
    if os.fsencode(path.name).decode(errors="replace") != path.name:
        raise InputError(
            f"{path.parent} holds a file whose name is not UTF-8 ({path.name!a}). Names are ids, "
            "which go into lists and tables: rename it."
        )
    if path.stem in files:
        first, second = sorted((files[path.stem].name, path.name))
        raise InputError(
            f"{path.parent} holds {first} and {second}. Expected one file of a name: rename or "
            "remove one of them."
        )
    files[path.stem] = path


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, stripped: UTF-8, with or without a byte-order mark.

    Raises:
        InputError: when it cannot be read, or is in another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Expected {expected}: add the list."
        ) from error
    lines = [line.strip() for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        if "\ufffd" in line or "\0" in line:
            raise InputError(
                f"{path}: line {number} is not UTF-8 but perhaps Latin-1 or UTF-16 ({line!a:.60}). "
                "Open the file in an editor and save it with the encoding UTF-8."
            )
    return lines


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
    """Write ids, one a line, as :func:`read_list` reads them; whole, or not at all."""
    with whole_file(path) as draft:
        draft.write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")


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
