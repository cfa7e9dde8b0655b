"""The built book in a browser: every page as a reader meets it, from a server under a sub-path and from files, without a network.

``NCDSS_TEST_BOOK`` names another folder of HTML than ``_build/html``; ``NCDSS_BOOK_RUN`` the run that the book was built from.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from ncdss_lib.system.folders import read_json
from tests.browser.conftest import Browser, OnPage, eventually, missing, nothing
from tests.conftest import REPO

pytestmark = pytest.mark.book

HTML = Path(os.environ.get("NCDSS_TEST_BOOK") or REPO / "_build" / "html").resolve()
RUN = Path(os.environ.get("NCDSS_BOOK_RUN") or REPO / "runs/toyscenes/fold0/laptop/seed0")
SUB_PATH = "some/sub/path"
MOST_BYTES = 1_500_000
ALL = sorted(str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if not {"_static", "_sources"} & {*path.relative_to(HTML).parts})
#: Listings of source code, if there are any, look the same but for the code: three of them are opened, all are parsed.
LISTINGS = [page for page in ALL if page.startswith("_modules/")]
PAGES = [page for page in ALL if page not in LISTINGS[3:]]
FROM_FILES = ("book/intro.html", "book/method.html", "notebooks/03_clustering.html", "notebooks/05_entropy_ranking.html")
CHAPTERS = [page for page in ALL if page.startswith("notebooks/")]
#: The control of each kind of explorer whose change must change the numbers, whatever the run.
MAIN_CONTROL = {
    "layers": "picture", "threshold": "tau", "pipeline": "tau", "clusters": "K",
    "ranking": "share", "teaching": "confidence", "predictions": "picture",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not (HTML / "book" / "intro.html").is_file():
        missing(f"the built book ({HTML})", "`make reproduce` makes it")


# --- what the files say -----------------------------------------------------------------------------------------------------------------


@cache
def parsed(page: str) -> Any:
    from bs4 import BeautifulSoup

    return BeautifulSoup((HTML / page).read_text(encoding="utf-8"), "html.parser")


@cache
def ids(page: str) -> Counter[str]:
    """What a #fragment can point at in a page."""
    soup = parsed(page)
    return Counter([*(t["id"] for t in soup.select("[id]")), *(t["name"] for t in soup.select("a[name]") if not t.get("id"))])


every_page = pytest.mark.parametrize("name", ALL or ["no page"])


@every_page
def test_every_link_and_anchor_leads_somewhere_in_the_book(name):
    dead = []
    for tag, attribute in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src"), ("source", "src"), ("object", "data")):
        for element in parsed(name).select(f"{tag}[{attribute}]"):
            address = element[attribute].strip()
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if tag == "a" or parts.scheme == "data" or (tag == "link" and {"canonical"} & {*element.get("rel", [])}):
                    continue  # a reader may follow a link to elsewhere; what the page itself needs comes along with it
                dead.append(f"{address}: <{tag}> loads from elsewhere")
                continue
            if address.startswith("/"):
                dead.append(f"{address}: not relative, breaks under a sub-path")
                continue
            target = ((HTML / name).parent / unquote(parts.path)).resolve() if parts.path else HTML / name
            if not target.is_file() or not target.is_relative_to(HTML):
                dead.append(f"{address}: no such file")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in ids(str(target.relative_to(HTML))):
                dead.append(f"{address}: no such anchor")
    nothing(sorted(set(dead)))


@every_page
def test_no_id_is_there_twice(name):
    nothing([i for i, n in ids(name).items() if n > 1])


@every_page
def test_every_picture_has_an_alternative_text(name):
    bad = []
    for image in parsed(name).select("img"):
        alt = image.get("alt")
        decorative = alt == "" and (image.get("role") in ("presentation", "none") or image.get("aria-hidden") == "true")
        if not decorative and (not alt or not alt.strip() or re.search(r"\.(png|svg|jpe?g|gif)$", alt.strip())):
            bad.append(f"{image.get('src', '')[:60]}: alt={alt!r}")
    for drawing in parsed(name).select("object, svg[role=img]"):
        if not (drawing.get("aria-label") or drawing.get("aria-labelledby") or drawing.find("title")):
            bad.append(str(drawing)[:80])
    nothing(bad)


@every_page
def test_no_page_is_heavier_than_a_phone_likes(name):
    assert (HTML / name).stat().st_size <= MOST_BYTES


@every_page
def test_every_page_has_a_title_a_language_and_an_icon(name):
    soup = parsed(name)
    if soup.select("meta[http-equiv=Refresh]"):
        assert name == "index.html"  # the way to the first page
        return
    assert soup.title.get_text().strip()
    assert soup.html["lang"] == "en"
    assert soup.select("link[rel~=icon]")
    titles = [h1 for h1 in soup.select("main h1") if not h1.find_parent(id="jb-print-docs-body")]  # the theme repeats it for paper
    assert len(titles) == 1


# --- what a browser makes of them -------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server(_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The book under a sub-path of a server that knows nothing else."""
    root = tmp_path_factory.mktemp("server")
    place = root / SUB_PATH
    place.parent.mkdir(parents=True)
    place.symlink_to(HTML, target_is_directory=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://localhost:{served.server_port}/{SUB_PATH}"
        finally:
            served.shutdown()
            thread.join()


def settle(browser: Browser) -> None:
    """Wait until the page is loaded, its maths typeset and its explorers ready."""
    browser.until("return document.readyState === 'complete' && !document.querySelector('meta[http-equiv=Refresh]')")
    browser.js("return window.MathJax?.startup?.promise")
    browser.until("return [...document.querySelectorAll('.ncdss-explorer')].every((e) => e.dataset.ready === 'true')")


@pytest.fixture(scope="module", params=PAGES or ["no page"])
def page(request: pytest.FixtureRequest, browser: Browser, server: str) -> Browser:
    """A page, loaded once for the tests below."""
    browser.open(f"{server}/{request.param}")
    settle(browser)
    return browser


def faults(browser: Browser, origin: str) -> list[str]:
    """Console errors, failed requests, and requests for anything but what lies beneath ``origin``.

    Browsers ask a server for /favicon.ico while index.html, which names none, leads on to the first page; no page asks for it.
    """
    elsewhere = [f"asks for {url[:200]}" for url in browser.requests() if not url.startswith(origin)]
    return [fault for fault in (*browser.console(), *browser.failures(), *elsewhere) if "/favicon.ico" not in fault]


def test_a_page_loads_without_an_error_and_asks_for_nothing_from_elsewhere(page, server):
    nothing(faults(page, f"{server}/"))


def test_maths_is_typeset(page):
    unset = page.js(
        """return [...document.querySelectorAll('.math')].filter((node) => {
          const drawn = node.querySelector('mjx-container svg, mjx-container mjx-math');
          const empty = drawn && node.offsetParent && !drawn.getBoundingClientRect().width;
          return !drawn || empty || node.querySelector('mjx-merror, [data-mml-node=merror]');
        }).map((node) => node.textContent.slice(0, 120))"""
    )
    nothing(unset)
    raw = page.js(
        r"""const found = [], walker = document.createTreeWalker(document.querySelector('main') ?? document.body, NodeFilter.SHOW_TEXT);
        for (let node; (node = walker.nextNode()); ) {
          if (node.parentElement.closest('script, style, code, pre, mjx-container, .ncdss-explorer')) continue;
          const marks = /\\\(|\\\[|\$\$|\\begin\{|\\frac|\\mathcal|\$[^$\s][^$]*\$/;
          if (marks.test(node.textContent)) found.push(node.textContent.trim().slice(0, 120));
        }
        return found"""
    )
    nothing(raw)


def test_explorers_react(page):
    told, explorers = page.console(), page.driver.find_elements("css selector", ".ncdss-explorer")
    for number, root in enumerate(explorers):
        kind = root.get_attribute("data-kind")
        if kind == "story":
            continue  # it has steps instead of controls
        explorer, control = OnPage(page, number), MAIN_CONTROL[kind]
        page.js("arguments[0].scrollIntoView()", root)
        place, before = explorer.place(control), explorer.readout()
        explorer.move(control, 0 if place else 1)
        assert eventually(explorer.readout, lambda seen, before=before: seen != before) != before, (kind, control)
        explorer.move(control, place)
        assert eventually(explorer.readout, before.__eq__) == before
    nothing(page.console()[len(told) :])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, theme):
    page.theme(theme)
    try:
        found = page.axe()
    finally:
        page.theme("light")
    nothing(found)


def test_a_phone_needs_no_sideways_scrolling(page):
    page.device(390, 844)
    try:
        page.js("return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        wide = page.js(
            """const most = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= most) return [];
            const clips = (e) => e && e !== document.body && (getComputedStyle(e).overflowX !== 'visible' || clips(e.parentElement));
            return [`page: ${document.documentElement.scrollWidth}`, ...[...document.body.querySelectorAll('*')]
              .filter((e) => e.getBoundingClientRect().right > most + 1 && !clips(e.parentElement))
              .map((e) => `${e.tagName} ${e.id} ${e.className} ${Math.round(e.getBoundingClientRect().right)}`).slice(0, 6)]"""
        )
    finally:
        page.device(1200, 900)
    nothing(wide)


@pytest.mark.parametrize("name", ["book/intro.html", "book/results.html", "book/hidden.html", *CHAPTERS])
def test_there_is_something_to_see_on_the_first_screen(browser, server, name):
    browser.open(f"{server}/{name}", 1280, 900)
    settle(browser)
    top = browser.js(
        """const seen = [...document.querySelectorAll('.bd-article :is(img, canvas, .dots, .cell_output svg)')]
          .filter((e) => e.getBoundingClientRect().height > 60);
        return Math.min(...seen.map((e) => e.getBoundingClientRect().top + scrollY))"""
    )
    assert top < 800


def test_a_picture_of_the_book_opens_large(browser, server):
    from selenium.webdriver.common.keys import Keys

    browser.open(f"{server}/book/intro.html")
    settle(browser)
    button = next(b for b in browser.driver.find_elements("css selector", "button.enlarge") if b.is_displayed())
    button.send_keys("\n")
    dialog = browser.find("dialog.picture[open]")
    large, small = (part.find_element("css selector", "img") for part in (dialog, button))
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.rect["width"] * large.rect["height"] > small.rect["width"] * small.rect["height"]
    assert "The idea" in dialog.find_element("css selector", "p").text
    dialog.find_element("css selector", "[tabindex]").send_keys(Keys.ESCAPE)
    assert browser.until("return !document.querySelector('dialog.picture')")
    assert browser.js("return document.activeElement === arguments[0]", button)


def test_the_slides_are_stepped_through(browser, server):
    from selenium.webdriver.common.keys import Keys

    browser.open(f"{server}/slides.html")
    first = browser.find("section.shown").text
    browser.find("body").send_keys(Keys.ARROW_RIGHT)
    second = browser.find("section.shown").text
    assert first != second
    assert "2 / " in second
    assert browser.js("return [...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    nothing(faults(browser, f"{server}/"))


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_page_works_from_a_file(browser, name):
    assert name in PAGES
    browser.open((HTML / name).as_uri())
    settle(browser)
    nothing(faults(browser, HTML.as_uri() + "/"))
    assert browser.js("return document.querySelectorAll('.math:not(:has(mjx-container svg, mjx-container mjx-math))').length") == 0


@pytest.mark.parametrize("word", ["entropy", "over-clustering"])
def test_the_search_finds_a_word_and_leads_to_it(browser, server, word):
    browser.open(f"{server}/search.html?q={word}")
    browser.until("return document.querySelectorAll('#search-results ul.search > li a').length > 2")
    found = browser.js("return [...document.querySelectorAll('#search-results ul.search > li > a')].map((a) => a.href)")
    assert any("notebooks/" in address for address in found)
    nothing(faults(browser, f"{server}/"))
    browser.open(found[0])
    assert word.split("-")[0] in browser.js("return document.querySelector('main').innerText.toLowerCase()")


def test_the_search_works_from_a_file_too(browser):
    browser.open((HTML / "search.html").as_uri() + "?q=entropy")
    browser.until("return document.querySelectorAll('#search-results ul.search > li a').length > 2")


def test_the_switch_changes_between_light_and_dark(browser, server):
    browser.open(f"{server}/book/intro.html")
    settle(browser)
    seen = {}
    for _ in range(3):
        button = next(b for b in browser.driver.find_elements("css selector", ".theme-switch-button") if b.is_displayed())
        button.click()
        look = "return [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
        theme, background = browser.js(look)
        seen[theme] = background
    assert set(seen) == {"light", "dark"}
    assert seen["light"] != seen["dark"]


def test_the_numbers_on_the_pages_are_those_of_the_run(browser, server):
    """Change report.json and this fails: both are of the run that built the book."""
    quality = read_json(RUN / "report.json")["pseudo_labels"]
    for name, selector, key, value in (
        ("03_clustering", "[data-kind=clusters]", "purity", quality["basic"]["purity"]),
        ("05_entropy_ranking", "[data-kind=ranking]", "clean-right", quality["clean"]["correct_share"]),
        ("05_entropy_ranking", "[data-kind=ranking]", "unclean-right", quality["unclean"]["correct_share"]),
    ):
        browser.open(f"{server}/notebooks/{name}.html")
        settle(browser)
        text = browser.until(f"return document.querySelector('{selector} dd[data-key={key}]')?.textContent")
        assert float(text.removesuffix(" %")) == pytest.approx(100 * value, abs=0.05 + 1e-9), (name, key)


def test_on_paper_there_is_no_navigation(browser, server):
    browser.open(f"{server}/notebooks/05_entropy_ranking.html")
    settle(browser)
    around = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article"
    shown = f"return [...document.querySelectorAll('{around}')].filter((e) => e.offsetHeight).length"
    assert browser.js(shown) > 0
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.js(shown) == 0
        assert browser.js("return document.querySelector('main h1').offsetHeight") > 0
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")
