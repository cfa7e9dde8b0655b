"""``{result-figure} KIND``: the results of runs as rows of dots, from the same files as
:mod:`result_tables`.

    ```{result-figure} pairs
    :file: measured/photos.json
    :name: fig-pairs

    The caption.
    ```

KIND is ``pairs`` (the models of each run on one line), ``ladder`` (the rows of the paper's
ablation, ours beside the paper's) or ``rulers`` (every protocol). The options are those of
``result-table``.

HTML and CSS rather than a picture: text keeps its size on a phone, colours follow the theme, and
each row says its numbers to who does not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd
from docutils import nodes  # type: ignore[import-untyped]
from result_tables import ResultDirective
from sphinx.application import Sphinx

from ncdss_lib.runs import report

Mark = tuple[float, str, str]  # a value in per cent or points, its class of CSS, and what it is


def axis(values: Iterable[float], room: float = 1.0) -> tuple[float, float, list[float]]:
    """Ends of an axis around some values, and its ticks at round numbers."""
    known = list(values)
    low, high = min(known) - room, max(known) + room
    step = next(s for s in (1, 2, 5, 10, 20, 50) if (high - low) / s <= 6)
    ticks = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, [float(t) for t in ticks]


def track(
    marks: Sequence[Mark], ends: tuple[float, float, list[float]], *, line: bool, head: str = ""
) -> str:
    """One line of dots over its axis; a bar from the first to the last where ``line``.

    ``head`` says on a phone, where columns stand below each other, which of them this is.
    """
    low, high, ticks = ends

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    parts = [f'<s style="left:{place(tick)}"></s>' for tick in ticks]
    if line and marks:
        values = [value for value, *_ in marks]
        width = 100 * (max(values) - min(values)) / (high - low)
        parts.append(f'<b style="left:{place(min(values))};width:{width:.2f}%"></b>')
    parts += [
        f'<i class="{kind}" style="left:{place(value)}" title="{escape(what)} {value:.1f}"></i>'
        for value, kind, what in marks
    ]
    told = ", ".join(f"{what} {value:.1f}" for value, _, what in marks)
    return (
        f'<span class="dots-track" role="img" aria-label="{escape(told)}">{"".join(parts)}</span>'
    )


def scale(ends: tuple[float, float, list[float]], form: str = "{:g}") -> str:
    low, high, ticks = ends
    parts = [
        f'<span style="left:{100 * (t - low) / (high - low):.2f}%">{form.format(t)}</span>'
        for t in ticks
    ]
    return f'<span class="dots-scale" aria-hidden="true">{"".join(parts)}</span>'


def rows(lines: Iterable[Sequence[str]], columns: str, legend: str = "") -> str:
    """Lines of cells: a label, tracks and values; ``columns`` is a layout of ``book.css``."""
    body = "".join(f'<div class="dots-row">{"".join(line)}</div>' for line in lines)
    return f'<div class="dots dots-{columns}">{legend}{body}</div>'


def label(text: str, kind: str = "label") -> str:
    return f'<span class="dots-{kind}">{escape(text)}</span>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    parts = "".join(f'<li><i class="{kind}"></i> {escape(name)}</li>' for kind, name in entries)
    return f'<ul class="dots-legend">{parts}</ul>'


# --- kinds ----------------------------------------------------------------------------------------


def by_run(found: pd.DataFrame, protocol: str = "published") -> pd.DataFrame:
    """Novel mIoU in per cent: a row a run (fold, seed), a column a model."""
    chosen = found[(found["protocol"] == protocol) & found["novel_miou"].notna()]
    return 100 * chosen.pivot_table(index=["fold", "seed"], columns="model", values="novel_miou")


def pairs(found: pd.DataFrame) -> str:
    """The models of each run on one line, and their means."""
    table = by_run(found)
    models = [model for model in report.NAMES if model in table]
    ends = axis(table[models].to_numpy().ravel())

    def line(name: str, values: pd.Series, more: str = "") -> list[str]:
        marks = [(values[m], f"{m}{more}", report.NAMES[m]) for m in models]
        gain = values[models[-1]] - values[models[0]]
        return [label(name), track(marks, ends, line=True), label(f"{gain:+.1f}", "value")]

    lines = [line(f"fold {fold}, seed {seed}", row) for (fold, seed), row in table.iterrows()]
    if len(table) > 1:
        lines.append(line(f"mean of {len(table)}", table.mean(), " mean"))
    lines.append([label("novel mIoU, %"), scale(ends), label("gain", "value")])
    return rows(lines, "runs", legend((m, report.NAMES[m]) for m in models))


def ladder(found: pd.DataFrame) -> str:
    """Each row of the ablation above the basic framework, in points: ours, and the paper's."""
    ours = by_run(found)
    ours = ours.sub(ours["basic"], axis=0)
    published = pd.DataFrame(report.PAPER["pascal5i"]).iloc[:-1]
    published = published.sub(published["basic"], axis=0)
    models = [model for model in report.SWITCHES if model in ours]
    ends = axis([*ours[models].to_numpy().ravel(), *published.to_numpy().ravel()])

    def cell(gains: pd.DataFrame, model: str, head: str) -> list[str]:
        if model not in gains:
            return [label("not run", "track"), label("", "value")]
        each: list[Mark] = [(v, "one", "a run") for v in gains[model]]
        marks: list[Mark] = [*each, (gains[model].mean(), "eums mean", "mean")]
        mean = label(f"{gains[model].mean():+.1f}", "value")
        return [track(marks, ends, line=False, head=head), mean]

    runs = f"{len(ours)} run{'s' * (len(ours) > 1)}"
    head = [label("points above the basic framework"), label(f"here: {runs}", "head")]
    lines = [
        [
            *head,
            label("", "value"),
            label("the paper: PASCAL-5i, 4 folds", "head"),
            label("", "value"),
        ]
    ]
    for model, name in report.SWITCHES.items():
        if model != "basic":
            lines.append(
                [label(name), *cell(ours, model, "here"), *cell(published, model, "paper")]
            )
    form = "{:+g}"
    empty = label("", "value")
    lines.append([label("points"), scale(ends, form), empty, scale(ends, form), empty])
    return rows(lines, "ladder", legend([("one", "a run, or a fold"), ("eums mean", "their mean")]))


def rulers(found: pd.DataFrame) -> str:
    """Means over all runs under each protocol."""
    tables = {protocol: by_run(found, protocol).mean() for protocol in report.protocols_in(found)}
    models = [m for m in report.NAMES if m in tables["published"]]
    tables = {name: means for name, means in tables.items() if set(models) <= set(means.index)}
    ends = axis(value for means in tables.values() for value in means[models])
    lines = []
    for protocol, means in tables.items():
        marks = [(means[m], f"{m} mean", report.NAMES[m]) for m in models]
        gain = means[models[-1]] - means[models[0]]
        name = report.PROTOCOLS[protocol]
        lines.append([label(name), track(marks, ends, line=True), label(f"{gain:+.1f}", "value")])
    lines.append([label("mean novel mIoU, %"), scale(ends), label("gain", "value")])
    return rows(lines, "rulers", legend((f"{m} mean", report.NAMES[m]) for m in models))


FIGURES: dict[str, Callable[[pd.DataFrame], str]] = {
    "pairs": pairs,
    "ladder": ladder,
    "rulers": rulers,
}


class ResultFigure(ResultDirective):
    """The directive: a numbered figure, which says so where nothing was run."""

    def run(self) -> list[nodes.Node]:
        kind, found = self.arguments[0], self.found()
        if kind not in FIGURES:
            raise self.error(f"unknown result-figure {kind!r}: known are {', '.join(FIGURES)}.")
        drawn = f"<p>{self.what()}: not run.</p>" if found.empty else FIGURES[kind](found)
        figure = nodes.figure("", nodes.raw("", drawn, format="html"))
        words, messages = self.parse_inline(" ".join(self.content))
        figure += nodes.caption("", "", *words)
        self.add_name(figure)
        return [figure, *messages]


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("result_tables")
    app.add_directive("result-figure", ResultFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
