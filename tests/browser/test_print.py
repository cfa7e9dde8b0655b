"""What the book's style sheet and script do for paper: folded parts are open at once, the page is light, a picture fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Browser
from tests.conftest import REPO

STATIC = REPO / "book" / "_static"
PAGE = f"""<!doctype html><html lang="en" data-theme="dark"><head><title>Page</title>
<style>details[open] > p {{ animation: fade 3s; transition: color 3s }}
@keyframes fade {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}</style>
<link rel="stylesheet" href="{(STATIC / "book.css").as_uri()}"><script src="{(STATIC / "book.js").as_uri()}"></script></head>
<body><main class="bd-article"><details><summary>Code</summary><p>hidden</p></details><figure><img alt="tall"
src="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='100' height='3000'/%3E"></figure></main></body></html>"""
WATCH = """window.seen = {};
const look = (when) => () => (seen[when] = [document.documentElement.dataset.theme, document.querySelector('details').open]);
addEventListener('beforeprint', look('before')); addEventListener('afterprint', look('after'))"""


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    (tmp_path / "page.html").write_text(PAGE)
    browser.open((tmp_path / "page.html").as_uri())
    return browser


def test_printing_unfolds_in_light_and_gives_the_theme_back(page):
    page.js(WATCH)
    page.command("Page.printToPDF")
    assert page.until("return seen.before && seen.after && seen") == {"before": ["light", True], "after": ["dark", True]}


def test_nothing_on_paper_fades_in_or_is_taller_than_a_page(page):
    page.js("document.querySelector('details').open = true")
    look = "const style = getComputedStyle(document.querySelector('details p')); return [style.animationName, style.transitionProperty]"
    assert page.js(look) == ["fade", "color"]
    page.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.js(look) == ["none", "none"]
        assert 0 < page.js("return document.querySelector('img').offsetHeight") < 29.7 / 2.54 * 96
    finally:
        page.command("Emulation.setEmulatedMedia", media="")
