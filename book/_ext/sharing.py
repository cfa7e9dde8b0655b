"""What is known of the place where the book is published: links to its repository, and how a link
to a page looks elsewhere.

All of it is set from outside, since a clone does not know where it is published:

- ``NCDSS_REPOSITORY_URL``, or ``repository: {url: ...}`` in ``_config.yml`` (and
  ``NCDSS_REPOSITORY_BRANCH``, default main): buttons to the repository, to edit a page, to open an
  issue, on GitHub to launch a notebook on Binder or Colab, and at the end of each page a link by
  which to report a problem with it. Without an address there is none of them.
- ``NCDSS_BOOK_URL``: the book's own address, which makes the addresses in the cards of a link
  absolute.

The picture of a card is drawn here when the book is built.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

#: Host -> where a new issue is opened, with a title.
HOSTS = {
    "github.com": "/issues/new?title=",
    "gitlab.com": "/-/issues/new?issue[title]=",
    "bitbucket.org": "/issues/new?title=",
}
UNSET = ("", "https://github.com/executablebooks/jupyter-book")  # what jupyter-book says by itself
CARD, CARD_ALT = (
    "social-card.png",
    "A label map with three objects, and a striped one that has no name yet.",
)


def add_repository_links(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    configured = options.get("repository_url", "")
    url = os.environ.get("NCDSS_REPOSITORY_URL") or ("" if configured in UNSET else configured)
    url = url.rstrip("/")
    for button in ("repository", "edit_page", "issues"):
        options[f"use_{button}_button"] = bool(url)
    if not url:
        options["repository_url"], options["launch_buttons"] = "", {}
        return
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname not in HOSTS or parts.path.count("/") != 2:
        expected = f"https://HOST/OWNER/NAME on {', '.join(HOSTS)}"
        raise ConfigError(
            f"NCDSS_REPOSITORY_URL={url!r}, or repository.url in _config.yml, is not the address "
            f"of a repository: expected {expected}."
        )
    launch = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    branch = os.environ.get("NCDSS_REPOSITORY_BRANCH", "main")
    on_github = parts.hostname == "github.com"
    options |= {
        "repository_url": url,
        "repository_branch": branch,
        "path_to_docs": "",
        "launch_buttons": launch if on_github else {},
    }


def add_report_link(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """At the end of a page, where its repository is known."""
    url = app.config.html_theme_options.get("repository_url")
    if doctree is None or not url:
        return
    address = f"{url}{HOSTS[urlsplit(url).hostname or '']}{quote(f'Problem on the page {page}')}"
    text = "Report a problem with this page"
    context["body"] += f'<p class="report-page"><a href="{escape(address)}">{text}</a></p>'


def add_card(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Title, first paragraph and picture for whoever shows a link to the page."""
    if doctree is None:
        return
    base = os.environ.get("NCDSS_BOOK_URL", "").rstrip("/")
    paragraph = next(
        (
            p
            for p in doctree.findall(nodes.paragraph)
            if isinstance(p.parent, nodes.section) and len(p.astext()) > 40
        ),
        None,
    )
    description = " ".join(paragraph.astext().split())[:200] if paragraph else app.config.html_title
    picture = f"{base}/_static/{CARD}" if base else context["pathto"](f"_static/{CARD}", 1)
    title = (
        heading.astext() if (heading := doctree.next_node(nodes.title)) else app.config.html_title
    )
    tags = {
        "og:type": "article",
        "og:title": title,
        "og:description": description,
        "og:image": picture,
        "og:image:alt": CARD_ALT,
    }
    tags |= {"og:url": f"{base}/{page}.html"} if base else {}
    lines = [f'<meta property="{key}" content="{escape(text)}" />' for key, text in tags.items()]
    named = {"description": description, "twitter:card": "summary_large_image"}
    lines += [f'<meta name="{key}" content="{escape(text)}" />' for key, text in named.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def draw_card(path: Path, title: str) -> None:
    """1200 x 630 pixels: the title beside a label map whose last object is a striped cluster."""
    import numpy as np
    from matplotlib.figure import Figure

    from ncdss_lib.data.label_space import LabelSpace
    from ncdss_lib.data.palette import cluster_look, paint

    rows, columns = np.mgrid[:420, :420]
    labels = np.zeros((420, 420), np.uint8)
    labels[(rows > 230) & (rows < 380) & (columns > 30) & (columns < 190)] = 1
    labels[(rows - 120) ** 2 + (columns - 110) ** 2 < 70**2] = 2
    labels[(rows < 200) & (rows > 40) & (abs(columns - 310) < (rows - 40) / 2)] = 3
    labels[(rows - 310) ** 2 + (columns - 310) ** 2 < 85**2] = 4
    pixels = paint(
        np.full((420, 420, 3), 232, np.uint8),
        labels,
        cluster_look(LabelSpace(("a", "b", "c", "d"), (4,)), 1),
        opacity=1.0,
    )
    figure = Figure(figsize=(12, 6.3), facecolor="#14202b")
    axis = figure.add_axes((0.6, 0.13, 0.388, 0.74))
    axis.imshow(pixels)
    axis.axis("off")
    axis.text(
        310, 315, "?", fontsize=54, color="white", ha="center", va="center", fontweight="bold"
    )
    words: dict[str, Any] = {
        "color": "white",
        "fontweight": "bold",
        "va": "center",
        "linespacing": 1.35,
    }
    figure.text(0.05, 0.56, title, fontsize=29, **words)
    figure.text(
        0.05,
        0.2,
        "How it works, to read, to explore and to reproduce",
        fontsize=17,
        color="#c9d6e2",
    )
    figure.savefig(path, dpi=100, facecolor=figure.get_facecolor())


def make_card(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        draw_card(
            Path(app.outdir, "_static", CARD), "Novel class discovery\nin semantic segmentation"
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", add_repository_links)
    app.connect("html-page-context", add_card)
    app.connect("html-page-context", add_report_link)
    app.connect("build-finished", make_card)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
