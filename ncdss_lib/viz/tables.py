"""What notebooks display besides figures: the library's own source, sentences and tables."""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import HTML, Markdown

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run


def show_source(function: Callable[..., Any] | type) -> Markdown:
    """The code of a library function, its name above it and its docstring folded below it."""
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    name = f"{function.__module__}.{function.__qualname__}"
    code = without_docstring(source)
    return Markdown(f"`{name}`\n\n```python\n{code}\n```\n\n{folded_docstring(source)}")


def source_in_file(path: Path, name: str) -> str:
    """The source of a function, or of a class's method ``Class.method``, without importing it."""
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    for part in name.split("."):
        named = (ast.FunctionDef, ast.ClassDef)
        found = [node for node in body if isinstance(node, named) and node.name == part]
        if not found:
            raise ValueError(f"{path} holds no {name}")
        node = found[0]
        body = node.body
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def _docstring(source: str) -> ast.Expr | None:
    """The statement that is the docstring of the first definition in a source."""
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    first = definition.body[0]
    has_one = ast.get_docstring(definition) is not None
    return first if has_one and isinstance(first, ast.Expr) else None


def without_docstring(source: str) -> str:
    """The lines of a definition but for its docstring."""
    docstring = _docstring(source)
    lines = source.splitlines()
    if docstring is not None:
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)


def folded_docstring(source: str) -> str:
    """The docstring of a definition as folded HTML without a line break; empty without one."""
    if _docstring(source) is None:
        return ""
    text = html.escape(ast.get_docstring(ast.parse(source).body[0]) or "")  # type: ignore[arg-type]
    lines = text.replace("``", "`").replace("\n", "&#10;")
    summary = "<summary>What goes in and what comes out</summary>"
    return f'<details class="docstring">{summary}<pre>{lines}</pre></details>'


def say(text: str) -> Markdown:
    """A sentence whose numbers and names come from the run, as Markdown; no name makes a tag."""
    return Markdown(textwrap.dedent(text).strip().replace("<", "&lt;"))


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; an en dash where there is none."""
    return "–" if value is None or pd.isna(value) else f"{100 * value:.{digits}f} %"


def run_table(run: Run) -> HTML:
    """What this run is: the first table of every notebook."""
    labels, data = run.labels, run.data
    rows = {
        "data set": f"{data.name}, fold {run.fold}; {data.saliency_note}; masks: {data.masks_note}",
        "base classes": f"{labels.num_base}: {', '.join(labels.base_names)}",
        "novel classes": f"{labels.num_novel}: {', '.join(labels.novel_names)}",
        "recipe, seed": f"{run.recipe.name}, {run.seed}",
    }
    return table({name: {"": text} for name, text in rows.items()}, "this run", right=False)


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
