"""Label spaces: the numbers for VOC's folds, and what holds for any split into base and novel classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.data.pascal5i import FOLDS, VOC_CLASSES

#: Contiguous id of original id 0..20, by fold.
VOC_CONTIGUOUS = {
    0: [0, 16, 17, 18, 19, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    1: [0, 1, 2, 3, 4, 5, 16, 17, 18, 19, 20, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    2: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 11, 12, 13, 14, 15],
    3: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
    4: [0, 1, 2, 3, 4, 5, 6, 7, 16, 8, 17, 9, 18, 19, 10, 11, 12, 20, 13, 14, 15],
}


@pytest.mark.parametrize("fold", range(5))
def test_voc_folds(fold: int) -> None:
    labels = LabelSpace(VOC_CLASSES, FOLDS[fold])
    assert (labels.num_base, labels.num_novel) == (15, 5)
    assert labels.to_contiguous(np.arange(21, dtype=np.uint8)).tolist() == VOC_CONTIGUOUS[fold]
    assert labels.to_original(np.arange(21, dtype=np.uint8)).tolist() == [0, *labels.base_ids, *labels.novel_ids]


def test_names_of_the_animals_fold() -> None:
    labels = LabelSpace(VOC_CLASSES, FOLDS[4])
    assert labels.novel_names == ("cat", "cow", "dog", "horse", "sheep")
    assert labels.base_ids == (1, 2, 3, 4, 5, 6, 7, 9, 11, 14, 15, 16, 18, 19, 20)
    assert labels.base_names[7:10] == ("chair", "diningtable", "motorbike")
    assert labels.names == ("background", *labels.base_names, *labels.novel_names)


def test_hidden_novel_classes_become_background() -> None:
    labels = LabelSpace(("a", "b", "c", "d"), (2, 3))
    mask = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
    assert labels.to_contiguous(mask).tolist() == [[0, 1, 3], [4, 2, 255]]
    assert labels.to_contiguous(mask, hide_novel=True).tolist() == [[0, 1, 0], [0, 2, 255]]
    assert mask.tolist() == [[0, 1, 2], [3, 4, 255]]  # left as it was


@st.composite
def label_spaces(draw: st.DrawFn) -> LabelSpace:
    size = draw(st.integers(1, 254))
    novel = draw(st.sets(st.integers(1, size), min_size=1))
    return LabelSpace(tuple(f"class {i}" for i in range(1, size + 1)), tuple(sorted(novel)))


masks = hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=8))


@given(label_spaces(), masks)
def test_contiguous_and_back(labels: LabelSpace, mask: np.ndarray) -> None:
    """Known ids come back; 255 and ids that name no class are ignored in both spaces."""
    expected = np.where(mask <= len(labels.classes), mask, 255)
    contiguous = labels.to_contiguous(mask)
    assert contiguous.dtype == np.uint8
    assert contiguous.shape == mask.shape
    np.testing.assert_array_equal(contiguous == 255, expected == 255)
    np.testing.assert_array_equal(labels.to_original(contiguous), expected)


@given(label_spaces())
def test_order_is_background_base_novel(labels: LabelSpace) -> None:
    every = np.arange(len(labels.classes) + 1, dtype=np.uint8)
    assert sorted([*labels.base_ids, *labels.novel_ids]) == every[1:].tolist()
    assert labels.num_base + labels.num_novel + 1 == len(labels.names)
    for original, contiguous in zip(every, labels.to_contiguous(every), strict=True):
        assert (contiguous > labels.num_base) == (original in labels.novel_ids)
        assert labels.names[contiguous] == ("background" if original == 0 else labels.classes[original - 1])
    for ids in (labels.base_ids, labels.novel_ids):
        assert (np.diff(labels.to_contiguous(np.array(ids, np.uint8)).astype(int)) == 1).all()


@given(label_spaces(), masks)
def test_hide_novel_changes_novel_pixels_only(labels: LabelSpace, mask: np.ndarray) -> None:
    expected = np.where(np.isin(mask, labels.novel_ids), 0, labels.to_contiguous(mask))
    np.testing.assert_array_equal(labels.to_contiguous(mask, hide_novel=True), expected)


@pytest.mark.parametrize(
    ("size", "novel_ids", "message"),
    [
        (4, (), "must lie in 1..4"),
        (4, (0, 1), "must lie in 1..4"),
        (4, (4, 5), "must lie in 1..4"),
        (4, (-1,), "must lie in 1..4"),
        (4, (3, 2), "ascending and unique"),
        (4, (2, 2), "ascending and unique"),
        (255, (1,), "at most 254 classes"),
    ],
)
def test_invalid_arguments(size: int, novel_ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSpace(tuple(map(str, range(size))), novel_ids)
