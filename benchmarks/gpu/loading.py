"""Images a second from JPEG files, by number of loading processes; and what augmentation on the
device would take instead.

``base`` images have targets; an ``unclean`` one gives a weak and a strong view, whose colours are
jittered on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.gpu import FOLD, Kit, Row
from benchmarks.gpu.timing import seconds_of
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import ImageViews, Source
from ncdss_lib.data.splits import label_space
from ncdss_lib.recipes import Data
from ncdss_lib.system.distributed import Runtime


def run(kit: Kit) -> Iterator[Row]:
    """Loading with augmentation by processes.

    Decoding and resizing alone; augmentation on the device alone.
    """
    sizes = [kit.data.image(i).shape[:2] for i in kit.data.train_ids[:20]]
    yield {
        "what": "photos, median height and width",
        "value": [float(median(s[axis] for s in sizes)) for axis in (0, 1)],
        "unit": "px",
    }
    for kind in ("base", "unclean"):
        for processes in kit.scale.processes:
            yield _loading(kit, kind, processes, augment=True)
    yield _loading(kit, "base", kit.scale.processes[-1], augment=False)
    yield _device(kit)


def _loading(kit: Kit, kind: str, processes: int, *, augment: bool) -> Row:
    size, batch = kit.scale.size, kit.scale.base_batch
    config = Data(size=size, target_size=size, workers=processes)
    if not augment:
        config = config.model_copy(update={"rotation": 0.0, "scale": (1.0, 1.0), "flip": 0.0})
    truth = partial(read_truth, kit.data, label_space(kit.data, FOLD))
    source = Source(kind, kit.data.train_ids, None if kind == "unclean" else truth, batch)
    steps = max(2, 3 * processes) if kit.device == "cuda" else 2
    plan = [{kind: ids} for ids in source.batches(0, 0, 2 * steps)]
    runtime = Runtime(kit.device)
    batches = runtime.prefetch(ImageViews(kit.data, config).train_loader([source])(plan, 0, 0))
    for _ in range(steps):  # processes start, files come into the cache
        next(batches)
    started = time.perf_counter()
    count = sum(1 for _ in batches)
    rate = count * batch / (time.perf_counter() - started)
    what = f"{kind} images from files, {processes} processes" + (
        "" if augment else ", not augmented"
    )
    return {"what": what, "value": rate, "unit": "images/s"}


def _device(kit: Kit) -> Row:
    """Flip, rotation and scaling of each image of a batch, and colours jittered alike for all of
    it, on the device.
    """
    batch, size = kit.scale.base_batch, kit.scale.size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=kit.device)
    labels = torch.randint(0, 21, (batch, size, size), dtype=torch.uint8, device=kit.device)
    jitter = v2.ColorJitter(0.5, 0.5, 0.5, 0.25)
    rng = np.random.default_rng(0)

    def augment() -> Tensor:
        grid = F.affine_grid(
            _geometries(rng, batch, kit.device), [batch, 3, size, size], align_corners=False
        )
        warped = F.grid_sample(images.float(), grid, mode="bicubic", align_corners=False)
        F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
        return jitter(warped.clamp(0, 255).to(torch.uint8))

    seconds = seconds_of(augment, kit)
    return {
        "what": "augmentation on the device, once resampled",
        "value": batch / seconds,
        "unit": "images/s",
    }


def _geometries(rng: np.random.Generator, batch: int, device: str) -> Tensor:
    """float32 [B, 2, 3]: flip, rotation within 5 degrees and scaling by .75 to 1.25."""
    angle = np.radians(rng.uniform(-5, 5, batch))
    scale = rng.uniform(0.75, 1.25, batch)
    flip = np.where(rng.random(batch) < 0.5, -1.0, 1.0)
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    rows = [[flip * cosine, -sine, 0 * angle], [flip * sine, cosine, 0 * angle]]
    return torch.tensor(np.array(rows).transpose(2, 0, 1), dtype=torch.float32, device=device)
