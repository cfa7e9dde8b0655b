"""The reference pages of the book: every module is in the API reference, and the status page tells what the files of the run say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from sphinx.cmd.build import build_main

from ncdss_lib.runs.pipeline import STAGES
from tests.conftest import REPO

CONF = f"""
import sys
sys.path.insert(0, {str(REPO / "book" / "_ext")!r})
project = "small"
extensions = ["myst_nb", EXTENSIONS]
nb_execution_mode = "off"
root_doc = "index"
exclude_patterns = ["run", "notebooks"]
numfig = True
"""
PACKAGES = ("data", "method", "models", "prepare", "runs", "system", "viz")
EMPTY = (*(f"{package}/__init__" for package in PACKAGES), "__init__", "__main__")


def build(folder: Path, extensions: str, text: str) -> tuple[int, str, str]:
    """Exit status, warnings and the page's HTML."""
    (folder / "conf.py").write_text(CONF.replace("EXTENSIONS", extensions))
    (folder / "index.md").write_text(text)
    warnings = folder / "warnings.txt"
    status = build_main(["-b", "html", "-q", "-n", "-W", "--keep-going", "-w", str(warnings), str(folder), str(folder / "out" / "html")])
    return status, warnings.read_text(), (folder / "out" / "html" / "index.html").read_text()


def test_every_module_is_in_the_api_reference():
    paths = (path.relative_to(REPO).with_suffix("") for path in (REPO / "ncdss_lib").rglob("*.py"))
    modules = {".".join(path.parts) for path in paths if str(path.relative_to("ncdss_lib")) not in EMPTY} | {
        "ncdss_lib.data",
        "ncdss_lib.prepare",
    }
    pages = "\n".join(page.read_text() for page in (REPO / "book" / "api").glob("*.md"))
    listed = re.findall(r"automodule:: ([\w.]+)", pages)
    assert sorted(listed) == sorted(modules)


def automodule(name: str) -> str:
    return f"# Page\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n"


def test_a_documented_class_is_linked_settings_are_listed_and_foreign_members_are_left_out(tmp_path):
    modules = ("recipes", "prepare.coco_masks", "data.coco20i", "data.dataset", "data.label_space")
    text = "# Page\n" + "".join(automodule(f"ncdss_lib.{name}").replace("# Page", f"## {name}") for name in modules)
    status, warnings, page = build(tmp_path, '"api_reference"', text)
    assert (status, warnings) == (0, "")
    settings = dict(re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", page, re.DOTALL))
    (flip,) = [text for name, text in settings.items() if re.sub(r"<[^>]+>", "", name) == "flip = 0.5"]
    assert "probability of a horizontal flip" in flip
    assert "model_config" not in page
    assert "Alias for field number" not in page
    assert 'href="#ncdss_lib.recipes.Recipe"' in page
    assert (tmp_path / "out" / "html" / "_modules" / "ncdss_lib" / "recipes.html").is_file()


@pytest.mark.parametrize("role", ["func", "meth", "class"])
def test_a_name_of_ours_that_leads_nowhere_is_a_warning(tmp_path, role):
    text = automodule("ncdss_lib.data.label_space") + f"\n{{py:{role}}}`ncdss_lib.data.label_space.gone`\n"
    status, warnings, _ = build(tmp_path, '"api_reference"', text)
    assert status != 0
    assert "ncdss_lib.data.label_space.gone" in warnings


STATUS = "# Page\n\n" + "\n\n".join(
    f"```{{run-status}} {kind}\nA caption.\n```" for kind in ("run", "notebooks", "stages", "versions", "build")
)


def cells_of(page: str, table: str) -> list[list[str]]:
    """The body of a table, as texts."""
    body = page[page.index(f'id="tab-status-{table}"') :].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in row] for row in rows]


def make_run(folder: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata |= {"papermill": {"duration": 12.34, "end_time": "2026-11-25T19:15:04+00:00"}, "ncdss": {"cores": 3}}
    (folder / "notebooks").mkdir(parents=True)
    nbformat.write(notebook, folder / "notebooks" / "01_small.ipynb")
    (folder / "eums").mkdir()
    (folder / "eums" / "manifest.json").write_text(json.dumps({"seconds": 81.26, "peak_memory_bytes": 2_310_000_000}))
    (folder / "base_training").mkdir()
    (folder / "base_training" / "manifest.json").write_text(json.dumps({"seconds": 2.0, "peak_memory_bytes": None}))
    report = {"dataset": "toyscenes", "fold": 2, "seed": 7, "recipe": "laptop", "versions": {"torch": "9.9"}}
    report["device"] = {"type": "cpu", "name": "abacus", "processes": 1, "precision": "fp32"}
    (folder / "report.json").write_text(json.dumps(report))


def test_the_status_page_says_not_run_until_there_are_files_and_follows_them(tmp_path):
    extensions = '"executed_notebooks", "run_status"'
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "01_small.ipynb")
    status, warnings, page = build(tmp_path, extensions, STATUS)
    assert "unknown document" in warnings  # the notebook is no page here
    assert status != 0
    assert cells_of(page, "notebooks") == [["/notebooks/01_small", "not run", "not run", "not run"]]
    assert cells_of(page, "stages") == [[stage, "not run", "not run"] for stage in STAGES]
    assert cells_of(page, "versions") == [["not run", "not run"]]
    assert cells_of(page, "build")[-1] == ["commit of the sources", "built outside of git"]

    make_run(tmp_path / "runs" / "toyscenes" / "fold0" / "laptop" / "seed0")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], cwd=tmp_path, check=True)
    name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    page = build(tmp_path, extensions, STATUS)[2]  # nothing of the book changed
    assert cells_of(page, "notebooks") == [["/notebooks/01_small", "12.3", "3", "2026-11-25 19:15"]]
    stages = {row[0]: row[1:] for row in cells_of(page, "stages")}
    assert stages["eums"] == ["81.3", "2.31 GB"]
    assert stages["base_training"] == ["2.0", "not measured"]
    assert stages["clustering"] == ["not run", "not run"]
    assert "ablation" not in stages
    assert ["fold", "2"] in cells_of(page, "run")
    assert ["device", "cpu (abacus)"] in cells_of(page, "run")
    assert cells_of(page, "versions") == [["torch", "9.9"]]
    assert cells_of(page, "build")[-1][1].startswith(name[:12])
