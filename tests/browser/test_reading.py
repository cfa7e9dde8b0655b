"""What helps in reading, in a browser: previews of links, the table that stays, files beside their words."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Browser, eventually
from tests.browser.test_book import _built, server, settle  # noqa: F401  (fixtures)
from tests.conftest import REPO

pytestmark = pytest.mark.book

FILES = sorted(path.stem for path in (REPO / "book" / "code").glob("*.md"))


def opened(browser: Browser, address: str, width: int = 1280) -> None:
    browser.open(address, width, 800)
    settle(browser)


def hover(browser: Browser, link: object) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.js("arguments[0].scrollIntoView({block: 'center'})", link)
    ActionChains(browser.driver).move_to_element(link).perform()


def box(browser: Browser) -> str:
    return browser.js("const box = document.querySelector('.preview-box'); return box.hidden ? '' : box.textContent")


@pytest.mark.parametrize(
    ("link", "wanted"),
    [("a.preview[href*='term-IoU']", "divided by those that have it in either"), ("a[href*='references.html#']", "Zhao, Zhun Zhong")],
)
def test_a_link_says_on_hover_and_on_focus_what_it_leads_to(browser, server, link, wanted):  # noqa: F811
    opened(browser, f"{server}/book/problem.html")
    found = browser.find(f".bd-article {link}")
    assert box(browser) == ""
    hover(browser, found)
    assert wanted in eventually(lambda: box(browser), bool)
    assert found.get_attribute("aria-describedby") == "preview-box"
    assert not found.get_attribute("title")  # or the browser shows it a second time

    from selenium.webdriver.common.keys import Keys

    browser.find("body").send_keys(Keys.ESCAPE)
    assert eventually(lambda: box(browser), lambda seen: not seen) == ""
    browser.js("arguments[0].focus({preventScroll: true})", found)
    assert wanted in box(browser)
    browser.js("document.activeElement.blur()")
    assert box(browser) == ""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_preview_stays_in_the_window(browser, server, width):  # noqa: F811
    opened(browser, f"{server}/book/problem.html", width)
    outside = browser.js(
        """const bad = [], box = document.querySelector('.preview-box');
        for (const link of document.querySelectorAll('.bd-article a.preview')) {
          link.scrollIntoView({block: 'center'});
          link.focus({preventScroll: true});
          const at = box.getBoundingClientRect();
          if (at.left < 0 || at.right > innerWidth || at.top < 0 || at.bottom > innerHeight) bad.push(link.textContent);
        }
        document.activeElement.blur();
        return bad"""
    )
    assert outside == []
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_stays_and_lights_the_cells_that_the_text_speaks_of(browser, server, width):  # noqa: F811
    opened(browser, f"{server}/book/problem.html", width)
    lit = "return [...document.querySelectorAll('.scroll-story td.lit')].map((cell) => cell.textContent.trim())"
    steps = browser.driver.find_elements("css selector", ".scroll-step")
    cells = {
        1: ["70", "10", "10", "150"],
        2: ["70", "150"],
        3: ["10", "10"],
        5: ["20", "5", "0", "10", "10", "0", "70", "10", "10"],
        6: ["20", "60", "5", "0", "0", "20"],
    }
    for number, wanted in cells.items():
        browser.js(
            "const at = arguments[0].getBoundingClientRect(); scrollBy(0, (at.top + at.bottom) / 2 - 0.61 * innerHeight)", steps[number]
        )
        assert eventually(lambda: browser.js(lit), wanted.__eq__) == wanted
        table = browser.js("const at = document.querySelector('.scroll-story table').getBoundingClientRect(); return [at.top, at.bottom]")
        assert table[0] >= 0
        assert table[1] < browser.js("return arguments[0].getBoundingClientRect().bottom", steps[number])  # the text is below it
    heads = browser.js("return [...document.querySelectorAll('.scroll-story th')].map((cell) => cell.textContent.trim())")
    assert [head for head in heads if "=" in head] == ["cluster 1 = bird", "cluster 2 = boat"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_its_words_beside_its_code_and_above_it_on_a_phone(browser, server, name):  # noqa: F811
    places = """return [...document.querySelectorAll('.annotated-row:not(.annotated-words)')].map((row) => {
      const [prose, code] = [...row.children].map((part) => part.getBoundingClientRect());
      return {beside: prose.right <= code.left && Math.abs(prose.top - code.top) < 2, above: prose.bottom <= code.top + 1};
    })"""
    opened(browser, f"{server}/book/code/{name}.html")
    rows = browser.js(places)
    assert len(rows) >= 3
    assert all(row["beside"] for row in rows)
    cut = (
        "return [...document.querySelectorAll('.annotated-code pre')].filter((pre) => pre.scrollWidth > pre.clientWidth + 1)"
        ".map((pre) => pre.textContent)"
    )
    assert browser.js(cut) == []
    opened(browser, f"{server}/book/code/{name}.html", 390)
    assert all(row["above"] for row in browser.js(places))
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
