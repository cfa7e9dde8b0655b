"""``{themed-figure} _static/x-{theme}.svg``: one numbered figure with a picture for the light theme
and one for the dark.

Everything else is as in ``{figure}``: options, caption, ``name``. Both pictures have the same
alternative text.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure


class ThemedFigure(Figure):
    """The directive."""

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0]
        self.arguments[0] = path.replace("{theme}", "light")
        made = super().run()
        for figure in made:
            if isinstance(figure, nodes.figure):
                light = next(iter(figure.findall(nodes.image)))
                dark = light.deepcopy()
                dark["uri"] = path.replace("{theme}", "dark")
                light["classes"].append("only-light")
                dark["classes"].append("only-dark")
                # In a box of their own: the theme hides the caption that follows a picture of the
                # other theme.
                figure.replace(light, box := nodes.container())
                box += [light, dark]
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("themed-figure", ThemedFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
