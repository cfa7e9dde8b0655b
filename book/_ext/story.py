"""``{story} NOTEBOOK``: the frames of one image on their way through the pipeline, on any page.

    ```{story} 07_results
    the image | Nobody has labelled it.
    what stands out | A saliency map says where something is, not what.
    ```

Each line is a frame: its title, and a few words. The image and what the stages made of it come from
the explorer of the whole pipeline that the executed notebook shows; nothing is computed here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import nbformat
from docutils import nodes  # type: ignore[import-untyped]
from executed_notebooks import executed_path
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

DATA = re.compile(r'(<script type="application/json">)(.*?)(</script>)', re.DOTALL)
TITLE = re.compile(r'<figcaption class="ncdss-about".*?</figcaption>\n', re.DOTALL)


def pipeline_explorer(executed: Path) -> str | None:
    """The HTML of the explorer of the whole pipeline in an executed notebook."""
    if not executed.is_file():
        return None
    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", []):
            page = output.get("data", {}).get("text/html", "")
            if 'data-kind="pipeline"' in page:
                return str(page)
    return None


def as_story(page: str, frames: list[tuple[str, str]]) -> str:
    """The same explorer with its first image alone, told in frames."""
    found = DATA.search(page)
    assert found, "an explorer holds its data"
    data = json.loads(found[2])
    first = data["pictures"][0]
    told = {
        **data,
        "pictures": [first],
        "about": {first["id"]: data["about"][first["id"]]},
        "frames": frames,
        "tries": [],
    }
    text = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
    page = TITLE.sub("", page).replace("ncdss-pipeline-", "ncdss-story-")
    page = page.replace('data-kind="pipeline"', 'data-kind="story"')
    return DATA.sub(lambda match: match[1] + text + match[3], page)


class Story(SphinxDirective):
    """The directive."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        frames = [tuple(part.strip() for part in line.split("|")) for line in self.content if line]
        if len(frames) != 6 or any(len(frame) != 2 for frame in frames):
            raise self.error("a story has six lines of the form: title | a few words.")
        notebook = Path(self.env.srcdir, "notebooks", f"{self.arguments[0]}.ipynb")
        executed = executed_path(self.env.app, notebook)
        self.env.note_dependency(str(executed))
        page = pipeline_explorer(executed)
        if page is None:
            logger.warning(
                "there is no story to tell: %s shows no explorer of the whole pipeline. Run `make "
                "reproduce`.",
                executed,
                location=self.get_location(),
                type="story",
            )
            return []
        return [nodes.raw("", as_story(page, frames), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("story", Story)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
