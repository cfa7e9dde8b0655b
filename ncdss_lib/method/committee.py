"""After EUMS (ours): what it says object by object teaches fresh heads, and all of them decide.

In: EUMS and ``basic_oc``; every novel image, also those that clustering left out.
Out: ``labels_HEAD/ID.png`` (what each head learned from), ``HEAD.safetensors`` and histories, and
``regions.safetensors``: one network whose head is the committee of EUMS and the fresh heads.

Against EUMS behind the same gate it gained nothing for novel classes on photos; the book's page
"Beyond the paper" has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ncdss_lib.data.masks import read_labels, resize_labels, write_labels
from ncdss_lib.method.basic_framework import fine_tune
from ncdss_lib.method.context import Context
from ncdss_lib.method.evaluation import evaluate
from ncdss_lib.method.inference import load_model, predict, read_images
from ncdss_lib.method.mean_teacher import hard_pseudo_labels
from ncdss_lib.method.refinement import refine
from ncdss_lib.models.segmenter import Committee, Segmenter, mean_log_probability

#: Fresh head -> the networks that label its images together.
HEADS: dict[str, tuple[str, ...]] = {"first": ("eums",), "second": ("eums", "basic_oc")}


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Label the novel images, train the fresh heads, and join them with EUMS."""
    config, clusters = run.recipe.regions, run.clusters["eums"]
    eums = load_model(run, "eums")
    networks = {"eums": eums, "basic_oc": load_model(run, "basic_oc")}
    heads = [eums.head]
    for number, (name, teachers) in enumerate(list(HEADS.items())[: config.heads]):
        labels = folder / f"labels_{name}"
        _write_labels(run, [networks[teacher] for teacher in teachers], labels)
        fresh = fine_tune(
            run,
            name,
            clusters,
            run.splits.novel,
            partial(_read, labels),
            folder,
            seed=run.seed + 3_000 + number,
            encoder=eums.encoder,
        )
        heads.append(fresh.head)

    network = Segmenter(eums.encoder, Committee(heads))
    if run.runtime.is_main:
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, folder / "regions.safetensors")
    run.runtime.barrier()
    return {
        "images": len(run.splits.novel),
        "model": evaluate(run, "regions", folder, "regions", weights=folder),
    }


def _write_labels(run: Context, networks: Sequence[nn.Module], folder: Path) -> None:
    """What some networks say together of the novel images, behind the gate, where they are sure."""
    config, ids, size = run.recipe.regions, run.splits.novel, run.views.size

    def write(found: tuple[str, np.ndarray]) -> None:
        image_id, labels = found
        shape = run.data.image(image_id).shape[:2]
        write_labels(folder / f"{image_id}.png", resize_labels(labels, shape))

    streams = [predict(run, network, ids, None, folder.name) for network in networks]
    for batches in zip(*streams, strict=True):
        logits = mean_log_probability([own for _, own in batches])
        batch = batches[0][0]
        images = read_images(run, batch, size) if config.edges == "guided" else None
        said = refine(logits, config.gate, config.gate_strength, size, images)
        labels = hard_pseudo_labels(said, config.confidence).to(torch.uint8).cpu().numpy()
        run.runtime.map(write, zip(batch, labels, strict=True))
    run.runtime.barrier()


def _read(folder: Path, image_id: str) -> np.ndarray:
    return read_labels(folder / f"{image_id}.png")
