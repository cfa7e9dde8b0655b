"""Simulated saliency is as noisy as promised."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from toyscenes import drop_small_components, simulate_saliency


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max(1, (a | b).sum())


def test_saliency_is_as_noisy_as_a_real_detector(scenes):
    """U^2-Net-P on PASCAL VOC photos: foreground IoU 0.60 on average, median 0.64, a few images with nothing."""
    scores = [0.0 if s.saliency is None else iou((s.mask > 0)[s.mask < 255], s.saliency[s.mask < 255]) for s in scenes]
    assert 0.55 < np.mean(scores) < 0.72
    assert np.mean([s.saliency is None for s in scenes]) < 0.06


def test_no_salient_component_below_one_percent(scenes):
    for scene in scenes:
        if scene.saliency is not None:
            labels, _ = ndimage.label(scene.saliency, np.ones((3, 3)))
            assert np.bincount(labels.ravel())[1:].min() >= 0.01 * scene.saliency.size


def test_component_rule_by_hand():
    region = np.zeros((100, 100), bool)
    region[:10, :10] = True  # exactly 1 %: stays
    region[50:59, 50:61] = True  # 99 pixels: goes
    kept = drop_small_components(region)
    assert kept is not None
    assert kept.sum() == 100
    assert kept[:10, :10].all()
    assert drop_small_components(region, 0.02) is None
    assert drop_small_components(np.zeros((64, 64), bool)) is None


def test_each_kind_of_noise_does_what_its_name_says():
    mask = np.zeros((128, 128), np.uint8)
    mask[40:100, 30:90], mask[5:30, 95:125] = 4, 9
    quiet = {"miss_main": 0.0, "miss_small": 0.0, "false_blob": 0.0, "ragged": 0.0}
    maps = {
        name: simulate_saliency(mask, np.random.default_rng(2), **(quiet | change))
        for name, change in {"quiet": {}, "missed": {"miss_small": 1.0}, "nothing": {"miss_main": 1.0, "miss_small": 1.0}}.items()
    }
    assert iou(maps["quiet"], mask > 0) > 0.8
    assert maps["missed"][mask == 4].mean() > 0.8
    assert not maps["missed"][mask == 9].any()
    assert maps["nothing"] is None
    distractors = np.zeros(mask.shape, bool)
    distractors[110:120, 10:20] = True
    blob = simulate_saliency(mask, np.random.default_rng(2), distractors=distractors, **(quiet | {"false_blob": 1.0}))
    assert blob[distractors].mean() > 0.5
