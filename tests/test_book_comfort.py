"""The book's pages ask nothing of the network, know where they are published only if told, and say how long a notebook took."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from sphinx.cmd.build import build_main

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
project = "small"
extensions = ["sphinx.ext.mathjax", "sphinx_thebe", "myst_nb", "executed_notebooks", "offline", "run_times", "sharing"]
thebe_config = {{"repository_url": "https://github.com/a/b"}}
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
nb_ipywidgets_js = {{}}
exclude_patterns = ["run", "out"]
executed_run = "run"
root_doc = "index"
myst_enable_extensions = ["dollarmath"]
"""
PAGE = 'A "first" paragraph, which is long enough to say what this page is about.'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("NCDSS_REPOSITORY_URL", "NCDSS_REPOSITORY_BRANCH", "NCDSS_BOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "index.md").write_text(f"# Title & more\n\n{PAGE}\n\n$$x^2$$\n\n```{{toctree}}\nnotebooks/03_clustering\n```\n")
    cell = nbformat.v4.new_code_cell("1", id="one")
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Clustering", id="title"), cell])
    source.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for folder, metadata in {"notebooks": {}, "run/notebooks": {"papermill": {"duration": 12.4}, "ncdss": {"cores": 2}}}.items():
        (tmp_path / folder).mkdir(parents=True)
        source.metadata |= metadata
        nbformat.write(source, tmp_path / folder / "03_clustering.ipynb")
    return tmp_path


def build(project: Path) -> int:
    return build_main(["-b", "html", "-q", str(project), str(project / "out")])


def page(project: Path, name: str) -> str:
    return (project / "out" / name).read_text()


def test_no_page_loads_anything_from_elsewhere(project):
    assert build(project) == 0
    for name in ("index.html", "notebooks/03_clustering.html"):
        text = page(project, name)
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]+)"', text)
        assert len(loaded) > 5
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
        assert "unpkg.com" not in text
    assert '"_static/tex-svg-full.js"' in page(project, "index.html")
    assert (project / "out" / "_static" / "tex-svg-full.js").stat().st_size > 2_000_000


def test_without_an_address_there_are_no_links_to_a_repository(project):
    assert build(project) == 0
    text = page(project, "notebooks/03_clustering.html")
    assert "github.com" not in text
    assert "binder" not in text.lower()
    assert 'content="../_static/social-card.png"' in text
    assert "og:url" not in text
    assert "Report a problem" not in text


@pytest.mark.parametrize(("host", "issue"), [("github.com", "/issues/new?title="), ("gitlab.com", "/-/issues/new?issue[title]=")])
def test_a_page_says_where_to_report_a_problem_with_it(project, host, issue):
    """The address may come from the configuration as well as from the environment."""
    url = f"https://{host}/someone/ncdss"
    with (project / "conf.py").open("a") as conf:
        conf.write(f'html_theme_options = {{"repository_url": "{url}"}}\n')
    assert build(project) == 0
    link = f'<p class="report-page"><a href="{url}{issue}Problem%20on%20the%20page%20index">Report a problem with this page</a></p>'
    assert link in page(project, "index.html")


def test_the_address_that_jupyter_book_gives_by_itself_is_none(project):
    with (project / "conf.py").open("a") as conf:
        conf.write('html_theme_options = {"repository_url": "https://github.com/executablebooks/jupyter-book"}\n')
    assert build(project) == 0
    assert "Report a problem" not in page(project, "index.html")


def test_with_an_address_there_are_all_of_them(project, monkeypatch):
    monkeypatch.setenv("NCDSS_REPOSITORY_URL", "https://github.com/someone/ncdss/")
    monkeypatch.setenv("NCDSS_REPOSITORY_BRANCH", "next")
    monkeypatch.setenv("NCDSS_BOOK_URL", "https://someone.github.io/ncdss/")
    assert build(project) == 0
    text = page(project, "notebooks/03_clustering.html")
    for wanted in ("/edit/next/notebooks/03_clustering.ipynb", "/issues/new", "mybinder.org/v2/gh/someone/ncdss/next", "colab.research"):
        assert wanted in text
    index = page(project, "index.html")
    assert '<meta property="og:title" content="Title &amp; more" />' in index
    assert f'<meta property="og:description" content="{PAGE}"'.replace('"first"', "“first”") in index
    assert '<meta property="og:image" content="https://someone.github.io/ncdss/_static/social-card.png" />' in index
    assert '<meta property="og:url" content="https://someone.github.io/ncdss/index.html" />' in index


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b", "https://github.com/a"])
def test_an_address_that_is_none_is_refused(project, monkeypatch, capfd, url):
    monkeypatch.setenv("NCDSS_REPOSITORY_URL", url)
    assert build(project) != 0
    assert url in capfd.readouterr().err


def test_the_card_is_a_picture_of_the_usual_size(project):
    from PIL import Image

    assert build(project) == 0
    with Image.open(project / "out" / "_static" / "social-card.png") as card:
        assert card.size == (1200, 630)
        assert len(card.convert("RGB").resize((60, 30)).getcolors(1800)) > 20


def test_a_notebook_page_says_how_long_it_took(project):
    assert build(project) == 0
    told = "This notebook took 12 s on 2 processor cores, figures and explorers included.</p>"
    assert told in page(project, "notebooks/03_clustering.html")
    assert "run-time" not in page(project, "index.html")


def test_and_how_long_its_stage_took(project):
    (project / "run" / "clustering").mkdir()
    (project / "run" / "clustering" / "manifest.json").write_text(json.dumps({"seconds": 94.6}))
    assert build(project) == 0
    assert "included. Its stage, clustering, took 95 s when it was computed;" in page(project, "notebooks/03_clustering.html")
