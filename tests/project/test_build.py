"""What builds the project elsewhere builds it here: CI and the workflows call make targets, and every target that is named exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_are_targets_and_workflows():
    assert {"env", "reproduce", "book", "test", "test-book", "browser-tools", "lab"} <= TARGETS
    assert WORKFLOWS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_step_is_a_make_target_or_an_official_action_of_a_pinned_version(workflow: Path):
    for step in steps(workflow):
        if "run" in step:
            make, *targets = step["run"].split()
            assert make == "make"
            assert targets
            assert set(targets) <= TARGETS
        else:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_waits_for_jobs_that_exist_and_hashes_files_that_exist(workflow: Path):
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    needed = {name for job in jobs.values() for name in job.get("needs", [])}
    assert needed <= set(jobs)
    patterns = [p for call in re.findall(r"hashFiles\(([^)]*)\)", workflow.read_text()) for p in re.findall(r"'([^']+)'", call)]
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []


def test_ci_calls_make_targets_that_exist():
    called = [line.split()[1:] for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert ["test"] in called
    assert ["test-book"] in called
    assert {target for targets in called for target in targets} <= TARGETS


def test_every_make_target_named_in_the_text_exists():
    pages = [ROOT / "README.md", *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.md")]
    named = {(page.name, target) for page in pages for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert len(named) > 10
    assert {target for _, target in named} <= TARGETS, named


def test_every_target_is_in_the_help_and_phony():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert phony == TARGETS
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == TARGETS
