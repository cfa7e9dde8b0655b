"""From files to normalised batches on the device with one loading process: the published chain
against our views.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from zlib import crc32

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import ImageViews, Source
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.recipes import Data, Model
from ncdss_lib.system.distributed import Runtime


def draw(image_id: str) -> tuple[float, float, bool]:
    """Rotation, scale and flip: those that our views draw for step 0 of epoch 0 with seed 0."""
    rng = np.random.default_rng([0, 0, 0, crc32(f"base/{image_id}".encode())])
    return rng.uniform(-5, 5), rng.uniform(0.75, 1.25), rng.random() < 0.5


def published_batches(
    data: Pascal5i, batches: list[list[str]], size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    table = label_space(data, 0).to_contiguous(np.r_[:21, np.full(234, 255), 255].astype(np.uint8))
    items = published.TrainSet(data.root, [i for ids in batches for i in ids], draw, table, size)
    for batch in DataLoader(
        items, len(batches[0]), num_workers=1, worker_init_fn=one_thread, drop_last=True
    ):
        yield batch["x"].to(device), batch["y"].to(device)


def our_batches(
    data: Pascal5i, batches: list[list[str]], size: int, runtime: Runtime
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    views = ImageViews(data, Data(size=size, target_size=size, workers=1))
    source = Source(
        "base", batches[0], partial(read_truth, data, label_space(data, 0)), len(batches[0])
    )
    encoder = Encoder(Model(encoder="resnet18", weights="none")).to(runtime.device)
    encoder.backbone = seen = Seen()
    load_epoch = views.train_loader([source])
    for step in runtime.prefetch(load_epoch([{"base": ids} for ids in batches], 0, 0)):
        encoder(step["base"]["x"])
        yield seen.images, step["base"]["y"]


class Seen(nn.Module):
    """Takes a backbone's place, to keep what the encoder hands to it."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.images = images
        return [images[..., :1, :1]]


def one_thread(worker: int) -> None:
    """Both sides have one process with one thread."""
    cv2.setNumThreads(0)


def run(
    data: Pascal5i, *, images: int = 512, batch: int = 16, size: int = 512, repeats: int = 3
) -> list[Figure]:
    ids = (data.train_ids * images)[:images]
    batches = [ids[start : start + batch] for start in range(0, images - batch + 1, batch)]
    runtime = Runtime("auto")
    sides = {
        "published": lambda: list(map(len, published_batches(data, batches, size, runtime.device))),
        "ours": lambda: list(map(len, our_batches(data, batches, size, runtime))),
    }
    seconds, done = interleaved(sides, repeats), batch * len(batches)
    figure = faster("an image from file to device", seconds, 2, per=done)
    return [
        figure,
        *(Figure(f"images a second, {name}", done / value, "") for name, value in seconds.items()),
    ]


if __name__ == "__main__":
    main({"input_pipeline": run}, __doc__)
