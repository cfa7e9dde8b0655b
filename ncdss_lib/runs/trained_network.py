"""A trained network from a checkpoint alone, with its settings and the names of its outputs.

A checkpoint of ours brings its settings in the manifest of its stage folder, and the classes of its
clusters in the report of its run. A released one is the ``paper`` recipe's network; data set and
fold name its classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ncdss_lib.data import open_dataset
from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.data.coco20i import Coco20i
from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.palette import Look, class_look, cluster_look
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.splits import label_space
from ncdss_lib.data.toyscenes import ToyScenes
from ncdss_lib.method.inference import VIEWS, mean_of_views, view_size
from ncdss_lib.method.refinement import refine
from ncdss_lib.models.checkpoints import Checkpoint, Network, load_strictly, read_checkpoint
from ncdss_lib.models.segmenter import Segmenter, build_segmenter
from ncdss_lib.recipes import Data, Recipe, load_recipe, without_retired
from ncdss_lib.runs.report import read_report
from ncdss_lib.system.distributed import Runtime
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import MANIFEST, manifest, refuse_damage

# Data sets whose classes are known without a data folder.
_FIXED: dict[str, Any] = {"pascal5i": Pascal5i, "coco20i": Coco20i, "toyscenes": ToyScenes}


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network on its device, and what its outputs mean.

    Attributes:
        checkpoint: where its weights come from.
        recipe: the settings that it was trained with.
        labels: base and novel classes.
        cluster_to_class: the class of cluster 1..K by the published matching of its run; None where
            that is not known.
        model: maps uint8 images [b, 3, S, S] to logits [b, 1 + B + K, h, w]; in evaluation mode.
        runtime: its device and precision.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    labels: LabelSpace
    cluster_to_class: dict[int, str] | None
    model: Segmenter
    runtime: Runtime

    @property
    def size(self) -> int:
        """Side in pixels to which images are resized."""
        return self.recipe.data.size

    @property
    def clusters(self) -> int:
        """K, the outputs beyond background and base classes."""
        return self.model.outputs - 1 - self.labels.num_base

    @cached_property
    def look(self) -> Look:
        """Names and colours of the labels that :meth:`predict_image` gives."""
        if self.cluster_to_class or not self.clusters:
            return class_look(self.labels)
        return cluster_look(self.labels, self.clusters)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of these labels from 0: background, base classes, novel classes or clusters."""
        count = len(self.labels.names) if self.cluster_to_class else self.model.outputs
        return tuple(self.look.names[label] for label in range(count))

    @cached_property
    def _label_of_output(self) -> np.ndarray:
        table = np.arange(self.model.outputs, dtype=np.uint8)
        for cluster, name in (self.cluster_to_class or {}).items():
            table[self.labels.num_base + cluster] = self.labels.names.index(name)
        return table

    @torch.inference_mode()
    def predict_image(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment one image at the network's size, and resize by nearest neighbour, as published.

        Args:
            image: RGB, uint8 [H, W, 3], of any size.

        Returns:
            Labels uint8 [H, W], contiguous ids that :attr:`names` names, and float32 [H, W] in
            0..1, the probability of the output that won.
        """
        config = self.recipe.evaluation
        views = VIEWS[config.views]
        logits = []
        for scale, flip in views:
            inputs = self._input(image, view_size(self.recipe, scale))
            with self.runtime.autocast():
                logits.append(self.model(inputs.flip(3) if flip else inputs).float())
        guide = self._input(image, self.size) if config.edges == "guided" else None
        together = mean_of_views(logits, views)
        said = refine(together, config.gate, config.gate_strength, self.size, guide)
        probability, output = said.softmax(1)[0].max(0)
        labels = self._label_of_output[output.cpu().numpy()]
        shape = image.shape[:2]
        return resize_labels(labels, shape), resize_labels(probability.cpu().numpy(), shape)

    def _input(self, image: np.ndarray, size: int) -> torch.Tensor:
        """The image at a size, uint8 [1, 3, size, size] on the device."""
        resized = torch.from_numpy(resize_image(np.ascontiguousarray(image), size))
        return self.runtime.to_device(resized.permute(2, 0, 1)[None])


def open_checkpoint(
    path: Path,
    dataset: str | None = None,
    data_root: str | None = None,
    fold: int = 0,
    overrides: Sequence[str] = (),
    device: str | None = None,
    network: Network = "student",
    clusters: int | None = None,
) -> TrainedNetwork:
    """Load a trained network from its checkpoint.

    Args:
        path: a ``.safetensors`` file in the stage folder of a run, or a released ``.pth.tar``.
        dataset, fold: what it was trained on; None takes what the report of its run says. A
            released checkpoint needs them.
        data_root: asked of ``dataset="folder"`` only, whose class names lie there.
        overrides: ``stage.field=value``, over the settings that it was trained with.
        device: auto, cpu or cuda; None takes ``$NCDSS_DEVICE``, or auto.
        network: see :func:`~ncdss_lib.models.checkpoints.read_checkpoint`.
        clusters: K that is expected; None takes the file's.

    Raises:
        InputError: see :func:`~ncdss_lib.models.checkpoints.read_checkpoint`; its manifest is
            missing; its stage is damaged; its classes are not known, or others than those of
            ``dataset``; another K; or other tensors than the network's.
    """
    # what it does not hold itself: ours by its run, a released one is told it
    checkpoint = read_checkpoint(Path(path), network)
    report: dict[str, Any] = {}
    matching = None
    stored = ["model.weights=none"]
    if not checkpoint.released:
        stage = _stage_folder(checkpoint.path)
        refuse_damage(stage)
        if (stage.parent / "report.json").is_file():
            report = read_report(stage.parent / "report.json")
            matching = _matching(checkpoint.path, stage, report)
        stored = _stored_settings(checkpoint, manifest(stage)["settings"], report)
    published = dataset if checkpoint.released else None
    recipe = load_recipe("paper", [*stored, *overrides], published)
    labels = _labels(checkpoint.path, report, dataset, data_root, fold, recipe.data)
    _check_outputs(checkpoint, labels, clusters)

    # the network on its device
    runtime = Runtime(device, recipe.compute)
    model = build_segmenter(recipe.model, checkpoint.outputs, members=checkpoint.members)
    weights = checkpoint.weights
    if checkpoint.layout == "ours, head only":  # the encoder is the one that it was trained on
        encoder = model.encoder.state_dict().items()
        weights = {**{f"encoder.{name}": tensor for name, tensor in encoder}, **weights}
    load_strictly(model, weights, checkpoint.path)
    prepared = cast(Segmenter, runtime.prepare(model).eval())
    return TrainedNetwork(checkpoint, recipe, labels, matching, prepared, runtime)


def _stage_folder(path: Path) -> Path:
    """The folder with the manifest of its stage: its own, or that above a row of the ablation."""
    for folder in path.absolute().parents[:2]:
        if "settings" in manifest(folder):
            return folder
    raise InputError(
        f"{path} is a checkpoint of this program, but the {MANIFEST} of its stage is not beside "
        "it, or damaged, so its settings are not known. Give the file inside its run folder."
    )


def _stored_settings(
    checkpoint: Checkpoint, settings: dict[str, Any], report: dict[str, Any]
) -> list[str]:
    """As overrides: the settings of its stage (they decide), and those of its run for the rest."""
    scored_at = {"evaluation": {"size": settings["data"]["size"]}}
    stored = []
    config = without_retired({**scored_at, **report.get("config", {}), **settings})
    for section, fields in config.items():
        stored += [f"{section}.{field}={json.dumps(value)}" for field, value in fields.items()]
    stored.append("data.features=online")  # images always go through the encoder
    if checkpoint.layout == "ours":  # else a frozen encoder, whose weights are where they were
        stored.append("model.weights=none")
    return stored


def _labels(
    path: Path,
    report: dict[str, Any],
    dataset: str | None,
    data_root: str | None,
    fold: int,
    config: Data,
) -> LabelSpace:
    """The classes of the data set that is given, which must be those of its run; or those."""
    names = [*report["classes"]["base"], *report["classes"]["novel"]] if report else []
    if dataset is None and not report:
        raise InputError(
            f"{path} does not say what its classes are: give the data set and fold that it was "
            "trained on, e.g. --dataset pascal5i --fold 0."
        )
    if dataset is None:
        dataset = str(report["dataset"])
        fold = report["fold"]
        if dataset not in _FIXED:
            first = len(report["classes"]["base"]) + 1
            return LabelSpace(tuple(names), tuple(range(first, len(names) + 1)))
    data = _FIXED.get(dataset)
    data = data or open_dataset(dataset, data_root, None, config, needs_saliency=False)
    labels = label_space(data, fold)
    if report and list(labels.names[1:]) != names:
        theirs = f"{report['dataset']}, fold {report['fold']}"
        raise InputError(
            f"{path} was trained on {theirs}, whose classes are not those of {dataset}, fold "
            f"{fold}. Give --dataset {report['dataset']} --fold {report['fold']}."
        )
    return labels


def _check_outputs(checkpoint: Checkpoint, labels: LabelSpace, clusters: int | None) -> None:
    least = 1 + labels.num_base
    has = f"{checkpoint.path} has {checkpoint.outputs} outputs"
    if checkpoint.outputs < least:
        raise InputError(
            f"{has}, but background and {labels.num_base} base classes need {least}. Give the data "
            "set and fold that it was trained on (--dataset, --fold)."
        )
    if checkpoint.outputs > IGNORE:
        raise InputError(f"{has}. Expected at most {IGNORE}: label maps have 8 bits.")
    if clusters is not None and checkpoint.outputs - least != clusters:
        raise InputError(
            f"{has}, so K = {checkpoint.outputs - least} with {labels.num_base} base classes, not "
            f"the K = {clusters} that was asked for. Give the checkpoint of that model, or its K."
        )


def _matching(path: Path, stage: Path, report: dict[str, Any]) -> dict[int, str] | None:
    """Cluster -> class by the published matching, if the report scored this very file."""
    name = re.fullmatch(r"(base|basic|basic_oc|eums|regions)(_teacher)?(_best)?", path.stem)
    if name is None:
        return None
    if (stage / MANIFEST).stat().st_mtime_ns > (stage.parent / "report.json").stat().st_mtime_ns:
        return None  # it was made after the report

    # of EUMS, the run has scored one network
    model, teacher, best = name.groups()
    if model == "eums":
        has_teacher = path.with_name(f"eums_teacher{best or ''}.safetensors").is_file()
        scores_teacher = report["config"]["eums"]["inference"] == "teacher" and has_teacher
        if scores_teacher != bool(teacher):
            return None

    # its entry: a model, or a row of the ablation, at the last epoch or the best
    in_row = path.absolute().parent != stage
    row = path.absolute().parent.name
    entry = report.get("ablation", {}).get(row) if in_row else report["models"].get(model)
    if entry and best:
        entry = entry["protocols"].get("best_epoch")
    classes = entry["matching"]["cluster_to_class"] if entry else {}
    if not classes or not all(classes.values()):
        return None
    return {int(cluster): name for cluster, name in classes.items()}
