"""The inference stages on the device, the published formulation beside ours: what each takes for an
image, network included or not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import published
from benchmarks.gpu import FOLD, Kit, Row
from benchmarks.gpu.timing import peak_gb, reset_peak, seconds_of, synchronize
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.clustering import adjoint_mask, masked_prototype
from ncdss_lib.method.entropy_ranking import region_entropy
from ncdss_lib.method.evaluation import confusions
from ncdss_lib.method.inference import predict
from ncdss_lib.recipes import load_recipe
from ncdss_lib.runs.pipeline import Run

CLUSTERS = 10


def run(kit: Kit) -> Iterator[Row]:
    """Passes over the validation photos, then what follows the network, on one batch."""
    with tempfile.TemporaryDirectory() as folder:
        size = kit.scale.size
        overrides = (
            "model.weights=none",
            f"model.encoder={kit.scale.encoder}",
            f"data.size={size}",
            f"evaluation.size={size}",
        )
        opened = Run(kit.data, FOLD, 0, load_recipe("paper", overrides), Path(folder), kit.device)
        # The same photos several times over, so that a pass is long enough to be timed.
        ids = (opened.splits.val * kit.scale.images)[: kit.scale.images]
        opened.splits = replace(opened.splits, val=ids)
        model = opened.new_segmenter(CLUSTERS, seed=0)
        yield _pass(
            kit, "network alone, from files", lambda: _consume(opened, model, lambda logits: None)
        )
        yield _pass(
            kit,
            "base-class removal, from files",
            lambda: _consume(opened, model, lambda x: confident_base(x, 0.9).cpu()),
        )
        yield _pass(
            kit, "evaluation in one pass, from files", lambda: confusions(opened, model, size)
        )
    yield from _after_the_network(kit)


def _consume(opened: Run, model: Any, use: Callable[[torch.Tensor], Any]) -> None:
    for _, logits in predict(opened, model, opened.splits.val, opened.views.size):
        use(logits)


def _pass(kit: Kit, what: str, call: Callable[[], Any]) -> Row:
    call()
    synchronize(kit.device)
    reset_peak(kit.device)
    started = time.perf_counter()
    call()
    synchronize(kit.device)
    seconds = time.perf_counter() - started
    return {
        "what": what,
        "value": kit.scale.images / seconds,
        "unit": "images/s",
        "peak_gb": peak_gb(kit.device),
    }


def _after_the_network(kit: Kit) -> Iterator[Row]:
    size, batch = kit.scale.size, kit.scale.batch
    side = size // 8
    maps = [kit.data.saliency(i) for i in kit.data.train_ids]
    masks = [resize_labels(salient, size) for salient in maps if salient is not None][:batch]
    regions = torch.from_numpy(np.stack(masks)).to(kit.device)
    batch = len(masks)

    coarse = torch.randn(batch, 16 + CLUSTERS, side, side, device=kit.device).to(
        memory_format=torch.channels_last
    )
    logits = torch.nn.functional.interpolate(
        coarse, (size, size), mode="bilinear", align_corners=False
    )
    sides = {
        "published": lambda: published.entropy(logits, regions),
        "ours": lambda: region_entropy(logits, regions),
    }
    yield from _compared(kit, "entropy of an image", sides, batch)

    channels = 2048 if kit.device == "cuda" else 64
    features = torch.randn(batch, channels, side, side, device=kit.device).to(
        memory_format=torch.channels_last
    )

    def pooled() -> torch.Tensor:
        weights = np.stack([adjoint_mask(mask, side, side) for mask in masks])
        return masked_prototype(features, torch.from_numpy(weights).to(kit.device))

    sides = {
        "published": lambda: torch.stack(
            [published.prototype(f, r.float()) for f, r in zip(features, regions, strict=True)]
        ),
        "ours": pooled,
    }
    yield from _compared(kit, "prototype of an image", sides, batch)


def _compared(
    kit: Kit, what: str, sides: dict[str, Callable[[], Any]], images: int
) -> Iterator[Row]:
    found = {}
    for name, call in sides.items():
        reset_peak(kit.device)
        found[name] = {"ms": 1e3 * seconds_of(call, kit) / images, "peak_gb": peak_gb(kit.device)}
    difference = (sides["published"]() - sides["ours"]()).abs().max().item()
    for name, values in found.items():
        yield {
            "what": f"{what}, {name}",
            "value": values["ms"],
            "unit": "ms",
            "peak_gb": values["peak_gb"],
        }
    ratio = found["published"]["ms"] / found["ours"]["ms"]
    yield {
        "what": f"{what}, published over ours",
        "value": ratio,
        "unit": "x",
        "difference": difference,
    }
