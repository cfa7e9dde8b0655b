"""Trained networks of both recipes and of the released layout, and images to predict."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.errors import InputError
from tests.conftest import TINY_LAPTOP, TINY_PAPER, TRAININGS, Once
from tests.models.test_checkpoints import Reference

FOLD = 1  # its novel classes are not the last ones, so that wrong names show
SMALL = ["data.size=64", "evaluation.size=64", "data.workers=0", "compute.precision=fp32"]


@pytest.fixture(scope="session")
def runs(voc: Path, once: Once) -> dict[str, Path]:
    """A finished run of each recipe; read only."""
    small = [*TINY_PAPER, "data.size=32", "data.target_size=32", "evaluation.size=32"]
    slow = [f"{stage}.lr=0.001" for stage in TRAININGS]  # still nearly random, the networks predict many classes

    def fill(root: Path) -> None:
        for recipe, overrides in (("laptop", TINY_LAPTOP), ("paper", [*small, *slow])):
            open_run("pascal5i", str(voc), FOLD, 0, recipe, str(root / recipe), overrides).write_report()

    return {recipe: once("runs", fill) / recipe for recipe in ("laptop", "paper")}


@pytest.fixture
def laptop(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the laptop run that a test may change."""
    return Path(shutil.copytree(runs["laptop"], tmp_path / "laptop"))


@pytest.fixture(scope="session")
def references() -> dict[str, Reference]:
    return {network: Reference(seed).eval() for network, seed in (("student", 1), ("teacher", 2))}


@pytest.fixture(scope="session")
def released(references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released EUMS checkpoint of PASCAL-5i with K = 10 and random weights."""
    state = {"queue": torch.zeros(256, 1280)}
    for prefix, network in (("model_q", "student"), ("model_k", "teacher")):
        for name, tensor in references[network].state_dict().items():
            state[f"{prefix}.{name.replace('decoder.4', 'head')}"] = tensor
    path = tmp_path_factory.mktemp("released") / "eums_f1.pth.tar"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different size and format, and a text."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("wide.jpg", (40, 90)), ("tall.PNG", (100, 50)), ("grey.webp", (33, 34))):
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        (picture.convert("L") if name.startswith("grey") else picture).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def refused(match: str, function, *args, **options) -> None:
    with pytest.raises(InputError, match=match) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
