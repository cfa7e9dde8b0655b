"""JupyterLab opens a notebook by its Markdown source, runs it on a finished run, and its live widget reacts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdss_lib.runs.pipeline import reopen
from ncdss_lib.viz import explorer_data, percent
from tests.browser.conftest import Browser, eventually, missing, nothing
from tests.conftest import REPO

pytestmark = pytest.mark.book

RUN = Path(os.environ.get("NCDSS_BOOK_RUN") or REPO / "runs/toyscenes/fold0/laptop/seed0")
CACHE = Path(os.environ.get("NCDSS_CACHE") or REPO / "runs" / "cache")  # as it was before the tests' own
NOTEBOOK = "05_entropy_ranking"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, where the notebook looks for it."""
    if not (RUN / "report.json").is_file():
        missing(f"the run of the book ({RUN})", "`make reproduce` makes it")
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(RUN, root / "toyscenes/fold0/laptop/seed0", ignore=shutil.ignore_patterns("notebooks"))
    return root


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab of this environment on a copy of the notebooks, with configuration and sessions of its own."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(REPO / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "*.ipynb"))
    shutil.copy(REPO / "jupytext.toml", home / "notebooks")
    places = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    own = {**places, "IPYTHONDIR": str(home / "ipython"), "NCDSS_RUNS": str(runs), "NCDSS_CACHE": str(CACHE), "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "NCDSS_STATIC"} | own
    port = free_port()
    options = [
        *("--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"),
        *("--IdentityProvider.token=", f"--ServerApp.root_dir={home / 'notebooks'}", "--LabApp.expose_app_in_browser=True"),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"),
    ]
    log = home / "lab.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        address = f"http://localhost:{port}"
        started = eventually(lambda: process.poll() is not None or answers(f"{address}/api"), bool, 60)
        assert started, log.read_text()[-3000:]
        assert process.poll() is None, log.read_text()[-3000:]
        yield address
    finally:
        process.send_signal(signal.SIGTERM)  # which ends its kernels as well
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_clean_share_is_moved_in_a_notebook_opened_by_its_markdown(
    browser: Browser, lab: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(f"{lab}/lab/tree/{NOTEBOOK}.md?reset", 1400, 1000)
    browser.until("return document.querySelector('.jp-NotebookPanel .jp-Notebook')", seconds=60)  # not the text editor
    browser.until("return window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'", seconds=60)
    title = browser.js("return window.jupyterapp.shell.currentWidget.context.path")
    assert title == f"{NOTEBOOK}.md"

    browser.js("window.ranAll = window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    slider = ".jp-OutputArea-output .widget-slider"
    find = (
        f"const s = [...document.querySelectorAll('{slider}')].find((e) => e.textContent.includes('clean share'));"
        "s?.scrollIntoView({block: 'center'}); return s"
    )
    failed = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-output[data-mime-type*='error']"
    errors = f"return [...document.querySelectorAll(\"{failed}\")].map((e) => e.textContent).filter((t) => t.includes('Error'))"
    assert eventually(lambda: browser.js(find) or browser.js(errors), bool, 240)
    nothing(browser.js(errors))
    monkeypatch.setenv("NCDSS_CACHE", str(CACHE))
    model = explorer_data.ranking_data(reopen(runs / "toyscenes/fold0/laptop/seed0"), count=1)

    def wanted(share: float) -> list[str]:
        numbers = model.numbers(share)
        return [f"{numbers[side]:.0f}, {percent(numbers[f'{side}_right'])}" for side in ("clean", "unclean")]

    box = "return arguments[0].closest('.widget-vbox')"
    readout = f"const b = (() => {{ {box} }})(); return b && [...b.querySelectorAll('td b')].map((e) => e.textContent)"
    picture = f"const b = (() => {{ {box} }})(); return b?.querySelector('img')?.src"

    def numbers() -> list[str]:
        return browser.js(readout, browser.js(find))

    assert eventually(numbers, wanted(model.chosen).__eq__, 60) == wanted(model.chosen)
    before = browser.js(picture, browser.js(find))
    handle = browser.js(find).find_element("css selector", ".noUi-handle")
    steps = 12
    for _ in range(steps):
        handle.send_keys(Keys.ARROW_LEFT)
    share = round(model.chosen - steps * 0.01, 2)
    assert wanted(share) != wanted(model.chosen)
    assert eventually(numbers, wanted(share).__eq__, 60) == wanted(share)
    assert eventually(lambda: browser.js(picture, browser.js(find)), lambda seen: seen != before, 30) != before
    assert eventually(lambda: browser.js("return Promise.race([window.ranAll, false])"), bool, 240) is True
    nothing(browser.js(errors))


@pytest.mark.parametrize("name", sorted(path.name for path in (REPO / "notebooks").glob("[0-9][0-9]_*.md")))
def test_no_notebook_shows_raw_marks(browser: Browser, lab: str, name: str) -> None:
    """Each Markdown cell is scrolled to, since cells out of sight are not drawn, and read as it is drawn."""
    browser.open(f"{lab}/lab/tree/{name}?reset", 1400, 1000)
    browser.until("return document.querySelector('.jp-NotebookPanel .jp-Notebook')", seconds=60)
    notebook = "window.jupyterapp.shell.currentWidget.content"
    browser.until(f"return {notebook}?.widgets?.length > 5", seconds=60)
    raw, boxes = [], 0
    try:
        for number in browser.js(f"return {notebook}.widgets.flatMap((w, i) => w.model.type === 'markdown' ? [i] : [])"):
            browser.js(f"{notebook}.scrollToItem({number})")
            drawn = f"{notebook}.widgets[{number}].node.querySelector('.myst')"
            text = browser.until(f"return {drawn}?.innerText.trim()", seconds=30)
            boxes += browser.js(f"return {drawn}.querySelectorAll('aside').length")
            raw += [line for line in text.splitlines() if re.search(r"\{[\w:]+\}`|`{3}|:class:|\{term\}|\{numref\}|\{eq\}", line)]
    finally:
        browser.js("return window.jupyterapp.serviceManager.sessions.shutdownAll()")
    nothing(raw)
    assert boxes >= 3  # before you run, what you will learn, in short
