"""The training loop: its loss, its schedules, its errors, and that a killed training ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ncdss_lib.data.loading import Source
from ncdss_lib.method.training_loop import fit, learning_rate_factor, pixel_cross_entropy
from ncdss_lib.recipes import BaseTraining, BasicFramework, Compute, load_recipe
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.distributed import Runtime
from ncdss_lib.system.errors import InputError, RunError
from tests.conftest import REPO, TINY_LAPTOP

# --- loss and schedule ------------------------------------------------------------------------------------------------------------------

#: Files of a stage that hold how long it took, or a checksum of that.
OF_THE_DAY = ("manifest.json", "checksums.sha256")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", Compute(precision="fp32"))


def test_cross_entropy_is_the_mean_over_pixels_that_count():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(2, 4, 3, 5)), rng.integers(0, 4, (2, 3, 5))
    target[rng.random(target.shape) < 0.3] = 255
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    terms = [-log_p[b, c, y, x] for (b, y, x), c in np.ndenumerate(target) if c != 255]
    # A target of the logits' own size: nothing is resized.
    found = pixel_cross_entropy(torch.from_numpy(logits), torch.from_numpy(target))
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_logits_are_resized_to_the_target():
    logits, target = torch.randn(1, 3, 2, 2), torch.randint(0, 3, (1, 8, 8))
    up = nn.functional.interpolate(logits, (8, 8), mode="bilinear", align_corners=False)
    found = pixel_cross_entropy(logits, target)
    torch.testing.assert_close(found, nn.functional.cross_entropy(up, target))


def test_a_batch_without_a_pixel_that_counts_gives_zero_and_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 4, 4), 255))
    assert loss.item() == 0.0
    loss.backward()
    assert not logits.grad.any()


def test_the_number_of_pixels_can_be_that_of_all_processes():
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    found = pixel_cross_entropy(logits, target, torch.tensor(64.0))
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, target) / 4)


def test_the_step_schedule_drops_in_the_epoch_after_the_milestone():
    config = BaseTraining(milestone=25)
    assert [learning_rate_factor(config, e, 0.0) for e in (0, 24, 25, 26, 59)] == [1.0, 1.0, 1.0, 0.1, 0.1]


def test_the_cosine_schedule():
    config = BaseTraining(schedule="cosine")
    found = [learning_rate_factor(config, 0, p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])


# --- the loop ---------------------------------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """A head without an encoder on one-number features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
        nn.init.constant_(self.encoder.weight, 1.0)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, x):
        return self.head(self.encoder(x))


class ToyViews:
    size, channels = 1, (1,)

    def train_loader(self, sources):
        def batch(ids):
            return {"x": torch.ones(len(ids), 1, 1, 1), "y": torch.zeros(len(ids), 1, 1, dtype=torch.long)}

        return lambda steps, seed, epoch: ({name: batch(ids) for name, ids in step.items()} for step in steps)


def toy_fit(runtime, config, folder, step_loss, **options) -> Toy:
    model = Toy()
    sources = [Source("base", ["a", "b", "c"], None, config.batch_size)]
    run = SimpleNamespace(runtime=runtime, views=ToyViews(), seed=0, recipe=load_recipe("laptop"))
    fit(run, "toy", model, sources, step_loss, config, folder, **options)
    return model


def test_the_optimiser_is_sgd_as_published(runtime, tmp_path):
    """With a loss whose gradient is 1 in every weight: v <- .9 v + (1 + wd w), w <- w - lr v; the encoder at its own rate."""
    config = BasicFramework(epochs=4, steps_per_epoch=2, batch_size=3, lr=0.1, encoder_lr=0.001, weight_decay=0.01, milestone=1)
    model = toy_fit(runtime, config, tmp_path, lambda m, b, e: {"loss": sum(p.sum() for p in m.parameters())}, validate=lambda m: 0.0)
    for lr, found in ((0.1, model.head.weight), (0.001, model.encoder.weight)):
        w, v = 1.0, 0.0
        for epoch in range(4):
            for _ in range(2):
                v = 0.9 * v + 1 + 0.01 * w
                w -= (lr if epoch <= 1 else lr / 10) * v
        assert found.flatten().tolist() == pytest.approx([w] * found.numel(), rel=1e-5)


def test_steps_per_epoch_are_what_the_shortest_list_fills(runtime, tmp_path):
    config = BasicFramework(epochs=1, batch_size=2, select="last")
    toy_fit(runtime, config, tmp_path, lambda m, b, e: {"loss": m.head.weight.sum()})
    assert pd.read_csv(tmp_path / "toy_history.csv")["steps"].tolist() == [1]


def test_the_best_epoch_and_the_last_are_both_kept(runtime, tmp_path):
    config = BasicFramework(epochs=4, steps_per_epoch=1, batch_size=1)
    scores, seen = iter([0.1, 0.4, 0.3, 0.4]), []

    def validate(model):
        seen.append(model.head.weight.detach().clone())
        return next(scores)

    toy_fit(runtime, config, tmp_path, lambda m, b, e: {"loss": m.head.weight.sum()}, validate=validate)
    assert torch.equal(load_file(tmp_path / "toy_best.safetensors")["head.weight"], seen[1])  # the first of equals
    assert torch.equal(load_file(tmp_path / "toy.safetensors")["head.weight"], seen[3])
    assert pd.read_csv(tmp_path / "toy_history.csv")["val_miou"].tolist() == [0.1, 0.4, 0.3, 0.4]


def test_a_list_that_has_become_empty_is_refused(runtime, tmp_path):
    """As a reassignment may leave it on very few images."""
    config = BasicFramework(epochs=3, steps_per_epoch=1, batch_size=1, select="last")
    source = Source("clean", ["a"], None, 1)

    def before_epoch(epoch, model):
        source.ids = ["a"] if epoch < 2 else []

    run = SimpleNamespace(runtime=runtime, views=ToyViews(), seed=0, recipe=load_recipe("laptop"))
    with pytest.raises(InputError, match="toy: the list 'clean' is empty in epoch 2"):
        fit(run, "toy", Toy(), [source], lambda m, b, e: {"loss": m.head.weight.sum()}, config, tmp_path, before_epoch=before_epoch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_so(runtime, tmp_path, value):
    config = BasicFramework(epochs=3, steps_per_epoch=1, batch_size=1, select="last", lr=0.3)

    def step_loss(model, batches, epoch):
        return {"loss": model.head.weight.sum() * (value if epoch == 1 else 1.0)}

    with pytest.raises(RunError, match=r"toy: a loss is not finite in epoch 1 .*basic_framework.lr \(now 0.3\)") as caught:
        toy_fit(runtime, config, tmp_path, step_loss)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "toy.safetensors").exists()


def test_a_list_shorter_than_a_batch_is_refused(runtime, tmp_path):
    with pytest.raises(InputError, match="'base' has 3 images, fewer than one batch of 8.*basic_framework.batch_size"):
        toy_fit(runtime, BasicFramework(), tmp_path, lambda m, b, e: {})


def test_an_interrupted_training_goes_on_with_momentum_and_history(runtime, tmp_path):
    config = BasicFramework(epochs=5, steps_per_epoch=2, batch_size=1, schedule="cosine")
    options = {"validate": lambda m: -m.head.weight.sum().item()}

    def loss(model, batches, epoch):
        noise = torch.rand(())  # depends on (seed, epoch, step) alone
        return {"loss": (model(batches["base"]["x"]) * noise).sum()}

    def broken(model, batches, epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return loss(model, batches, epoch)

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = toy_fit(runtime, config, tmp_path / "whole", loss, **options)
    with pytest.raises(KeyboardInterrupt):
        toy_fit(runtime, config, tmp_path / "broken", broken, **options)
    epochs = []
    torch.manual_seed(999)
    resumed = toy_fit(runtime, config, tmp_path / "broken", lambda m, b, e: epochs.append(e) or loss(m, b, e), **options)
    assert epochs == [3, 3, 4, 4]
    assert torch.equal(whole.head.weight, resumed.head.weight)
    for file in ("toy_history.csv", "toy.safetensors", "toy_best.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()


# --- killed ---------------------------------------------------------------------------------------------------------------------------


SLOW = """
import sys, time
from ncdss_lib.method import training_loop
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.method import eums
import torch; torch.set_num_threads(1)
real = eums.ema_update
def slow(*arguments):
    time.sleep(0.15)
    real(*arguments)
eums.ema_update = slow
open_run("pascal5i", sys.argv[1], 0, 0, "laptop", sys.argv[2], sys.argv[3:]).ensure("eums")
"""


def test_a_run_that_was_killed_ends_with_bit_identical_weights(voc, tmp_path):
    overrides = [*TINY_LAPTOP, "eums.epochs=5", "eums.reassign_epochs=[1, 3]"]
    expected = open_run("pascal5i", str(voc), 0, 0, "laptop", str(tmp_path / "whole"), overrides).ensure("eums")
    out = tmp_path / "killed"
    checkpoint = out / ".eums.partial" / "eums_checkpoint.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(voc), str(out), *overrides], cwd=REPO, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while not checkpoint.is_file() or torch.load(checkpoint, weights_only=True)["epoch"] < 2:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "eums").exists()
    earlier = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and not p.relative_to(out).as_posix().startswith(".eums.")}
    assert torch.load(checkpoint, weights_only=True)["epoch"] < 5

    run = open_run("pascal5i", str(voc), 0, 0, "laptop", str(out), overrides)
    found = run.ensure("eums")
    assert run.skipped == {"base_training": True, "clustering": True, "basic_framework": True, "entropy_ranking": True, "eums": False}
    assert all(p.stat().st_mtime_ns == time_ns for p, time_ns in earlier.items())
    names, again = (
        sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name not in OF_THE_DAY)
        for folder in (expected, found)
    )
    assert names == again
    for name in names:
        assert (expected / name).read_bytes() == (found / name).read_bytes(), name


def test_a_finished_training_of_an_interrupted_stage_is_not_done_again(voc, tmp_path, monkeypatch):
    from ncdss_lib.method import basic_framework

    out = str(tmp_path / "run")
    real, trained = basic_framework.fit, []

    def record(run, name, model, sources, step_loss, config, folder, **options):
        def counted(model, batches, epoch):
            trained.append(name)
            if name == "basic_oc" and fail:
                raise KeyboardInterrupt
            return step_loss(model, batches, epoch)

        real(run, name, model, sources, counted, config, folder, **options)

    monkeypatch.setattr(basic_framework, "fit", record)
    fail = True
    with pytest.raises(KeyboardInterrupt):
        open_run("pascal5i", str(voc), 0, 0, "laptop", out, TINY_LAPTOP).ensure("basic_framework")
    assert trained == ["basic"] * 6 + ["basic_oc"]
    fail = False
    trained.clear()
    folder = open_run("pascal5i", str(voc), 0, 0, "laptop", out, TINY_LAPTOP).ensure("basic_framework")
    assert trained == ["basic_oc"] * 6
    assert not list(folder.glob("*checkpoint*"))
    assert not list(Path(out).glob(".*"))
