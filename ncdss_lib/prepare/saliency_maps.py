"""Saliency maps as MaskContrast makes them, for any folder of pictures: ``ncdss prepare saliency``.

::

    a picture -> soft map of a network, or a ready one -> above the threshold
              -> without small components -> STEM.png of {0, 1}

and no file where nothing is salient. Novel images without a file take no part in the training, so
this decides what is discovered.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from ncdss_lib.data.file_dataset import SALIENCY
from ncdss_lib.data.image_files import (
    PHOTOS,
    check_size,
    in_threads,
    list_files,
    read_image,
    read_picture,
)
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels
from ncdss_lib.prepare import refuse_read_only
from ncdss_lib.prepare.saliency_networks import load_model
from ncdss_lib.system import folders
from ncdss_lib.system.errors import InputError

MAKER = "ncdss prepare saliency"
ROWS = "maps.csv"
TRUTH = ("SegmentationClassAug", "masks_complete", "masks_published", "masks")
TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8"}
MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


class Row(NamedTuple):
    """What is known of a finished image: one line of ``maps.csv``."""

    share: float  # of the image's pixels that are salient; 0: there is no file
    source: str  # SHA-256 of what the map was made from


Rows = dict[str, Row]  # by stem
Paths = Mapping[str, Path]  # by stem


def prepare(
    data_root: Path,
    *,
    images: Path | None = None,
    out: Path | None = None,
    model: str = "u2netp",
    maps: Path | None = None,
    threshold: float = 0.5,
    min_area: float = 0.01,
) -> str:
    """Write a saliency map for each picture in which something is salient.

    Every input is decoded before the first map is made. The maps appear all at once; what an
    interrupted attempt finished is kept for the next, and so is what an earlier one made of the
    same pictures with the same settings.

    Args:
        data_root: folder of the data set, or of plain pictures.
        images: where the pictures are. Default: ``unlabelled`` (your own images), ``train2014``
            (COCO-20i) or ``images`` (PASCAL-5i) of ``data_root``, else ``data_root`` itself.
        out: folder of the maps. Default: ``data_root/saliency_supervised_model``.
        model: ``u2netp``, or with rembg installed one of its models.
        maps: folder of ready maps, STEM.png, taken instead of a model's (:func:`read_map`).
        threshold, min_area: see :func:`salient_pixels`.

    Returns:
        A summary in Markdown.

    Raises:
        InputError: for wrong options, a file that cannot be read or has another size than its
            picture, or an ``out`` that holds files of somebody else. Nothing was written.
        RunError: when a model cannot be had, or the maps cannot be written.
    """
    # the options, and all that goes in
    data_root = _folder(data_root, "--data-root")
    images = _folder(images or _pictures_of(data_root), "--images")
    out = Path(out or data_root / SALIENCY).expanduser().absolute()
    _check_options(model, maps, threshold, min_area)
    listing = list_files(images, PHOTOS, "pictures")
    pictures = dict(sorted(listing.files.items()))
    if not pictures:
        expected = "Expected .jpg, .jpeg or .png files"
        raise InputError(f"{images} holds no picture. {expected}: correct --data-root or --images.")
    ready = _ready_maps(maps, images, pictures) if maps else {}
    truth = _truth(data_root, images, pictures)
    _refuse_foreign_files(out)

    def digest_of(stem: str) -> str:
        return _verified_digest(pictures[stem], ready.get(stem), truth.get(stem))

    digests = in_threads(digest_of, list(pictures), "checking pictures")
    sources = dict(zip(pictures, digests, strict=True))

    # the maps, unless they are there
    settings = {
        "model": "ready maps" if maps else model,
        "threshold": threshold,
        "min_area": min_area,
    }
    with folders.one_at_a_time(out.parent, out.name):
        rows = _rows(out) if folders.manifest(out).get("settings") == settings else {}
        kept = len(sources)
        if {stem: row.source for stem, row in rows.items()} != sources:
            refuse_read_only(out)
            refuse_read_only(out.parent)
            soft_map = _ready(ready) if maps else _of_network(model, pictures)
            with folders.disk_errors("the saliency maps", out):
                rows, kept = _make(out, settings, sources, soft_map, earlier=rows)

    # what to tell of them
    found = [row.share for row in rows.values() if row.share > 0]
    nothing = f"nothing salient over {min_area:.2%} of the image"
    table = {
        "pictures": f"{len(rows)}, from {images}",
        "maps": f"{len(found)}, in {out}",
        "without a map": f"{len(rows) - len(found)}: {nothing}",
        "made from": f"{len(ready)} ready maps in {maps}" if maps else model,
        "threshold": f"above {threshold:g}",
        "kept from before": kept,
        "salient share of an image": f"mean {sum(found) / len(rows):.1%}",
    }
    if maps and len(ready) < len(rows):
        lacking = len(rows) - len(ready)
        table["pictures without a ready map"] = f"{lacking}: taken as nothing salient"
    if listing.note:
        table["not read"] = listing.note[0]
    if truth:
        ious = [agreement(out / f"{stem}.png", path) for stem, path in truth.items()]
        folder = next(iter(truth.values())).parent.name
        scores = f"mean {np.mean(ious):.3f}, median {np.median(ious):.3f}"
        table[f"foreground IoU with {folder}"] = f"{scores} over {len(ious)} images"
    lines = [f"| {name} | {value} |" for name, value in table.items()]
    return "\n".join(["| saliency maps | |", "|---|---|", *lines])


def salient_pixels(soft: np.ndarray, threshold: float = 0.5, min_area: float = 0.01) -> np.ndarray:
    """Binarise a soft map and remove small components, bool [H, W]: MaskContrast's rule.

    Args:
        soft: saliency, float [H, W] in 0..1. Above ``threshold`` (strictly) is salient.
        min_area: share of the image. Components whose outline, filled, is smaller are removed; so
            is all, when less remains. What lies in the hole of a component is inside its outline,
            and shares its fate.
    """
    salient = soft > threshold
    filled = ndimage.binary_fill_holes(salient)
    component, _ = ndimage.label(filled, structure=np.ones((3, 3)))
    large = np.bincount(component.ravel()) >= min_area * salient.size
    salient &= large[component]
    return salient if salient.sum() >= min_area * salient.size else np.zeros_like(salient)


def foreground_iou(some: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boolean arrays of one shape; 1 where both are empty."""
    union = np.count_nonzero(some | other)
    return np.count_nonzero(some & other) / union if union else 1.0


def agreement(saliency_map: Path, mask: Path) -> float:
    """Foreground IoU of a map, or of none, with a mask of class ids; pixels of 255 are left out.

    Raises:
        InputError: for a file that cannot be read.
    """
    truth = read_labels(mask)
    known = truth != IGNORE
    salient = np.zeros_like(known)
    if saliency_map.is_file():
        salient = read_labels(saliency_map) > 0
    return foreground_iou(salient[known], truth[known] > 0)


def read_map(path: Path) -> np.ndarray:
    """A ready saliency map, float32 [H, W] in 0..1.

    A map without a value above 1 is binary, as MaskContrast's are. Any other is soft: 0..255, or
    0..65535 with 16 bits a pixel, and is divided by its range; {0, 255} is the case with two
    values. The indices of a palette are its values.

    Raises:
        InputError: for a file that cannot be read, or has more than one channel.
    """
    values = np.array(read_picture(path, MAP_MODES))
    span = 255 if values.itemsize == 1 else 65535
    if values.max() > span:
        raise InputError(
            f"{path} holds values up to {values.max():,}. Expected 0..255 or 0..65535: scale them."
        )
    return (values if values.max() <= 1 else values / span).astype(np.float32)


# ---------------------------------------------------------------------------------- what goes in
def _verified_digest(image: Path, ready: Path | None, truth: Path | None) -> str:
    """SHA-256 of what a map is made from; every file of the picture is decoded.

    Raises:
        InputError: for a file that cannot be read, or is not of the picture's size.
    """
    height, width = read_image(image).shape[:2]
    advice = "restore the file that belongs to the picture, or resize it"
    for path, read in ((ready, read_map), (truth, read_labels)):
        if path:
            check_size(path, read(path).shape[::-1], (width, height), image, advice)
    parts = [path.read_bytes() for path in (image, ready) if path]
    digests = [hashlib.sha256(part).digest() for part in parts]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _of_network(model: str, pictures: Paths) -> Callable[[str], np.ndarray]:
    """What gives the soft map of a picture by its stem, float32 [H, W] in 0..1."""
    network = load_model(model)
    return lambda stem: network(Image.fromarray(read_image(pictures[stem])))


def _ready(maps: Paths) -> Callable[[str], np.ndarray]:
    """The same of ready maps; where there is none, nothing is salient."""
    nothing = np.zeros((1, 1), np.float32)
    return lambda stem: read_map(maps[stem]) if stem in maps else nothing


def _folder(path: Path, option: str) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise InputError(f"{path} is not a folder. Expected one with pictures: correct {option}.")
    return path


def _pictures_of(data_root: Path) -> Path:
    """The training pictures of a data set; of your own images, those without labels."""
    for name in ("unlabelled", "train2014", "images"):
        if (data_root / name).is_dir():
            return data_root / name
    return data_root


def _check_options(model: str, maps: Path | None, threshold: float, min_area: float) -> None:
    for option, value in (("--threshold", threshold), ("--min-area", min_area)):
        if not 0 <= value < 1:
            raise InputError(
                f"{option} is {value}. Expected a fraction, at least 0 and below 1: the published "
                "maps have 0.5 and 0.01."
            )
    if maps and model != "u2netp":
        raise InputError(
            f"--model {model} and --maps {maps} exclude each other: maps are made, or ready. Leave "
            "one out."
        )


def _ready_maps(maps: Path, images: Path, pictures: Paths) -> dict[str, Path]:
    """The ready maps that belong to a picture."""
    ready = _pngs_of(pictures, _folder(maps, "--maps"))
    if not ready:
        raise InputError(
            f"no file in {maps} has the name of one of the {len(pictures)} pictures in {images} "
            f"(first: {min(pictures.values()).name}). Expected a PNG with the stem of its picture: "
            "rename the maps, or correct --maps or --images."
        )
    return ready


def _truth(data_root: Path, images: Path, pictures: Paths) -> dict[str, Path]:
    """Masks of the pictures. ``unlabelled`` ones have none, even where stems are the same."""
    for name in TRUTH:
        if images.name != "unlabelled" and (data_root / name).is_dir():
            return _pngs_of(pictures, data_root / name)
    return {}


def _pngs_of(pictures: Paths, folder: Path) -> dict[str, Path]:
    """The PNGs with the stem of a picture."""
    files = list_files(folder, (".png",), "one PNG for each picture, STEM.png").files
    return {stem: files[stem] for stem in pictures if stem in files}


# --------------------------------------------------------------------------------- what comes out
def _make(
    out: Path,
    settings: dict[str, Any],
    sources: dict[str, str],
    soft_map: Callable[[str], np.ndarray],
    *,
    earlier: Rows,
) -> tuple[Rows, int]:
    """Write the maps into a partial folder and give it its name.

    Args:
        earlier: the rows in ``out`` that were made with the same settings.

    Returns:
        A row for each image, and how many had been finished before.
    """
    # what an interrupted attempt finished, then what is in the folder
    partial = folders.partial_folder(out, folders.fingerprint(settings))
    rows = _still_valid(_rows(partial), sources)
    for path in partial.glob("*.png"):
        if path.stem not in rows:
            path.unlink()
    for stem, row in _still_valid(earlier, sources).items():
        if stem not in rows:
            rows[stem] = row
            if row.share:
                shutil.copyfile(out / f"{stem}.png", partial / f"{stem}.png")
    kept = len(rows)

    # the others, each written down when it is finished
    missing = [stem for stem in sources if stem not in rows]
    bar = tqdm(missing, "saliency maps", initial=kept, total=len(sources), unit="image")
    with (partial / ROWS).open("a", **TEXT) as log:
        log.write("\n")  # after a line that was cut
        for stem in bar:
            mask = salient_pixels(soft_map(stem), settings["threshold"], settings["min_area"])
            if mask.any():
                Image.fromarray(mask.astype(np.uint8)).save(partial / f"{stem}.png")
            rows[stem] = Row(float(mask.mean()), sources[stem])
            csv.writer(log).writerow((stem, *rows[stem]))
            log.flush()
    with folders.whole_file(partial / ROWS) as draft, draft.open("w", **TEXT) as table:
        csv.writer(table).writerows((stem, *rows[stem]) for stem in sources)
    about = {"maker": MAKER, "settings": settings, "images": len(rows)}
    folders.commit_folder(partial, out, {**about, "fingerprint": folders.fingerprint(sources)})
    return rows, kept


def _rows(folder: Path) -> Rows:
    """The finished images of a folder: those in its table whose map is there.

    A line that was cut has no source that fits.
    """
    rows: Rows = {}
    if not (folder / ROWS).is_file():
        return rows
    with (folder / ROWS).open(**TEXT) as table:
        for line in csv.reader(table):
            if len(line) == 3:
                stem, share, source = line
                if share == "0.0" or (folder / f"{stem}.png").is_file():
                    rows[stem] = Row(float(share), source)
    return rows


def _still_valid(rows: Rows, sources: Mapping[str, str]) -> Rows:
    """The rows of images that are what they were."""
    return {stem: row for stem, row in rows.items() if row.source == sources.get(stem)}


def _refuse_foreign_files(out: Path) -> None:
    """The folder of the maps is replaced as a whole, so it must hold nothing else."""
    folders.refuse_file(out, "--out")
    ours = set()
    if folders.manifest(out).get("maker") == MAKER:
        ours = {folders.MANIFEST, ROWS, *(f"{stem}.png" for stem in _rows(out))}
    names = sorted(path.name for path in out.glob("[!.]*"))
    if foreign := [name for name in names if name not in ours]:
        raise InputError(
            f"{out} holds {len(foreign)} files that `{MAKER}` did not write (first: {foreign[0]}), "
            "and would be replaced as a whole. Move them away, or choose another folder with --out."
        )
