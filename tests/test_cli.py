"""The command line: help, exit status, one clear line for each thing that is wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncdss_lib.cli import main
from ncdss_lib.method import base_training, clustering
from ncdss_lib.recipes import flatten, load_recipe
from ncdss_lib.system.folders import read_json
from tests.conftest import REPO, TINY_LAPTOP
from tests.data.fake_voc import make_fake_voc

COMMON = {
    "--dataset": "toyscenes",
    "--data-root": "$NCDSS_DATA_ROOT",
    "--recipe": "laptop",
    "--out": "runs/DATASET/foldF/RECIPE/seedS",
    "--set": "repeatable",
    "--device": "auto",
    "--debug": "traceback",
}
OPTIONS = {
    "run": {**COMMON, "--fold": "default: 0", "--seed": "default: 0"},
    "reproduce": {**COMMON, "--folds": "default: [0]", "--seeds": "default: [0]", "--submit": "slurm", "--submit-option": "timeout_min"},
    "prepare pascal5i": {"--data-root": "$NCDSS_DATA_ROOT", "--sources": "archives", "--download": "missing", "--debug": "traceback"},
    "prepare coco20i": {"--data-root": "$NCDSS_DATA_ROOT", "--sources": "archives", "--masks": "default: ['published', 'complete']"},
    "prepare saliency": {
        "--data-root": "$NCDSS_DATA_ROOT", "--images": "images", "--out": "saliency_supervised_model", "--model": "default: u2netp",
        "--maps": "ready maps", "--threshold": "default: 0.5", "--min-area": "default: 0.01",
    },
    "evaluate": {
        "--checkpoint": ".safetensors", "--dataset": "toyscenes", "--fold": "default: 0", "--network": "default: student",
        "--clusters": "expected", "--out": "JSON", "--set": "repeatable", "--device": "auto",
    },
    "predict": {"--checkpoint": ".safetensors", "--images": "a folder of pictures", "--out": "new folder", "--dataset": "class names"},
    "report": {"--debug": "traceback", "--protocol": "published", "--export": "into one file"},
    "cache": {"--debug": "traceback", "--clear": "KEY"},
}  # fmt: skip


def tiny(voc: Path, out: Path, *more: str) -> list[str]:
    sets = [part for override in TINY_LAPTOP for part in ("--set", override)]
    return ["run", "--dataset", "pascal5i", "--data-root", str(voc), "--out", str(out), "--device", "cpu", *sets, *more]


# --- help -------------------------------------------------------------------------------------------------------------------------------


def help_of(capsys, *verb: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_explains_every_option_with_its_default(capsys, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "200")
    text = help_of(capsys, *verb.split())
    entries = {line.split()[0].rstrip(","): line for line in text.splitlines() if line.strip().startswith("--")}
    for option, default in OPTIONS[verb].items():
        entry = text[text.index(entries[option]) :].split("\n  --")[0]
        assert default in entry, option
        assert len(entry.split()) > 3, option


def test_help_lists_the_verbs(capsys):
    text = help_of(capsys)
    for verb in OPTIONS:
        assert f"\n    {verb.split()[0]}" in text


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("ncdss 0.")


def test_show_recipe_prints_every_field(capsys):
    assert main(["run", "--show-recipe", "--set", "eums.lr=0.25"]) == 0
    text = capsys.readouterr().out
    for key in flatten(load_recipe("laptop")):
        assert f"  {key} = " in text
    assert "lr = 0.25" in text


def test_help_and_wrong_options_do_not_load_torch():
    code = "import sys; from ncdss_lib.cli import main; main(['run', '--flod', '1']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("ncdss: unknown option '--flod': did you mean '--fold'?")


# --- wrong input ------------------------------------------------------------------------------------------------------------------------


def fails(capsys, status: int, *arguments: str) -> str:
    """The one line that a failing command leaves."""
    assert main(list(arguments)) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("ncdss: ")]
    assert len(lines) == 1
    assert captured.err.rstrip("\n").endswith(lines[0])  # nothing after it
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


WRONG = {
    "unknown data set": (["run", "--dataset", "toyscene"], ("unknown data set 'toyscene'", "did you mean 'toyscenes'?")),
    "unknown recipe": (["run", "--recipe", "labtop"], ("unknown recipe 'labtop'", "did you mean 'laptop'?")),
    "unknown field": (["run", "--set", "eums.epoch=1"], ("unknown field 'epoch' of eums", "did you mean 'epochs'?")),
    "unknown stage": (["run", "--set", "clusterin.n_init=1"], ("unknown stage 'clusterin'", "did you mean 'clustering'?")),
    "wrong value": (["run", "--set", "eums.epochs=many"], ("eums.epochs='many'", "valid integer")),
    "no override": (["run", "--set", "epochs"], ("not of the form stage.field=value",)),
    "unknown option": (["run", "--sed", "1"], ("--sed", "--se")),
    "unknown verb": (["rum"], ("rum", "run")),
    "no verb": ([], ("VERB",)),
    "fold that is no number": (["run", "--fold", "one"], ("--fold", "'one'")),
    "unknown fold": (["run", "--fold", "9"], ("fold 9 does not exist in toyscenes", "[0, 1, 2, 3]")),
    "negative seed": (["run", "--seed", "-1"], ("--seed -1",)),
    "no data folder": (["run", "--dataset", "pascal5i"], ("--data-root", "$NCDSS_DATA_ROOT")),
    "missing folder": (["run", "--dataset", "pascal5i", "--data-root", "absent/voc"], ("absent/voc is not a folder", "VOCSegmentation")),
    "no report": (["report", "absent"], ("no report.json in absent",)),
    "grid with an unknown recipe": (["reproduce", "--recipe", "labtop"], ("unknown recipe 'labtop'",)),
    "grid with an unknown data set": (["reproduce", "--dataset", "toyscene"], ("unknown data set 'toyscene'",)),
    "grid with a wrong override": (["reproduce", "--set", "eums.epoch=1"], ("unknown field 'epoch'",)),
    "grid with an unknown fold": (["reproduce", "--folds", "0", "9"], ("fold 9 does not exist",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_status_2_and_writes_nothing(capsys, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, parts = WRONG[case]
    line = fails(capsys, 2, *arguments)
    for part in parts:
        assert part in line
    assert not list(tmp_path.rglob("report.json"))
    assert not (tmp_path / "runs" / "toyscenes").exists()


@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_a_device_that_is_not_there(capsys, voc, tmp_path, monkeypatch, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = fails(capsys, 2, *tiny(voc, tmp_path / "run"), "--device", device)
    assert "cpu" in line
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback_above_the_line(capsys):
    assert main(["run", "--recipe", "labtop", "--debug"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last)")
    assert error.splitlines()[-1].startswith("ncdss: unknown recipe 'labtop'")


def test_as_a_program_it_has_the_same_status(tmp_path):
    command = [sys.executable, "-m", "ncdss_lib", "run", "--recipe", "labtop"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("ncdss: unknown recipe")


# --- running ----------------------------------------------------------------------------------------------------------------------------


def test_run_writes_a_report_and_prints_the_tables_and_report_prints_them_again(capsys, voc, tmp_path):
    out = tmp_path / "run"
    assert main(tiny(voc, out, "--fold", "1", "--seed", "3")) == 0
    printed = capsys.readouterr().out
    assert f"Written: {out / 'report.json'}" in printed
    report = read_json(out / "report.json")
    assert (report["fold"], report["seed"], report["recipe"], report["device"]["type"]) == (1, 3, "laptop", "cpu")
    assert main(["report", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert table.strip() in printed
    assert f"{report['models']['eums']['novel_miou'] * 100:.1f}" in table
    assert "69.79" not in table  # the paper's value of another fold
    assert "60.11" in table
    assert main(["report", str(out / "report.json"), "--protocol", "majority"]) == 0
    assert "(majority vote)" in capsys.readouterr().out
    assert "unknown protocol 'best'" in fails(capsys, 2, "report", str(out), "--protocol", "best")


def test_without_out_the_run_folder_tells_data_set_fold_recipe_and_seed(capsys, voc, tmp_path, monkeypatch):
    monkeypatch.setenv("NCDSS_RUNS", str(tmp_path / "elsewhere"))
    arguments = tiny(voc, tmp_path)
    del arguments[arguments.index("--out") : arguments.index("--out") + 2]
    assert main([*arguments, "--seed", "4"]) == 0
    assert (tmp_path / "elsewhere" / "pascal5i" / "fold0" / "laptop" / "seed4" / "report.json").is_file()


def test_the_data_root_may_come_from_the_environment(capsys, voc, tmp_path, monkeypatch):
    monkeypatch.setenv("NCDSS_DATA_ROOT", str(voc))
    arguments = tiny(voc, tmp_path / "run")
    del arguments[arguments.index("--data-root") : arguments.index("--data-root") + 2]
    assert main(arguments) == 0


def test_more_clusters_than_images_is_status_2(capsys, voc, tmp_path):
    line = fails(capsys, 2, *tiny(voc, tmp_path / "run", "--set", "clustering.over_clustering=9"))
    assert "more clusters than images: K = 45" in line
    assert not (tmp_path / "run").exists()  # it is known before any training


def test_a_full_disk_is_status_1(capsys, voc, tmp_path, monkeypatch):
    def full(path, labels):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(clustering, "write_labels", full)
    assert "No space left on device" in fails(capsys, 1, *tiny(voc, tmp_path / "run"))


def test_a_loss_that_is_not_finite_is_status_1(capsys, voc, tmp_path, monkeypatch):
    monkeypatch.setattr(base_training, "pixel_cross_entropy", lambda logits, target: logits.sum() * float("nan"))
    line = fails(capsys, 1, *tiny(voc, tmp_path / "run"))
    assert "base: a loss is not finite" in line
    assert "base_training.lr" in line


def test_damaged_images_are_status_2(capsys, tmp_path):
    make_fake_voc(tmp_path / "voc", train=8, val=2)
    image = tmp_path / "voc" / "images" / "2007_000002.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    assert f"{image} cannot be read" in fails(capsys, 2, *tiny(tmp_path / "voc", tmp_path / "run"))


def test_something_unexpected_is_one_line_too(capsys, monkeypatch):
    monkeypatch.setattr("ncdss_lib.recipes.load_recipe", lambda *arguments: 1 / 0)
    assert fails(capsys, 1, "run", "--show-recipe") == "ncdss: unexpected ZeroDivisionError: division by zero (--debug shows where)"


def test_interrupting_is_status_130_and_says_how_to_go_on(capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ncdss_lib.recipes.load_recipe", interrupt)
    assert "run the same command again" in fails(capsys, 130, "run", "--show-recipe")


# --- the other verbs, as a user calls them ------------------------------------------------------------------------------------------------


def test_prepare_verifies_a_folder_and_prints_its_counts_beside_the_published_ones(capsys, voc):
    assert main(["prepare", "pascal5i", "--data-root", str(voc)]) == 0
    printed = capsys.readouterr().out
    assert "10,582" in printed
    assert "differs" in printed
    assert "needs the data set's folder" in fails(capsys, 2, "prepare", "coco20i")
    assert "choose from 'pascal5i', 'coco20i', 'saliency'" in fails(capsys, 2, "prepare", "salience", "--data-root", str(voc))


def test_prepare_takes_the_folder_of_the_environment(capsys, voc, monkeypatch):
    monkeypatch.setenv("NCDSS_DATA_ROOT", str(voc))
    assert main(["prepare", "pascal5i"]) == 0
    assert "10,582" in capsys.readouterr().out


def test_ready_saliency_maps_are_taken_over(capsys, voc, tmp_path):
    out = tmp_path / "maps"
    assert main(["prepare", "saliency", "--data-root", str(voc), "--maps", str(voc / "saliency_supervised_model"), "--out", str(out)]) == 0
    assert "ready maps" in capsys.readouterr().out
    assert list(out.glob("*.png"))


def test_evaluate_prints_every_protocol_and_writes_what_the_run_itself_reported(capsys, voc, finished, tmp_path):
    checkpoint, scores = finished["paper"] / "eums" / "eums.safetensors", tmp_path / "scores.json"
    arguments = ["evaluate", "--checkpoint", str(checkpoint), "--dataset", "pascal5i", "--data-root", str(voc), "--device", "cpu"]
    assert main([*arguments, "--out", str(scores)]) == 0
    printed = capsys.readouterr().out
    for words in ("published matching", "one-to-one", "majority vote", "matched on the other half", "at original size", "bottle (novel)"):
        assert words in printed
    reported = read_json(finished["paper"] / "report.json")["models"]["eums"]
    assert read_json(scores)["per_class"] == reported["per_class"]
    assert "K" in fails(capsys, 2, *arguments, "--clusters", "5")


def test_predict_writes_masks_overlays_and_a_legend(capsys, voc, finished, tmp_path):
    arguments = ["predict", "--checkpoint", str(finished["laptop"] / "eums" / "eums_teacher.safetensors"), "--images", str(voc / "images")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    names = {path.stem for path in (voc / "images").iterdir()}
    assert {path.stem for path in (tmp_path / "out" / "masks").iterdir()} == names
    assert {path.stem for path in (tmp_path / "out" / "overlays").iterdir()} == names
    assert (tmp_path / "out" / "legend.png").is_file()
    assert f"{len(names)} pictures" in capsys.readouterr().out
    assert "not an empty folder" in fails(capsys, 2, *arguments, "--out", str(tmp_path / "out"))


def test_submission_is_refused_before_anything_runs(capsys):
    assert "key=value" in fails(capsys, 2, "reproduce", "--submit", "local", "--submit-option", "timeout")
    assert "slurm" in fails(capsys, 2, "reproduce", "--submit", "slum")
