"""Each notebook is a pair in step, without outputs, with the parameters that every notebook has, and tidy cells."""

from __future__ import annotations

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest

from ncdss_lib import batch

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
STEMS = sorted({path.stem for path in FOLDER.glob("[0-9][0-9]_*")})
DEFAULTS = {"dataset": "toyscenes", "data_root": None, "fold": 0, "seed": 0, "recipe": "laptop", "out": None, "overrides": []}


@pytest.mark.parametrize("stem", STEMS)
def test_the_pair_is_in_step(stem):
    text = jupytext.read(FOLDER / f"{stem}.md")
    paired = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    both = [[(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells] for notebook in (text, paired)]
    assert both[0] == both[1], "the .md and the .ipynb differ: run `make notebooks`"


@pytest.mark.parametrize("stem", STEMS)
def test_no_outputs_are_kept_and_ids_are_unique(stem):
    cells = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4).cells
    assert not [c.id for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]
    assert len({c.id for c in cells}) == len(cells)


@pytest.mark.parametrize("stem", STEMS)
def test_the_parameters_are_those_of_every_notebook_typed_and_explained(stem):
    notebook = batch.read_notebook(FOLDER / f"{stem}.ipynb")
    assert batch.parameters_of(notebook) == DEFAULTS
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(cell.source).body)
    assert all("#" in line for line in cell.source.splitlines())


@pytest.mark.parametrize("stem", STEMS)
def test_no_code_cell_is_longer_than_a_screen(stem):
    cells = batch.read_notebook(FOLDER / f"{stem}.ipynb").cells
    long = [c.source for c in cells if c.cell_type == "code" and len(c.source.splitlines()) > 30]
    assert not long
