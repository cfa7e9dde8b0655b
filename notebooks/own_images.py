"""The drawn collection with which the notebook on one's own images begins, and figures of it."""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image

import toyscenes
from ncdss_lib.data.image_files import read_image
from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.masks import classes_in, read_labels, write_labels
from ncdss_lib.data.palette import class_look, rgb
from ncdss_lib.viz import table
from ncdss_lib.viz.figures import Drawing, Panel, grid, overlay
from toyscenes import CLASSES, render_scene

VERSION = 2  # of what is drawn here; toyscenes has one of its own
DRAWN_BY = ".drawn_by"  # a file in the collection: both versions, and what was asked for
BASE = (1, 8, 12)  # ids of toyscenes: three classes that are labelled
NOVEL = (14, 20)  # and two that are not


def draw_collection(
    root: Path, *, labelled: int, unlabelled: int, val: int, size: int = 224
) -> None:
    """Draw toy scenes of five classes in the layout of a folder data set, unless that was done.

    The layout is that of :mod:`ncdss_lib.data.own_images`. A collection of other numbers, or of an
    earlier version of the drawings, is drawn again; one that this function did not draw stays.

    Args:
        labelled, unlabelled, val: numbers of images; unlabelled ones hold a novel class each,
            labelled ones none.
        size: of the images in pixels.
    """
    drawn_by = f"{VERSION}.{toyscenes.VERSION} {labelled} {unlabelled} {val} {size}\n"
    stamp = root / DRAWN_BY
    if stamp.is_file() and stamp.read_text() != drawn_by:
        shutil.rmtree(root)
    if root.is_dir():
        return
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("images", "masks", "unlabelled", "val/images", "val/masks"):
        (partial / folder).mkdir(parents=True)
    (partial / "classes.txt").write_text("".join(f"{CLASSES[c - 1]}\n" for c in BASE))
    (partial / DRAWN_BY).write_text(drawn_by)

    # masks name the base classes; nobody has named the novel ones
    ids = np.zeros(256, np.uint8)
    ids[list(BASE)] = range(1, len(BASE) + 1)
    ids[[*NOVEL, IGNORE]] = IGNORE

    # scenes, each where one is wanted, until nothing is
    wanted = {"labelled": labelled, "unlabelled": unlabelled, "val": val}
    for number, (seed, image, mask) in enumerate(_scenes(size)):
        kind = _kind(number, mask, wanted)
        if kind is None:
            if not any(wanted.values()):
                break
            continue
        wanted[kind] -= 1
        if kind == "unlabelled":
            Image.fromarray(image).save(
                partial / "unlabelled" / f"holiday_{seed:04d}.jpg", quality=92
            )
            continue
        place = partial / "val" if kind == "val" else partial
        Image.fromarray(image).save(place / "images" / f"photo_{seed:04d}.jpg", quality=92)
        write_labels(place / "masks" / f"photo_{seed:04d}.png", ids[mask])
    partial.rename(root)


def _kind(number: int, mask: np.ndarray, wanted: Mapping[str, int]) -> str | None:
    """Where an image goes, as long as more of a kind are wanted; None: nowhere.

    Every fourth may go to validation; at least every second of those holds a novel class.
    """
    is_novel = bool(np.isin(mask, NOVEL).any())
    own = "unlabelled" if is_novel else "labelled"
    kinds = ("val", own) if number % 8 == 3 or (number % 8 == 7 and is_novel) else (own,)
    return next((kind for kind in kinds if wanted[kind]), None)


def _scenes(size: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Seed, image and mask of the scenes that hold some of the five classes and no other."""
    for seed in count(1):
        if _only_ours(render_scene((7, seed), 32).mask):  # a glance, to draw few in full
            scene = render_scene((7, seed), size)
            if _only_ours(scene.mask):
                yield seed, scene.image, scene.mask


def _only_ours(mask: np.ndarray) -> bool:
    found = set(classes_in(mask))
    return bool(found) and found <= {*BASE, *NOVEL}


def tree(root: Path) -> str:
    """What a folder holds, one name of each kind of file."""
    lines = [f"{root.name}/"]
    for path in sorted(root.rglob("[!.]*")):
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.is_file())
            more = f", ... ({len(files)} files)" if len(files) > 1 else ""
            name = f"{path.relative_to(root).as_posix()}/"
            lines.append(f"  {name:<30}{', '.join(files[:1])}{more}")
        elif path.parent == root:
            lines.append(f"  {path.name:<30}{', '.join(path.read_text().split())}")
    return "\n".join(line.rstrip() for line in lines)


def collection_figure(root: Path, columns: int = 5) -> Drawing:
    """Labelled images with their masks, and unlabelled ones."""
    names = (root / "classes.txt").read_text().split()
    look = class_look(LabelSpace((*names, "something new"), (len(names) + 1,)))
    labelled = []
    for path in sorted((root / "images").iterdir())[:columns]:
        mask = read_labels(root / "masks" / f"{path.stem}.png")
        labelled.append(overlay(read_image(path), mask, look, path.name))
    paths = sorted((root / "unlabelled").iterdir())[:columns]
    return grid([labelled, [Panel(read_image(path), path.name) for path in paths]])


def predictions_figure(out: Path, columns: int = 5) -> Drawing:
    """The first overlays that ``ncdss predict`` wrote, with the legend below."""
    paths = sorted((out / "overlays").iterdir())[:columns]
    legend = pd.read_csv(out / "legend.csv")
    names_and_colours = list(zip(legend["name"], map(rgb, legend["colour"]), strict=True))
    return grid([[Panel(read_image(path), path.name) for path in paths]], legend=names_and_colours)


def from_markdown(text: str) -> HTML:
    """What a command prints, a Markdown table and sentences, as a page shows it."""
    parts: list[str] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            (corner, *columns), _, *body = rows
            frame = pd.DataFrame([row[1:] for row in body], [row[0] for row in body], columns)
            parts.append(table(frame, corner, right=False).data)
            rows = []
        if line.strip():
            parts.append(f"<p>{html.escape(line)}</p>")
    return HTML("".join(parts))


def pixels_by_name(out: Path) -> dict[str, int]:
    """Pixels of each name of the legend in all masks that ``ncdss predict`` wrote."""
    counts = np.zeros(256, np.int64)
    for path in (out / "masks").iterdir():
        counts += np.bincount(read_labels(path).ravel(), minlength=256)
    legend = pd.read_csv(out / "legend.csv")
    pairs = zip(legend["name"], legend["id"], strict=True)
    return {str(name): int(counts[label]) for name, label in pairs}
