"""Stage 1, base training: supervised segmentation of the base classes.

In: images with a base class and their ground truth, novel classes hidden as background.
Out: ``base.safetensors``, ``base_history.csv``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ncdss_lib.data.dataset import read_truth
from ncdss_lib.data.loading import Source
from ncdss_lib.method.context import Context
from ncdss_lib.method.evaluation import confusions
from ncdss_lib.method.metrics import score
from ncdss_lib.method.training_loop import Losses, fit, pixel_cross_entropy
from ncdss_lib.system.distributed import Batches


def compute(run: Context, folder: Path) -> dict[str, Any]:
    """Train the base model with 1 + B outputs."""
    config = run.recipe.base_training
    model = run.new_segmenter(0, seed=run.seed)
    labelled = Source(
        "base_train",
        run.splits.base_train,
        partial(read_truth, run.data, run.labels, hide_novel=True),
        config.batch_size,
    )

    def step_loss(model: Any, batches: Batches, epoch: int) -> Losses:
        batch = batches["base_train"]
        return {"loss": pixel_cross_entropy(model(batch["x"]), batch["y"])}

    presence, base_ids = run.data.presence(), set(run.labels.base_ids)
    base_val = [i for i in run.splits.val if base_ids.intersection(presence[i])]

    def miou(model: Any) -> float:
        """Over background and base classes, on validation images with a base class."""
        counts = confusions(run, model, run.views.size, base_val).total
        return score(counts, run.labels).all_miou or 0.0

    fit(run, "base", model, [labelled], step_loss, config, folder, validate=miou)
    return {"images": len(labelled.ids), "epochs": config.epochs}
