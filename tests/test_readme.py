"""The README tells what the shipped files of measurements hold, in words that follow them."""

from __future__ import annotations

import json

import pytest

from benchmarks import readme
from ncdss_lib.runs import report

SHIPPED = readme.ROOT / "book" / "measured"


def test_the_readme_is_what_the_shipped_files_say():
    told = readme.README.read_text()
    assert told == readme.filled(told, readme.measured(SHIPPED)), "run `python -m benchmarks.readme`"
    for file in SHIPPED.glob("photos*.json"):
        assert file.name in told
        for cell in report.novel_table(report.read_reports([file]))["all runs"]:
            assert "(4 folds)" in cell or f"| {cell} |" in " ".join(told.split())  # the tables pad their cells


def shipped(fold: int, seed: int, novel: dict[str, float], recipe: str = "laptop") -> dict:
    scores = {"base_miou": 0.5, "background_iou": 0.8, "all_miou": 0.5, "harmonic_mean": 0.4}
    models = {}
    for model, value in novel.items():
        rulers = {"hungarian": value - 0.1 * (model != "basic"), "best_epoch": value + 0.02}
        protocols = {name: {**scores, "novel_miou": other} for name, other in rulers.items()}
        models[model] = {**scores, "novel_miou": value, "protocols": protocols}
    quality = {name: {"images": 1, "purity": 1.0, "correct_share": share} for name, share in (("clean", 0.7), ("unclean", 0.4))}
    return {
        "schema": 1, "dataset": "pascal5i", "recipe": recipe, "fold": fold, "seed": seed, "masks": "x",
        "device": {"type": "cpu", "name": "x86_64", "precision": "fp32"},
        "images": {"base": 1, "novel": 1}, "classes": {"base": [], "novel": []}, "models": models, "pseudo_labels": quality,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    runs = [shipped(f, s, {"basic": 0.30 + f / 100, "basic_oc": 0.35, "eums": 0.36 + s / 100}) for f in (1, 2) for s in (0, 1)]
    (tmp_path / "photos.json").write_text(json.dumps({"schema": 1, "runs": runs}))
    return tmp_path


def test_numbers_and_words_follow_the_files(folder):
    told = " ".join(readme.measured(folder).split())
    assert "| | fold 1 | fold 2 | all 4 runs | one-to-one | best epoch |" in told
    assert "| basic framework | 31.0 ± 0.0 | 32.0 ± 0.0 | 31.5 ± 0.6 | 31.5 ± 0.6 | 33.5 ± 0.6 |" in told
    assert "| EUMS | 36.5 ± 0.7 | 36.5 ± 0.7 | 36.5 ± 0.6 | 26.5 ± 0.6 | 38.5 ± 0.6 |" in told
    assert "EUMS is above the basic framework in 4 of 4 runs" in told
    assert "in points: +3.5 ± 0.6 as published, -6.5 ± 0.6 one-to-one." in told
    assert "adds +2.0 to basic framework, +2.0 to over-clustering, +2.0 to EUMS." in told
    assert "clean pseudo-labels 70.0 % are right, of unclean ones 40.0 %; clean is better in 4 of 4 runs." in told
    assert "recipe, 4 runs: fold 1 with seed 0, 1; fold 2 with seed 0, 1." in told
    assert "`; 4 on a CPU in fp32):" in told


def test_a_second_recipe_has_a_table_of_its_own(folder):
    run = shipped(1, 0, {"basic": 0.3, "basic_oc": 0.4, "eums": 0.5, "regions": 0.6}, recipe="regions")
    (folder / "photos-regions.json").write_text(json.dumps({"schema": 1, "runs": [run]}))
    told = readme.measured(folder)
    assert "The `regions` recipe, 1 run: fold 1 with seed 0." in told
    assert told.index("photos-regions.json") < told.index("photos.json")
    assert "committee after EUMS (ours)" in told


def test_nothing_but_the_part_between_the_comments_changes():
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    assert readme.filled(text, "new") == f"before\n{readme.BEGIN}\n\nnew\n\n{readme.END}\nafter\n"
    with pytest.raises(AssertionError, match="once each"):
        readme.filled("no comments", "new")
