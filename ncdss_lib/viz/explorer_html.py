"""Explorers for a page: pictures that follow sliders and menus, self-contained in the HTML.

An :class:`Explorer` shows itself in a notebook as HTML: the data with its images, the script
``explorer.js`` and the style ``explorer.css``. Nothing is fetched and no kernel is asked, so it
works in the built book, from a file, and in JupyterLab. Where scripts do not run there is a still
picture instead.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ncdss_lib.data.palette import Look, to_hex
from ncdss_lib.viz.figures import Drawing

TEMPLATE = """<figure class="ncdss-explorer" id="{name}" data-kind="{kind}">
<style>{style}</style>
<figcaption class="ncdss-about" id="{name}-title"><strong>{title}</strong> {text}</figcaption>
<img class="ncdss-still" src="{still}" alt="{alt}">
<script type="application/json">{data}</script>
<script>{script}
ncdssExplore(document.currentScript?.closest("figure") ?? document.getElementById("{name}"));\
</script>
</figure>"""


#: What to do, what one should see, and the value of each control that does it.
Try = tuple[str, str, Mapping[str, float | int | str]]


@dataclass(frozen=True)
class Explorer:
    """An explorer of a page.

    Attributes:
        shown: one of the classes of :mod:`ncdss_lib.viz.explorer_data`; its fields are what the
            script reads.
        title: its name.
        text: what it shows and what to try.
        still: the picture where scripts are off, and ``alt``, what is in it.
        tries: things to try: what to do, what one should see, and the controls that do it.
    """

    shown: Any
    title: str
    text: str
    still: Drawing
    alt: str
    tries: Sequence[Try] = ()

    @property
    def kind(self) -> str:
        """The function of ``explorer.js`` that draws it: called as the class of what is shown."""
        return type(self.shown).__name__.lower()

    @property
    def data(self) -> dict[str, Any]:
        """What that function takes: numbers, texts, and images as addresses that hold them."""
        return {**plain(self.shown), "tries": [list(one) for one in self.tries]}

    def __repr__(self) -> str:  # a notebook keeps this text beside the HTML
        return f"<explorer of {self.kind}: {self.title}>"

    def _repr_html_(self) -> str:
        data = json.dumps(self.data, separators=(",", ":"), allow_nan=False)
        data = data.replace("<", "\\u003c")  # no name closes or opens a tag
        with Image.open(io.BytesIO(self.still.png(dpi=100))) as png:
            still = np.array(png.convert("RGB"))
        return TEMPLATE.format(
            name=f"ncdss-{self.kind}-{hashlib.sha256(data.encode()).hexdigest()[:8]}",
            kind=self.kind,
            style=_asset("explorer.css"),
            title=html.escape(self.title),
            text=html.escape(self.text),
            still=plain(still),
            alt=html.escape(self.alt),
            data=data,
            script=_asset("explorer.js"),
        )


def plain(value: Any) -> Any:
    """What JSON can hold of an explorer's data.

    An array of uint8 is an image: a photo [h, w, 3], or a map [h, w], from which the script reads
    the numbers back exactly. Other arrays are lists, rounded to four digits, None where not finite.
    A look is a list of its named labels: ``[label, name, colour, striped]``.
    """
    if isinstance(value, Look):
        named = [
            [int(label), name, to_hex(value.colours[label]), bool(value.striped[label])]
            for label, name in value.names.items()
        ]
        return {"labels": named}
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8:
            photo = value.ndim == 3
            return _address(value, "JPEG", quality=82) if photo else _address(value, "PNG")
        if value.dtype.kind == "f":
            return [round(float(v), 4) if np.isfinite(v) else None for v in value]
        return value.tolist()
    if isinstance(value, pd.DataFrame):
        return {name: plain(column.to_numpy()) for name, column in value.reset_index().items()}
    if is_dataclass(value):
        return plain(value.for_page() if hasattr(value, "for_page") else vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


@cache
def _asset(name: str) -> str:
    return files("ncdss_lib.viz").joinpath(name).read_text(encoding="utf-8")


def _address(pixels: np.ndarray, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, optimize=True, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
