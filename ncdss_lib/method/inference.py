"""Inference that every stage shares: trained models by name, and their logits, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ncdss_lib.method.context import Context
from ncdss_lib.models.checkpoints import load_weights
from ncdss_lib.models.segmenter import Segmenter, upsample


@torch.inference_mode()
def predict(
    run: Context, model: nn.Module, ids: Sequence[str], size: int, what: str = "predict"
) -> Iterator[tuple[list[str], Tensor]]:
    """Logits of this process's share of the images, not augmented, in evaluation mode.

    Args:
        size: side in pixels to which logits are resized.
        what: caption of the progress bar.

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
        yield names, upsample(logits.float(), size)


def load_model(
    run: Context, name: str, suffix: str | None = None, folder: Path | None = None
) -> Segmenter:
    """A trained network of a run, in evaluation mode.

    Args:
        name: base, basic, basic_oc or eums.
        suffix, folder: see :meth:`Context.weights`.
    """
    model = run.new_segmenter(run.clusters.get(name, 0), seed=run.seed)
    load_weights(model, run.weights(name, suffix, folder))
    return model.eval()
