"""The small drawing toolkit of the toy scenes: palettes, outlines, and a canvas that fills them.

A painter draws one object upright in the square ``[-1, 1] x [-1, 1]`` (x to the right, y *down*),
from filled outlines only. The :class:`Canvas` does the rest: it carries the random generator,
places the outline in the image (rotation, mirror, stretch, shear, scale), shades it as if lit from
one side, and records which pixels it covers. Everything is chosen in unit coordinates, so that a
scene is the same scene at any image size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Points = np.ndarray  # float [N, 2], an outline or a path
Colour = np.ndarray  # float [3], RGB in 0..255
Palette = tuple[
    tuple[float, float], tuple[float, float], tuple[float, float]
]  # ranges of hue (in turns), saturation, value

RED: Palette = ((0.97, 1.02), (0.75, 0.95), (0.60, 0.92))
ORANGE: Palette = ((0.05, 0.09), (0.75, 0.95), (0.75, 0.98))
YELLOW: Palette = ((0.12, 0.16), (0.65, 0.95), (0.80, 0.98))
GREEN: Palette = ((0.22, 0.40), (0.50, 0.85), (0.35, 0.75))
BLUE: Palette = ((0.53, 0.66), (0.50, 0.90), (0.45, 0.90))
PURPLE: Palette = ((0.72, 0.82), (0.35, 0.75), (0.45, 0.85))
PINK: Palette = ((0.88, 0.96), (0.35, 0.70), (0.80, 0.98))
BROWN: Palette = ((0.04, 0.09), (0.45, 0.75), (0.30, 0.60))
CREAM: Palette = ((0.07, 0.14), (0.08, 0.25), (0.82, 0.98))
GREY: Palette = ((0.00, 1.00), (0.00, 0.10), (0.35, 0.70))
WHITE: Palette = ((0.00, 1.00), (0.00, 0.06), (0.90, 1.00))
BLACK: Palette = ((0.00, 1.00), (0.00, 0.25), (0.08, 0.20))
GLASS: Palette = ((0.50, 0.60), (0.15, 0.45), (0.65, 0.95))
VIVID: Palette = ((0.00, 1.00), (0.60, 0.95), (0.55, 0.95))
PASTEL: Palette = ((0.00, 1.00), (0.15, 0.45), (0.75, 0.98))


def dye(rng: np.random.Generator, *palettes: Palette) -> Colour:
    """A random colour from one of the palettes."""
    hue, saturation, value = (rng.uniform(*span) for span in palettes[rng.integers(len(palettes))])
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


# ---------------------------------------------------------------------------------------- outlines
def ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float | None = None,
    start: float = 0,
    stop: float = 360,
    turn: float = 0,
) -> Points:
    """Arc of an ellipse round (x, y), from ``start`` to ``stop`` degrees (0 = right, 90 = down).

    The axes are turned by ``turn`` degrees.
    """
    t = np.radians(np.linspace(start, stop, 33))
    arc = np.stack([rx * np.cos(t), (rx if ry is None else ry) * np.sin(t)], axis=1)
    return rotate(arc, turn, at=(x, y))


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Rectangle with corners (x0, y0) and (x1, y1)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def curve(points: Sequence[tuple[float, float]] | Points, closed: bool = True) -> Points:
    """Smooth curve through all points (Catmull-Rom)."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, 7)[:-1, None]
    smooth = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return smooth.reshape(-1, 2) if closed else np.concatenate([smooth.reshape(-1, 2), p[-1:]])


def stroke(path: Sequence[tuple[float, float]] | Points, *widths: float) -> Points:
    """Outline of a line along ``path`` whose width runs through ``widths`` from end to end."""
    path = np.asarray(path, float)
    along = np.gradient(path, axis=0)
    normal = (
        along[:, ::-1] * (-1, 1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    )
    half = (
        np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    )
    return np.concatenate([path + normal * half, (path - normal * half)[::-1]])


def symmetric(half: Sequence[tuple[float, float]]) -> Points:
    """Close the right half of an outline, listed from top to bottom, with its mirror image."""
    right = np.asarray(half, float)
    return np.concatenate([right, (right * (-1, 1))[::-1]])


def rotate(points: Points, degrees: float, at: tuple[float, float] = (0, 0)) -> Points:
    """Turn round the origin, clockwise as seen on the screen, then move the origin to ``at``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([(c, s), (-s, c)]) + np.array(at)


# -------------------------------------------------------------------------------------- the canvas
@dataclass(frozen=True)
class Pose:
    """Where an object stands: the painter's square [-1, 1]^2 is mapped to the image of side 1."""

    x: float
    y: float
    scale: float  # half the side of the square
    angle: float = 0.0  # degrees
    flip: bool = False
    stretch: float = 1.0  # width grows and height shrinks by this factor
    shear: float = 0.0

    @property
    def matrix(self) -> np.ndarray:
        """Float [2, 2]; a row of coordinates times it gives an offset from (x, y)."""
        sign = -1.0 if self.flip else 1.0
        local = np.array([(sign * self.stretch, 0.0), (self.shear, 1 / self.stretch)])
        return self.scale * rotate(local, self.angle)


def light_ramp(direction: float) -> Image.Image:
    """How lit a round thing is, 0..255, from ``direction`` (degrees; 270 = from above).

    Returns:
        An "L" image, 64 x 64.
    """
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    dx, dy = 0.5 * np.cos(np.radians(direction)), 0.5 * np.sin(np.radians(direction))
    return Image.fromarray(
        (255 * np.clip(1 - np.hypot(x - dx, y - dy) / 1.7, 0, 1)).astype(np.uint8)
    )


class Canvas:
    """A transparent square round one object, and the random choices of its painter.

    Args:
        rng: every choice of the painter comes from it.
        pose: where the object stands in the image.
        size: side of the image in pixels.
        light: from :func:`light_ramp`.
        detail: painted this many times larger, averaged down at the end (anti-aliasing).
    """

    REACH = 1.5  # painters stay within this distance of the centre, in units of the pose's scale

    def __init__(
        self, rng: np.random.Generator, pose: Pose, size: int, light: Image.Image, detail: int = 3
    ) -> None:
        self.rng, self.light, self.detail = rng, light, detail
        reach = self.REACH * pose.scale * max(pose.stretch, 1 / pose.stretch) * size
        self.left = int(pose.x * size - reach) - 1  # in image pixels
        self.top = int(pose.y * size - reach) - 1
        side = (int(2 * reach) + 4) * detail
        self._matrix = pose.matrix * size * detail
        self._centre = (np.array([pose.x, pose.y]) * size - (self.left, self.top)) * detail
        self._line = max(1, round(0.03 * pose.scale * size * detail))
        self.colour = Image.new("RGB", (side, side))
        self.cover = Image.new("L", (side, side))

    def layer(self) -> tuple[np.ndarray, np.ndarray]:
        """The finished painting.

        Returns:
            Colour times coverage, float32 [H, W, 3] in 0..255, and coverage, float32 [H, W, 1] in
            0..1.
        """
        colour, cover = (
            np.asarray(self.colour.reduce(self.detail)),
            np.asarray(self.cover.reduce(self.detail)),
        )
        return colour.astype(np.float32), cover[..., None] / np.float32(255)

    # choices
    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def dye(self, *palettes: Palette) -> Colour:
        return dye(self.rng, *palettes)

    # marks
    def fill(
        self,
        outline: Points,
        colour: Colour,
        *,
        shade: float = 0.35,
        gloss: float = 0.0,
        opacity: float = 1.0,
        edge: float = 0.72,
        within: Image.Image | None = None,
    ) -> Image.Image:
        """Fill an outline and return the filled region, an "L" mask of 0 and 255.

        Args:
            shade: how much brighter its lit and darker its other side is.
            gloss: strength of a white highlight.
            opacity: below 1 the paint only tints what is there already and covers nothing new.
            edge: brightness of a thin line along the outline; 1 for none.
            within: a region that the paint must not leave.
        """
        corners = (np.asarray(outline, float) @ self._matrix + self._centre).ravel()
        region = Image.new("L", self.cover.size)
        ImageDraw.Draw(region).polygon(corners.tolist(), fill=255)
        if within is not None:
            region = ImageChops.multiply(region, within)
        if (bounds := region.getbbox()) is None:
            return region
        x0, y0, x1, y1 = bounds
        # Shading is a palette look-up: the light ramp, stretched over the region, indexes 256
        # tones of the colour.
        level = np.linspace(0, 1, 256)[:, None]
        tones = (
            colour * (1 + shade * (2 * level - 1.1))
            + 255 * gloss * np.clip(level - 0.8, 0, 1) / 0.2
        )
        paint = self.light.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
        paint.putpalette(np.clip(tones, 0, 255).astype(np.uint8).tobytes())
        paint = paint.convert("RGB")
        if edge < 1:
            line = (np.append(corners, corners[:2]).reshape(-1, 2) - (x0, y0)).ravel().tolist()
            ImageDraw.Draw(paint).line(
                line,
                fill=tuple(int(v) for v in np.clip(colour * edge, 0, 255)),
                width=2 * self._line,
            )
        stencil = region.crop(bounds)
        if opacity < 1:
            stencil = ImageChops.multiply(stencil, self.cover.crop(bounds)).point(
                [int(v * opacity) for v in range(256)]
            )
        else:
            self.cover.paste(255, bounds, stencil)
        self.colour.paste(paint, bounds, stencil)
        return region

    def line(
        self,
        path: Sequence[tuple[float, float]] | Points,
        colour: Colour,
        *widths: float,
        **fill: Any,
    ) -> Image.Image:
        """Draw along a path, with a width that may change from end to end."""
        return self.fill(stroke(path, *widths), colour, **fill)
