"""A run: one data set, fold, recipe and seed; the order of its stages; what is skipped and made.

A stage is a function from the run and its own new folder to a dictionary of numbers. Its folder
appears whole or not at all, with a manifest of everything that it was made from; it is made again
only when that changes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ncdss_lib import __version__
from ncdss_lib.data import open_dataset
from ncdss_lib.data.splits import label_space
from ncdss_lib.method import (
    ablation,
    base_training,
    basic_framework,
    clustering,
    entropy_ranking,
    eums,
    evaluation,
    second_clustering,
)
from ncdss_lib.method.check_settings import check_labels, check_settings
from ncdss_lib.method.context import Context
from ncdss_lib.models.encoders import check_encoder, weights_stamp
from ncdss_lib.recipes import Recipe, key_of, load_recipe, without_retired
from ncdss_lib.runs.report import read_report
from ncdss_lib.system.errors import InputError, RunError, did_you_mean
from ncdss_lib.system.folders import (
    cache_root,
    commit_folder,
    disk_errors,
    fingerprint,
    locked_partial_folder,
    manifest,
    read_json,
    refuse_damage,
    refuse_file,
    run_folder,
    runs_root,
    write_json,
)


@dataclass(frozen=True)
class Stage:
    """One stage of the method.

    Attributes:
        compute: what it does: (run, new folder) -> numbers for its manifest.
        after: stages whose artefacts it reads.
    """

    compute: Callable[[Context, Path], dict[str, Any]]
    after: tuple[str, ...]


STAGES: dict[str, Stage] = {
    "base_training": Stage(base_training.compute, ()),
    "clustering": Stage(clustering.compute, ("base_training",)),
    "basic_framework": Stage(basic_framework.compute, ("base_training", "clustering")),
    "entropy_ranking": Stage(entropy_ranking.compute, ("clustering", "basic_framework")),
    "eums": Stage(eums.compute, ("clustering", "basic_framework", "entropy_ranking")),
    "evaluation": Stage(
        evaluation.compute,
        ("base_training", "clustering", "basic_framework", "entropy_ranking", "eums"),
    ),
}
#: Made only when the recipe asks for it.
OPTIONAL: dict[str, Stage] = {
    "regions": Stage(
        second_clustering.compute, ("clustering", "basic_framework", "eums", "evaluation")
    ),
    "ablation": Stage(ablation.compute, tuple(name for name in STAGES if name != "base_training")),
}
_ALL = STAGES | OPTIONAL
_VERSIONS = {"evaluation": 2}  # of what a stage leaves behind; 1 where none is given


class Run(Context):
    """One run of the pipeline: a context, and which of its stages are done.

    Attributes:
        skipped: stage -> whether it was done before; of the stages that were asked for.
    """

    @cached_property
    def skipped(self) -> dict[str, bool]:
        return {}

    def stages(self) -> list[str]:
        """The stages that this run's recipe asks for, in order."""
        return [*STAGES, *(name for name in OPTIONAL if getattr(self.recipe, name).wanted)]

    def key(self, stage: str) -> str:
        """The fingerprint of everything that a stage is made from.

        That is the data, its section of the recipe, and the stages before it.
        """
        recipe = self.recipe
        data = key_of(recipe, "data")
        del data["workers"]  # how fast, not what
        return fingerprint(
            {
                "stage": stage,
                "version": _VERSIONS.get(stage, 1),
                "data": [self.data.fingerprint(), data],
                "model": [recipe.model.model_dump(), weights_stamp(recipe.model)],
                "settings": key_of(recipe, stage),
                "run": [self.fold, self.seed],
                "after": [self.key(earlier) for earlier in _ALL[stage].after],
            }
        )

    def is_current(self, stage: str) -> bool:
        """Whether a stage's folder was made from today's inputs."""
        return manifest(self.folder / stage).get("key") == self.key(stage)

    def ensure(self, stage: str) -> Path:
        """Return a stage's folder; it and the stages before it are made where not current."""
        if stage not in _ALL:
            raise InputError(f"unknown stage {stage!r}: {did_you_mean(stage, _ALL)}")
        for earlier in _ALL[stage].after:
            self.ensure(earlier)
        folder = self.folder / stage
        if stage in self.skipped:
            return folder
        key = self.key(stage)
        with (
            disk_errors(f"stage {stage}", self.folder),
            locked_partial_folder(folder, key, self.runtime.from_main) as partial,
        ):
            if partial is None:
                self.skipped[stage] = True
                return folder
            self.views  # noqa: B018 - features are extracted outside the stage's own time
            started = time.perf_counter()
            _reset_peak_memory(self.runtime.device)
            self._check_inputs(stage)
            numbers = _ALL[stage].compute(self, partial)
            self._check_inputs(stage)
            if self.runtime.is_main:
                for checkpoint in partial.rglob("*_checkpoint.pt"):
                    checkpoint.unlink()
                commit_folder(
                    partial,
                    folder,
                    {
                        "key": key,
                        "seconds": round(time.perf_counter() - started, 3),
                        "peak_memory_bytes": _peak_memory(self.runtime.device),
                        "settings": {
                            s: getattr(self.recipe, s).model_dump()
                            for s in ("data", "model", stage)
                        },
                        "numbers": numbers,
                    },
                    checked="**/*",
                )
            self.runtime.barrier()
        self.skipped[stage] = False
        return folder

    def _check_inputs(self, stage: str) -> None:
        """Refuse to go on from what another run, with other settings, has put here meanwhile."""
        replaced = self.runtime.from_main(
            lambda: [earlier for earlier in _ALL[stage].after if not self.is_current(earlier)]
        )
        if replaced:
            raise RunError(
                f"{self.folder / replaced[0]} was replaced by a run with other settings while "
                f"{stage} was being made. Give each of the two a run folder of its own (--out)."
            )

    def numbers(self, stage: str) -> dict[str, Any]:
        """The numbers that a stage wrote into its manifest."""
        return manifest(self.ensure(stage))["numbers"]

    def write_report(self) -> Path:
        """Compute what is missing and write ``report.json`` (schema 1)."""
        for stage in self.stages():
            self.ensure(stage)
        clusters, scores = self.numbers("clustering"), self.numbers("evaluation")
        stages = {name: manifest(self.folder / name) for name in self.stages()}
        report = {
            "schema": 1,
            "dataset": self.data.name,
            "fold": self.fold,
            "seed": self.seed,
            "recipe": self.recipe.name,
            "config": self.recipe.model_dump(exclude={"name"}, mode="json"),
            "versions": _versions(),
            "device": self.runtime.describe(),
            "classes": {
                "base": list(self.labels.base_names),
                "novel": list(self.labels.novel_names),
            },
            "images": {
                "base": len(self.splits.base),
                "novel": len(self.splits.novel),
                "novel_used": clusters["novel_used"],
                "no_saliency": clusters["no_saliency"],
                "below_min_area": clusters["below_min_area"],
                "val": len(self.splits.val),
            },
            "saliency": self.data.saliency_note,
            "masks": self.data.masks_note,
            "clustering": {
                "pca_dims": clusters["pca_dims"],
                "explained_variance": clusters["explained_variance"],
            },
            "stages": {
                name: {
                    "seconds": entry["seconds"],
                    "peak_memory_bytes": entry["peak_memory_bytes"],
                    "skipped": self.skipped.get(name, True),
                }
                for name, entry in stages.items()
            },
            "models": scores["models"],
            "pseudo_labels": scores["pseudo_labels"],
        }
        if "regions" in stages:
            report["models"]["regions"] = self.numbers("regions")["model"]
        if "ablation" in stages:
            report["ablation"] = self.numbers("ablation")
        path = self.folder / "report.json"
        if self.runtime.is_main:
            with disk_errors("report.json", self.folder):
                write_json(path, report)
        return path

    def report(self) -> dict[str, Any]:
        """The contents of report.json, written before if it is not there or not current."""
        path = self.folder / "report.json"
        if not (path.is_file() and all(self.is_current(stage) for stage in self.stages())):
            self.write_report()
        return read_json(path)


def open_run(
    dataset: str = "toyscenes",
    data_root: str | None = None,
    fold: int = 0,
    seed: int = 0,
    recipe: str = "laptop",
    out: str | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> Run:
    """Open (or begin) a run.

    The arguments are the parameters of every notebook and the options of ``ncdss run``.

    Args:
        device: auto, cpu or cuda; None takes ``$NCDSS_DEVICE``, or auto.

    Raises:
        InputError: anything about the data or the options that is wrong; nothing is written before
            it is raised.
    """
    _check_types(locals())
    settings = load_recipe(recipe, overrides, dataset)
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: seeds are numbers from 0 to {2**31 - 1}.")
    folder = Path(out) if out else run_folder(dataset, fold, recipe, seed)
    refuse_file(folder, "--out") if out else refuse_file(runs_root(), "$NCDSS_RUNS")
    refuse_file(cache_root(), "$NCDSS_CACHE")
    data = open_dataset(dataset, data_root, cache_root(), settings.data)
    check_labels(settings, label_space(data, fold))
    if not (folder / "base_training").is_dir():  # else an encoder has served
        check_encoder(settings.model, settings.data.size)
    run = Run(data, fold, seed, settings, folder, device)  # reads all files of the data set, once
    check_settings(run)
    return run


def _check_types(given: Mapping[str, Any]) -> None:
    """Refuse parameters of another kind, as a notebook's first cell may hold them."""
    text = (str, "a text in quotes")
    path = (str | Path | None, "a text in quotes, or None")
    number = (int, "a whole number")
    texts = (list | tuple, 'a list of texts, such as ["eums.epochs=5"]')
    expected: dict[str, tuple[Any, str]] = {
        "dataset": text,
        "data_root": path,
        "fold": number,
        "seed": number,
        "recipe": text,
        "out": path,
        "overrides": texts,
    }
    for name, (kind, words) in expected.items():
        value = given[name]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if name == "overrides" and fits:
            fits = all(isinstance(item, str) for item in value)
        if not fits:
            raise InputError(f"{name} = {value!r} does not fit: expected {words}.")


def reopen(folder: str | Path, data_root: str | None = None, device: str | None = None) -> Run:
    """The run in a folder, by what its report.json says it was made with.

    Args:
        data_root: folder of the images, which no report names; None takes ``$NCDSS_DATA_ROOT``.

    Raises:
        InputError: the folder holds no report of a finished run, a stage of it is damaged, or the
            data are not there.
    """
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: {folder} is not the folder of a finished run. `ncdss run` makes "
            "one, or ends one that was begun."
        )
    report = read_report(path)
    try:
        settings = json.dumps({"name": report["recipe"], **without_retired(report["config"])})
        recipe = Recipe.model_validate_json(settings)
    except (KeyError, TypeError, ValueError) as error:  # a ValidationError is a ValueError
        said = " ".join(str(error).split())
        raise InputError(
            f"{path} holds settings that are none ({said[:200]}). Make it again with `ncdss run`."
        ) from None
    data = open_dataset(report["dataset"], data_root, cache_root(), recipe.data)
    run = Run(data, report["fold"], report["seed"], recipe, Path(folder), device)
    for stage in run.stages():
        refuse_damage(run.folder / stage)
    return run


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn")
    versions = {"python": platform.python_version(), "ncdss": __version__}
    return versions | {package: version(package) for package in (*packages, "papermill")}


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def _peak_memory(device: torch.device) -> int | None:
    """Bytes: of the device for CUDA, else of the process (None where the system does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 if found else None
