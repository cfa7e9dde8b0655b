"""What a term means, and which work a citation is, at the link itself: shown on hover and on focus.

Each link to the glossary gets the first paragraph of its definition as title; citations have theirs
from sphinxcontrib-bibtex. ``previews.js`` shows these titles in a readable box. Without the script
the browser shows them in its own way, and nothing is loaded for them.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"


def definitions(env: BuildEnvironment) -> dict[str, str]:
    """Anchor of a term -> the first paragraph of its definition, as plain text."""
    if GLOSSARY not in env.found_docs:
        return {}
    found: dict[str, str] = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        first = item.next_node(nodes.definition).next_node(nodes.paragraph)
        if first is not None:
            text = " ".join(first.astext().split())
            found |= {name: text for term in item.findall(nodes.term) for name in term["ids"]}
    return found


def add_definitions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    links = [
        node for node in doctree.findall(nodes.reference) if "#term-" in node.get("refuri", "")
    ]
    if not links or docname == GLOSSARY:
        return
    known = definitions(app.env)
    for link in links:
        if text := known.get(link["refuri"].partition("#")[2]):
            link["reftitle"] = text
            link["classes"].append("preview")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", add_definitions)
    app.add_js_file("previews.js")
    app.add_css_file("previews.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
