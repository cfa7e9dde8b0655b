"""The twenty classes of the toy scenes, and the distractors: one painter each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from toyscenes.canvas import (
    BLACK,
    BLUE,
    BROWN,
    CREAM,
    GLASS,
    GREEN,
    GREY,
    ORANGE,
    PASTEL,
    PINK,
    PURPLE,
    RED,
    VIVID,
    WHITE,
    YELLOW,
    Canvas,
    Colour,
    box,
    curve,
    ellipse,
    rotate,
    symmetric,
)


# -------------------------------------------------------------------------------------- the classes
@dataclass(frozen=True)
class Toy:
    """A class: how to paint it, and how it likes to stand."""

    name: str
    paint: Callable[[Canvas], None]
    home: str  # "ground", "air" or "any": where in the image it belongs
    tilt: float  # degrees of free rotation to either side
    bulk: float  # share of its square that it covers on average


TOYS: list[Toy] = []  # in the order of definition; the class id is the place in this list, from 1


def toy(
    home: str, tilt: float, bulk: float
) -> Callable[[Callable[[Canvas], None]], Callable[[Canvas], None]]:
    """Register a painter as the next class."""

    def register(paint: Callable[[Canvas], None]) -> Callable[[Canvas], None]:
        TOYS.append(Toy(paint.__name__, paint, home, tilt, bulk))
        return paint

    return register


def leaf(c: Canvas, x: float, y: float, length: float, angle: float, colour: Colour) -> None:
    """A pointed leaf with a midrib that grows from (x, y) at an angle (0 = to the right)."""
    half = 0.24 * length
    outline = curve([(0, 0), (0.35 * length, -half), (length, 0), (0.35 * length, half)])
    c.fill(rotate(outline, angle, at=(x, y)), colour)
    c.line(
        rotate(np.array([(0, 0), (0.9 * length, 0)]), angle, at=(x, y)), colour * 0.65, 0.03, edge=1
    )


def eye(c: Canvas, x: float, y: float, r: float) -> None:
    c.fill(ellipse(x, y, r), c.dye(WHITE), shade=0)
    c.fill(ellipse(x, y, 0.6 * r), c.dye(BLACK), shade=0, edge=1)
    c.fill(ellipse(x - 0.2 * r, y - 0.25 * r, 0.2 * r), c.dye(WHITE), shade=0, edge=1)


# fold 0: what grows
@toy("ground", tilt=25, bulk=0.62)
def apple(c: Canvas) -> None:
    skin, blush = c.dye(RED, RED, GREEN, YELLOW), c.dye(RED, YELLOW)
    wide, low, dip = c.between(0.78, 0.98), c.between(0.4, 0.65), c.between(0.45, 0.6)
    half = [
        (0, -dip),
        (0.4, -0.72),
        (wide, -0.3),
        (0.92 * wide, 0.3),
        (low, 0.78),
        (0.15, 0.9),
        (0, 0.84),
    ]
    c.line(
        curve([(0, -0.4), (0.02, -0.75), (c.between(-0.2, 0.25), -1.05)], closed=False),
        c.dye(BROWN),
        0.08,
        0.12,
    )
    body = c.fill(curve(symmetric(half)), skin, shade=0.5, gloss=c.between(0.2, 0.8))
    x, y, strength = c.between(-0.6, 0.6), c.between(-0.3, 0.5), c.between(0, 0.25)
    for r in (0.35, 0.5, 0.65):
        c.fill(ellipse(x, y, r, 1.2 * r), blush, opacity=strength, edge=1, within=body)
    for _ in range(c.pick(0, 0, 12)):
        c.fill(
            ellipse(c.between(-0.7, 0.7), c.between(-0.5, 0.7), 0.025),
            c.dye(CREAM),
            opacity=0.7,
            edge=1,
            within=body,
        )
    c.fill(ellipse(0, -dip - 0.02, 0.28, 0.09), skin * 0.5, opacity=0.7, edge=1, within=body)
    c.line([(0, -dip + 0.02), (0.02, -0.75)], c.dye(BROWN), 0.08, 0.1)
    if c.chance(0.65):
        leaf(
            c,
            0.03,
            -0.72,
            c.between(0.45, 0.7),
            c.between(-50, 0) if c.chance(0.5) else c.between(180, 230),
            c.dye(GREEN),
        )


@toy("ground", tilt=60, bulk=0.44)
def banana(c: Canvas) -> None:
    skin = c.dye(YELLOW, YELLOW, YELLOW, ((0.18, 0.24), (0.55, 0.8), (0.65, 0.85)))
    bend, fat, spots = c.between(0.35, 0.75), c.between(0.34, 0.5), c.pick(0, 0, 6, 14)
    count = c.pick(1, 1, 2, 3)
    spine = curve(
        [(-0.05, 0.5 - bend), (0.3, 0.65), (0.9, 0.88), (1.5, 0.65), (1.85, 0.5 - bend)],
        closed=False,
    )
    for i in range(count):
        path = rotate(0.95 * spine, 24 * (i - (count - 1) / 2), at=(-0.85, -0.45))
        body = c.line(path, skin, 0.1, 0.8 * fat, fat, 0.9 * fat, 0.1, shade=0.4)
        c.line(path - 0.03, skin * 0.82, 0.02, 0.05, 0.05, 0.02, edge=1, within=body)
        for _ in range(spots):
            x, y = path[c.rng.integers(5, len(path) - 4)] + c.rng.uniform(-0.13, 0.13, 2)
            c.fill(
                ellipse(x, y, c.between(0.02, 0.06), 0.02, turn=40),
                c.dye(BROWN),
                opacity=0.75,
                edge=1,
                within=body,
            )
        c.line(path[-3:], c.dye(BROWN), 0.16, 0.08)
        c.line(path[:4] - 0.03, skin * 0.7, 0.1, 0.16)


@toy("ground", tilt=18, bulk=0.27)
def flower(c: Canvas) -> None:
    stem, petal, heart = (
        c.dye(GREEN),
        c.dye(RED, PINK, YELLOW, PURPLE, WHITE, BLUE, ORANGE),
        c.dye(YELLOW, ORANGE, BROWN),
    )
    top = -0.35
    if c.chance(0.8):
        c.line(
            curve([(0, top), (c.between(-0.15, 0.15), 0.4), (0, 1.05)], closed=False),
            stem,
            0.09,
            0.12,
        )
        for angle in c.pick([], [-40], [-35, 215]):
            leaf(c, 0, c.between(0.6, 0.9), c.between(0.5, 0.75), angle, stem * 0.9)
    if c.chance(0.25):  # a tulip
        for half in (
            [(0, -1), (0.28, -0.5), (0.2, 0.15)],
            [(0.55, -0.95), (0.62, -0.3), (0.25, 0.2)],
        ):
            c.fill(curve(symmetric([(0, -0.75), *half, (0, 0.22)])), petal, shade=0.4)
        c.fill(
            curve(symmetric([(0, -0.8), (0.3, -0.3), (0.2, 0.15), (0, 0.22)])),
            petal * 1.1,
            shade=0.4,
        )
        return
    count, long, slim = c.rng.integers(5, 15), c.between(0.52, 0.68), c.between(0.8, 1.3)
    for ring in range(c.pick(1, 1, 2)):
        for k in range(count):
            reach = long * (1 - 0.25 * ring)
            shape = curve(
                [
                    (0.1, 0),
                    (0.6 * reach, -slim * 1.9 * reach / count),
                    (reach, 0),
                    (0.6 * reach, slim * 1.9 * reach / count),
                ]
            )
            c.fill(
                rotate(shape, 360 * (k + ring / 2) / count, at=(0, top)),
                petal * (1 - 0.12 * ring),
                shade=0.25,
            )
    disc = c.fill(ellipse(0, top, c.between(0.15, 0.27)), heart, shade=0.5)
    for _ in range(10):
        c.fill(
            ellipse(c.between(-0.2, 0.2), top + c.between(-0.2, 0.2), 0.03),
            heart * 0.6,
            edge=1,
            within=disc,
        )


@toy("ground", tilt=14, bulk=0.42)
def mushroom(c: Canvas) -> None:
    cap, stalk = c.dye(RED, RED, BROWN, ORANGE, CREAM), c.dye(CREAM)
    wide, high, thick, curl = (
        c.between(0.7, 1.0),
        c.between(0.55, 0.95),
        c.between(0.2, 0.4),
        c.between(-0.05, 0.15),
    )
    brim = -0.05
    c.fill(
        curve(
            symmetric(
                [
                    (0.0, brim - 0.1),
                    (0.8 * thick, brim),
                    (0.75 * thick, 0.5),
                    (1.15 * thick, 0.9),
                    (0, 1.0),
                ]
            )
        ),
        stalk,
        shade=0.3,
    )
    c.fill(ellipse(0, brim, 0.9 * wide, 0.16), stalk * 0.7, shade=0.15)
    for x in np.linspace(-0.7, 0.7, 9) * wide:
        c.line([(0.3 * x, brim - 0.1), (x, brim + 0.1)], stalk * 0.5, 0.025, edge=1, opacity=0.6)
    peak = brim - high
    half = [
        (0, peak),
        (0.45 * wide, peak + 0.12 * high),
        (0.9 * wide, peak + 0.6 * high),
        (wide, brim + curl),
        (0.6 * wide, brim - 0.03),
    ]
    dome = c.fill(curve(symmetric([*half, (0, brim)])), cap, shade=0.5, gloss=c.between(0, 0.5))
    if c.chance(0.65):
        for _ in range(c.rng.integers(5, 12)):
            x, y, r = c.between(-0.85, 0.85) * wide, c.between(peak, brim), c.between(0.05, 0.14)
            c.fill(ellipse(x, y, r, 0.75 * r), c.dye(WHITE), shade=0.15, within=dome)
    if c.chance(0.4):
        c.fill(
            curve(symmetric([(0, 0.12), (1.3 * thick, 0.3), (0.7 * thick, 0.3), (0, 0.28)])),
            stalk * 0.93,
            shade=0.2,
        )


@toy("ground", tilt=6, bulk=0.38)
def tree(c: Canvas) -> None:
    crown, bark = c.dye(GREEN, GREEN, GREEN, ((0.05, 0.12), (0.6, 0.9), (0.5, 0.8))), c.dye(BROWN)
    if c.chance(0.5):  # a conifer
        c.fill(box(-0.1, 0.6, 0.1, 1.05), bark)
        tiers, wide = c.rng.integers(3, 6), c.between(0.55, 0.8)
        for k in reversed(range(tiers)):
            top, low, span = (
                -1.05 + 1.2 * k / tiers,
                -0.35 + 1.15 * (k + 0.3) / tiers,
                wide * (0.4 + 0.6 * (k + 1) / tiers),
            )
            frayed = [(span * (1 - 2 * i / 8), low + (0.1 if i % 2 else 0.0)) for i in range(9)]
            c.fill(
                np.array([(0, top), *frayed]),
                crown * (0.85 + 0.3 * (tiers - k) / tiers),
                shade=0.45,
            )
        if c.chance(0.2):
            c.fill(ellipse(0, -1.02, 0.09), c.dye(YELLOW), gloss=0.5)
        return
    lean = c.between(-0.15, 0.15)
    c.line([(lean, -0.3), (lean / 2, 0.4), (0, 1.05)], bark, 0.12, 0.18, 0.32)
    for side in (-1, 1):
        c.line([(lean / 2, 0.35), (side * 0.45, -0.1)], bark, 0.1, 0.05)
    for k in range(14):
        angle, far = c.between(0, 2 * np.pi), c.between(0.1, 0.55)
        x, y, r = (
            lean + far * np.cos(angle) * 0.95,
            -0.4 + 0.75 * far * np.sin(angle),
            c.between(0.22, 0.4),
        )
        bumps = ellipse(x, y, r) + 0.05 * c.rng.standard_normal((33, 2))
        c.fill(bumps[:-1], crown * (0.75 + 0.03 * k), shade=0.5, edge=0.88)
    for _ in range(c.pick(0, 0, 9)):
        c.fill(
            ellipse(lean + c.between(-0.5, 0.5), c.between(-0.75, -0.05), 0.07),
            c.dye(RED, ORANGE),
            gloss=0.4,
        )


# fold 1: what moves by itself
@toy("any", tilt=22, bulk=0.45)
def bird(c: Canvas) -> None:
    coat, belly, bill = (
        c.dye(BLUE, RED, BROWN, YELLOW, GREY, BLACK, GREEN),
        c.dye(CREAM, ORANGE, WHITE),
        c.dye(ORANGE, YELLOW, BLACK),
    )
    fat = c.between(0.38, 0.52)
    flying = c.chance(0.4)
    if flying:
        c.fill(curve([(0.15, 0), (-0.2, -0.95), (-0.55, -1.05), (-0.35, 0.05)]), coat * 0.7)
    else:
        for x in (-0.08, 0.12):
            c.line([(x, 0.5), (x + 0.02, 0.98), (x + 0.16, 1.0)], bill * 0.8, 0.05)
    c.fill(
        np.array(
            [(-0.45, 0.0), (-1.15, c.between(-0.1, 0.5)), (-1.05, c.between(0.5, 0.7)), (-0.4, 0.3)]
        ),
        coat * 0.75,
    )
    torso = curve(
        [
            (-0.75, 0.2),
            (-0.2, -0.25),
            (0.35, -0.35),
            (0.6, 0.1),
            (0.2, 0.2 + fat),
            (-0.4, 0.2 + 0.7 * fat),
        ]
    )
    body = c.fill(torso, coat, shade=0.45)
    c.fill(ellipse(0.3, 0.45, 0.42, 0.4), belly, shade=0.3, within=body, edge=1)
    c.fill(np.array([(0.72, -0.6), (c.between(1.0, 1.2), -0.4), (0.74, -0.3)]), bill)
    if c.chance(0.25):
        c.fill(
            np.array([(0.3, -0.7), (0.3, -1.1), (0.48, -0.85), (0.55, -1.1), (0.62, -0.7)]),
            coat * 0.85,
        )
    c.fill(ellipse(0.48, -0.45, 0.34, 0.33), coat, shade=0.45)
    if flying:
        c.fill(
            curve([(0.3, 0.05), (0.15, -0.75), (-0.15, -1.15), (-0.3, -0.6), (-0.45, 0.1)]),
            coat * 0.88,
        )
    else:
        wing = c.fill(
            curve([(0.25, -0.05), (0.1, 0.3), (-0.4, 0.4), (-0.85, 0.25), (-0.3, -0.1)]),
            coat * 0.72,
            shade=0.3,
        )
        for x in (-0.5, -0.3, -0.1):
            c.line([(x + 0.15, -0.05), (x - 0.1, 0.45)], coat * 0.45, 0.035, edge=1, within=wing)
    eye(c, 0.58, -0.52, 0.09)


@toy("any", tilt=50, bulk=0.58)
def butterfly(c: Canvas) -> None:
    wing, spot, rim = (
        c.dye(ORANGE, BLUE, YELLOW, PURPLE, RED, WHITE),
        c.dye(YELLOW, WHITE, PINK, BLUE),
        c.dye(BLACK, BROWN),
    )
    up, wide, low, tail = (
        c.between(0.75, 1.0),
        c.between(0.85, 1.05),
        c.between(0.6, 0.85),
        c.between(-0.1, 0.25),
    )
    upper = curve(
        [(0.04, -0.15), (0.35, -0.75 * up), (wide, -up), (wide, -0.4), (0.6, 0.05), (0.05, 0.1)]
    )
    lower = curve(
        [(0.04, 0.05), (0.55, 0.05), (0.8, 0.35), (0.55, low), (0.32, low + tail), (0.12, 0.5)]
    )
    dots = [
        (c.between(0.3, 0.85), c.between(-0.8, -0.2), c.between(0.05, 0.14))
        for _ in range(c.rng.integers(1, 5))
    ]
    for side in (1, -1):
        for outline, hub in ((lower, (0.3, 0.3)), (upper, (0.4, -0.3))):
            margin = c.fill(outline * (side, 1), rim, shade=0.3)
            inner = ((outline - hub) * 0.8 + hub) * (side, 1)
            panel = c.fill(inner, wing, shade=0.4, within=margin, edge=1)
            for x, y in (outline[::6] - hub) * 0.85 + hub:
                c.line(
                    [(side * 0.05, 0), (side * x, y)], rim, 0.03, edge=1, opacity=0.6, within=panel
                )
        for x, y, r in [*dots, (0.5, 0.4, 0.1)]:
            c.fill(ellipse(side * x, y, r), spot, shade=0.2)
    c.fill(ellipse(0, 0.05, 0.09, 0.5), rim * 1.2, shade=0.5)
    c.fill(ellipse(0, -0.45, 0.1), rim * 1.2, shade=0.5)
    for side in (1, -1):
        c.line(
            curve([(0, -0.5), (side * 0.12, -0.8), (side * 0.3, -0.95)], closed=False), rim, 0.04
        )


def cat_head(c: Canvas, at: tuple[float, float], coat: Colour, bib: Colour, striped: bool) -> None:
    """A cat's face, seen from the front, its chin above ``at``."""
    inner, iris, dark = c.dye(PINK), c.dye(YELLOW, GREEN, BLUE), c.dye(BLACK)
    for side in ((-1, 1), (1, 1)):
        c.fill(np.array([(0.42, -0.3), (0.47, -1.05), (0.08, -0.7)]) * side + at, coat * 0.9)
        c.fill(np.array([(0.37, -0.55), (0.4, -0.9), (0.2, -0.7)]) * side + at, inner, edge=1)
    head = c.fill(
        curve(symmetric([(0, -0.82), (0.3, -0.77), (0.5, -0.47), (0.42, -0.17), (0, 0)])) + at,
        coat,
        shade=0.4,
    )
    for x in (-0.16, 0, 0.16) if striped else ():
        c.line(
            np.array([(x, -0.87), (0.7 * x, -0.6)]) + at,
            coat * 0.5,
            0.07,
            0.03,
            edge=1,
            within=head,
        )
    c.fill(ellipse(0, -0.19, 0.2, 0.14) + at, bib, shade=0.1, edge=1)
    for side in ((-1, 1), (1, 1)):
        c.fill(ellipse(0.2, -0.44, 0.1, 0.085) * side + at, iris, shade=0)
        c.fill(ellipse(0.2, -0.44, 0.035, 0.08) * side + at, dark, shade=0, edge=1)
        for y in (-0.25, -0.17):
            c.line(np.array([(0.12, -0.17), (0.62, y)]) * side + at, c.dye(WHITE), 0.02, edge=1)
    c.fill(np.array([(-0.06, -0.29), (0.06, -0.29), (0, -0.21)]) + at, inner * 0.8)


@toy("ground", tilt=8, bulk=0.52)
def cat(c: Canvas) -> None:
    coat = c.dye(ORANGE, GREY, BLACK, CREAM, BROWN, ((0.06, 0.1), (0.3, 0.6), (0.6, 0.85)))
    bib, striped = c.dye(WHITE) if c.chance(0.5) else coat * 1.1, c.chance(0.5)
    fat, far = c.between(0.42, 0.58), c.between(0.75, 1.0)
    if c.chance(0.35):  # it walks
        c.line(
            curve([(-0.75, 0.1), (-1.05, -0.2), (-1.0, -far)], closed=False), coat * 0.85, 0.2, 0.12
        )
        for x in (-0.72, -0.42, 0.3, 0.6):
            c.line(
                [(x, 0.3), (x + c.between(-0.12, 0.12), 1.0)],
                coat * (0.8 if x in (-0.42, 0.3) else 0.95),
                0.26,
                0.17,
            )
        half = 0.6 * fat
        body = c.fill(
            curve(
                [
                    (-0.9, 0.2),
                    (-0.5, -half),
                    (0.4, -half),
                    (0.8, 0.1),
                    (0.5, 0.2 + half),
                    (-0.5, 0.2 + half),
                ]
            ),
            coat,
            shade=0.4,
        )
        for x in np.linspace(-0.7, 0.4, 6) if striped else ():
            c.line([(x, -0.5), (x + 0.06, 0.25)], coat * 0.5, 0.09, 0.02, edge=1, within=body)
        return cat_head(c, (0.6, 0.12), coat, bib, striped)
    c.line(
        curve(
            [(0.3, 0.85), (far, 0.75), (far, 0.2), (far - 0.18, c.between(-0.3, 0.1))], closed=False
        ),
        coat * 0.85,
        0.2,
        0.18,
        0.13,
    )
    body = c.fill(
        curve(
            symmetric(
                [(0, -0.35), (0.3, -0.15), (fat, 0.45), (fat + 0.02, 0.9), (0.3, 1.0), (0, 1.0)]
            )
        ),
        coat,
        shade=0.4,
    )
    c.fill(ellipse(0, 0.3, 0.24, 0.42), bib, within=body, edge=1, shade=0.2)
    for side in (-1, 1):
        c.line([(side * 0.16, 0.4), (side * 0.18, 0.95)], coat * 0.95, 0.2, 0.2)
        c.fill(ellipse(side * 0.2, 0.95, 0.16, 0.09), bib, shade=0.2)
        for y in (0.2, 0.42, 0.64) if striped else ():
            c.line(
                [(side * 0.62, y), (side * 0.3, y + 0.06)],
                coat * 0.5,
                0.09,
                0.02,
                edge=1,
                within=body,
            )
    return cat_head(c, (0, -0.03), coat, bib, striped)


@toy("any", tilt=35, bulk=0.42)
def fish(c: Canvas) -> None:
    scales, trim = c.dye(ORANGE, BLUE, RED, YELLOW, GREEN, GREY, PURPLE), c.dye(VIVID, WHITE, BLACK)
    high, blunt, fork = c.between(0.38, 0.68), c.between(0.7, 0.95), c.between(0.35, 0.65)
    c.fill(curve([(-0.45, 0), (-1.05, -fork), (-0.85, 0), (-1.05, fork)]), trim, shade=0.3)
    c.fill(
        curve(
            [
                (0.3, -0.8 * high),
                (-0.05, -high - c.between(0.15, 0.4)),
                (-0.45, -0.4 * high),
                (0, -0.5 * high),
            ]
        ),
        trim,
    )
    c.fill(curve([(0.1, 0.8 * high), (-0.2, high + 0.2), (-0.4, 0.4 * high)]), trim)
    back = [(-0.65, 0), (-0.2, -0.75 * high), (0.3, -high), (blunt, -0.3 * high)]
    body = c.fill(
        curve([*back, (blunt + 0.1, 0.1), (0.3, high), (-0.2, 0.75 * high)]),
        scales,
        shade=0.5,
        gloss=0.25,
    )
    c.fill(
        ellipse(0.2, 0.9 * high, 0.8, 0.4 * high),
        scales * 0.4 + 140,
        opacity=0.6,
        edge=1,
        within=body,
    )
    match c.pick("stripes", "stripes", "scales", "band", "plain"):
        case "stripes":
            for x in np.linspace(-0.45, 0.4, c.rng.integers(3, 6)):
                c.line(
                    curve([(x, -high), (x + 0.1, 0), (x, high)], closed=False),
                    trim,
                    0.11,
                    edge=1,
                    within=body,
                )
        case "scales":
            for i, x in enumerate(np.arange(-0.4, 0.5, 0.17)):
                for y in np.arange(-high, high, 0.17) + 0.08 * (i % 2):
                    c.line(
                        ellipse(x, y, 0.1, start=-70, stop=70),
                        scales * 0.6,
                        0.03,
                        edge=1,
                        within=body,
                    )
        case "band":
            c.fill(box(-0.7, -0.1, 1.1, 0.12), trim, within=body, edge=1)
    c.fill(curve([(0.2, 0.1), (-0.15, 0.1), (-0.2, 0.35), (0.05, 0.3)]), trim * 0.85)
    c.line(ellipse(0.4, 0, 0.2, 0.6 * high, -60, 60), scales * 0.55, 0.04, edge=1)
    c.line([(blunt + 0.1, 0.16), (blunt - 0.12, 0.2)], scales * 0.4, 0.04, edge=1)
    eye(c, blunt - 0.12, -0.12, 0.1)


@toy("ground", tilt=15, bulk=0.53)
def snail(c: Canvas) -> None:
    skin = c.dye(CREAM, BROWN, GREY, ((0.1, 0.16), (0.3, 0.5), (0.6, 0.85)))
    shell, band = c.dye(BROWN, ORANGE, PINK, YELLOW, CREAM), c.dye(BROWN, CREAM, RED)
    r, x = c.between(0.55, 0.72), c.between(-0.3, -0.1)
    for reach, lean in ((0.95, 0.12), (0.75, -0.02)):
        tip = (reach + lean, c.between(-0.65, -0.4))
        c.line([(0.78, 0.2), tip], skin * 0.9, 0.08, 0.05)
        c.fill(ellipse(*tip, 0.07), skin * 0.6)
    neck = [(0.4, 0.5), (0.55, 0.05), (0.85, -0.02), (1.0, 0.25), (0.85, 0.75)]
    c.fill(curve([(-1.1, 0.9), (-0.5, 0.55), *neck, (0.6, 0.92), (-0.4, 0.95)]), skin, shade=0.45)
    c.fill(ellipse(x, 0.15, r, 0.95 * r), shell, shade=0.55, gloss=c.between(0.1, 0.5))
    turns = np.linspace(0, c.between(2.2, 3.2) * 2 * np.pi, 60)
    fade = (1 - turns / turns[-1] * 0.95) * (r - 0.04)
    coil = np.stack(
        [x + fade * np.cos(turns + 0.5), 0.15 + 0.95 * fade * np.sin(turns + 0.5)], axis=1
    )
    c.line(coil, band * 0.8, 0.13, 0.04, shade=0.2, edge=0.85)
    c.line(curve([(0.85, 0.4), (0.92, 0.45), (0.97, 0.4)], closed=False), skin * 0.5, 0.03, edge=1)


# fold 2: what carries us
@toy("air", tilt=12, bulk=0.47)
def balloon(c: Canvas) -> None:
    first, second, straw = c.dye(VIVID), c.dye(VIVID, WHITE, YELLOW), c.dye(BROWN)
    wide, neck = c.between(0.68, 0.85), c.between(0.14, 0.22)
    for x in (-1, 1):
        c.line([(x * neck, 0.4), (x * 0.14, 0.85)], c.dye(BROWN), 0.035)
    half = [
        (0, -1.05),
        (0.6 * wide, -0.9),
        (wide, -0.35),
        (0.75 * wide, 0.1),
        (neck, 0.5),
        (0, 0.5),
    ]
    bag = c.fill(curve(symmetric(half)), first, shade=0.45, gloss=0.3)
    style = c.pick("gores", "gores", "rings", "zigzag")
    if style == "gores":
        for outer, colour in ((0.8, second), (0.5, first), (0.2, second)):
            gore = curve(
                symmetric([(0, -1.1), (outer * wide, -0.35), (outer * neck, 0.5), (0, 0.55)])
            )
            c.fill(gore, colour, shade=0.45, within=bag, edge=0.85)
    elif style == "rings":
        for y in np.linspace(-0.85, 0.2, c.rng.integers(2, 5)):
            c.line(ellipse(0, y, 1.1, 0.2, 0, 180), second, 0.16, shade=0.45, within=bag, edge=1)
    else:
        teeth = [
            (x, -0.25 + (0.25 if i % 2 else -0.15)) for i, x in enumerate(np.linspace(-1, 1, 11))
        ]
        c.line(np.array(teeth), second, 0.28, shade=0.45, within=bag, edge=1)
    basket = c.fill(np.array([(-0.17, 0.78), (0.17, 0.78), (0.13, 1.08), (-0.13, 1.08)]), straw)
    for y in (0.88, 0.98):
        c.line([(-0.2, y), (0.2, y)], straw * 0.6, 0.03, edge=1, within=basket)


@toy("ground", tilt=6, bulk=0.46)
def car(c: Canvas) -> None:
    paint, glass, tyre = c.dye(VIVID, RED, BLUE, WHITE, GREY, YELLOW), c.dye(GLASS), c.dye(BLACK)
    roof, bonnet, boot = c.between(-0.72, -0.45), c.between(-0.15, 0.0), c.between(-0.2, 0.0)
    front, back, cabin = c.between(0.25, 0.45), c.between(-0.8, -0.5), c.between(-0.1, 0.2)
    if c.chance(0.3):  # a van
        roof, boot, back, cabin = c.between(-0.85, -0.7), -0.15, -0.9, c.between(0.2, 0.4)
        front = cabin + 0.2
    cab = np.array(
        [
            (back - 0.15, boot + 0.05),
            (back + 0.12, roof),
            (cabin, roof),
            (front + 0.25, bonnet + 0.05),
        ]
    )
    c.fill(cab, paint * 0.92, shade=0.3)
    windows = np.array(
        [(back, boot), (back + 0.18, roof + 0.1), (cabin - 0.03, roof + 0.1), (front + 0.1, bonnet)]
    )
    c.fill(windows, glass, shade=0.4, gloss=0.4)
    pillar = (back + front) / 2
    c.line([(pillar, roof + 0.05), (pillar, 0.1)], paint * 0.9, 0.09, edge=1)
    hull = [
        (-1.05, 0.3),
        (-1.02, boot + 0.03),
        (back, boot - 0.03),
        (front, bonnet),
        (0.95, bonnet + 0.1),
        (1.06, 0.3),
    ]
    body = c.fill(np.array([*hull, (1.0, 0.5), (-1.0, 0.5)]), paint, shade=0.4, gloss=0.25)
    c.fill(box(-1.1, 0.36, 1.1, 0.6), paint * 0.6, within=body, edge=1, opacity=0.8)
    c.line([(pillar, 0.0), (pillar, 0.42)], paint * 0.55, 0.025, edge=1)
    c.line([(pillar - 0.22, 0.12), (pillar - 0.1, 0.12)], paint * 0.4, 0.05, edge=1)
    c.fill(ellipse(0.97, 0.18, 0.08, 0.09), c.dye(YELLOW, WHITE), gloss=0.6)
    c.fill(box(-1.05, 0.1, -0.97, 0.25), c.dye(RED))
    r = c.between(0.21, 0.29)
    for x in (-0.58, 0.6):
        c.fill(ellipse(x, 0.5, 1.18 * r), paint * 0.4, within=body, edge=1)
        c.fill(ellipse(x, 0.52, r), tyre, shade=0.3)
        c.fill(ellipse(x, 0.52, 0.55 * r), c.dye(GREY), gloss=0.5)
        c.fill(ellipse(x, 0.52, 0.15 * r), tyre, edge=1)
    if c.chance(0.2):
        c.fill(box(-0.25, roof - 0.14, 0.05, roof), c.dye(YELLOW, WHITE))


@toy("air", tilt=22, bulk=0.34)
def plane(c: Canvas) -> None:
    paint, trim, glass = c.dye(WHITE, WHITE, GREY, VIVID), c.dye(VIVID), c.dye(GLASS, BLUE)
    fat, sweep = c.between(0.17, 0.28), c.between(0.15, 0.55)
    c.fill(
        np.array([(0.2, -0.05), (-0.15 - sweep, -0.72), (-0.35 - sweep, -0.72), (-0.25, -0.05)]),
        paint * 0.75,
    )
    c.fill(
        np.array([(-0.62, -0.1), (-1.1, -0.75), (-0.85, -0.78), (-0.35, -0.12)]), trim, shade=0.3
    )
    half = [
        (-1.1, -0.12),
        (-0.5, -fat),
        (0.55, -fat),
        (0.95, -0.4 * fat),
        (1.08, 0.08),
        (0.85, 0.8 * fat),
        (0, fat),
        (-0.6, 0.6 * fat),
    ]
    hull = c.fill(curve(half), paint, shade=0.45, gloss=0.3)
    c.fill(box(-1.2, 0.04, 1.2, c.between(0.1, 0.3)), trim, within=hull, edge=1, shade=0.4)
    for x in np.arange(-0.5, 0.6, c.between(0.13, 0.2)):
        c.fill(ellipse(x, -0.05, 0.045, 0.055), glass * 0.7, shade=0.2, edge=1)
    c.fill(np.array([(0.72, -0.18), (0.95, -0.05), (0.98, 0.03), (0.7, 0.0)]), glass, gloss=0.4)
    c.fill(
        np.array([(0.25, 0.08), (-0.3 - sweep, 0.8), (-0.5 - sweep, 0.8), (-0.3, 0.08)]),
        paint * 0.92,
        shade=0.4,
    )
    c.fill(np.array([(-0.7, 0.02), (-1.15, 0.3), (-1.0, 0.02)]), paint * 0.85)
    if c.chance(0.6):
        c.fill(ellipse(-0.1, 0.38, 0.2, 0.09), trim * 0.8, shade=0.5)
    if c.chance(0.25):
        c.fill(ellipse(1.12, 0.02, 0.03, 0.38), c.dye(GREY))


@toy("ground", tilt=12, bulk=0.46)
def sailboat(c: Canvas) -> None:
    hull, sail, jib = (
        c.dye(VIVID, BROWN, WHITE),
        c.dye(WHITE, CREAM, VIVID),
        c.dye(WHITE, RED, VIVID),
    )
    mast, deck, belly = c.between(-0.15, 0.15), c.between(0.42, 0.55), c.between(0.0, 0.25)
    c.line([(mast, 0.6), (mast, -1.1)], c.dye(BROWN), 0.06)
    main = np.array(
        [(mast - 0.05, -1.0), (mast - 0.35 - belly, -0.2), (mast - 0.85, 0.3), (mast - 0.05, 0.32)]
    )
    cloth = c.fill(curve(main) if c.chance(0.3) else main, sail, shade=0.35)
    for y in np.linspace(-0.7, 0.2, c.pick(0, 0, 3, 5)):
        c.line([(-1, y), (1, y + 0.1)], jib, 0.09, edge=1, within=cloth)
    if c.chance(0.75):
        c.fill(
            curve(
                [(mast + 0.06, -0.85), (mast + 0.45, -0.2), (mast + 0.75, 0.3), (mast + 0.06, 0.25)]
            ),
            jib,
            shade=0.35,
        )
    bow, stern, keel = c.between(0.9, 1.05), c.between(-1.0, -0.75), c.between(0.85, 0.98)
    sheer = [(stern, deck), (-0.3, deck + 0.03), (0.3, deck + 0.03), (bow, deck - 0.06)]
    body = c.fill(curve([*sheer, (0.55, keel), (-0.6, keel)]), hull, shade=0.45)
    c.fill(box(-1.1, deck + 0.14, 1.1, deck + 0.23), c.dye(WHITE, VIVID), within=body, edge=1)
    if c.chance(0.5):
        c.fill(np.array([(mast, -1.1), (mast + 0.3, -1.04), (mast, -0.95)]), c.dye(RED, VIVID))


@toy("ground", tilt=5, bulk=0.68)
def train(c: Canvas) -> None:
    paint, trim, iron, glass = (
        c.dye(RED, GREEN, BLUE, BLACK, VIVID),
        c.dye(YELLOW, RED, WHITE),
        c.dye(BLACK),
        c.dye(GLASS),
    )
    roof, boiler, low = c.between(-0.85, -0.6), c.between(-0.3, -0.1), 0.5
    if c.chance(0.35):  # a railcar
        nose = [(0.6, roof), (c.between(0.9, 1.1), -0.1), (1.15, low)]
        body = c.fill(
            curve([(-1.15, low), (-1.15, roof), *nose, (0, low)]), paint, shade=0.35, gloss=0.2
        )
        c.fill(box(-1.2, 0.1, 1.2, 0.27), trim, within=body, edge=1)
        for x in np.arange(-0.98, 0.5, c.between(0.28, 0.4)):
            c.fill(box(x, roof + 0.2, x + 0.22, -0.1), glass, gloss=0.4, within=body)
        c.fill(
            np.array([(0.62, roof + 0.2), (0.78, roof + 0.22), (1.0, -0.05), (0.62, -0.05)]),
            glass,
            gloss=0.4,
            within=body,
        )
        for x in (-0.85, -0.5, 0.4, 0.75):
            c.fill(ellipse(x, low + 0.12, 0.17), iron)
            c.fill(ellipse(x, low + 0.12, 0.08), c.dye(GREY), edge=1)
        return
    stack = c.between(0.5, 0.7)
    c.fill(
        np.array(
            [
                (stack - 0.08, boiler),
                (stack - 0.16, -0.72),
                (stack + 0.18, -0.72),
                (stack + 0.1, boiler),
            ]
        ),
        iron * 1.5,
    )
    c.fill(ellipse(c.between(0.0, 0.3), boiler + 0.02, 0.13, 0.17), trim, gloss=0.5)
    c.fill(box(-0.4, boiler, 0.88, low), paint, shade=0.5, gloss=0.2)
    for x in (0.05, 0.35, 0.65):
        c.line([(x, boiler), (x, low)], trim, 0.05, edge=1)
    c.fill(ellipse(0.9, (boiler + low) / 2, 0.12, (low - boiler) / 2), iron * 1.8, shade=0.5)
    c.fill(ellipse(1.0, boiler + 0.12, 0.09), c.dye(YELLOW), gloss=0.8)
    c.fill(box(-1.0, roof, -0.3, low), paint * 0.9, shade=0.35)
    for x in (-0.9, -0.6)[: c.pick(1, 2)]:
        c.fill(box(x, roof + 0.15, x + 0.22, roof + 0.5), glass, gloss=0.4)
    c.fill(box(-1.1, roof - 0.1, -0.22, roof + 0.05), trim * 0.8, shade=0.4)
    c.fill(box(-1.05, low - 0.05, 1.0, low + 0.12), iron * 2, shade=0.3)
    c.fill(np.array([(0.85, low + 0.05), (1.05, low + 0.1), (1.2, 0.95), (0.9, 0.95)]), trim * 0.7)
    for x, r in ((-0.7, 0.32), (-0.02, 0.27 if c.chance(0.5) else 0.2), (0.55, 0.2)):
        c.fill(ellipse(x, 0.98 - r, r), iron, shade=0.3)
        c.fill(ellipse(x, 0.98 - r, 0.72 * r), trim * 0.8, shade=0.3)
        c.fill(ellipse(x, 0.98 - r, 0.2 * r), iron)
    c.line([(-0.7, 0.7), (0.55, 0.78)], c.dye(GREY), 0.07)


# fold 3: what we use
@toy("ground", tilt=40, bulk=0.35)
def guitar(c: Canvas) -> None:
    wood, neck, dark = c.dye(BROWN, ORANGE, RED, BLACK, CREAM, BLUE), c.dye(BROWN), c.dye(BLACK)
    waist, upper, lower = c.between(0.26, 0.36), c.between(0.4, 0.5), c.between(0.52, 0.65)
    half = [
        (0, -0.2),
        (0.8 * upper, -0.15),
        (upper, 0.08),
        (waist, 0.35),
        (lower, 0.68),
        (0.75 * lower, 0.98),
        (0, 1.08),
    ]
    if c.chance(0.3):  # an electric one has horns
        half[1] = (0.9 * upper, -0.42)
    c.fill(curve(symmetric(half)), wood * 0.6, shade=0.3)
    c.fill(curve(symmetric(half)) * 0.92 + (0, 0.035), wood, shade=0.5, gloss=0.4, edge=1)
    c.fill(ellipse(0, 0.24, 0.19), c.dye(CREAM), shade=0.1)
    c.fill(ellipse(0, 0.24, 0.155), dark, shade=0)
    c.fill(box(-0.22, 0.68, 0.22, 0.77), neck * 0.7)
    c.fill(
        np.array([(-0.075, -1.0), (0.075, -1.0), (0.1, 0.18), (-0.1, 0.18)]), neck * 0.8, shade=0.3
    )
    for y in np.linspace(-0.85, 0.0, 6):
        c.line([(-0.1, y), (0.1, y)], c.dye(CREAM), 0.02, edge=1, opacity=0.8)
    c.fill(np.array([(-0.14, -1.25), (0.14, -1.25), (0.1, -0.95), (-0.1, -0.95)]), wood * 0.7)
    for y in (-1.2, -1.1, -1.0):
        for side in (-1, 1):
            c.fill(ellipse(side * 0.16, y, 0.045), c.dye(GREY), edge=1)
    for x in (-0.05, 0, 0.05):
        c.line([(x, -1.0), (1.2 * x, 0.72)], c.dye(WHITE), 0.014, edge=1)


@toy("ground", tilt=5, bulk=0.69)
def house(c: Canvas) -> None:
    wall, tiles = c.dye(CREAM, PASTEL, RED, WHITE, YELLOW), c.dye(RED, BROWN, GREY, BLUE)
    frame, glass = c.dye(WHITE, BROWN), c.dye(GLASS, YELLOW)
    wide, eaves, peak = c.between(0.65, 0.9), c.between(-0.3, 0.0), c.between(-1.05, -0.75)
    if c.chance(0.6):
        x = c.pick(-1, 1) * c.between(0.3, 0.5)
        c.fill(box(x - 0.1, peak - 0.05, x + 0.1, eaves), c.dye(RED, GREY))
    body = c.fill(box(-wide, eaves - 0.05, wide, 1.0), wall, shade=0.3)
    if c.chance(0.4):  # boards or bricks
        for y in np.arange(eaves, 1.0, 0.12):
            c.line([(-1, y), (1, y)], wall * 0.75, 0.02, edge=1, within=body)
    hip = c.pick(0.0, 0.0, 0.45)
    roof = c.fill(
        np.array([(-wide - 0.15, eaves), (-hip, peak), (hip, peak), (wide + 0.15, eaves)]),
        tiles,
        shade=0.4,
    )
    for y in np.linspace(peak, eaves, 6)[1:-1]:
        c.line([(-1.1, y), (1.1, y)], tiles * 0.7, 0.025, edge=1, within=roof)
    if hip == 0 and c.chance(0.5):
        c.fill(ellipse(0, (peak + 2 * eaves) / 3, 0.12), glass, gloss=0.3)
    door = c.between(-0.5, 0.5) * wide
    c.fill(box(door - 0.15, 0.42, door + 0.15, 1.0), c.dye(VIVID, BROWN))
    c.fill(ellipse(door + 0.09, 0.72, 0.03), c.dye(YELLOW))
    rows = [0.12] if eaves > -0.15 else [-0.05, 0.5]
    for y in rows:
        for x in np.linspace(-0.62, 0.62, 3) * wide:
            if y + 0.3 < 0.42 or abs(x - door) > 0.32:
                c.fill(box(x - 0.14, y, x + 0.14, y + 0.28), frame, shade=0.1)
                c.fill(box(x - 0.1, y + 0.04, x + 0.1, y + 0.24), glass, shade=0.3, gloss=0.3)
                c.line([(x, y), (x, y + 0.28)], frame, 0.03, edge=1)


@toy("ground", tilt=7, bulk=0.34)
def lamp(c: Canvas) -> None:
    shade, metal, glow = (
        c.dye(CREAM, VIVID, RED, GREEN, PASTEL),
        c.dye(GREY, BROWN, BLACK, YELLOW),
        c.dye(YELLOW),
    )
    narrow, wide, high = c.between(0.25, 0.5), c.between(0.6, 0.85), c.between(0.65, 0.95)
    top, rim = -1.0, -1.0 + high
    style = c.pick("rod", "rod", "vase", "coil")
    c.line([(0, rim - 0.1), (0, 0.9)], metal, 0.09)
    if style == "vase":
        vase = curve(
            symmetric([(0, rim + 0.08), (0.1, rim + 0.15), (0.38, 0.45), (0.2, 0.9), (0, 0.92)])
        )
        c.fill(vase, c.dye(VIVID, WHITE), shade=0.5, gloss=0.5)
    elif style == "coil":
        for y in np.linspace(rim + 0.2, 0.8, 4):
            c.fill(ellipse(0, y, 0.16, 0.12), metal, shade=0.5, gloss=0.4)
    c.fill(
        curve(symmetric([(0, 0.86), (0.3, 0.88), (0.42, 0.98), (0, 1.02)])),
        metal,
        shade=0.4,
        gloss=0.3,
    )
    c.fill(ellipse(0, rim, wide, 0.09), glow * 0.8, shade=0.1)
    if c.chance(0.35):
        hood = c.fill(
            curve(
                symmetric([(0, top), (0.6 * wide, top + 0.25 * high), (wide, rim), (0, rim + 0.04)])
            ),
            shade,
            shade=0.35,
        )
    else:
        hood = c.fill(
            np.array([(-narrow, top), (narrow, top), (wide, rim), (-wide, rim)]), shade, shade=0.35
        )
    for k in range(c.pick(0, 0, 7)):
        x = (k / 3 - 1) * 0.95
        c.line([(x * narrow, top), (x * wide, rim)], shade * 0.6, 0.035, edge=1, within=hood)
    c.fill(
        ellipse(0, rim, 0.6 * wide, 0.7 * high),
        glow,
        opacity=c.between(0, 0.5),
        edge=1,
        within=hood,
    )
    c.line([(-wide, rim), (wide, rim)], shade * 0.7, 0.07, within=hood, edge=1)


@toy("ground", tilt=15, bulk=0.54)
def mug(c: Canvas) -> None:
    glaze, motif = c.dye(VIVID, WHITE, CREAM, PASTEL, RED), c.dye(VIVID, WHITE, BLACK)
    drink = c.dye(BROWN, ((0.04, 0.06), (0.7, 0.9), (0.15, 0.3)))
    top, low, wide, foot = (
        c.between(-0.75, -0.45),
        c.between(0.7, 0.95),
        c.between(0.55, 0.7),
        c.between(0.4, 0.65),
    )
    grip = c.between(0.3, 0.45)
    middle = (top + low) / 2
    c.line(
        ellipse(wide - 0.08, middle, grip, 0.6 * (low - top) / 2, -100, 100),
        glaze * 0.92,
        0.17,
        shade=0.35,
    )
    half = [
        (wide, top),
        (0.97 * wide, middle),
        (foot, low - 0.05),
        (0.7 * foot, low + 0.05),
        (0, low + 0.08),
    ]
    right = curve([(0.0, top), *half], closed=False)
    body = c.fill(symmetric([tuple(p) for p in right]), glaze, shade=0.5, gloss=c.between(0.1, 0.5))
    match c.pick("plain", "bands", "dots", "heart"):
        case "bands":
            for y in np.linspace(middle - 0.2, middle + 0.3, c.rng.integers(1, 4)):
                c.line(ellipse(0, y, 1.0, 0.16, 0, 180), motif, 0.11, within=body, edge=1)
        case "dots":
            for _ in range(14):
                c.fill(
                    ellipse(c.between(-0.6, 0.6), c.between(top + 0.2, low), 0.08),
                    motif,
                    within=body,
                    edge=1,
                )
        case "heart":
            c.fill(
                curve(
                    symmetric(
                        [
                            (0, middle - 0.08),
                            (0.18, middle - 0.22),
                            (0.28, middle),
                            (0, middle + 0.32),
                        ]
                    )
                ),
                motif,
            )
    c.fill(ellipse(0, top, wide, 0.19), glaze * 0.85, shade=0.2)
    c.fill(
        ellipse(0, top + 0.02, 0.87 * wide, 0.145),
        drink if c.chance(0.75) else glaze * 0.5,
        shade=0.3,
        edge=0.8,
    )


@toy("any", tilt=30, bulk=0.30)
def umbrella(c: Canvas) -> None:
    first, second, pole = c.dye(VIVID), c.dye(VIVID, WHITE, YELLOW), c.dye(BROWN, GREY, BLACK)
    wide, high, ribs = c.between(0.85, 1.05), c.between(0.65, 0.95), c.rng.integers(4, 8)
    rim = c.between(-0.1, 0.15)
    c.line([(0, rim - high - 0.1), (0, 0.8)], pole, 0.07)
    c.line(curve([(0, 0.75), (0.02, 1.0), (0.16, 1.05), (0.28, 0.88)], closed=False), pole, 0.1)
    arch = ellipse(0, rim, wide, high, 180, 360)
    # where the ribs end, from right to left
    tips = np.cos(np.pi * np.arange(ribs + 1) / ribs) * wide
    scallops = [
        ellipse((a + b) / 2, rim, (a - b) / 2, 0.1, 0, -180)[::4] for a, b in pairwise(tips)
    ]
    canopy = c.fill(np.concatenate([arch, *scallops]), first, shade=0.5)
    for a, b in zip(tips[1::2], tips[2::2], strict=False):
        sides = [
            ellipse(0, rim, abs(x) + 1e-3, high, 270, 360) * (1 if x > 0 else -1, 1) for x in (a, b)
        ]
        c.fill(
            np.concatenate([sides[0], [(a, rim + 0.2), (b, rim + 0.2)], sides[1][::-1]]),
            second,
            shade=0.4,
            within=canopy,
        )
    c.line([(0, rim - high + 0.02), (0, rim - high - 0.14)], pole, 0.07, 0.03)


# -------------------------------------------------------------------------------------- distractors
def pebble(c: Canvas) -> None:
    stone = c.dye(GREY, BROWN, CREAM)
    c.fill(
        curve(ellipse(0, 0, 0.95, c.between(0.45, 0.8))[:-1:4] * c.rng.uniform(0.8, 1.1, (8, 1))),
        stone,
        shade=0.5,
    )


def fallen_leaf(c: Canvas) -> None:
    leaf(c, -0.9, 0, 1.8, 0, c.dye(GREEN, BROWN, ORANGE, RED, YELLOW))


def splotch(c: Canvas) -> None:
    shape = curve(ellipse(0, 0, 0.9)[:-1:3] * c.rng.uniform(0.5, 1.1, (11, 1)))
    c.fill(shape, c.dye(VIVID, PASTEL, GREY), shade=c.between(0, 0.5))


def grass(c: Canvas) -> None:
    blade = c.dye(GREEN, YELLOW)
    for _ in range(9):
        x, tip = c.between(-0.8, 0.8), c.between(-0.9, 0.1)
        c.line(
            curve([(0.5 * x, 0.9), (0.7 * x, 0.2), (1.2 * x, tip)], closed=False),
            blade * c.between(0.6, 1.1),
            0.14,
            0.03,
        )


def parcel(c: Canvas) -> None:
    card = c.dye(BROWN, PASTEL, GREY, VIVID)
    high = c.between(0.4, 0.9)
    side = c.fill(box(-0.9, -high, 0.9, high), card, shade=0.3)
    for y in np.linspace(-high, high, c.pick(0, 1, 4, 6)):
        c.line([(-1, y), (1, y)], card * 0.6, 0.1, edge=1, within=side)


def ball(c: Canvas) -> None:
    disc = c.fill(
        ellipse(0, 0, 0.9), c.dye(VIVID, PASTEL, WHITE), shade=0.55, gloss=c.between(0, 0.6)
    )
    if c.chance(0.4):
        c.line([(-1, 0), (1, 0)], c.dye(VIVID, WHITE), 0.4, shade=0.4, within=disc, edge=1)


DISTRACTORS: tuple[Callable[[Canvas], None], ...] = (
    pebble,
    fallen_leaf,
    splotch,
    grass,
    parcel,
    ball,
)
