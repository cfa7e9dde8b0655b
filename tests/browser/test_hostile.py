"""Names from data are text wherever they are shown: in tables of the book, and in what notebooks say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from sphinx.cmd.build import build_main

from ncdss_lib.data.own_images import read_classes
from ncdss_lib.runs.report import report_tables
from ncdss_lib.viz import say, table
from tests.browser.conftest import Browser
from tests.test_result_tables import CONF, write_report

HOSTILE = "</td><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
TRICKS = (HOSTILE, "[a link](javascript:window.hacked=3)", "`{raw} html`", "a|b", "<!-- hidden", "&lt;b&gt;")
KINDS = ("classes", "novel", "scores", "caution")


def shown(browser: Browser, page: Path) -> str:
    """The text of a page in which no script of ours ran."""
    browser.open(page.as_uri())
    browser.js("document.querySelectorAll('a[href^=\"javascript:\"]').forEach((link) => link.click())")
    assert browser.js("return window.hacked ?? null") is None
    return str(browser.js("return document.body.textContent"))


def test_what_a_report_holds_is_text_in_the_book_and_in_tables(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NCDSS_RUNS", raising=False)
    path = write_report(tmp_path / "runs", "toyscenes", 0, 0, {"basic": 0.4, "eums": 0.6})
    report = json.loads(path.read_text())
    for model in report["models"].values():
        model["per_class"] = dict.fromkeys(TRICKS, 0.5)
    report["classes"] = {"base": list(TRICKS[:3]), "novel": list(TRICKS[3:])}
    report |= {"masks": HOSTILE, "device": {"type": HOSTILE, "name": HOSTILE}, "versions": {HOSTILE: HOSTILE}}
    path.write_text(json.dumps(report))
    (tmp_path / "conf.py").write_text(
        CONF.replace('"result_tables"', '"result_tables", "executed_notebooks", "run_status"')
        + f"\nsmartquotes = False\nexecuted_run = {path.parent.relative_to(tmp_path).as_posix()!r}\n"
    )
    pages = [f"```{{result-table}} {kind}\n:dataset: toyscenes\n:recipe: laptop\n\nA caption.\n```" for kind in KINDS]
    pages += [f"```{{run-status}} {kind}\nA caption.\n```" for kind in ("run", "versions")]
    (tmp_path / "index.md").write_text("\n\n".join(["# Page", *pages]))
    assert build_main(["-b", "html", "-q", str(tmp_path), str(tmp_path / "out")]) == 0
    text = shown(browser, tmp_path / "out" / "index.html")
    assert all(trick in text for trick in TRICKS)
    assert text.count(HOSTILE) >= 5  # a class, the device twice, a package and its version
    assert "<script" not in report_tables([path])


def test_names_of_classes_are_text_in_what_notebooks_say_and_show(browser: Browser, tmp_path: Path):
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in TRICKS))
    names, _ = read_classes(tmp_path, 1)
    assert names == TRICKS
    sentence = MarkdownIt("commonmark").render(say(f"The classes are **{'**, **'.join((HOSTILE, 'a|b'))}**.").data)
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{sentence}{table({name: {name: name} for name in names}).data}")
    text = shown(browser, page)
    assert text.count(HOSTILE) == 4
    assert all(text.count(trick) >= 3 for trick in TRICKS)
