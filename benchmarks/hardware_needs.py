"""What the ``paper`` recipe needs, computed and not measured: memory of a GPU for its three
trainings, disk for data and artefacts.

A training's memory is the peak of all tensors that are alive in its second step, run on fake
tensors (shapes without data) through the library's own step functions. What CUDA itself, its
libraries' workspaces and fragmentation take
comes on top: leave 2 GB.
"""

from __future__ import annotations

import io
import weakref
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import Figure, main
from ncdss_lib.data.pascal5i import Pascal5i, published_counts
from ncdss_lib.method.basic_framework import supervised_step
from ncdss_lib.method.eums import eums_step
from ncdss_lib.method.training_loop import make_optimizer
from ncdss_lib.models.segmenter import build_segmenter
from ncdss_lib.recipes import EUMS, load_recipe

#: Base classes, clusters, and images a step from each list of EUMS (COCO-20i: 6 instead of 8).
DATA_SETS = {"PASCAL-5i": (15, 10, 8), "COCO-20i": (60, 40, 6)}


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors alive, and their maximum, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        self._known.add(storage._cdata)
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


def training_bytes(
    training: str,
    base: int,
    clusters: int,
    batch: int,
    precision: str,
    size: int = 512,
    *,
    encoder: str = "resnet50.tv_in1k",
) -> dict[str, int]:
    """Peak memory of a step.

    Args:
        training: base_training, basic_framework or eums.
        batch: images from each list.

    Returns:
        ``peak``, and of it ``state``: weights, gradients, momentum and, for EUMS, the teacher.
    """
    recipe = load_recipe(
        "paper",
        [
            "model.weights=none",
            f"model.encoder={encoder}",
            f"data.size={size}",
            f"data.target_size={size}",
        ],
    )
    outputs = 1 + base + (0 if training == "base_training" else clusters)
    with FakeTensorMode(), LiveTensors() as live:
        model = build_segmenter(recipe.model, outputs).train()
        teacher = (
            build_segmenter(recipe.model, outputs).requires_grad_(False)
            if training == "eums"
            else None
        )
        optimizer = make_optimizer(model, getattr(recipe, training))
        for _ in range(2):  # momentum is there from the second step on
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = _loss(training, model, teacher, batch, size, recipe.eums)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        del loss
        return {"peak": live.peak, "state": live.bytes}


def _loss(training: str, model: Any, teacher: Any, batch: int, size: int, config: EUMS) -> Tensor:
    """A training's own step."""

    def images() -> Tensor:
        return torch.zeros(batch, 3, size, size, dtype=torch.uint8)

    def labelled() -> dict[str, Tensor]:
        return {"x": images(), "y": torch.zeros(batch, size, size, dtype=torch.uint8)}

    if training == "base_training":
        return supervised_step(model, {"base": labelled()})["loss"] * 2
    if training == "basic_framework":
        return supervised_step(model, {"base": labelled(), "novel": labelled()})["loss"]
    unclean = {"weak": images(), "strong": images()}
    return eums_step(
        model, teacher, {"base": labelled(), "clean": labelled(), "unclean": unclean}, 1.0, config
    )["loss"]


def png_bytes(masks: list[np.ndarray]) -> float:
    """Mean bytes a pixel of label maps stored as PNG."""
    sizes = []
    for mask in masks:
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        sizes.append(len(file.getvalue()) / mask.size)
    return mean(sizes)


def disk(data: Pascal5i) -> list[Figure]:
    """Gigabytes of data and artefacts from the published numbers of images, and the bytes that
    label maps take here.
    """
    a_pixel = png_bytes([data.mask(i) for i in data.train_ids[:50]])
    weights = 4 * sum(
        p.numel()
        for p in build_segmenter(
            load_recipe("paper", ["model.weights=none"]).model, 26
        ).parameters()
    )
    files = 2 * (3 + 2)  # last and best epoch of base, basic, basic_oc, and of student and teacher
    novel = {
        "PASCAL-5i": max(published_counts(fold)["novel"] for fold in range(4)),
        "COCO-20i": 60602,
    }
    # Images used, of how many in archives of how many bytes (announced by the data sets' sites),
    # pixels of a typical image, and maps of all images: masks (COCO-20i: published and complete)
    # and saliency.
    known = {
        "PASCAL-5i": (10582 + 1449, 17125, 2.0e9, 500 * 375, (10582 + 1449) + 10582, 2.0e9 + 1.4e9),
        "COCO-20i": (
            82081 + 40137,
            82783 + 40504,
            13e9 + 6e9,
            640 * 480,
            2 * (82081 + 40137) + 82081,
            13e9 + 6e9 + 0.24e9,
        ),
    }
    figures = []
    for name, (images, archived, archive, pixels, maps, download) in known.items():
        photos, labels = archive / archived * images, maps * pixels * a_pixel
        # base_pred, novel_map, pseudo-labels for two K; the prototype
        artefacts = novel[name] * (4 * pixels * a_pixel + 4 * 2048)
        detail = (
            f"photos {photos / 1e9:.1f}, maps {labels / 1e9:.2f} GB; archives to download "
            f"{download / 1e9:.1f} GB more while preparing"
        )
        figures.append(Figure(f"disk, {name}: data", (photos + labels) / 1e9, "GB", None, detail))
        detail = (
            f"{files} files of weights {files * weights / 1e9:.2f}, maps and prototypes "
            f"{artefacts / 1e9:.2f} GB, largest fold"
        )
        figures.append(
            Figure(f"disk, {name}: a run", (files * weights + artefacts) / 1e9, "GB", None, detail)
        )
    return figures


def run(data: Pascal5i, *, size: int = 512) -> list[Figure]:
    figures = []
    for name, (base, clusters, eums_batch) in DATA_SETS.items():
        for training, batch in (
            ("base_training", 16),
            ("basic_framework", 8),
            ("eums", eums_batch),
        ):
            needs = {
                precision: training_bytes(training, base, clusters, batch, precision, size)
                for precision in ("bf16", "fp32")
            }
            lists = {"base_training": 1, "basic_framework": 2, "eums": 3}[training]
            kept = "weights, gradients, momentum" + ", teacher" * (training == "eums")
            state = f"{kept} {needs['fp32']['state'] / 1e9:.2f} GB"
            detail = f"fp32 {needs['fp32']['peak'] / 1e9:.1f} GB; {state} of either"
            what = (
                f"GPU memory, {name}, {training}, {' + '.join([str(batch)] * lists)} images, bf16"
            )
            figures.append(Figure(what, needs["bf16"]["peak"] / 1e9, "GB", None, detail))
    return [*figures, *disk(data)]


if __name__ == "__main__":
    main({"hardware_needs": run}, __doc__)
