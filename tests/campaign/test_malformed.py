"""A sample of the campaign of malformed inputs, in this process; all of it is `python -m tests.campaign malformed`."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from ncdss_lib.cli import main
from tests.campaign.malformed import Case, Outcome, cases, make_kits, make_run_kit, try_case

CASES = list(cases())
SAMPLE = [case for case in CASES[::13] if case.environment is None]


@pytest.fixture(scope="session")
def kits(voc: Path, finished: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kits") / "kits"
    make_kits(root)
    make_run_kit(root, finished["laptop"], voc)
    return root


def as_call(command: list[str], environment: dict[str, str], work: Path) -> Outcome:
    started = time.process_time()
    output, errors = io.StringIO(), io.StringIO()
    streams = (contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors))
    with streams[0], streams[1], patch.dict(os.environ, environment, clear=True), contextlib.chdir(work):
        status = main(command)
    return Outcome(status, output.getvalue(), errors.getvalue(), time.process_time() - started)


def test_there_are_at_least_150_rows_each_with_a_name_of_its_own():
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", SAMPLE, ids=[case.name for case in SAMPLE])
def test_a_malformed_input_is_refused_with_one_message(case: Case, kits: Path, tmp_path: Path):
    outcome, problems = try_case(case, kits, tmp_path / "work", as_call)
    assert problems == [], outcome.errors
