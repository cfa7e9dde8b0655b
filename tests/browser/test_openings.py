"""How a chapter opens in a browser, whether its code fits, and whether its numbers are those of the run."""

from __future__ import annotations

import pytest

from ncdss_lib.system.folders import read_json
from ncdss_lib.viz import percent
from tests.browser.conftest import Browser, nothing
from tests.browser.test_book import HTML, RUN, _built, server, settle  # noqa: F401  (fixtures)
from tests.conftest import REPO

pytestmark = pytest.mark.book

WRITTEN = sorted(path.stem for path in (REPO / "notebooks").glob("[0-9][0-9]_*.md"))
CHAPTERS = [stem for stem in WRITTEN if (HTML / "notebooks" / f"{stem}.html").is_file()]
WITH_CODE = ("book/method", "book/data", "book/reproduce", "book/checkpoints", "book/contribute", *(f"notebooks/{c}" for c in CHAPTERS))


def opened(browser: Browser, address: str) -> None:
    browser.open(address, 1280, 800)
    settle(browser)


@pytest.mark.parametrize("chapter", CHAPTERS or ["no chapter"])
def test_a_chapter_opens_with_a_picture_and_its_place_on_the_map(browser, server, chapter):  # noqa: F811
    opened(browser, f"{server}/notebooks/{chapter}.html")
    top = browser.js("return document.querySelector('.bd-article .cell_output img')?.getBoundingClientRect().top + scrollY")
    assert 0 < top < 800
    here = browser.js("return document.querySelector('.chapter-map [aria-current]')?.textContent")
    number = int(chapter[:2])
    assert (here or "").startswith(f"{number} ") == (number <= 7)
    assert browser.js("return document.querySelectorAll('details.setup').length") == 1
    assert not browser.js("return document.querySelector('details.setup').open")
    assert browser.js("return document.querySelector('h1').textContent").startswith(f"{number}. ")


@pytest.mark.parametrize("page", WITH_CODE)
def test_no_code_is_cut_at_its_column(browser, server, page):  # noqa: F811
    opened(browser, f"{server}/{page}.html")
    wide = browser.js(
        """document.querySelectorAll('.bd-article details').forEach((part) => part.setAttribute('open', ''));
        const code = [...document.querySelectorAll('.bd-article .highlight pre')];
        const written = code.filter((pre) => !pre.closest('.cell_output .stream, .output.stream'));
        return written.filter((pre) => pre.scrollWidth > pre.clientWidth + 1)
          .map((pre) => `${pre.scrollWidth} > ${pre.clientWidth}: ${pre.textContent.slice(0, 80)}`)"""
    )
    nothing(wide)


@pytest.mark.skipif(not (RUN / "report.json").is_file(), reason="the run of the book is not there")
def test_purity_is_one_number_in_table_explorer_and_report(browser, server):  # noqa: F811
    quality = read_json(RUN / "report.json")["pseudo_labels"]
    for chapter, names in (("03_clustering", ("basic", "basic_oc")), ("05_entropy_ranking", ("clean", "unclean"))):
        opened(browser, f"{server}/notebooks/{chapter}.html")
        find = "return [...document.querySelectorAll('table')].find((t) => t.textContent.includes('purity (images)'))?.textContent"
        shown = browser.js(find)
        for name in names:
            assert percent(quality[name]["purity"]) in shown
            assert percent(quality[name]["correct_share"]) in shown
    opened(browser, f"{server}/notebooks/07_results.html")
    text = browser.js("return document.querySelector('main').innerText")
    assert percent(quality["clean"]["correct_share"]) in text


def test_no_page_prints_a_raw_table(browser, server):  # noqa: F811
    for chapter in CHAPTERS:
        opened(browser, f"{server}/notebooks/{chapter}.html")
        nothing([line for line in browser.js("return document.querySelector('main').innerText").splitlines() if line.startswith("|--")])
