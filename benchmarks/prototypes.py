"""Prototype pooling without the network: 2048 channels at stride 8 of 512 pixels, one image."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main, peak_bytes
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.method.clustering import adjoint_mask, masked_prototype


def ours(features: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    weights = torch.from_numpy(adjoint_mask(mask, *features.shape[-2:]))
    return masked_prototype(features[None], weights[None])[0]


def make_input(data: Pascal5i, size: int, channels: int) -> tuple[torch.Tensor, np.ndarray]:
    """Features as after a ReLU, float32 [C, size / 8, size / 8] as the network leaves them, and a
    real saliency map.
    """
    image_id = next(i for i in data.train_ids if data.saliency(i) is not None)
    features = torch.randn(
        channels, size // 8, size // 8, generator=torch.Generator().manual_seed(0)
    ).relu()
    return features, resize_labels(data.saliency(image_id), size)


def run(data: Pascal5i, *, size: int = 512, channels: int = 2048, repeats: int = 5) -> list[Figure]:
    features, mask = make_input(data, size, channels)
    channels_last = features[None].to(memory_format=torch.channels_last)[0]  # as our networks run
    float_mask = torch.from_numpy(mask).float()
    sides = {
        "published": lambda: published.prototype(features, float_mask),
        "ours": lambda: ours(channels_last, mask),
    }
    seconds = interleaved(sides, repeats)
    memory = {name: peak_bytes(call) for name, call in sides.items()}
    detail = (
        f"published {memory['published'] / 1e6:.0f} MB, ours {memory['ours'] / 1e6:.2f} MB an "
        "image, beside the features"
    )
    difference = (sides["published"]() - sides["ours"]()).abs().max().item()
    return [
        faster("time of pooling one image", seconds, 100),
        Figure(
            "memory of pooling one image",
            memory["published"] / memory["ours"],
            "x less",
            100,
            detail,
        ),
        Figure("greatest difference of a component of the prototype", difference, ""),
    ]


if __name__ == "__main__":
    main({"prototypes": run}, __doc__)
