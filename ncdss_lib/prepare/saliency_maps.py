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
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from ncdss_lib.prepare import writable
from ncdss_lib.prepare.saliency_networks import SoftMap, load_model
from ncdss_lib.system import folders
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import whole_file

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
    inputs = Inputs(pictures, ready, _truth(data_root, images, pictures))
    _refuse_foreign_files(out)
    digests = in_threads(inputs.verified_digest, list(pictures), "checking pictures")
    sources = dict(zip(pictures, digests, strict=True))

    # the maps, unless they are there
    settings = {
        "model": "ready maps" if maps else model,
        "threshold": threshold,
        "min_area": min_area,
    }
    with folders.one_at_a_time(out.parent, out.name):
        rows = _rows(out) if _manifest(out).get("settings") == settings else {}
        kept = len(sources)
        began = time.monotonic()
        if {stem: row.source for stem, row in rows.items()} != sources:
            _refuse_read_only(out)
            network = None if maps else load_model(model)
            with folders.disk_errors("the saliency maps", out):
                rows, kept = _make(out, settings, sources, inputs, network, earlier=rows)
    seconds = (time.monotonic() - began) / max(1, len(sources) - kept)

    # what to tell of them
    found = [row.share for row in rows.values() if row.share > 0]
    again = "" if kept == len(rows) else f"; the others took {seconds:.2f} s each"
    nothing = f"nothing salient over {min_area:.2%} of the image"
    table = {
        "pictures": f"{len(rows)}, from {images}",
        "maps": f"{len(found)}, in {out}",
        "without a map": f"{len(rows) - len(found)}: {nothing}",
        "made from": f"{len(ready)} ready maps in {maps}" if maps else model,
        "threshold": f"above {threshold:g}",
        "kept from before": f"{kept}{again}",
        "salient share of an image": f"mean {sum(found) / len(rows):.1%}",
    }
    if maps and len(ready) < len(rows):
        lacking = len(rows) - len(ready)
        table["pictures without a ready map"] = f"{lacking}: taken as nothing salient"
    if listing.left_out:
        table["left out"] = f"{listing.left_out}, in {images}"
    if inputs.truth:
        ious = [agreement(out / f"{stem}.png", path) for stem, path in inputs.truth.items()]
        folder = next(iter(inputs.truth.values())).parent.name
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
@dataclass(frozen=True)
class Inputs:
    """What maps are made from and compared with: files by stem, sorted."""

    pictures: Mapping[str, Path]
    ready: Mapping[str, Path]  # ready maps, of some pictures
    truth: Mapping[str, Path]  # masks, of some pictures

    def verified_digest(self, stem: str) -> str:
        """SHA-256 of what a map is made from; every file of the picture is decoded.

        Raises:
            InputError: for a file that cannot be read, or is not of the picture's size.
        """
        image = self.pictures[stem]
        height, width = read_image(image).shape[:2]
        advice = "restore the file that belongs to the picture, or resize it"
        for paths, read in ((self.ready, read_map), (self.truth, read_labels)):
            if stem in paths:
                size = read(paths[stem]).shape[::-1]
                check_size(paths[stem], size, (width, height), image, advice)
        parts = [path.read_bytes() for path in (image, self.ready.get(stem)) if path]
        digests = [hashlib.sha256(part).digest() for part in parts]
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def soft_map(self, stem: str, network: SoftMap | None) -> np.ndarray:
        """Saliency of a picture, float32 [H, W] in 0..1: a network's or, without one, ready."""
        if network:
            return network(Image.fromarray(read_image(self.pictures[stem])))
        if stem in self.ready:
            return read_map(self.ready[stem])
        return np.zeros((1, 1), np.float32)


def _folder(path: Path, option: str) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise InputError(f"{path} is not a folder. Expected one with pictures: correct {option}.")
    return path


def _listed(folder: Path, suffixes: tuple[str, ...], expected: str) -> dict[str, Path]:
    """The files of a folder by stem, sorted."""
    return dict(sorted(list_files(folder, suffixes, expected).files.items()))


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


def _ready_maps(maps: Path, images: Path, pictures: Mapping[str, Path]) -> dict[str, Path]:
    """The ready maps that belong to a picture."""
    found = _listed(_folder(maps, "--maps"), (".png",), "saliency maps, STEM.png")
    ready = {stem: path for stem, path in found.items() if stem in pictures}
    if not ready:
        example = min(found.values()).name if found else "there is none"
        raise InputError(
            f"none of the {len(found)} maps in {maps} (first: {example}) has the name of one of "
            f"the {len(pictures)} pictures in {images} (first: {min(pictures.values()).name}). "
            "Expected a PNG with the stem of its picture: rename the maps, or correct --maps or "
            "--images."
        )
    return ready


def _truth(data_root: Path, images: Path, pictures: Mapping[str, Path]) -> dict[str, Path]:
    """Masks of the pictures. ``unlabelled`` ones have none, even where stems are the same."""
    for name in TRUTH:
        if images.name != "unlabelled" and (data_root / name).is_dir():
            masks = _listed(data_root / name, (".png",), "masks, STEM.png")
            return {stem: masks[stem] for stem in pictures if stem in masks}
    return {}


# --------------------------------------------------------------------------------- what comes out
def _make(
    out: Path,
    settings: dict[str, Any],
    sources: dict[str, str],
    inputs: Inputs,
    network: SoftMap | None,
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
    _write_rows(partial, rows)

    # the others, each written down when it is finished
    missing = [stem for stem in sources if stem not in rows]
    bar = tqdm(missing, "saliency maps", initial=kept, total=len(sources), unit="image")
    with (partial / ROWS).open("a", **TEXT) as log:
        for stem in bar:
            soft = inputs.soft_map(stem, network)
            mask = salient_pixels(soft, settings["threshold"], settings["min_area"])
            if mask.any():
                Image.fromarray(mask.astype(np.uint8)).save(partial / f"{stem}.png")
            rows[stem] = Row(float(mask.mean()), sources[stem])
            csv.writer(log).writerow((stem, *rows[stem]))
            log.flush()
    rows = {stem: rows[stem] for stem in sources}
    _write_rows(partial, rows)
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


def _write_rows(folder: Path, rows: Rows) -> None:
    with whole_file(folder / ROWS) as draft, draft.open("w", **TEXT) as table:
        csv.writer(table).writerows((stem, *row) for stem, row in rows.items())


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that this command made, or an empty one."""
    try:
        manifest = folders.manifest(folder)
    except (OSError, json.JSONDecodeError):
        return {}
    ours = isinstance(manifest, dict) and manifest.get("maker") == MAKER
    return manifest if ours else {}


def _refuse_foreign_files(out: Path) -> None:
    """The folder of the maps is replaced as a whole, so it must hold nothing else."""
    above = _nearest(out)
    if not above.is_dir():
        expected = "Expected a folder for the maps: choose another place with --out."
        raise InputError(f"{above} is a file. {expected}")
    if not out.is_dir():
        return
    ours = (
        {folders.MANIFEST, ROWS, *(f"{stem}.png" for stem in _rows(out))} if _manifest(out) else ()
    )
    names = sorted(path.name for path in out.iterdir() if path.name[0] != ".")
    if foreign := [name for name in names if name not in ours]:
        raise InputError(
            f"{out} holds {len(foreign)} files that `{MAKER}` did not write (first: {foreign[0]}), "
            "and would be replaced as a whole. Move them away, or choose another folder with --out."
        )


def _refuse_read_only(out: Path) -> None:
    for folder in (_nearest(out), _nearest(out.parent)):
        if not writable(folder):
            raise RunError(
                f"the saliency maps cannot be written to {out}: {folder} is read-only. Choose "
                "another folder with --out."
            )


def _nearest(path: Path) -> Path:
    """The path, or what is there of it."""
    return next(above for above in (path, *path.parents) if above.exists())
