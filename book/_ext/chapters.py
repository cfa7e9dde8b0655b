"""What every chapter opens with, and how it shows code of the library.

- A map of the pipeline below the title: each stage leads to its chapter, the chapter's own is lit.
- The setup of a notebook, from its first to its last cell tagged ``setup``, behind one line. An
  admonition of the class ``needs`` just above it, and the run time, go there too.
- ``{source} PACKAGE.MODULE.FUNCTION``: the code of a function, its docstring folded below it. With
  ``:closed: TITLE`` the whole is folded under that title.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes  # type: ignore[import-untyped]
from docutils.parsers.rst import directives  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ncdss_lib.viz.tables import source_in_file, split_docstring

#: Document -> name on the map, in the order of the pipeline.
CHAPTERS = {
    "notebooks/01_data": "Data",
    "notebooks/02_base_training": "Base training",
    "notebooks/03_clustering": "Clustering",
    "notebooks/04_basic_framework": "Basic framework",
    "notebooks/05_entropy_ranking": "Entropy ranking",
    "notebooks/06_eums": "EUMS",
    "notebooks/07_results": "Results",
}
SETUP = "Setup, and the run that this page shows"


def chapter_map(app: Sphinx, docname: str) -> str:
    """The map as HTML, seen from the page ``docname``."""
    steps = []
    for number, (target, name) in enumerate(CHAPTERS.items(), 1):
        here = ' aria-current="page"' if target == docname else ""
        address = app.builder.get_relative_uri(docname, target) if not here else "#"
        text = f"<b>{number}</b> {html.escape(name)}"
        steps.append(f'<li><a href="{address}"{here}>{text}</a></li>')
    label = "The stages of the method"
    return f'<nav class="chapter-map" aria-label="{label}"><ol>{"".join(steps)}</ol></nav>'


def add_map(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    title = doctree.next_node(nodes.title)
    if title is None or not (docname.startswith("notebooks/") or docname == "book/method"):
        return
    known = [target for target in CHAPTERS if target in app.env.found_docs]
    if len(known) == len(CHAPTERS):
        drawn = nodes.raw("", chapter_map(app, docname), format="html")
        title.parent.insert(title.parent.index(title) + 1, drawn)


def fold_setup(app: Sphinx, doctree: nodes.document) -> None:
    """Put what stands between the first and the last cell tagged ``setup`` into one fold."""
    cells = [node for node in doctree.findall(nodes.container) if "tag_setup" in node["classes"]]
    if not cells:
        return
    parent = cells[0].parent
    first, last = parent.index(cells[0]), parent.index(cells[-1])
    if first and "needs" in parent[first - 1].get("classes", []):
        first -= 1
    inside = parent[first : last + 1]
    before = parent[:first]
    times = [node for node in before if "run-time" in node.get("classes", [])]
    opening = f'<details class="setup"><summary>{SETUP}</summary>'
    parent[: last + 1] = [
        *(node for node in before if node not in times),
        nodes.raw("", opening, format="html"),
        *times,
        *inside,
        nodes.raw("", "</details>", format="html"),
    ]


class Source(SphinxDirective):
    """``{source}``, read from the file, so that nothing is imported."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"closed": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        path, name = find_module(Path(self.env.srcdir), self.arguments[0])
        self.env.note_dependency(str(path))
        code, folded = split_docstring(source_in_file(path, name))
        block = nodes.literal_block(code, code, language="python")
        shown: list[nodes.Node] = [block]
        if folded:
            shown.append(nodes.raw("", folded, format="html"))
        if title := self.options.get("closed"):
            opening = f'<details class="shown-source"><summary>{html.escape(title)}</summary>'
            shown.insert(0, nodes.raw("", opening, format="html"))
            shown.append(nodes.raw("", "</details>", format="html"))
        return shown


def find_module(root: Path, dotted: str) -> tuple[Path, str]:
    """The file that holds a dotted name below ``root``, and what is left of the name."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = root.joinpath(*parts[:length]).with_suffix(".py")
        if path.is_file():
            return path, ".".join(parts[length:])
    raise ValueError(f"no module of the project holds {dotted}")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("source", Source)
    app.add_css_file("chapters.css")
    app.connect("doctree-read", fold_setup, priority=600)  # after the run time was put in
    app.connect("doctree-resolved", add_map)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
