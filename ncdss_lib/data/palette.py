"""One fixed colour a class, everywhere.

Clusters have colours of their own and are striped, so that neither is told by colour alone.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ncdss_lib.data.label_space import BACKGROUND, IGNORE, LabelSpace

# Chosen by a search that maximises the smallest distance in OKLab, seen normally and with simulated
# deuteranopia, protanopia and tritanopia (Machado et al. 2009); the order keeps each fold's five
# classes furthest apart. Entry i is original class i + 1.
CLASS_COLOURS = (
    "#990055", "#777700", "#88dd00", "#cc9999", "#ffaaff",
    "#aa88dd", "#0000aa", "#554400", "#448888", "#005577",
    "#bbcc99", "#bbff00", "#ee3366", "#550077", "#aa44ff",
    "#6666aa", "#dd8800", "#88ffdd", "#660033", "#0000ee",
)  # fmt: skip
CLUSTER_COLOURS = (
    "#1133ff", "#eeaa00", "#005511", "#ff6699", "#00aaff",
    "#668800", "#442266", "#bbff88", "#994488", "#ffccff",
)  # fmt: skip
BACKGROUND_COLOUR = "#d9d9d9"
IGNORE_COLOUR = "#ffffff"
GOOD, BAD, NEUTRAL = "#0072b2", "#d55e00", "#777777"  # Okabe and Ito's blue and vermilion; a grey
MODEL_COLOURS = {"base": "#777777", "basic": "#e69f00", "basic_oc": "#56b4e9", "eums": "#004488"}
INK = "#222222"


def rgb(colour: str) -> np.ndarray:
    """``#rrggbb`` as uint8 [3]."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def to_hex(colour: np.ndarray) -> str:
    """uint8 [3] as ``#rrggbb``."""
    return "#" + bytes(colour).hex()


def class_colour(original_id: int) -> np.ndarray:
    """Colour of a class by its original id (0 background, 255 ignore), uint8 [3].

    Ids above 20 are shades of the first 20.
    """
    if original_id == BACKGROUND:
        return rgb(BACKGROUND_COLOUR)
    if original_id == IGNORE:
        return rgb(IGNORE_COLOUR)
    return _cycle(CLASS_COLOURS, original_id - 1)


def cluster_colour(cluster: int) -> np.ndarray:
    """Colour of cluster 1, 2, ..., uint8 [3]; clusters above 10 are shades of the first 10."""
    return _cycle(CLUSTER_COLOURS, cluster - 1)


def _cycle(colours: tuple[str, ...], index: int) -> np.ndarray:
    shade, place = divmod(index, len(colours))
    colour = rgb(colours[place])
    if not shade:
        return colour
    hue, lightness, saturation = colorsys.rgb_to_hls(*(colour / 255))
    lightness = (lightness + 0.27 * shade) % 0.75 + 0.15
    return (np.array(colorsys.hls_to_rgb(hue, lightness, saturation)) * 255).astype(np.uint8)


def readable_on(colour: np.ndarray) -> str:
    """Black or white, whichever is easier to read on a colour."""
    return INK if colour @ np.array([0.299, 0.587, 0.114]) > 140 else "#ffffff"


@dataclass(frozen=True)
class Look:
    """How label maps of one kind are painted.

    Attributes:
        colours: uint8 [256, 3] by label.
        names: by label; what a legend and the small tags in a picture say.
        striped: bool [256]; True for clusters.
    """

    colours: np.ndarray
    names: dict[int, str]
    striped: np.ndarray


def class_look(labels: LabelSpace) -> Look:
    """Contiguous ids of ground truth, or of predictions with clusters matched to classes."""
    return _look(labels, labels.novel_names, [class_colour(c) for c in labels.novel_ids], False)


def cluster_look(labels: LabelSpace, clusters: int) -> Look:
    """Contiguous ids of pseudo-labels and networks: background, base classes, clusters 1..K."""
    numbers = range(1, clusters + 1)
    names = [f"cluster {k}" for k in numbers]
    return _look(labels, names, [cluster_colour(k) for k in numbers], True)


def _look(
    labels: LabelSpace, novel_names: Sequence[str], novel_colours: list[np.ndarray], striped: bool
) -> Look:
    """Background and base classes as always, then what is new."""
    names = [*labels.names[: 1 + labels.num_base], *novel_names]
    known_colours = [class_colour(c) for c in (BACKGROUND, *labels.base_ids)]
    colours = np.tile(rgb(IGNORE_COLOUR), (256, 1))
    colours[: len(names)] = [*known_colours, *novel_colours]
    is_striped = np.zeros(256, bool)
    is_striped[1 + labels.num_base : len(names)] = striped
    return Look(colours, {**dict(enumerate(names)), IGNORE: "ignored"}, is_striped)


def paint(image: np.ndarray, label_map: np.ndarray, look: Look, opacity: float = 0.7) -> np.ndarray:
    """Labels over the image in grey.

    The background shows the image, ignored pixels are white, clusters are striped. An image of
    which nothing is known (all ignored) is shown as it is.

    Args:
        image: uint8 [H, W, 3].
        label_map: uint8 [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    if (label_map == IGNORE).all():
        return image
    height, width = label_map.shape
    rows, columns = np.mgrid[:height, :width]
    period = max(6, min(height, width) // 14)
    light = look.striped[label_map] & ((rows + columns) % period < period // 2)
    alpha = np.where(light, opacity * 0.45, opacity) * (label_map != BACKGROUND)
    alpha = np.where(label_map == IGNORE, 0.9, alpha)[..., None]
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2) * 0.75 + 255 * 0.2
    mixed = grey * (1 - alpha) + look.colours[label_map] * alpha
    return mixed.round().clip(0, 255).astype(np.uint8)
