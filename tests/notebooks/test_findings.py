"""What the notebooks say of a run: the words follow the numbers, in every case that a run may bring."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import diagrams
import findings
from ncdss_lib.data.palette import rgb, to_hex
from ncdss_lib.method.evaluation import PseudoLabels, purity
from own_images import from_markdown, pixels_by_name


def test_small_words():
    assert findings.listed(["a"]) == "a"
    assert findings.listed(["a", "b", "c"]) == "a, b and c"
    assert findings.compared(0.02) == "2.0 points above"
    assert findings.compared(-0.011) == "1.1 points below"
    assert findings.compared(0.0004) == "level with"
    assert findings.number_of(1, "cluster") == "1 cluster"
    assert findings.number_of(2, "cluster") == "2 clusters"


def test_saliency_says_what_is_under_it_and_what_it_covers():
    text = findings.saliency([0.5, 0.3, 0.2], [0.8, 0.6, 0.1])
    assert "50.0 % of the salient pixels belong to a novel class, 30.0 % to a base class and 20.0 % to neither" in text
    assert "cover 80.0 % of all novel pixels" in text


def test_what_lies_above_the_threshold():
    text = findings.swallowed({"novel": (5, 50), "base": (30, 40)}, 0.7)
    assert "10.0 % of the novel pixels are called a base class" in text
    assert "75.0 % lie above τ" in text
    assert "τ = 0.7" in text


def test_the_best_and_the_worst_class():
    assert findings.extremes({"a": 0.2, "b": None, "c": 0.9}) == "highest for *c* (90.0 %), lowest for *a* (20.0 %)"


def rows_of_clusters(*rows):
    return pd.DataFrame(rows, columns=["cluster", "main_class", "most_images"])


NAMES = ("background", "person", "bird", "boat")


def test_clusters_that_were_divided_and_classes_without_one():
    rows = rows_of_clusters((1, 2, 2), (2, 2, 2), (3, 2, 2), (3, 3, 2), (3, 0, 2))
    text = findings.clusters(rows, NAMES, range(2, 4), 3)
    assert "*bird* (3 clusters) was divided, and in no cluster most images are of *boat*" in text
    assert text.endswith("Cluster 3 is the most mixed: only 1 of its 3 images are of *bird*, its class.")
    rows = rows_of_clusters((1, 2, 2), (2, 3, 3))
    assert "no class was divided, and every novel class has a cluster of its own" in findings.clusters(rows, NAMES, range(2, 4), 2)
    rows = rows_of_clusters((1, 2, 2), (2, 0, 0), (2, 0, 0))
    assert findings.clusters(rows, NAMES, range(2, 4), 2).endswith(
        "Cluster 2 is the most mixed: under none of its 2 masks is a novel class."
    )


def test_the_class_that_made_most_of_a_gain():
    models = ("basic", "basic_oc")
    text = findings.cause_of_gain({"bird": 0.0, "boat": 0.5}, {"bird": 0.6, "boat": 0.4}, ["bird", "boat"], models)
    assert "basic_oc is 25.0 points above basic" in text
    assert "*bird*, whose IoU goes from 0.0 % to 60.0 %: 30.0 points of the mean of 2 classes. *boat* falls." in text
    text = findings.cause_of_gain({"bird": 0.6, "boat": 0.4}, {"bird": 0.0, "boat": 0.5}, ["bird", "boat"], models)
    assert "25.0 points below basic" in text
    assert "*bird*, whose IoU goes from 60.0 % to 0.0 %" in text
    assert "*boat* rises." in text
    spread = [dict(zip("abc", values, strict=True)) for values in ((0.1, 0.1, 0.1), (0.3, 0.2, 0.25))]
    assert "No class makes half of it; most comes from *a*" in findings.cause_of_gain(*spread, [*"abc"], models)
    assert findings.cause_of_gain({"bird": 0.1}, {"bird": 0.1}, ["bird"], models).endswith("is level with basic in novel mIoU.")
    assert findings.cause_of_gain({"bird": None}, {"bird": None}, ["bird"], models) == ""


def test_a_gain_that_a_rule_turns():
    models = ("basic", "basic_oc")
    text = findings.under_other_rulers({"published": 0.1, "hungarian": -0.02, "majority": 0.1}, models)
    assert "10.0 points above basic as published. The sign turns: it is 2.0 points below under *one-to-one" in text
    assert findings.under_other_rulers({"published": 0.1, "majority": 0.09}, models).endswith("same under every other rule.")


def test_the_order_of_models_by_protocol():
    same = {"a": {"published": 0.1, "majority": 0.2}, "b": {"published": 0.3, "majority": 0.4, "best_epoch": 0.9}}
    assert findings.order_of_models(same).endswith("the same under every protocol: b > a.")
    other = {"a": {"published": 0.1, "majority": 0.5}, "b": {"published": 0.3, "majority": 0.4}}
    text = findings.order_of_models(other)
    assert "It is b > a under 1 of 2. It is a > b under *majority vote*." in text


def test_where_novel_pixels_went():
    #                background person bird boat no class
    merged = np.array([[9, 0, 0, 0, 0], [0, 9, 0, 0, 0], [3, 1, 6, 0, 0], [0, 0, 5, 5, 0]])
    text = findings.leaks(merged, NAMES, 2)
    assert "of all novel pixels 15.0 % are called background, 5.0 % a base class, and 25.0 % another novel class" in text
    assert "50.0 % of *boat* is called *bird*" in text


def ranked(right, split):
    frame = pd.DataFrame({"pixels": 10, "right": right, "split": split})
    return frame


@pytest.mark.parametrize(
    ("right", "split", "verdict"),
    [
        ([9, 8, 2, 1], ["clean", "clean", "unclean", "unclean"], "Low entropy does mean right labels here."),
        ([1, 2, 8, 9], ["clean", "clean", "unclean", "unclean"], "Low entropy does not mean right labels here."),
        ([5, 9, 1, 6], ["clean", "clean", "unclean", "unclean"], "not steadily along the order."),
    ],
)
def test_whether_low_entropy_meant_right_labels(right, split, verdict):
    text = findings.ranking(ranked(right, split), parts=4)
    assert verdict in text
    assert f"{10 * right[0]}.0 % of the pseudo-novel pixels are right in the surest" in text


def test_what_one_ranking_does_to_a_cluster():
    together, apart = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    text = findings.ranked_by_cluster(np.array([1, 1, 2, 2]), together, apart, 0.5)
    assert "0 % of cluster 2 clean and 100 % of cluster 1, where 50 % is the average" in text
    assert "would move 2 images of 4" in text


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ([0.5, 0.6, 0.7], [0.5, 0.55, 0.69], "The student is right first: it is ahead from epoch 1 on, by 5.0 points at most"),
        ([0.5, 0.5, 0.6], [0.5, 0.6, 0.7], "The teacher is right first: it is ahead from epoch 1 on, by 10.0 points at most."),
        ([0.5, 0.6, 0.6], [0.5, 0.5, 0.7], "ahead before 1 epoch, the teacher before 1 epoch, and at the end the teacher is."),
        ([0.5, 0.5], [0.5, 0.5], "Neither is ahead of the other."),
    ],
)  # fmt: skip
def test_who_is_right_first(student, teacher, words):
    shares = pd.DataFrame({"student": student, "teacher": teacher})
    assert words in findings.who_is_right_first(shares, 8)


def test_what_the_teacher_kept_and_what_its_threshold_did():
    assert "every pixel" in findings.kept_pixels([1.0, 1.0], 0.0)
    assert "81.0 % of the unclean pixels in the first epoch and of 93.0 % in the last" in findings.kept_pixels([0.81, 0.93], 0.7)
    assert "40.0 % of the novel pixels" in findings.confidence_helps(1.0, 0.4, 0.4, 0.0)
    text = findings.confidence_helps(0.5, 0.6, 0.4, 0.7)
    assert "labels 50.0 % of them, and 60.0 % of those are right: 20.0 points above the published way" in text


def test_what_reassignment_did():
    text = findings.reassigned({0: 101, 3: 50}, {0: 0.8, 3: 0.9}, 8, "before epoch 5 of 30")
    assert "before epoch 3 of 8 (published: before epoch 5 of 30), 101 clean images become 50" in text
    assert "rises: 80.0 % before, 90.0 % after" in text
    assert "falls" in findings.reassigned({0: 2, 3: 1}, {0: 0.9, 3: 0.8}, 8, "")
    assert "no reassignment" in findings.reassigned({0: 2}, {0: 0.9}, 8, "")


def test_clusters_that_no_picture_shows():
    assert findings.used_clusters({"cluster 1": 9, "cluster 2": 1}, 2) == "All 2 clusters occur in these pictures."
    assert findings.used_clusters({"cluster 1": 9}, 3) == "Of 3 clusters, cluster 2 and cluster 3 occur in none of them."
    assert findings.used_clusters({"cluster 1": 9}, 2).endswith("cluster 2 occurs in none of them.")


def test_settings_stand_beside_the_published_ones(finished, voc):
    from ncdss_lib.runs.pipeline import reopen

    run = reopen(finished["laptop"], str(voc))
    shown = findings.settings(run, "clustering.base_confidence", "clustering.whiten", "eums.reassign_epochs").data
    assert '<td style="text-align: left">0.9</td>' in shown
    assert "a pixel is confidently base when its base probability is greater" in shown
    assert '<td style="text-align: left">yes</td>' in shown
    facts = findings.run_facts(run, "clustering").data
    assert "stage clustering" in facts
    assert run.data.saliency_note in facts
    shares = findings.right_by_epoch(run)
    assert set(shares) <= {"student", "teacher"}


def test_purity_is_that_of_the_report():
    """Two ways to the same number: a row for each image, and the votes of the evaluation."""
    generator = np.random.default_rng(0)
    cluster, main = generator.integers(1, 5, 60), generator.integers(0, 4, 60)
    rows = pd.DataFrame({"cluster": cluster, "main_class": main})
    votes = [(k - 1, c) for k, c in zip(cluster, main, strict=True) if c]
    labels = PseudoLabels(np.ones((4, 4), np.int64), votes, 60)
    assert purity(rows["cluster"], rows["main_class"]) == pytest.approx(labels.quality(1)["purity"])
    assert purity([1, 2], [0, 0]) is None


def test_the_shares_at_a_threshold():
    above = np.zeros((2, 50))
    above[0, :36], above[1, :36] = 10, 30
    above[0, 0], above[1, 0] = 60, 40
    assert diagrams.teacher_shares(above, 0.7) == (0.4, 0.75, 0.4)


def test_what_a_command_prints_becomes_a_table():
    shown = from_markdown("2 pictures < 3.\n\n| a | b |\n|---|---|\n| x | 1 |\n| y | 2 |\n").data
    assert shown.startswith("<p>2 pictures &lt; 3.</p><table")
    assert shown.count("<tr>") == 3
    assert "|" not in shown


def test_pixels_of_each_name(tmp_path):
    from ncdss_lib.data.masks import write_labels

    (tmp_path / "masks").mkdir()
    write_labels(tmp_path / "masks" / "a.png", np.array([[0, 1], [1, 1]], np.uint8))
    colour = to_hex(rgb("#123456"))
    (tmp_path / "legend.csv").write_text(f"id,name,colour\n0,background,{colour}\n1,cluster 1,{colour}\n2,cluster 2,{colour}\n")
    assert pixels_by_name(tmp_path) == {"background": 1, "cluster 1": 3, "cluster 2": 0}
