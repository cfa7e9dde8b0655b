"""Matching and IoU of given predictions, without the network, at 512 pixels: fold 0, twice as many
clusters as classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import published
from benchmarks.measure import Figure, faster, interleaved, main
from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.label_space import LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.method.metrics import Scores, confusion_matrix, score

Maps = list[np.ndarray]


def make_input(
    data: Pascal5i, labels: LabelSpace, images: int, size: int, clusters: int
) -> tuple[Maps, Maps]:
    """True maps, and predictions as a network of stride 8 makes them: noisy logits around the
    truth, upsampled, one cluster an object.
    """
    rng, outputs = np.random.default_rng(0), 1 + labels.num_base + clusters
    truths = [resize_labels(read_truth(data, labels, i), size) for i in data.val_ids[:images]]
    predictions = []
    for truth in truths:
        coarse = truth[4::8, 4::8].astype(int)
        coarse[coarse == 255] = 0
        novel = coarse > labels.num_base
        coarse[novel] = (
            1 + labels.num_base + rng.permutation(clusters)[coarse[novel] - 1 - labels.num_base]
        )
        logits = 4 * np.eye(outputs, dtype=np.float32)[coarse] + rng.normal(
            size=(*coarse.shape, outputs)
        ).astype(np.float32)
        upsampled = F.interpolate(
            torch.from_numpy(logits).permute(2, 0, 1)[None],
            (size, size),
            mode="bilinear",
            align_corners=False,
        )
        predictions.append(upsampled[0].argmax(0).to(torch.uint8).numpy())
    return truths, predictions


def ours(truths: Maps, predictions: Maps, labels: LabelSpace, clusters: int) -> Scores:
    total = np.zeros((len(labels.names), 1 + labels.num_base + clusters), np.int64)
    for truth, prediction in zip(truths, predictions, strict=True):
        total += confusion_matrix(
            torch.from_numpy(truth), torch.from_numpy(prediction), *total.shape
        ).numpy()
    return score(total, labels)


def run(data: Pascal5i, *, images: int = 24, size: int = 512, repeats: int = 7) -> list[Figure]:
    labels = label_space(data, 0)
    clusters = 2 * labels.num_novel
    truths, predictions = make_input(data, labels, images, size, clusters)
    sizes = (labels.num_base, labels.num_novel, clusters)
    rows, columns = len(labels.names), 1 + labels.num_base + clusters
    sides = {
        "published": lambda: published.scoring(truths, predictions, *sizes),
        "numpy": lambda: published.scoring_by_histograms(truths, predictions, *sizes),
        "histogram": lambda: [
            published.histogram(t, p, rows, columns)
            for t, p in zip(truths, predictions, strict=True)
        ],
        "ours": lambda: ours(truths, predictions, labels, clusters),
    }
    seconds = interleaved(sides, repeats)
    return [
        faster(
            "scoring an image, published: masks of every class and pair",
            seconds,
            40,
            per=len(truths),
        ),
        faster(
            "... against good NumPy: two passes of np.bincount, to match and to score",
            seconds,
            10,
            published="numpy",
            per=len(truths),
        ),
        faster(
            "... against one pass of np.bincount",
            seconds,
            None,
            published="histogram",
            per=len(truths),
        ),
    ]


if __name__ == "__main__":
    main({"scoring": run}, __doc__)
