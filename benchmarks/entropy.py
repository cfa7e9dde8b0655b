"""Entropy scoring of one image, upsampling excluded: 26 outputs at 512 pixels, regions of the
data's saliency maps.
"""

from __future__ import annotations

from statistics import mean

import torch
import torch.nn.functional as F

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.method.entropy_ranking import region_entropy


def make_input(
    data: Pascal5i, images: int, size: int, outputs: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Upsampled logits, float32 [1, C, S, S], and regions, each bool [1, S, S]."""
    maps = (data.saliency(i) for i in data.train_ids[: 2 * images])
    regions = [
        torch.from_numpy(resize_labels(salient, size))[None]
        for salient in maps
        if salient is not None
    ][:images]
    coarse = 3 * torch.randn(
        1, outputs, size // 8, size // 8, generator=torch.Generator().manual_seed(0)
    )
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False), regions


def run(
    data: Pascal5i, *, images: int = 16, size: int = 512, outputs: int = 26, repeats: int = 5
) -> list[Figure]:
    logits, regions = make_input(data, images, size, outputs)
    # As our networks give them.
    channels_last = logits.contiguous(memory_format=torch.channels_last)
    sides = {
        "published": lambda: [published.entropy(logits, region) for region in regions],
        "ours": lambda: [region_entropy(channels_last, region) for region in regions],
    }
    share = mean(region.float().mean().item() for region in regions)
    return [
        faster("entropy of an image", interleaved(sides, repeats), 2, per=len(regions)),
        Figure("share of an image that its region covers, mean", share, ""),
    ]


if __name__ == "__main__":
    main({"entropy": run}, __doc__)
