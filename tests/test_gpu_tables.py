"""The tables of the page "Reproduce": from the measured file alone, and the published numbers of steps."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.hardware_needs import training_bytes
from ncdss_lib.recipes import load_recipe
from tests.conftest import REPO

sys.path.insert(0, str(REPO / "book" / "_ext"))
import gpu_tables


@pytest.fixture(scope="module")
def found() -> dict:
    return gpu_tables.read_measured()


@pytest.mark.parametrize(
    ("fold", "base", "basic", "eums"), [(0, 551, 354, 3535), (1, 544, 450, 4490), (2, 479, 630, 6940), (3, 598, 268, 2665)]
)
def test_the_steps_of_pascal_are_the_published_ones(fold, base, basic, eums):
    steps, scored = gpu_tables.work("pascal5i", fold)
    assert steps == {"base_training": 60 * base, "basic_framework": 2 * 30 * basic, "eums": eums}
    base_val = (1165, 1194, 1129, 1240)[fold]
    assert scored == 60 * base_val + 3 * 30 * 1449


def test_the_steps_of_coco_follow_its_lists():
    steps, scored = gpu_tables.work("coco20i", 0)
    assert steps["base_training"] == 20 * (62515 // 16)
    assert steps["basic_framework"] == 2 * 20 * (21479 // 8)
    assert scored == 20 * 30467 + 3 * 20 * 40137


def test_hours_follow_from_steps_and_rates(found):
    rows = found["parts"]["compiled"]["rows"]
    ms = {r["training"]: r["ms"] for r in rows if r["variant"] == "ours, bf16, channels-last, folded norms"}
    hours = sum(gpu_tables.work("pascal5i", fold)[0][name] * ms[name] for fold in range(4) for name in ms) / 3.6e6
    row = next(line for line in gpu_tables.hours_table(found).splitlines() if "PASCAL-5i" in line)
    assert f"| {hours:.1f} " in row


def test_a_step_that_was_not_run_says_so_and_an_earlier_one_is_marked(found):
    table = gpu_tables.steps_table(found)
    graph = next(line for line in table.splitlines() if "graph" in line)
    assert "not run" in graph
    assert "ᵃ" in graph
    ours = next(line for line in table.splitlines() if "ours, bf16, channels-last, folded norms " in line)
    assert "ᵃ" not in ours
    assert "not run" not in ours


@pytest.mark.parametrize("training", gpu_tables.TITLES)
def test_computed_memory_is_within_a_tenth_of_what_was_measured(found, training):
    """Computed now, of the library as it is, and as the page shows it."""
    table = gpu_tables.memory_table(found).splitlines()
    row = next(line for line in table if line.startswith(f"| {gpu_tables.TITLES[training]} "))
    shown, measured = (float(cell) for cell in row.split("|")[2:4])
    batch = getattr(load_recipe("paper"), training).batch_size
    computed = training_bytes(training, 15, 10, batch, "bf16")["peak"] / 1e9
    assert shown == round(computed, 1)
    assert abs(computed / measured - 1) < 0.1


def test_what_was_not_measured_has_a_reason(found):
    table = gpu_tables.open_table(found)
    for part in ("checks", "laptop", "compiled"):
        assert part in table


@pytest.mark.parametrize("name", gpu_tables.TABLES)
def test_every_table_can_be_made(found, name):
    assert gpu_tables.TABLES[name](found).count("|") > 6


def test_the_file_names_its_card_and_no_place():
    text = gpu_tables.MEASURED.read_text()
    assert json.loads(text)["machine"]["card"] == "NVIDIA H100 80GB HBM3"
    assert "/work" not in text
    assert "/tmp" not in text
