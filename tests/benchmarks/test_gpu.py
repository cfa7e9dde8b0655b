"""The kit that measures a card: every part runs in small on the CPU, and says what it could not do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import TINY, Kit, __main__, machine, pack, runs, steps
from ncdss_lib.data.pascal5i import Pascal5i


@pytest.fixture(scope="module")
def kit(voc: Path) -> Kit:
    return Kit("cpu", TINY, Pascal5i(voc, None))


def run_kit(monkeypatch, out: Path, *options: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(out), "--device", "cpu", "--tiny", *options])
    __main__.main()
    return json.loads((out / "gpu.json").read_text())


def test_the_tiny_kit_measures_machine_steps_loading_and_inference(monkeypatch, tmp_path, voc, capsys):
    parts = ["machine", "steps", "loading", "inference"]
    found = run_kit(monkeypatch, tmp_path, "--data-root", str(voc), "--parts", *parts)
    assert [found["parts"][part]["status"] for part in parts] == ["done"] * 4
    rows = found["parts"]["steps"]["rows"]
    assert {row["training"] for row in rows} == set(steps.LISTS)
    assert not [row for row in rows if "error" in row]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    assert all(row["value"] > 0 for row in found["parts"]["machine"]["rows"])
    printed = capsys.readouterr().out
    assert all(f"{part}: done" in printed for part in parts)
    assert str(voc) not in json.dumps(found)


def test_the_operations_of_a_step_are_counted(kit):
    """EUMS: three forwards and backwards of two images, one forward of the teacher; base training: one of each."""
    base, eums = (steps.Bench(kit, training).operations() for training in ("base_training", "eums"))
    assert 3 < eums / base < 3.6


def test_joined_forwards_are_the_parts_of_one(kit):
    images = [torch.rand(n, 3, 4, 4) for n in (2, 1, 3)]
    asked = []

    class Network(torch.nn.Module):
        def forward(self, x):
            asked.append(len(x))
            return x * 2

    joined = steps.Joined(Network(), images)
    for batch in images:
        torch.testing.assert_close(joined(batch), batch * 2)
    assert asked == [6]


@pytest.mark.slow
def test_the_tiny_kit_runs_kills_and_resumes(monkeypatch, tmp_path, voc):
    found = run_kit(monkeypatch, tmp_path, "--data-root", str(voc), "--minutes", "20", "--parts", "runs", "checks", "laptop")
    rows = {row["what"]: row for row in found["parts"]["checks"]["rows"]}
    killed = rows["killed in EUMS and resumed, difference of weights"]
    assert killed["killed_in_eums"]
    assert killed["value"] == 0.0  # one thread of a CPU rounds alike
    assert rows["base training on the device and on the CPU, difference of weights"]["within"]
    assert rows["torchrun, gloo"]["value"] == 1
    assert found["parts"]["laptop"]["status"] == "done"


def test_a_part_that_fails_is_told_and_the_others_go_on(monkeypatch, tmp_path, voc, capsys):
    def broken(kit):
        yield {"what": "first", "value": 1.0}
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(__main__.PARTS, "loading", broken)
    with pytest.raises(SystemExit, match="failed: loading"):
        run_kit(monkeypatch, tmp_path, "--data-root", str(voc), "--parts", "loading", "machine")
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert found["loading"]["status"] == "failed: RuntimeError: no such kernel"
    assert found["loading"]["rows"] == [{"what": "first", "value": 1.0}]
    assert found["machine"]["status"] == "done"


def test_what_there_is_no_time_for_is_written_as_not_run(monkeypatch, tmp_path, voc):
    found = run_kit(monkeypatch, tmp_path, "--data-root", str(voc), "--minutes", "0", "--parts", "machine", "steps")
    assert {part["status"] for part in found["parts"].values()} == {"not run: out of time"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_nothing_is_run_and_the_tiny_form_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 2
    assert "--device cpu --tiny" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_machine_is_described_without_path_or_host():
    found = machine.describe("cpu")
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert "/" not in json.dumps({name: value for name, value in found.items() if name != "cpu"})


def test_the_tolerance_of_two_runs(tmp_path):
    from safetensors.torch import save_file

    for name, noise in (("one", 0.0), ("near", 1e-5), ("far", 1e-1)):
        (tmp_path / name / "base_training").mkdir(parents=True)
        save_file({"w": torch.ones(10) + noise}, tmp_path / name / "base_training" / "base.safetensors")
    near, far = (runs._difference(tmp_path / "one", tmp_path / other, ["base_training/base"]) for other in ("near", "far"))
    assert near["within"]
    assert not far["within"]
    assert far["value"] == pytest.approx(0.1, rel=1e-3)


# --- the pack ---------------------------------------------------------------------------------------------------------------------------


def test_a_pack_holds_code_and_enlarged_photos_and_runs_by_itself(tmp_path, voc, monkeypatch, capsys):
    pack.main(["--data-root", str(voc), "--out", str(tmp_path / "pack"), "--train", "40", "--val", "4", "--no-wheels"])
    assert "MiB  in all, of at most 60" in capsys.readouterr().out
    packed = Pascal5i(tmp_path / "pack" / "photos", None)
    assert (len(packed.train_ids), len(packed.val_ids)) == (40, 4)
    image_id = packed.train_ids[0]
    assert max(packed.image(image_id).shape) == 500
    assert packed.mask(image_id).shape == packed.image(image_id).shape[:2]
    original = Pascal5i(voc, None)
    for i in packed.train_ids:
        assert set(np.unique(packed.mask(i))) == set(np.unique(original.mask(i)))
        assert (packed.saliency(i) is None) == (original.saliency(i) is None)
        if (salient := original.saliency(i)) is not None:
            assert packed.saliency(i).mean() == pytest.approx(salient.mean(), abs=0.02)
    # The packed code alone, without this repository.
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path / "out"), "--device", "cpu", "--tiny", "--parts", "machine"]
    code = tmp_path / "pack" / "code"
    done = subprocess.run(command, cwd=code, env={"PYTHONPATH": str(code), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(code.rglob("__pycache__")) or (tmp_path / "out" / "gpu.json").is_file()


def test_a_pack_never_overwrites(tmp_path, voc, capsys):
    with pytest.raises(SystemExit):
        pack.main(["--data-root", str(voc), "--out", str(tmp_path)])
    assert "exists. Name a new folder" in capsys.readouterr().err


def test_a_pack_that_is_too_large_is_refused(tmp_path, voc, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT", 1000)
    with pytest.raises(SystemExit, match="larger than 0 MiB: pack fewer photos"):
        pack.main(["--data-root", str(voc), "--out", str(tmp_path / "pack"), "--train", "2", "--val", "2", "--no-wheels"])


def test_the_script_of_a_pack_is_valid_bash(tmp_path):
    script = tmp_path / "run.sh"
    script.write_text(pack.RUN)
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
