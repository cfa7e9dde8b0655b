"""One confusion matrix and all that follows from it, each recomputed from the masks themselves."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.method.cluster_matching import UNMATCHED, match_clusters, merge_clusters, pairwise_iou
from ncdss_lib.method.metrics import confusion_matrix, iou_per_class, score, score_held_out, score_matched

#: Original ids 2 and 5 are novel: contiguous ids are a 1, c 2, d 3, then b 4, e 5.
LABELS = LabelSpace(("a", "b", "c", "d", "e"), (2, 5))
FIRST = 4  # the first novel contiguous id, and the first cluster's prediction


def random_masks(seed: int, clusters: int, shape: tuple[int, ...] = (3, 9, 11)) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth (with some 255) and predictions that agree with it more often than by chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(LABELS.names), shape)
    prediction = np.where(rng.random(shape) < 0.4, np.minimum(truth, FIRST + clusters - 1), rng.integers(0, FIRST + clusters, shape))
    truth[rng.random(shape) < 0.1] = 255
    return truth, prediction


def confusion_of(truth: np.ndarray, prediction: np.ndarray, clusters: int) -> np.ndarray:
    rows, columns = len(LABELS.names), FIRST + clusters
    return confusion_matrix(torch.from_numpy(truth), torch.from_numpy(prediction), rows, columns).numpy()


def set_iou(a: np.ndarray, b: np.ndarray) -> float | None:
    """IoU of two boolean masks as sets of pixels."""
    one, two = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(one & two) / len(one | two) if one | two else None


seeds = st.integers(0, 2**32 - 1)


# --- the confusion matrix ---------------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(0, 5))
def test_confusion_matrix_counts_pixel_by_pixel(seed, clusters):
    truth, prediction = random_masks(seed, clusters, (2, 5, 7))
    expected = np.zeros((len(LABELS.names), FIRST + clusters), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255:
            expected[t, p] += 1
    found = confusion_of(truth, prediction, clusters)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_confusion_matrices_of_batches_add_up_also_for_uint8():
    truth, prediction = random_masks(3, 4)
    as_bytes = torch.from_numpy(truth.astype(np.uint8))
    parts = [confusion_matrix(t, p, 6, 8) for t, p in zip(as_bytes, torch.from_numpy(prediction), strict=True)]
    np.testing.assert_array_equal(sum(parts).numpy(), confusion_of(truth, prediction, 4))


def test_all_ignored_is_an_empty_matrix():
    assert confusion_matrix(torch.full((2, 2), 255), torch.zeros(2, 2, dtype=torch.long), 6, 8).sum() == 0


# --- matching ---------------------------------------------------------------------------------------------------------------------------


def iou_on_s(truth: np.ndarray, prediction: np.ndarray, clusters: int) -> np.ndarray:
    """IoU [N, K] from masks, on S only: truth novel and prediction a cluster."""
    s = (truth >= FIRST) & (truth != 255) & (prediction >= FIRST)
    table = np.zeros((LABELS.num_novel, clusters))
    for c in range(LABELS.num_novel):
        for k in range(clusters):
            table[c, k] = set_iou(s & (truth == FIRST + c), s & (prediction == FIRST + k)) or 0.0
    return table


@given(seeds, st.integers(2, 5))
def test_hungarian_is_the_best_of_all_one_to_one_matchings(seed, clusters):
    truth, prediction = random_masks(seed, clusters, (6, 8))
    iou = iou_on_s(truth, prediction, clusters)
    best = max(sum(iou[c, k] for c, k in enumerate(chosen)) for chosen in permutations(range(clusters), LABELS.num_novel))
    mapping = match_clusters(confusion_of(truth, prediction, clusters), LABELS, "hungarian")
    matched = mapping[mapping != UNMATCHED]
    assert sorted(matched) == [FIRST, FIRST + 1]  # each class once, K - N clusters left over
    assert sum(iou[c - FIRST, k] for k, c in enumerate(mapping) if c != UNMATCHED) == pytest.approx(best)


@given(seeds, st.integers(1, 6))
def test_argmax_iou_from_masks(seed, clusters):
    truth, prediction = random_masks(seed, clusters)
    iou = iou_on_s(truth, prediction, clusters)
    mapping = match_clusters(confusion_of(truth, prediction, clusters), LABELS, "argmax_iou")
    for k in range(clusters):
        assert iou[mapping[k] - FIRST, k] == iou[:, k].max()


@given(seeds, st.integers(1, 6))
def test_majority_from_masks(seed, clusters):
    truth, prediction = random_masks(seed, clusters)
    mapping = match_clusters(confusion_of(truth, prediction, clusters), LABELS, "majority")
    for k in range(clusters):
        pixels = [(truth[prediction == FIRST + k] == FIRST + c).sum() for c in range(LABELS.num_novel)]
        assert pixels[mapping[k] - FIRST] == max(pixels)


def test_argmax_iou_prefers_small_classes_where_majority_does_not():
    """The published many-to-one rule is called a majority vote, but compares IoUs: 30 of 1000 pixels lose against 20 of 20."""
    confusion = np.zeros((6, 6), np.int64)
    confusion[FIRST:, FIRST:] = [[970, 30], [0, 20]]
    assert match_clusters(confusion, LABELS, "majority").tolist() == [FIRST, FIRST]
    assert match_clusters(confusion, LABELS, "argmax_iou").tolist() == [FIRST, FIRST + 1]


def test_false_positives_outside_the_novel_classes_are_invisible_to_the_matching():
    truth, prediction = random_masks(0, 4)
    confusion = confusion_of(truth, prediction, 4)
    flooded = confusion.copy()
    flooded[:FIRST, FIRST:] += 10_000
    flooded[FIRST:, :FIRST] += 10_000
    for rule in ("hungarian", "argmax_iou", "majority"):
        assert match_clusters(confusion, LABELS, rule).tolist() == match_clusters(flooded, LABELS, rule).tolist()


def test_published_is_hungarian_for_k_equal_n_and_argmax_iou_above():
    for seed in range(20):
        for clusters, rule in ((2, "hungarian"), (3, "argmax_iou"), (4, "argmax_iou")):
            confusion = confusion_of(*random_masks(seed, clusters), clusters)
            assert match_clusters(confusion, LABELS, "published").tolist() == match_clusters(confusion, LABELS, rule).tolist()


def test_with_fewer_clusters_than_classes_each_cluster_has_a_class_of_its_own():
    """The released code refuses K < N; a small number of images may not allow more."""
    labels = LabelSpace(tuple("abcde"), (2, 4, 5))
    confusion = np.zeros((6, 5), np.int64)
    confusion[3:, 3:] = [[5, 4], [9, 1], [0, 3]]  # three novel classes, two clusters
    found = score(confusion, labels)
    assert found.cluster_to_class == {1: "d", 2: "e"} or found.cluster_to_class == {1: "d", 2: "b"}
    assert sum(c is not None for c in found.cluster_to_class.values()) == 2
    matched = set(found.cluster_to_class.values())
    assert [found.per_class[name] for name in ("b", "d", "e") if name not in matched] == [0.0]


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown matching rule 'best'"):
        match_clusters(np.zeros((6, 6), np.int64), LABELS, "best")


def test_pairwise_iou_is_zero_where_both_are_empty():
    np.testing.assert_allclose(pairwise_iou(np.array([[6.0, 0, 0], [2, 4, 0]])), [[6 / 8, 0, 0], [2 / 12, 4 / 6, 0]])


# --- scores -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["hungarian", "argmax_iou", "majority", "published"])
@pytest.mark.parametrize("clusters", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_scores_from_masks(seed, clusters, rule):
    truth, prediction = random_masks(seed, clusters)
    confusion = confusion_of(truth, prediction, clusters)
    found = score(confusion, LABELS, rule)

    mapping = match_clusters(confusion, LABELS, rule)
    relabelled = np.array([*range(FIRST), *mapping])[prediction]
    valid = truth != 255
    iou = [set_iou(valid & (truth == c), valid & (relabelled == c)) for c in range(len(LABELS.names))]
    assert found.per_class == dict(zip(("background", "a", "c", "d", "b", "e"), iou, strict=True))
    assert found.background_iou == pytest.approx(iou[0])
    assert found.base_miou == pytest.approx(np.mean(iou[1:4]))
    assert found.novel_miou == pytest.approx(np.mean(iou[4:]))
    assert found.all_miou == pytest.approx(np.mean(iou))
    assert found.harmonic_mean == pytest.approx(2 / (1 / np.mean(iou[1:4]) + 1 / np.mean(iou[4:])))
    names = {UNMATCHED: None, 4: "b", 5: "e"}
    assert found.cluster_to_class == {k + 1: names[c] for k, c in enumerate(mapping)}


@given(seeds, st.integers(2, 5), st.sampled_from(["hungarian", "argmax_iou", "majority"]), st.randoms())
def test_the_names_of_clusters_do_not_matter(seed, clusters, rule, random):
    confusion = confusion_of(*random_masks(seed, clusters, (13, 17)), clusters)
    counts = confusion[FIRST:, FIRST:].astype(float)
    table = pairwise_iou(counts) if rule != "majority" else counts
    if len(set(table.ravel())) < table.size:
        return  # ties may fall either way
    order = list(range(clusters))
    random.shuffle(order)
    shuffled = confusion[:, [*range(FIRST), *(FIRST + k for k in order)]]
    one, two = score(confusion, LABELS, rule).as_dict(), score(shuffled, LABELS, rule).as_dict()
    assert [one["matching"]["cluster_to_class"][str(k + 1)] for k in order] == list(two["matching"]["cluster_to_class"].values())
    assert one["per_class"] == two["per_class"]


def test_an_absent_class_has_no_iou_and_means_skip_it():
    confusion = np.zeros((6, 6), np.int64)
    confusion[0, 0] = confusion[1, 1] = confusion[4, 4] = 10  # classes c, d and e are in neither truth nor prediction
    confusion[1, 0] = 10
    found = score(confusion, LABELS)
    assert found.per_class == {"background": 0.5, "a": 0.5, "c": None, "d": None, "b": 1.0, "e": None}
    assert (found.base_miou, found.novel_miou, found.background_iou) == (0.5, 1.0, 0.5)
    assert found.all_miou == pytest.approx(2 / 3)
    assert found.harmonic_mean == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_has_iou_zero():
    confusion = np.zeros((6, 6), np.int64)
    confusion[0, 0], confusion[0, 2] = 10, 5
    assert score(confusion, LABELS).per_class["c"] == 0.0


def test_unmatched_clusters_count_as_errors():
    """Pixels of a leftover cluster are missed by their class and are no false positives of another."""
    confusion = np.zeros((6, 7), np.int64)
    confusion[4, 4], confusion[5, 5], confusion[4, 6] = 10, 10, 5
    found = score(confusion, LABELS, "hungarian")
    assert found.cluster_to_class == {1: "b", 2: "e", 3: None}
    assert (found.per_class["b"], found.per_class["e"]) == (10 / 15, 1.0)


def test_relabel_keeps_every_pixel():
    confusion = confusion_of(*random_masks(1, 4), 4)
    merged = merge_clusters(confusion, np.array([FIRST, UNMATCHED, FIRST, FIRST + 1]), LABELS)
    assert merged.shape == (6, 7)
    np.testing.assert_array_equal(merged.sum(1), confusion.sum(1))
    np.testing.assert_array_equal(merged[:, -1], confusion[:, FIRST + 1])
    np.testing.assert_array_equal(merged[:, FIRST], confusion[:, FIRST] + confusion[:, FIRST + 2])


def test_the_base_model_sees_novel_truth_as_background():
    truth, prediction = random_masks(7, 0)
    found = score(confusion_of(truth, prediction, 0), LABELS)
    hidden = np.where((truth >= FIRST) & (truth != 255), 0, truth)
    valid = truth != 255
    iou = [set_iou(valid & (hidden == c), valid & (prediction == c)) for c in range(4)]
    assert found.per_class == {**dict(zip(("background", "a", "c", "d"), iou, strict=True)), "b": None, "e": None}
    assert found.base_miou == pytest.approx(np.mean(iou[1:]))
    assert (found.novel_miou, found.harmonic_mean, found.rule, found.cluster_to_class) == (None, None, "none", {})


def test_harmonic_mean_of_zeros_is_zero():
    confusion = np.zeros((6, 6), np.int64)
    confusion[1, 0] = confusion[4, 0] = 10
    assert score(confusion, LABELS).harmonic_mean == 0.0


def test_nothing_at_all_scores_nothing():
    found = score(np.zeros((6, 6), np.int64), LABELS)
    assert (found.novel_miou, found.base_miou, found.background_iou, found.all_miou, found.harmonic_mean) == (None,) * 5


def test_as_dict_is_what_the_report_holds():
    entry = score(confusion_of(*random_masks(2, 3), 3), LABELS).as_dict()
    means = {"novel_miou", "base_miou", "background_iou", "all_miou", "harmonic_mean"}
    assert set(entry) == means | {"per_class", "matching"}
    assert entry["matching"]["rule"] == "published"
    assert list(entry["matching"]["cluster_to_class"]) == ["1", "2", "3"]


def test_iou_per_class_of_a_square_matrix():
    np.testing.assert_allclose(iou_per_class(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])), [3 / 6, 4 / 7, np.nan])


# --- matchings made elsewhere -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("clusters", [2, 4])
def test_held_out_scores_each_half_under_the_matching_of_the_other_from_masks(seed, clusters):
    halves = [random_masks(2 * seed + half, clusters) for half in range(2)]
    confusions = np.stack([confusion_of(*masks, clusters) for masks in halves])
    mappings = [match_clusters(confusion, LABELS, "published") for confusion in confusions]
    relabelled = [np.array([*range(FIRST), *mappings[1 - half]])[halves[half][1]] for half in range(2)]
    truth, prediction = np.concatenate([t for t, _ in halves]), np.concatenate(relabelled)
    found = score_held_out(confusions, LABELS)
    valid = truth != 255
    expected = [set_iou(valid & (truth == c), valid & (prediction == c)) for c in range(len(LABELS.names))]
    assert list(found.per_class.values()) == expected
    assert found.rule == "held_out"


def test_held_out_equals_published_where_both_halves_say_the_same():
    confusion = confusion_of(*random_masks(5, 4), 4)
    published = match_clusters(confusion, LABELS, "published")
    held_out, whole = score_held_out(np.stack([confusion, confusion]), LABELS), score(2 * confusion, LABELS)
    assert held_out.per_class == whole.per_class
    assert list(held_out.cluster_to_class.values()) == [LABELS.names[c] for c in published]


def test_a_cluster_on_which_the_halves_disagree_has_both_names_and_gains_nothing():
    halves = np.zeros((2, 6, 6), np.int64)
    halves[0, 4:, 4:] = [[10, 0], [0, 10]]  # cluster 1 is b and cluster 2 is e here,
    halves[1, 4:, 4:] = [[0, 10], [10, 0]]  # and the other way round there
    found = score_held_out(halves, LABELS)
    assert found.cluster_to_class == {1: "b / e", 2: "e / b"}
    assert found.novel_miou == 0.0
    assert score(halves.sum(0), LABELS).novel_miou == pytest.approx(1 / 3)


def test_a_matching_may_come_from_another_size():
    confusion = confusion_of(*random_masks(8, 3), 3)
    mapping = match_clusters(confusion, LABELS, "hungarian")
    assert score_matched(confusion, mapping, LABELS, "hungarian") == score(confusion, LABELS, "hungarian")


@pytest.mark.parametrize("rule", ["published", "hungarian", "argmax_iou", "majority"])
def test_without_novel_truth_no_cluster_has_a_class_and_nothing_novel_is_scored(rule):
    confusion = confusion_of(*random_masks(9, 4), 4)
    confusion[FIRST:] = 0
    found = score(confusion, LABELS, rule)
    assert set(found.cluster_to_class.values()) == {None}
    assert (found.novel_miou, found.harmonic_mean) == (None, None)
    assert found.base_miou is not None
