"""Segment any images with a trained network, from its checkpoint alone."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ncdss_lib.data.image_files import list_files, opened, read_image
from ncdss_lib.data.palette import paint, to_hex
from ncdss_lib.models.checkpoints import Network
from ncdss_lib.runs.report import percent, to_markdown
from ncdss_lib.runs.trained_network import TrainedNetwork, open_checkpoint
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import (
    commit_folder,
    disk_errors,
    one_at_a_time,
    partial_folder,
    refuse_file,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def predict_images(
    path: Path,
    images: Path,
    out: Path,
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    fold: int = 0,
    overrides: Sequence[str] = (),
    device: str | None = None,
    network: Network = "student",
) -> str:
    """Segment images; ``out`` appears when all are done, or not at all.

    ::

        OUT/masks/NAME.png       8-bit palette PNG of contiguous ids, at the image's size (upright,
                                 where its EXIF data turn it)
        OUT/overlays/NAME.jpg    the image in grey under the colours of the classes
        OUT/legend.csv, .png     id, name and colour of each
        OUT/manifest.json        what it was made from

    Args:
        path, dataset, data_root, fold, overrides, device, network: see
            :func:`~ncdss_lib.runs.trained_network.open_checkpoint`.
        images: a folder of images, or one image.
        out: a new or empty folder.

    Returns:
        How many images, and how much of them is what, as Markdown.

    Raises:
        InputError: see :func:`~ncdss_lib.runs.trained_network.open_checkpoint`; no image, or one
            that cannot be read; ``out`` is in use; several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("predict runs in one process: start it without torchrun.")
    refuse_file(out, "--out")
    files, notes = _image_files(images)
    with one_at_a_time(out.absolute().parent, out.name):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"--out {out} exists already and is not an empty folder. Choose another, or remove "
                "it."
            )
        trained = open_checkpoint(path, dataset, data_root, fold, overrides, device, network)
        shares = _write_predictions(trained, files, out)

    # the table
    mean = np.mean(shares, axis=0)
    seen = np.count_nonzero(shares, axis=0)
    rows = {
        name: {"pixels, %": percent([mean[label]]), "pictures": str(seen[label])}
        for label, name in enumerate(trained.names)
        if seen[label]
    }
    table = to_markdown(pd.DataFrame.from_dict(rows, orient="index"))
    lines = [f"{len(files)} pictures segmented. Written: {out}", *notes, table]
    return "\n\n".join(lines)


def _write_predictions(
    trained: TrainedNetwork, files: Sequence[Path], out: Path
) -> list[np.ndarray]:
    """Fill ``out``; return the share of each label in each image, float [256]."""
    shares = []
    with disk_errors("the predictions", out):
        made_in = partial_folder(out, str(os.getpid()))
        try:
            for folder in ("masks", "overlays"):
                (made_in / folder).mkdir()
            for file in tqdm(files, desc="predict", unit="picture"):
                labels = _predict_file(trained, file, made_in)
                shares.append(np.bincount(labels.ravel(), minlength=256) / labels.size)
            _write_legend(trained, made_in)
            contents = {
                "checkpoint": str(trained.checkpoint.path),
                "layout": trained.checkpoint.layout,
                "network": trained.checkpoint.network,
                "size": trained.size,
                "pictures": [file.name for file in files],
            }
            commit_folder(made_in, out, contents)
        finally:
            shutil.rmtree(made_in, ignore_errors=True)  # it is gone once it was renamed
    return shares


def _image_files(images: Path) -> tuple[list[Path], list[str]]:
    """The images of a folder, sorted, or the one image, and a line on what was left out.

    Headers are read: most of what is wrong with an image shows before any work is done.
    """
    notes: list[str] = []
    if images.is_file():
        paths = [images]
    elif images.is_dir():
        listing = list_files(images, SUFFIXES, "pictures")
        paths = sorted(listing.files.values())
        notes = listing.note
    else:
        raise InputError(f"--images {images} is neither a folder nor a file. Check the path.")
    if not paths:
        raise InputError(
            f"{images} holds no picture. Expected files that end in {', '.join(SUFFIXES)}: add "
            "some, or convert them."
        )
    for path in paths:
        with opened(path):
            pass
    return paths, notes


def _predict_file(trained: TrainedNetwork, file: Path, folder: Path) -> np.ndarray:
    """Write mask and overlay of an image; return its labels, uint8 [H, W]."""
    image = read_image(file)
    labels, _ = trained.predict_image(image)
    mask = Image.fromarray(labels)
    mask.putpalette(trained.look.colours.tobytes())
    mask.save(folder / "masks" / f"{file.stem}.png")
    overlay = Image.fromarray(paint(image, labels, trained.look))
    overlay.save(folder / "overlays" / f"{file.stem}.jpg", quality=92)
    return labels


def _write_legend(trained: TrainedNetwork, folder: Path) -> None:
    colours = [to_hex(trained.look.colours[label]) for label in range(len(trained.names))]
    with (folder / "legend.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "name", "colour"))
        writer.writerows(zip(range(len(colours)), trained.names, colours, strict=True))

    # columns of at most 25 lines, each a box with its colour and its name
    columns = -(-len(colours) // 25)
    rows = -(-len(colours) // columns)
    width = max(2.4, 0.9 + 0.085 * max(map(len, trained.names)))  # inches
    figure = Figure(figsize=(width * columns, 0.28 * rows + 0.3), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    for label, (name, colour) in enumerate(zip(trained.names, colours, strict=True)):
        column, row = divmod(label, rows)
        hatch = "////" if trained.look.striped[label] else None
        left = column + 0.1 / width
        axes.barh(row, 0.3 / width, 0.7, left, color=colour, hatch=hatch, edgecolor="white")
        axes.text(column + 0.5 / width, row, f"{label}  {name}", va="center", fontsize=9)
    axes.set(xlim=(0, columns), ylim=(rows, -1))
    axes.axis("off")
    figure.savefig(folder / "legend.png")
