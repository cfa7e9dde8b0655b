"""Settings at and beyond their limits: refused at once, or the run ends well; there is no third outcome.

The limits are read off the recipe's own schema, so a new field is tried without being named here.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ncdss_lib.recipes import sections
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import read_json
from tests.conftest import TINY_LAPTOP

SECONDS = 5.0  # of the processor, since other processes may want it too
LARGE = 300  # an upper limit above this is tried from beyond only: at it a run would take hours or gigabytes

#: Values of lists and texts, whose limits no schema tells.
VALUES: dict[str, list[str]] = {
    "data.scale": ["[0.01, 0.01]", "[100, 100]", "[0.01, 100]", "[0, 1]", "[1, 0.9]", "[-1, 1]", "[1, .inf]", "[101, 101]", "[1]"],
    "data.jitter": ["[0, 0, 0, 0]", "[10, 10, 10, 0.5]", "[0, 0, 0, 0.51]", "[11, 0, 0, 0]", "[.nan, 0, 0, 0]"],
    "model.stages": ["[0]", "[0, 4]", "[0, 1, 2, 3, 4]", "[5]", "[4, 0]", "[-1]", "[]"],
    "model.encoder": ["tf_efficientnet_lite0", "nonsense", "''"],
    "model.weights": ["none", "bundled", "absent.pth"],
    "eums.reassign_epochs": ["[]", "[0]", "[0, 1, 2]", "[1000000]", "[-1]"],
}
#: Not tried: a compiler takes minutes.
LEFT_OUT = {"compute.compile=true"}


def values_of(schema: dict[str, Any]) -> Iterator[str]:
    """Values at, just within and beyond the limits of a field, in YAML."""
    for kind in schema.get("anyOf", ()):
        yield from values_of(kind)
    if "enum" in schema or "const" in schema:
        yield from (str(value) for value in schema.get("enum", [schema.get("const")]))
        yield "nonsense"
    elif schema.get("type") == "null":
        yield "null"
    elif schema.get("type") == "boolean":
        yield from ("true", "false", "2")
    elif schema.get("type") in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        yield from (".inf", ".nan", "null", "nonsense")
        if low is not None:
            yield from (str(low), str(low - 1), str(low + 1))
        if high is not None:
            yield str(high + 1)
        if high is not None and high <= LARGE:
            yield str(high)
        if high is None:
            yield str(10**9)
        if schema["type"] == "number":
            yield from ("1.0e-30", "0.5")


def all_overrides() -> list[str]:
    found = []
    for section, kind in sections().items():
        for field, schema in kind.model_json_schema()["properties"].items():
            key = f"{section}.{field}"
            found += [f"{key}={value}" for value in VALUES.get(key, values_of(schema))]
    return sorted(set(found) - LEFT_OUT)


OVERRIDES = all_overrides()
some_overrides = st.lists(st.sampled_from(OVERRIDES), min_size=1, max_size=2)
numbers = itertools.count()


def test_every_field_is_tried():
    tried = {override.partition("=")[0] for override in OVERRIDES}
    assert tried == {f"{section}.{field}" for section, kind in sections().items() for field in kind.model_fields}


def refused_or_done(voc: Path, folder: Path, overrides: list[str]) -> None:
    started = time.process_time()
    out = folder / f"run{next(numbers)}"
    try:
        run = open_run("pascal5i", str(voc), 0, 0, "laptop", str(out), [*TINY_LAPTOP, *overrides], "cpu")
    except InputError as error:
        message = str(error)
        assert time.process_time() - started < SECONDS, overrides
        assert "\n" not in message, overrides
        assert not out.exists(), overrides
        return
    try:
        report = read_json(run.write_report())
    except InputError as error:  # what the trained base model leaves of the images is known after it
        message = str(error)
        assert "more clusters than images" in message or "is empty in epoch" in message, overrides
        return
    scores = [score for model in report["models"].values() for score in (model["all_miou"], model["novel_miou"])]
    assert all(score is None or math.isfinite(score) for score in scores)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(overrides=some_overrides)
@example(overrides=["model.stages=[9]"])
@example(overrides=["clustering.num_clusters=250"])
@example(overrides=["eums.lr=.inf"])
def test_settings_are_refused_at_once_or_the_run_ends_well(overrides: list[str], voc: Path, tmp_path_factory) -> None:
    refused_or_done(voc, tmp_path_factory.mktemp("settings"), overrides)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(overrides=some_overrides)
def test_many_settings_are_refused_at_once_or_the_run_ends_well(overrides: list[str], voc: Path, tmp_path_factory) -> None:
    refused_or_done(voc, tmp_path_factory.mktemp("settings"), overrides)


@pytest.mark.slow
@pytest.mark.parametrize("override", OVERRIDES)
def test_each_value_by_itself(override: str, voc: Path, tmp_path: Path) -> None:
    refused_or_done(voc, tmp_path, [override])
