"""One step of base training of the paper's network: plain float32 against ours, and the machine's
convolution throughput.

Smaller than in the paper (256 pixels, two images), so that it fits into a minute on a CPU.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main
from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.method.training_loop import make_optimizer, pixel_cross_entropy
from ncdss_lib.models.segmenter import build_segmenter
from ncdss_lib.recipes import BaseTraining, Compute, Model
from ncdss_lib.system.distributed import Runtime


def make_input(data: Pascal5i, size: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [B, 3, S, S], channels-last as our views give them, and int64 [B, S, S]."""
    labels, ids = label_space(data, 0), data.train_ids[:batch]
    images = torch.from_numpy(np.stack([resize_image(data.image(i), size) for i in ids])).permute(
        0, 3, 1, 2
    )
    targets = np.stack(
        [resize_labels(read_truth(data, labels, i, hide_novel=True), size) for i in ids]
    )
    return images, torch.from_numpy(targets).long()


def sides(
    x: torch.Tensor, y: torch.Tensor, config: Model, precision: str = "auto"
) -> tuple[dict[str, Callable[[], Any]], str]:
    """Both steps, from the same weights, each returning its loss; and the precision of ours."""
    runtime, training = Runtime("auto", Compute(precision=precision)), BaseTraining()
    plain = build_segmenter(config, 16).to(runtime.device).train()
    model = runtime.prepare(copy.deepcopy(plain))
    published.take_norms_apart(plain.encoder)
    optimizers = [make_optimizer(m, training) for m in (plain, model)]
    network, optimizer = runtime.setup(model, optimizers[1])
    network.train()
    # The published loader does this.
    mean, std = plain.encoder.mean.cpu(), plain.encoder.std.cpu()
    normalised = ((x.float() / 255 - mean) / std).contiguous()

    def published_step() -> float:
        torch.manual_seed(0)
        moved = normalised.to(runtime.device), y.to(runtime.device)
        return published.training_step(
            plain.encoder.backbone, plain.head, optimizers[0], *moved
        ).item()

    def our_step() -> float:
        torch.manual_seed(0)
        batch = runtime.to_device({"x": x, "y": y})
        loss = pixel_cross_entropy(network(batch["x"]), batch["y"])
        optimizer.zero_grad(set_to_none=True)
        runtime.fabric.backward(loss)
        optimizer.step()
        return loss.item()

    return {"published": published_step, "ours": our_step}, runtime.precision


def convolution(
    dtype: torch.dtype, device: torch.device, *, channels: int = 256, side: int = 64, batch: int = 4
) -> tuple[Callable[[], Any], float]:
    """A large 3x3 convolution, channels-last, and its operations: the machine's best."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(
        device, dtype, memory_format=torch.channels_last
    )
    x = torch.randn(batch, channels, side, side, device=device).to(
        dtype, memory_format=torch.channels_last
    )

    def call() -> None:
        with torch.inference_mode():
            conv(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call, 2 * batch * channels * channels * 9 * side * side


#: What the operations of a step are for, by the first of these words that an operation's name
#: holds.
KINDS = {
    "convolution": ("conv",),
    "batch-norm": ("batch_norm",),
    "copies: weights to bf16, layouts": ("copy_", "contiguous", "clone", "reorder", "cat"),
    "upsampling, softmax and loss": ("upsample", "softmax", "nll_loss"),
    "ReLU, sums, dropout": (
        "relu",
        "threshold",
        "add",
        "mul",
        "dropout",
        "bernoulli",
        "sum",
        "div",
    ),
}


def split(step: Callable[[], Any]) -> dict[str, float]:
    """Share of the operations' own time in a step, by kind; what is in no kind is "other"."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    shares: Counter[str] = Counter()
    for event in profile.key_averages():
        name = event.key.lower()
        kind = next(
            (kind for kind, words in KINDS.items() if any(word in name for word in words)), "other"
        )
        shares[kind] += event.self_cpu_time_total
    return {kind: time / shares.total() for kind, time in shares.most_common()}


def run(
    data: Pascal5i,
    *,
    size: int = 256,
    batch: int = 2,
    repeats: int = 3,
    encoder: str = "resnet50.tv_in1k",
) -> list[Figure]:
    steps, precision = sides(*make_input(data, size, batch), Model(encoder=encoder, weights="none"))
    with FlopCounterMode(display=False) as counter:
        steps["ours"]()
    convolutions = {
        name: convolution(dtype, Runtime("auto").device)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    # All take turns, so that the shares hold on a busy machine too.
    seconds = interleaved(
        {**steps, **{name: call for name, (call, _) in convolutions.items()}}, repeats
    )
    peak = {name: operations / seconds[name] for name, (_, operations) in convolutions.items()}
    reached = {name: counter.get_total_flops() / seconds[name] for name in steps}
    return [
        faster(f"a training step, {batch} images of {size} px, ours in {precision}", seconds, 1.0),
        *(
            Figure(f"convolution throughput, {name}", value / 1e9, "GFLOP/s")
            for name, value in peak.items()
        ),
        Figure("operations of a step", counter.get_total_flops() / 1e9, "GFLOP"),
        Figure(
            "share of the throughput that our step reaches",
            reached["ours"] / peak[precision],
            "",
            None,
            f"of {precision}'s",
        ),
        *(
            Figure(f"share of our step's time: {kind}", share, "")
            for kind, share in split(steps["ours"]).items()
        ),
        Figure(
            "share that the published step reaches",
            reached["published"] / peak["fp32"],
            "",
            None,
            "of fp32's",
        ),
    ]


if __name__ == "__main__":
    main({"training_step": run}, __doc__)
