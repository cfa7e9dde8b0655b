"""Explorers: explicit ipywidgets in a live notebook, a still picture everywhere else.

A widget needs somebody at a front end. Under papermill, nbclient or in a script there is nobody; a widget would then leave a dead view
in the executed page. A Jupyter front end says with each cell whether it can answer a question (``allow_stdin``): JupyterLab and VS Code
say yes, papermill and nbclient say no. ``NCDSS_STATIC=1`` asks for the still picture in any case. Nothing here ever waits for input.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
from IPython.core.getipython import get_ipython

from ncdss_lib.stages.clustering import used_images
from ncdss_lib.viz import artefacts, figures

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run


def is_live() -> bool:
    """Whether a person sits at the front end of this kernel."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False)) and not os.environ.get("NCDSS_STATIC")


def explorer(control: Any, draw: Callable[[Any], figures.Picture]) -> ipywidgets.VBox:
    """A control above a picture that follows it.

    Args:
        control: a widget with a ``value``.
        draw: value -> figure.
    """
    picture = ipywidgets.Image(value=draw(control.value).png(), format="png", layout={"max_width": "100%"})

    def follow(change: Any) -> None:
        picture.value = draw(change["new"]).png()

    control.observe(follow, names="value")
    return ipywidgets.VBox([control, picture])


def pseudo_label_explorer(run: Run) -> ipywidgets.VBox:
    """Pick an image; see how its pseudo-label came about."""
    ids, k = used_images(run.folder / "clustering"), run.clusters["basic"]
    table = artefacts.pseudo_label_table(run, k)
    options = [(f"{i}  (cluster {table.loc[i, 'cluster']})", i) for i in ids]
    control = ipywidgets.Dropdown(options=options, value=figures.used_examples(run, 1)[0], description="image")
    return explorer(control, lambda i: figures.pseudo_label_steps(run, [i], k))


def entropy_explorer(run: Run) -> ipywidgets.VBox:
    """Move the clean share; see which images fall on which side and how right each side is."""
    table, config = artefacts.ranking_table(run), run.recipe.entropy_ranking
    control = ipywidgets.FloatSlider(
        value=config.clean_share, min=0.05, max=0.95, step=0.01, description="clean share", continuous_update=False
    )
    return explorer(control, lambda share: figures.clean_share_view(run, table, share))


def explore_pseudo_labels(run: Run) -> ipywidgets.VBox | figures.Picture:
    """:func:`pseudo_label_explorer` in a live notebook, else its picture for a few images."""
    if is_live():
        return pseudo_label_explorer(run)
    return figures.pseudo_label_steps(run, figures.used_examples(run, 10)[6:], run.clusters["basic"])


def explore_entropy(run: Run) -> ipywidgets.VBox | figures.Picture:
    """:func:`entropy_explorer` in a live notebook, else its picture at the recipe's clean share."""
    if is_live():
        return entropy_explorer(run)
    return figures.clean_share_view(run, artefacts.ranking_table(run), run.recipe.entropy_ranking.clean_share)
