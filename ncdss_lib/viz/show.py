"""What notebooks display besides figures: the library's own source, sentences and tables made from artefacts."""

from __future__ import annotations

import html
import inspect
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import HTML, Markdown

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run


def show_source(function: Callable[..., Any] | type) -> Markdown:
    """The source of a library function, as it runs, with its module above it."""
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    return Markdown(f"`{function.__module__}.{function.__qualname__}`\n\n```python\n{source}\n```")


def say(text: str) -> Markdown:
    """A sentence whose numbers come from the run, as Markdown."""
    return Markdown(textwrap.dedent(text).strip())


def run_table(run: Run) -> HTML:
    """What this run is: the first table of every notebook."""
    labels = run.labels
    return table(
        {
            "data set": {"": f"{run.data.name}, fold {run.fold}; {run.data.saliency_note}; masks: {run.data.masks_note}"},
            "base classes": {"": f"{labels.num_base}: {', '.join(labels.base_names)}"},
            "novel classes": {"": f"{labels.num_novel}: {', '.join(labels.novel_names)}"},
            "recipe, seed": {"": f"{run.recipe.name}, {run.seed}"},
        },
        "this run",
        right=False,
    )


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; an en dash where there is none."""
    return "–" if value is None or pd.isna(value) else f"{100 * value:.{digits}f} %"


def table(rows: dict[str, dict[str, Any]] | pd.DataFrame, corner: str = "", *, right: bool = True) -> HTML:
    """A table; the keys of ``rows`` are its first column. Numbers stand at the right.

    HTML, because the book's Markdown outputs are CommonMark, which has no tables.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_dict(rows, orient="index")
    head = _cells([corner, *map(str, frame.columns)], "th", right)
    body = [
        _cells([str(index), *("" if pd.isna(value) else str(value) for value in values)], "td", right)
        for index, values in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return HTML(f'<table class="table dataframe"><thead>{head}</thead><tbody>{"".join(body)}</tbody></table>')


def _cells(texts: list[str], tag: str, right: bool) -> str:
    name, *values = (html.escape(text) for text in texts)
    side = "right" if right else "left"
    others = "".join(f'<{tag} style="text-align: {side}">{value}</{tag}>' for value in values)
    scope = "col" if tag == "th" else "row"
    return f'<tr><th scope="{scope}" style="text-align: left">{name}</th>{others}</tr>'
