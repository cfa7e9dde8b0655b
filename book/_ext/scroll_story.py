"""A table that stays while the text about it moves: each step of the text lights the cells that it
speaks of.

    ````{scroll-story}
    ```{table} The caption.
    ...
    ```

    ```{scroll-step} 4-5,4-5
    What these four cells are.
    ```
    ````

The argument of a step lists ranges of cells, rows before columns, counted from 1 without the head
and without the names of the rows: ``4,4 5,5`` are two cells. ``:heads: 4=bird 5=boat`` says what
columns are called from that step on. Without its script this is a table with text below it.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any, ClassVar

from docutils import nodes  # type: ignore[import-untyped]
from docutils.parsers.rst import directives  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CELLS = re.compile(r"\d+(-\d+)?,\d+(-\d+)?")


class ScrollStory(SphinxDirective):
    """The whole: a table, and steps."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        inside = self.parse_content_to_nodes()
        return [nodes.container("", *inside, classes=["scroll-story"])]


class ScrollStep(SphinxDirective):
    """One step."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"heads": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        cells = self.arguments[0].split()
        if wrong := [text for text in cells if not CELLS.fullmatch(text)]:
            raise self.error(f"scroll-step: {wrong[0]!r} is no range of cells such as 4-5,1.")
        heads = escape(self.options.get("heads", ""))
        opening = (
            f'<div class="scroll-step" data-cells="{escape(" ".join(cells))}" data-heads="{heads}">'
        )
        return [
            nodes.raw("", opening, format="html"),
            *self.parse_content_to_nodes(),
            nodes.raw("", "</div>", format="html"),
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("scroll-story", ScrollStory)
    app.add_directive("scroll-step", ScrollStep)
    app.add_js_file("scroll_story.js")
    app.add_css_file("scroll_story.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
