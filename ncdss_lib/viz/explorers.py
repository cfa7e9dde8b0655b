"""Explorers for a page: pictures that follow sliders and menus, self-contained in the HTML of the output.

Each function takes a view model and returns an :class:`Explorer`, which a notebook shows as HTML: the data as images in the page, the
script ``explorer.js`` and the style ``explorer.css``. Nothing is fetched and no kernel is asked, so it works in the built book, from
a file, and in JupyterLab. Where scripts do not run there is a still picture instead.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from ncdss_lib.metrics import UNMATCHED
from ncdss_lib.viz import view_models
from ncdss_lib.viz.figures import Picture as Figure
from ncdss_lib.viz.palette import Look, to_hex
from ncdss_lib.viz.view_models import Picture


@dataclass(frozen=True)
class Explorer:
    """An explorer of one kind.

    Attributes:
        kind: which function of ``explorer.js`` it is.
        data: what that function takes; numbers, texts and images as data addresses.
        title: its name.
        text: what it shows and what to try.
        still: the picture where scripts are off, and ``alt``, what is in it.
    """

    kind: str
    data: dict[str, Any]
    title: str
    text: str
    still: Figure
    alt: str

    def __repr__(self) -> str:
        return f"<explorer of {self.kind}: {self.title}>"  # a notebook keeps this text beside the HTML

    def _repr_html_(self) -> str:
        data = json.dumps(self.data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # no name closes or opens a tag
        name = f"ncdss-{self.kind}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
        return f"""<figure class="ncdss-explorer" id="{name}" data-kind="{self.kind}">
<style>{_asset("explorer.css")}</style>
<figcaption class="ncdss-about" id="{name}-title"><strong>{html.escape(self.title)}</strong> {html.escape(self.text)}</figcaption>
<img class="ncdss-still" src="{_still(self.still)}" alt="{html.escape(self.alt)}">
<script type="application/json">{data}</script>
<script>{_asset("explorer.js")}
ncdssExplore(document.currentScript?.closest("figure") ?? document.getElementById("{name}"));</script>
</figure>"""


@cache
def _asset(name: str) -> str:
    return files("ncdss_lib.viz").joinpath(name).read_text(encoding="utf-8")


def _address(image: Image.Image, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _photo(pixels: np.ndarray) -> str:
    return _address(Image.fromarray(pixels), "JPEG", quality=82, optimize=True)


def _map(values: np.ndarray) -> str:
    """An 8-bit PNG without palette, from which the script reads the numbers back exactly."""
    return _address(Image.fromarray(values), "PNG", optimize=True)


def _still(figure: Figure) -> str:
    with Image.open(io.BytesIO(figure.png(dpi=80))) as png:
        return _photo(np.array(png.convert("RGB")))


def _pictures(pictures: list[Picture]) -> list[dict[str, Any]]:
    return [{"id": p.id, "image": _photo(p.image), "maps": {name: _map(m) for name, m in p.maps.items()}} for p in pictures]


def _look(look: Look) -> dict[str, Any]:
    """The labels that have a name: ``[label, name, colour, striped]``."""
    return {"labels": [[int(k), name, to_hex(look.colours[k]), bool(look.striped[k])] for k, name in look.names.items()]}


def _list(values: np.ndarray, digits: int | None = None) -> list[Any]:
    return values.tolist() if digits is None else [None if not np.isfinite(v) else round(float(v), digits) for v in values]


def layers(model: view_models.Layers, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """Pictures with a layer over them, its opacity, and another layer to compare on the other side of a line."""
    data = {"pictures": _pictures(model.pictures), "layers": [[name, _look(look)] for name, look in model.looks.items()]}
    return Explorer("layers", data, title, text, still, alt)


def threshold(model: view_models.Threshold, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """The threshold of base-class removal, acting on stored probabilities."""
    data = {
        "pictures": _pictures(model.pictures),
        "look": _look(model.look),
        "counts": model.counts.tolist(),
        "novel": model.novel,
        "chosen": model.chosen,
        "numBase": model.num_base,
    }
    return Explorer("threshold", data, title, text, still, alt)


def clusters(model: view_models.Clusters, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """Pick K and a cluster, see its members and how pure it is."""
    data = {
        "thumbnails": [[row, model.ids[row], _photo(pixels)] for row, pixels in model.thumbnails.items()],
        "mainClass": model.main_class.tolist(),
        "assign": {str(k): model.assign(k).tolist() for k in model.choices},
        "choices": model.choices,
        "chosen": model.chosen,
        "look": _look(model.look),
    }
    return Explorer("clusters", data, title, text, still, alt)


def ranking(model: view_models.Ranking, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """The clean share: which images fall on which side, and how right their pseudo-labels are."""
    table = model.table
    data = {
        "pictures": _pictures(model.pictures),
        "rows": [table.index.get_loc(p.id) for p in model.pictures],
        "entropy": _list(table["entropy"].to_numpy(), 4),
        "cluster": _list(table["cluster"].to_numpy()),
        "right": _list(table["right"].to_numpy()),
        "pixels": _list(table["pixels"].to_numpy()),
        "per": model.per,
        "chosen": model.chosen,
        "pseudoLook": _look(model.pseudo_look),
        "truthLook": _look(model.truth_look),
    }
    return Explorer("ranking", data, title, text, still, alt)


def teaching(model: view_models.Teaching, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """Student and teacher over the epochs of self-training."""
    data = {
        "pictures": _pictures(model.pictures),
        "epochs": model.epochs,
        "mapping": np.where(model.mapping == UNMATCHED, 255, model.mapping).tolist(),
        "numBase": model.num_base,
        "steps": view_models.STEPS,
        "chosen": model.chosen,
        "pseudoLook": _look(model.pseudo_look),
        "truthLook": _look(model.truth_look),
    }
    return Explorer("teaching", data, title, text, still, alt)


def predictions(model: view_models.Predictions, title: str, text: str, still: Figure, alt: str) -> Explorer:
    """Predictions against ground truth, class by class, with IoU."""
    names = dict(enumerate(next(iter(model.scores.values())).per_class))
    data = {
        "pictures": _pictures(model.pictures),
        "scores": {name: [s.per_class[c] for c in names.values()] for name, s in model.scores.items()},
        "miou": {name: s.novel_miou for name, s in model.scores.items()},
        "look": _look(model.look),
    }
    return Explorer("predictions", data, title, text, still, alt)
