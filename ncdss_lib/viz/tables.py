"""What notebooks display besides figures: the library's own source, sentences and tables."""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown


def show_source(function: Callable[..., Any] | type) -> Markdown:
    """The code of a library function, its name above it and its docstring folded below it."""
    code, folded = split_docstring(textwrap.dedent(inspect.getsource(function)))
    name = f"{function.__module__}.{function.__qualname__}"
    return Markdown(f"`{name}`\n\n```python\n{code}\n```\n\n{folded}")


def source_in_file(path: Path, name: str) -> str:
    """The source of a function, or of a class's method ``Class.method``, without importing it."""
    text = path.read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next((own for own in node.body if getattr(own, "name", None) == part), None)
        if node is None:
            raise ValueError(f"{path} holds no {name}")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def split_docstring(source: str) -> tuple[str, str]:
    """The lines of a definition without its docstring, and that as folded HTML of one line.

    The second is empty where there is no docstring.
    """
    definition: Any = ast.parse(source).body[0]
    docstring = ast.get_docstring(definition)
    lines = source.splitlines()
    if docstring is None:
        return "\n".join(lines), ""
    first = definition.body[0]
    del lines[first.lineno - 1 : first.end_lineno]
    text = html.escape(docstring).replace("``", "`").replace("\n", "&#10;")
    summary = "<summary>What goes in and what comes out</summary>"
    folded = f'<details class="docstring">{summary}<pre>{text}</pre></details>'
    return "\n".join(lines), folded


def say(text: str) -> Markdown:
    """A sentence whose numbers and names come from the run, as Markdown; no name makes a tag."""
    return Markdown(textwrap.dedent(text).strip().replace("<", "&lt;"))


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; an en dash where there is none."""
    return "–" if value is None or pd.isna(value) else f"{100 * value:.{digits}f} %"


def table(
    rows: dict[str, dict[str, Any]] | pd.DataFrame, corner: str = "", *, right: bool = True
) -> HTML:
    """A table; the keys of ``rows`` are its first column. Numbers stand at the right.

    HTML, because the book's Markdown outputs are CommonMark, which has no tables; by hand, because
    pandas gives a row's name no ``scope``, by which a screen reader tells it.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_dict(rows, orient="index")
    side = "right" if right else "left"
    head = _row([corner, *frame.columns], "th", side)
    body = "".join(
        _row([name, *("" if pd.isna(value) else value for value in values)], "td", side)
        for name, *values in frame.itertuples(name=None)
    )
    return HTML(
        f'<table class="table dataframe"><thead>{head}</thead><tbody>{body}</tbody></table>'
    )


def _row(cells: list[Any], tag: str, side: str) -> str:
    name, *values = (html.escape(str(cell)) for cell in cells)
    scope = "col" if tag == "th" else "row"
    others = "".join(f'<{tag} style="text-align: {side}">{value}</{tag}>' for value in values)
    return f'<tr><th scope="{scope}" style="text-align: left">{name}</th>{others}</tr>'
