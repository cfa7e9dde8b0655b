"""What the book's own directives make of their text: figures of dots, questions, a story, and slides."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from sphinx.cmd.build import build_main

from ncdss_lib.runs.report import NAMES, PAPER, SWITCHES
from tests.test_result_tables import write_report

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path.append(str(BOOK / "_ext"))
from result_figures import axis, track  # noqa: E402
from story import as_story  # noqa: E402

CONF = f"""
import sys
sys.path.insert(0, {str(BOOK / "_ext")!r})
project = "small"
extensions = ["myst_nb", "executed_notebooks", "result_figures", "questions", "story", "slides"]
nb_execution_mode = "off"
exclude_patterns = ["runs", "out", "book"]
numfig = True
executed_run = "runs/one"
"""
FRAMES = "\n".join(f"frame {n} | words {n}" for n in range(1, 7))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NCDSS_RUNS", raising=False)
    monkeypatch.delenv("NCDSS_BOOK_RUN", raising=False)
    (tmp_path / "conf.py").write_text(CONF)
    return tmp_path


def build(project: Path, text: str) -> tuple[int, str, str]:
    """Exit status, warnings, and the page's HTML."""
    (project / "index.md").write_text(f"# Page\n\n{text}\n")
    warnings = project / "out" / "warnings.txt"
    warnings.parent.mkdir(exist_ok=True)
    status = build_main(["-b", "html", "-q", "-n", "-W", "--keep-going", "-w", str(warnings), str(project), str(project / "out" / "html")])
    return status, warnings.read_text(), (project / "out" / "html" / "index.html").read_text()


# --- results as dots ------------------------------------------------------------------------------


def test_an_axis_holds_all_values_between_round_ticks():
    low, high, ticks = axis([12.3, 36.9])
    assert low < 12.3 < 36.9 < high
    assert ticks == [15, 20, 25, 30, 35]
    drawn = track([(low, "basic", "first"), (high, "eums", "last")], (low, high, ticks), line=True)
    assert 'class="basic" style="left:0.00%"' in drawn
    assert 'class="eums" style="left:100.00%"' in drawn
    assert f'aria-label="first {low:.1f}, last {high:.1f}"' in drawn


def figure(kind: str) -> str:
    return f"```{{result-figure}} {kind}\n:dataset: toyscenes\n:name: fig-{kind}\n\nCaption of {kind}.\n```\n\nSee {{numref}}`fig-{kind}`."


def test_each_run_is_a_line_and_each_row_of_the_ablation_stands_beside_the_papers(project):
    values = {"basic": 0.30, "basic_oc": 0.34, "eums": 0.37}
    write_report(project / "runs", "toyscenes", 0, 0, values)
    path = write_report(project / "runs", "toyscenes", 0, 1, {**values, "eums": 0.39})
    report = json.loads(path.read_text())
    report["ablation"] = {"er": report["models"]["basic_oc"]}
    path.write_text(json.dumps(report))
    status, warnings, page = build(project, "\n\n".join(figure(kind) for kind in ("pairs", "ladder", "rulers")))
    assert (status, warnings) == (0, "")
    assert page.count("fold 0, seed ") == 2
    assert "basic framework 30.0, + over-clustering 34.0, EUMS 39.0" in page
    assert ">+9.0<" in page
    assert ">+8.0<" in page  # of the means
    for number, kind in enumerate(("pairs", "ladder", "rulers"), 1):
        assert f"Caption of {kind}." in page
        assert f"Fig. {number}" in page
    gains = {name: np.mean(np.subtract(rows[:4], PAPER["pascal5i"]["basic"][:4])) for name, rows in PAPER["pascal5i"].items()}
    for name in SWITCHES:
        if name != "basic":
            assert f">{gains[name]:+.1f}<" in page
            assert SWITCHES[name].split(" (")[0] in page
    assert page.count("not run") == 2  # er_dr and er_st of ours


def test_a_shipped_file_is_read_instead_of_the_runs(project):
    directive = "```{result-table} headline\n:dataset: pascal5i\n:file: measured/none.json\n```"
    status, _, page = build(project, directive)
    assert status == 0
    assert "pascal5i with the laptop recipe: not run." in page
    text = figure("pairs").replace(":dataset: toyscenes", ":dataset: pascal5i\n:file: measured/none.json")
    status, warnings, page = build(project, text)
    assert (status, warnings) == (0, "")  # the figure is there to refer to
    assert "pascal5i with the laptop recipe: not run." in page
    text = text.replace("none.json", "photos.json")
    status, warnings, page = build(project, text)
    assert (status, warnings) == (0, "")
    shipped = json.loads((BOOK / "measured" / "photos.json").read_text())["runs"]
    for run in shipped:
        told = ", ".join(f"{NAMES[m]} {100 * run['models'][m]['novel_miou']:.1f}" for m in NAMES)
        assert f"fold {run['fold']}, seed {run['seed']}" in page
        assert told in page
    assert f"mean of {len(shipped)}" in page


# --- questions ------------------------------------------------------------------------------------

QUESTION = "```{question} Is *this* right?\n- [ ] No. | Because.\n- [x] Yes. | See `x`.\n```"


def test_an_answer_unfolds_why_without_a_script(project):
    status, warnings, page = build(project, QUESTION)
    assert (status, warnings) == (0, "")
    assert "Is <em>this</em> right?" in page
    kinds = re.findall(r'<details class="(\w+)"><summary>\s*<p>(.*?)</p>', page)
    assert kinds == [("wrong", "No."), ("right", "Yes.")]
    assert "<strong>No.</strong> Because." in page


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (QUESTION.replace("[x]", "[ ]"), "exactly one answer"),
        (QUESTION.replace(" | Because.", ""), "an answer is a line of the form"),
    ],
)
def test_a_question_without_a_right_answer_or_a_reason_fails_the_build(project, wrong, told):
    status, warnings, _ = build(project, wrong)
    assert status != 0
    assert told in warnings


@pytest.mark.parametrize("page", ["questions.md", "hidden.md"])
def test_no_question_gives_its_answer_away_by_its_place(page):
    places = [
        next(n for n, line in enumerate(block.splitlines()) if "[x]" in line)
        for block in re.findall(r"```\{question\}.*?```", (BOOK / page).read_text(), re.DOTALL)
    ]
    assert places
    assert len(places) < 4 or len(set(places)) == 3


# --- the story and the slides ---------------------------------------------------------------------


def explorer_page() -> str:
    data = {"pictures": [{"id": "a</script>"}, {"id": "b"}], "about": {"a</script>": 1, "b": 2}, "tries": [1]}
    text = json.dumps(data).replace("<", "\\u003c")
    return (
        '<figure class="ncdss-explorer" id="ncdss-pipeline-1" data-kind="pipeline">'
        f'<figcaption class="ncdss-about">T</figcaption>\n<script type="application/json">{text}</script></figure>'
    )


def test_a_story_is_the_first_image_of_the_pipeline_in_frames():
    story = as_story(explorer_page(), [("title", "words")])
    assert 'data-kind="story"' in story
    assert "figcaption" not in story
    told = json.loads(re.search(r'json">(.*?)</script>', story)[1])
    assert told == {"pictures": [{"id": "a</script>"}], "about": {"a</script>": 1}, "frames": [["title", "words"]], "tries": []}


def test_a_story_comes_from_the_executed_notebook_and_its_absence_is_told(project):
    text = f"```{{story}} 07_results\n{FRAMES}\n```"
    status, warnings, _ = build(project, text)
    assert status != 0
    assert "there is no story to tell" in warnings
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", {"text/html": explorer_page()})])
    path = project / "runs" / "one" / "notebooks" / "07_results.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    status, warnings, page = build(project, text + "\n")
    assert (status, warnings) == (0, "")
    assert '["frame 1","words 1"]' in page
    assert "six lines of the form" in build(project, "```{story} 07_results\none | line\n```")[1]


def test_the_slides_hold_their_pictures_and_need_no_other_file(project):
    Image.fromarray(np.zeros((900, 2000, 3), np.uint8)).save(project / "x.png")
    (project / "book").mkdir()
    (project / "book" / "slides.yml").write_text(
        '- {title: "First <one>", text: "Words & more"}\n- {figure: fig-x, title: Second}\n- {figure: fig-gone, title: Third}\n'
    )
    build(project, "```{figure} x.png\n:name: fig-x\n:alt: What it shows.\n\nThe caption.\n```")
    slides = (project / "out" / "html" / "slides.html").read_text()
    assert re.findall(r"<h[12]>(.*?)</h[12]>", slides) == ["First &lt;one&gt;", "Second"]
    assert "Words &amp; more" in slides
    assert 'alt="What it shows."' in slides
    assert "The caption." in slides
    assert not re.findall(r'<(?:img|script)[^>]* src="(?!data:)', slides)


def test_every_slide_of_the_book_has_a_title_and_a_figure_that_a_page_has():
    import yaml

    pages = [*BOOK.glob("*.md"), *BOOK.parent.glob("notebooks/*.md")]
    names = set(re.findall(r"name: (fig-[\w-]+)", "\n".join(page.read_text() for page in pages)))
    slides = yaml.safe_load((BOOK / "slides.yml").read_text())
    assert len(slides) > 15
    for slide in slides:
        assert slide["title"]
        assert "text" in slide or slide["figure"] in names
