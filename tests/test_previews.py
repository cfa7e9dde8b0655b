"""A link to a term carries the first words of its definition, wherever it stands but in the glossary itself."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from sphinx.cmd.build import build_main

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
project = "small"
extensions = ["myst_nb", "previews", "scroll_story"]
nb_execution_mode = "off"
html_static_path = [{str(EXTENSIONS.parent / "_static")!r}]
exclude_patterns = ["out"]
"""
GLOSSARY = """# Glossary

```{glossary}
IoU
    What is shared, over what is in "either" of {term}`two <mIoU>`.

    A second paragraph.

mIoU
    Its mean.
```
"""
STORY = """
````{scroll-story}
| a | b |
|---|---|
| x | 1 |

```{scroll-step} CELLS
:heads: 1=bird
Words on {term}`IoU`.
```
````
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "book" / "glossary.md").write_text(GLOSSARY)
    return tmp_path


def build(project: Path, text: str) -> tuple[int, str]:
    (project / "index.md").write_text(f"# Page\n\n{text}\n\n```{{toctree}}\nbook/glossary\n```\n")
    status = build_main(["-b", "html", "-q", "-W", "--keep-going", str(project), str(project / "out")])
    page = project / "out" / "index.html"
    return status, page.read_text() if page.is_file() else ""


def test_a_term_says_what_it_is_at_its_link(project):
    status, page = build(project, "About {term}`the overlap <IoU>` and {term}`mIoU`.")
    assert status == 0
    links = re.findall(r'<a class="preview reference internal" href="([^"]+)" title="([^"]+)">', page)
    assert [(address, html.unescape(text)) for address, text in links] == [
        ("book/glossary.html#term-IoU", "What is shared, over what is in “either” of two."),
        ("book/glossary.html#term-mIoU", "Its mean."),
    ]
    assert 'class="preview' not in (project / "out" / "book" / "glossary.html").read_text()
    assert "previews.js" in page


def test_a_step_of_a_story_names_cells(project):
    status, page = build(project, STORY.replace("CELLS", "1,1 2-3,1"))
    assert status == 0
    assert '<div class="scroll-step" data-cells="1,1 2-3,1" data-heads="1=bird">' in page
    assert page.index('class="scroll-story') < page.index("<table") < page.index('class="scroll-step"') < page.index("Words on")


def test_cells_that_are_none_are_refused(project, capfd):
    status, _ = build(project, STORY.replace("CELLS", "first,1"))
    assert status != 0
    assert "'first,1' is no range of cells" in capfd.readouterr().err
