"""Colours: distinct also for colour-blind readers, the same for a class in every fold; painting keeps pixels apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.palette import (
    CLASS_COLOURS,
    CLUSTER_COLOURS,
    class_colour,
    class_look,
    cluster_colour,
    cluster_look,
    paint,
    readable_on,
    rgb,
    to_hex,
)

CLASSES = tuple(f"class {i}" for i in range(1, 21))
FOLD0, FOLD2 = LabelSpace(CLASSES, (1, 2, 3, 4, 5)), LabelSpace(CLASSES, (11, 12, 13, 14, 15))
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
}


def oklab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(seen @ np.array(to_lms).T) @ np.array(to_lab).T


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("colours", "apart"), [(CLASS_COLOURS, 0.085), (CLUSTER_COLOURS, 0.14)])
def test_all_colours_can_be_told_apart(colours, apart, vision):
    lab = oklab(np.stack([rgb(c) for c in colours]) / 255, VISION[vision])
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > apart


def test_a_class_has_the_same_colour_in_every_fold():
    for original in range(1, 21):
        of_fold = [look.colours[list(look.names.values()).index(f"class {original}")] for look in map(class_look, (FOLD0, FOLD2))]
        assert (of_fold[0] == of_fold[1]).all()
        assert (of_fold[0] == class_colour(original)).all()


def test_more_classes_and_clusters_than_colours_still_differ():
    assert len({to_hex(class_colour(i)) for i in range(1, 41)}) == 40
    assert len({to_hex(cluster_colour(k)) for k in range(1, 31)}) == 30


def test_the_ids_after_the_base_classes_are_classes_or_clusters():
    truth, pseudo = class_look(FOLD2), cluster_look(FOLD2, 10)
    assert truth.names[16] == "class 11"
    assert not truth.striped.any()
    assert [pseudo.names[i] for i in (0, 15, 16, 25, IGNORE)] == ["background", "class 20", "cluster 1", "cluster 10", "ignored"]
    assert pseudo.striped.sum() == 10
    assert pseudo.striped[16:26].all()


def test_painting_shows_the_image_where_nothing_is_labelled_and_stripes_clusters():
    image, labels = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), np.uint8)
    labels[:10], labels[10:20], labels[20:30] = 1, 16, IGNORE
    painted = paint(image, labels, cluster_look(FOLD2, 10))
    shades = [len(np.unique(painted[rows].reshape(-1, 3), axis=0)) for rows in (slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 40))]
    assert shades == [1, 2, 1, 1]
    assert painted.shape == image.shape
    assert painted.dtype == np.uint8


def test_names_are_readable_on_their_colour():
    assert readable_on(rgb("#ffffff")) != readable_on(rgb("#000000"))
