"""Self-training: the ramp-up, the bookkeeping of dynamic reassignment, and what a resumed run sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ncdss_lib.method import eums
from ncdss_lib.method.entropy_ranking import read_ranking
from ncdss_lib.method.eums import ramp_up
from ncdss_lib.method.inference import load_model, predict
from ncdss_lib.method.prediction_history import read_snapshots
from ncdss_lib.models.checkpoints import load_weights
from ncdss_lib.runs.pipeline import Run, open_run
from ncdss_lib.viz import results
from tests.conftest import TINY_LAPTOP


def test_ramp_up_has_the_published_values():
    assert [round(ramp_up(e, 5), 4) for e in range(8)] == [0.0067, 0.0408, 0.1653, 0.4493, 0.8187, 1.0, 1.0, 1.0]
    assert ramp_up(2, 5, maximum=3.0) == pytest.approx(3 * ramp_up(2, 5))
    assert ramp_up(0, 0, maximum=0.7) == 0.7  # no ramp


@pytest.fixture(scope="module")
def ranked(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that is done up to entropy ranking."""
    out = tmp_path_factory.mktemp("ranked") / "run"
    open_run("pascal5i", str(voc), 0, 0, "laptop", str(out), TINY_LAPTOP).ensure("entropy_ranking")
    return out


class Recorder:
    """Stands in for ``fit``: goes through the epochs without training and notes the lists of each."""

    def __init__(self, interrupt_at: int | None = None, start: int = 0) -> None:
        self.lists: list[tuple[list[str], list[str]]] = []
        self.interrupt_at, self.start = interrupt_at, start

    def __call__(self, run, name, model, sources, step_loss, config, folder, *, extra, before_epoch, validate):
        _, clean, unclean = sources
        for epoch in range(config.epochs):
            before_epoch(epoch, model)
            if epoch == self.interrupt_at:
                raise KeyboardInterrupt
            self.lists.append((list(clean.ids), list(unclean.ids)))


def compute(monkeypatch, voc: Path, ranked: Path, folder: Path, recorder: Recorder, *overrides: str) -> Run:
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", str(ranked), [*TINY_LAPTOP, *overrides])
    monkeypatch.setattr(eums, "fit", recorder)
    folder.mkdir(exist_ok=True)
    eums.compute(run, folder)
    return run


@pytest.mark.parametrize("per", ["dataset", "cluster"])
def test_reassignment_keeps_lists_disjoint_and_complete_over_several_epochs(monkeypatch, voc, ranked, tmp_path, per):
    recorder = Recorder()
    share = {"dataset": 0.6, "cluster": 0.4}[per]
    overrides = ("eums.epochs=6", "eums.reassign_epochs=[1, 3, 4]", f"eums.reassign_share={share}", f"entropy_ranking.per={per}")
    compute(monkeypatch, voc, ranked, tmp_path / "eums", recorder, *overrides)
    ranking = read_ranking(ranked / "entropy_ranking")
    everything = sorted(ranking.index)
    for clean, unclean in recorder.lists:
        assert sorted(clean + unclean) == everything  # nothing lost, nothing twice
    cleans = [set(clean) for clean, _ in recorder.lists]
    assert cleans[0] == set(ranking.index[ranking["split"] == "clean"])
    assert cleans[0] >= cleans[1] == cleans[2] >= cleans[3] >= cleans[4] == cleans[5]  # each from the list as it was then
    assert cleans[0] > cleans[5]
    if per == "dataset":
        sizes = [len(cleans[0])]
        for _ in range(3):
            sizes.append(int(sizes[-1] * 0.6))
        assert [len(cleans[e]) for e in (0, 1, 3, 4)] == sizes


def test_those_of_lowest_entropy_stay(monkeypatch, voc, ranked, tmp_path):
    recorder = Recorder()
    compute(monkeypatch, voc, ranked, tmp_path / "eums", recorder, "eums.reassign_epochs=[1]", "entropy_ranking.per=dataset")
    table = pd.read_csv(tmp_path / "eums" / "reassigned_1.csv").sort_values("entropy", kind="stable")
    kept = int(len(table) * 0.5)
    assert table["clean"].tolist() == [True] * kept + [False] * (len(table) - kept)
    assert set(recorder.lists[1][0]) == set(table["id"][:kept])


def test_splits_csv_tells_the_clean_images_of_each_epoch(monkeypatch, voc, ranked, tmp_path):
    recorder = Recorder()
    compute(monkeypatch, voc, ranked, tmp_path / "eums", recorder, "eums.reassign_epochs=[1, 2]")
    splits = pd.read_csv(tmp_path / "eums" / "splits.csv", index_col="id")
    assert list(splits) == ["epoch_0", "epoch_1", "epoch_2"]
    for epoch in range(3):
        assert set(splits.index[splits[f"epoch_{epoch}"]]) == set(recorder.lists[epoch][0])


def test_without_reassignment_the_lists_stay(monkeypatch, voc, ranked, tmp_path):
    recorder = Recorder()
    compute(monkeypatch, voc, ranked, tmp_path / "eums", recorder, "eums.reassign_epochs=[]")
    assert recorder.lists[0] == recorder.lists[-1]
    assert not list((tmp_path / "eums").glob("reassigned_*"))


def test_a_resumed_run_sees_the_same_lists_without_ranking_again(monkeypatch, voc, ranked, tmp_path):
    overrides = ("eums.epochs=4", "eums.reassign_epochs=[1, 3]")
    whole, broken, again = Recorder(), Recorder(interrupt_at=2), Recorder()
    compute(monkeypatch, voc, ranked, tmp_path / "whole", whole, *overrides)
    with pytest.raises(KeyboardInterrupt):
        compute(monkeypatch, voc, ranked, tmp_path / "eums", broken, *overrides)
    asked = []
    entropies = eums.image_entropies
    monkeypatch.setattr(eums, "image_entropies", lambda run, model, ids: asked.append(len(ids)) or entropies(run, model, ids))
    compute(monkeypatch, voc, ranked, tmp_path / "eums", again, *overrides)
    assert again.lists == whole.lists
    assert asked == [len(again.lists[1][0])]  # only before epoch 3


# --- the loss ---------------------------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_step_is_put_together_as_published(monkeypatch, voc, ranked, tmp_path):
    """(CE_base + CE_clean) / 2 + w(epoch) CE(student(strong), argmax teacher(weak)), the teacher updated before it is asked."""
    found = {}

    def one_step(run, name, model, sources, step_loss, config, folder, *, extra, before_epoch, validate):
        (batches,) = run.views.train_loader(sources)([{s.name: s.batches(0, 0, 1)[0] for s in sources}], 0, 0)
        teacher = extra["teacher"]
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05)
        start = {n: p.clone() for n, p in teacher.named_parameters()}
        model.train()
        found["losses"] = {k: v.item() for k, v in step_loss(model, batches, 1).items()}
        for n, p in teacher.named_parameters():
            torch.testing.assert_close(p, 0.9 * start[n] + 0.1 * model.get_parameter(n).detach())
        teacher.eval()
        with torch.no_grad():
            expected = torch.nn.functional.interpolate(teacher(batches["unclean"]["weak"]), (16, 16), mode="bilinear", align_corners=False)
            student = model(batches["unclean"]["strong"])
        student = torch.nn.functional.interpolate(student, (16, 16), mode="bilinear", align_corners=False)
        target = expected.argmax(1)
        keep = expected.softmax(1).amax(1) >= 0.06
        per_pixel = -student.log_softmax(1).gather(1, target[:, None])[:, 0]
        found["unclean"], found["kept"] = per_pixel[keep].mean().item(), keep.float().mean().item()

    monkeypatch.setattr(eums, "fit", one_step)
    overrides = ["eums.teacher_momentum=0.9", "eums.confidence=0.06", "eums.ramp_up_epochs=5", "eums.disputed=keep", "model.dropout=0"]
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", str(ranked), [*TINY_LAPTOP, *overrides])
    (tmp_path / "eums").mkdir()
    eums.compute(run, tmp_path / "eums")
    losses = found["losses"]
    assert losses["loss"] == pytest.approx((losses["base"] + losses["clean"]) / 2 + np.exp(-5 * 0.8**2) * losses["unclean"], rel=1e-5)
    assert losses["kept"] == pytest.approx(found["kept"], abs=1e-3)
    assert losses["unclean"] == pytest.approx(found["unclean"], rel=1e-3)


def test_the_whole_stage_leaves_student_teacher_and_history(voc, ranked, tmp_path):
    out = Path(shutil.copytree(ranked, tmp_path / "run"))
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", str(out), TINY_LAPTOP)
    folder = run.ensure("eums")
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "checksums.sha256",
        "eums.safetensors",
        "eums_teacher.safetensors",
        "eums_history.csv",
        "splits.csv",
        "reassigned_1.csv",
        "watched",
        "manifest.json",
    }
    history = pd.read_csv(folder / "eums_history.csv")
    assert {"epoch", "steps", "loss", "base", "clean", "unclean", "kept"} <= set(history)
    assert len(history) == 3
    counts = json.loads((folder / "manifest.json").read_text())["numbers"]
    assert counts["clean"] + counts["unclean"] == len(read_ranking(out / "entropy_ranking"))


def test_what_is_watched_is_what_the_networks_say_and_does_not_touch_them(voc, ranked, tmp_path):
    runs = {}
    for count in (0, 3):
        out = Path(shutil.copytree(ranked, tmp_path / f"run{count}"))
        runs[count] = open_run("pascal5i", str(voc), 0, 0, "laptop", str(out), [*TINY_LAPTOP, f"eums.watch={count}"])
    folders = {count: run.ensure("eums") for count, run in runs.items()}
    for name in ("eums", "eums_teacher"):
        without, watched = (load_file(folder / f"{name}.safetensors") for folder in folders.values())
        assert all(torch.equal(without[key], watched[key]) for key in without)
    assert not (folders[0] / "watched").exists()
    kept, run = read_snapshots(folders[3]), runs[3]
    assert list(kept) == [0, 1, 2, 3]
    ids = kept[0]["ids"].tolist()
    assert len(ids) == 3
    ranking = read_ranking(run.folder / "entropy_ranking")
    assert set(ids) <= set(ranking.index[ranking["split"] == "unclean"])
    basic, student, teacher = load_model(run, "basic_oc"), load_model(run, "eums", folder=None), results.load_teacher(run)
    if run.recipe.eums.evaluates_teacher:
        load_weights(student, folders[3] / "eums.safetensors")
    for network, epoch, name in ((basic, 0, "student"), (basic, 0, "teacher"), (student, 3, "student"), (teacher, 3, "teacher")):
        logits = torch.cat([batch for _, batch in predict(run, network, ids, run.views.size)])
        probability, label = logits.softmax(1).max(1)
        assert np.array_equal(label.numpy(), kept[epoch][name])
        assert np.array_equal((probability * 255).round().numpy(), kept[epoch][f"{name}_probability"])


def test_a_resumed_run_keeps_what_it_watched(monkeypatch, voc, ranked, tmp_path):
    broken = Recorder(interrupt_at=2)
    with pytest.raises(KeyboardInterrupt):
        compute(monkeypatch, voc, ranked, tmp_path / "eums", broken)
    earlier = {p.name: p.read_bytes() for p in (tmp_path / "eums" / "watched").glob("*.npz")}
    assert len(earlier) == 3  # before epochs 0, 1 and 2
    compute(monkeypatch, voc, ranked, tmp_path / "eums", Recorder())
    assert {p.name: p.read_bytes() for p in (tmp_path / "eums" / "watched").glob("*.npz") if p.name in earlier} == earlier
    assert sorted(read_snapshots(tmp_path / "eums")) == [0, 1, 2, 3]
