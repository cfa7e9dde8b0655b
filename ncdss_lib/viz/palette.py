"""One fixed colour a class, everywhere; clusters have colours of their own and are striped, so that neither is told by colour alone."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from ncdss_lib.data.label_space import BACKGROUND, IGNORE, LabelSpace

# Chosen by a search that maximises the smallest distance in OKLab, seen normally and with simulated deuteranopia, protanopia and
# tritanopia (Machado et al. 2009); the order keeps each fold's five classes furthest apart. Entry i is original class i + 1.
CLASS_COLOURS = (
    "#990055", "#777700", "#88dd00", "#cc9999", "#ffaaff", "#aa88dd", "#0000aa", "#554400", "#448888", "#005577",
    "#bbcc99", "#bbff00", "#ee3366", "#550077", "#aa44ff", "#6666aa", "#dd8800", "#88ffdd", "#660033", "#0000ee",
)  # fmt: skip
CLUSTER_COLOURS = (
    "#1133ff", "#eeaa00", "#005511", "#ff6699", "#00aaff", "#668800", "#442266", "#bbff88", "#994488", "#ffccff",
)  # fmt: skip
BACKGROUND_COLOUR = "#d9d9d9"
IGNORE_COLOUR = "#ffffff"
GOOD, BAD, NEUTRAL = "#0072b2", "#d55e00", "#777777"  # Okabe and Ito's blue and vermilion, and a grey
MODEL_COLOURS = {"base": "#777777", "basic": "#e69f00", "basic_oc": "#56b4e9", "eums": "#004488"}
INK = "#222222"


def rgb(colour: str) -> np.ndarray:
    """``#rrggbb`` as uint8 [3]."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def to_hex(colour: np.ndarray) -> str:
    """uint8 [3] as ``#rrggbb``."""
    return "#" + bytes(colour).hex()


def class_colour(original_id: int) -> np.ndarray:
    """Colour of a class by its original id (0 background, 255 ignore), uint8 [3]; ids above 20 are shades of the first 20."""
    if original_id == BACKGROUND:
        return rgb(BACKGROUND_COLOUR)
    if original_id == IGNORE:
        return rgb(IGNORE_COLOUR)
    return _cycle(CLASS_COLOURS, original_id - 1)


def cluster_colour(cluster: int) -> np.ndarray:
    """Colour of cluster 1, 2, ..., uint8 [3]; clusters above 10 are shades of the first 10."""
    return _cycle(CLUSTER_COLOURS, cluster - 1)


def _cycle(colours: tuple[str, ...], index: int) -> np.ndarray:
    colour, shade = rgb(colours[index % len(colours)]), index // len(colours)
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
    """Contiguous ids of ground truth, or of predictions whose clusters have been matched to classes."""
    return _look(labels, labels.names)


def cluster_look(labels: LabelSpace, clusters: int) -> Look:
    """Contiguous ids of pseudo-labels and of networks: background, base classes, then clusters 1..K."""
    return _look(labels, (*labels.names[: 1 + labels.num_base], *(f"cluster {k + 1}" for k in range(clusters))), clusters)


def _look(labels: LabelSpace, names: tuple[str, ...], clusters: int = 0) -> Look:
    colours = np.tile(rgb(IGNORE_COLOUR), (256, 1))
    striped = np.zeros(256, bool)
    first = 1 + labels.num_base
    original = (BACKGROUND, *labels.base_ids, *labels.novel_ids)
    for label in range(len(names)):
        cluster = clusters and label >= first
        colours[label] = cluster_colour(label - first + 1) if cluster else class_colour(original[label])
        striped[label] = bool(cluster)
    return Look(colours, {**dict(enumerate(names)), IGNORE: "ignored"}, striped)


def paint(image: np.ndarray, label_map: np.ndarray, look: Look, opacity: float = 0.7) -> np.ndarray:
    """Labels over the image in grey; the background shows the image, ignored pixels are white, clusters are striped.

    An image of which nothing is known (all ignored) is shown as it is.

    Args:
        image: uint8 [H, W, 3].
        label_map: uint8 [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    if (label_map == IGNORE).all():
        return image
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2) * 0.75 + 255 * 0.2
    height, width = label_map.shape
    rows, columns = np.mgrid[:height, :width]
    period = max(6, min(height, width) // 14)
    light = look.striped[label_map] & ((rows + columns) % period < period // 2)
    alpha = np.where(light, opacity * 0.45, opacity) * (label_map != BACKGROUND)
    alpha = np.where(label_map == IGNORE, 0.9, alpha)[..., None]
    return (grey * (1 - alpha) + look.colours[label_map] * alpha).round().clip(0, 255).astype(np.uint8)
