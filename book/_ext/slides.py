"""``slides.html`` beside the book: its pictures, one to a slide, in one file that needs no other.

``book/slides.yml`` lists them in order: the name of a figure, and a sentence for its title. A slide
with ``text`` instead of a figure is words alone. The pictures are those that the build put into the
book, made smaller; the captions are the book's own.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import yaml
from docutils import nodes  # type: ignore[import-untyped]
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

SIDE = 1400  # of a picture, in pixels at most
PAGE = Path(__file__).with_suffix(".html")
SLIDE = """<section aria-label="slide {number}"><{tag}>{title}</{tag}>{body}
<footer><p>{caption}</p><nav><button data-by="-1" aria-label="previous slide">‹</button>
<span>{number} / {count}</span><button data-by="1" aria-label="next slide">›</button></nav>
</footer></section>"""


def figures(app: Sphinx) -> dict[str, tuple[str, str, str]]:
    """Figures of the book by name: the file of the picture, its alternative text, its caption."""
    found = {}
    for docname in app.env.found_docs:
        for figure in app.env.get_doctree(docname).findall(nodes.figure):
            image = next(iter(figure.findall(nodes.image)), None)
            caption = next(iter(figure.findall(nodes.caption)), None)
            if image is None:
                continue
            words = " ".join(caption.astext().split()) if caption else ""
            for name in figure["ids"]:
                found[name] = (image["uri"], image.get("alt", ""), words)
    return found


def picture(app: Sphinx, uri: str, alt: str) -> str:
    """An image element that holds the picture."""
    path = next(p for p in (Path(app.srcdir, uri), Path(app.outdir, uri), Path(uri)) if p.is_file())
    if path.suffix == ".svg":
        kind, data = "svg+xml", path.read_bytes()
    else:
        with Image.open(path) as png:
            small = png.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=80, method=4)
        kind, data = "webp", buffer.getvalue()
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<div class="picture"><img src="{address}" alt="{escape(alt)}"></div>'


def make_slides(app: Sphinx, error: Exception | None) -> None:
    listed = Path(app.srcdir, "book", "slides.yml")
    if error is not None or app.builder.format != "html" or not listed.is_file():
        return
    slides = yaml.safe_load(listed.read_text(encoding="utf-8"))
    known = figures(app)
    parts: list[str] = []
    for number, slide in enumerate(slides, 1):
        name, caption = slide.get("figure"), ""
        if name is None:
            body = f'<div class="words">{escape(slide["text"])}</div>'
        elif name in known:
            uri, alt, caption = known[name]
            body = picture(app, uri, alt)
        else:
            logger.warning("book/slides.yml names a figure that is not there: %s", name)
            continue
        parts.append(
            SLIDE.format(
                number=number,
                count=len(slides),
                tag="h1" if number == 1 else "h2",
                title=escape(slide["title"]),
                body=body,
                caption=escape(caption),
            )
        )
    page = Template(PAGE.read_text(encoding="utf-8"))
    text = page.substitute(title=escape(app.config.project), slides="\n".join(parts))
    Path(app.outdir, "slides.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", make_slides)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
