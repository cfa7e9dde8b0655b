"""Textured places in which the objects of a toy scene stand, and the camera."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from toyscenes.canvas import Colour, Palette, dye


def noise(
    rng: np.random.Generator, size: int, *octaves: int, stretch: tuple[int, int] = (1, 1)
) -> np.ndarray:
    """Smooth noise, float32 [S, S], about -1..1.

    Each octave has the given number of cells along a side and is weaker than the one before.
    ``stretch`` divides the number of cells along (y, x): (1, 4) gives horizontal streaks.
    """
    total = np.zeros((size, size), np.float32)
    for k, cells in enumerate(octaves):
        shape = (max(2, cells // stretch[0]), max(2, cells // stretch[1]))
        grid = Image.fromarray(rng.uniform(-1, 1, shape).astype(np.float32))
        total += 0.6**k * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    return total


def blend(low: Colour, high: Colour, weight: np.ndarray) -> np.ndarray:
    """Colour ``low`` where weight [S, S] is 0, ``high`` where it is 1. float32 [S, S, 3]."""
    share = np.clip(weight, 0, 1).astype(np.float32)[..., None]
    return np.asarray(low, np.float32) + share * np.asarray(high - low, np.float32)


SKIES: tuple[tuple[Palette, Palette], ...] = (  # above, at the horizon
    (((0.55, 0.62), (0.45, 0.75), (0.70, 0.95)), ((0.52, 0.60), (0.10, 0.30), (0.90, 1.00))),  # day
    (
        ((0.60, 0.75), (0.35, 0.60), (0.35, 0.60)),
        ((0.02, 0.10), (0.40, 0.70), (0.85, 1.00)),
    ),  # dusk
    (
        ((0.55, 0.65), (0.02, 0.15), (0.55, 0.80)),
        ((0.55, 0.65), (0.02, 0.10), (0.75, 0.95)),
    ),  # overcast
    (
        ((0.60, 0.70), (0.50, 0.80), (0.12, 0.25)),
        ((0.60, 0.72), (0.35, 0.60), (0.25, 0.45)),
    ),  # night
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
        centres = (np.arange(size, dtype=np.float32)[None] + 0.5) / size
        self.x = centres * np.ones((size, 1), np.float32)
        self.y = self.x.T


def paint_place(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    """Paint an empty place, float32 [S, S, 3] in 0..255; its horizon in unit coordinates."""
    places = (landscape, seaside, room, thicket, underwater)
    place, horizon = (
        places[rng.choice(len(places), p=[0.38, 0.14, 0.28, 0.12, 0.08])],
        float(rng.uniform(0.35, 0.75)),
    )
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
            roofs = rng.uniform(0.02, 0.25, 12)  # of a town
            ridge = horizon - roofs[(12 * g.x[0]).astype(int)]
        hill = blend(soil * rng.uniform(0.5, 0.9), haze, np.full(g.y.shape, 0.6 - 0.25 * k))
        image = np.where(
            (g.y > ridge)[..., None],
            hill * (1 + 0.06 * noise(rng, g.size, 16, 48)[..., None]),
            image,
        )
    edge = horizon + 0.02 * noise(rng, g.size, 4, 12)[0]
    return np.where((g.y > edge)[..., None], _ground(rng, g, soil), image)


def seaside(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """Sky over water with waves that grow towards the viewer, sometimes a beach."""
    image, sea = _sky(rng, g, horizon), dye(rng, WATER)
    depth = np.clip((g.y - horizon) / (1 - horizon), 1e-3, 1)
    waves = (
        np.sin(60 * np.sqrt(depth) + 3 * noise(rng, g.size, 4, 8)) * 0.3
        + noise(rng, g.size, 24, 64, stretch=(1, 6)) * 0.35
    )
    image = np.where(
        (g.y > horizon)[..., None], blend(sea * 0.75, sea * 1.3 + 25, 0.45 + waves), image
    )
    if rng.random() < 0.4:
        shore = rng.uniform(0.8, 0.95) + 0.04 * noise(rng, g.size, 3, 6)[0]
        image = np.where((g.y > shore)[..., None], _ground(rng, g, dye(rng, GROUNDS[1])), image)
    return image


def room(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """A wall, plain or with a pattern, over a floor or table of boards or cloth."""
    paper = dye(rng, WALLS)
    other, turns = paper * rng.uniform(0.75, 0.95), 2 * np.pi * rng.integers(4, 12)
    patterns = (
        np.zeros_like(g.x),
        np.sin(turns * g.x),
        np.sin(turns * g.x) * np.sin(turns * g.y),
        np.sin(turns * (g.x + g.y) / 2),
    )
    motif = patterns[rng.integers(4)] * rng.uniform(1, 4)
    wall = blend(other, paper, 0.5 + 0.5 * motif + 0.25 * noise(rng, g.size, 4, 16, 64))
    plank = dye(rng, WOOD) if rng.random() < 0.7 else dye(rng, WALLS)
    depth = np.clip((g.y - horizon) / (1 - horizon), 0, 1)
    across = (g.x - 0.5) / (0.5 + depth) * rng.integers(5, 10)
    seams = (
        (np.abs(across % 1 - 0.5) > 0.47)
        if rng.random() < 0.6
        else np.abs(np.sqrt(depth) * 6 % 1 - 0.5) > 0.45
    )
    grain = noise(rng, g.size, 6, 24, 64, stretch=(6, 1) if rng.random() < 0.5 else (1, 6))
    floor = blend(plank * 0.75, plank * 1.1, 0.55 + 0.3 * grain - 0.5 * seams)
    image = np.where((g.y > horizon)[..., None], floor * (0.8 + 0.3 * depth[..., None]), wall)
    skirting = np.abs(g.y - horizon + 0.015) < rng.uniform(0, 0.02)
    return np.where(skirting[..., None], dye(rng, WALLS) * 0.9, image)


def thicket(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """A close view with no horizon: foliage, pebbles or cloth, in two or three colours."""
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    base = blend(
        dye(rng, ground) * 0.45, dye(rng, ground), 0.5 + 0.5 * noise(rng, g.size, 8, 16, 32, 64)
    )
    flecks = noise(rng, g.size, 14, 28) > rng.uniform(0.45, 0.75)
    return np.where(
        flecks[..., None],
        blend(dye(rng, ground) * 0.8, dye(rng, *GROUNDS), 0.5 + 0.5 * noise(rng, g.size, 20, 60)),
        base,
    )


def underwater(rng: np.random.Generator, g: Grid, horizon: float) -> np.ndarray:
    """Blue-green depth with slanting rays and a sandy bed."""
    sea = dye(rng, WATER)
    image = blend(sea * 1.5 + 20, sea * 0.6, g.y + 0.15 * noise(rng, g.size, 4, 8, 32))
    rays = np.sin(
        (g.x + rng.uniform(-0.6, 0.6) * g.y) * rng.uniform(15, 30) + rng.uniform(0, 6)
    ) * np.clip(1 - 1.3 * g.y, 0, 1)
    image = image * (1 + 0.25 * np.clip(rays, 0, 1))[..., None]
    bed = max(horizon, 0.6) + 0.05 * noise(rng, g.size, 3, 8)[0]
    return np.where(
        (g.y > bed)[..., None], 0.6 * _ground(rng, g, dye(rng, GROUNDS[1])) + 0.4 * sea, image
    )


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, lens and sensor: float32 [S, S, 3] to uint8 [S, S, 3].

    Uneven illumination, vignette, white balance, exposure, blur and grain.
    """
    size = len(image)
    g = Grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    light = (
        1
        + rng.uniform(0, 0.25) * ((g.x - 0.5) * np.cos(angle) + (g.y - 0.5) * np.sin(angle))
        + 0.08 * noise(rng, size, 3, 6)
    )
    vignette = 1 - rng.uniform(0, 0.5) * ((g.x - 0.5) ** 2 + (g.y - 0.5) ** 2)
    balance = rng.uniform(0.92, 1.08, 3)
    image = (
        image
        * (light * vignette)[..., None]
        * (balance * rng.uniform(0.85, 1.3)).astype(np.float32)
    )
    blur, grain = float(rng.choice([0, 0, 0.003, 0.006])) * size, rng.uniform(1, 6)
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=3) if blur else image
    image = image + grain * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)
