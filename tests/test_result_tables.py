"""The tables of results in the book follow the report files; the worked example and the drawings of the book are consistent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sphinx.cmd.build import build_main

from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.method.cluster_matching import match_clusters, pairwise_iou
from ncdss_lib.method.metrics import score
from ncdss_lib.runs.report import PAPER, SWITCHES
from ncdss_lib.viz.figures import LICENCE

BOOK = Path(__file__).resolve().parents[1] / "book"
CONF = f"""
import sys
sys.path.insert(0, {str(BOOK / "_ext")!r})
project = "small"
extensions = ["myst_nb", "result_tables", "themed_figures"]
nb_execution_mode = "off"
exclude_patterns = ["runs", "out"]
numfig = True
"""
SCORES = {"novel_miou": 0.5, "base_miou": 0.7, "background_iou": 0.9, "all_miou": 0.6, "harmonic_mean": 0.58}


def write_report(runs: Path, dataset: str, fold: int, seed: int, novel: dict[str, float], recipe: str = "laptop") -> Path:
    """A report with the fields that the tables read."""
    per_class = {"background": 0.9, "circle": 0.7, "square": 0.5}
    models = {"base": {**SCORES, "novel_miou": None, "harmonic_mean": None, "per_class": per_class, "protocols": {}}}
    for name, value in novel.items():
        scores = {**SCORES, "novel_miou": value, "per_class": per_class}
        models[name] = {**scores, "protocols": {"hungarian": {**scores, "novel_miou": value - 0.1}}}
    quality = {"images": 10, "correct_share": 0.8, "purity": 0.9}
    report = {
        "schema": 1, "dataset": dataset, "recipe": recipe, "fold": fold, "seed": seed, "masks": "drawn", "models": models,
        "images": {"base": 30, "novel": 20}, "classes": {"base": ["circle"], "novel": ["square"]},
        "pseudo_labels": {"all": quality, "clean": quality, "unclean": {**quality, "correct_share": 0.4}},
    }  # fmt: skip
    path = runs / dataset / f"fold{fold}" / recipe / f"seed{seed}" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("NCDSS_RUNS", raising=False)
    (tmp_path / "conf.py").write_text(CONF)
    return tmp_path


def write_page(project: Path, *tables: tuple[str, str, str]) -> None:
    parts = ["# Page"]
    for number, (kind, dataset, recipe) in enumerate(tables):
        parts.append(f"```{{result-table}} {kind}\n:dataset: {dataset}\n:recipe: {recipe}\n:name: tab-{number}\n\nCaption {number}.\n```")
        if kind not in ("runs", "caution"):
            parts.append(f"See {{numref}}`tab-{number}`.")
    (project / "index.md").write_text("\n\n".join(parts) + "\n")


def build(project: Path) -> tuple[int, str, str]:
    """Exit status, warnings, and the page's text without markup, one space between words."""
    warnings = project / "out" / "warnings.txt"
    warnings.parent.mkdir(exist_ok=True)
    status = build_main(["-b", "html", "-q", "-n", "-W", "--keep-going", "-w", str(warnings), str(project), str(project / "out" / "html")])
    page = (project / "out" / "html" / "index.html").read_text()
    return status, warnings.read_text(), " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_tables_show_mean_and_spread_and_follow_every_change_of_the_files(project):
    runs = project / "runs"
    write_report(runs, "toyscenes", 0, 0, {"basic": 0.40, "basic_oc": 0.50, "eums": 0.60})
    second = write_report(runs, "toyscenes", 0, 1, {"basic": 0.44, "basic_oc": 0.50, "eums": 0.70})
    kinds = ("runs", "caution", "novel", "scores", "protocols", "differences", "gain", "classes", "pseudo-labels")
    write_page(project, *((kind, "toyscenes", "laptop") for kind in kinds))
    status, warnings, text = build(project)
    assert (status, warnings) == (0, "")
    assert "2 runs: fold 0 with seed 0, 1." in text
    assert "not comparable with any published number" in text
    assert "basic framework 42.0 ± 2.8 42.0 ± 2.8" in text
    assert "42.0\u00a0±\u00a02.8" in (project / "out" / "html" / "index.html").read_text()
    assert "EUMS minus basic framework +23.0 4.2 2 of 2" in text
    assert "one-to-one; leftover clusters are errors 32.0 ± 2.8 40.0 ± 0.0 55.0 ± 7.1" in text
    assert "square (novel)" in text
    assert "in 2 of 2 runs" in text
    assert "Table 1 Caption 2." in text
    assert "See Table 1 ." in text

    write_report(runs, "toyscenes", 0, 1, {"basic": 0.40, "basic_oc": 0.50, "eums": 0.50})  # changed
    assert "basic framework 40.0 ± 0.0" in build(project)[2]
    write_report(runs, "toyscenes", 3, 7, {"basic": 0.10, "basic_oc": 0.10, "eums": 0.10})  # came
    assert "3 runs: fold 0 with seed 0, 1; fold 3 with seed 7." in build(project)[2]
    second.unlink()  # went
    assert "2 runs: fold 0 with seed 0; fold 3 with seed 7." in build(project)[2]


def test_what_was_not_run_says_so_beside_the_papers_numbers(project):
    tables = (
        ("novel", "coco20i", "paper"),
        ("ablation", "pascal5i", "paper"),
        ("gain", "toyscenes", "laptop"),
        ("runs", "folder", "laptop"),
    )
    write_page(project, *tables)
    write_report(project / "runs", "pascal5i", 0, 0, {"basic": 0.123}, recipe="laptop")  # another recipe than the page asks for
    status, warnings, text = build(project)
    assert (status, warnings) == (0, "")
    assert "basic framework not run not run not run not run not run" in text
    assert " ".join(f"{value:.2f}" for value in PAPER["coco20i"]["eums"]) in text
    for row, switches in SWITCHES.items():
        values = PAPER["pascal5i"][row]
        assert f"{switches} (paper) " + " ".join(f"{value:.2f}" for value in values) in text
    assert "toyscenes, laptop recipe not run" in text
    assert "folder with the laptop recipe: not run." in text
    assert "12.3" not in text


def test_runs_of_a_published_data_set_stand_above_the_papers_rows(project):
    write_page(project, ("novel", "pascal5i", "paper"), ("caution", "pascal5i", "paper"))
    write_report(project / "runs", "pascal5i", 2, 0, {"basic": 0.123, "basic_oc": 0.2, "eums": 0.3}, recipe="paper")
    text = build(project)[2]
    assert "basic framework 12.3 12.3 basic framework (paper) 42.53 49.81 (4 folds)" in text
    assert "50 training images with the paper recipe: not comparable with the paper's rows." in text.replace("’", "'")


def test_a_damaged_report_is_a_warning_that_names_it_until_it_is_mended(project):
    write_page(project, ("runs", "toyscenes", "laptop"))
    write_report(project / "runs", "toyscenes", 0, 0, {"basic": 0.4})
    damaged = write_report(project / "runs", "toyscenes", 1, 0, {"basic": 0.4})
    whole = damaged.read_text()
    damaged.write_text(whole[: len(whole) // 2])
    for _ in range(2):
        status, warnings, text = build(project)
        assert status != 0
        assert str(damaged) in warnings
        assert "1 run: fold 0 with seed 0." in text
    damaged.write_text(whole)
    status, warnings, text = build(project)
    assert (status, warnings) == (0, "")
    assert "2 runs" in text


def test_an_unknown_kind_is_an_error_that_lists_the_known_ones(project):
    write_page(project, ("noel", "toyscenes", "laptop"))
    status, warnings, _ = build(project)
    assert status != 0
    assert "unknown result-table 'noel': known are novel, scores" in warnings


def test_a_themed_figure_is_one_figure_with_two_pictures(project):
    for theme in ("light", "dark"):
        (project / f"x-{theme}.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg"><title>{theme}</title></svg>')
    (project / "index.md").write_text(
        "# Page\n\n```{themed-figure} x-{theme}.svg\n:name: fig-x\n:alt: What it shows.\n\nThe caption.\n```\n\nSee {numref}`fig-x`.\n"
    )
    status, warnings, text = build(project)
    assert (status, warnings) == (0, "")
    assert "See Fig. 1 ." in text
    page = (project / "out" / "html" / "index.html").read_text()
    images = dict(re.findall(r'<img alt="What it shows." class="([^"]+)" src="_images/([^"]+)"', page))
    assert {kind: name for classes, name in images.items() for kind in classes.split() if kind.startswith("only-")} == {
        "only-light": "x-light.svg",
        "only-dark": "x-dark.svg",
    }
    assert page.count("The caption.") == 1
    assert page.count("<figure") == 1
    assert re.search(r"</div>\s*<figcaption>", page)  # in a box: the theme hides a caption that is a sibling of a hidden picture


def test_light_and_dark_drawings_differ_in_colours_only():
    names = {path.name.removesuffix("-light.svg") for path in (BOOK / "_static").glob("*-light.svg")}
    assert {"pipeline", "task"} <= names
    for name in names:
        light, dark = ((BOOK / "_static" / f"{name}-{theme}.svg").read_text() for theme in ("light", "dark"))
        assert light != dark
        assert re.sub(r"#[0-9a-f]{6}", "#", light) == re.sub(r"#[0-9a-f]{6}", "#", dark)
        assert "<title>" in light
        assert LICENCE in light  # as in the figures that the notebooks draw


def test_the_worked_example_of_the_first_chapter_is_computed_right():
    text = (BOOK / "problem.md").read_text()
    rows = re.findall(r"^\| (background|person|car|bird|boat) \|([ \d|]+)\|$", text, re.MULTILINE)
    counts = np.array([[int(cell) for cell in cells.split("|")] for _, cells in rows])
    labels = LabelSpace(("person", "car", "bird", "boat"), (3, 4))
    assert [name for name, _ in rows] == list(labels.names)
    assert match_clusters(counts, labels, "published").tolist() == [3, 4]
    shared = pairwise_iou(counts[3:, 3:].astype(float))
    assert f"an {{term}}`IoU` of {100 * shared[0, 0]:.0f} %. Cluster 2 and *boat* share 150 of 170: {100 * shared[1, 1]:.0f} %." in text
    assert {f"{100 * iou:.0f} % each" for iou in (shared[0, 1], shared[1, 0])} == {"4 % each"}
    assert "4 % each" in text
    scores = score(counts, labels)
    assert f"70 / (100 + 105 − 70) = {100 * scores.per_class['bird']:.1f} %." in text
    assert "| " + " | ".join(f"{100 * iou:.1f}" for iou in scores.per_class.values()) + " |" in text
    assert f"{{term}}`novel mIoU` {100 * scores.novel_miou:.1f}" in text
    assert f"base classes: {100 * scores.base_miou:.1f}" in text
    assert f"all five labels: {100 * scores.all_miou:.1f}" in text
