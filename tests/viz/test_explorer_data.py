"""What explorers show is what the stages, the report and plain NumPy say of the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.clustering import read_pseudo_label
from ncdss_lib.method.entropy_ranking import read_ranking
from ncdss_lib.method.evaluation import confusion_on_val, purity
from ncdss_lib.method.inference import load_model
from ncdss_lib.recipes import Recipe
from ncdss_lib.runs.pipeline import Run, reopen
from ncdss_lib.system.errors import InputError
from ncdss_lib.viz import explorer_data, results
from tests.conftest import opened
from tests.viz.read_outs import class_iou, label_shares, mask_shares, teaching_shares


@pytest.fixture(scope="module")
def run(finished: dict[str, Path], voc: Path) -> Run:
    return reopen(finished["laptop"], str(voc))


# --- the run --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["laptop", "paper"])
def test_a_folder_is_reopened_as_the_run_that_made_it(finished, voc, recipe):
    again, made = reopen(finished[recipe], str(voc)), opened(voc, finished[recipe], recipe)
    assert (again.recipe, again.labels, again.fold, again.seed) == (made.recipe, made.labels, made.fold, made.seed)
    assert again.splits == made.splits
    assert all(again.is_current(stage) for stage in again.stages())  # nothing would be computed again


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"report\.json is missing.*`ncdss run` makes one"):
        reopen(tmp_path)


# --- pictures ---------------------------------------------------------------------------------------------------------------------------


def test_a_picture_is_made_smaller_but_never_larger(run):
    i = run.splits.novel[0]
    image, truth = run.data.image(i), run.truth(i)
    small = explorer_data.shrunken(run, i, 20, {"truth": truth})
    assert max(small.image.shape[:2]) == 20
    assert small.maps["truth"].shape == small.image.shape[:2]
    assert small.image.shape[0] / small.image.shape[1] == pytest.approx(image.shape[0] / image.shape[1], rel=0.05)
    assert set(np.unique(small.maps["truth"])) <= set(np.unique(truth))  # nearest neighbour: no label in between
    same = explorer_data.shrunken(run, i, 500, {"truth": truth})
    np.testing.assert_array_equal(same.image, image)
    np.testing.assert_array_equal(same.maps["truth"], truth)


def test_layers_tell_what_each_training_is_told(run):
    model = explorer_data.label_layers(run)
    first = 1 + run.labels.num_base
    assert any(p.id in run.splits.novel for p in model.pictures)
    assert any(p.id in run.splits.base for p in model.pictures)
    for picture in model.pictures:
        truth = picture.maps["the whole truth"]
        np.testing.assert_array_equal(truth, run.truth(picture.id))
        known = np.where((truth >= first) & (truth != IGNORE), 0, truth)  # novel classes are background to base training
        for name, told in (
            ("in base training", picture.id in run.splits.base_train),
            ("in fine-tuning", picture.id not in run.splits.novel),
        ):
            np.testing.assert_array_equal(picture.maps[name], known if told else np.full_like(truth, IGNORE))
        salient = run.data.saliency(picture.id)
        np.testing.assert_array_equal(picture.maps["salient pixels"] > 0, np.zeros(truth.shape, bool) if salient is None else salient)
        shares = label_shares(picture, "the whole truth")
        assert sum(shares.values()) == pytest.approx(1)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert shares == {label: (truth == label).mean() for label in shares}


def test_pseudo_label_layers_are_the_files_of_the_stage(run):
    model = explorer_data.pseudo_label_layers(run, 4)
    assert list(model.looks) == ["pseudo-label, K = 5", "pseudo-label, K = 10", "the truth (hidden)"]
    assert len(model.pictures) == 4
    for picture in model.pictures:
        for k in (5, 10):
            stored = read_pseudo_label(run.folder / "clustering", k, picture.id)
            np.testing.assert_array_equal(picture.maps[f"pseudo-label, K = {k}"], resize_labels(stored, picture.image.shape[:2]))


# --- threshold --------------------------------------------------------------------------------------------------------------------------


def base_model_on(run: Run, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Label and probability of the base model, stretched to the image's size: each pixel takes the value whose cell holds its corner."""
    height, width = run.truth(image_id).shape
    probability, label = (x.numpy() for x in results.logits_of(run, "base", [image_id])[image_id].softmax(0).max(0))
    cells = np.ix_([y * label.shape[0] // height for y in range(height)], [x * label.shape[1] // width for x in range(width)])
    return label[cells], probability[cells]


@pytest.mark.parametrize("place", [0, 4, 7, 9, 12, -1])
def test_threshold_counts_over_all_images_what_masks_made_one_by_one_hold(run, place):
    model = explorer_data.threshold_data(run)
    threshold = model.thresholds[place]
    held, novel = np.zeros(3, int), 0
    for i in run.splits.novel:
        truth, salient = run.truth(i), run.data.saliency(i)
        is_novel = (truth > run.labels.num_base) & (truth != IGNORE)
        novel += is_novel.sum()
        if salient is None:
            continue
        label, probability = base_model_on(run, i)
        mask = salient & ~((label > 0) & (probability > np.float32(threshold)))
        is_base = (truth > 0) & (truth <= run.labels.num_base)
        held += [(mask & is_novel).sum(), (mask & is_base).sum(), (mask & (truth == 0)).sum()]
        for picture in model.pictures:
            if picture.id == i:
                np.testing.assert_array_equal(explorer_data.threshold_masks(picture, model.thresholds, threshold)[1], mask)
    numbers = mask_shares(model, threshold)
    assert [numbers[kind] for kind in explorer_data.KINDS] == pytest.approx(held / held.sum())
    assert numbers["covered"] == pytest.approx(held[0] / novel)
    assert model.shares(threshold) == pytest.approx(numbers)


def test_a_higher_threshold_leaves_more(run):
    model = explorer_data.threshold_data(run)
    covered = [mask_shares(model, t)["covered"] for t in model.thresholds]
    assert covered == sorted(covered)
    for picture in model.pictures:
        sizes = [explorer_data.threshold_masks(picture, model.thresholds, t)[1].mean() for t in model.thresholds]
        assert sizes == sorted(sizes)
        assert sizes[-1] == pytest.approx((picture.maps["salient"] > 0).mean())  # no probability is greater than 1


def test_the_published_settings_stand_beside_those_of_the_run(run):
    model = explorer_data.threshold_data(run)
    assert (model.chosen, model.published) == (run.recipe.clustering.base_confidence, 0.9)
    assert {model.chosen, model.published} <= set(model.thresholds)
    assert explorer_data.ranking_data(run).published == Recipe().entropy_ranking.clean_share


# --- the whole pipeline -----------------------------------------------------------------------------------------------------------------


def test_the_pipeline_shows_what_the_stages_wrote(run):
    model = explorer_data.pipeline_data(run, 4)
    assert len(model.pictures) == 4
    assert model.images == len(read_ranking(run.folder / "entropy_ranking"))
    for picture in model.pictures:
        about = model.about[picture.id]
        base, mask = explorer_data.threshold_masks(picture, model.thresholds, model.chosen)
        label = np.where(base > 0, base, mask * about["label"])
        np.testing.assert_array_equal(label, read_pseudo_label(run.folder / "clustering", run.clusters["eums"], picture.id))
        assert about["label"] == run.labels.num_base + about["cluster"]
        assert about["split"] == read_ranking(run.folder / "entropy_ranking").loc[picture.id, "split"]


# --- clusters and ranking ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["basic", "basic_oc"])
def test_the_purity_is_that_of_the_report(run, name):
    model = explorer_data.clusters_data(run)
    assert model.purity(run.clusters[name]) == pytest.approx(run.report()["pseudo_labels"][name]["purity"])


def test_any_number_of_clusters_divides_all_images(run):
    model = explorer_data.clusters_data(run)
    assert model.chosen in model.choices
    for k in model.choices:
        assert set(model.assign(k).tolist()) == set(range(1, k + 1))
        assert sum(model.members(k, c)["images"] for c in range(1, k + 1)) == len(model.ids)
        labels = [model.members(k, c)["label"] for c in range(1, k + 1)]
        agree = [labels[c - 1] == own for c, own in zip(model.assign(k), model.main_class, strict=True) if own]
        assert model.purity(k) == pytest.approx(np.mean(agree))
    assert model.purity(len(model.ids)) == 1  # each its own


def test_purity_is_one_number_wherever_it_stands(run):
    """In the report, the explorer, the tables of notebooks and, of each cluster, the gallery: by images, not by pixels."""
    report, explorer = run.report()["pseudo_labels"], explorer_data.clusters_data(run)
    for name in ("basic", "basic_oc"):
        k = run.clusters[name]
        frame = results.pseudo_label_table(run, k)
        assert purity(frame["cluster"], frame["main_class"]) == explorer.purity(k) == report[name]["purity"]
        for cluster, members in frame.groupby("cluster"):
            about = explorer.members(k, cluster)
            assert set(members["most_images"]) == {about["label"]}
            assert (members["main_class"] == about["label"]).sum() == (about["right"] if about["label"] else len(members))
    ranking = results.ranking_table(run)
    for split in ("clean", "unclean"):
        side = ranking[ranking["split"] == split]
        assert purity(side["cluster"], side["main_class"]) == report[split]["purity"]


def test_thumbnails_are_bounded_and_spread(run, monkeypatch):
    monkeypatch.setattr(explorer_data, "THUMBNAILS", 5)
    model = explorer_data.clusters_data(run)
    shown = sorted(model.thumbnails)
    assert (len(shown), shown[0], shown[-1]) == (5, 0, len(model.ids) - 1)
    assert {t.shape for t in model.thumbnails.values()} == {(72, 72, 3)}


def test_the_ranking_at_the_share_of_the_recipe_is_that_of_the_run(run):
    model, quality = explorer_data.ranking_data(run), run.report()["pseudo_labels"]
    numbers = model.numbers(model.chosen)
    for side in ("clean", "unclean"):
        assert numbers[side] == quality[side]["images"]
        assert numbers[f"{side}_right"] == pytest.approx(quality[side]["correct_share"])
    stored = read_ranking(run.folder / "entropy_ranking")
    assert model.table.index[model.clean(model.chosen)].tolist() == stored.index[stored["split"] == "clean"].tolist()


def test_the_entropy_of_a_picture_averages_to_the_score_of_its_image(run):
    model = explorer_data.ranking_data(run, side=500)
    for picture in model.pictures:
        region = (picture.maps["pseudo"] > run.labels.num_base) & (picture.maps["pseudo"] != IGNORE)
        assert picture.maps["entropy"][region].mean() / 255 == pytest.approx(model.table.loc[picture.id, "entropy"], abs=0.06)


# --- student and teacher ----------------------------------------------------------------------------------------------------------------


def test_both_begin_as_the_over_clustered_model_and_end_as_the_stored_networks(run):
    model = explorer_data.teaching_data(run)
    assert model.epochs == [0, 1, 2, run.recipe.eums.epochs]
    ids = [p.id for p in model.pictures]
    stored = read_ranking(run.folder / "entropy_ranking")
    assert set(ids) <= set(stored.index[stored["split"] == "unclean"])
    for name, network in (
        ("student_0", "basic_oc"),
        ("teacher_0", "basic_oc"),
        (f"teacher_{model.epochs[-1]}", results.load_teacher(run)),
    ):
        logits = results.logits_of(run, network, ids)
        for picture in model.pictures:
            label = logits[picture.id].argmax(0).numpy().astype(np.uint8)
            np.testing.assert_array_equal(picture.maps[name], resize_labels(label, picture.image.shape[:2]), err_msg=name)


def test_a_higher_confidence_teaches_less(run):
    model = explorer_data.teaching_data(run)
    for epoch in model.epochs:
        kept = [teaching_shares(model, epoch, t / 20)["kept"] for t in range(20)]
        assert kept == sorted(kept, reverse=True)
        assert kept[0] == 1
        numbers = teaching_shares(model, epoch, 0)
        assert numbers["taught"] == numbers["teacher"]  # all is taught


def test_student_and_teacher_are_right_as_often_as_their_curves_say(run):
    model = explorer_data.teaching_data(run)
    right = model.right_by_epoch()
    for n, epoch in enumerate(model.epochs):
        numbers = teaching_shares(model, epoch, 0)
        assert [right["student"][n], right["teacher"][n]] == pytest.approx([numbers["student"], numbers["teacher"]])


def test_labels_stand_for_the_class_of_most_of_their_pixels(run):
    model, quality = explorer_data.teaching_data(run), results.pseudo_label_table(run, 10)
    first = 1 + run.labels.num_base
    assert model.mapping[:first].tolist() == list(range(first))
    assert {first + row.cluster - 1: row.cluster_class for row in quality.itertuples()} == {
        k: c for k, c in enumerate(model.mapping.tolist()) if k >= first and c >= 0
    }


# --- predictions ------------------------------------------------------------------------------------------------------------------------


def test_predictions_have_the_scores_of_the_report(run):
    confusions = {name: confusion_on_val(run, load_model(run, name), run.recipe.evaluation.size) for name in ("basic", "basic_oc")}
    model = explorer_data.predictions_data(run, confusions, 2)
    assert len(model.pictures) == 2
    for name, scores in model.scores.items():
        reported = run.report()["models"][name]
        assert scores.novel_miou == pytest.approx(reported["novel_miou"])
        assert scores.per_class == pytest.approx(reported["per_class"])
    for picture in model.pictures:
        truth = picture.maps["truth"]
        for label in range(len(run.labels.names)):
            ours = set(np.flatnonzero((picture.maps["basic"] == label) & (truth != IGNORE)).tolist())
            theirs = set(np.flatnonzero(truth == label).tolist())
            wanted = len(ours & theirs) / len(ours | theirs) if ours | theirs else np.nan
            assert class_iou(picture, "basic", label) == pytest.approx(wanted, nan_ok=True)
