"""The annotated pages show all of a file: its prose at one side, every line of code at the other, once and in order."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from annotated import rows_of  # noqa: E402

SHOWN = sorted((ROOT / "book" / "code").glob("*.md"))
SOURCE = '''"""The file.

More.
"""

import os

# --- first part ---

#: Two lines
#: about it.
LIMIT = 3  # stays in the code


@decorated
def small(x: int) -> int:
    """What it does."""
    # first this
    y = x  # and stays

    # then that,
    # in two lines
    def inner():
        """Of a part."""
        return y

    return inner()


class Thing:
    """A thing."""

    def act(self):
        return LIMIT
'''


def test_a_row_begins_with_each_definition_and_each_comment_of_its_own():
    rows = rows_of(SOURCE)
    told = [(row.heading, row.name, row.docstring, " ".join(row.comments)) for row in rows]
    assert told == [
        ("", "", "The file.\n\nMore.", ""),
        ("first part", "", "", "Two lines about it."),
        ("", "small", "What it does.", ""),
        ("", "", "", "first this"),
        ("", "inner", "Of a part.", "then that, in two lines"),
        ("", "Thing", "A thing.", ""),
        ("", "act", "", ""),
    ]
    assert rows[2].code == ["@decorated", "def small(x: int) -> int:"]
    assert "LIMIT = 3  # stays in the code" in rows[1].code


def without_prose(source: str) -> str:
    """The code alone: no docstring is left, and comments are no code."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return ast.unparse(tree)


@pytest.mark.parametrize("page", SHOWN, ids=[page.stem for page in SHOWN])
def test_the_code_of_all_rows_is_the_file(page):
    source = (ROOT / "ncdss_lib" / "method" / f"{page.stem}.py").read_text()
    assert f"```{{annotated}} ncdss_lib/method/{page.stem}.py" in page.read_text()
    rows = rows_of(source)
    code = "\n".join(line for row in rows for line in row.code)
    assert ast.unparse(ast.parse(code)) == without_prose(source)
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = sorted(text for node in documented if (text := ast.get_docstring(node)))
    assert sorted(row.docstring for row in rows if row.docstring) == docstrings
    prose = sum(bool(row.docstring or row.comments) for row in rows)
    assert prose >= 0.6 * len(rows)  # a page of code without words would be no page to read
    assert max(len(line) for row in rows for line in row.code) <= 100


def test_the_files_of_the_method_are_shown():
    assert len(SHOWN) == 11
    listed = (ROOT / "book" / "code.md").read_text()
    assert [page.stem for page in SHOWN if f"](code/{page.name})" not in listed] == []
