"""Live widgets without a front end: each control changes the picture and the read-out as the explorer's data say."""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from ipywidgets import HTML, VBox
from ipywidgets import Image as ImageWidget
from nbclient import NotebookClient
from PIL import Image

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.inference import load_model
from ncdss_lib.runs.pipeline import Run, reopen
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.viz import explorer_data, percent, results, widgets
from ncdss_lib.viz.explorer_html import Explorer
from ncdss_lib.viz.figures import Drawing
from tests.conftest import opened
from tests.viz.read_outs import teaching_shares
from toyscenes import render_scene, simulate_saliency


@pytest.fixture(scope="module")
def run(finished: dict[str, Path], voc: Path) -> Run:
    return reopen(finished["laptop"], str(voc))


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    """A front end that can answer."""
    shell = type("Shell", (), {"kernel": type("Kernel", (), {"_allow_stdin": True})})
    monkeypatch.setattr(widgets, "get_ipython", lambda: shell)


class Shown:
    """The parts of a live widget by their names."""

    def __init__(self, box: Any) -> None:
        assert isinstance(box, VBox)
        *controls, readout, picture = box.children
        assert isinstance(readout, HTML)
        assert isinstance(picture, ImageWidget)
        self.controls, self._readout, self._picture = {c.description: c for c in controls}, readout, picture

    def readout(self) -> dict[str, str]:
        return dict(re.findall(r"<td>(.*?)</td><td><b>(.*?)</b></td>", self._readout.value))

    def after(self, control: str, value: Any) -> dict[str, str]:
        """The read-out after a control has moved; the picture must have changed."""
        before = bytes(self._picture.value)
        assert self.controls[control].value != value
        self.controls[control].value = value
        after = bytes(self._picture.value)
        assert after.startswith(b"\x89PNG")
        assert after != before, f"{control} changed nothing in the picture"
        return self.readout()


# --- who gets what ----------------------------------------------------------------------------------------------------------------------


def test_somebody_is_there_only_where_a_front_end_can_answer(live, monkeypatch):
    assert widgets.is_live()
    monkeypatch.setenv("NCDSS_STATIC", "1")
    assert not widgets.is_live()
    monkeypatch.delenv("NCDSS_STATIC")
    monkeypatch.setattr(widgets, "get_ipython", lambda: type("Shell", (), {"kernel": type("Kernel", (), {"_allow_stdin": False})}))
    assert not widgets.is_live()
    monkeypatch.setattr(widgets, "get_ipython", lambda: None)  # a script
    assert not widgets.is_live()


def test_a_notebook_that_is_executed_gets_the_explorer_of_the_page():
    cell = nbformat.v4.new_code_cell("from ncdss_lib.viz import widgets\nwidgets.explore_scenes(64)")
    executed = NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=120, kernel_name="python3").execute()
    (output,) = [o for o in executed.cells[0].outputs if o.output_type == "execute_result"]
    assert set(output.data) == {"text/html", "text/plain"}
    assert '<figure class="ncdss-explorer"' in output.data["text/html"]


STATIC = {
    "explore_labels": "layers", "explore_threshold": "threshold", "explore_clusters": "clusters", "explore_pseudo_labels": "layers",
    "explore_entropy": "ranking", "explore_teacher": "teaching", "explore_image": "layers",
    "explore_pipeline": "pipeline",
}  # fmt: skip


@pytest.mark.parametrize("name", STATIC)
def test_where_nobody_is_there_is_an_explorer_of_a_run_or_of_its_folder(run, name, finished, voc, monkeypatch):
    monkeypatch.setenv("NCDSS_DATA_ROOT", str(voc))
    explorer = getattr(widgets, name)(finished["laptop"])
    assert isinstance(explorer, Explorer)
    assert explorer.kind == STATIC[name]
    assert explorer.alt
    assert explorer.data == getattr(widgets, name)(run).data


def test_predictions_are_explored_in_the_page_also_where_somebody_is(run, live):
    confusions = {name: confusion_on_val(run, load_model(run, name), 64) for name in ("basic", "eums")}
    explorer = widgets.explore_predictions(run, confusions)
    assert (explorer.kind, list(explorer.data["scores"])) == ("predictions", ["basic", "eums"])


def test_a_run_that_watched_no_image_shows_the_end(voc, finished, tmp_path):
    unwatched = opened(voc, tmp_path / "run", "laptop", "eums.watch=0")
    unwatched.write_report()
    shown = widgets.explore_teacher(unwatched)
    assert isinstance(shown, Drawing)
    assert len(shown.axes) > 4


# --- controls ---------------------------------------------------------------------------------------------------------------------------


def test_scenes(live):
    shown = Shown(widgets.explore_scenes(64))
    names = {"main object missed": "miss_main", "small object missed": "miss_small", "false blob": "false_blob", "ragged border": "ragged"}
    assert list(shown.controls) == ["seed", *names]

    def wanted() -> dict[str, str]:
        seed, noise = shown.controls["seed"].value, {key: shown.controls[name].value for name, key in names.items()}
        mask = render_scene(seed, 64).mask
        found = simulate_saliency(mask, np.random.default_rng([seed, 1]), **noise)
        salient = np.zeros(mask.shape, bool) if found is None else found
        known = mask != IGNORE
        both, either = (mask > 0) & salient & known, ((mask > 0) | salient) & known
        return {"IoU of saliency and objects": percent(both.sum() / either.sum())}

    assert shown.readout() == wanted()
    assert shown.after("seed", 6) == wanted()
    for name, value in (("main object missed", 1.0), ("small object missed", 1.0), ("false blob", 1.0), ("ragged border", 2.0)):
        shown.controls[name].value = 0.0
        assert shown.after(name, value) == wanted(), name
    assert len({shown.after("seed", seed)["IoU of saliency and objects"] for seed in (1, 2, 3)}) > 1


def test_threshold(run, live):
    shown, model = Shown(widgets.explore_threshold(run)), explorer_data.threshold_data(run, count=16)
    assert list(shown.controls) == ["image", "threshold"]
    assert shown.controls["threshold"].value == run.recipe.clustering.base_confidence
    pictures = {p.id: p for p in model.pictures}
    assert len(pictures) > 5

    def mask(image_id: str, threshold: float) -> np.ndarray:
        return explorer_data.threshold_masks(pictures[image_id], model.thresholds, threshold)[1]

    def wanted(image_id: str, threshold: float) -> dict[str, str]:
        own = mask(image_id, threshold)
        share = explorer_data.novel_share(pictures[image_id], own, model.num_base)
        return {"in the novel mask": percent(own.mean()), "of that, really novel": percent(share)}

    some = [i for i in pictures if mask(i, 0.0).sum() < mask(i, 1.0).sum()][:4]
    assert len(some) == 4
    for image_id in some:
        shown.controls["image"].value = image_id
        shown.controls["threshold"].value = 1.0
        assert shown.after("threshold", 0.0) == wanted(image_id, 0.0)
        assert shown.after("threshold", 1.0) == wanted(image_id, 1.0)


def test_clusters(run, live):
    shown, model = Shown(widgets.explore_clusters(run)), explorer_data.clusters_data(run)
    assert list(shown.controls) == ["clusters K", "cluster"]
    assert shown.controls["clusters K"].value == model.chosen

    def wanted(k: int, cluster: int) -> dict[str, str]:
        about = model.members(k, cluster)
        name = run.labels.names[int(about["label"])] if about["label"] else "–"
        return {"images": str(about["images"]), "class of most": name, f"purity with K = {k}": percent(model.purity(k))}

    assert shown.readout() == wanted(model.chosen, 1)
    assert shown.after("cluster", model.chosen) == wanted(model.chosen, model.chosen)
    assert shown.after("clusters K", 3) == wanted(3, 3)  # the last of three, for there is no fifth
    assert shown.controls["cluster"].max == 3
    assert shown.after("clusters K", 12) == wanted(12, 3)
    assert shown.after("cluster", 12) == wanted(12, 12)


def test_pseudo_labels(run, live):
    shown = Shown(widgets.explore_pseudo_labels(run))
    assert list(shown.controls) == ["image", "clusters K"]
    ids = shown.controls["image"].options
    for image_id in ids[:3]:
        shown.controls["image"].value = ids[-1]
        for k in (5, 10):
            shown.controls["clusters K"].value = 15 - k
            shown.controls["image"].value = image_id
            row = results.pseudo_label_table(run, k).loc[image_id]
            right = percent(row["right"] / row["pixels"] if row["pixels"] else None)
            assert shown.after("clusters K", k) == {"cluster": str(row["cluster"]), "right pixels": right}


def test_entropy(run, live):
    shown, model = Shown(widgets.explore_entropy(run)), explorer_data.ranking_data(run)
    assert list(shown.controls) == ["clean share"]
    for share in (0.2, 0.5, 0.9):
        numbers = model.numbers(share)
        assert shown.after("clean share", share) == {
            f"{side}: images, right pixels": f"{numbers[side]:.0f}, {percent(numbers[f'{side}_right'])}" for side in ("clean", "unclean")
        }


def test_teacher(run, live):
    shown, model = Shown(widgets.explore_teacher(run)), explorer_data.teaching_data(run, side=500)
    assert list(shown.controls) == ["image", "confidence"]
    last = model.epochs[-1]
    first = model.pictures[0]
    probability = results.logits_of(run, results.load_teacher(run), [first.id])[first.id].softmax(0).max(0).values
    shown.controls["confidence"].value = 0.0
    shown.controls["image"].value = first.id
    numbers = teaching_shares(model, last, 0, [first])
    assert shown.readout() == {
        "labelled pixels": "100.0 %",
        "of the novel ones among them, right": percent(numbers["taught"]),
    }
    middle = round(float(probability.median()), 3)
    kept = float(shown.after("confidence", middle)["labelled pixels"].removesuffix(" %"))
    assert kept == pytest.approx(100 * (probability >= middle).float().mean().item(), abs=8)  # sizes differ
    before = shown.readout()
    assert len(shown.controls["image"].options) > 1
    for other in shown.controls["image"].options:
        if other != first.id:
            shown.after("image", other)
    assert shown.after("image", first.id) == before


def test_an_image_from_the_disk(run, live):
    shown = Shown(widgets.explore_image(run))
    assert list(shown.controls) == ["a picture"]
    trained = open_checkpoint(run.weights("eums"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")

    def upload(content: bytes) -> tuple[dict[str, Any], ...]:
        return ({"name": "x", "type": "image/png", "size": len(content), "content": memoryview(content), "last_modified": datetime.now()},)

    labels, _ = trained.predict_image(pixels)
    counts = {trained.look.names[k]: (labels == k).mean() for k in np.unique(labels) if k != IGNORE}
    most = sorted(counts, key=lambda name: -counts[name])[:6]
    told = shown.after("a picture", upload(buffer.getvalue()))
    assert {name: percent(counts[name]) for name in most} == told
    broken = shown.after("a picture", upload(b"no picture"))
    assert list(broken) == ["this file cannot be read as a picture"]
