"""Scores from one confusion matrix against the published two passes over boolean masks, and the released script's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.method.evaluation import Confusions, protocols
from ncdss_lib.method.metrics import confusion_matrix, score
from tests.faithful.plain import evaluation as published
from tests.faithful.plain.data import PASCAL_FOLDS, VOC_NAMES, nearest, reindexed

SIZE = 24


def scene(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth in original ids with 255, at a size of its own, and a prediction in contiguous ids that is partly right."""
    height, width = rng.integers(15, 40, 2)
    truth = np.zeros((height, width), np.uint8)
    for label in [*rng.integers(1, 21, 4), 255]:
        top, left = rng.integers(0, height - 5), rng.integers(0, width - 5)
        truth[top : top + rng.integers(4, 20), left : left + rng.integers(4, 20)] = label
    return truth, rng.integers(0, 16 + clusters, (SIZE, SIZE)).astype(np.uint8)


def agreeing(truth: np.ndarray, prediction: np.ndarray, rng: np.random.Generator, clusters: int) -> np.ndarray:
    """Half of all pixels predicted as they are, classes of novel ids as one of their clusters."""
    right = np.where(truth > 15, 16 + (truth.astype(int) - 16) % clusters + (clusters // 2) * rng.integers(0, 2), truth)
    return np.where((rng.random(truth.shape) < 0.5) & (truth != 255), np.minimum(right, 15 + clusters), prediction).astype(np.uint8)


@pytest.fixture(scope="module", params=[(0, 5), (1, 10), (2, 10), (2, 5), (3, 10)], ids=lambda p: f"fold{p[0]}-K{p[1]}")
def case(request: pytest.FixtureRequest):
    """Label space, truths in original ids, truths at the network's size, predictions, confusion matrices."""
    fold, clusters = request.param
    rng = np.random.default_rng(10 * fold + clusters)
    labels = LabelSpace(VOC_NAMES, tuple(PASCAL_FOLDS[fold]))
    truths, small, predictions = [], [], []
    counts, original = np.zeros((2, 21, 16 + clusters), np.int64), np.zeros((21, 16 + clusters), np.int64)
    for n in range(12):
        truth, prediction = scene(rng, clusters)
        contiguous = reindexed(truth, 20, PASCAL_FOLDS[fold])
        at_size = nearest(contiguous, SIZE, SIZE)
        prediction = agreeing(at_size, prediction, rng, clusters)
        truths, small, predictions = [*truths, truth], [*small, at_size], [*predictions, prediction]

        def count(t: np.ndarray, p: np.ndarray) -> np.ndarray:
            return confusion_matrix(torch.from_numpy(t), torch.from_numpy(p), 21, 16 + clusters).numpy()

        counts[n % 2] += count(at_size, prediction)
        original += count(contiguous, nearest(prediction, *truth.shape))
    return labels, truths, small, predictions, Confusions(counts, original), clusters


def test_matching(case):
    """Exact: the IoU on S, the one-to-one matching by trying all 120, or each cluster's argmax."""
    labels, _, small, predictions, found, clusters = case
    iou = published.matching_iou(small, predictions, 15, 5, clusters)
    assert (match_clusters(found.total, labels, "published") - 16).tolist() == published.matched(iou)
    assert len(set(published.matched(iou))) > 1


def test_scores_at_the_networks_size(case):
    """To the rounding of a division: 1e-12."""
    labels, _, small, predictions, found, clusters = case
    mapping = published.matched(published.matching_iou(small, predictions, 15, 5, clusters))
    expected = published.class_iou(small, [published.relabelled(p, mapping, 15) for p in predictions], 21)
    scores = score(found.total, labels)
    assert list(scores.per_class.values()) == pytest.approx(expected, abs=1e-12)
    assert scores.novel_miou == pytest.approx(published.novel_miou(expected, 5), abs=1e-12)
    assert scores.all_miou == pytest.approx(np.mean(expected), abs=1e-12)
    assert list(scores.per_class) == ["background", *labels.base_names, *labels.novel_names]  # base, then novel


def test_scores_of_the_released_script(case):
    """``eval.py``: nearest to each image's size, original ids, all 21 classes in the original order. To 1e-12."""
    labels, truths, small, predictions, found, clusters = case
    mapping = published.matched(published.matching_iou(small, predictions, 15, 5, clusters))
    expected = published.script_iou(truths, predictions, mapping, labels.base_ids, labels.novel_ids)
    scores = protocols(found, labels)["original_size"]
    assert [scores.per_class[name] for name in ("background", *VOC_NAMES)] == pytest.approx(expected, abs=1e-12)
    assert scores.all_miou == pytest.approx(np.mean(expected), abs=1e-12)
    assert scores.novel_miou == pytest.approx(np.mean([expected[i] for i in labels.novel_ids]), abs=1e-12)


def test_a_class_that_no_cluster_takes_has_iou_zero_and_counts():
    """K > N by argmax: the two clusters fit the large class best, and the third, which is never predicted, is given to it too."""
    labels = LabelSpace(tuple("abcd"), (3, 4))
    truth = np.array([[3] * 6 + [4] * 2 + [0] * 4], np.uint8)
    prediction = np.array([[3, 3, 3, 4, 4, 4, 3, 4] + [0] * 4], np.uint8)
    mapping = published.matched(published.matching_iou([truth], [prediction], 2, 2, 3))
    expected = published.class_iou([truth], [published.relabelled(prediction, mapping, 2)], 5)
    confusion = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(prediction), 5, 6).numpy()
    scores = score(confusion, labels)
    assert mapping == (match_clusters(confusion, labels, "published") - 3).tolist() == [0, 0, 0]
    assert [scores.per_class["c"], scores.per_class["d"]] == pytest.approx(expected[3:])
    assert scores.per_class["d"] == 0.0
    assert scores.novel_miou == pytest.approx(published.novel_miou(expected, 2)) == pytest.approx(6 / 8 / 2)


def test_false_positives_on_background_and_base_are_invisible_to_the_matching_but_not_to_the_scores():
    labels = LabelSpace(tuple("abcd"), (3, 4))
    truth = np.array([[3, 3, 4, 4, 0, 0, 0, 0, 1, 1]], np.uint8)
    clean, noisy = np.array([[3, 3, 4, 4, 0, 0, 0, 0, 1, 1]], np.uint8), np.array([[3, 3, 4, 4, 4, 4, 4, 4, 4, 4]], np.uint8)
    matrices = [confusion_matrix(torch.from_numpy(truth), torch.from_numpy(p), 5, 5).numpy() for p in (clean, noisy)]
    for matrix, prediction in zip(matrices, (clean, noisy), strict=True):
        iou = published.matching_iou([truth], [prediction], 2, 2, 2)
        assert published.best_total(iou)[0] == 2.0
        assert (match_clusters(matrix, labels, "published") - 3).tolist() == published.matched(iou)
        assert score(matrix, labels).per_class["d"] == pytest.approx(published.class_iou([truth], [prediction], 5)[4])
    assert score(matrices[1], labels).per_class["d"] == pytest.approx(0.25)
