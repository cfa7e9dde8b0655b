"""Each notebook is a pair in step, without outputs, with the parameters that every notebook has, and tidy cells."""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest
from PIL import Image

import checks
from ncdss_lib.data.file_dataset import SALIENCY
from ncdss_lib.runs.notebooks import parameters_of, read_notebook
from ncdss_lib.runs.pipeline import open_run
from own_images import draw_collection
from tests.conftest import OVERRIDES

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
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
    notebook = read_notebook(FOLDER / f"{stem}.ipynb")
    assert parameters_of(notebook) == DEFAULTS
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(cell.source).body)
    assert all("#" in line for line in cell.source.splitlines())


@pytest.mark.parametrize("stem", [stem for stem in STEMS if "02" <= stem < "07"])
def test_a_notebook_does_its_idea_once_in_the_open(stem):
    """A visible cell that ends in equality with the library's function; at most eight lines after what it reads."""
    cells = [c for c in read_notebook(FOLDER / f"{stem}.ipynb").cells if c.cell_type == "code" and "assert " in c.source]
    assert cells
    for cell in cells:
        assert not cell.metadata.get("tags")
        assert len(cell.source.split("\n\n")[-1].splitlines()) <= 8


@pytest.mark.parametrize("stem", STEMS)
def test_no_code_cell_is_longer_than_a_screen(stem):
    cells = read_notebook(FOLDER / f"{stem}.ipynb").cells
    long = [c.source for c in cells if c.cell_type == "code" and len(c.source.splitlines()) > 30]
    assert not long


KINDS = ("predict", "compute", "implement", "think")
HEADING = re.compile(r"^### Exercise (\d+)\.(\d+): .+ \((\w+)\)$", re.MULTILINE)
CHECK = re.compile(r"checks\.(check_\w+)\(")


def exercises_of(stem):
    """(number, kind, its cells) of each exercise of a notebook, in order."""
    found = []
    for cell in read_notebook(FOLDER / f"{stem}.ipynb").cells:
        for chapter, number, kind in HEADING.findall(cell.source) if cell.cell_type == "markdown" else ():
            assert int(chapter) == int(stem[:2])
            found.append((int(number), kind, []))
        if found:
            found[-1][2].append(cell)
    return found


@pytest.mark.parametrize("stem", STEMS)
def test_a_notebook_has_three_to_five_exercises_that_rise(stem):
    found = exercises_of(stem)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert 3 <= len(found) <= 5
    kinds = [kind for _, kind, _ in found]
    assert set(kinds) <= set(KINDS)
    assert kinds[0] in ("predict", "compute")
    assert "implement" in kinds


@pytest.mark.parametrize("stem", STEMS)
def test_an_exercise_has_a_folded_solution_that_calls_the_same_check(stem):
    for _, kind, (text, *cells) in exercises_of(stem):
        if kind == "think":
            assert "<details><summary>Solution</summary>" in text.source
            assert not cells
            continue
        question, solution = cells
        assert {"solution", "hide-cell"} <= set(solution.metadata["tags"])
        assert solution.metadata["jupyter"]["source_hidden"]
        assert not question.metadata.get("tags")
        assert CHECK.findall(question.source) == CHECK.findall(solution.source)
        assert len(CHECK.findall(question.source)) == 1
        assert max(len(cell.source.splitlines()) for cell in cells) <= 15
        assert not [line for cell in cells for line in cell.source.splitlines() if len(line) > 76]  # the width of a page's column


def test_every_check_is_an_exercise():
    asked = {name for stem in STEMS for _, _, cells in exercises_of(stem) for cell in cells for name in CHECK.findall(cell.source)}
    generic = {"check_function", "check_values", "check_word"}
    assert asked == {name for name in vars(checks) if name.startswith("check_")} - generic


def assignments(source):
    """The statements of a cell that make something, without those that draw or show it."""
    makes = ast.Import, ast.ImportFrom, ast.Assign
    return ast.unparse(ast.Module([node for node in ast.parse(source).body if isinstance(node, makes)], []))


def value_of(source, names):
    """Run a cell; return the value of its last statement."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("recipe", OVERRIDES)
@pytest.mark.parametrize("stem", STEMS)
def test_exercises_wait_for_an_answer_and_solutions_are_right(stem, recipe, voc, finished, tmp_path):
    # The notebook on results writes the report anew, so into a copy: links, since weights are large.
    out = shutil.copytree(finished[recipe], tmp_path / "run", copy_function=os.link)
    tiny = {"dataset": "pascal5i", "data_root": str(voc), "out": str(out), "recipe": recipe, "overrides": OVERRIDES[recipe]}
    names = DEFAULTS | tiny
    if stem == "08_your_own_images":  # its run is a training of minutes: a collection, and what its report says
        root = tmp_path / "collection"
        draw_collection(root, labelled=4, unlabelled=12, val=1)
        (root / SALIENCY).mkdir()
        for photo in (root / "unlabelled").iterdir():
            Image.open(photo).convert("L").save(root / SALIENCY / f"{photo.stem}.png")
        report = {"models": {"eums": {"novel_miou": None}}}
        names |= {"root": root, "open_run": open_run, "own": SimpleNamespace(report=lambda: report)}
    else:
        for cell in read_notebook(FOLDER / f"{stem}.ipynb").cells:
            if "### Exercise" in cell.source:
                break
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                exec(cell.source if "assert " in cell.source else assignments(cell.source), names)
    for _, _, (_, *cells) in exercises_of(stem):
        for cell, reply in zip(cells, ("**Not answered yet:**", "**Right:**"), strict=False):
            assert value_of(cell.source, names).data.startswith(reply)
