"""No page asks the network for anything: MathJax is copied from a Python package, and what would
load live code is left out.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

# one file, MathJax 3.2.2: all of TeX, glyphs as SVG paths, so no fonts either
MATHJAX = "tex-svg-full.js"


def mathjax_file() -> Path:
    """The file in the package ``sphinx-mathjax-offline``."""
    package = find_spec("sphinx-mathjax-offline")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "MathJax is missing: install sphinx-mathjax-offline, as `make env` does (it is in the "
            "extra `book`)."
        )
    return Path(package.submodule_search_locations[0], "static", "mathjax", MATHJAX)


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = MATHJAX
    mathjax_file()


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    target = Path(app.outdir, "_static", MATHJAX)
    if error is None and app.builder.format == "html" and not target.is_file():
        shutil.copyfile(mathjax_file(), target)


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave out the scripts that jupyter-book brings for running cells on a server: they name a
    content delivery network, twice.
    """
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not _is_thebe(file)]


def _is_thebe(file: Any) -> bool:
    body = getattr(file, "attributes", {}).get("body", "")
    return "thebe" in f"{getattr(file, 'filename', file)} {body}".lower()


def drop_thebe_config(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for node in list(doctree.findall(nodes.raw)):
        if "text/x-thebe-config" in node.astext():
            node.parent.remove(node)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", use_local_mathjax)
    app.connect("doctree-resolved", drop_thebe_config, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)  # after all others have added theirs
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
