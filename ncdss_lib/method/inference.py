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
from ncdss_lib.models.checkpoints import count_members, load_strictly, read_state_dict
from ncdss_lib.models.segmenter import Segmenter, upsample
from ncdss_lib.recipes import Gated, Recipe

#: How a network sees an image: how much larger, and whether mirrored.
View = tuple[float, bool]
#: ``evaluation.views`` -> the views whose mean decides.
VIEWS: dict[str, tuple[View, ...]] = {
    "one": ((1.0, False),),
    "flip": ((1.0, False), (1.0, True)),
    "scales": ((1.0, False), (1.0, True), (1.4, False), (1.4, True)),
}


@torch.inference_mode()
def predict(
    run: Context,
    model: nn.Module,
    ids: Sequence[str],
    size: int | None,
    what: str = "predict",
    behind: Gated | None = None,
    view: View = (1.0, False),
) -> Iterator[tuple[list[str], Tensor]]:
    """Logits of this process's share of the images, not augmented, in evaluation mode.

    Args:
        size: side in pixels to which logits are resized; None leaves them at the head's.
        what: caption of the progress bar.
        behind: the section of the recipe whose gate logits pass before they are resized, see
            :func:`ncdss_lib.method.refinement.gate`; None: no gate.
        view: how the network sees the images, see :data:`VIEWS`.

    Yields:
        Image ids and float32 [b, outputs, size, size] on the run's device.
    """
    model.eval()
    mine, batch = run.runtime.shard(ids), run.recipe.compute.inference_batch
    scale, flip = view
    batches = run.views.clean(mine, batch, view_size(run.recipe, scale), flip)
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


def predict_views(
    run: Context, model: nn.Module, ids: Sequence[str], views: str, what: str
) -> Iterator[tuple[list[str], Tensor]]:
    """:func:`predict`, unresized, as the mean over several views of each image.

    Args:
        views: a key of :data:`VIEWS`.
    """
    streams = [predict(run, model, ids, None, what, view=view) for view in VIEWS[views]]
    for batches in zip(*streams, strict=True):
        yield batches[0][0], mean_of_views([logits for _, logits in batches], VIEWS[views])


def mean_of_views(logits: Sequence[Tensor], seen: Sequence[View]) -> Tensor:
    """The mean of what a network says of several views of the same images.

    Args:
        logits: of each view, float [b, C, h, w], of any size.
        seen: what each view was.

    Returns:
        Of one view its logits as they are; else the logarithms of the mean probabilities, at the
        size of the largest, float32 [b, C, h, w].
    """
    if len(logits) == 1:
        return logits[0]
    size = max(own.shape[-1] for own in logits)
    said = []
    for own, (_, mirrored) in zip(logits, seen, strict=True):
        probability = upsample(own.softmax(1), size)
        said.append(probability.flip(3) if mirrored else probability)
    return torch.stack(said).mean(0).clamp(min=1e-30).log()


def view_size(recipe: Recipe, scale: float) -> int:
    """The side of a view in pixels: the nearest multiple of 32, or of the encoder's patch."""
    step = 32 if 32 % recipe.model.output_stride == 0 else recipe.model.output_stride
    return recipe.data.size if scale == 1 else round(recipe.data.size * scale / step) * step


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
    path = run.weights(name, suffix, folder)
    weights = read_state_dict(path)
    model = run.new_segmenter(clusters, seed=run.seed, members=count_members(weights))
    load_strictly(model, weights, path)
    return model.eval()
