"""One toy scene: things are chosen, placed and drawn, and give image, mask and saliency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from toyscenes.canvas import Canvas, Pose, light_ramp
from toyscenes.objects import DISTRACTORS, TOYS
from toyscenes.places import paint_place, photograph
from toyscenes.saliency import IGNORE, simulate_saliency

VERSION = 1  # raise it whenever a seed gives other pixels than before: caches depend on it

CLASSES: tuple[str, ...] = tuple(toy.name for toy in TOYS)
FOLDS: dict[int, tuple[int, ...]] = {f: tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)}

MIN_SIZE = 32
OBJECTS_PER_IMAGE = (0.55, 0.33, 0.12)  # probability of one, two, three objects
KINSHIP = 0.4  # probability that a further object is of the first one's fold; else of any class
MAIN_AREA, OTHER_AREA = (0.12, 0.33), (0.025, 0.09)  # wanted share of the image


@dataclass(frozen=True)
class Scene:
    """One rendered scene of side S."""

    image: np.ndarray  # uint8 [S, S, 3], RGB
    mask: np.ndarray  # uint8 [S, S], 1..20, 0 background, 255 on the outer rim of each object
    saliency: np.ndarray | None  # bool [S, S], simulated; None where nothing is salient
    #: class id and (left, top, right, bottom) of what is visible, back to front
    objects: tuple[tuple[int, tuple[int, int, int, int]], ...]


def render_scene(seed: int | Sequence[int], size: int = 128) -> Scene:
    """Render the scene of a seed.

    Composition, colours and saliency noise are drawn in unit coordinates, so that another ``size``
    shows the same scene; only the grain of the "camera" is made per pixel.

    Args:
        seed: anything that :func:`numpy.random.default_rng` accepts as a seed.
        size: side of the square image in pixels, at least 32.

    Raises:
        ValueError: when ``size`` is below 32.
    """
    if size < MIN_SIZE:
        raise ValueError(f"toy scenes need size >= {MIN_SIZE}, got {size}")
    rng, camera_rng, saliency_rng = np.random.default_rng(seed).spawn(3)

    # the things of the scene, drawn over a place from back to front
    image, horizon = paint_place(rng, size)
    things = compose(rng, horizon)
    owner = np.zeros((size, size), np.uint8)  # 0, or 1 + index of the thing that is seen at a pixel
    light = light_ramp(rng.uniform(210, 330))
    for index, thing in enumerate(things, start=1):
        canvas = Canvas(thing.rng, thing.pose, size, light)
        thing.paint(canvas)
        _paste(canvas, image, owner, index, grounded=thing.grounded)

    # what is seen of each: its class, its box
    owner_class = np.array([0, *(thing.class_id for thing in things)], np.uint8)
    mask = with_rim(owner_class[owner], owner)
    distractors = (owner_class[owner] == 0) & (owner > 0)
    boxes = ndimage.find_objects(owner, max_label=len(things))
    objects = tuple(
        (thing.class_id, (box[1].start, box[0].start, box[1].stop, box[0].stop))
        for thing, box in zip(things, boxes, strict=True)
        if thing.class_id and box is not None
    )

    salient = simulate_saliency(mask, saliency_rng, distractors=distractors)
    return Scene(photograph(image, camera_rng), mask, salient, objects)


# ------------------------------------------------------------------------------------- composition
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
    """Choose the things of a scene, back to front.

    Distractors, one main object, smaller ones, rarely a distractor in front.
    """
    things = [_place_object(rng, int(rng.integers(1, len(TOYS) + 1)), horizon, [])]
    kin = next(ids for ids in FOLDS.values() if things[0].class_id in ids)
    for _ in range(rng.choice(3, p=OBJECTS_PER_IMAGE)):
        class_id = rng.choice(kin) if rng.random() < KINSHIP else rng.integers(1, len(TOYS) + 1)
        things.append(_place_object(rng, int(class_id), horizon, things))
    things.sort(key=lambda thing: (thing.grounded, thing.foot))
    clutter = [_place_distractor(rng, horizon) for _ in range(rng.integers(1, 6))]
    in_front = [thing for thing in clutter if thing.pose.scale < 0.07 and rng.random() < 0.5]
    return [thing for thing in clutter if thing not in in_front] + things + in_front


def _place_object(
    rng: np.random.Generator, class_id: int, horizon: float, others: list[Thing]
) -> Thing:
    """Find a pose.

    The main object may stand anywhere, sometimes cut by the border; others where they hide little
    of what stands there.
    """
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
        return x, rng.uniform(
            low, max(low, min(high, 0.62)) if toy.home == "air" and at_home else high
        )

    def clearance(place: tuple[float, float]) -> float:
        gaps = [
            np.hypot(place[0] - o.pose.x, place[1] - o.pose.y) - 0.85 * (scale + o.pose.scale)
            for o in others
        ]
        return float(min([*gaps, rng.uniform(-0.1, 0.2)]))  # some overlap is welcome

    x, y = max((spot() for _ in range(1 if main else 6)), key=clearance)
    angle = rng.uniform(-toy.tilt, toy.tilt)
    pose = Pose(
        x,
        y,
        scale,
        angle,
        bool(rng.random() < 0.5),
        rng.uniform(0.88, 1.14),
        rng.uniform(-0.1, 0.1),
    )
    return Thing(class_id, toy.paint, pose, rng.spawn(1)[0], grounded)


def _place_distractor(rng: np.random.Generator, horizon: float) -> Thing:
    paint = DISTRACTORS[rng.integers(len(DISTRACTORS))]
    scale, x = rng.uniform(0.03, 0.13), rng.uniform(0, 1)
    y = rng.uniform(0 if rng.random() < 0.4 else horizon, 1)
    pose = Pose(x, y, scale, rng.uniform(-40, 40), bool(rng.random() < 0.5), rng.uniform(0.8, 1.25))
    return Thing(0, paint, pose, rng.spawn(1)[0], grounded=y > horizon)


def _paste(
    canvas: Canvas, image: np.ndarray, owner: np.ndarray, index: int, *, grounded: bool
) -> None:
    """Put a canvas over the image (in place), after its shadow, and note which pixels it owns."""
    size = len(owner)
    colour, cover = canvas.layer()
    height, width = cover.shape[:2]
    y0, x0, y1, x1 = (
        max(canvas.top, 0),
        max(canvas.left, 0),
        min(canvas.top + height, size),
        min(canvas.left + width, size),
    )
    if y0 >= y1 or x0 >= x1:
        return
    seen = np.s_[y0 - canvas.top : y1 - canvas.top, x0 - canvas.left : x1 - canvas.left]
    here = np.s_[y0:y1, x0:x1]
    if grounded and (rows := np.flatnonzero(cover.any(axis=(1, 2)))).size:
        image[here] *= 1 - 0.55 * _shadow(cover[..., 0], rows[0], rows[-1])[seen][..., None]
    image[here] = image[here] * (1 - cover[seen]) + colour[seen]
    owner[here][cover[seen][..., 0] >= 0.5] = index


def _shadow(cover: np.ndarray, top: int, foot: int) -> np.ndarray:
    """A soft contact shadow, float32 [H, W] in 0..1: the silhouette laid flat at its foot."""
    tall = foot - top + 1
    flat = Image.fromarray(cover[top : foot + 1]).resize(
        (cover.shape[1], max(1, tall // 5)), Image.Resampling.BILINEAR
    )
    ground = np.zeros_like(cover)
    start = foot - flat.height // 2
    ground[start : start + flat.height] = np.asarray(flat)[: len(ground) - start]
    return ndimage.gaussian_filter(ground, 0.03 * tall + 0.5, truncate=2)


def with_rim(mask: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mark as ignored, as PASCAL VOC does, the pixels just outside an object, uint8 [S, S].

    There its colour and what lies behind it mix. One pixel wide, two from 192 px on. Thin parts
    keep their label.
    """
    rank = np.where(mask > 0, owner, 0).astype(np.uint8)
    width = 1 if len(mask) < 192 else 2
    near = np.asarray(Image.fromarray(rank).filter(ImageFilter.MaxFilter(2 * width + 1)))
    return np.where(near > rank, IGNORE, mask).astype(np.uint8)
