"""The container has the environment of ``make env``, and no other; that it builds needs an engine and is not tested here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
LINES = [line for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def instructions(kind: str) -> list[str]:
    return [line.removeprefix(kind).strip() for line in LINES if line.startswith(kind + " ")]


def test_it_is_linted():
    done = subprocess.run([str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_its_image_is_pinned_to_a_version():
    (image,) = instructions("FROM")
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04", image)


def test_packages_are_installed_by_make_env_alone():
    """The one list of packages is pyproject.toml; pip is called nowhere but in the Makefile."""
    runs = instructions("RUN")
    assert runs[-1] == "make env"
    assert not [run for run in runs if "pip" in run]
    installed = next(run for run in runs if "apt-get install" in run).split("--no-install-recommends")[1].split("&&")[0].split()
    assert installed == ["make", "python3", "python3-venv"]


def test_its_python_is_one_that_the_project_supports():
    """Ubuntu 24.04 has Python 3.12."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert "3.12" in SpecifierSet(requires)


def test_what_make_env_reads_is_copied_before_it_and_exists():
    before = LINES[: LINES.index("RUN make env")]
    copied = [name for line in before if line.startswith("COPY ") for name in shlex.split(line)[1:-1]]
    assert {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ncdss_lib", "toyscenes"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    stamp = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("$(STAMP):"))
    assert set(stamp.split(":")[1].split()) <= set(copied)


def test_results_and_environments_are_left_out():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs", "_build"} <= set(ignored)
