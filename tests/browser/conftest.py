"""Chromium without a network, driven by selenium: what it logs, what it asks for, and what axe-core finds on a page.

Where a part is missing the tests skip and say which; with ``CI`` set they fail instead.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.conftest import BROWSER, REPO

WAIT = 10.0  # seconds that anything on a page may take on a busy machine
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-search-engine-choice-screen", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
)  # fmt: skip
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
AXE_PLACES = (Path(sys.prefix, "node_modules"), Path(sys.prefix, "lib", "node_modules"), REPO / "node_modules")


def missing(what: str, remedy: str = f"{BROWSER} installs what the browser tests need") -> NoReturn:
    """Skip, or fail where nothing may be missing."""
    reason = f"{what} is missing: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = WAIT) -> Any:
    """What ``look`` sees as soon as it is what is wanted, or when the time is over."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if wanted(seen) or time.monotonic() > end:
            return seen
        time.sleep(0.03)


def nothing(found: list[str]) -> None:
    """Fail with what was found, a line each."""
    if found:
        pytest.fail("\n".join([f"{len(found)} found:", *found]), pytrace=False)


class Browser:
    """One window. ``open`` forgets what was logged before, so that each test reads its own page's log."""

    def __init__(self, driver: Any, axe: Path | None) -> None:
        self.driver, self._axe = driver, axe
        self._console: list[str] = []
        self._events: list[dict[str, Any]] = []

    def open(self, address: str, width: int = 1200, height: int = 900) -> None:
        self.device(width, height)
        self.driver.get("about:blank")  # so that a page that differs by its #fragment alone is loaded anew
        origin = urlsplit(address)
        self.command(
            "Storage.clearDataForOrigin", origin=f"{origin.scheme}://{origin.netloc}", storageTypes="local_storage"
        )  # a first visit
        self._read_logs()
        self._console, self._events = [], []
        self.driver.get(address)

    def device(self, width: int, height: int, **more: Any) -> None:
        """The size of the viewport in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False, **more}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script; a promise is waited for."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, seconds: float = WAIT) -> Any:
        """What a script returns once it is truthy; fails with the page's log when that does not happen."""
        seen = eventually(lambda: self.js(script, *arguments), bool, seconds)
        assert seen, f"never true within {seconds} s: {script}; console: {self.console()}"
        return seen

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def _read_logs(self) -> None:
        self._console += [f"{e['level']} {e['message']}" for e in self.driver.get_log("browser")]
        self._events += [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]

    def console(self) -> list[str]:
        """Errors in the console since the page was opened."""
        self._read_logs()
        return [line for line in self._console if line.startswith("SEVERE")]

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened, but for data in the page itself."""
        self._read_logs()
        asked = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:"))]

    def failures(self) -> list[str]:
        """Requests that failed since the page was opened."""
        self._read_logs()
        names = {
            e["params"]["requestId"]: e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"
        }
        bad = []
        for event in self._events:
            told = event["params"]
            if event["method"] == "Network.loadingFailed" and not told.get("canceled"):
                bad.append(f"{names.get(told['requestId'], '?')[:200]}: {told['errorText']}")
            if event["method"] == "Network.responseReceived" and told["response"]["status"] >= 400:
                bad.append(f"{told['response']['url'][:200]}: status {told['response']['status']}")
        return bad

    def theme(self, name: str) -> None:
        """``light`` or ``dark``, as the theme's own switch leaves the page."""
        self.js(
            "const still = document.createElement('style');"
            "still.textContent = '*, *::before, *::after { transition: none !important; animation: none !important }';"
            "document.head.append(still);"
            "document.documentElement.dataset.theme = document.documentElement.dataset.mode = arguments[0]",
            name,
        )
        self.js("return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def axe(self, within: str = "html") -> list[str]:
        """What axe-core finds against WCAG A and AA, as ``rule: selector (what)``."""
        if self._axe is None:
            missing("axe-core")
        if not self.js("return Boolean(window.axe)"):
            self.js(self._axe.read_text(encoding="utf-8"))
        found = self.js(
            "const options = {runOnly: arguments[1], resultTypes: ['violations']};"
            "return axe.run(document.querySelector(arguments[0]), options).then((found) => found.violations)",
            within,
            AXE_TAGS,
        )
        assert isinstance(found, list)
        told = []
        for rule in found:
            for node in rule["nodes"]:
                why = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
                told.append(f"{rule['id']}: {' '.join(map(str, node['target']))} ({'; '.join(why)[:220]})")
        return told

    def picture(self, canvas: Any) -> np.ndarray:
        """The pixels of a canvas, uint8 [h, w, 3]."""
        address = self.js("return arguments[0].toDataURL('image/png')", canvas)
        with Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))) as png:
            return np.array(png.convert("RGB"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The window of all browser tests."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("selenium")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        missing("chromium" if chromium is None else "chromedriver")
    axe = next((path for folder in AXE_PLACES if (path := folder / "axe-core" / "axe.min.js").is_file()), None)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        yield Browser(driver, axe)
    finally:
        driver.quit()


class OnPage:
    """One explorer on the page in the window, operated by its keyboard."""

    def __init__(self, browser: Browser, number: int = 0) -> None:
        self.browser = browser
        browser.until(
            "return document.querySelectorAll('.ncdss-explorer')[arguments[0]]?.dataset.ready === 'true'",
            number,
        )
        self.root = browser.driver.find_elements("css selector", ".ncdss-explorer")[number]

    def find(self, selector: str) -> Any:
        return self.root.find_element("css selector", selector)

    def names(self) -> list[str]:
        """The names of the controls."""
        return [control.get_attribute("name") for control in self.root.find_elements("css selector", "input, select")]

    def press(self, name: str, keys: str) -> None:
        self.find(f"[name='{name}']").send_keys(keys)

    def move(self, name: str, steps: int) -> None:
        """Put a slider or a menu to its first place, and on from there with the arrow keys."""
        from selenium.webdriver.common.keys import Keys

        slider = self.find(f"[name='{name}']").tag_name == "input"
        self.press(name, Keys.HOME + steps * (Keys.ARROW_RIGHT if slider else Keys.ARROW_DOWN))

    def choose(self, name: str, text: str) -> None:
        """Go to an entry of a menu with the arrow keys. (Typed letters would be added to those typed a moment ago.)"""
        options = [option.get_property("text") for option in self.find(f"[name='{name}']").find_elements("css selector", "option")]
        self.move(name, options.index(" ".join(text.split())))

    def value(self, name: str) -> str:
        return self.find(f"[name='{name}']").get_property("value")

    def place(self, name: str) -> int:
        """How many steps from its first place a slider or a menu is."""
        script = "const c = arguments[0]; return c.selectedIndex ?? Math.round((c.value - c.min) / (c.step || 1))"
        return self.browser.js(script, self.find(f"[name='{name}']"))

    def readout(self) -> dict[str, str]:
        """What is read out, by key."""
        return self.browser.js(
            "return Object.fromEntries([...arguments[0].querySelectorAll('dd[data-key]')].map((d) => [d.dataset.key, d.textContent]))",
            self.root,
        )

    def reads(self, wanted: dict[str, str]) -> None:
        """Wait until these values are read out, and no others."""
        seen = eventually(self.readout, lambda seen: seen == wanted)
        assert seen == wanted, self.browser.console()

    def views(self) -> list[str]:
        """The titles of the pictures that are shown."""
        return [title.text for title in self.root.find_elements("css selector", ".ncdss-title")]

    def canvas(self, title: str | None = None) -> np.ndarray:
        """The view of that title, or the first."""
        self.rest()
        canvases = self.root.find_elements("css selector", ".ncdss-view > canvas")
        return self.browser.picture(canvases[self.views().index(title) if title else 0])

    def divide(self, left: str, right: str, place: int) -> None:
        """Show two views divided by a line."""
        self.choose("view", "two, divided by a line")
        self.choose("left", left)
        self.choose("right", right)
        self.move("divider", place)

    def rest(self) -> None:
        """Wait until what was asked for is drawn: drawings are queued once a frame."""
        self.browser.js("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))")
