"""What a figure is shown as, and names on regions that do not cover each other."""

from __future__ import annotations

import numpy as np
import pytest

from ncdss_lib.viz.figures import LICENCE, TAG_HEIGHT, Drawing, apart, blank


def line() -> Drawing:
    figure = blank(2.0)
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_lines_are_svg_with_their_licence_and_the_same_every_time():
    svg = line()._repr_svg_()
    assert svg is not None
    assert line()._repr_png_() is None
    assert LICENCE in svg
    assert "<dc:date>" not in svg
    assert svg == line()._repr_svg_()


def test_a_picture_is_png():
    figure = blank(2.0)
    figure.subplots().imshow(np.zeros((4, 4)))
    assert figure._repr_svg_() is None
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(("second", "moved"), [((50.0, 95.0), 84.0), ((10.0, 95.0), 95.0), ((50.0, 60.0), 60.0)])
def test_a_name_moves_up_only_from_where_another_stands(second, moved):
    """Names of five letters, in a picture of 100 x 100: 11 pixels high, 20 wide."""
    black = np.zeros(3, np.uint8)
    (_, first_y, *_), (x, y, *_) = apart([(50.0, 95.0, "house", black), (*second, "apple", black)], 100, 100)
    assert first_y == 95.0
    assert (x, y) == (second[0], pytest.approx(moved))


def test_three_names_on_one_spot_stand_above_each_other():
    marks = [(50.0, 90.0, name, np.zeros(3, np.uint8)) for name in ("plane", "train", "apple")]
    heights = [y for _, y, *_ in apart(marks, 100, 100)]
    assert heights == pytest.approx([90.0, 90 - 100 * TAG_HEIGHT, 90 - 200 * TAG_HEIGHT])
