"""One step of each training under the ``paper`` recipe: the published loop, then ours, one feature
after the other.

Ours runs through :func:`ncdss_lib.method.training_loop.train_epoch`, the loop of the library, on
batches that are ready in pinned memory; the published loop is the formulation of
``benchmarks/published.py``: float32, NCHW, not compiled, the loss read after every step.
"""

from __future__ import annotations

import copy
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import hardware_needs, published
from benchmarks.gpu import FOLD, Kit, Row
from benchmarks.gpu.machine import convolution_rate
from benchmarks.gpu.timing import peak_gb, reset_peak, synchronize
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import ImageViews, LoadEpoch, Source
from ncdss_lib.data.splits import label_space
from ncdss_lib.method.basic_framework import supervised_step
from ncdss_lib.method.eums import eums_step
from ncdss_lib.method.mean_teacher import make_teacher
from ncdss_lib.method.training_loop import Losses, make_optimizer, pixel_cross_entropy, train_epoch
from ncdss_lib.models.segmenter import Segmenter, build_segmenter
from ncdss_lib.recipes import Compute, Data, Recipe, Training, load_recipe
from ncdss_lib.system.distributed import Batches, Runtime

#: Training -> its lists of images. Truth stands in for pseudo-labels: the labels do not change what
#: a step costs.
LISTS = {
    "base_training": ("base_train",),
    "basic_framework": ("base", "novel"),
    "eums": ("base", "clean", "unclean"),
}
CLUSTERS = 10


@dataclass(frozen=True)
class Variant:
    """How a step is computed.

    Attributes:
        folded: the encoder's batch-norm is part of its convolutions, as the library has it.
        loop: ours; ``published``; ``graph``: ours as one CUDA graph; ``one forward``: ours, with
            all images of a step in one forward, so that batch-norm sees their lists together (which
            the paper does not do).
    """

    precision: str
    channels_last: bool = False
    folded: bool = False
    compile: bool = False
    loop: str = "ours"

    def __str__(self) -> str:
        words = [self.loop, self.precision]
        words += ["channels-last"] * self.channels_last
        words += ["folded norms"] * self.folded + ["compiled"] * self.compile
        return ", ".join(words)


APART = Variant("bf16", channels_last=True)
BEST = replace(APART, folded=True)
EAGER = (
    Variant("fp32", loop="published"),
    Variant("tf32", loop="published"),
    Variant("fp32"),
    Variant("tf32"),
    Variant("bf16"),
    APART,
    BEST,
    replace(BEST, loop="one forward"),
    replace(BEST, loop="graph"),
)
COMPILED = (BEST, replace(BEST, compile=True))


def run(kit: Kit) -> Iterator[Row]:
    """Every training in every variant, then a profile of the best."""
    for training in LISTS:
        yield from _variants(kit, training, EAGER)
        yield from _profile(kit, training)


def run_compiled(kit: Kit) -> Iterator[Row]:
    """The best variant again beside its compiled forms, EUMS first, which has most to gain."""
    for training in reversed(LISTS):
        yield from _variants(kit, training, COMPILED)


def _variants(kit: Kit, training: str, variants: Sequence[Variant]) -> Iterator[Row]:
    if kit.only and not any(re.search(kit.only, f"{training}: {variant}") for variant in variants):
        return
    bench = Bench(kit, training)
    operations = bench.operations()
    for variant in variants:
        # The teacher's forward in training mode ended the process when it was captured (PyTorch
        # 2.11, CUDA 13).
        if variant.loop == "graph" and (kit.device == "cpu" or training == "eums"):
            continue
        if variant.loop == "one forward" and training == "base_training":
            continue  # it has one list only
        row: Row = {"training": training, "variant": str(variant)}
        if kit.only and not re.search(kit.only, f"{training}: {variant}"):
            continue
        try:
            reset_peak(kit.device)
            seconds, loss, warm_up = bench.seconds(variant)
            rate = operations / seconds
            row |= {
                "warm_up_s": warm_up,
                "ms": 1e3 * seconds,
                "images_per_s": bench.images / seconds,
                "peak_gb": peak_gb(kit.device),
                "tflops": rate / 1e12,
                "share_of_convolution": rate / bench.ceiling(variant.precision),
                "loss": loss,
            }
        except Exception as error:  # what one variant cannot do must not end the others
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        yield row
    computed = hardware_needs.training_bytes(
        training, 15, CLUSTERS, bench.batch, "bf16", kit.scale.size, encoder=kit.scale.encoder
    )
    yield {
        "training": training,
        "variant": "computed by benchmarks.hardware_needs, bf16",
        "peak_gb": computed["peak"] / 1e9,
    }


class Bench:
    """One training: its batches, and what makes its networks anew for each variant."""

    def __init__(self, kit: Kit, training: str) -> None:
        self.kit, self.training = kit, training
        self.batch = kit.scale.base_batch if training == "base_training" else kit.scale.batch
        self.images = self.batch * len(LISTS[training])
        size = kit.scale.size
        overrides = (
            "model.weights=none",
            f"model.encoder={kit.scale.encoder}",
            f"data.size={size}",
            f"data.target_size={size}",
        )
        self.recipe: Recipe = load_recipe("paper", overrides)
        self.config: Training = getattr(self.recipe, training).model_copy(
            update={"epochs": 1, "steps_per_epoch": kit.scale.steps}
        )
        self.outputs = 16 if training == "base_training" else 16 + CLUSTERS
        self.sources = _sources(kit, training, self.batch)
        self.host_batches = self._load()
        self._ceilings: dict[str, float] = {}

    def seconds(self, variant: Variant) -> tuple[float, float, float]:
        """Median seconds of a step, the mean loss of the last round, and the seconds before the
        first round.
        """
        loop = {"published": self._published, "graph": self._graph}.get(variant.loop, self._ours)
        began = time.perf_counter()
        go = loop(variant)
        go()  # warms up: cuDNN chooses its algorithms, a compiler compiles
        synchronize(self.kit.device)
        warm_up = time.perf_counter() - began
        reset_peak(self.kit.device)  # what cuDNN tried does not count
        found, loss = [], 0.0
        for _ in range(self.kit.scale.rounds):
            started = time.perf_counter()
            loss = go()
            synchronize(self.kit.device)
            found.append(time.perf_counter() - started)
        return median(found) / self.kit.scale.steps, loss, warm_up

    def operations(self) -> float:
        """Floating-point operations of a step: convolutions and products, forward and backward."""
        runtime, network, _, step_loss = self.network(BEST)
        network.train()
        batches = runtime.to_device(self.host_batches[0])
        with runtime.autocast(), FlopCounterMode(display=False) as counter:
            runtime.fabric.backward(step_loss(network, batches, 0)["loss"])
        return float(counter.get_total_flops())

    def ceiling(self, precision: str) -> float:
        """Operations a second of a large convolution."""
        if precision not in self._ceilings:
            self._ceilings[precision] = convolution_rate(self.kit, precision)
        return self._ceilings[precision]

    def network(
        self, variant: Variant
    ) -> tuple[Runtime, Any, Any, Callable[[Any, Batches, int], Losses]]:
        """Runtime, network and optimiser ready to train, and the step of this training."""
        compute = Compute(
            precision=variant.precision,
            channels_last=variant.channels_last,
            compile=variant.compile,
        )
        runtime = Runtime(self.kit.device, compute)
        model = runtime.prepare(build_segmenter(self.recipe.model, self.outputs))
        if not variant.folded:
            published.take_norms_apart(model.encoder)
        optimizer = make_optimizer(model, self.config, fused=self.kit.device == "cuda")
        network, optimizer = runtime.setup(model, optimizer)  # type: ignore[assignment]
        teacher = runtime.compiled(make_teacher(model)) if self.training == "eums" else None
        step_loss = partial(self._loss, teacher=teacher, joined=variant.loop == "one forward")
        return runtime, network, optimizer, step_loss

    def load_epoch(self, steps: Sequence[Any], seed: int, epoch: int) -> Iterator[Batches]:
        """The prepared batches in turn, as a loader would give them."""
        for number in range(len(steps)):
            yield self.host_batches[number % len(self.host_batches)]

    def _loss(
        self, network: Any, batches: Batches, epoch: int, *, teacher: Any, joined: bool
    ) -> Losses:
        if joined:
            network = Joined(network, [b.get("x", b.get("strong")) for b in batches.values()])  # type: ignore[misc]
        if self.training == "base_training":
            batch = batches["base_train"]
            return {"loss": pixel_cross_entropy(network(batch["x"]), batch["y"])}
        if self.training == "basic_framework":
            return supervised_step(network, batches)
        return eums_step(network, teacher, batches, 1.0, self.recipe.eums)

    def _load(self) -> list[Batches]:
        """Two steps' batches of augmented photos, in pinned memory where there is a card."""
        size = self.kit.scale.size
        views = ImageViews(self.kit.data, Data(size=size, target_size=size, workers=0))
        plan = {source.name: source.batches(0, 0, 2) for source in self.sources}
        steps = [{name: batches[step] for name, batches in plan.items()} for step in range(2)]
        found = list(views.train_loader(self.sources)(steps, 0, 0))
        if self.kit.device != "cuda":
            return found
        return [
            {
                s: {name: view.pin_memory() for name, view in views.items()}
                for s, views in step.items()
            }
            for step in found
        ]

    def _ours(self, variant: Variant) -> Callable[[], float]:
        runtime, network, optimizer, step_loss = self.network(variant)
        load_epoch: LoadEpoch = self.load_epoch

        def epoch() -> float:
            return train_epoch(
                runtime, network, optimizer, self.sources, load_epoch, step_loss, self.config, 0, 0
            )["loss"]

        return epoch

    def _graph(self, variant: Variant) -> Callable[[], float]:
        """Our step captured once and replayed.

        Inputs are copied into its place before each replay.
        """
        runtime, network, optimizer, step_loss = self.network(variant)
        place = runtime.to_device(self.host_batches[0])
        network.train()

        def step() -> Tensor:
            with runtime.autocast():
                losses = step_loss(network, place, 0)
            optimizer.zero_grad(set_to_none=True)
            runtime.fabric.backward(losses["loss"])
            optimizer.step()
            return losses["loss"].detach()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()

        def epoch() -> float:
            for number in range(self.kit.scale.steps):
                fresh = self.host_batches[number % len(self.host_batches)]
                for source, views in place.items():
                    for name, view in views.items():
                        view.copy_(fresh[source][name], non_blocking=True)
                graph.replay()
            return loss.item()

        return epoch

    def _published(self, variant: Variant) -> Callable[[], float]:
        """float32 images normalised on the host, NCHW, one SGD for all parameters in turn,
        ``loss.item()`` after every step.
        """
        runtime = Runtime(
            self.kit.device, Compute(precision=variant.precision, channels_last=False)
        )
        model = build_segmenter(self.recipe.model, self.outputs).to(runtime.device).train()
        published.take_norms_apart(model.encoder)
        teacher = copy.deepcopy(model).requires_grad_(False) if self.training == "eums" else None
        optimizer = make_optimizer(model, self.config)
        network, teaching = Plain(model), None if teacher is None else Plain(teacher)
        batches = [self._normalised(step, model) for step in self.host_batches]

        def loss_of(step: dict[str, dict[str, Tensor]]) -> Tensor:
            moved = {
                s: {n: v.to(runtime.device, non_blocking=True) for n, v in views.items()}
                for s, views in step.items()
            }
            pairs = [(views["x"], views["y"]) for views in moved.values() if "x" in views]
            if self.training == "base_training":
                ((x, y),) = pairs
                return F.cross_entropy(network(x), y, ignore_index=255)
            if self.training == "basic_framework":
                return published.losses_of_two(network, *pairs)
            assert teaching is not None
            return published.eums_loss(
                network, teaching, *pairs, moved["unclean"]["weak"], moved["unclean"]["strong"]
            )

        def epoch() -> float:
            last = 0.0
            for number in range(self.kit.scale.steps):
                loss = loss_of(batches[number % len(batches)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                last = loss.item()
            return last

        return epoch

    def _normalised(self, step: Batches, model: Segmenter) -> dict[str, dict[str, Tensor]]:
        mean, std = (getattr(model.encoder, name).cpu() for name in ("mean", "std"))

        def ready(view: Tensor) -> Tensor:
            done = (
                view.long() if view.ndim == 3 else ((view.float() / 255 - mean) / std).contiguous()
            )
            return done.pin_memory() if self.kit.device == "cuda" else done

        return {
            source: {name: ready(view) for name, view in views.items()}
            for source, views in step.items()
        }


class Plain(nn.Module):
    """The network on normalised images, its logits at their size."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        (features,) = self.model.encoder.backbone(x)  # type: ignore[operator, union-attr]
        return F.interpolate(
            self.model.head(features), x.shape[-2:], mode="bilinear", align_corners=False
        )


class Joined(nn.Module):
    """All images of a step in one forward.

    Asked for one batch of them, it gives that batch's part.
    """

    def __init__(self, network: nn.Module, images: list[Tensor]) -> None:
        super().__init__()
        self.network = network
        parts = network(torch.cat(images)).split([len(batch) for batch in images])
        self.logits = {batch.data_ptr(): part for batch, part in zip(images, parts, strict=True)}

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images.data_ptr()]


def _sources(kit: Kit, training: str, batch: int) -> list[Source]:
    labels = label_space(kit.data, FOLD)
    truth = partial(read_truth, kit.data, labels, hide_novel=training == "base_training")
    return [
        Source(name, kit.data.train_ids, None if name == "unclean" else truth, batch)
        for name in LISTS[training]
    ]


def _profile(kit: Kit, training: str) -> Iterator[Row]:
    """The longest kernels of the best variant, the share of the time in which the device works, and
    how often a step waits for it.
    """
    if kit.device != "cuda" or (kit.only and not re.search(kit.only, f"{training}: profile")):
        return
    bench = Bench(kit, training)
    go = bench._ours(BEST)
    go()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        go()
        torch.cuda.synchronize()
    events = profile.events()
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((e.time_range.start, e.time_range.end) for e in kernels)
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    waits = Counter(
        e.name
        for e in events
        if e.name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
    )
    yield {
        "training": training,
        "variant": f"profile of: {BEST}",
        "steps": kit.scale.steps,
        "busy_share": busy / (end - spans[0][0]),
        "waits": dict(waits),
        "kernels_per_step": len(kernels) / kit.scale.steps,
    }
    total: Counter[str] = Counter()
    for event in kernels:
        total[event.name] += event.time_range.end - event.time_range.start
    for name, microseconds in total.most_common(10):
        row = {
            "training": training,
            "variant": "kernel",
            "kernel": name[:240],
            "ms": microseconds / 1e3 / kit.scale.steps,
        }
        yield {**row, "share": microseconds / busy}
