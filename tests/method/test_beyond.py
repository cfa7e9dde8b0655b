"""What goes beyond the paper, each behind a setting of its own: regions, metric, number of classes, oracles, gates."""

from __future__ import annotations

import shutil
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.metrics import adjusted_rand_score

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.method.base_class_removal import object_parts
from ncdss_lib.method.clustering import (
    base_objects,
    cluster_prototypes,
    read_prototypes,
    read_pseudo_label,
    region_prototypes,
    used_images,
    within_class_whitening,
)
from ncdss_lib.method.evaluation import refined_confusions
from ncdss_lib.method.inference import VIEWS, load_model, mean_of_views, predict, view_size
from ncdss_lib.method.metrics import confusion_matrix, score
from ncdss_lib.method.number_of_classes import bic, candidates, estimate_number, held_out_classes, silhouette, stability
from ncdss_lib.method.oracles import main_novel_class
from ncdss_lib.method.refinement import gate
from ncdss_lib.method.second_clustering import best_order, overlaps, reorder_clusters
from ncdss_lib.models.checkpoints import load_weights
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.models.segmenter import upsample
from ncdss_lib.recipes import LATER, REGIONS, Regions, describe, flatten, key_of, load_recipe
from ncdss_lib.runs.pipeline import reopen
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import read_json, write_json
from tests.conftest import opened

# --- regions ----------------------------------------------------------------------------------------------------------------------------


def test_parts_are_numbered_by_size_and_small_ones_go_to_the_largest():
    mask = np.zeros((8, 12), bool)
    mask[0:2, 0:2] = mask[4:8, 0:4] = True  # 4 and 16 pixels
    mask[7, 11] = True  # 1 pixel
    parts = object_parts(mask, least=3)
    assert parts[5, 1] == 1
    assert parts[0, 0] == 2
    assert parts[7, 11] == 1
    assert (parts > 0).tolist() == mask.tolist()
    assert object_parts(mask, least=0)[7, 11] == 3
    assert object_parts(mask, least=100).max() == 1
    assert not object_parts(np.zeros((3, 3), bool), 1).any()


def test_more_parts_than_eight_bits_are_counted_to_the_largest():
    mask = np.zeros((40, 40), bool)
    mask[::2, ::2] = True  # 400 parts of one pixel
    assert object_parts(mask, 0).max() == 254


def test_clusters_of_parts_are_written_part_by_part(voc, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "clustering.unit=part", "clustering.min_area_fraction=0.001")
    folder = run.ensure("clustering")
    regions = pd.read_csv(folder / "regions.csv", dtype={"id": str})
    k, first = run.clusters["basic_oc"], 1 + run.labels.num_base
    assert len(regions) > len(used_images(folder)) == len(read_prototypes(folder))
    several = regions["id"].value_counts().idxmax()
    own = regions[regions["id"] == several].set_index("region")[f"cluster_{k}"]
    novel_map = read_labels(folder / "novel_map" / f"{several}.png") > 0
    parts = object_parts(novel_map, 0.001 * novel_map.size)
    pseudo = read_labels(folder / f"pseudo_labels_{k}" / f"{several}.png")
    for number, cluster in own.items():
        assert set(pseudo[parts == number].tolist()) == {first - 1 + cluster}
    table = pd.read_csv(folder / "images.csv", index_col="id", dtype={"id": str})
    assert table.loc[several, f"cluster_{k}"] == own[1]


def test_an_image_is_one_region_by_default(finished):
    regions = pd.read_csv(finished["laptop"] / "clustering" / "regions.csv")
    assert set(regions["region"]) == {1}
    assert len(regions) == len(used_images(finished["laptop"] / "clustering"))


def test_a_band_around_the_novel_mask_is_ignored(voc, finished, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "clustering.ignored_band=0.03")
    folder, plain = run.ensure("clustering"), finished["laptop"] / "clustering"
    k = run.clusters["basic"]
    image_id = used_images(folder)[0]
    banded = read_labels(folder / f"pseudo_labels_{k}" / f"{image_id}.png")
    before = read_labels(plain / f"pseudo_labels_{k}" / f"{image_id}.png")
    ignored = banded == 255
    assert ignored.any()
    assert (banded[~ignored] == before[~ignored]).all()
    novel = read_labels(folder / "novel_map" / f"{image_id}.png") > 0
    width = round(0.03 * max(novel.shape))
    for y, x in np.argwhere(ignored)[::97]:
        near = novel[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        assert near.any()
        assert not near.all()


# --- the metric of base objects ---------------------------------------------------------------------------------------------------------


def test_what_differs_within_base_classes_is_whitened_away():
    """Two classes that differ in one direction and spread in another: after it, the spread is that of noise in all directions."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 4000)
    points = rng.normal(size=(4000, 3)) * [1, 4, 0.5] + np.outer(classes, [0, 0, 5])
    metric = within_class_whitening(points, classes)
    np.testing.assert_allclose(metric, metric.T)
    centred = points - np.stack([points[classes == c].mean(0) for c in (0, 1)])[classes]
    spread = np.cov((centred @ metric).T)
    np.testing.assert_allclose(np.diag(spread), 1, atol=0.15)
    np.testing.assert_allclose(spread - np.diag(np.diag(spread)), 0, atol=0.1)


def test_the_metric_is_learned_from_base_images_alone(voc, finished, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "clustering.metric=base")
    folder = run.ensure("clustering")
    moved, plain = read_prototypes(folder), read_prototypes(finished["laptop"] / "clustering")
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, rtol=1e-5)
    assert moved.shape == plain.shape
    assert not np.allclose(moved, plain)


# --- the number of classes --------------------------------------------------------------------------------------------------------------


def blobs(classes: int, each: int = 40, dims: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    return rng.normal(size=(classes, dims))[labels] * 3 + rng.normal(size=(len(labels), dims)), labels


@pytest.mark.parametrize("classes", [3, 6])
def test_every_signal_finds_well_separated_classes(classes):
    points, _ = blobs(classes)
    numbers = range(2, 10)
    for signal in (bic, silhouette):
        assert numbers[int(np.argmax(signal(points, numbers)))] == classes, signal.__name__
    assert stability(points, [classes])[0] > 0.99
    assert estimate_number(points) == classes


def test_held_out_base_classes_find_the_novel_ones():
    """Six blobs, of which two are novel: the best clustering of all leaves two."""
    points, labels = blobs(6)
    known = labels < 4
    numbers = range(1, 6)
    curve = held_out_classes(points[~known], points[known], labels[known], numbers)
    assert numbers[int(np.argmax(curve))] == 2


def test_candidates_have_five_images_each():
    assert candidates(100) == range(2, 21)
    assert candidates(10_000) == range(2, 41)
    assert candidates(4) == range(2, 3)


def test_an_estimated_number_sets_the_clusters_of_every_model(voc, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "clustering.num_novel=auto")
    report = read_json(run.write_report())
    found = run.numbers("clustering")["num_novel"]
    assert found == estimate_number(read_prototypes(run.folder / "clustering"), seed=run.seed)
    assert [report["models"][name]["clusters"] for name in ("basic", "basic_oc", "eums")] == [found, 2 * found, 2 * found]


def test_a_given_number_sets_the_clusters(voc, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "clustering.num_novel=3")
    assert run.clusters == {"basic": 3, "basic_oc": 6, "eums": 6, "regions": 6}
    run.ensure("clustering")
    assert run.numbers("clustering")["num_novel"] == 3


# --- oracles ----------------------------------------------------------------------------------------------------------------------------


def test_the_main_novel_class_is_that_of_most_pixels():
    labels = LabelSpace(tuple("abcd"), (3, 4))
    truth = np.array([[0, 1, 1, 1, 3, 4, 4, 255]], np.uint8)
    assert main_novel_class(truth, labels) == 2
    assert main_novel_class(np.array([[0, 1, 255]], np.uint8), labels) == 0


def test_oracles_are_rows_of_the_report_and_know_more_than_basic(voc, tmp_path):
    run = opened(voc, tmp_path / "run", "laptop", "ablation.oracles=true")
    report = read_json(run.write_report())
    assert list(report["ablation"]) == ["oracle_image", "oracle_pixel"]
    for row, entry in report["ablation"].items():
        assert entry["clusters"] == run.labels.num_novel
        assert (run.folder / "ablation" / row / "basic.safetensors").is_file()
    rows = [report["ablation"][row]["all_miou"] for row in report["ablation"]]
    assert len({*rows, report["models"]["basic"]["all_miou"]}) == 3


# --- gates ------------------------------------------------------------------------------------------------------------------------------


def test_every_model_is_scored_behind_every_gate(finished):
    report = read_json(finished["laptop"] / "report.json")
    for entry in report["models"].values():
        assert {"plain", "gate_part", "gate_image"} <= set(entry["protocols"])
        assert entry["protocols"]["plain"]["novel_miou"] == entry["novel_miou"]
        assert entry["protocols"]["plain"]["base_miou"] == entry["base_miou"]


def test_the_headline_is_behind_the_gate_of_the_recipe(voc, finished, tmp_path):
    out = shutil.copytree(finished["laptop"], tmp_path / "run")
    run = opened(voc, out, "laptop", "evaluation.gate=image")
    scored = run.numbers("evaluation")["models"]["eums"]
    assert scored["base_miou"] == scored["protocols"]["gate_image"]["base_miou"]


@pytest.mark.parametrize("stage", ["clustering", "entropy_ranking", "eums"])
def test_the_gate_of_a_stage_is_part_of_its_key_alone(voc, finished, stage):
    plain, gated = (opened(voc, finished["laptop"], "laptop", *extra) for extra in ((), (f"{stage}.gate=image",)))
    assert plain.key(stage) != gated.key(stage)
    assert plain.key("base_training") == gated.key("base_training")


# --- several views of an image ----------------------------------------------------------------------------------------------------------


def test_one_view_is_what_the_network_says():
    logits = torch.randn(2, 3, 4, 4)
    assert mean_of_views([logits], VIEWS["one"]) is logits


def test_the_mean_of_views_is_upright_and_of_the_largest_size():
    """A network that only sees left and right: its mirrored answer is mirrored back, so the mean says the same."""
    small = torch.zeros(1, 2, 4, 4)
    small[:, 1, :, :2] = 5
    large = torch.zeros(1, 2, 8, 8)
    large[:, 1, :, :4] = 5
    mean = mean_of_views([small, small.flip(3), large, large.flip(3)], VIEWS["scales"])
    assert mean.shape == (1, 2, 8, 8)
    torch.testing.assert_close(mean.exp().sum(1), torch.ones(1, 8, 8))
    expected = (F.interpolate(small.softmax(1), (8, 8), mode="bilinear") + large.softmax(1)) / 2
    torch.testing.assert_close(mean.exp(), expected)


def test_views_are_sized_for_the_encoder():
    recipe = load_recipe("laptop")
    assert [view_size(recipe, scale) for scale in (1.0, 1.4)] == [224, 320]
    assert view_size(load_recipe("laptop", ["data.size=225"]), 1.0) == 225
    assert view_size(load_recipe("laptop", ["model.output_stride=14"]), 1.4) == 308


def test_features_of_other_views_are_those_of_the_resized_mirrored_images(voc, finished):
    run = opened(voc, finished["laptop"])
    encoder = Encoder(run.recipe.model).eval()
    ids = run.data.val_ids[:3]
    for size, flip in ((64, True), (96, False), (96, True)):
        [(batch, found)] = run.views.clean(ids, 3, size, flip)
        images = np.stack([cv2.resize(run.data.image(i), (size, size), interpolation=cv2.INTER_CUBIC) for i in batch])
        images = images[:, :, ::-1] if flip else images
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))
        span = expected.amax((2, 3), keepdim=True) - expected.amin((2, 3), keepdim=True)
        assert ((found.float() - expected).abs() <= span / 400 + 2e-3).all()


@pytest.mark.parametrize("recipe", ["laptop", "paper"])
def test_the_headline_is_of_all_views_and_the_gates_are_of_one(voc, finished, tmp_path, recipe):
    out = shutil.copytree(finished[recipe], tmp_path / "run")
    run = opened(voc, out, recipe, "evaluation.views=scales", "evaluation.gate=image")
    scored = run.numbers("evaluation")["models"]["eums"]
    model = load_model(run, "eums")
    counts = 0
    seen = [
        dict(pair for batch, own in predict(run, model, run.splits.val, None, view=view) for pair in zip(batch, own, strict=True))
        for view in VIEWS["scales"]
    ]
    for i in run.splits.val:
        said = mean_of_views([own[i][None] for own in seen], VIEWS["scales"])
        label = upsample(gate(said, "image", 2.0), 64).argmax(1)
        truth = torch.from_numpy(resize_labels(run.truth(i), 64).astype(np.int64))[None]
        counts = counts + confusion_matrix(truth, label, len(run.labels.names), model.outputs)
    assert scored["base_miou"] == score(counts.numpy(), run.labels).base_miou
    plain = opened(voc, finished[recipe], recipe).numbers("evaluation")["models"]["eums"]
    assert scored["protocols"]["plain"]["base_miou"] == plain["protocols"]["plain"]["base_miou"]


# --- mixed lists ------------------------------------------------------------------------------------------------------------------------


def test_mixed_lists_hold_the_share_of_images_without_anything_new(voc, tmp_path):
    plain, mixed = (opened(voc, tmp_path / "run", "laptop", *extra) for extra in ((), ("data.mixed=0.25",)))
    extra = set(mixed.splits.novel) - set(plain.splits.novel)
    assert len(extra) == round(len(plain.splits.novel) / 3)
    assert extra <= set(plain.splits.base)
    assert not extra & {*mixed.splits.base, *mixed.splits.base_train}
    assert set(mixed.splits.base) == set(plain.splits.base) - extra


def test_vision_transformers_give_features_at_the_stride_of_their_patches():
    from ncdss_lib.recipes import Model

    config = Model(encoder="vit_tiny_patch16_224", weights="none", output_stride=16, stages=(5, 11), frozen_stages=12)
    encoder = Encoder(config).eval()
    assert encoder(torch.zeros(1, 3, 96, 64, dtype=torch.uint8)).shape == (1, 2 * 192, 6, 4)
    assert not any(p.requires_grad for p in encoder.parameters())
    half = Encoder(config.model_copy(update={"frozen_stages": 6}))
    learning = {name.split(".")[3] for name, p in half.named_parameters() if p.requires_grad and "blocks" in name}
    assert learning == {str(block) for block in range(6, 12)}
    with pytest.raises(InputError, match=r"16 x 16 patches, so its stride is 16, not 8: --set model.output_stride=16"):
        Encoder(config.model_copy(update={"output_stride": 8}))


def test_a_trained_network_predicts_behind_its_gate(finished, voc):
    """The labels of one image by ``predict_image`` are those of the gated logits."""
    path = finished["laptop"] / "eums" / "eums_teacher.safetensors"
    trained = open_checkpoint(path, overrides=["evaluation.gate=image", "evaluation.gate_strength=5"])
    assert trained.recipe.evaluation.gate == "image"
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    labels, sure = trained.predict_image(image)
    assert labels.shape == (50, 70)
    followed = open_checkpoint(path, overrides=["evaluation.gate=image", "evaluation.edges=guided"])
    _, other = followed.predict_image(image)
    assert (other != sure).any()
    run = opened(voc, finished["laptop"])
    assert load_model(run, "eums").outputs == trained.model.outputs
    with torch.inference_mode():
        logits = trained.model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).float()
    assert not torch.equal(gate(logits, "image", 5.0), logits)


# --- the regions stage ------------------------------------------------------------------------------------------------------------------

TINY_REGIONS = ("regions.enabled=true", "evaluation.gate=image", "evaluation.edges=guided")


@pytest.fixture(scope="module", params=["laptop", "paper"])
def regions_run(request, voc, tmp_path_factory):
    run = opened(voc, tmp_path_factory.mktemp("regions") / "run", request.param, *TINY_REGIONS)
    run.write_report()
    return run


def test_the_committee_is_the_mean_of_eums_and_the_second_head_in_its_order(regions_run):
    run = regions_run
    report = read_json(run.folder / "report.json")
    assert list(report["models"]) == ["base", "basic", "basic_oc", "eums", "regions"]
    assert set(report["models"]["regions"]) == set(report["models"]["eums"])
    eums, second, committee = load_model(run, "eums"), load_model(run, "eums"), load_model(run, "regions")
    load_weights(second, run.folder / "regions" / "second.safetensors")
    with torch.inference_mode():
        order = best_order(overlaps(run, eums, second))
        first = 1 + run.labels.num_base
        channels = [*range(first), *(first + order)]
        pairs = zip(*(predict(run, network, run.splits.val[:3], None) for network in (eums, second, committee)), strict=True)
        for (_, one), (_, two), (_, found) in pairs:
            expected = (one.softmax(1) + two.softmax(1)[:, channels]) / 2
            torch.testing.assert_close(found.exp(), expected, rtol=1e-4, atol=1e-5)


def test_clusters_are_matched_by_the_pixels_that_they_share():
    together = np.array([[0.1, 5.0, 0.0], [4.0, 4.5, 0.1], [0.0, 0.2, 0.3]])
    assert best_order(together).tolist() == [1, 0, 2]
    head = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 1))
    before = head(torch.ones(1, 2, 1, 1)).flatten().tolist()
    reorder_clusters(head, 2, best_order(together))
    after = head(torch.ones(1, 2, 1, 1)).flatten().tolist()
    assert after == [before[channel] for channel in (0, 1, 3, 2, 4)]


def test_networks_overlap_with_themselves_on_the_diagonal(regions_run):
    eums = load_model(regions_run, "eums")
    together = overlaps(regions_run, eums, eums)
    assert together.shape == (regions_run.clusters["eums"],) * 2
    np.testing.assert_allclose(together, together.T, rtol=1e-6)
    said = [logits.softmax(1) for _, logits in predict(regions_run, eums, regions_run.splits.novel, None)]
    first = 1 + regions_run.labels.num_base
    expected = sum((own[:, first] * own[:, first + 1]).sum().item() for own in said)
    np.testing.assert_allclose(together[0, 1], expected, rtol=1e-4)


def test_the_second_head_stands_on_the_encoder_of_eums(regions_run):
    eums, second = (load_file(path) for path in (regions_run.weights("eums"), regions_run.folder / "regions" / "second.safetensors"))
    encoder = [name for name in eums if name.startswith("encoder.")]
    assert all(torch.equal(eums[name], second[name]) for name in encoder)
    assert bool(encoder) == (regions_run.recipe.name == "paper")
    assert any(not torch.equal(eums[name], second[name]) for name in eums if name.startswith("head."))


def test_the_second_clustering_divides_the_same_masks_in_another_metric(regions_run):
    run = regions_run
    clusters = run.clusters["eums"]
    table = pd.read_csv(run.folder / "regions" / "clusters.csv", dtype={"id": str})
    used = used_images(run.folder / "clustering")
    assert table["id"].tolist() == used
    for image_id in used[:5]:
        one, two = (read_pseudo_label(run.folder / stage, clusters, image_id) for stage in ("clustering", "regions"))
        first = 1 + run.labels.num_base
        assert ((one >= first) == (two >= first)).all()
        assert (one[one < first] == two[two < first]).all()
        assert set(two[two >= first]) == {run.labels.num_base + int(table.set_index("id")["cluster"][image_id])}
    objects, known = region_prototypes(run, run.splits.base, partial(base_objects, run))
    metric = within_class_whitening(known, objects["region"].to_numpy())
    moved = read_prototypes(run.folder / "clustering") @ metric
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    k_means = run.recipe.clustering.k_means
    expected, _ = cluster_prototypes(moved.astype(np.float32), clusters, **k_means, seed=run.seed + 3_000)
    assert adjusted_rand_score(expected, table["cluster"]) == 1


def test_the_headline_follows_the_edges_and_the_gates_alone_do_not(regions_run):
    run = regions_run
    size, labels = run.recipe.evaluation.size, run.labels
    ways = (("image", "none"), ("image", "guided"))
    found = refined_confusions(run, load_model(run, "eums"), size, ways)
    entry = read_json(run.folder / "report.json")["models"]["eums"]
    assert (found[ways[0]].total != found[ways[1]].total).any()
    assert entry["protocols"]["gate_image"]["base_miou"] == score(found[ways[0]].total, labels).base_miou
    assert entry["base_miou"] == score(found[ways[1]].total, labels).base_miou


def test_the_file_of_a_committee_is_a_checkpoint_like_any_other(regions_run):
    path = regions_run.folder / "regions" / "regions.safetensors"
    trained = open_checkpoint(path)
    assert (trained.clusters, trained.checkpoint.members) == (regions_run.clusters["regions"], 2)
    labels, probability = trained.predict_image(np.zeros((40, 30, 3), np.uint8))
    assert labels.shape == probability.shape == (40, 30)


def test_the_recipe_regions_says_why_of_every_field():
    assert {name: value for name, (value, _) in REGIONS.items()}.items() <= flatten(load_recipe("regions")).items()
    text = describe(load_recipe("regions"))
    assert all(why in text for _, why in REGIONS.values())
    different = {name for name, value in flatten(load_recipe("regions")).items() if value != flatten(load_recipe("laptop"))[name]}
    assert different == set(REGIONS)


def test_settings_that_came_later_leave_older_runs_current():
    """At their defaults they are in no key; with any other value they are."""
    plain = load_recipe("paper")
    for section, fields in LATER.items():
        assert not fields & set(key_of(plain, section))
        assert set(key_of(plain, section)) | fields == set(type(getattr(plain, section)).model_fields)
    assert key_of(load_recipe("paper", ["clustering.unit=part"]), "clustering")["unit"] == "part"


def test_a_trained_network_predicts_from_several_views(finished):
    """With the mirrored view too, a mirrored image gives the mirrored answer."""
    path = finished["laptop"] / "eums" / "eums_teacher.safetensors"
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    _, one = open_checkpoint(path).predict_image(image)
    trained = open_checkpoint(path, overrides=["evaluation.views=flip"])
    _, found = trained.predict_image(image)
    _, mirrored = trained.predict_image(image[:, ::-1])
    assert (found != one).any()
    np.testing.assert_allclose(found, mirrored[:, ::-1], atol=0.02)  # nearest neighbours are not quite symmetric


def test_runs_of_a_former_committee_can_be_opened(voc, finished, tmp_path):
    """Their reports name settings that are gone."""
    out = shutil.copytree(finished["laptop"], tmp_path / "run")
    report = read_json(out / "report.json")
    report["config"]["regions"] = {
        "enabled": False,
        "gate": "image",
        "gate_strength": 2.0,
        "edges": "guided",
        "heads": 2,
        "confidence": 0.5,
    }
    write_json(out / "report.json", report)
    assert reopen(out, str(voc)).recipe.regions == Regions()
    assert open_checkpoint(out / "eums" / "eums_teacher.safetensors").recipe.regions == Regions()
    with pytest.raises(InputError, match="unknown field 'heads' of regions"):
        load_recipe("regions", ["regions.heads=2"])
