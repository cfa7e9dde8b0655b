"""A small sample of the campaigns of kills and faults; the rest is run by hand: ``python -m tests.campaign``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")
@pytest.mark.parametrize(
    "arguments",
    [
        ["kills", "--count=6", "--only", "prepare pascal5i", "prepare saliency"],
        pytest.param(["kills", "--count=20", "--only", "run", "predict", "evaluate"], marks=pytest.mark.slow),
        pytest.param(["faults", "--only", "cache", "run"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_sample_of_a_campaign_finds_nothing_wrong(arguments):
    command = [sys.executable, "-m", "tests.campaign", *arguments]
    done = subprocess.run(command, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " wrong, " in done.stdout
