"""The small collection of drawn pictures with which the notebook on one's own images begins, and what it shows of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.masks import classes_in, read_labels, write_labels
from ncdss_lib.viz.figures import Panel, Picture, grid, overlay
from ncdss_lib.viz.palette import class_look, rgb
from toyscenes import CLASSES, render_scene

BASE, NOVEL = (1, 8, 12), (14, 20)  # ids of toyscenes: three classes that are labelled, two that are not


def draw_collection(root: Path, *, labelled: int, unlabelled: int, val: int, size: int = 224) -> None:
    """Draw toy scenes of five classes in the layout of a folder data set (see :mod:`ncdss_lib.data.own_images`), unless that was done.

    Args:
        labelled, unlabelled, val: numbers of images; unlabelled ones hold a novel class each, labelled ones none.
        size: of the images in pixels.
    """
    if root.is_dir():
        return
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("images", "masks", "unlabelled", "val/images", "val/masks"):
        (partial / folder).mkdir(parents=True)
    (partial / "classes.txt").write_text("".join(f"{CLASSES[c - 1]}\n" for c in BASE))
    ids = np.zeros(256, np.uint8)
    ids[list(BASE)], ids[[*NOVEL, IGNORE]] = range(1, len(BASE) + 1), IGNORE  # nobody has named the novel ones
    wanted = {"labelled": labelled, "unlabelled": unlabelled, "val": val}
    for number, (seed, image, mask) in enumerate(_scenes(size)):
        kind = _kind(number, mask, wanted)
        if kind is None:
            if not any(wanted.values()):
                break
            continue
        wanted[kind] -= 1
        if kind == "unlabelled":
            Image.fromarray(image).save(partial / "unlabelled" / f"holiday_{seed:04d}.jpg", quality=92)
            continue
        place = partial / "val" if kind == "val" else partial
        Image.fromarray(image).save(place / "images" / f"photo_{seed:04d}.jpg", quality=92)
        write_labels(place / "masks" / f"photo_{seed:04d}.png", ids[mask])
    partial.rename(root)


def _kind(number: int, mask: np.ndarray, wanted: Mapping[str, int]) -> str | None:
    """Where an image goes, as long as more of a kind are wanted: every fourth to validation, whatever it holds."""
    own = "unlabelled" if np.isin(mask, NOVEL).any() else "labelled"
    return next((kind for kind in (("val", own) if number % 4 == 3 else (own,)) if wanted[kind]), None)


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
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.is_file())
            more = f", ... ({len(files)} files)" if len(files) > 1 else ""
            lines.append(f"  {path.relative_to(root).as_posix()}/".ljust(32) + ", ".join(files[:1]) + more)
        elif path.parent == root:
            lines.append(f"  {path.name}".ljust(32) + ", ".join(path.read_text().split()))
    return "\n".join(line.rstrip() for line in lines)


def collection_figure(root: Path, columns: int = 5) -> Picture:
    """Labelled images with their masks, and unlabelled ones."""
    names = (root / "classes.txt").read_text().split()
    look = class_look(LabelSpace((*names, "something new"), (len(names) + 1,)))
    labelled, unlabelled = (sorted((root / folder).iterdir())[:columns] for folder in ("images", "unlabelled"))
    above: list[Panel | None] = [overlay(_picture(p), read_labels(root / "masks" / f"{p.stem}.png"), look, p.name) for p in labelled]
    return grid([above, [Panel(_picture(p), p.name) for p in unlabelled]])


def predictions_figure(out: Path, columns: int = 5) -> Picture:
    """The first overlays that ``ncdss predict`` wrote, with the legend below."""
    overlays = sorted((out / "overlays").iterdir())[:columns]
    legend = pd.read_csv(out / "legend.csv")
    return grid(
        [[Panel(_picture(p), p.name) for p in overlays]],
        legend=[(name, rgb(colour)) for name, colour in zip(legend["name"], legend["colour"], strict=True)],
    )


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))
