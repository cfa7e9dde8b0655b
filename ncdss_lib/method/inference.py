"""Inference that every stage shares: trained models by name, and their logits, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.method.context import Context
from ncdss_lib.method.refinement import gate
from ncdss_lib.models.checkpoints import load_weights
from ncdss_lib.models.segmenter import Segmenter, upsample
from ncdss_lib.recipes import Gated


@torch.inference_mode()
def predict(
    run: Context,
    model: nn.Module,
    ids: Sequence[str],
    size: int | None,
    what: str = "predict",
    behind: Gated | None = None,
) -> Iterator[tuple[list[str], Tensor]]:
    """Logits of this process's share of the images, not augmented, in evaluation mode.

    Args:
        size: side in pixels to which logits are resized; None leaves them at the head's.
        what: caption of the progress bar.
        behind: the section of the recipe whose gate logits pass before they are resized, see
            :func:`ncdss_lib.method.refinement.gate`; None: no gate.

    Yields:
        Image ids and float32 [b, outputs, size, size] on the run's device.
    """
    model.eval()
    mine, batch = run.runtime.shard(ids), run.recipe.compute.inference_batch
    batches = run.views.clean(mine, batch)
    for names, inputs in tqdm(
        batches,
        total=-(-len(mine) // batch),
        desc=what,
        unit="batch",
        leave=False,
        disable=not run.runtime.is_main,
    ):
        with run.runtime.autocast():
            logits = model(run.runtime.to_device(inputs))
        logits = logits.float()
        if behind is not None:
            logits = gate(logits, behind.gate, behind.gate_strength)
        yield names, upsample(logits, size)


def read_images(run: Context, ids: Sequence[str], size: int) -> Tensor:
    """Images at a size, uint8 [b, 3, size, size] on the run's device."""
    images = run.runtime.map(lambda i: resize_image(run.data.image(i), size), ids)
    return run.runtime.to_device(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))


def load_model(
    run: Context, name: str, suffix: str | None = None, folder: Path | None = None
) -> Segmenter:
    """A trained network of a run, in evaluation mode.

    Args:
        name: base, basic, basic_oc, eums or regions.
        suffix, folder: see :meth:`Context.weights`.
    """
    clusters = 0 if name == "base" else run.clusters[name]
    members = run.recipe.regions.members if name == "regions" else 1
    model = run.new_segmenter(clusters, seed=run.seed, members=members)
    load_weights(model, run.weights(name, suffix, folder))
    return model.eval()
