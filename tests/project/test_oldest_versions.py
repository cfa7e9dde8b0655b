"""The oldest versions that pyproject.toml allows do the work too, in an environment of their own (several GB, from the registry)."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, **environment: str) -> str:
    """What a command printed; a failure shows all of it."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_tiny_kit_runs_under_the_oldest_versions(tmp_path):
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "uv")
    run(place / "bin" / "uv", "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct", ".")
    installed = {
        canonicalize_name(row["name"]): Version(row["version"]) for row in json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    }
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        required = Requirement(text)
        lowest = min(Version(spec.version) for spec in required.specifier if spec.operator in (">=", "=="))
        assert installed[canonicalize_name(required.name)].release[: len(lowest.release)] == lowest.release, required.name

    out = tmp_path / "kit"
    command = [python, "-m", "benchmarks.gpu", "--out", out, "--device", "cpu", "--tiny"]
    run(*command, "--parts", "machine", "steps", "loading", "inference", OMP_NUM_THREADS="1")
    parts = json.loads((out / "gpu.json").read_text())["parts"]
    run(*command, "--parts", "compiled", "--only", "eums", OMP_NUM_THREADS="1")
    parts |= json.loads((out / "gpu.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "done")
    assert not [row for part in ("steps", "compiled") for row in parts[part]["rows"] if "error" in row]
