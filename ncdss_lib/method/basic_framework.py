"""Stage 3, the basic framework: fine-tune on base images and pseudo-labelled novel ones.

In: pseudo-labels for K = N (``basic``) and for over-clustering (``basic_oc``).
Out: for both, ``NAME.safetensors`` and ``NAME_history.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import Source, Targets
from ncdss_lib.method.clustering import read_pseudo_label, used_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.metrics import score
from ncdss_lib.method.training_loop import Losses, fit, pixel_cross_entropy
from ncdss_lib.models.segmenter import Segmenter, warm_start
from ncdss_lib.system.distributed import Batches


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train ``basic`` and ``basic_oc``."""
    clustering = run.folder / "clustering"
    used = used_images(clustering)
    for name in ("basic", "basic_oc"):
        clusters = run.clusters[name]
        fine_tune(
            run, name, clusters, used, partial(read_pseudo_label, clustering, clusters), folder
        )
    return {
        "base_images": len(run.splits.base),
        "novel_images": len(used),
        "epochs": run.recipe.basic_framework.epochs,
    }


def fine_tune(
    run: Context,
    name: str,
    clusters: int,
    ids: Sequence[str],
    targets: Targets,
    folder: Path,
    *,
    seed: int | None = None,
    encoder: nn.Module | None = None,
) -> Segmenter:
    """Train a network on base images with truth and on novel images with labels of any origin.

    Args:
        name: of its files in ``folder``.
        clusters: K.
        ids, targets: the novel images, and the label map of each: 0..B + K or 255.
        seed: of the fresh head; None: the run's.
        encoder: a trained one, which stays as it is; None: the pretrained one, trained as the
            recipe says.
    """
    config = run.recipe.basic_framework
    model = run.new_segmenter(clusters, seed=run.seed if seed is None else seed)
    if config.init == "base":
        warm_start(model, run.load_state("base"))
    if encoder is not None:
        model.encoder = encoder.requires_grad_(False)
    # All models share the names of the sources, so they see the same batches.
    truth = partial(read_truth, run.data, run.labels)
    base = Source("base", run.splits.base, truth, config.batch_size)
    novel = Source("novel", ids, targets, config.batch_size)

    def step_loss(model: Any, batches: Batches, epoch: int) -> Losses:
        return supervised_step(model, batches)

    fit(
        run,
        name,
        model,
        [base, novel],
        step_loss,
        config,
        folder,
        validate=lambda model: novel_miou(run, model),
    )
    return model


def supervised_step(model: Any, batches: Batches) -> Losses:
    """Half the loss from truth, half from pseudo-labels.

    Args:
        model: a network with 1 + B + K outputs.
        batches: two of them, ``base`` first, each with ``x`` and ``y``.

    Returns:
        ``loss``, and each batch's own under its name.
    """
    # Two forwards: the head's batch-norm takes the statistics of each kind of image.
    losses = {}
    for name, batch in batches.items():
        losses[name] = pixel_cross_entropy(model(batch["x"]), batch["y"])
    return {"loss": sum(losses.values()) / 2, **losses}  # type: ignore[dict-item]


def novel_miou(run: Context, model: Any) -> float:
    """Novel mIoU on validation under the published matching: what chooses an epoch there."""
    return score(confusion_on_val(run, model, run.views.size), run.labels).novel_miou or 0.0
