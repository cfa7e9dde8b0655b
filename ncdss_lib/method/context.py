"""What the stages stand on: one data set, fold, recipe and seed, and what follows from them.

Which stages there are, and which of them are done, is no affair of a stage: see
``runs/pipeline.py``.
"""

from __future__ import annotations

import copy
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from ncdss_lib.data.dataset import SegmentationData, read_truth
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.loading import ImageViews, Views
from ncdss_lib.data.splits import Splits, label_space, make_splits
from ncdss_lib.models.cached_features import (
    FeatureCache,
    FeatureViews,
    feature_folders,
    view_folder,
)
from ncdss_lib.models.segmenter import Segmenter, build_segmenter
from ncdss_lib.recipes import Recipe, Training
from ncdss_lib.system.distributed import Runtime
from ncdss_lib.system.folders import cache_root, read_json


class Context:
    """What a stage may ask of its run: data, labels, settings, networks, devices.

    Attributes:
        data, fold, seed, recipe, folder: what is run, and where its artefacts are.
        labels, splits, views, runtime: derived, made when first used.
    """

    def __init__(
        self,
        data: SegmentationData,
        fold: int,
        seed: int,
        recipe: Recipe,
        folder: Path,
        device: str | None = "auto",
    ) -> None:
        self.data, self.fold, self.seed, self.recipe, self.folder = data, fold, seed, recipe, folder
        self.labels = label_space(data, fold)
        self.splits: Splits = make_splits(
            data, self.labels, base_list=recipe.data.base_list, mixed=recipe.data.mixed
        )
        self._device = device

    @cached_property
    def runtime(self) -> Runtime:
        return Runtime(self._device, self.recipe.compute)

    @cached_property
    def views(self) -> Views:
        """Where inputs come from.

        With cached features the caches are built here: what every fold reads once for all folds
        and seeds, strong views once for all seeds.
        """
        config, model = self.recipe.data, self.recipe.model
        if config.features == "online":
            return ImageViews(self.data, config)
        root = cache_root() / "features"
        device = (self.runtime, self.recipe.compute.inference_batch)
        folders = feature_folders(root, self.data, self.splits.novel, config, model, *device)

        @cache
        def other(size: int) -> FeatureCache:
            return FeatureCache(view_folder(root, self.data, config, model, *device, size))

        return FeatureViews(FeatureCache(*folders), self.data, config, other)

    def with_settings(self, section: str, **fields: Any) -> Self:
        """The same run, folder and all, with other values in one section of the recipe."""
        settings = getattr(self.recipe, section).model_copy(update=fields)
        variant = copy.copy(self)
        variant.recipe = self.recipe.model_copy(update={section: settings})
        return variant

    @property
    def num_novel(self) -> int | None:
        """N as it is known before clustering: of the recipe or the data set; None: to be estimated.

        Scores always count the classes of the ground truth.
        """
        wanted = self.recipe.clustering.num_novel
        if wanted is None:
            return self.labels.num_novel if self.data.knows_num_novel else None
        return None if wanted == "auto" else int(wanted)

    @property
    def clusters(self) -> dict[str, int]:
        """K of each fine-tuned model; where N is estimated, the clustering stage knows it."""
        found = self.num_novel
        if found is None:
            found = int(read_json(self.folder / "clustering" / "num_novel.json")["num_novel"])
        return self.clusters_for(found)

    def clusters_for(self, num_novel: int) -> dict[str, int]:
        """K of each fine-tuned model for N novel classes."""
        config = self.recipe.clustering
        over = config.num_clusters or num_novel * config.over_clustering
        return {"basic": num_novel, "basic_oc": over, "eums": over, "regions": over}

    def new_segmenter(self, clusters: int, *, seed: int, members: int = 1) -> Segmenter:
        """A fresh network with 1 + B + clusters outputs, on the run's kind of input and device.

        Args:
            members: heads, see :class:`ncdss_lib.models.segmenter.Committee`.
        """
        channels = sum(self.views.channels) if self.views.channels else None
        model = build_segmenter(
            self.recipe.model,
            1 + self.labels.num_base + clusters,
            feature_channels=channels,
            seed=seed,
            members=members,
        )
        return self.runtime.prepare(model)  # type: ignore[return-value]

    def truth(self, image_id: str, *, hide_novel: bool = False) -> np.ndarray:
        """Ground truth of an image in contiguous ids, uint8 [H, W].

        All 255 where nobody knows it (unlabelled images of one's own).
        """
        if not self.data.has_truth(image_id):
            return np.full(self.data.image(image_id).shape[:2], IGNORE, np.uint8)
        return read_truth(self.data, self.labels, image_id, hide_novel=hide_novel)

    def training_config(self, model: str) -> Training:
        """The settings by which a model is trained; ``regions`` as ``basic`` is."""
        recipe = self.recipe
        return {"base": recipe.base_training, "eums": recipe.eums}.get(
            model, recipe.basic_framework
        )

    def weights(self, model: str, suffix: str | None = None, folder: Path | None = None) -> Path:
        """The weights file of ``base``, ``basic``, ``basic_oc``, ``eums`` or ``regions``.

        Args:
            suffix: "" the last epoch, "_best" the best on validation, None what the recipe hands
                on.
            folder: where it is; None is the folder of the stage that trains it.
        """
        stages = {"base": "base_training", "eums": "eums", "regions": "regions"}
        stage = stages.get(model, "basic_framework")
        config = self.training_config(model)
        stem = "eums_teacher" if model == "eums" and self.recipe.eums.evaluates_teacher else model
        if suffix is None:
            suffix = "_best" if config.select == "best_val" and model != "regions" else ""
        return (folder or self.folder / stage) / f"{stem}{suffix}.safetensors"

    def load_state(self, model: str) -> dict[str, torch.Tensor]:
        """The weights of a trained model, as a plain state dict on the run's device."""
        return load_file(self.weights(model), device=str(self.runtime.device))
