"""Devices and precision, and two gloo processes that must do what one does."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ncdss_lib import runtime as runtime_module
from ncdss_lib.errors import InputError
from ncdss_lib.recipes import Compute
from ncdss_lib.runtime import Runtime
from ncdss_lib.store import read_json
from tests.conftest import REPO, TINY_LAPTOP
from tests.distributed_step import batches, network


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match="unknown device 'gpu': choose auto, cpu or cuda"):
        Runtime("gpu")


def test_cuda_without_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="PyTorch sees no CUDA device.*--device cpu"):
        Runtime("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_automatic_precision_is_bf16_only_where_the_processor_multiplies_it(monkeypatch, fast):
    monkeypatch.setattr(runtime_module, "_multiplies_bf16", lambda accelerator: fast)
    found = Runtime("cpu")
    assert found.precision == ("bf16" if fast else "fp32")
    with found.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if fast else torch.float32)
    assert Runtime("cpu", Compute(precision="fp32")).precision == "fp32"
    assert Runtime("cpu", Compute(precision="bf16")).precision == "bf16"


def test_bf16_on_a_cpu_is_automatic_only_with_its_instructions(monkeypatch):
    for supported in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported)
        assert runtime_module._multiplies_bf16("cpu") is (supported and torch.backends.mkldnn.is_available())


def test_one_process_alone():
    runtime = Runtime("cpu", Compute(precision="fp32"))
    assert runtime.is_main
    assert list(runtime.shard([1, 2, 3])) == runtime.gather([1, 2, 3]) == [1, 2, 3]
    assert runtime.sum(torch.tensor(3)).item() == 3
    assert {k: runtime.describe()[k] for k in ("type", "processes", "precision")} == {"type": "cpu", "processes": 1, "precision": "fp32"}
    assert runtime.describe()["name"]


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last):
    module = Runtime("cpu", Compute(channels_last=channels_last)).prepare(torch.nn.Conv2d(3, 4, 3))
    assert module.weight.is_contiguous(memory_format=torch.channels_last) is channels_last


# --- two processes ----------------------------------------------------------------------------------------------------------------------


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What the two processes of distributed_step.py found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(str(REPO / "tests" / "distributed_step.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_gradients_are_those_of_one_process_that_takes_the_shares_in_turn(both):
    """Batch-norm sees one share at a time; the loss is divided by all pixels that count, not by those of a share."""
    model = network().train()
    total = 0.0
    for x, y in batches():
        for rank in range(2):
            total = total + F.cross_entropy(model(x[rank::2]), y[rank::2], ignore_index=255, reduction="sum") / (y != 255).sum() / 2
    total.backward()
    for name, parameter in model.named_parameters():
        for rank in range(2):
            torch.testing.assert_close(both[rank][f"gradient {name}"], parameter.grad, rtol=1e-5, atol=1e-6)


def test_buffers_are_each_processs_own_until_they_are_averaged(both):
    for rank in range(2):
        model = copy.deepcopy(network()).train()
        for x, _ in batches():
            model(x[rank::2])
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(both[rank][f"before {name}"], buffer, rtol=1e-5, atol=1e-6)
    one, two = (both[rank]["before 1.running_mean"] for rank in range(2))
    assert not torch.allclose(one, two)
    for rank in range(2):
        for name in ("1.running_mean", "1.running_var"):
            torch.testing.assert_close(both[rank][f"after {name}"], (both[0][f"before {name}"] + both[1][f"before {name}"]) / 2)
        assert both[rank]["after 1.num_batches_tracked"].item() == 2


def test_lists_are_shared_out_gathered_and_summed(both):
    for rank in range(2):
        assert both[rank]["gathered"].tolist() == [0, 2, 4, 6, 1, 3, 5]
        assert both[rank]["sum"].tolist() == [3, 30]
        assert both[rank]["world"].tolist() == [2, int(rank == 0), 2]


def test_a_whole_run_under_two_processes(voc: Path, tmp_path: Path):
    out = tmp_path / "run"
    options = [x for override in TINY_LAPTOP for x in ("--set", override)]
    done = torchrun(
        "-m", "ncdss_lib", "run", "--dataset", "pascal5i", "--data-root", str(voc), "--out", str(out), "--device", "cpu", *options
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("report.json")] == [Path("run/report.json")]
    report = read_json(out / "report.json")
    assert report["device"]["processes"] == 2
    assert all(not stage["skipped"] for stage in report["stages"].values())
    assert not list(out.glob(".*"))
    pixels = 8 * 64 * 64
    for model in report["models"].values():
        counts = [[int(x) for x in line.split(",")[1:]] for line in (out / model["confusion"]).read_text().splitlines()[1:]]
        assert 0.8 * pixels < sum(map(sum, counts)) <= pixels  # all validation images, once
    assert done.stdout.count("Written:") == 1
