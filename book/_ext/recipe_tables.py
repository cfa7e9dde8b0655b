"""``{laptop-table}``: every field in which the laptop recipe differs from the published value, from
the recipe itself.
"""

from __future__ import annotations

from typing import Any

from sphinx.util.docutils import SphinxDirective

from ncdss_lib.recipes import LAPTOP, flatten, load_recipe


def laptop_table() -> str:
    """A Markdown definition list, which fits a phone: field, then published value, ours, and why.
    ``see x`` becomes the reason of x.
    """
    published, entries = flatten(load_recipe("paper")), []
    for field, (ours, reason) in LAPTOP.items():
        why = LAPTOP[reason.removeprefix("see ")][1] if reason.startswith("see ") else reason
        entries.append(
            f"`{field}`\n: published: {_plain(published[field])}; here: **{_plain(ours)}**. "
            f"{why[0].upper()}{why[1:]}."
        )
    return "\n\n".join(entries)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)


class LaptopTable(SphinxDirective):
    """The directive."""

    def run(self) -> list[Any]:
        return self.parse_text_to_nodes(laptop_table())


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("laptop-table", LaptopTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
