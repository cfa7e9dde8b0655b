"""Run by test_runtime.py under torchrun: one step with two forwards, and the collectives; each process leaves what it found.

``python -m torch.distributed.run --nproc-per-node 2 tests/distributed_step.py FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ncdss_lib.recipes import Compute
from ncdss_lib.runtime import Runtime
from ncdss_lib.training import pixel_cross_entropy


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


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    runtime = Runtime("cpu", Compute(precision="fp32", channels_last=False))
    run, rank = SimpleNamespace(runtime=runtime), runtime.rank
    model = runtime.prepare(network())
    wrapped, _ = runtime.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    wrapped.train()
    losses = []
    for x, y in batches():
        rows = list(runtime.shard(range(5)))
        losses.append(pixel_cross_entropy(wrapped(x[rows]), y[rows], run))
    runtime.fabric.backward(sum(losses) / 2)
    found = {f"gradient {n}": p.grad for n, p in model.named_parameters()}
    found |= {f"before {n}": b.clone() for n, b in model.named_buffers()}
    runtime.sync_buffers(model)
    found |= {f"after {n}": b.clone() for n, b in model.named_buffers()}
    found["gathered"] = torch.tensor(runtime.gather(list(runtime.shard(range(7)))))
    found["sum"] = runtime.sum(torch.tensor([rank + 1, 10 * (rank + 1)]))
    found["world"] = torch.tensor([runtime.world_size, int(runtime.is_main), runtime.describe()["processes"]])
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
