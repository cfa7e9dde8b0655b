"""Run by the tests under torchrun: what the processes of one job do together; each leaves what it found.

``python -m torch.distributed.run --nproc-per-node 2 tests/distributed_step.py MODE FOLDER``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.training_loop import pixel_cross_entropy
from ncdss_lib.models import cached_features
from ncdss_lib.recipes import Compute
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.distributed import Runtime, report_failure
from ncdss_lib.system.errors import InputError, NCDSSError
from tests.conftest import TINY_LAPTOP


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))


def batches() -> list[tuple[Tensor, Tensor]]:
    """Two batches of five images, so that shares differ in size; the second has 255 in some images only."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for ignored in (0, 3):
        x = torch.randn(5, 3, 6, 6, generator=generator)
        y = torch.randint(0, 4, (5, 6, 6), generator=generator)
        y[:ignored, 1:] = 255
        found.append((x, y))
    return found


def step(runtime: Runtime, folder: Path) -> dict[str, Tensor]:
    """One step with two forwards, and the collectives."""
    rank = runtime.rank
    model = runtime.prepare(network())
    wrapped, _ = runtime.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    wrapped.train()
    losses = []
    for x, y in batches():
        rows = list(runtime.shard(range(5)))
        losses.append(pixel_cross_entropy(wrapped(x[rows]), y[rows]))
    runtime.fabric.backward(sum(losses) / 2)
    found = {f"gradient {n}": p.grad for n, p in model.named_parameters()}
    found |= {f"before {n}": b.clone() for n, b in model.named_buffers()}
    runtime.sync_buffers(model)
    found |= {f"after {n}": b.clone() for n, b in model.named_buffers()}
    found["gathered"] = torch.tensor(runtime.gather(list(runtime.shard(range(7)))))
    found["sum"] = runtime.sum(torch.tensor([rank + 1, 10 * (rank + 1)]))
    found["world"] = torch.tensor([runtime.world_size, int(runtime.is_main), runtime.describe()["processes"]])
    return found


def many(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """More processes than images, on two machines that share a folder: inference, the feature cache, and equal buffers."""
    from tests.models.test_cached_features import Tiny, build

    encoder = Tiny()
    cache = build(folder, runtime, encoder)
    run = open_run("pascal5i", os.environ["VOC"], overrides=TINY_LAPTOP, out=str(folder / "run"), device="cpu")
    model, images = run.new_segmenter(5, seed=0), run.splits.val
    confusions = []
    for count in (1, 2, 3, len(images)):
        run.splits = SimpleNamespace(val=images[:count])
        confusions.append(torch.from_numpy(confusion_on_val(run, model, 64)))
    buffer = nn.Module()
    buffer.register_buffer("equal", torch.tensor([0.1, 0.485, 1 / 3]))
    before = buffer.equal.clone()
    runtime.sync_buffers(buffer)
    return {
        "seen": encoder.seen,
        "cache": cache.name,
        "confusions": confusions,
        "equal": torch.equal(buffer.equal, before),
        "shares": [list(runtime.shard(range(count))) for count in (0, 1, 3, 9)],
        "gathered": [runtime.gather(list(runtime.shard(range(count)))) for count in (0, 1, 3, 9)],
        "sum": runtime.sum(torch.ones(2)),
        "main": runtime.from_main(lambda: runtime.rank),
        "machines": runtime.fabric.strategy.num_nodes,
    }


def full_disk(runtime: Runtime, folder: Path) -> None:
    """The disk of one process is full once it has written a batch."""
    from tests.models.test_cached_features import Tiny, build

    if runtime.rank == 1:
        cached_features._write_only = lambda path, flags: os.open("/dev/full", os.O_WRONLY)
    build(folder, runtime, Tiny())


def wrong_input(runtime: Runtime, folder: Path) -> None:
    """One process finds wrong input in the middle of a training."""
    run = open_run("pascal5i", os.environ["VOC"], overrides=TINY_LAPTOP, out=str(folder / "run"), device="cpu")
    truth, read = run.data.mask, 0

    def mask(image_id: str) -> Any:
        nonlocal read
        read += 1
        if runtime.rank == 1 and read > 5:
            raise InputError(f"{image_id}.png is damaged.")
        return truth(image_id)

    run.data.mask = mask  # type: ignore[method-assign]
    run.ensure("base_training")


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, place = sys.argv[1], Path(sys.argv[2])
    try:
        here = Runtime("cpu", Compute(precision="fp32", channels_last=False))
        result = globals()[mode](here, place)
        if result:
            torch.save(result, place / f"{here.rank}.pt")
    except Exception as error:
        report_failure(error)
        print(f"rank {os.environ['RANK']}: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, NCDSSError) else 1)
