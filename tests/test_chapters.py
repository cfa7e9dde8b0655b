"""How chapters open and how they show code: the map, the fold, code within its column, words that read in JupyterLab too."""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from sphinx.cmd.build import build_main

from ncdss_lib.data import coco20i, pascal5i
from ncdss_lib.recipes import LAPTOP
from ncdss_lib.viz.tables import show_source, source_in_file, split_docstring
from tests.conftest import REPO

WIDTH = 88  # characters of code that fit the column of a desktop
NOTEBOOKS = sorted((REPO / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PAGES = sorted((REPO / "book").glob("*.md"))
CONF = f"""
import sys
sys.path.insert(0, {str(REPO / "book" / "_ext")!r})
project = "small"
extensions = ["myst_nb", "executed_notebooks", "run_times", "chapters"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
root_doc = "index"
exclude_patterns = ["run", "out"]
executed_run = "run"
html_static_path = []
"""


def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def stem(path: Path) -> str:
    return path.stem


# --- code within its column -----------------------------------------------------------------------


def shown_functions(path: Path) -> list[str]:
    """Code of each library function that a notebook shows, docstring folded."""
    text = "\n".join(c.source for c in cells_of(path) if c.cell_type == "code")
    names: dict[str, object] = {}
    for module, imported in re.findall(r"^from (ncdss_lib[\w.]*) import (.+)$", text, re.MULTILINE):
        for name in map(str.strip, imported.split(",")):
            if not name.startswith("(") and " as " not in name:
                found = getattr(import_module(module), name, None)
                names[name] = found or import_module(f"{module}.{name}")
    from ncdss_lib.data.label_space import LabelSpace

    shown = []
    for called in re.findall(r"show_source\(([\w.]+)\)", text):
        function = LabelSpace.to_contiguous if called == "run.labels.to_contiguous" else None
        if function is None:
            first, *rest = called.split(".")
            function = names[first]
            for part in rest:
                function = getattr(function, part)
        shown.append(split_docstring(textwrap.dedent(inspect.getsource(function)))[0])
    return shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_no_code_of_a_notebook_is_wider_than_its_column(path):
    own = [c.source for c in cells_of(path) if c.cell_type == "code"]
    wide = [line for code in own + shown_functions(path) for line in code.splitlines() if len(line) > WIDTH]
    assert not wide


def fenced(text: str) -> list[str]:
    """What stands between ``` and ``` on a page, but for directives."""
    codes, opened = [], None
    for line in text.splitlines():
        if opened is None and line.startswith("```"):
            opened = line
            codes.append("")
        elif opened is not None and re.fullmatch(r"`{3,}", line) and len(line) == len(opened) - len(opened.lstrip("`")):
            opened = None
        elif opened is not None and "{" not in opened:
            codes[-1] += line + "\n"
    return codes


@pytest.mark.parametrize("path", PAGES, ids=stem)
def test_no_code_of_a_page_is_wider_than_its_column(path):
    text = path.read_text()
    codes = fenced(text)
    for name in re.findall(r"^```\{source\} (\S+)$", text, re.MULTILINE):
        module, _, function = name.rpartition(".")
        codes.append(split_docstring(source_in_file(REPO / (module.replace(".", "/") + ".py"), function))[0])
    assert not [line for code in codes for line in code.splitlines() if len(line) > WIDTH]


def test_every_equation_of_the_method_has_code_after_it():
    """From one equation to the next, or to the end of its section, stands at least one function."""
    text = (REPO / "book" / "method.md").read_text()
    before_small_print = text[: text.index("(small-print)=")]
    parts = re.split(r":label: (eq-[\w-]+)", before_small_print)
    without = [label for label, part in zip(parts[1::2], parts[2::2], strict=True) if "{source}" not in part]
    # the function of these stands with the equation after them, or the equation is all there is
    assert without == ["eq-area", "eq-prototype", "eq-eums", "eq-harmonic"]


def test_a_docstring_is_folded_and_the_rest_is_the_code_that_runs(tmp_path):
    def small(x: int) -> int:
        """Twice.

        Args:
            x: less < than 3.
        """
        return 2 * x

    shown = show_source(small).data
    code = shown.split("```python\n")[1].split("\n```")[0]
    assert code == "def small(x: int) -> int:\n    return 2 * x"
    assert "Twice.&#10;&#10;Args:&#10;    x: less &lt; than 3." in shown
    assert "\n" not in split_docstring(textwrap.dedent(inspect.getsource(small)))[1]
    path = tmp_path / "module.py"
    path.write_text("class A:\n    @property\n    def b(self):\n        return 1\n\n\ndef c():\n    '''Doc.'''\n    return 2\n")
    assert source_in_file(path, "A.b") == "@property\ndef b(self):\n    return 1"
    assert split_docstring(source_in_file(path, "c"))[0] == "def c():\n    return 2"
    assert split_docstring(source_in_file(path, "A.b"))[1] == ""
    with pytest.raises(ValueError, match="holds no d"):
        source_in_file(path, "d")


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_a_notebook_bears_its_number_and_opens_with_a_picture(path):
    cells = cells_of(path)
    assert cells[0].source.startswith(f"# {int(path.stem[:2])}. ")
    after_setup = max(n for n, c in enumerate(cells) if "setup" in c.metadata.get("tags", [])) + 1
    assert after_setup <= 3
    assert cells[after_setup].metadata["mystnb"]["figure"]["caption"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_a_notebook_names_figures_and_equations_in_words(path):
    text = "\n".join(c.source for c in cells_of(path) if c.cell_type == "markdown")
    roles = set(re.findall(r"\{([\w:]+)\}`", text))
    assert roles <= {"term"}, "jupyterlab-myst resolves {term} alone"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_a_notebook_says_what_it_needs(path):
    opening = cells_of(path)[0].source
    assert ":class: needs" in opening
    for word in ("**Time.**", "**Needs.**", "GPU", "memory", "**The run that the book shows**"):
        assert word in opening


def test_every_chapter_that_is_named_by_a_number_is_that_chapter():
    for path in [*NOTEBOOKS, *PAGES]:
        text = path.read_text() if path.suffix == ".md" else "\n".join(c.source for c in cells_of(path))
        for number, target in re.findall(r"\[[Cc]hapter (\d+)[^\]]*\]\((?:\.\./notebooks/)?(\d\d)_", text):
            assert int(number) == int(target), (path.name, number, target)


def test_the_data_page_lists_the_classes_of_every_fold():
    text = (REPO / "book" / "data.md").read_text()
    for fold, ids in pascal5i.FOLDS.items():
        names = ", ".join(pascal5i.VOC_CLASSES[i - 1] for i in ids)
        assert f"| {fold} | {names} |" in text
    ends = [(coco20i.COCO_CLASSES[ids[0] - 1], coco20i.COCO_CLASSES[ids[-1] - 1]) for ids in coco20i.FOLDS.values()]
    for first, last in ends:
        assert f"{first} to {last}" in text


def test_a_reason_is_not_denied_by_the_table_on_its_page():
    """The costs of fewer epochs and of less width that the reasons name are those of the table."""
    text = (REPO / "book" / "deviations.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: row[1:] for row in rows}
    fewer = [float(value) for value in table["8 epochs instead of 12"]]
    before = [float(value) for value in table[next(name for name in table if name.startswith("base threshold 0.7"))][:3]]
    costs = [round(b - a, 1) for a, b in zip(fewer, before, strict=False)]
    assert f"{min(costs)} to {max(costs)} points" in LAPTOP["basic_framework.epochs"][1]
    base = float(table["128 channels"][3]) - fewer[3]
    assert f"{base:.1f} points more base mIoU" in LAPTOP["base_training.epochs"][1].replace("  ", " ")


# --- the extension --------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The HTML of a chapter of a small book that has all of the map's chapters."""
    new = nbformat.v4
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "code.py").write_text('def double(x):\n    """Twice."""\n    return 2 * x\n')
    index = "# Small\n\n```{source} pkg.code.double\n:closed: The code\n```\n\n```{toctree}\n:glob:\n\nnotebooks/*\n```\n"
    (tmp_path / "index.md").write_text(index)
    cells = [
        new.new_markdown_cell("# 3. Title\n\nQuestion.\n\n```{admonition} Before\n:class: needs\nTime.\n```", id="a"),
        new.new_code_cell("fold = 0", metadata={"tags": ["parameters", "setup"]}, id="b"),
        new.new_code_cell("import sys", metadata={"tags": ["setup"]}, id="c"),
        new.new_code_cell("picture()", id="d"),
    ]
    notebook = new.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    for number, name in enumerate(("data", "base_training", "clustering", "basic_framework", "entropy_ranking", "eums", "results"), 1):
        path = tmp_path / "notebooks" / f"{number:02d}_{name}.ipynb"
        nbformat.write(notebook, path)
        executed = nbformat.read(path, as_version=4)
        executed.metadata |= {"papermill": {"duration": 9.0}}
        nbformat.write(executed, tmp_path / "run" / "notebooks" / path.name)
    assert build_main(["-b", "html", "-q", str(tmp_path), str(tmp_path / "out")]) == 0
    return (tmp_path / "out" / "notebooks" / "03_clustering.html").read_text() + (tmp_path / "out" / "index.html").read_text()


def test_the_map_the_fold_and_the_code_of_a_page(page):
    chapter_map = page[page.index('<nav class="chapter-map"') :].split("</nav>")[0]
    assert chapter_map.count("<li>") == 7
    assert '<a href="#" aria-current="page"><b>3</b> Clustering</a>' in chapter_map
    assert '<a href="04_basic_framework.html"><b>4</b> Basic framework</a>' in chapter_map
    fold = page[page.index('<details class="setup">') :].split("</details>")[0]
    for inside in ("Setup, and the run that this page shows", "This notebook took 9 s", "Before", "fold", "sys"):
        assert inside in fold
    assert "picture" not in fold
    assert page.index("Question.") < page.index('<details class="setup">') < page.index("picture")
    source = page[page.index('<details class="shown-source"><summary>The code</summary>') :]
    assert "Twice." in source.split("</details>")[0]
    assert "return" in source
