"""Tables from report.json files: means, spreads and paired differences as computed by hand; wrong files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ncdss_lib import report
from ncdss_lib.errors import InputError

SCORES = {"base_miou": 0.5, "background_iou": 0.8, "all_miou": 0.4, "harmonic_mean": 0.3}


def write(
    folder: Path, fold: int, seed: int, novel: dict[str, float], dataset: str = "pascal5i", recipe: str = "laptop", images: int = 650
) -> Path:
    models = {"base": {"novel_miou": None, **SCORES, "harmonic_mean": None, "protocols": {}}}
    for name, value in novel.items():
        protocols = {"published": {"novel_miou": value, **SCORES}, "hungarian": {"novel_miou": value - 0.1, **SCORES}}
        models[name] = {**protocols["published"], "protocols": protocols}
    quality = {"clean": 0.7, "unclean": 0.5 + 0.3 * seed}
    contents = {
        "schema": 1,
        "dataset": dataset,
        "recipe": recipe,
        "fold": fold,
        "seed": seed,
        "images": {"base": images - 50, "novel": 50},
        "models": models,
        "pseudo_labels": {name: {"images": 10, "correct_share": share, "purity": 0.9} for name, share in quality.items()},
    }
    path = folder / dataset / f"fold{fold}" / recipe / f"seed{seed}" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(contents))
    return path


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    write(tmp_path, 0, 0, {"basic": 0.20, "basic_oc": 0.30, "eums": 0.32})
    write(tmp_path, 0, 1, {"basic": 0.24, "basic_oc": 0.28, "eums": 0.36})
    return tmp_path


def test_folds_hold_mean_and_sample_spread_in_percent_with_the_paper_below(two_runs):
    table = report.novel_table(report.read_reports([two_runs]))
    assert table.loc["basic framework", "fold 0"] == "22.0 ± 2.8"  # sqrt((2^2 + 2^2) / 1) = 2.83
    assert table.loc["EUMS", "all runs"] == "34.0 ± 2.8"
    assert table.loc["EUMS (paper)"].tolist() == ["69.79", "59.09 (4 folds)"]


def test_differences_are_paired_by_fold_and_seed(two_runs):
    table = report.difference_table(report.read_reports([two_runs]))
    assert table.loc["EUMS minus + over-clustering"].tolist() == ["+5.0", "4.2", "2 of 2"]  # 2 and 8 points
    assert table.loc["EUMS minus basic framework", "standard deviation"] == "0.0"


def test_each_protocol_has_its_own_column_and_may_be_the_headline(two_runs):
    table = report.protocol_table(report.read_reports([two_runs]))
    assert table.loc["EUMS"].to_dict() == {"published": "34.0 ± 2.8", "hungarian": "24.0 ± 2.8"}
    assert "(matching: hungarian)" in report.report_tables([two_runs], "hungarian")


def test_a_base_model_has_no_novel_score(two_runs):
    table = report.score_table(report.read_reports([two_runs]))
    assert table.loc["base model"].to_dict() == {
        "novel": "-",
        "base": "50.0 ± 0.0",
        "background": "80.0 ± 0.0",
        "all": "40.0 ± 0.0",
        "harmonic": "-",
    }


def test_clean_above_unclean_is_counted_by_run(two_runs):
    table = report.pseudo_label_table(report.read_reports([two_runs]))
    assert table.loc["clean above unclean", "right pixels"] == "in 1 of 2 runs"  # 0.7 against 0.5 and 0.8


@pytest.mark.parametrize(
    ("dataset", "recipe", "images", "expected"),
    [
        ("toyscenes", "paper", 600, "not comparable"),
        ("pascal5i", "paper", 650, "not comparable"),
        ("pascal5i", "laptop", 10582, "not comparable"),
        ("pascal5i", "paper", 10582, "comparable with the paper's rows"),
    ],
)
def test_only_the_full_data_with_the_paper_recipe_is_comparable(tmp_path, dataset, recipe, images, expected):
    write(tmp_path, 0, 0, {"basic": 0.2}, dataset, recipe, images)
    sentence = report.caution(report.read_reports([tmp_path]))
    assert expected in sentence
    assert ("not comparable" in sentence) == (expected == "not comparable")


def test_data_sets_are_never_mixed_in_a_table(two_runs):
    write(two_runs, 1, 0, {"basic": 0.9, "basic_oc": 0.9, "eums": 0.9}, "toyscenes")
    text = report.report_tables([two_runs])
    assert text.count("## ") == 2
    assert "## pascal5i, laptop recipe: 2 runs" in text
    assert "(paper)" not in text.split("## toyscenes")[1]


def test_wrong_input_is_refused_with_its_path(tmp_path, two_runs):
    with pytest.raises(InputError, match="no report.json in .*empty"):
        report.report_tables([tmp_path / "empty"])
    with pytest.raises(InputError, match="unknown protocol 'best'.*hungarian, published"):
        report.report_tables([two_runs], "best")
    path = write(tmp_path / "other", 0, 0, {"basic": 0.2})
    for text, reason in (('{"schema": 2}', "has schema 2"), ("{", "is not a report"), ("[]", "is not a report")):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            report.report_tables([path])
