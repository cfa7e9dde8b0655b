"""Every figure of the library and every diagram of the notebooks draws on a tiny run, and notebooks get what they display."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import diagrams
from ncdss_lib.method.cluster_matching import UNMATCHED
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.inference import load_model
from ncdss_lib.method.metrics import score
from ncdss_lib.runs.pipeline import Run, open_run
from ncdss_lib.viz import examples, explorer_data, figures, percent, results, say, show_source, table
from tests.data.fake_voc import make_fake_folder, make_fake_voc

TINY = [
    "data.size=64", "data.target_size=16", "evaluation.size=64", "model.weights=none", "model.head_channels=16",
    "clustering.over_clustering=2", "clustering.base_confidence=0.5", "eums.reassign_epochs=[1]",
    *(f"{s}.{value}" for s in ("base_training", "basic_framework", "eums") for value in ("epochs=2", "steps_per_epoch=2", "batch_size=4")),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    """All stages on 72 fake images, as PASCAL-5i and as a folder of one's own without truth; training is too short to learn anything."""
    root = tmp_path_factory.mktemp("viz")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCDSS_CACHE", str(root / "cache"))
        fakes = make_fake_voc(root / "pascal5i", train=72, val=8)
        make_fake_folder(root / "folder", fakes)
        for dataset, more in (("pascal5i", []), ("folder", ["data.num_novel=5"])):
            run = open_run(dataset, str(root / dataset), 0, 0, "laptop", str(root / "run" / dataset), [*TINY, *more], device="cpu")
            run.write_report()
            assert run.views
            made[dataset] = run
    return made


@pytest.fixture(scope="module")
def run(runs) -> Run:
    return runs["pascal5i"]


def confusions_of(run: Run) -> dict[str, np.ndarray]:
    return {name: confusion_on_val(run, load_model(run, name), 64) for name in ("basic", "basic_oc")}


@pytest.fixture(scope="module")
def confusions(run) -> dict[str, np.ndarray]:
    return confusions_of(run)


# --- figures ----------------------------------------------------------------------------------------------------------------------------

FIGURES = {
    "scenes": lambda run, c: figures.scenes(run),
    "what_is_told": lambda run, c: figures.what_is_told(run),
    "class_counts": lambda run, c: diagrams.class_counts(run),
    "saliency_quality": lambda run, c: diagrams.saliency_quality(*diagrams.saliency_shares(run)),
    "curves": lambda run, c: diagrams.curves(run, ["basic", "basic_oc"], ("base", "novel")),
    "pipeline_steps": lambda run, c: figures.pipeline_steps(explorer_data.pipeline_data(run, 2)),
    "base_model_on": lambda run, c: figures.base_model_on(run, run.splits.novel[:2]),
    "base_confidence": lambda run, c: diagrams.base_confidence(diagrams.base_confidences(run), 0.7),
    "iou_bars": lambda run, c: diagrams.iou_bars(run, {name: score(matrix, run.labels) for name, matrix in c.items()}),
    "pseudo_label_steps": lambda run, c: figures.pseudo_label_steps(run, examples.used(run, 2), run.clusters["basic"]),
    "threshold_strip": lambda run, c: figures.threshold_strip(run, run.splits.novel[:2]),
    "prototype_map": lambda run, c: diagrams.prototype_map(run, run.clusters["basic_oc"]),
    "cluster_gallery": lambda run, c: figures.cluster_gallery(run, run.clusters["basic"]),
    "cluster_table": lambda run, c: diagrams.cluster_table(run, [5, 10]),
    "predictions": lambda run, c: figures.predictions(run, list(c), run.splits.val[:2], c, "hungarian"),
    "matching": lambda run, c: diagrams.matching(run, c),
    "confusion": lambda run, c: diagrams.confusion(run, c["basic_oc"], "hungarian"),
    "entropy_rows": lambda run, c: figures.entropy_rows(run, results.ranking_table(run).index[:2].tolist()),
    "ranking_curve": lambda run, c: diagrams.ranking_curve(run),
    "split_by_cluster": lambda run, c: diagrams.split_by_cluster(run),
    "clean_share_curve": lambda run, c: diagrams.clean_share_curve(run),
    "self_training": lambda run, c: figures.self_training(run, run.splits.novel[:2]),
    "ramp": lambda run, c: diagrams.ramp(run),
    "reassignment": lambda run, c: diagrams.reassignment(run),
    "teacher_confidence": lambda run, c: diagrams.teacher_confidence(diagrams.teacher_pixels(run), 0.7),
    "score_bars": lambda run, c: diagrams.score_bars(run.report()),
    "protocols": lambda run, c: diagrams.protocols(run.report()),
}


@pytest.mark.parametrize("dataset", ["pascal5i", "folder"])
@pytest.mark.parametrize("name", FIGURES)
def test_it_draws_also_where_nobody_knows_the_truth(name, dataset, runs):
    figure = FIGURES[name](runs[dataset], confusions_of(runs[dataset]))
    assert isinstance(figure, Figure)
    svg, png = figure._repr_svg_(), figure._repr_png_()  # line art as SVG, photos as PNG
    assert (svg is None) != (png is None)
    assert png.startswith(b"\x89PNG") if svg is None else "<svg" in svg[:1000]
    assert figure.get_facecolor() == (1, 1, 1, 1)  # readable on a dark page too


@pytest.mark.parametrize("name", FIGURES)
def test_the_smallest_text_is_ten_pixels_on_a_page_of_768(name, run, confusions):
    """A page of 768 pixels shows figures 700 pixels wide."""
    figure = FIGURES[name](run, confusions)
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    smallest = min(text.get_fontsize() for text in texts)
    shown = min(700, 150 * figure.get_figwidth())
    assert smallest * shown / (72 * figure.get_figwidth()) >= 10


def test_every_public_figure_is_drawn_above():
    functions = {**vars(figures), **vars(diagrams)}
    made = {name for name, f in functions.items() if callable(f) and getattr(f, "__annotations__", {}).get("return") == "Drawing"}
    assert made - {"blank", "grid", "clean_share_view"} == set(FIGURES)


def test_masks_are_drawn_with_nearest_interpolation_and_named_regions(run):
    image_id = run.splits.novel[0]
    panel = figures.overlay(run.data.image(image_id), run.truth(image_id), figures.class_look(run.labels))
    assert {text for _, _, text, _ in panel.tags} <= set(run.labels.names)
    assert panel.tags
    drawn = figures.grid([[panel]]).axes[0].images[0]
    assert drawn.get_interpolation() == "nearest"


# --- examples and results -----------------------------------------------------------------------------------------------------------------


def test_examples_take_the_novel_classes_in_turn(run):
    presence = run.data.presence()
    chosen = examples.novel(run, 5)
    assert len(set(chosen)) == 5
    assert set().union(*(presence[i] for i in chosen)) >= set(run.labels.novel_ids)


def test_examples_come_by_rule_what_works_first_and_failures_last():
    quality = pd.Series({"a": 0.1, "b": 0.95, "c": 0.8, "d": 0.6, "e": 0.9, "f": 0.05, "g": 0.55, "h": 0.2, "i": 0.58})
    chosen = examples.by_rule(quality, 8, mixed=["c"])
    assert chosen[:3] == ["c", "b", "e"]  # works; with a base object beside the novel one first
    assert chosen[3] == "i"  # typical, nearest to the median first
    assert set(chosen[4:6]) == {"d", "g"}
    assert chosen[6:] == ["f", "a"]  # at most a quarter of failures
    assert examples.by_rule(quality, 4, mixed=["c"]) == ["c", "b", "i", "f"]
    kinds = examples.kinds(quality)
    assert kinds[["b", "d", "f"]].tolist() == ["works", "typical", "fails"]
    unknown = pd.Series(float("nan"), index=list("abcdef"))
    assert examples.by_rule(unknown, 3) == ["a", "c", "f"]  # spread over the list
    assert set(examples.kinds(unknown)) == {""}


def test_the_first_image_is_one_where_the_method_works(run):
    quality = examples.pseudo_label_quality(run)
    chosen = examples.used(run, 6)
    order = [{"works": 0, "typical": 1, "fails": 2}[kind] for kind in examples.kinds(quality)[chosen]]
    assert order == sorted(order)
    assert len(set(chosen)) == len(chosen) == 6


def test_spread_keeps_both_ends():
    assert examples.spread("abcdefghij", 4) == ["a", "d", "g", "j"]
    assert examples.spread("abc", 4) == ["a", "b", "c"]


def test_pseudo_label_table_agrees_with_the_report(run):
    quality = run.report()["pseudo_labels"]
    for name in ("basic", "basic_oc"):
        frame = results.pseudo_label_table(run, run.clusters[name])
        assert len(frame) == quality[name]["images"]
        assert results.right_share(frame) == pytest.approx(quality[name]["correct_share"])
    ranking = results.ranking_table(run)
    for split in ("clean", "unclean"):
        assert results.right_share(ranking[ranking["split"] == split]) == pytest.approx(quality[split]["correct_share"])


def test_clusters_become_classes():
    prediction = np.array([[0, 2, 3, 4, 255]])
    assert results.to_classes(prediction, np.array([4, UNMATCHED]), 2).tolist() == [[0, 2, 4, results.UNMATCHED_LABEL, 255]]


def test_best_images_are_better_than_the_worst(run, confusions):
    best, worst = examples.best_and_worst(run, "basic", confusions["basic"], 1)
    assert len(best) == len(worst) == 1
    assert best != worst


# --- displays ---------------------------------------------------------------------------------------------------------------------------


def test_the_source_shown_is_the_source_that_runs():
    shown = show_source(results.right_share).data
    assert shown.startswith("`ncdss_lib.viz.results.right_share`\n\n```python\ndef right_share")


def test_tables_sentences_and_numbers(run):
    shown = table({"a": {"x": 1, "y": None}, "b<c": {"x": 2, "y": "z"}}, "t").data
    assert [cell.text for cell in ElementTree.fromstring(shown).iter() if cell.tag in ("th", "td")] == [
        "t",
        "x",
        "y",
        "a",
        "1",
        None,
        "b<c",
        "2",
        "z",
    ]
    assert say("\n  one\n  two\n").data == "one\ntwo"
    assert [percent(0.1234), percent(None), percent(float("nan"))] == ["12.3 %", "–", "–"]


def test_the_tables_of_notebooks_say_what_the_report_and_the_scores_say(run, confusions):
    quality = run.report()["pseudo_labels"]["basic"]
    shown = diagrams.quality_table({"all": results.pseudo_label_table(run, run.clusters["basic"])}).data
    assert f">{quality['images']}<" in shown
    assert percent(quality["correct_share"]) in shown
    assert percent(quality["purity"]) in shown
    scores = score(confusions["basic_oc"], run.labels)
    shown = diagrams.score_table({"basic_oc": scores}).data
    for value in (run.clusters["basic_oc"], percent(scores.novel_miou), percent(scores.base_miou), scores.rule):
        assert f">{value}<" in shown


# --- notebooks --------------------------------------------------------------------------------------------------------------------------


def test_every_figure_of_the_notebooks_has_a_caption_a_name_and_an_alternative_text():
    from ncdss_lib.runs.notebooks import notebook_paths

    names = []
    for path in notebook_paths():
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            called = re.match(r"(?:figures|diagrams)\.(\w+)\(", source.splitlines()[-1])
            if cell["cell_type"] == "code" and called and called[1] in FIGURES:
                meta = cell["metadata"]["mystnb"]
                assert meta["figure"]["caption"]
                assert meta["image"]["alt"]
                names.append(meta["figure"]["name"])
    assert len(names) > 25
    assert len(set(names)) == len(names)
