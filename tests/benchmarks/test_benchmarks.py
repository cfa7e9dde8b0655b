"""Each benchmark runs on tiny input, and its two sides compute the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    NAMES,
    entropy,
    evaluation,
    hardware_needs,
    input_pipeline,
    measure,
    memory,
    prototypes,
    published,
    scoring,
    training_step,
)
from benchmarks.measure import Figure, faster, interleaved, open_data, peak_bytes
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.method.clustering import adjoint_mask, masked_prototype
from ncdss_lib.method.entropy_ranking import region_entropy
from ncdss_lib.method.metrics import Scores
from ncdss_lib.recipes import Model
from ncdss_lib.system.distributed import Runtime


@pytest.fixture(scope="module")
def data(voc: Path) -> Pascal5i:
    return Pascal5i(voc, None)


def assert_figures(figures: list[Figure], count: int) -> None:
    assert len(figures) == count
    assert all(np.isfinite(figure.value) and figure.value >= 0 and figure.what in str(figure) for figure in figures)


# --- what is measured is the same thing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_prototypes_agree(data, memory_format):
    features, mask = prototypes.make_input(data, 64, 33)
    expected = published.prototype(features, torch.from_numpy(mask).float())
    found = prototypes.ours(features[None].contiguous(memory_format=memory_format)[0], mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert_figures(prototypes.run(data, size=64, channels=33, repeats=1), 3)


def test_prototypes_of_a_batch_are_those_of_its_images():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 17, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    weights = torch.stack([torch.from_numpy(adjoint_mask(np.eye(32, k=k) > 0, 8, 8)) for k in range(3)])
    alone = torch.cat([masked_prototype(features[i : i + 1], weights[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(masked_prototype(features, weights), alone)


def test_scores_agree(data):
    labels = label_space(data, 0)
    truths, predictions = scoring.make_input(data, labels, 8, 64, 10)
    sizes = (labels.num_base, labels.num_novel, 10)
    mapping, iou = published.scoring(truths, predictions, *sizes)
    same_mapping, same_iou = published.scoring_by_histograms(truths, predictions, *sizes)
    np.testing.assert_array_equal(mapping, same_mapping)
    np.testing.assert_allclose(iou, same_iou)
    assert_scores(scoring.ours(truths, predictions, labels, 10), mapping, iou, labels)
    assert_figures(scoring.run(data, images=2, size=64, repeats=1), 3)


def assert_scores(found: Scores, mapping: np.ndarray, iou: np.ndarray, labels) -> None:
    assert list(found.cluster_to_class.values()) == [labels.names[c] for c in mapping]
    np.testing.assert_allclose([value or 0.0 for value in found.per_class.values()], iou)  # the published meter knows no absent class


def test_entropies_agree(data):
    logits, regions = entropy.make_input(data, 4, 64, 26)
    for region in regions:
        torch.testing.assert_close(region_entropy(logits, region), published.entropy(logits, region))
    assert_figures(entropy.run(data, images=2, size=64, repeats=1), 2)


TINY = ("model.encoder=resnet18", "compute.precision=fp32")


def test_evaluations_agree(data, tmp_path):
    sides = evaluation.sides(data, 4, 64, TINY, str(tmp_path))
    assert_scores(sides["ours"](), *sides["published"](), label_space(data, 0))
    assert_figures(evaluation.run(data, images=2, size=64, repeats=1, overrides=TINY), 1)


def test_training_steps_agree(data):
    network = Model(encoder="resnet18", weights="none", dropout=0.0)  # the order in which dropout draws depends on the memory format
    steps, precision = training_step.sides(*training_step.make_input(data, 64, 2), network, "fp32")
    assert precision == "fp32"
    theirs, ours = zip(*[(steps["published"](), steps["ours"]()) for _ in range(3)], strict=True)
    assert ours == pytest.approx(theirs, rel=0.01)  # the gradient of a fresh head is steep
    assert len(set(theirs)) == 3  # it does learn
    figures = training_step.run(data, size=64, repeats=1, encoder="resnet18")
    parts = [figure.value for figure in figures if "of our step's time" in figure.what]
    assert sum(parts) == pytest.approx(1)
    assert_figures(figures, 6 + len(parts))


def test_input_pipelines_agree(data):
    batches = [data.train_ids[:4], data.train_ids[4:8]]
    theirs = input_pipeline.published_batches(data, batches[:1], 64, torch.device("cpu"))
    ours = input_pipeline.our_batches(data, batches[:1], 64, Runtime("cpu"))
    ((x, y),), ((found_x, found_y),) = list(theirs), list(ours)
    torch.testing.assert_close(found_x, x, rtol=1e-5, atol=1e-5)
    assert torch.equal(found_y, y)
    assert x.shape == (4, 3, 64, 64)
    assert {0, 255} < set(y.unique().tolist())
    assert_figures(input_pipeline.run(data, images=8, batch=4, size=64, repeats=1), 3)


# --- figures ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["clustering", "evaluation"])
def test_memory_is_measured(data, monkeypatch, stage):
    monkeypatch.setattr(memory, "OVERRIDES", (*memory.OVERRIDES, "data.size=64"))
    one, two = memory.peaks(str(data.root), stage, [12, 24])
    assert min(one, two) > 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(data):
    figures = memory.run(data)
    assert_figures(figures, 4)
    assert all(figure.value > 0.9 for figure in figures if figure.target)


def test_needs_of_a_training():
    parameters = 39.6e6  # ResNet-50 without its classifier, and the DeepLabv3 head
    trained = parameters - 1.44e6  # conv1, bn1, layer1 and layer2 are frozen
    base, more, half = (
        hardware_needs.training_bytes("base_training", 15, 10, *how, size=128) for how in ((8, "fp32"), (16, "fp32"), (16, "bf16"))
    )
    assert base["state"] == more["state"] == half["state"] == pytest.approx(4 * (parameters + 2 * trained), rel=0.02)
    assert more["peak"] > base["peak"] > base["state"]
    assert more["peak"] > half["peak"] > half["state"]
    eums = hardware_needs.training_bytes("eums", 15, 10, 2, "fp32", size=64)
    assert eums["state"] - base["state"] == pytest.approx(4 * parameters, rel=0.02)  # the teacher


def test_disk_needs_are_positive(data):
    assert_figures(hardware_needs.disk(data), 4)


def test_live_tensors_are_counted_until_they_die():
    with hardware_needs.LiveTensors() as live:
        kept = torch.zeros(1000)
        view = kept[10:]  # of the same storage
        passing = kept + 1
        assert (live.bytes, live.peak) == (8000, 8000)
        del passing
        assert (live.bytes, live.peak) == (4000, 8000)
    assert len(view) == 990


# --- measuring ----------------------------------------------------------------------------------------------------------------------


def test_sides_take_turns():
    calls = []
    seconds = interleaved({"published": lambda: calls.append("p"), "ours": lambda: calls.append("o")}, 2)
    assert "".join(calls) == "popopo"  # the first of each is not counted
    assert set(seconds) == {"published", "ours"}
    figure = faster("it", {"published": 0.3, "ours": 0.1}, 2.0, per=10)
    assert str(figure) == "it: 3 x faster  [target 2: reached]  published 30 ms, ours 10 ms"
    assert "[target 5: MISSED]" in str(faster("it", {"published": 0.3, "ours": 0.1}, 5.0))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
def test_peak_memory_is_what_was_taken():
    taken = peak_bytes(lambda: np.ones(40_000_000, np.uint8))
    assert 39e6 < taken < 60e6
    assert peak_bytes(lambda: None) < 2e6


def test_command_line(monkeypatch, tmp_path, capsys, voc):
    monkeypatch.setattr(sys, "argv", ["x", "--data-root", str(voc), "--json", str(tmp_path / "figures.json")])
    measure.main({"entropy": lambda data: [Figure("images", len(data.train_ids), "", 3)]}, "doc")
    assert "images: 48   [target 3: reached]" in capsys.readouterr().out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"]["entropy"] == [{"what": "images", "value": 48, "unit": "", "target": 3, "detail": ""}]
    assert str(voc) not in json.dumps(written)


def test_toy_scenes_stand_in_for_data():
    with open_data(None, images=2, size=64) as toy:
        assert len(toy.train_ids) == len(toy.val_ids) == 2
        root = toy.root
        assert toy.image(toy.train_ids[0]).shape == (64, 64, 3)
    assert not root.exists()


def test_every_benchmark_is_listed():
    folder = Path(measure.__file__).parent
    others = {"__init__", "__main__", "beyond", "cells", "clusterings", "measure", "published", "rankings", "readme"}
    modules = {p.stem for p in folder.glob("*.py")} - others
    assert modules == set(NAMES)
