"""Stage 3, the basic framework: fine-tune on base images and pseudo-labelled novel ones.

In: pseudo-labels for K = N (``basic``) and for over-clustering (``basic_oc``).
Out: for both, ``NAME.safetensors`` and ``NAME_history.csv``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import Source
from ncdss_lib.method.clustering import read_pseudo_label, used_images
from ncdss_lib.method.context import Context
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.metrics import score
from ncdss_lib.method.training_loop import Losses, fit, pixel_cross_entropy
from ncdss_lib.models.segmenter import warm_start
from ncdss_lib.system.distributed import Batches


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train ``basic`` and ``basic_oc``."""
    used = used_images(run.folder / "clustering")
    for name in ("basic", "basic_oc"):
        _fine_tune(run, name, run.clusters[name], used, folder)
    return {
        "base_images": len(run.splits.base),
        "novel_images": len(used),
        "epochs": run.recipe.basic_framework.epochs,
    }


def _fine_tune(run: Context, name: str, clusters: int, used: list[str], folder: Path) -> None:
    config = run.recipe.basic_framework
    model = run.new_segmenter(clusters, seed=run.seed)
    if config.init == "base":
        warm_start(model, run.load_state("base"))
    # Both models share the names of the sources, so they see the same batches.
    base = Source(
        "base", run.splits.base, partial(read_truth, run.data, run.labels), config.batch_size
    )
    novel = Source(
        "novel",
        used,
        partial(read_pseudo_label, run.folder / "clustering", clusters),
        config.batch_size,
    )

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
