"""The API reference: docstrings by autodoc, with links between our own types and the settings of a
recipe as a list.

Types of other packages are not linked, since their pages are not here and the build asks nothing of
the network. A name of ours that leads nowhere stays a warning.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import viewcode
from sphinx.ext.autodoc import INSTANCEATTR
from sphinx.util.nodes import make_refnode

import ncdss_lib

OURS = "ncdss_lib."


def find_type(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """What a name in a signature or docstring means that Sphinx did not find.

    A module that imports a name for type checking alone leaves it unqualified: it is ours if one
    documented object is called so. Other packages' names are shown as plain text, as are ours that
    exist without a documentation of their own (constants, type variables).
    """
    if node.get("refdomain") != "py" or node.get("reftype") == "mod":
        return None
    target, kinds = (
        node["reftarget"],
        ("class", "exception") if node["reftype"] in ("class", "exc") else None,
    )
    entries = env.get_domain("py").data["objects"].items()
    found = [
        entry
        for name, entry in entries
        if name.endswith(f".{target}") and (kinds is None or entry.objtype in kinds)
    ]
    if len(found) == 1:
        return make_refnode(
            app.builder, node["refdoc"], found[0].docname, found[0].node_id, content, target
        )
    if target.startswith(OURS):
        return content if is_defined(app, *target.rsplit(".", 1)) else None
    return (
        None if node["reftype"] in ("func", "meth", "attr") and not is_foreign(target) else content
    )


def is_foreign(target: str) -> bool:
    """Whether a function's name is of another package, as ``numpy.random.default_rng``."""
    return "." in target and find_spec(target.partition(".")[0]) is not None


def is_defined(app: Sphinx, modname: str, name: str) -> bool:
    """Whether a module of ours defines a name.

    Its text is read: where the page of a module is not made again, it is not imported.
    """
    file = module_file(app, modname)
    return (
        file is not None
        and re.search(
            rf"^(class |def )?{re.escape(name)}\b",
            Path(file).read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        is not None
    )


def skip_foreign(
    app: Sphinx, what: str, name: str, documented: Any, skip: bool, options: Any
) -> bool | None:
    """Members that others put into our classes: matplotlib's ``set``, pydantic's configuration, the
    fields of a named tuple (which its docstring lists); and settings (which add_settings lists).
    """
    ours = (getattr(documented, "__module__", None) or OURS).startswith(OURS.rstrip("."))
    listed = type(documented).__name__ == "_tuplegetter" or documented is INSTANCEATTR
    return None if ours and name != "model_config" and not listed else True


def add_settings(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]
) -> None:
    """Below the docstring of a section of the recipe: its settings and published values."""
    if not is_section(documented) or not documented.model_fields:
        return
    lines += ["", ".. rubric:: Settings and defaults", ""]
    for setting, field in documented.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = (
            f"``{setting}``" if isinstance(default, BaseModel) else f"``{setting} = {default!r}``"
        )
        lines += [shown, f"    {field.description or type(default).__doc__}", ""]


def short_signature(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, arguments: str, result: str
) -> Any:
    return ("", "") if is_section(documented) else None


def is_section(documented: Any) -> bool:
    return isinstance(documented, type) and issubclass(documented, BaseModel)


def module_file(app: Sphinx, modname: str) -> str | None:
    """The file of a module of ours.

    Sphinx's own look-up imports every module, torch with it, also where no page has changed.
    """
    path = Path(ncdss_lib.__file__).parents[1].joinpath(*modname.split("."))
    return next(
        (str(file) for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()),
        None,
    )


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.setup_extension("sphinx.ext.viewcode")
    viewcode.get_module_filename = module_file
    app.add_css_file("api.css")
    app.connect("missing-reference", find_type)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", add_settings)
    app.connect("autodoc-process-signature", short_signature)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
