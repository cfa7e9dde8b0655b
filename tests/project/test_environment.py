"""The dependency lists agree: pyproject.toml (ranges), constraints.txt (tested versions), environment.yml (conda), the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(lines: list[str]) -> dict[str, SpecifierSet]:
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


CORE = requirements(PROJECT["dependencies"])
EVERY = CORE | requirements([line for extra in EXTRAS.values() for line in extra])


def constraints() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_conda_environment_holds_python_pip_and_the_project_only():
    conda, pip = [], []
    for item in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        if isinstance(item, dict):
            pip += item["pip"]
        else:
            conda.append(item)
    assert sorted(conda) == ["pip", f"python{PROJECT['requires-python']}"]
    (editable,) = pip
    match = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)
    assert match, editable
    assert set(match[1].split(",")) == set(EXTRAS)


def test_every_direct_dependency_has_a_tested_version_within_its_range():
    tested = constraints()
    assert set(EVERY) <= set(tested), f"constraints.txt has no version for {sorted(set(EVERY) - set(tested))}"
    outside = {name: str(tested[name]) for name, allowed in EVERY.items() if tested[name] not in allowed}
    assert not outside, f"constraints.txt is outside the ranges of pyproject.toml: {outside}"


def test_no_registry_is_named():
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), name


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "allowed"), [("ncdss_lib", CORE), ("toyscenes", CORE), ("tests", EVERY), ("book/_ext", EVERY), ("benchmarks", CORE)]
)
def test_what_the_code_imports_is_declared(folder: str, allowed: dict[str, SpecifierSet]):
    distributions = packages_distributions()
    beside = [*ROOT.glob(f"{folder}/**/*.py"), *ROOT.glob("notebooks/*.py"), *ROOT.glob("book/_ext/*.py")]
    local = {path.stem for path in beside}
    for path in sorted(ROOT.glob(f"{folder}/**/*.py")):
        for module in imports(path) - local - {"ncdss_lib", "toyscenes", "tests", "benchmarks"}:
            providers = {canonicalize_name(name) for name in distributions.get(module, [module])}
            assert providers & set(allowed), f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not declare"


def test_the_drawings_import_nothing_of_the_library():
    assert [path.name for path in ROOT.glob("toyscenes/*.py") if "ncdss_lib" in imports(path)] == []


def test_nothing_refers_to_a_document_that_is_not_here():
    """A section of something that the reader does not have leads nowhere."""
    tracked = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    dead = re.compile(r"method" + r" reference|\bsection" + r" \d", re.IGNORECASE)
    assert [name for name in tracked if dead.search((ROOT / name).read_text())] == []
