"""Both recipes from end to end on tiny data in the real layout: the report, skip and resume, and bad input."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.method import clustering, eums
from ncdss_lib.method.inference import load_model
from ncdss_lib.recipes import flatten, load_recipe
from ncdss_lib.runs.pipeline import STAGES, Run, reopen
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import read_json
from tests.conftest import TINY_PAPER, opened
from tests.data.fake_voc import make_fake_voc

MODELS = {"base": 0, "basic": 5, "basic_oc": 10, "eums": 10}
MEANS = {"novel_miou", "base_miou", "background_iou", "all_miou", "harmonic_mean"}
SCORES = MEANS | {"per_class", "matching"}


@pytest.fixture
def laptop(finished: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the finished laptop run that a test may change."""
    return Path(shutil.copytree(finished["laptop"], tmp_path / "laptop"))


@pytest.fixture(params=["laptop", "paper"])
def run(request: pytest.FixtureRequest, finished: dict[str, Path], voc: Path) -> Run:
    return opened(voc, finished[request.param], request.param)


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder with the time it was written."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the report -------------------------------------------------------------------------------------------------------------------------


def test_the_report_has_the_schema_that_users_rely_on(run):
    report = read_json(run.folder / "report.json")
    assert {
        "schema", "dataset", "fold", "seed", "recipe", "config", "versions", "device", "classes", "images", "stages", "models",
        "pseudo_labels",
    } <= set(report)  # fmt: skip
    assert {k: report[k] for k in ("schema", "dataset", "fold", "seed", "recipe")} == {
        "schema": 1, "dataset": "pascal5i", "fold": 0, "seed": 0, "recipe": run.recipe.name,
    }  # fmt: skip
    assert {f"{s}.{f}" for s, fields in report["config"].items() for f in fields} == set(flatten(run.recipe))
    assert {"type", "name", "processes"} <= set(report["device"])
    assert report["classes"]["novel"] == ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    assert len(report["classes"]["base"]) == 15
    assert set(report["images"]) == {"base", "novel", "novel_used", "no_saliency", "below_min_area", "val"}
    assert list(report["stages"]) == ["base_training", "clustering", "basic_framework", "entropy_ranking", "eums", "evaluation"]
    for stage in report["stages"].values():
        assert set(stage) == {"seconds", "peak_memory_bytes", "skipped"}
        assert stage["skipped"] is False
        assert stage["peak_memory_bytes"] > 10_000_000
    assert {name: model["clusters"] for name, model in report["models"].items()} == MODELS
    for name, model in report["models"].items():
        assert set(model) == SCORES | {"clusters", "epoch", "size", "protocols", "confusion"}
        assert set(model["per_class"]) == {"background", *report["classes"]["base"], *report["classes"]["novel"]}
        assert set(model["matching"]) == {"rule", "cluster_to_class"}
        assert set(model["matching"]["cluster_to_class"]) == {str(k + 1) for k in range(MODELS[name])}
        assert model["size"] == 64
        assert model["epoch"] == run.training_config(name).epochs - 1
        for protocol in model["protocols"].values():
            assert set(protocol) >= SCORES
    assert report["models"]["base"]["novel_miou"] is None
    assert set(report["pseudo_labels"]) == {"basic", "basic_oc", "clean", "unclean"}
    assert all(set(quality) == {"images", "correct_share", "purity"} for quality in report["pseudo_labels"].values())


def test_every_number_of_the_report_is_a_fraction_or_null(run):
    report = read_json(run.folder / "report.json")
    for model in report["models"].values():
        for scores in (model, *model["protocols"].values()):
            for value in [scores[name] for name in MEANS] + list(scores["per_class"].values()):
                assert value is None or 0 <= value <= 1
    for quality in report["pseudo_labels"].values():
        assert 0 <= quality["correct_share"] <= 1
        assert 0 <= quality["purity"] <= 1


def recompute(confusion: np.ndarray, clusters: int, rule: str) -> tuple[list[int], list[float | None]]:
    """Class of each cluster (0..4) and the IoU of each of 21 classes, from a confusion matrix, in plain loops."""
    if not clusters:
        confusion = np.vstack([confusion[0] + confusion[16:].sum(0), confusion[1:16], np.zeros((5, 16), int)])
    novel = confusion[16:, 16:]
    iou = [[novel[c, k] / max(1, novel[c].sum() + novel[:, k].sum() - novel[c, k]) for k in range(clusters)] for c in range(5)]
    if rule == "hungarian" and clusters == 5:
        best = max(permutations(range(5)), key=lambda p: sum(iou[p[k]][k] for k in range(5)))
        mapping = list(best)
    else:
        by = novel if rule == "majority" else np.array(iou).reshape(5, clusters)
        mapping = [int(np.argmax([by[c][k] for c in range(5)])) for k in range(clusters)]
    merged = np.zeros((21, 21), int)
    merged[:, :16] = confusion[:, :16]
    for k, c in enumerate(mapping):
        merged[:, 16 + c] += confusion[:, 16 + k]
    result: list[float | None] = []
    for c in range(21):
        union = merged[c].sum() + merged[:, c].sum() - merged[c, c]
        result.append(merged[c, c] / union if union else None)
    return mapping, result


def mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


@pytest.mark.parametrize("name", MODELS)
def test_every_score_is_recomputable_from_the_saved_confusion_matrix(run, name):
    model = read_json(run.folder / "report.json")["models"][name]
    table = pd.read_csv(run.folder / model["confusion"], index_col="truth")
    assert table.shape == (21, 16 + MODELS[name])
    assert list(table.index) == list(model["per_class"])
    published = "hungarian" if MODELS[name] == 5 else "argmax_iou"
    cases = [(model, published)]
    for rule in ("published", "argmax_iou", "majority", "hungarian") if MODELS[name] else ():
        if rule != "hungarian" or MODELS[name] == 5:
            cases.append((model["protocols"][rule], published if rule == "published" else rule))
    for scores, rule in cases:
        mapping, iou = recompute(table.to_numpy(), MODELS[name], rule)
        if rule == "hungarian":  # several permutations may be equally good: take the reported one, which must be as good
            names = list(model["per_class"])
            reported = [names.index(c) - 16 for c in scores["matching"]["cluster_to_class"].values()]
            assert sorted(reported) == sorted(mapping)
            if reported != mapping:
                continue
        assert list(scores["per_class"].values()) == pytest.approx(iou)
        novel, base = mean(iou[16:]), mean(iou[1:16])
        assert scores["background_iou"] == pytest.approx(iou[0])
        assert scores["base_miou"] == pytest.approx(base)
        assert scores["all_miou"] == pytest.approx(mean(iou))
        assert scores["novel_miou"] == pytest.approx(novel)
        if novel is not None and novel + base > 0:
            assert scores["harmonic_mean"] == pytest.approx(2 * novel * base / (novel + base))


def test_confusion_matrices_count_every_labelled_pixel_of_the_validation_set(run):
    truths = np.stack([run.truth(i) for i in run.data.val_ids if run.truth(i).shape == (48, 64)])
    assert truths.size  # the fake data has landscape and portrait images
    model = read_json(run.folder / "report.json")["models"]["eums"]
    confusion = pd.read_csv(run.folder / model["confusion"], index_col="truth").to_numpy()
    expected = np.zeros(21, int)
    for image_id in run.data.val_ids:
        truth = run.truth(image_id)
        rows, columns = (np.arange(64) * n // 64 for n in truth.shape)
        resized = truth[np.ix_(rows, columns)]
        expected += np.bincount(resized[resized != 255], minlength=21)
    np.testing.assert_array_equal(confusion.sum(1), expected)


def test_images_are_counted_as_the_files_say(run):
    report = read_json(run.folder / "report.json")["images"]
    novel = [i for i in run.data.train_ids if np.isin(run.data.mask(i), [1, 2, 3, 4, 5]).any()]
    without = [i for i in novel if not (run.data.root / "saliency_supervised_model" / f"{i}.png").is_file()]
    small = []
    for i in set(novel) - set(without):
        area = read_labels(run.folder / "clustering" / "novel_map" / f"{i}.png").astype(bool)
        limits = run.recipe.clustering
        if area.sum() <= limits.min_area_pixels or area.mean() <= limits.min_area_fraction:
            small.append(i)
    assert report == {
        "base": 48 - len(novel), "novel": len(novel), "novel_used": len(novel) - len(without) - len(small),
        "no_saliency": len(without), "below_min_area": len(small), "val": 8,
    }  # fmt: skip
    assert without


def test_pseudo_labels_are_the_fusion_of_what_lies_beside_them(run):
    folder = run.folder / "clustering"
    images = pd.read_csv(folder / "images.csv", index_col="id")
    used = images[images["status"] == "used"]
    for k in (5, 10):
        assert set(used[f"cluster_{k}"].astype(int)) == set(range(1, k + 1))
        for image_id, cluster in used[f"cluster_{k}"].astype(int).items():
            base, novel = (read_labels(folder / part / f"{image_id}.png") for part in ("base_pred", "novel_map"))
            pseudo = read_labels(folder / f"pseudo_labels_{k}" / f"{image_id}.png")
            assert pseudo.shape == run.data.mask(image_id).shape
            salient = run.data.saliency(image_id)
            if run.recipe.clustering.mask_size == "network":
                salient = resize_labels(resize_labels(salient, 64), salient.shape)
            np.testing.assert_array_equal(novel, salient & (base == 0))
            kept = pseudo != 255
            np.testing.assert_array_equal(pseudo[kept], np.where(base > 0, base, novel * (15 + cluster))[kept])
            assert not (novel.astype(bool) & ~kept).any()
    prototypes = load_file(folder / "prototypes.safetensors")["prototypes"]
    assert len(prototypes) == len(used)
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(len(used)))


def test_correct_share_and_purity_from_the_files(run):
    report = read_json(run.folder / "report.json")["pseudo_labels"]
    ranking = pd.read_csv(run.folder / "entropy_ranking" / "ranking.csv", index_col="id")

    def pixels(ids: list[str], k: int) -> list[tuple[str, int, int]]:
        """(image, cluster, truth) of each pseudo-novel pixel with a truth."""
        found = []
        for i in ids:
            pseudo = read_labels(run.folder / "clustering" / f"pseudo_labels_{k}" / f"{i}.png")
            where = (pseudo > 15) & (pseudo != 255) & (run.truth(i) != 255)
            found += [(i, int(p), int(t)) for p, t in zip(pseudo[where], run.truth(i)[where], strict=True)]
        return found

    used = sorted(ranking.index)
    lists = {"basic": (used, 5), "basic_oc": (used, 10)}
    lists |= {split: (ranking.index[ranking["split"] == split].tolist(), 10) for split in ("clean", "unclean")}
    for name, (ids, k) in lists.items():
        everything = pd.DataFrame(pixels(used, k), columns=["image", "cluster", "truth"])
        of_novel = everything[everything["truth"] > 15]
        majority = of_novel.groupby("cluster")["truth"].agg(lambda t: t.value_counts().sort_index().idxmax())
        here = everything[everything["image"].isin(ids)]
        right = here["truth"] == here["cluster"].map(majority)
        assert report[name]["images"] == len(ids)
        assert report[name]["correct_share"] == pytest.approx(right.mean())
        of_image = here[here["truth"] > 15].groupby("image").agg(
            cluster=("cluster", "first"), truth=("truth", lambda t: t.value_counts().sort_index().idxmax())
        )  # fmt: skip
        most = of_image.groupby("cluster")["truth"].agg(lambda t: t.value_counts().max()).sum()
        assert report[name]["purity"] == pytest.approx(most / len(of_image))


def test_the_ranking_is_ascending_and_complete(run):
    ranking = pd.read_csv(run.folder / "entropy_ranking" / "ranking.csv", index_col="id")
    assert (np.diff(ranking["entropy"]) >= 0).all()
    images = pd.read_csv(run.folder / "clustering" / "images.csv", index_col="id")
    assert sorted(ranking.index) == sorted(images.index[images["status"] == "used"])
    if run.recipe.name == "paper":
        assert ranking["split"].tolist() == ["clean"] * (n := int(len(ranking) * 0.67)) + ["unclean"] * (len(ranking) - n)


def test_paper_keeps_the_published_values_that_were_not_overridden_in_the_report(finished):
    config = read_json(finished["paper"] / "report.json")["config"]
    overridden = {override.partition("=")[0] for override in TINY_PAPER}
    for key, value in flatten(load_recipe("paper")).items():
        section, field = key.split(".")
        if key not in overridden:
            assert config[section][field] == (list(value) if isinstance(value, tuple) else value)
    assert config["eums"]["teacher_momentum"] == 0.99


def test_a_report_of_other_settings_is_written_anew(voc, finished, tmp_path):
    out = Path(shutil.copytree(finished["laptop"], tmp_path / "run"))
    before = opened(voc, out).report()
    assert opened(voc, out, "laptop", "evaluation.size=32").report()["config"]["evaluation"]["size"] == 32
    assert before["config"]["evaluation"]["size"] != 32
    assert read_json(out / "report.json")["config"]["evaluation"]["size"] == 32


def test_paper_hands_on_the_best_epoch_and_reports_it_beside_the_last(voc, finished):
    run = opened(voc, finished["paper"], "paper")
    report = read_json(run.folder / "report.json")
    for name, model in report["models"].items():
        assert run.weights(name).name == f"{name}_best.safetensors"
        assert run.weights(name).is_file()
        best, table = model["protocols"]["best_epoch"], pd.read_csv(run.weights(name).parent / f"{name}_history.csv")
        saved = pd.read_csv(run.folder / best["confusion"], index_col="truth").to_numpy()
        _, iou = recompute(saved, MODELS[name], "hungarian" if name == "basic" else "argmax_iou")
        if name != "base":  # whose epochs are scored on some of the images: tests/faithful
            assert table["val_miou"].max() == pytest.approx(best["novel_miou"])
            assert best["novel_miou"] == pytest.approx(mean(iou[16:]))


def test_laptop_never_looks_at_validation_to_choose(finished):
    assert not list(finished["laptop"].rglob("*best*"))
    for history in finished["laptop"].rglob("*_history.csv"):
        assert "val_miou" not in pd.read_csv(history)


# --- skip, resume, reproduce ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["laptop", "paper"])
def test_a_second_run_skips_every_stage(voc, finished, tmp_path, recipe):
    out = Path(shutil.copytree(finished[recipe], tmp_path / "run"))
    before = files(out)
    run = opened(voc, out, recipe)
    run.write_report()
    assert run.skipped == dict.fromkeys(STAGES, True)
    after = files(out)
    assert after.pop("report.json") != before.pop("report.json")
    assert after == before
    first, second = read_json(finished[recipe] / "report.json"), read_json(out / "report.json")
    assert all(stage["skipped"] for stage in second["stages"].values())
    for report in (first, second):
        for stage in report["stages"].values():
            del stage["skipped"]
    assert first == second


ALL = tuple(STAGES)
RERUN = {
    "eums.lr=0.05": ("eums", "evaluation"),
    "eums.inference=student": ("eums", "evaluation"),
    "entropy_ranking.clean_share=0.5": ("entropy_ranking", "eums", "evaluation"),
    "basic_framework.lr=0.05": ("basic_framework", "entropy_ranking", "eums", "evaluation"),
    "clustering.n_init=3": ALL[1:],
    "base_training.lr=0.05": ALL,
    "model.head_channels=8": ALL,
    "data.flip=0.4": ALL,
    "evaluation.size=32": ("evaluation",),
    "data.workers=2": (),
    "compute.inference_batch=3": (),
    "compute.channels_last=false": (),
}


@pytest.mark.parametrize("override", RERUN)
def test_a_changed_field_makes_its_stage_and_those_after_it_stale(voc, finished, override):
    run = opened(voc, finished["laptop"], "laptop", override)
    assert tuple(stage for stage in STAGES if not run.is_current(stage)) == RERUN[override]


def test_another_seed_fold_or_data_set_makes_everything_stale(voc, finished, tmp_path):
    make_fake_voc(tmp_path / "voc", train=48, val=8)  # the same pixels, written at another time
    for run in (
        opened(voc, finished["laptop"], seed=1),
        opened(voc, finished["laptop"], fold=1),
        opened(tmp_path / "voc", finished["laptop"]),
    ):
        assert not any(run.is_current(stage) for stage in STAGES)


def test_another_weights_file_under_the_same_name_makes_everything_stale(voc, tmp_path):
    path = tmp_path / "weights.pth"
    keys = []
    for text in ("one", "another"):
        path.write_text(text)
        keys.append(opened(voc, tmp_path / "run", "paper", f"model.weights={path}").key("base_training"))
    assert keys[0] != keys[1]


def test_a_changed_field_of_eums_runs_eums_and_evaluation_only(voc, laptop):
    before = files(laptop)
    run = opened(voc, laptop, "laptop", "eums.lr=0.05")
    run.write_report()
    assert run.skipped == {stage: stage not in ("eums", "evaluation") for stage in STAGES}
    after = files(laptop)
    for stage in STAGES:
        changed = any(before[name] != after[name] for name in before if name.startswith(f"{stage}/") and name in after)
        assert changed == (stage in ("eums", "evaluation"))
    stages = read_json(laptop / "report.json")["stages"]
    assert {name: stage["skipped"] for name, stage in stages.items()} == run.skipped


def comparable(report: dict) -> dict:
    return {k: v for k, v in report.items() if k != "stages"}


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(voc, finished, tmp_path):
    torch.manual_seed(12345)
    first = read_json(finished["laptop"] / "report.json")
    again = read_json(opened(voc, tmp_path / "again").write_report())
    assert comparable(again) == comparable(first)
    other = read_json(opened(voc, tmp_path / "other", seed=7).write_report())
    assert other["models"] != first["models"]


def test_the_same_seed_gives_the_same_weights_of_the_paper_recipe(voc, finished, tmp_path):
    torch.manual_seed(12345)
    folder = opened(voc, tmp_path / "again", "paper").ensure("base_training")
    for name in ("base", "base_best"):
        one, two = load_file(finished["paper"] / "base_training" / f"{name}.safetensors"), load_file(folder / f"{name}.safetensors")
        assert all(torch.equal(one[key], two[key]) for key in one)


class Interruption(Exception):
    pass


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_an_interrupted_stage_is_not_there_and_is_resumed(voc, laptop, finished, monkeypatch, calls):
    """The folder of the changed stage is the old one until the new one is whole; earlier stages are untouched."""
    before = files(laptop)
    real, count = eums.hard_pseudo_labels, [0]

    def interrupted(*arguments):
        if count[0] == calls:
            raise Interruption
        count[0] += 1
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(eums, "hard_pseudo_labels", interrupted)
        with pytest.raises(Interruption):
            opened(voc, laptop, "laptop", "eums.lr=0.05").write_report()
    assert {name: time for name, time in files(laptop).items() if not name.startswith(".")} == before
    assert opened(voc, laptop).is_current("eums")  # what is there is still what it says it is

    run = opened(voc, laptop, "laptop", "eums.lr=0.05")
    run.write_report()
    assert run.skipped == {stage: stage not in ("eums", "evaluation") for stage in STAGES}
    assert not [p for p in laptop.rglob(".*") if p.name != ".ipynb_checkpoints"]


def test_a_full_disk_is_a_clear_error_and_leaves_earlier_stages(voc, laptop, monkeypatch):
    before = files(laptop)

    def full(path, labels):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(clustering, "write_labels", full)
        with pytest.raises(RunError, match=r"stage clustering cannot be written to .*: No space left on device.*what is finished is kept"):
            opened(voc, laptop, "laptop", "clustering.n_init=3").write_report()
    assert {name: time for name, time in files(laptop).items() if not name.startswith(".")} == before
    assert opened(voc, laptop, "laptop", "clustering.n_init=3").ensure("clustering").is_dir()


# --- damage -----------------------------------------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    """Flip a bit in the middle of a file, or cut its tail."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if how == "flipped" else content[: len(content) // 2])


DAMAGE = {
    "base_training/base.safetensors": "flipped",
    "clustering/images.csv": "cut",
    "basic_framework/basic_oc.safetensors": "flipped",
    "entropy_ranking/ranking.csv": "cut",
    "eums/eums_teacher.safetensors": "flipped",
    "evaluation/manifest.json": "cut",
}


def test_what_is_damaged_on_the_disk_is_made_again_and_a_line_says_so(voc, finished, laptop, capsys):
    """One file of each stage; then the smallest damage to other kinds of files: all ends as it was."""
    pseudo_label = next((laptop / "clustering" / "pseudo_labels_10").iterdir()).relative_to(laptop).as_posix()
    rounds = DAMAGE, {pseudo_label: "flipped", "eums/checksums.sha256": "cut", "evaluation/manifest.json": "flipped"}
    for files in rounds:
        for name, how in files.items():
            damage(laptop / name, how)
        run = opened(voc, laptop)
        run.write_report()
        said = capsys.readouterr().err
        for name in files:
            assert f"{laptop / name}: damaged, not what was written there. {name.partition('/')[0]} is made again.\n" in said
        assert {stage for stage, skipped in run.skipped.items() if not skipped} == {name.partition("/")[0] for name in files}
        for path in (path for path in finished["laptop"].rglob("*") if path.is_file()):
            if path.name not in ("manifest.json", "report.json", "checksums.sha256"):
                assert (laptop / path.relative_to(finished["laptop"])).read_bytes() == path.read_bytes()
        assert comparable(read_json(laptop / "report.json")) == comparable(read_json(finished["laptop"] / "report.json"))


def test_a_run_of_an_earlier_version_has_no_checksums_and_is_current(voc, laptop):
    for path in laptop.rglob("checksums.sha256"):
        path.unlink()
    run = opened(voc, laptop)
    run.write_report()
    assert run.skipped == dict.fromkeys(STAGES, True)


def test_who_looks_at_a_run_is_told_of_damage(voc, laptop):
    path = laptop / "clustering" / "images.csv"
    damage(path, "cut")
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} is damaged: .*Run `ncdss run` with the settings of this run again"):
        reopen(laptop, str(voc))


# --- bad input --------------------------------------------------------------------------------------------------------------------------


def refused(run: Run, stage: str, match: str) -> str:
    before = files(run.folder) if run.folder.exists() else {}
    with pytest.raises(InputError, match=match) as caught:
        run.ensure(stage)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    if run.folder.exists():
        kept = {name: time for name, time in files(run.folder).items() if name in before}
        assert kept == before  # earlier artefacts are intact
        assert not (run.folder / stage).exists() or any(name.startswith(f"{stage}/") for name in before)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "match"),
    [
        (
            "clustering.over_clustering=5",
            "more clusters than images: K = 25, but only 15 of 16 .*1 without saliency.*clustering.over_clustering",
        ),
        ("clustering.min_area_fraction=0.99", "only 0 of 16 novel images are left .*15 below the area limit"),
        ("clustering.num_clusters=240", "K = 240 clusters: with the background and 15 base classes that makes 256 labels"),
        ("entropy_ranking.clean_share=0.05", "eums: the list 'clean' is empty in epoch 0"),
        ("eums.reassign_share=0.05", "eums: the list 'clean' is empty in epoch 1"),
        ("entropy_ranking.enabled=false", "eums: the list 'unclean' is empty in epoch 0"),
        ("model.stages=[5]", "has the stages 0 to 4"),
    ],
)
def test_what_cannot_end_well_is_refused_before_it_begins(voc, tmp_path, override, match):
    with pytest.raises(InputError, match=match):
        opened(voc, tmp_path / "run", "laptop", override)
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_told_after_base_training_where_only_that_can_tell(voc, laptop):
    """The base model takes pixels away: with this limit the maps alone would do."""
    run = opened(voc, laptop, "laptop", "clustering.min_area_fraction=0.13", "clustering.base_confidence=0")
    refused(run, "clustering", "more clusters than images: K = 10")


def test_a_fold_without_a_novel_image(tmp_path):
    make_fake_voc(tmp_path / "voc", train=3, val=2)
    with pytest.raises(InputError, match=r"no novel image: none of the 3 training masks.*pottedplant, sheep, sofa, train, tvmonitor"):
        opened(tmp_path / "voc", tmp_path / "run", fold=3)
    assert not (tmp_path / "run").exists()


def test_an_unknown_fold_seed_or_stage(voc, tmp_path):
    with pytest.raises(InputError, match=r"fold 7 does not exist in pascal5i: choose one of \[0, 1, 2, 3, 4\]"):
        opened(voc, tmp_path / "run", fold=7)
    with pytest.raises(InputError, match="--seed -1"):
        opened(voc, tmp_path / "run", seed=-1)
    with pytest.raises(InputError, match="unknown stage 'eum': did you mean 'eums'"):
        opened(voc, tmp_path / "run").ensure("eum")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_configuration(voc, laptop):
    path = laptop / "base_training" / "base.safetensors"
    save_file({**load_file(path), "head.7.bias": torch.zeros(7)}, path)
    with pytest.raises(InputError, match=r"of another configuration: head.7.bias has shape \(7,\) instead of \(16,\)") as caught:
        load_model(opened(voc, laptop), "base")
    assert "(1 such tensors)" in str(caught.value)


def test_a_checkpoint_with_other_tensors(voc, laptop):
    path = laptop / "base_training" / "base.safetensors"
    weights = load_file(path)
    save_file({f"other.{name}": tensor for name, tensor in weights.items()}, path)
    with pytest.raises(InputError, match="another configuration"):
        load_model(opened(voc, laptop), "base")


def test_a_damaged_and_a_missing_checkpoint(voc, laptop):
    path = laptop / "base_training" / "base.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="base.safetensors cannot be read"):
        load_model(opened(voc, laptop), "base")
    path.unlink()
    with pytest.raises(InputError, match="there is no checkpoint .*base.safetensors"):
        load_model(opened(voc, laptop), "base")


@pytest.mark.parametrize("kind", ["images", "saliency_supervised_model"])
def test_a_truncated_file_is_found_when_the_data_set_is_opened(tmp_path, kind):
    """Every file is decoded then, once; a file that is damaged later is found when it is read."""
    root = tmp_path / "voc"
    make_fake_voc(root, train=48, val=2)
    run = opened(root, tmp_path / "run", "paper")
    damaged = root / kind / (run.splits.novel[2] + (".jpg" if kind == "images" else ".png"))
    damaged.write_bytes(damaged.read_bytes()[: int(damaged.stat().st_size * 0.8)])
    with pytest.raises(InputError, match=f"{damaged.name} cannot be read"):
        opened(root, tmp_path / "run", "paper")
    refused(run, "clustering", f"{damaged.name} cannot be read")
    assert not (tmp_path / "run" / "clustering").exists()


def test_a_manifest_tells_what_a_stage_was_made_from(finished):
    contents = json.loads((finished["laptop"] / "eums" / "manifest.json").read_text())
    assert {"key", "seconds", "peak_memory_bytes", "settings", "numbers"} <= set(contents)
    assert contents["numbers"]["epochs"] == 3
