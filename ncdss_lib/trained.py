"""Trained networks from a checkpoint alone: score one on a data set, or segment any pictures with it.

A checkpoint of ours brings its settings in the manifest of its stage folder, and the class names of its clusters in the report of its
run. A released one (:mod:`ncdss_lib.models.checkpoints`) is the ``paper`` recipe's network; data set and fold name its classes.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ncdss_lib.data import open_dataset
from ncdss_lib.data.base import label_space
from ncdss_lib.data.coco20i import Coco20i
from ncdss_lib.data.files import list_files, opened
from ncdss_lib.data.label_maps import resize_labels
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.data.toyscenes import ToyScenes
from ncdss_lib.data.views import resize_image
from ncdss_lib.labels import IGNORE, LabelSpace
from ncdss_lib.models.checkpoints import Checkpoint, Network, load_strictly, read_checkpoint
from ncdss_lib.models.segmenter import Segmenter, build_segmenter, upsample
from ncdss_lib.pipeline import Run
from ncdss_lib.recipes import Recipe, load_recipe
from ncdss_lib.runs.report import NAMES, PAPER, PROTOCOLS, SCORES
from ncdss_lib.runtime import Runtime
from ncdss_lib.stages.evaluation import confusions, protocols
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import MANIFEST, cache_root, commit_folder, disk_errors, partial_folder, read_json, write_json
from ncdss_lib.viz.palette import Look, class_look, cluster_look, paint, to_hex

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_WITH_FIXED_CLASSES: dict[str, Any] = {"pascal5i": Pascal5i, "coco20i": Coco20i, "toyscenes": ToyScenes}  # names need no data folder
_TRAININGS = ("base_training", "basic_framework", "eums")


@dataclass(frozen=True)
class Trained:
    """A trained network on its device, and what its outputs mean.

    Attributes:
        checkpoint: where its weights come from.
        model: maps uint8 images [B, 3, S, S] to logits [B, 1 + B + K, h, w]; in evaluation mode.
        recipe: the settings that it was trained with.
        labels: base and novel classes.
        cluster_to_class: the class of cluster 1..K by the published matching of its run; None where that is not known.
    """

    checkpoint: Checkpoint
    model: Segmenter
    recipe: Recipe
    runtime: Runtime
    labels: LabelSpace
    cluster_to_class: dict[int, str] | None

    @property
    def network(self) -> Network | None:
        """Which of the two networks of EUMS; None for a model that has one."""
        if self.checkpoint.layout == "released EUMS":
            return self.checkpoint.network
        if self.checkpoint.released or not self.checkpoint.path.name.startswith("eums"):
            return None
        return "teacher" if "_teacher" in self.checkpoint.path.name else "student"

    @property
    def size(self) -> int:
        """Side in pixels to which pictures are resized."""
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
        """Names of the labels that :meth:`predict_image` gives, from 0: background, base classes, novel classes or clusters."""
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
        """Segment one picture at the network's size; the result is resized by nearest neighbour, as published (section 11).

        Args:
            image: RGB, uint8 [H, W, 3], of any size.

        Returns:
            Labels uint8 [H, W], contiguous ids that :attr:`names` names, and float32 [H, W] in 0..1, the probability of the output
            that won.
        """
        inputs = torch.from_numpy(resize_image(np.ascontiguousarray(image), self.size)).permute(2, 0, 1)[None]
        with self.runtime.autocast():
            logits = self.model(self.runtime.to_device(inputs))
        probability, output = upsample(logits.float(), self.size).softmax(1)[0].max(0)
        labels = self._label_of_output[output.cpu().numpy()]
        return resize_labels(labels, image.shape[:2]), resize_labels(probability.cpu().numpy(), image.shape[:2])


def open_trained(
    checkpoint: Path, *, dataset: str | None = None, data_root: str | None = None, fold: int = 0, overrides: Sequence[str] = (),
    device: str | None = None, network: Network = "student", clusters: int | None = None,
) -> Trained:  # fmt: skip
    """Load a trained network.

    Args:
        checkpoint: a ``.safetensors`` file in the stage folder of a run, or a released ``.pth.tar``.
        dataset, fold: what it was trained on; None takes what the report of its run says. A released checkpoint needs them.
        data_root: asked of ``dataset="folder"`` only, whose class names lie there.
        overrides: ``stage.field=value``, over the settings that it was trained with.
        network: of EUMS; the teacher of ours is the file ``eums_teacher`` beside the student's.
        clusters: K that is expected; None takes the file's.

    Raises:
        InputError: the file, see :func:`~ncdss_lib.models.checkpoints.read_checkpoint`; its manifest is missing; its classes are
            not known, or others than those of ``dataset``; another K, or other tensors than the network's.
    """
    if network not in ("student", "teacher"):
        raise InputError(f"unknown network {network!r}: choose student or teacher (--network).")
    checkpoint = Path(checkpoint)
    if network == "teacher" and (file := _teacher_file(checkpoint)):
        checkpoint, network = file, "student"
    found = read_checkpoint(checkpoint, network)
    report: dict[str, Any] = {}
    if found.released:
        recipe = load_recipe("paper", ["model.weights=none", *overrides], dataset)
    else:
        stage = _stage_folder(checkpoint)
        report = _read_report(stage.parent / "report.json")
        recipe = _stored_recipe(_read(stage / MANIFEST)["settings"], report, found, overrides)
    labels = _labels(checkpoint, dataset, data_root, fold, report, recipe)
    _check_outputs(found, labels, clusters)

    runtime = Runtime(device or os.environ.get("NCDSS_DEVICE") or "auto", recipe.compute)
    model = build_segmenter(recipe.model, found.outputs)
    encoder = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    load_strictly(model, {**encoder, **found.weights} if found.layout == "ours, head only" else found.weights, checkpoint)
    prepared = cast(Segmenter, runtime.prepare(model).eval())
    matching = None if found.released else _matching(checkpoint, stage, report)
    return Trained(found, prepared, recipe, runtime, labels, matching)


def evaluate(
    checkpoint: Path, dataset: str, data_root: str | None = None, fold: int = 0, *, overrides: Sequence[str] = (),
    device: str | None = None, network: Network = "student", clusters: int | None = None, out: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score a trained network on the validation images of a data set under every protocol; :func:`score_text` prints the result.

    Args:
        out: a JSON file to write the result to.

    Returns:
        What was scored on what, then as ``models.NAME`` of report.json the scores and ``protocols``, and ``confusion``: the counts
        of both halves of the images at ``size`` pixels, and of all at original size, rows truth, columns prediction.

    Raises:
        InputError: see :func:`open_trained`; no validation images; ``out`` is a folder.
    """
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder. Expected a file name for the scores, e.g. {out / 'scores.json'}.")
    trained = open_trained(
        checkpoint, dataset=dataset, data_root=data_root, fold=fold, overrides=overrides, device=device, network=network, clusters=clusters
    )
    labels, recipe = trained.labels, _without_selection(trained.recipe)
    data = open_dataset(dataset, data_root, cache_root(), recipe.data, needs_saliency=False)
    if not data.val_ids:
        raise InputError(f"{dataset} has no validation images to score on ({data.masks_note}). Add some, or use `ncdss predict`.")
    run = Run(data, fold, 0, recipe, trained.checkpoint.path.parent)
    run.runtime = trained.runtime
    size = recipe.evaluation.size
    found = confusions(run, trained.model, size)
    scores = {name: entry.as_dict() for name, entry in protocols(found, labels).items()}
    result = {
        "schema": 1,
        "checkpoint": str(trained.checkpoint.path),
        "layout": trained.checkpoint.layout,
        "network": trained.network,
        "dataset": dataset,
        "fold": fold,
        "classes": {"base": list(labels.base_names), "novel": list(labels.novel_names)},
        "masks": data.masks_note,
        "images": {"val": len(run.splits.val)},
        "config": {section: getattr(recipe, section).model_dump(mode="json") for section in ("data", "model", "evaluation")},
        "device": trained.runtime.describe(),
        "clusters": trained.clusters,
        "size": size,
        **scores["published"],
        "protocols": scores,
        "confusion": {"halves": found.halves.tolist(), "original_size": found.original.tolist()},
    }
    if out is not None and trained.runtime.is_main:
        with disk_errors("the scores", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, result)
    return result


def score_text(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate` as Markdown: scores by protocol, IoU by class and protocol, and what each cluster was taken for."""
    title = f"## {Path(result['checkpoint']).name} on {result['dataset']}, fold {result['fold']}"
    base, novel = result["classes"]["base"], result["classes"]["novel"]
    network = f"{result['layout']}, {result['network']}" if result["network"] else result["layout"]
    what = (
        f"{result['images']['val']} validation images, {result['masks']}; {network}, {len(base)} base classes, "
        f"{result['clusters']} clusters for {len(novel)} novel classes; predicted at {result['size']} pixels."
    )
    shown = result["protocols"]
    scores = pd.DataFrame({PROTOCOLS[p]: {t: _percent(entry[s]) for s, t in SCORES.items()} for p, entry in shown.items()}).T
    classes = pd.DataFrame(
        {
            f"{name} (novel)" if name in novel else name: {p.replace("_", " "): _percent(shown[p]["per_class"][name]) for p in shown}
            for name in result["per_class"]
        }
    ).T
    parts = [title, what, "All scores, %", _markdown(scores), "IoU by class and protocol, %", _markdown(classes)]
    if clusters := result["matching"]["cluster_to_class"]:
        parts.append("Published matching: " + ", ".join(f"cluster {k} is {name or 'nothing'}" for k, name in clusters.items()) + ".")
    if result["dataset"] in PAPER and result["clusters"] and result["fold"] < 4:
        rows = ", ".join(f"{NAMES[m]} {values[result['fold']]:.2f}" for m, values in PAPER[result["dataset"]].items())
        parts.append(f"The paper's novel mIoU on this fold, %: {rows} (published matching, best epoch on all validation images).")
    return "\n\n".join(parts)


def predict(
    checkpoint: Path, images: Path, out: Path, *, dataset: str | None = None, data_root: str | None = None, fold: int = 0,
    overrides: Sequence[str] = (), device: str | None = None, network: Network = "student",
) -> str:  # fmt: skip
    """Segment pictures; ``out`` appears when all are done, or not at all.

    ::

        OUT/masks/NAME.png       8-bit palette PNG of contiguous ids, at the picture's size (upright, where its EXIF data turn it)
        OUT/overlays/NAME.jpg    the picture in grey under the colours of the classes
        OUT/legend.csv, .png     id, name and colour of each
        OUT/manifest.json        what it was made from

    Args:
        images: a folder of pictures, or one picture.
        out: a new or empty folder.

    Returns:
        How many pictures, and how much of them is what, as Markdown.

    Raises:
        InputError: see :func:`open_trained`; no picture, or one that cannot be read; ``out`` is in use; several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("predict runs in one process: start it without torchrun.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists already and is not an empty folder. Choose another, or remove it.")
    pictures = _pictures(images)
    trained = open_trained(checkpoint, dataset=dataset, data_root=data_root, fold=fold, overrides=overrides, device=device, network=network)
    shares, seen = np.zeros(256), np.zeros(256, int)
    with disk_errors("the predictions", out), _whole_or_not(out) as partial:
        for folder in ("masks", "overlays"):
            (partial / folder).mkdir()
        for path in tqdm(pictures, desc="predict", unit="picture"):
            with opened(path) as picture:
                image = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
            labels, _ = trained.predict_image(image)
            mask = Image.fromarray(labels)
            mask.putpalette(trained.look.colours.tobytes())
            mask.save(partial / "masks" / f"{path.stem}.png")
            Image.fromarray(paint(image, labels, trained.look)).save(partial / "overlays" / f"{path.stem}.jpg", quality=92)
            counts = np.bincount(labels.ravel(), minlength=256)
            shares, seen = shares + counts / labels.size, seen + (counts > 0)
        _write_legend(trained, partial)
        source = {"checkpoint": str(trained.checkpoint.path), "layout": trained.checkpoint.layout, "network": trained.network}
        commit_folder(partial, out, {**source, "size": trained.size, "pictures": [path.name for path in pictures]})
    table = pd.DataFrame(
        {
            name: {"pixels, %": _percent(shares[i] / len(pictures)), "pictures": str(seen[i])}
            for i, name in enumerate(trained.names)
            if seen[i]
        }
    ).T
    return f"{len(pictures)} pictures segmented. Written: {out}\n\n{_markdown(table)}"


# ------------------------------------------------------------------------------------------------------- what a checkpoint came from
def _teacher_file(checkpoint: Path) -> Path | None:
    """``eums_teacher[_best].safetensors`` beside ``eums[_best].safetensors`` (or that very file), if it is there."""
    if not checkpoint.name.startswith("eums") or checkpoint.suffix != ".safetensors":
        return None
    file = checkpoint.with_name(checkpoint.name.replace("eums_teacher", "eums").replace("eums", "eums_teacher"))
    return file if file.is_file() else None


def _stage_folder(checkpoint: Path) -> Path:
    """The folder with the manifest of the stage that made a checkpoint: its own, or for a row of the ablation the one above."""
    for folder in checkpoint.absolute().parents[:2]:
        if "settings" in (_read(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}):
            return folder
    raise InputError(
        f"{checkpoint} is a checkpoint of this program, but the {MANIFEST} of its stage is not beside it, so its settings are not known. "
        "Give the file inside its run folder."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        contents = read_json(path)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}). Restore it, or run its stage again.") from None
    if not isinstance(contents, dict):
        raise InputError(f"{path} does not hold what this program writes there. Restore it, or run its stage again.")
    return contents


def _read_report(path: Path) -> dict[str, Any]:
    """The report of a run, or an empty one where the run is not finished."""
    report = _read(path) if path.is_file() else {}
    if report and report.get("schema") != 1:
        raise InputError(f"{path} has schema {report.get('schema')}; this version reads schema 1. Make it again with `ncdss run`.")
    return report


def _stored_recipe(settings: dict[str, Any], report: dict[str, Any], found: Checkpoint, overrides: Sequence[str]) -> Recipe:
    """The settings of a stage (they decide), those of its run for the rest, then the user's; images always go through the encoder."""
    config = {"evaluation": {"size": settings["data"]["size"]}, **report.get("config", {}), **settings}
    stored = [f"{section}.{field}={json.dumps(value)}" for section, fields in config.items() for field, value in fields.items()]
    whole = ["model.weights=none"] if found.layout == "ours" else []  # else a frozen encoder, whose weights are where they were
    return load_recipe("paper", [*stored, "data.features=online", *whole, *overrides])


def _labels(checkpoint: Path, dataset: str | None, data_root: str | None, fold: int, report: dict[str, Any], recipe: Recipe) -> LabelSpace:
    """The classes of a checkpoint: those of the data set that is given, which must be those of its run, or those of its run."""
    names = (*report["classes"]["base"], *report["classes"]["novel"]) if report else ()
    if dataset is None and not report:
        raise InputError(
            f"{checkpoint} does not say what its classes are: give the data set and fold that it was trained on, "
            "e.g. --dataset pascal5i --fold 0."
        )
    if dataset is None and report["dataset"] not in _WITH_FIXED_CLASSES:
        return LabelSpace(names, tuple(range(len(report["classes"]["base"]) + 1, len(names) + 1)))
    if dataset is None:
        dataset, fold = report["dataset"], report["fold"]
    data = _WITH_FIXED_CLASSES.get(dataset) or open_dataset(dataset, data_root, None, recipe.data, needs_saliency=False)
    labels = label_space(data, fold)
    if report and labels.names[1:] != names:
        raise InputError(
            f"{checkpoint} was trained on {report['dataset']}, fold {report['fold']}, whose classes are not those of {dataset}, "
            f"fold {fold}. Give --dataset {report['dataset']} --fold {report['fold']}."
        )
    return labels


def _check_outputs(found: Checkpoint, labels: LabelSpace, clusters: int | None) -> None:
    least = 1 + labels.num_base
    if found.outputs < least:
        raise InputError(
            f"{found.path} has {found.outputs} outputs, but background and {labels.num_base} base classes need {least}. "
            "Give the data set and fold that it was trained on (--dataset, --fold)."
        )
    if found.outputs > IGNORE:
        raise InputError(f"{found.path} has {found.outputs} outputs. Expected at most {IGNORE}: label maps have 8 bits.")
    if clusters is not None and found.outputs - least != clusters:
        raise InputError(
            f"{found.path} has {found.outputs} outputs, so K = {found.outputs - least} with {labels.num_base} base classes, not the "
            f"K = {clusters} that was asked for. Give the checkpoint of that model, or its K."
        )


def _matching(checkpoint: Path, stage: Path, report: dict[str, Any]) -> dict[int, str] | None:
    """Cluster -> class by the published matching, if the run's report scored this very file (after it was made), else None."""
    if not report or (stage / MANIFEST).stat().st_mtime_ns > (stage.parent / "report.json").stat().st_mtime_ns:
        return None
    last = checkpoint.stem.removesuffix("_best")
    name = last.removesuffix("_teacher")
    teacher = report["config"]["eums"]["inference"] == "teacher" and _teacher_file(checkpoint)
    scored = "eums_teacher" if name == "eums" and teacher else name
    row = checkpoint.parent.name if checkpoint.absolute().parent != stage else None
    entry = report.get("ablation", {}).get(row) if row else report["models"].get(name)
    if entry and checkpoint.stem.endswith("_best"):
        entry = entry["protocols"].get("best_epoch")
    if not entry or last != scored:
        return None
    matching = {int(cluster): name for cluster, name in entry["matching"]["cluster_to_class"].items()}
    return matching if matching and all(matching.values()) else None


def _without_selection(recipe: Recipe) -> Recipe:
    """Nothing is trained here, so no epoch is chosen."""
    return recipe.model_copy(update={name: getattr(recipe, name).model_copy(update={"select": "last"}) for name in _TRAININGS})


# ------------------------------------------------------------------------------------------------------------ pictures and legends
def _pictures(images: Path) -> list[Path]:
    """The pictures of a folder, sorted, or the one picture; each is known to open."""
    if images.is_file():
        paths = [images]
    elif images.is_dir():
        paths = sorted(file.path for file in list_files(images, PICTURES, "pictures").files.values())
    else:
        raise InputError(f"--images {images} is neither a folder nor a file. Check the path.")
    if not paths:
        raise InputError(f"{images} holds no picture. Expected files that end in {', '.join(PICTURES)}: add some, or convert them.")
    for path in paths:
        with opened(path):  # reads the header: most of what is wrong shows before any work is done
            pass
    return paths


@contextmanager
def _whole_or_not(out: Path) -> Iterator[Path]:
    """A hidden folder in which ``out`` is made; it goes when anything fails."""
    partial = partial_folder(out, str(os.getpid()))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # not there any more once it was renamed


def _write_legend(trained: Trained, folder: Path) -> None:
    colours = [to_hex(trained.look.colours[label]) for label in range(len(trained.names))]
    with (folder / "legend.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "name", "colour"))
        writer.writerows(zip(range(len(colours)), trained.names, colours, strict=True))
    columns = -(-len(colours) // 25)
    rows = -(-len(colours) // columns)
    width = max(2.4, 0.9 + 0.085 * max(map(len, trained.names)))  # inches
    figure = Figure(figsize=(width * columns, 0.28 * rows + 0.3), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    for label, (name, colour) in enumerate(zip(trained.names, colours, strict=True)):
        column, row = divmod(label, rows)
        hatch = "////" if trained.look.striped[label] else None
        axes.barh(row, 0.3 / width, 0.7, column + 0.1 / width, color=colour, hatch=hatch, edgecolor="white")
        axes.text(column + 0.5 / width, row, f"{label}  {name}", va="center", fontsize=9)
    axes.set(xlim=(0, columns), ylim=(rows, -1))
    axes.axis("off")
    figure.savefig(folder / "legend.png")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(disable_numparse=True)
