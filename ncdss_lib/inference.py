"""Inference that every stage shares: trained models by name, and their logits over a list of images, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ncdss_lib.models.segmenter import Segmenter, upsample
from ncdss_lib.system.errors import InputError

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run


@torch.inference_mode()
def predict(run: Run, model: nn.Module, ids: Sequence[str], size: int, what: str = "predict") -> Iterator[tuple[list[str], Tensor]]:
    """Logits of this process's share of the images, not augmented, in evaluation mode.

    Args:
        size: side in pixels to which logits are resized.
        what: caption of the progress bar.

    Yields:
        Image ids and float32 [B, outputs, size, size] on the run's device.
    """
    model.eval()
    mine, batch = run.runtime.shard(ids), run.recipe.compute.inference_batch
    batches = run.views.clean(mine, batch)
    for names, inputs in tqdm(batches, total=-(-len(mine) // batch), desc=what, unit="batch", leave=False, disable=not run.runtime.is_main):
        with run.runtime.autocast():
            logits = model(run.runtime.to_device(inputs))
        yield names, upsample(logits.float(), size)


def load_model(run: Run, name: str, suffix: str | None = None, folder: Path | None = None) -> Segmenter:
    """A trained network of a run, in evaluation mode.

    Args:
        name: base, basic, basic_oc or eums.
        suffix, folder: see :meth:`Run.weights`.
    """
    model = run.new_segmenter(run.clusters.get(name, 0), seed=run.seed)
    load_weights(model, run.weights(name, suffix, folder))
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights strictly.

    Raises:
        InputError: the file is not there, cannot be read, or belongs to another configuration.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}. Run the stage that makes it, or check the path.")
    try:
        weights = safetensors.torch.load_file(path)
    except Exception as error:  # the library raises a type of its own that it does not export
        raise InputError(f"checkpoint {path} cannot be read ({error}). Delete its stage folder and run again.") from None
    own = model.state_dict()
    wrong = [name for name in own if name not in weights] + [name for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        if weights[name].shape != own[name].shape:
            wrong.append(f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}")
    if wrong:
        raise InputError(
            f"checkpoint {path} is of another configuration: {wrong[0]} does not fit ({len(wrong)} such tensors). "
            "Use the recipe and overrides that it was trained with."
        )
    model.load_state_dict(weights)
