"""What notebooks display besides figures: the library's own source, sentences and tables."""

from __future__ import annotations

import html
import inspect
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import HTML, Markdown

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run


def show_source(function: Callable[..., Any] | type) -> Markdown:
    """The source of a library function, as it runs, with its module above it."""
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    name = f"{function.__module__}.{function.__qualname__}"
    return Markdown(f"`{name}`\n\n```python\n{source}\n```")


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
