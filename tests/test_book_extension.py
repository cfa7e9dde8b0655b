"""The book's extension on a one-page project: outputs are put in; a missing, stale or failed execution is a warning, each time."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from sphinx.cmd.build import build_main

from ncdss_lib.recipes import LAPTOP
from ncdss_lib.runs import notebooks

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
project = "small"
extensions = ["myst_nb", "executed_notebooks"]
nb_execution_mode = "off"
root_doc = "notebooks/01_small"
exclude_patterns = ["run", "out", "notebooks/*.md"]
executed_run = "run"
"""
BAR = "\r 40%|####      | 4/10 [00:02<00:03,  2.0it/s]\r100%|##########| 10/10 [00:05<00:00,  2.0it/s]\n"


def cells(text: str, *outputs: list, injected: bool = False) -> list:
    new = nbformat.v4
    made = [
        new.new_markdown_cell(f"# {text}", id="title"),
        new.new_code_cell("fold = 0", metadata={"tags": ["parameters"]}, id="parameters"),
        new.new_code_cell("from ncdss_lib import stage\nwork(fold)", id="work", outputs=list(outputs)),
    ]
    if injected:
        made.insert(2, new.new_code_cell("# Parameters\nfold = 777", metadata={"tags": ["injected-parameters"]}, id="injected"))
    return made


def write(path: Path, cells: list, **metadata) -> None:
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, **metadata}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conf.py").write_text(CONF)
    write(tmp_path / "notebooks" / "01_small.ipynb", cells("Title"))
    (tmp_path / "notebooks" / "01_small.md").write_text("# the pair, not a page of its own\n")
    return tmp_path


def build(project: Path) -> tuple[int, str, str]:
    """Exit status, warnings and the page's HTML."""
    warnings = project / "warnings.txt"
    status = build_main(["-b", "html", "-q", "-n", "-W", "--keep-going", "-w", str(warnings), str(project), str(project / "out" / "html")])
    return status, warnings.read_text(), (project / "out" / "html" / "notebooks" / "01_small.html").read_text()


def executed(project: Path, text: str = "Title", result: str = "the result", **metadata) -> None:
    shown = nbformat.v4.new_output("stream", name="stdout", text=f"{result}\n")
    bar = nbformat.v4.new_output("stream", name="stderr", text=BAR)
    source = notebooks.read_notebook(project / "notebooks" / "01_small.ipynb")
    metadata = {"ncdss": {"library": notebooks.library_digest(source)}, **metadata}
    write(project / "run" / "notebooks" / "01_small.ipynb", cells(text, bar, shown, injected=True), **metadata)


def test_the_page_shows_the_executed_outputs_and_follows_them(project):
    executed(project)
    status, warnings, page = build(project)
    assert (status, warnings) == (0, "")
    assert "the result" in page
    assert "777" in page  # the injected value
    assert "4/10" not in page  # the progress bar

    executed(project, result="another result")
    assert "another result" in build(project)[2]

    write(project / "notebooks" / "01_small.ipynb", cells("New wording"))  # text alone needs no new execution
    status, _, page = build(project)
    assert status == 0
    assert "New wording" in page
    assert "another result" in page


def test_a_missing_execution_is_a_warning_until_it_is_there(project):
    for _ in range(2):
        status, warnings, _ = build(project)
        assert status != 0
        assert "it was not executed" in warnings
        assert "make reproduce" in warnings
    executed(project)
    assert build(project)[0] == 0


def test_changed_code_and_failed_executions_are_warnings(project, monkeypatch):
    executed(project)
    changed = cells("Title")
    changed[2].source = "other(fold)"
    write(project / "notebooks" / "01_small.ipynb", changed)
    assert "its code was changed after it was executed" in build(project)[1]

    write(project / "notebooks" / "01_small.ipynb", cells("Title"))
    failed = project / "run" / "notebooks" / "01_small.failed.ipynb"
    failed.write_text("{}")
    assert "its last execution failed" in build(project)[1]
    failed.unlink()

    executed(project, papermill={"exception": True})
    assert "its execution failed" in build(project)[1]

    executed(project)
    assert build(project)[0] == 0
    monkeypatch.setenv("NCDSS_BOOK_RUN", "elsewhere")
    assert "elsewhere" in build(project)[1]


def test_an_execution_by_another_library_is_a_warning_until_it_is_done_again(project, monkeypatch, tmp_path):
    executed(project)
    assert build(project)[0] == 0
    library = tmp_path / "other" / "ncdss_lib"
    library.mkdir(parents=True)
    (library / "stage.py").write_text("other = 1")
    with monkeypatch.context() as patch:
        patch.setattr(notebooks, "PACKAGE", library)
        for _ in range(2):  # though no page has changed
            status, warnings, _ = build(project)
            assert status != 0
            assert "code that it imports was changed after it was executed" in warnings
            assert "Run `make reproduce`" in warnings
        executed(project)
        assert build(project)[0] == 0
    executed(project, ncdss={"key": "of a version that did not record it"})
    assert "code that it imports was changed" in build(project)[1]


def test_the_table_of_the_laptop_recipe_is_made_from_the_recipe(tmp_path):
    (tmp_path / "conf.py").write_text(
        CONF.replace('"executed_notebooks"', '"recipe_tables"')
        .replace("executed_run", 'myst_enable_extensions = ["deflist"] # ')
        .replace("notebooks/01_small", "index")
    )
    (tmp_path / "index.md").write_text("# Page\n\n```{laptop-table}\n```\n")
    warnings = tmp_path / "warnings.txt"
    assert build_main(["-b", "html", "-q", "-n", "-W", "-w", str(warnings), str(tmp_path), str(tmp_path / "out" / "html")]) == 0, (
        warnings.read_text()
    )
    page = (tmp_path / "out" / "html" / "index.html").read_text()
    assert page.count("<dt") == page.count("<dd") == len(LAPTOP)
    entry = page[page.index("clustering.whiten") :].split("</dd>")[0]
    assert "published: yes; here: <strong>no</strong>. Whitening amplifies" in entry
    assert LAPTOP["clustering.whiten"][1][1:] in entry
    assert "see model.encoder" not in page
