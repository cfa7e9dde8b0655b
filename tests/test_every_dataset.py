"""COCO-20i and a folder of one's own images, each from what a user has to the last stage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ncdss_lib.prepare import coco_masks
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.folders import read_json
from tests.conftest import REPO, TINY_LAPTOP
from tests.data.fake_coco import make_toy_coco
from tests.data.fake_voc import make_fake_folder, make_fake_voc

COCO_MINI = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "coco_mini"


def test_coco_scenes_go_through_every_stage_with_forty_clusters(tmp_path):
    make_toy_coco(tmp_path / "coco", train=220, val=16, size=64)
    coco_masks.prepare(tmp_path / "coco")
    report = read_json(open_run("coco20i", str(tmp_path / "coco"), 2, 0, "laptop", str(tmp_path / "run"), TINY_LAPTOP).write_report())
    assert {name: model["clusters"] for name, model in report["models"].items()} == {"base": 0, "basic": 20, "basic_oc": 40, "eums": 40}
    assert len(report["classes"]["base"]) == 60
    assert set(report["models"]["eums"]["matching"]["cluster_to_class"].values()) <= set(report["classes"]["novel"])
    assert report["masks"].startswith("complete COCO masks")
    assert report["images"]["novel_used"] >= 40


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the real COCO photos are not on this machine ($NCDSS_SHARED_DATA)")
@pytest.mark.parametrize("masks", ["published", "complete"])
def test_real_coco_photos_go_through_every_stage_with_ten_clusters(masks, tmp_path):
    root = tmp_path / "coco"
    root.mkdir()
    (root / "saliency_supervised_model").symlink_to(COCO_MINI / "saliency_supervised_model")
    coco_masks.prepare(root, sources=COCO_MINI)
    settings = [*TINY_LAPTOP, "clustering.num_clusters=10", "clustering.min_area_fraction=0", f"data.coco_masks={masks}"]
    report = read_json(open_run("coco20i", str(root), 3, 0, "laptop", str(tmp_path / "run"), settings).write_report())
    assert {name: model["clusters"] for name, model in report["models"].items()} == {"base": 0, "basic": 20, "basic_oc": 10, "eums": 10}
    assert report["images"]["novel"] - report["images"]["no_saliency"] == 32
    assert report["masks"].startswith(f"{masks} COCO masks")


@pytest.mark.parametrize("val", [True, False])
def test_images_of_ones_own_need_no_truth_of_the_novel_classes(val, tmp_path):
    make_fake_folder(tmp_path / "own", make_fake_voc(tmp_path / "voc", train=72, val=8), val=val)
    settings = [*TINY_LAPTOP, "data.num_novel=5", "clustering.base_confidence=0.9"]
    report = read_json(open_run("folder", str(tmp_path / "own"), 0, 0, "laptop", str(tmp_path / "run"), settings).write_report())
    eums = report["models"]["eums"]
    assert report["classes"]["novel"] == [f"novel {n}" for n in range(1, 6)]
    assert (eums["novel_miou"], eums["harmonic_mean"]) == (None, None)
    assert (eums["base_miou"] is None) == (not val)
    assert set(eums["matching"]["cluster_to_class"].values()) == {None}
    assert all(quality["correct_share"] is None and quality["images"] > 0 for quality in report["pseudo_labels"].values())
