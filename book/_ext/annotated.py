"""``{annotated} PATH``: a source file as prose beside its code.

    ```{annotated} ncdss_lib/method/eums.py
    ```

The prose is the file's own: its docstrings, and each comment that has a line to itself. The code is
all the rest, line by line and in order, so the page cannot differ from what runs. A line
``# --- words ---`` is a heading. On a narrow window the prose stands above its code.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

HEADING = re.compile(r"-{3,} (.+?) -{3,}")
#: Fields with the names that docstrings give them; attributes describe no object a second time.
STYLE = Config(napoleon_use_param=False, napoleon_use_rtype=False, napoleon_use_ivar=True)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@dataclass
class Row:
    """What stands side by side: comments and docstrings, and lines of code."""

    docstring: str = ""
    comments: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    name: str = ""  # of the function or class that begins here
    heading: str = ""


def rows_of(source: str) -> list[Row]:
    """A file in rows: one begins with each definition and with each comment on lines of its own.

    Every line that is neither blank nor prose is in exactly one row, in its order.
    """
    lines = source.splitlines()
    docstrings = _docstrings(source)
    definitions = _definitions(source)
    comments = _comments(source)

    rows = [Row()]
    row = rows[0]
    number = 1
    while number <= len(lines):
        if number in docstrings:
            row.docstring, number = docstrings[number]
            continue
        if number in comments:
            text = comments[number]
            if _holds_code(row) or HEADING.fullmatch(text):
                row = Row()
                rows.append(row)
            if heading := HEADING.fullmatch(text):
                row.heading = heading[1]
            else:
                row.comments.append(text)
        elif number in definitions:
            if _holds_code(row) or row.docstring:
                row = Row()
                rows.append(row)
            row.name = definitions[number]
            row.code.append(lines[number - 1])
        else:
            row.code.append(lines[number - 1])
        number += 1
    return [row for row in rows if _holds_code(row) or row.docstring or row.comments or row.heading]


def _holds_code(row: Row) -> bool:
    return any(line.strip() for line in row.code)


def _docstrings(source: str) -> dict[int, tuple[str, int]]:
    """First line of a docstring -> its text, and the line after it."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            statement = node.body[0]
            found[statement.lineno] = (text, (statement.end_lineno or statement.lineno) + 1)
    return found


def _definitions(source: str) -> dict[int, str]:
    """First line of a function, method or class, decorators included -> its name.

    A function within a function is a part of it, unless it has a docstring of its own.
    """
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = {
        child
        for function in functions
        for child in ast.walk(function)
        if child is not function and ast_docstring(child) is None
    }
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node not in inner:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[first] = node.name
    return found


def ast_docstring(node: ast.AST) -> str | None:
    return ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None


def _comments(source: str) -> dict[int, str]:
    """Line -> comment, of lines that hold nothing else."""
    lines = source.splitlines()
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT and lines[line - 1].lstrip().startswith("#"):
            found[line] = token.string.lstrip("#:").strip()
    return found


class Annotated(SphinxDirective):
    """The directive."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, self.arguments[0])
        if not path.is_file():
            raise self.error(f"{path} is not there.")
        self.env.note_dependency(str(path))
        return [self.side_by_side(row) for row in rows_of(path.read_text(encoding="utf-8"))]

    def side_by_side(self, row: Row) -> nodes.Node:
        prose = nodes.container("", classes=["annotated-prose"])
        if row.heading:
            prose += nodes.rubric("", row.heading)
        if row.name:
            name = nodes.paragraph("", "", nodes.literal(row.name, row.name))
            name["classes"].append("annotated-name")
            prose += name
        if row.comments:
            text = " ".join(row.comments)
            prose += nodes.paragraph("", text)
        if row.docstring:
            prose += self.docstring(row.docstring)

        code = nodes.container("", classes=["annotated-code"])
        text = "\n".join(row.code).strip("\n")
        if text.strip():
            code += nodes.literal_block(text, text, language="python")
        kind = ["annotated-row"] if text.strip() else ["annotated-row", "annotated-words"]
        return nodes.container("", prose, code, classes=kind)

    def docstring(self, text: str) -> list[nodes.Node]:
        """The docstring as the API reference reads it: Google style, with links to our names."""
        lines = GoogleDocstring(text, cast("Any", STYLE), what="function").lines()
        lines = [line.replace(":ivar ", ":") for line in lines]
        return self.parse_text_to_nodes("````{eval-rst}\n" + "\n".join(lines) + "\n````")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("annotated", Annotated)
    app.add_css_file("annotated.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
