"""Toy scenes: an embedded, procedural data set in the shape of PASCAL-5i.

Twenty classes in four folds of five, one to three objects an image in front of textured places, among distractors that count as
background. A scene is a pure function of its seed: nothing is downloaded, and the same scene can be rendered at any size. How the
objects are drawn is told in :mod:`ncdss_lib.data.toyscene_objects`; this module composes scenes, makes masks, *simulates* saliency
maps, and offers all of it as a :class:`~ncdss_lib.data.base.SegmentationData`.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage
from tqdm.auto import tqdm

from ncdss_lib.data.base import classes_in
from ncdss_lib.data.label_maps import write_labels
from ncdss_lib.data.toyscene_canvas import Canvas, Colour, Palette, Pose, dye, light_ramp
from ncdss_lib.data.toyscene_objects import DISTRACTORS, TOYS
from ncdss_lib.labels import IGNORE

VERSION = 1  # raise it whenever a seed gives other pixels than before: caches and fingerprints depend on it

CLASSES: tuple[str, ...] = tuple(toy.name for toy in TOYS)
FOLDS: dict[int, tuple[int, ...]] = {fold: tuple(range(5 * fold + 1, 5 * fold + 6)) for fold in range(4)}

MIN_SIZE = 32
OBJECTS_PER_IMAGE = (0.55, 0.33, 0.12)  # probability of one, two, three objects
KINSHIP = 0.4  # probability that a further object is drawn from the fold of the first one; else from all classes
MAIN_AREA, OTHER_AREA = (0.12, 0.33), (0.025, 0.09)  # wanted share of the image
SALIENCY_NOTE = "simulated saliency (noise on the true masks, no detector)"


@dataclass(frozen=True)
class Scene:
    """One rendered scene of side S."""

    image: np.ndarray  # uint8 [S, S, 3], RGB
    mask: np.ndarray  # uint8 [S, S], class ids 1..20, 0 background, 255 on the outer rim of each object
    saliency: np.ndarray | None  # bool [S, S], simulated; None where nothing is salient
    objects: tuple[tuple[int, tuple[int, int, int, int]], ...]  # class id and (left, top, right, bottom) of what is visible, back to front


def render_scene(seed: int | Sequence[int], size: int = 128) -> Scene:
    """Render the scene of a seed.

    Composition, colours and saliency noise are drawn in unit coordinates, so that another ``size`` shows the same scene; only the
    grain of the "camera" is made per pixel.

    Args:
        seed: anything that :func:`numpy.random.default_rng` accepts as a seed.
        size: side of the square image in pixels, at least 32.

    Raises:
        ValueError: when ``size`` is below 32.
    """
    if size < MIN_SIZE:
        raise ValueError(f"toy scenes need size >= {MIN_SIZE}, got {size}")
    rng, camera_rng, saliency_rng = np.random.default_rng(seed).spawn(3)
    image, horizon = paint_place(rng, size)
    things = compose(rng, horizon)
    owner = np.zeros((size, size), np.uint8)  # 0, or 1 + index of the thing that is seen at a pixel
    light = light_ramp(rng.uniform(210, 330))
    for index, thing in enumerate(things, start=1):
        canvas = Canvas(thing.rng, thing.pose, size, light)
        thing.paint(canvas)
        _paste(canvas, image, owner, index, grounded=thing.grounded)
    owner_class = np.array([0, *(thing.class_id for thing in things)], np.uint8)
    mask = _with_rim(owner_class[owner], owner)
    distractors = (owner_class[owner] == 0) & (owner > 0)
    boxes = ndimage.find_objects(owner, max_label=len(things))
    objects = tuple(
        (thing.class_id, (box[1].start, box[0].start, box[1].stop, box[0].stop))
        for thing, box in zip(things, boxes, strict=True)
        if thing.class_id and box is not None
    )
    return Scene(photograph(image, camera_rng), mask, simulate_saliency(mask, saliency_rng, distractors=distractors), objects)


# ---------------------------------------------------------------------------------------------------------------- composition
@dataclass(frozen=True)
class Thing:
    """An object (class_id >= 1) or a distractor (class_id 0) with its place in the image."""

    class_id: int
    paint: Callable[[Canvas], None]
    pose: Pose
    rng: np.random.Generator
    grounded: bool

    @property
    def foot(self) -> float:
        return self.pose.y + self.pose.scale


def compose(rng: np.random.Generator, horizon: float) -> list[Thing]:
    """Choose the things of a scene, back to front: distractors, one main object, smaller ones, rarely a distractor in front."""
    things = [_place_object(rng, int(rng.integers(1, len(TOYS) + 1)), horizon, [])]
    kin = next(ids for ids in FOLDS.values() if things[0].class_id in ids)
    for _ in range(rng.choice(3, p=OBJECTS_PER_IMAGE)):
        class_id = rng.choice(kin) if rng.random() < KINSHIP else rng.integers(1, len(TOYS) + 1)
        things.append(_place_object(rng, int(class_id), horizon, things))
    things.sort(key=lambda thing: (thing.grounded, thing.foot))
    clutter = [_place_distractor(rng, horizon) for _ in range(rng.integers(1, 6))]
    in_front = [thing for thing in clutter if thing.pose.scale < 0.07 and rng.random() < 0.5]
    return [thing for thing in clutter if thing not in in_front] + things + in_front


def _place_object(rng: np.random.Generator, class_id: int, horizon: float, others: list[Thing]) -> Thing:
    """Find a pose: the main object anywhere, sometimes cut by the border; others where they hide little of what stands already."""
    toy, main = TOYS[class_id - 1], not others
    scale = min(0.56, np.sqrt(rng.uniform(*(MAIN_AREA if main else OTHER_AREA)) / (4 * toy.bulk)))
    at_home = rng.random() < 0.85
    grounded = toy.home == "ground" and at_home
    margin = scale * (0.55 if rng.random() < 0.2 else 0.95)  # smaller: the border cuts the object
    low, high = min(margin, 0.5), max(1 - margin, 0.5)

    def spot() -> tuple[float, float]:
        x = rng.uniform(low, high)
        if grounded:
            return x, max(rng.uniform(min(horizon + 0.04, 0.9), 1.02), 1.7 * scale) - scale
        return x, rng.uniform(low, max(low, min(high, 0.62)) if toy.home == "air" and at_home else high)

    def clearance(place: tuple[float, float]) -> float:
        gaps = [np.hypot(place[0] - o.pose.x, place[1] - o.pose.y) - 0.85 * (scale + o.pose.scale) for o in others]
        return float(min([*gaps, rng.uniform(-0.1, 0.2)]))  # some overlap is welcome

    x, y = max((spot() for _ in range(1 if main else 6)), key=clearance)
    angle = rng.uniform(-toy.tilt, toy.tilt)
    pose = Pose(x, y, scale, angle, bool(rng.random() < 0.5), rng.uniform(0.88, 1.14), rng.uniform(-0.1, 0.1))
    return Thing(class_id, toy.paint, pose, rng.spawn(1)[0], grounded)


def _place_distractor(rng: np.random.Generator, horizon: float) -> Thing:
    paint = DISTRACTORS[rng.integers(len(DISTRACTORS))]
    scale, x = rng.uniform(0.03, 0.13), rng.uniform(0, 1)
    y = rng.uniform(0 if rng.random() < 0.4 else horizon, 1)
    pose = Pose(x, y, scale, rng.uniform(-40, 40), bool(rng.random() < 0.5), rng.uniform(0.8, 1.25))
    return Thing(0, paint, pose, rng.spawn(1)[0], grounded=y > horizon)


def _paste(canvas: Canvas, image: np.ndarray, owner: np.ndarray, index: int, *, grounded: bool) -> None:
    """Put a finished canvas over the image (in place), after its shadow on the ground, and note which pixels it owns."""
    size = len(owner)
    colour, cover = canvas.layer()
    height, width = cover.shape[:2]
    y0, x0, y1, x1 = max(canvas.top, 0), max(canvas.left, 0), min(canvas.top + height, size), min(canvas.left + width, size)
    if y0 >= y1 or x0 >= x1:
        return
    seen = np.s_[y0 - canvas.top : y1 - canvas.top, x0 - canvas.left : x1 - canvas.left]
    here = np.s_[y0:y1, x0:x1]
    if grounded and (rows := np.flatnonzero(cover.any(axis=(1, 2)))).size:
        image[here] *= 1 - 0.55 * _shadow(cover[..., 0], rows[0], rows[-1])[seen][..., None]
    image[here] = image[here] * (1 - cover[seen]) + colour[seen]
    owner[here][cover[seen][..., 0] >= 0.5] = index


def _shadow(cover: np.ndarray, top: int, foot: int) -> np.ndarray:
    """A soft contact shadow: the object's silhouette laid flat at its foot. float32 [H, W] in 0..1."""
    tall = foot - top + 1
    flat = Image.fromarray(cover[top : foot + 1]).resize((cover.shape[1], max(1, tall // 5)), Image.Resampling.BILINEAR)
    ground = np.zeros_like(cover)
    start = foot - flat.height // 2
    ground[start : start + flat.height] = np.asarray(flat)[: len(ground) - start]
    return ndimage.gaussian_filter(ground, 0.03 * tall + 0.5, truncate=2)


def _with_rim(mask: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mark as ignored, as PASCAL VOC does, the pixels just outside an object, where its colour and what lies behind it mix.

    One pixel wide, two from 192 px on. Thin parts keep their label. uint8 [S, S].
    """
    rank = np.where(mask > 0, owner, 0).astype(np.uint8)
    width = 1 if len(mask) < 192 else 2
    near = np.asarray(Image.fromarray(rank).filter(ImageFilter.MaxFilter(2 * width + 1)))
    return np.where(near > rank, IGNORE, mask).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------------------- places
def noise(rng: np.random.Generator, size: int, *octaves: int, stretch: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Smooth noise with the given numbers of cells along a side, each octave weaker than the one before. float32 [S, S], about -1..1.

    ``stretch`` divides the number of cells along (y, x): (1, 4) gives horizontal streaks.
    """
    total = np.zeros((size, size), np.float32)
    for k, cells in enumerate(octaves):
        grid = rng.uniform(-1, 1, (max(2, cells // stretch[0]), max(2, cells // stretch[1]))).astype(np.float32)
        total += 0.6**k * np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))
    return total


def blend(low: Colour, high: Colour, weight: np.ndarray) -> np.ndarray:
    """Colour ``low`` where weight is 0, ``high`` where it is 1. float32 [S, S, 3] from weight [S, S]."""
    return np.asarray(low, np.float32) + np.clip(weight, 0, 1).astype(np.float32)[..., None] * np.asarray(high - low, np.float32)


SKIES: tuple[tuple[Palette, Palette], ...] = (  # above, at the horizon
    (((0.55, 0.62), (0.45, 0.75), (0.70, 0.95)), ((0.52, 0.60), (0.10, 0.30), (0.90, 1.00))),  # day
    (((0.60, 0.75), (0.35, 0.60), (0.35, 0.60)), ((0.02, 0.10), (0.40, 0.70), (0.85, 1.00))),  # dusk
    (((0.55, 0.65), (0.02, 0.15), (0.55, 0.80)), ((0.55, 0.65), (0.02, 0.10), (0.75, 0.95))),  # overcast
    (((0.60, 0.70), (0.50, 0.80), (0.12, 0.25)), ((0.60, 0.72), (0.35, 0.60), (0.25, 0.45))),  # night
)
GROUNDS: tuple[Palette, ...] = (
    ((0.20, 0.33), (0.40, 0.75), (0.35, 0.65)),  # grass
    ((0.09, 0.13), (0.25, 0.50), (0.65, 0.90)),  # sand
    ((0.50, 0.65), (0.00, 0.10), (0.85, 1.00)),  # snow
    ((0.05, 0.09), (0.30, 0.60), (0.30, 0.55)),  # earth
    ((0.55, 0.70), (0.00, 0.12), (0.30, 0.55)),  # asphalt
)
WATER: Palette = ((0.48, 0.62), (0.40, 0.75), (0.35, 0.70))
WALLS: Palette = ((0.00, 1.00), (0.08, 0.45), (0.55, 0.95))
WOOD: Palette = ((0.05, 0.10), (0.35, 0.65), (0.40, 0.80))


class Grid:
    """Pixel centres of a square image in unit coordinates: ``x`` and ``y``, float32 [S, S]."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.x = (np.arange(size, dtype=np.float32)[None] + 0.5) / size * np.ones((size, 1), np.float32)
        self.y = self.x.T


def paint_place(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    """Paint an empty place. Returns float32 [S, S, 3] in 0..255 and the height of its horizon in unit coordinates."""
    places = (landscape, seaside, room, thicket, underwater)
    place, horizon = places[rng.choice(len(places), p=[0.38, 0.14, 0.28, 0.12, 0.08])], float(rng.uniform(0.35, 0.75))
    return place(rng, Grid(size), horizon), horizon


def _sky(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    above, below = SKIES[rng.choice(len(SKIES), p=[0.5, 0.2, 0.2, 0.1])]
    sky = blend(dye(rng, above), dye(rng, below), g.y / horizon)
    clouds = noise(rng, g.size, 4, 8, 16, 32, stretch=(1, 2)) + rng.uniform(-0.9, 0.3)
    return sky + np.clip(clouds, 0, 1)[..., None] * (dye(rng, below) + 40 - sky) * 0.7


def _ground(rng: np.random.Generator, g: Grid, colour: Colour) -> np.ndarray:
    tuft = noise(rng, g.size, 5, 12, 40, 64, stretch=(1, 2) if rng.random() < 0.5 else (1, 1))
    return blend(colour * 0.7, colour * 1.12, 0.5 + 0.38 * tuft) * (0.8 + 0.3 * g.y[..., None])


def landscape(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """Sky, up to two ridges that fade with distance (hills, or the roofs of a town), ground."""
    image = _sky(rng, g, horizon)
    haze, soil = image[-1, 0], dye(rng, *GROUNDS)
    for k in range(rng.integers(0, 3)):
        ridge = horizon - rng.uniform(0.02, 0.16) + 0.07 * noise(rng, g.size, 3, 6, 16)[0]
        if rng.random() < 0.25:
            ridge = horizon - rng.uniform(0.02, 0.25, 12)[(12 * g.x[0]).astype(int)]  # roofs of a town
        hill = blend(soil * rng.uniform(0.5, 0.9), haze, np.full(g.y.shape, 0.6 - 0.25 * k))
        image = np.where((g.y > ridge)[..., None], hill * (1 + 0.06 * noise(rng, g.size, 16, 48)[..., None]), image)
    edge = horizon + 0.02 * noise(rng, g.size, 4, 12)[0]
    return np.where((g.y > edge)[..., None], _ground(rng, g, soil), image)


def seaside(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """Sky over water with waves that grow towards the viewer, sometimes a beach."""
    image, sea = _sky(rng, g, horizon), dye(rng, WATER)
    depth = np.clip((g.y - horizon) / (1 - horizon), 1e-3, 1)
    waves = np.sin(60 * np.sqrt(depth) + 3 * noise(rng, g.size, 4, 8)) * 0.3 + noise(rng, g.size, 24, 64, stretch=(1, 6)) * 0.35
    image = np.where((g.y > horizon)[..., None], blend(sea * 0.75, sea * 1.3 + 25, 0.45 + waves), image)
    if rng.random() < 0.4:
        shore = rng.uniform(0.8, 0.95) + 0.04 * noise(rng, g.size, 3, 6)[0]
        image = np.where((g.y > shore)[..., None], _ground(rng, g, dye(rng, GROUNDS[1])), image)
    return image


def room(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """A wall, plain or with a pattern, over a floor or table of boards or cloth."""
    paper = dye(rng, WALLS)
    other, turns = paper * rng.uniform(0.75, 0.95), 2 * np.pi * rng.integers(4, 12)
    patterns = (np.zeros_like(g.x), np.sin(turns * g.x), np.sin(turns * g.x) * np.sin(turns * g.y), np.sin(turns * (g.x + g.y) / 2))
    motif = patterns[rng.integers(4)] * rng.uniform(1, 4)
    wall = blend(other, paper, 0.5 + 0.5 * motif + 0.25 * noise(rng, g.size, 4, 16, 64))
    plank = dye(rng, WOOD) if rng.random() < 0.7 else dye(rng, WALLS)
    depth = np.clip((g.y - horizon) / (1 - horizon), 0, 1)
    across = (g.x - 0.5) / (0.5 + depth) * rng.integers(5, 10)
    seams = (np.abs(across % 1 - 0.5) > 0.47) if rng.random() < 0.6 else np.abs(np.sqrt(depth) * 6 % 1 - 0.5) > 0.45
    grain = noise(rng, g.size, 6, 24, 64, stretch=(6, 1) if rng.random() < 0.5 else (1, 6))
    floor = blend(plank * 0.75, plank * 1.1, 0.55 + 0.3 * grain - 0.5 * seams)
    image = np.where((g.y > horizon)[..., None], floor * (0.8 + 0.3 * depth[..., None]), wall)
    skirting = np.abs(g.y - horizon + 0.015) < rng.uniform(0, 0.02)
    return np.where(skirting[..., None], dye(rng, WALLS) * 0.9, image)


def thicket(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """A close view with no horizon: foliage, pebbles or cloth, from cellular noise in two or three colours."""
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    base = blend(dye(rng, ground) * 0.45, dye(rng, ground), 0.5 + 0.5 * noise(rng, g.size, 8, 16, 32, 64))
    flecks = noise(rng, g.size, 14, 28) > rng.uniform(0.45, 0.75)
    return np.where(flecks[..., None], blend(dye(rng, ground) * 0.8, dye(rng, *GROUNDS), 0.5 + 0.5 * noise(rng, g.size, 20, 60)), base)


def underwater(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """Blue-green depth with slanting rays and a sandy bed."""
    sea = dye(rng, WATER)
    image = blend(sea * 1.5 + 20, sea * 0.6, g.y + 0.15 * noise(rng, g.size, 4, 8, 32))
    rays = np.sin((g.x + rng.uniform(-0.6, 0.6) * g.y) * rng.uniform(15, 30) + rng.uniform(0, 6)) * np.clip(1 - 1.3 * g.y, 0, 1)
    image = image * (1 + 0.25 * np.clip(rays, 0, 1))[..., None]
    bed = max(horizon, 0.6) + 0.05 * noise(rng, g.size, 3, 8)[0]
    return np.where((g.y > bed)[..., None], 0.6 * _ground(rng, g, dye(rng, GROUNDS[1])) + 0.4 * sea, image)


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, lens and sensor: uneven illumination, vignette, white balance, exposure, blur, grain. float32 -> uint8 [S, S, 3]."""
    size = len(image)
    g = Grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.25) * ((g.x - 0.5) * np.cos(angle) + (g.y - 0.5) * np.sin(angle)) + 0.08 * noise(rng, size, 3, 6)
    vignette = 1 - rng.uniform(0, 0.5) * ((g.x - 0.5) ** 2 + (g.y - 0.5) ** 2)
    balance = rng.uniform(0.92, 1.08, 3)
    image = image * (light * vignette)[..., None] * (balance * rng.uniform(0.85, 1.3)).astype(np.float32)
    blur, grain = float(rng.choice([0, 0, 0.003, 0.006])) * size, rng.uniform(1, 6)
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=3) if blur else image
    image = image + grain * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------------ saliency
def simulate_saliency(
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    distractors: np.ndarray | None = None,
    miss_main: float = 0.09,
    miss_small: float = 0.4,
    false_blob: float = 0.45,
    ragged: float = 0.45,
    min_share: float = 0.01,
) -> np.ndarray | None:
    """Simulate what an unsupervised saliency detector would return, from the true mask and noise (ours; there is no detector).

    The defaults were set so that the foreground IoU with the truth is that of U^2-Net-P on PASCAL VOC photos (about 0.6 on average).

    1. *Misses*: each class of the image is dropped whole, with probability ``miss_small`` if it covers less than half as much as the
       largest one, else ``miss_main``.
    2. *False blobs*: with probability ``false_blob`` a round patch joins in, centred on a distractor if there is one.
    3. *Ragged borders*: the region is blurred (3 % of the side), smooth noise of amplitude ``ragged`` is added, and it is cut at a
       random level, so that borders wander, thin parts break off and surroundings leak in.
    4. MaskContrast's rule: connected components below ``min_share`` of the image are removed; nothing left means no map.

    Args:
        mask: uint8 [S, S], class ids, 0 background, 255 ignore (taken as background).
        distractors: bool [S, S], pixels of things that are background but catch the eye.

    Returns:
        bool [S, S], or None when nothing is salient.
    """
    size = len(mask)
    areas = {class_id: int((mask == class_id).sum()) for class_id in classes_in(mask)}
    salient = np.zeros(mask.shape, np.float32)
    for class_id, area in areas.items():
        if rng.random() >= (miss_small if area < 0.5 * max(areas.values()) else miss_main):
            salient[mask == class_id] = 1
    x, y = rng.uniform(0.1, 0.9, 2)
    if rng.random() < false_blob:
        if distractors is not None and distractors.any():
            y, x = (np.argwhere(distractors)[int(rng.random() * distractors.sum())] + 0.5) / size
        g = Grid(size)
        salient[(g.x - x) ** 2 + (g.y - y) ** 2 < rng.uniform(0.06, 0.16) ** 2] = 1
    soft = ndimage.gaussian_filter(salient, 0.03 * size, truncate=2) + ragged * noise(rng, size, 3, 6, 12, 24)
    return drop_small_components(soft > rng.uniform(0.35, 0.7), min_share)


def drop_small_components(region: np.ndarray, min_share: float = 0.01) -> np.ndarray | None:
    """Keep the connected components (8-neighbours) of at least ``min_share`` of the image. bool [S, S], or None when none is left."""
    labels, _ = ndimage.label(region, structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= min_share * region.size
    keep[0] = False
    kept = keep[labels]
    return kept if kept.any() else None


# ------------------------------------------------------------------------------------------------------------------ data set
_SPLITS = ("train", "val")  # the place in this tuple is the first number of a scene's seed, its index the second


@lru_cache(maxsize=64)
def _render(split: str, index: int, size: int) -> Scene:
    return render_scene((_SPLITS.index(split), index), size)


class ToyScenes:
    """The toy scenes as a data set (see :class:`~ncdss_lib.data.base.SegmentationData`), rendered when first asked for.

    Args:
        cache_dir: where rendered scenes are kept as PNG files, for this and later processes; None keeps a few in memory only.
        train, val: numbers of images. Image i is the same in data sets of any length.
        size: side of the images in pixels.
    """

    name = "toyscenes"
    classes = CLASSES
    folds = FOLDS
    saliency_note = SALIENCY_NOTE
    masks_note = "drawn with the scenes"

    def __init__(self, cache_dir: Path | None = None, *, train: int = 600, val: int = 200, size: int = 224) -> None:
        if size < MIN_SIZE:
            raise ValueError(f"toy scenes need size >= {MIN_SIZE}, got {size}")
        self.size = size
        self.train_ids = [f"train_{i:05d}" for i in range(train)]
        self.val_ids = [f"val_{i:05d}" for i in range(val)]
        self._known = frozenset(self.train_ids + self.val_ids)
        self._folder = None if cache_dir is None else Path(cache_dir) / "toyscenes" / f"v{VERSION}-{size}px"
        self._presence: dict[str, tuple[int, ...]] | None = None

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [S, S, 3]."""
        return self._load(image_id, "image")

    def mask(self, image_id: str) -> np.ndarray:
        """Class ids, uint8 [S, S]: 0 background, 1..20, 255 on the rim of objects."""
        return self._load(image_id, "mask")

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Simulated saliency, bool [S, S], or None where nothing is salient."""
        salient = self._load(image_id, "saliency") > 0
        return salient if salient.any() else None

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> sorted ids of the classes with at least one pixel. Kept beside the cached images."""
        if self._presence is None:
            table = self._folder and self._folder / "presence.json"
            known = json.loads(table.read_text()) if table and table.exists() else {}
            ids = self.train_ids + self.val_ids
            new = [i for i in ids if i not in known]
            known |= {i: classes_in(self.mask(i)) for i in tqdm(new, "rendering toy scenes", leave=False, disable=len(new) < 50)}
            if table and new:
                _write(table, lambda path: path.write_text(json.dumps(known)))
            self._presence = {i: tuple(known[i]) for i in ids}
        return self._presence

    def fingerprint(self) -> str:
        """Changes with the generator's version, the size and the numbers of images."""
        made_from = f"toyscenes v{VERSION} size={self.size} train={len(self.train_ids)} val={len(self.val_ids)}"
        return hashlib.sha256(made_from.encode()).hexdigest()[:16]

    def images_fingerprint(self) -> str:
        """As :meth:`fingerprint`: a seed gives image, mask and saliency map together."""
        return self.fingerprint()

    def has_truth(self, image_id: str) -> bool:
        """True for every image of the data set."""
        return image_id in self._known

    def export(self, folder: Path) -> None:
        """Write all scenes in the VOCSegmentation layout: images, SegmentationClassAug, saliency_supervised_model, sets."""
        for sub in ("images", "SegmentationClassAug", "saliency_supervised_model", "sets"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        for image_id in self.train_ids + self.val_ids:
            Image.fromarray(self.image(image_id)).save(folder / "images" / f"{image_id}.jpg", quality=95)
            write_labels(folder / "SegmentationClassAug" / f"{image_id}.png", self.mask(image_id))
            if (salient := self.saliency(image_id)) is not None:
                Image.fromarray(salient.astype(np.uint8)).save(folder / "saliency_supervised_model" / f"{image_id}.png")
        for name, ids in (("trainaug", self.train_ids), ("val", self.val_ids)):
            (folder / "sets" / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))

    def _load(self, image_id: str, kind: str) -> np.ndarray:
        """Read one picture of a scene from the cache, or render the scene."""
        if image_id not in self._known:
            known = f"{len(self.train_ids)} training images from train_00000 and {len(self.val_ids)} validation images from val_00000"
            raise KeyError(f"no image {image_id!r}: this data set has {known} on; make it larger with train= or val=.")
        path = self._folder and self._folder / kind / f"{image_id}.png"
        if path and path.exists():
            return np.array(Image.open(path))
        split, index = image_id.split("_")
        scene = _render(split, int(index), self.size)
        empty = np.zeros(scene.mask.shape, bool)
        salient = empty if scene.saliency is None else scene.saliency
        pictures = {"image": scene.image, "mask": scene.mask, "saliency": 255 * salient.astype(np.uint8)}
        if self._folder:
            for name, picture in pictures.items():
                _write(self._folder / name / f"{image_id}.png", partial(Image.fromarray(picture).save, compress_level=1))
        return pictures[kind].copy()


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        save(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
