"""``{question} TEXT``: a question with answers to choose from, each with the reason.

    ```{question} Which pixels enter the novel mask?
    - [ ] All salient pixels. | What is recognised is taken out.
    - [x] Salient pixels that are not confidently base. | That is equation 4.
    ```

No server and no script: an answer is a ``<details>`` of HTML.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ANSWER = re.compile(r"- \[(?P<mark>[ x])\] (?P<text>.+?) \| (?P<why>.+)")


class Question(SphinxDirective):
    """The directive."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        answers = [ANSWER.fullmatch(line.strip()) for line in self.content if line.strip()]
        if not answers or not all(answers):
            raise self.error(
                "an answer is a line of the form: - [x] what | why, or - [ ] what | why."
            )
        if sum(a["mark"] == "x" for a in answers if a) != 1:
            raise self.error("exactly one answer of a question is right: [x].")
        box = nodes.container(classes=["question"])
        box += self._words(self.arguments[0])
        for answer in filter(None, answers):
            kind = "right" if answer["mark"] == "x" else "wrong"
            box += self._html(f'<details class="{kind}"><summary>')
            box += self._words(answer["text"])
            box += self._html("</summary>")
            box += self._words(f"**{'Yes' if kind == 'right' else 'No'}.** {answer['why']}")
            box += self._html("</details>")
        return [box]

    def _words(self, text: str) -> list[nodes.Node]:
        return self.parse_text_to_nodes(text)

    def _html(self, text: str) -> nodes.Node:
        return nodes.raw("", text, format="html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("question", Question)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
