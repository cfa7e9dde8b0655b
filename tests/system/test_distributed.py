"""Devices and precision, and several gloo processes that must do what one does, or end together."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ncdss_lib.method.eums import eums_step
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.mean_teacher import make_teacher
from ncdss_lib.method.training_loop import make_optimizer
from ncdss_lib.models.segmenter import build_segmenter
from ncdss_lib.recipes import EUMS, Compute, Model
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system import distributed as runtime_module
from ncdss_lib.system.distributed import Runtime, report_failure
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import read_json
from tests.conftest import REPO, TINY_LAPTOP
from tests.distributed_step import batches, network
from tests.models.test_cached_features import Tiny, build, contents


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
    assert runtime.from_main(lambda: 7) == 7
    assert {k: runtime.describe()[k] for k in ("type", "processes", "precision")} == {"type": "cpu", "processes": 1, "precision": "fp32"}
    assert runtime.describe()["name"]


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last):
    module = Runtime("cpu", Compute(channels_last=channels_last)).prepare(torch.nn.Conv2d(3, 4, 3))
    assert module.weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_torchruns_variables_that_cannot_be_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="6 processes in all are no multiple of the 4 on this machine.*--nproc-per-node"):
        Runtime("cpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="4 processes on this machine, but PyTorch sees 2 CUDA.*--nproc-per-node 2"):
        Runtime("cuda", Compute(precision="fp32"))


def test_a_slurm_allocation_alone_changes_nothing(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}.items():
        monkeypatch.setenv(name, value)
    runtime = Runtime("cpu")
    assert (runtime.rank, runtime.world_size) == (0, 1)


# --- what torchrun is told --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank", "error", "message", "waits"),
    [
        ("0", RunError("the disk is full."), "the disk is full.", []),
        ("1", InputError("x.png is damaged."), "x.png is damaged.", [1]),
        ("0", RuntimeError("Connection closed"), "RuntimeError: Connection closed", [5]),
    ],
)
def test_the_error_of_a_process_is_left_for_torchrun_and_those_that_follow_from_it_wait(monkeypatch, tmp_path, rank, error, message, waits):
    slept: list[int] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for name, value in {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json"), "WORLD_SIZE": "2", "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    report_failure(error)
    assert json.loads((tmp_path / "error.json").read_text())["message"] == message
    assert slept == waits


def test_without_torchrun_or_without_an_error_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    report_failure(RunError("x"))
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report_failure(KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


# --- loops ------------------------------------------------------------------------------------------------------------------------------


def test_prefetched_batches_are_all_there_in_order():
    batches = [{"base": {"x": torch.full((2,), float(n))}} for n in range(5)]
    found = list(Runtime("cpu").prefetch(batches))
    assert [batch["base"]["x"].tolist() for batch in found] == [[float(n)] * 2 for n in range(5)]
    assert list(Runtime("cpu").prefetch([])) == []


def test_map_keeps_the_order_and_raises_what_a_thread_raised():
    runtime = Runtime("cpu")
    assert runtime.map(lambda n: n * n, range(50)) == [n * n for n in range(50)]
    with pytest.raises(InputError, match="mask 3"):
        runtime.map(lambda n: _refuse(n), range(5))


def _refuse(n: int) -> int:
    if n == 3:
        raise InputError("mask 3 is damaged.")
    return n


def test_tf32_is_a_precision():
    assert Runtime("cpu", Compute(precision="tf32")).precision == "tf32"


def test_student_and_teacher_are_compiled_once_for_all_epochs(monkeypatch):
    """One graph each, no break, nothing compiled again: not in later epochs, not after an evaluation in between."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    # The graphs are what counts; how they are turned into kernels takes minutes on a CPU.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = Model(encoder="test_resnet", weights="none", head="conv", head_channels=8)
    runtime = Runtime("cpu", Compute(precision="fp32", compile=True))
    model = runtime.prepare(build_segmenter(config, 26))
    teacher = make_teacher(model)
    network, optimizer = runtime.setup(model, make_optimizer(model, EUMS()))
    labeller = runtime.compiled(teacher)

    def images() -> torch.Tensor:
        return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8).to(memory_format=torch.channels_last)

    for _ in range(3):
        network.train()
        for _ in range(2):
            labelled = {name: {"x": images(), "y": torch.randint(0, 26, (2, 64, 64), dtype=torch.uint8)} for name in ("base", "clean")}
            batches = labelled | {"unclean": {"weak": images(), "strong": images()}}
            with runtime.autocast():
                losses = eums_step(network, labeller, batches, 1.0, EUMS())
            optimizer.zero_grad()
            runtime.fabric.backward(losses["loss"])
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            model(images()[:1])
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert not counters["recompiles"]


# --- several processes ------------------------------------------------------------------------------------------------------------------

SCRIPT = str(REPO / "tests" / "distributed_step.py")
SOON = 300  # seconds on a busy machine; processes that wait for one that is gone wait for half an hour


def start(*arguments: str, launch: tuple[str, ...] = ("--standalone", "--nproc-per-node", "2"), **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *launch, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), **environment}
    return subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, timeout: float = 2 * SOON) -> subprocess.CompletedProcess:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends its processes
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def torchrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return finish(start(*arguments, **environment))


def tiny_run(voc: Path, out: Path, *overrides: str) -> list[str]:
    sets = [x for override in (*TINY_LAPTOP, *overrides) for x in ("--set", override)]
    return ["-m", "ncdss_lib", "run", "--dataset", "pascal5i", "--data-root", str(voc), "--out", str(out), "--device", "cpu", *sets]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What the two processes of distributed_step.py found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(SCRIPT, "step", str(folder))
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
    done = torchrun(*tiny_run(voc, out))
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


def test_more_processes_than_images_on_two_machines_find_what_one_finds(voc: Path, tmp_path: Path):
    """Four processes under two torchruns of two each; the machines share a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    machines = [
        start(
            SCRIPT, "many", str(tmp_path), VOC=str(voc),
            launch=("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"),
        )
        for rank in range(2)
    ]  # fmt: skip
    for done in map(finish, machines):
        assert done.returncode == 0, done.stderr
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(4)]

    runtime = Runtime("cpu", Compute(precision="fp32", channels_last=False))
    assert contents(tmp_path / found[0]["cache"]) == contents(build(tmp_path / "alone", runtime, Tiny()))
    assert sorted(one["seen"] for one in found) == [4, 4, 4, 5]  # sixteen images, and one for the shape
    run = open_run("pascal5i", str(voc), overrides=TINY_LAPTOP, out=str(tmp_path / "one"), device="cpu")
    model, images = run.new_segmenter(5, seed=0), run.splits.val
    for count, *confusions in zip((1, 2, 3, len(images)), *(one["confusions"] for one in found), strict=True):
        object.__setattr__(run.splits, "val", images[:count])
        expected = torch.from_numpy(confusion_on_val(run, model, 64))
        assert expected.sum() > 0.8 * count * 64 * 64
        for confusion in confusions:
            assert torch.equal(confusion, expected)
    for position, count in enumerate((0, 1, 3, 9)):
        shares = [one["shares"][position] for one in found]
        assert sorted(x for share in shares for x in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert all(one["gathered"][position] == [x for share in shares for x in share] for one in found)
    for one in found:
        assert one["sum"].tolist() == [4, 4]
        assert (one["main"], one["machines"]) == (0, 2)
        assert one["equal"]


# --- one process fails ------------------------------------------------------------------------------------------------------------------


def closing_report(done: subprocess.CompletedProcess) -> str:
    """What torchrun gives as the root cause."""
    assert done.returncode != 0
    return done.stderr.partition("Root Cause")[2]


def test_a_full_disk_of_one_process_ends_all_and_the_extraction_can_go_on(tmp_path: Path):
    started = time.monotonic()
    report = closing_report(torchrun(SCRIPT, "full_disk", str(tmp_path)))
    assert time.monotonic() - started < SOON
    assert "rank      : 1" in report
    assert f"cached features cannot be written to {tmp_path}: No space left on device" in report
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    runtime, encoder = Runtime("cpu", Compute(precision="fp32", channels_last=False)), Tiny()
    assert contents(build(tmp_path, runtime, encoder)) == contents(build(tmp_path / "alone", runtime, Tiny()))
    assert encoder.seen == 8  # what process 0 did is kept


def test_wrong_input_that_one_process_meets_in_training_ends_all(voc: Path, tmp_path: Path):
    started = time.monotonic()
    report = closing_report(torchrun(SCRIPT, "wrong_input", str(tmp_path), VOC=str(voc)))
    assert time.monotonic() - started < SOON
    assert "rank      : 1" in report
    *_, message, rule = report.rstrip().splitlines()
    assert message.startswith("  traceback : ")
    assert ".png is damaged." in message
    assert set(rule) == {"="}
    assert "Traceback" not in report
    assert not (tmp_path / "run" / "base_training").exists()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process by its environment in /proc")
def test_a_process_that_is_killed_in_training_ends_all(voc: Path, tmp_path: Path):
    out = tmp_path / "run"
    job = start(*tiny_run(voc, out, "base_training.epochs=10000"))
    checkpoint, deadline = out / ".base_training.partial" / "base_checkpoint.pt", time.monotonic() + SOON
    while not checkpoint.exists():
        assert job.poll() is None, finish(job).stderr
        assert time.monotonic() < deadline
        time.sleep(0.1)
    victim = next(pid for pid in children(job.pid) if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    report = closing_report(finish(job))
    assert time.monotonic() - killed < SOON
    assert f"Signal 9 (SIGKILL) received by PID {victim}" in report
    assert checkpoint.exists()  # from which the same command goes on


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
