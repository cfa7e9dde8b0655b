"""Tables from report.json files: means, spreads and paired differences as computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ncdss_lib.runs import report
from ncdss_lib.system.errors import InputError

SCORES = {"base_miou": 0.5, "background_iou": 0.8, "all_miou": 0.4, "harmonic_mean": 0.3}


def write(
    folder: Path,
    fold: int,
    seed: int,
    novel: dict[str, float],
    dataset: str = "pascal5i",
    recipe: str = "laptop",
    images: int = 650,
) -> Path:
    models = {
        "base": {
            "novel_miou": None,
            **SCORES,
            "harmonic_mean": None,
            "protocols": {},
            "per_class": {"cat": 0.5, "dog": None},
        }
    }
    for name, value in novel.items():
        protocols: dict[str, dict] = {
            "published": {"novel_miou": value, **SCORES},
            "hungarian": {"novel_miou": value - 0.1, **SCORES},
        }
        protocols["held_out"] = {"novel_miou": value - 0.05 * len(name), **SCORES}
        for scores in protocols.values():
            scores["per_class"] = {"cat": 0.5, "dog": scores["novel_miou"]}
        models[name] = {**protocols["published"], "protocols": protocols}
    quality = {"clean": 0.7, "unclean": 0.5 + 0.3 * seed}
    contents = {
        "schema": 1,
        "dataset": dataset,
        "recipe": recipe,
        "fold": fold,
        "seed": seed,
        "images": {"base": images - 50, "novel": 50},
        "masks": "SegmentationClassAug",
        "classes": {"base": ["cat"], "novel": ["dog"]},
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
    assert table.loc["EUMS minus + over-clustering"].tolist() == [
        "+5.0",
        "4.2",
        "2 of 2",
    ]  # 2 and 8 points
    assert table.loc["EUMS minus basic framework", "standard deviation"] == "0.0"


def test_a_gain_may_be_there_under_one_ruler_and_not_under_another(two_runs):
    """basic_oc minus basic: 10 and 4 points as published.

    Three letters more cost 15 points under the other ruler of this test.
    """
    table = report.gain_table(report.read_reports([two_runs]))
    column = table["+ over-clustering minus basic framework"]
    assert column.to_dict() == {
        report.PROTOCOLS["published"]: "+7.0 ± 4.2",
        report.PROTOCOLS["hungarian"]: "+7.0 ± 4.2",
        report.PROTOCOLS["held_out"]: "-8.0 ± 4.2",
    }


def test_every_score_stands_under_every_protocol_and_any_may_be_the_headline(two_runs):
    table = report.protocol_table(report.read_reports([two_runs]))
    assert len(table) == 9  # three models, three protocols
    (row,) = table[(table["model"] == "EUMS") & (table["protocol"] == report.PROTOCOLS["hungarian"])].to_dict("records")
    assert (row["novel"], row["base"], row["background"], row["all"]) == (
        "24.0 ± 2.8",
        "50.0 ± 0.0",
        "80.0 ± 0.0",
        "40.0 ± 0.0",
    )
    assert f"Novel mIoU, % ({report.PROTOCOLS['hungarian']})" in report.report_tables([two_runs], "hungarian")


def test_classes_have_their_names_novel_ones_last_and_marked(two_runs):
    table = report.class_table([two_runs])
    assert list(table.index) == ["cat", "dog (novel)"]
    assert table.loc["dog (novel)"].to_dict() == {
        "base model": "-",
        "basic framework": "22.0 ± 2.8",
        "+ over-clustering": "29.0 ± 1.4",
        "EUMS": "34.0 ± 2.8",
    }


def test_a_class_that_is_novel_in_one_fold_and_base_in_another_has_two_rows(two_runs):
    path = write(two_runs, 1, 0, {"basic": 0.9, "basic_oc": 0.9, "eums": 0.9})
    path.write_text(path.read_text().replace('{"base": ["cat"], "novel": ["dog"]}', '{"base": ["dog"], "novel": ["cat"]}'))
    table = report.class_table([two_runs])
    assert list(table.index) == ["cat", "dog", "dog (novel)", "cat (novel)"]
    assert table.loc["dog", "EUMS"] == "90.0"
    assert table.loc["dog (novel)", "EUMS"] == "34.0 ± 2.8"


def test_rows_of_the_ablation_stand_between_the_papers_and_say_what_was_not_run(two_runs):
    path = two_runs / "pascal5i" / "fold0" / "laptop" / "seed0" / "report.json"
    contents = json.loads(path.read_text())
    contents["ablation"] = {"er_dr": {"novel_miou": 0.31, **SCORES, "protocols": {}}}
    path.write_text(json.dumps(contents))
    table = report.ablation_table(report.read_reports([two_runs]))
    assert list(table["all runs"])[::2] == [
        "22.0 ± 2.8",
        "29.0 ± 1.4",
        "not run",
        "31.0",
        "not run",
        "34.0 ± 2.8",
    ]
    assert table.loc["OC + ER + dynamic reassignment (DR) (paper)"].tolist() == ["61.36", "55.29 (4 folds)"]
    assert "Ablation" in report.report_tables([two_runs])


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
    with pytest.raises(InputError, match="unknown protocol 'best'.*held_out, hungarian, published"):
        report.report_tables([two_runs], "best")
    path = write(tmp_path / "other", 0, 0, {"basic": 0.2})
    for text, reason in (
        ('{"schema": 2}', "has schema 2"),
        ("{", "is not valid JSON"),
        ("[]", "has schema None"),
        ('{"schema": 1}', "is not a report"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            report.report_tables([path])


# --- summaries to ship ------------------------------------------------------------------------------------


def test_an_exported_file_is_read_as_the_reports_that_it_was_made_from(two_runs, tmp_path):
    file = tmp_path / "shipped" / "photos.json"
    assert report.export([two_runs], file) == 2
    assert report.report_tables([file]) == report.report_tables([two_runs / "pascal5i"])
    assert "EUMS" in report.report_tables([file], "hungarian")  # without classes
    assert str(two_runs) not in file.read_text()  # no path of the machine
    again = tmp_path / "again.json"
    assert report.export([file], again) == 2  # an exported file may be exported
    assert again.read_text() == file.read_text()


def test_an_export_is_of_one_data_set_and_recipe(two_runs, tmp_path):
    write(two_runs, 1, 0, {"basic": 0.2}, recipe="paper")
    with pytest.raises(InputError, match="not of pascal5i with laptop, pascal5i with paper"):
        report.export([two_runs], tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


def test_a_summary_is_small_and_rounds_to_a_hundredth_of_a_point():
    scores = {"novel_miou": 1 / 3, "base_miou": None, "background_iou": 0.5, "all_miou": 0.25}
    scores |= {"harmonic_mean": 0.1, "per_class": {"cat": 2 / 3}, "confusion": "a/b.csv"}
    model = {**scores, "clusters": 5, "matching": {}, "protocols": {"held_out": scores}}
    short = report.summary({"schema": 1, "versions": {}, "models": {"eums": model}, "pseudo_labels": {}})
    assert set(short) == {"schema", "models", "pseudo_labels"}
    assert short["models"]["eums"]["novel_miou"] == 0.3333
    assert short["models"]["eums"]["per_class"] == {"cat": 0.6667}
    assert set(short["models"]["eums"]["protocols"]["held_out"]) == set(report.SCORES)
