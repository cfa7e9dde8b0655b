"""Every explorer in a browser: its controls moved by keyboard, what it reads out and paints compared with what NumPy says."""

from __future__ import annotations

import html
import sys
import time
from collections import Counter
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.palette import class_look, cluster_look
from ncdss_lib.method.cluster_matching import UNMATCHED
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.method.inference import load_model
from ncdss_lib.method.metrics import Scores
from ncdss_lib.runs.pipeline import Run, open_run, reopen
from ncdss_lib.viz import explorer_data, figures, widgets
from ncdss_lib.viz.explorer_data import Picture
from ncdss_lib.viz.explorer_html import Explorer
from tests.browser.conftest import Browser, OnPage, eventually
from tests.conftest import REPO, TINY_LAPTOP
from tests.data.fake_voc import make_fake_folder, make_fake_voc
from tests.viz.read_outs import class_iou, label_shares, mask_shares, teaching_shares

sys.path.append(str(REPO / "book" / "_ext"))
from story import as_story

ODD_ID = """<b>"one" & 'two'</b><!--<script>"""
LABELS = LabelSpace(("cat", "</script><script>alert(1)</script>", 'a "dog"', "owl's", "<i>ant</i>"), (4, 5))
NUM_BASE, CLUSTERS = 3, 4
SIZE = (26, 40)
KINDS = ("layers", "threshold", "pipeline", "clusters", "ranking", "teaching", "predictions")


def percent(part: float, whole: float) -> str:
    """As on the page: one decimal, halves upwards; an en dash for a share of nothing."""
    return f"{Decimal(100 * float(part) / float(whole)).quantize(Decimal('0.1'), ROUND_HALF_UP)} %" if whole else "–"


# --- data of explorers: of a tiny run, of one where nobody knows the novel classes, and made by hand with everything that is awkward ------


@dataclass
class Case:
    """Data and the explorers made from them, by kind."""

    models: dict[str, Any]
    explorers: dict[str, Explorer]


def of_run(run: Run) -> Case:
    confusions = {name: confusion_on_val(run, load_model(run, name), run.recipe.evaluation.size) for name in ("basic", "eums")}
    models = {
        "layers": explorer_data.label_layers(run),
        "threshold": explorer_data.threshold_data(run),
        "pipeline": explorer_data.pipeline_data(run),
        "clusters": explorer_data.clusters_data(run),
        "ranking": explorer_data.ranking_data(run),
        "teaching": explorer_data.teaching_data(run),
        "predictions": explorer_data.predictions_data(run, confusions),
    }
    found = {
        "layers": widgets.explore_labels(run),
        "threshold": widgets.explore_threshold(run),
        "pipeline": widgets.explore_pipeline(run),
        "clusters": widgets.explore_clusters(run),
        "ranking": widgets.explore_entropy(run),
        "teaching": widgets.explore_teacher(run),
        "predictions": widgets.explore_predictions(run, confusions),
    }
    assert all(isinstance(explorer, Explorer) and explorer.kind == kind for kind, explorer in found.items())
    return Case(models, found)  # type: ignore[arg-type]


def blobs(rng: np.random.Generator, labels: list[int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of rectangles."""
    found = np.zeros(size, np.uint8)
    for label in (*labels, *labels):
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        found[y : y + rng.integers(4, 14), x : x + rng.integers(4, 20)] = label
    return found


def picture(rng: np.random.Generator, name: str, size: tuple[int, int] = SIZE, **maps: np.ndarray) -> Picture:
    return Picture(name, rng.integers(0, 256, (*size, 3), np.uint8), maps)


def made() -> Case:
    rng = np.random.default_rng(7)
    look, pseudo_look = class_look(LABELS), cluster_look(LABELS, CLUSTERS)
    truths = [blobs(rng, [1, 2, 3, 4, 5, 255]), np.full(SIZE, IGNORE, np.uint8), blobs(rng, [3, 5, 255], (40, 26))]
    ids = [ODD_ID, "all ignored", "portrait"]
    small = {"rng": rng}

    def pictures(**maps: list[np.ndarray]) -> list[Picture]:
        return [picture(**small, name=i, size=truths[n].shape, **{k: m[n] for k, m in maps.items()}) for n, i in enumerate(ids)]

    def random(low: int, high: int) -> list[np.ndarray]:
        return [rng.integers(low, high, truth.shape, dtype=np.uint8) for truth in truths]

    tied = np.repeat(np.array([[5, 4], [2, 1]], np.uint8), 13, 0).repeat(20, 1)  # four labels with a quarter each
    layers = explorer_data.Layers(
        [*pictures(truth=truths, pseudo=random(0, 8)), picture(**small, name="tied", truth=tied, pseudo=tied)],
        {"truth": look, "pseudo": pseudo_look},
    )
    thresholds = [0.0, 0.2, 0.35, 0.5, 0.9, 1.0]
    seen = {"label": random(0, 4), "level": random(0, 7), "salient": [*random(0, 2)[:2], np.zeros_like(truths[2])], "truth": truths}
    counts = rng.integers(0, 900, (3, 7)).astype(np.int64)
    threshold = explorer_data.Threshold(pictures(**seen), thresholds, counts, 2500, 0.35, 0.9, NUM_BASE, look)
    about = {
        i: {"cluster": n + 1, "label": NUM_BASE + n + 1, "class": 4 * (n < 2), "class_name": LABELS.names[4] if n < 2 else None,
            "rank": 3 * n + 1, "split": "clean"}
        for n, i in enumerate(ids)
    }  # fmt: skip
    stages = pictures(**seen, entropy=random(0, 256), prediction=random(0, 6))
    pipeline = explorer_data.Pipeline(stages, about, 90, thresholds, 0.35, 0.9, NUM_BASE, look, pseudo_look)
    assignments = {2: np.array([1, 1, 2, 1, 2, 1]), 3: np.array([1, 1, 2, 3, 2, 1]), 6: np.arange(1, 7)}
    members = [f"{n} {ODD_ID}" for n in range(6)]
    clusters = explorer_data.Clusters(
        members, {n: rng.integers(0, 256, (72, 72, 3), np.uint8) for n in range(6) if n != 3}, np.array([4, 5, 0, 4, 0, 5]),
        assignments.__getitem__, sorted(assignments), 3, 6, look,
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "entropy": [0.01, 0.2, 0.25, 0.25, 0.6, np.inf, np.inf],
            "cluster": [1, 2, 1, 2, 1, 1, 3],
            "right": [50, 30, 0, 20, 10, 0, 0],
            "pixels": [60, 60, 70, 40, 10, 5, 0],
        },
        index=pd.Index([ids[0], "b", ids[1], "d", ids[2], "f", "g"], name="id"),
    )
    shown = pictures(pseudo=random(3, 8), entropy=random(0, 256), truth=truths)
    ranking = explorer_data.Ranking(table, shown, "cluster", 0.5, 1 / 3, pseudo_look, look)
    mapping = np.full(256, UNMATCHED, np.int64)
    mapping[:8] = [0, 1, 2, 3, 4, 5, UNMATCHED, 4]
    said = {f"{who}_{epoch}": random(0, 8) for epoch in (0, 3, 9) for who in ("student", "teacher")}
    sure = {f"sure_{epoch}": random(0, 21) for epoch in (0, 3, 9)}
    teaching = explorer_data.Teaching(
        [0, 3, 9], pictures(truth=truths, pseudo=random(0, 8), **said, **sure), mapping, NUM_BASE, 0.7, 0.0, pseudo_look, look
    )
    scores = {
        name: Scores(value, 0.5, 0.8, 0.4, 0.3, dict(zip(LABELS.names, (0.8, 0.5, None, 0.25, value, 0.1), strict=True)), "published", {})
        for name, value in (("first", None), ('"second" <b>', 0.12345))
    }
    predictions = explorer_data.Predictions(
        pictures(truth=truths, **{name: random(0, 6) for name in scores}),
        scores,
        class_look(LABELS),  # type: ignore[arg-type]
    )
    models = dict(zip(KINDS, (layers, threshold, pipeline, clusters, ranking, teaching, predictions), strict=True))
    still = figures.grid([[figures.Panel(layers.pictures[0].image)]])
    words = ("A <title>", 'Words & "more" words.', still, 'A "picture" <of> noise.')
    tries = {"threshold": [("Move <it>.", "A & <b>.", {"tau": 4, "picture": 1})]}
    return Case(models, {kind: Explorer(model, *words, tries.get(kind, ())) for kind, model in models.items()})


CASES = ("a tiny run", "nobody knows the truth", "by hand")


@pytest.fixture(scope="module")
def cases(finished: dict[str, Path], voc: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("untold")
    make_fake_folder(root / "folder", make_fake_voc(root / "voc", train=48, val=8))
    untold = open_run("folder", str(root / "folder"), 0, 0, "laptop", str(root / "run"), [*TINY_LAPTOP, "data.num_novel=5"])
    untold.write_report()
    return {
        "a tiny run": of_run(reopen(finished["laptop"], str(voc))),
        "nobody knows the truth": of_run(untold),
        "by hand": made(),
    }


@pytest.fixture(params=CASES)
def case(cases: dict[str, Case], request: pytest.FixtureRequest) -> Case:
    return cases[request.param]


def write(folder: Path, *shown: Explorer, theme: str = "light") -> str:
    """A page with explorers on it, as an address; the face of the book's theme."""
    style = "body{font:16px/1.5 sans-serif;margin:1rem;max-width:60rem} html[data-theme=dark]{background:#121212;color:#ced6dd}"
    parts = "\n".join(f"<h2>Explorer {n}</h2>{explorer._repr_html_()}" for n, explorer in enumerate(shown))
    page = f"""<!DOCTYPE html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Explorers</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1>{html.escape("Explorers")}</h1>{parts}</main></body></html>"""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


def shown(browser: Browser, folder: Path, explorer: Explorer) -> OnPage:
    browser.open(write(folder, explorer))
    return OnPage(browser)


@pytest.fixture(autouse=True)
def _no_errors(browser: Browser) -> Any:
    """No test of this module leaves an error in the console, nor asks for anything but its page."""
    yield
    assert browser.console() == []
    assert browser.failures() == []
    assert {url.rpartition("/")[2] for url in browser.requests()} <= {"page.html"}


def is_mixed(pixels: np.ndarray, colours: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """Whether pixels are ``alpha`` of a colour and for the rest one grey of those that photos become; bool, for alpha < 1.

    Args:
        pixels, colours: [..., 3]; alpha: [...] or a number.
    """
    alpha = np.broadcast_to(alpha, pixels.shape[:-1])[..., None]
    grey = (pixels - alpha * colours) / (1 - alpha)
    slack = (0.5 / (1 - alpha))[..., 0] + 1e-6  # of rounding
    return (np.ptp(grey, -1) <= 2 * slack) & (grey.min(-1) >= 51 - slack) & (grey.max(-1) <= 255 * 0.75 + 51 + slack)


def light_stripes(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape)
    period = max(6, min(shape) // 14)
    return (rows + columns) % period < period // 2


# --- one test a kind: every control, and what it does to the numbers ---------------------------------------------------------------------


def test_layers(browser, tmp_path, case):
    model: explorer_data.Layers = case.models["layers"]
    explorer = shown(browser, tmp_path, case.explorers["layers"])
    assert explorer.names() == ["picture", "view", "left", "right", "divider"]
    layers = list(model.looks)
    assert explorer.views() == ["image", *layers]

    def told(picture: Picture, layer: str) -> str:
        sizes = Counter(picture.maps[layer].ravel().tolist())
        most = sorted(sizes, key=lambda label: (-sizes[label], label))[:3]
        assert list(label_shares(picture, layer))[:3] == most
        return ", ".join(f"{model.looks[layer].names[label]} {percent(sizes[label], picture.maps[layer].size)}" for label in most)

    def check(number: int) -> None:
        explorer.reads({layer: told(model.pictures[number], layer) for layer in layers})
        for layer, look in model.looks.items():
            labels, drawn = model.pictures[number].maps[layer], explorer.canvas(layer)
            assert drawn.shape == (*labels.shape, 3)
            alpha = np.where(labels == IGNORE, 0.9, np.where(look.striped[labels] & light_stripes(labels.shape), 0.7 * 0.45, 0.7))
            assert is_mixed(drawn, look.colours[labels], alpha)[labels != 0].all()
            assert np.ptp(drawn[labels == 0], -1).max(initial=0) == 0  # grey where the background is

    check(0)
    for number in {1, 2, len(model.pictures) - 1}:
        explorer.move("picture", number)
        check(number)

    explorer.move("picture", 0)
    explorer.divide(layers[-1], "image", 100)  # all of the picture is the left side
    assert explorer.views() == [f"{layers[-1]} | image"]
    whole = explorer.canvas()
    explorer.move("divider", 0)
    photo = explorer.canvas()
    explorer.move("divider", 50)
    half = explorer.canvas()
    middle = half.shape[1] // 2
    np.testing.assert_array_equal(half[:, : middle - 1], whole[:, : middle - 1])
    np.testing.assert_array_equal(half[:, middle + 1 :], photo[:, middle + 1 :])


def removal(picture: Picture, thresholds: list[float], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    sure = (picture.maps["label"] != 0) & (picture.maps["level"] > sum(t < threshold for t in thresholds))
    return sure, (picture.maps["salient"] != 0) & ~sure


def test_threshold(browser, tmp_path, case):
    model: explorer_data.Threshold = case.models["threshold"]
    explorer = shown(browser, tmp_path, case.explorers["threshold"])
    assert explorer.names() == ["picture", "tau", "view", "left", "right", "divider"]
    assert model.thresholds[int(explorer.value("tau"))] == model.chosen

    def wanted(number: int, tau: float) -> dict[str, str]:
        picture = model.pictures[number]
        truth = picture.maps["truth"].astype(int)
        _, mask = removal(picture, model.thresholds, tau)
        known = truth[mask & (truth != IGNORE)]
        numbers = mask_shares(model, tau)
        found = {"all-novel": numbers["novel"], "covered": numbers["covered"], "all-base": numbers["base"]}
        shares = {key: percent(value, 1) if value == value else "–" for key, value in found.items()}
        return {"novel": percent((known > model.num_base).sum(), known.size), **shares}

    explorer.reads(wanted(0, model.chosen))
    last = len(model.thresholds) - 1
    for number in range(min(3, len(model.pictures))):
        explorer.move("picture", number)
        for step in (0, 3, last) if number < 2 else (last - 1,):
            explorer.move("tau", step)
            explorer.reads(wanted(number, model.thresholds[step]))
            assert explorer.find("[name=tau] + output").text == f"{model.thresholds[step]:g}"
    picture = model.pictures[number]
    sure, mask = removal(picture, model.thresholds, model.thresholds[last - 1])
    assert is_mixed(explorer.canvas("novel mask M"), np.array([213, 94, 0]), 0.7)[mask].all()
    assert np.ptp(explorer.canvas("novel mask M")[~mask], -1).max(initial=0) == 0
    assert is_mixed(explorer.canvas("confidently base"), model.look.colours[picture.maps["label"]], 0.7)[sure].all()
    truth = picture.maps["truth"]
    inside = (truth != 0) & (truth != IGNORE)
    assert is_mixed(explorer.canvas("truth (hidden)"), model.look.colours[truth], 0.7)[inside].all()

    charts = explorer.root.find_elements("css selector", "svg")
    if not model.novel:  # a curve of shares of nothing would be a lie
        assert charts == []
        return
    told = charts[0].get_attribute("aria-label")
    covered = [100 * mask_shares(model, t)["covered"] for t in model.thresholds]
    numbers = told.partition("covered ")[2].partition(" percent")[0].split(", ")
    np.testing.assert_allclose([float(n) for n in numbers], covered, atol=0.5 + 1e-9)
    words = charts[0].text
    assert f"this run: {model.chosen:g}" in words
    assert f"published: {model.published:g}" in words


def test_pipeline(browser, tmp_path, case):
    model: explorer_data.Pipeline = case.models["pipeline"]
    explorer = shown(browser, tmp_path, case.explorers["pipeline"])
    assert len(explorer.views()) == 8

    def check(number: int, tau: float) -> None:
        picture = model.pictures[number]
        truth, about = picture.maps["truth"].astype(int), model.about[picture.id]
        sure, mask = removal(picture, model.thresholds, tau)
        known = truth[mask & (truth != IGNORE)]
        novel = (truth > model.num_base) & (truth != IGNORE)
        explorer.reads(
            {
                "novel": percent((known > model.num_base).sum(), known.size),
                "right": percent((known == about["class"]).sum(), known.size),
                "rank": about["split"],
                "prediction": percent((picture.maps["prediction"] == truth)[novel].sum(), novel.sum()),
            }
        )
        label = np.where(sure, picture.maps["label"], mask * about["label"])
        light = model.pseudo_look.striped[label] & light_stripes(label.shape)
        drawn = explorer.canvas("5 pseudo-label")
        assert is_mixed(drawn, model.pseudo_look.colours[label], np.where(light, 0.7 * 0.45, 0.7))[label != 0].all()

    check(0, model.chosen)
    for number in range(min(2, len(model.pictures))):
        explorer.move("picture", number)
        for step in (0, len(model.thresholds) - 1):
            explorer.move("tau", step)
            check(number, model.thresholds[step])


def test_clusters(browser, tmp_path, case):
    model: explorer_data.Clusters = case.models["clusters"]
    explorer = shown(browser, tmp_path, case.explorers["clusters"])
    assert explorer.names() == ["K", "cluster"]

    def tiles() -> list[tuple[str, bool]]:
        script = "return [...arguments[0].querySelectorAll('.ncdss-tiles > li')].map((t) => [t.title, t.classList.contains('ncdss-clean')])"
        return [tuple(tile) for tile in browser.js(script, explorer.root)]

    def check(k: int, cluster: int) -> None:
        of = np.asarray(model.assign(k))
        best = {c: Counter(model.main_class[(of == c) & (model.main_class > 0)].tolist()) for c in range(1, k + 1)}
        most = {c: min(votes, key=lambda label, votes=votes: (-votes[label], label)) if votes else 0 for c, votes in best.items()}
        right = {c: best[c][most[c]] if most[c] else 0 for c in best}
        members, shown_members = int((of == cluster).sum()), [n for n in model.thumbnails if of[n] == cluster]
        assert model.members(k, cluster) == {"images": members, "label": most[cluster], "right": right[cluster]}
        with_class = int((model.main_class > 0).sum())
        explorer.reads(
            {
                "images": str(members) + (f", {len(shown_members)} shown" if len(shown_members) < members else ""),
                "class": model.look.names[most[cluster]] if most[cluster] else "–",
                "right": percent(right[cluster], members) if most[cluster] else "–",
                "purity": percent(sum(right.values()), with_class),
            }
        )
        names = {**model.look.names, 0: "no novel class"}
        framed = [most[cluster] > 0 and model.main_class[n] == most[cluster] for n in shown_members]
        wanted = [(f"{model.ids[n]}: {names[model.main_class[n]]}", right) for n, right in zip(shown_members, framed, strict=True)]
        assert eventually(tiles, wanted.__eq__) == wanted

    check(model.chosen, 1)
    for position, k in enumerate(model.choices):
        explorer.move("K", position)
        for cluster in sorted({1, (k + 1) // 2, k}):
            explorer.rest()  # the menu offers K clusters now
            explorer.move("cluster", cluster - 1)
            check(k, cluster)
        assert explorer.find("[name=K] + output").text == f"K = {k}"
    explorer.move("K", 0)  # the last cluster of the greatest K is not there any more
    check(model.choices[0], min(model.choices[-1], model.choices[0]))


def test_ranking(browser, tmp_path, case):
    model: explorer_data.Ranking = case.models["ranking"]
    explorer = shown(browser, tmp_path, case.explorers["ranking"])
    assert explorer.names() == ["share", "view", "left", "right", "divider"]
    table = model.table.reset_index()
    assert table["entropy"].is_monotonic_increasing

    def clean(share: float) -> np.ndarray:
        chosen = np.zeros(len(table), bool)
        if model.per == "dataset":
            chosen[: int(len(table) * share)] = True
        else:
            for _, rows in table.groupby("cluster"):
                chosen[rows.index[: int(len(rows) * share + 0.5)]] = True
        return chosen & np.isfinite(table["entropy"])

    def check(share: float, number: int) -> None:
        chosen, row = clean(share), table.index[table["id"] == model.pictures[number].id][0]
        parts = {True: table[chosen], False: table[~chosen]}
        numbers = model.numbers(share)
        assert (numbers["clean"], numbers["unclean"]) == (len(parts[True]), len(parts[False]))
        explorer.reads(
            {
                "clean-right": percent(parts[True]["right"].sum(), parts[True]["pixels"].sum()),
                "unclean-right": percent(parts[False]["right"].sum(), parts[False]["pixels"].sum()),
                "image": percent(table["right"][row], table["pixels"][row]),
            }
        )
        assert f"right pixels in the {chosen.sum()} clean pseudo-labels" in explorer.find("dl").text
        entropy = explorer.find("dl").text.partition("entropy ")[2].partition(",")[0]
        assert float(entropy.replace("∞", "inf")) == pytest.approx(table["entropy"][row], abs=6e-5)
        script = "return [...arguments[0].querySelectorAll('.ncdss-tile')].map((t) => t.classList.contains('ncdss-clean'))"
        frames = [bool(chosen[table.index[table["id"] == p.id][0]]) for p in model.pictures]
        assert eventually(lambda: browser.js(script, explorer.root), frames.__eq__) == frames

    check(model.chosen, 0)
    for number in range(min(4, len(model.pictures))):
        explorer.root.find_elements("css selector", ".ncdss-tile")[number].send_keys(" ")
        for step in (0, 28, 50, 98) if number < 2 else (70,):  # from a share of 0.01
            explorer.move("share", step)
            check((step + 1) / 100, number)
    picture = model.pictures[number]
    assert explorer.views() == ["image", "pseudo-label", "entropy", "truth (hidden)"]
    drawn = {title: explorer.canvas(title) for title in explorer.views()}
    assert len({d.tobytes() for d in drawn.values()}) == 4
    pseudo, look = picture.maps["pseudo"], model.pseudo_look
    alpha = np.where(pseudo == IGNORE, 0.9, np.where(look.striped[pseudo] & light_stripes(pseudo.shape), 0.7 * 0.45, 0.7))
    assert is_mixed(drawn["pseudo-label"], look.colours[pseudo], alpha)[pseudo != 0].all()
    assert explorer.find(".ncdss-tile[aria-pressed=true]").get_attribute("aria-label").startswith("rank ")


def test_teaching(browser, tmp_path, case):
    model: explorer_data.Teaching = case.models["teaching"]
    explorer = shown(browser, tmp_path, case.explorers["teaching"])
    assert explorer.names() == ["picture", "epoch", "confidence", "view", "left", "right", "divider"]

    def check(number: int, epoch: int, twentieths: int) -> None:
        maps = model.pictures[number].maps
        student, teacher, truth = (maps[name].astype(int).ravel() for name in (f"student_{epoch}", f"teacher_{epoch}", "truth"))
        kept = maps[f"sure_{epoch}"].ravel() >= twentieths
        novel = (truth != IGNORE) & (truth > model.num_base)
        right = {who: model.mapping[said[novel]] == truth[novel] for who, said in (("student", student), ("teacher", teacher))}
        wanted = {
            "kept": percent(kept.sum(), truth.size),
            "student": percent(right["student"].sum(), novel.sum()),
            "teacher": percent(right["teacher"].sum(), novel.sum()),
            "taught": percent(right["teacher"][kept[novel]].sum(), kept[novel].sum()),
        }
        theirs = teaching_shares(model, epoch, twentieths / 20, [model.pictures[number]])
        assert wanted == {key: percent(value, 1) if value == value else "–" for key, value in theirs.items() if key != "agree"}
        explorer.reads(wanted)

    last = len(model.epochs) - 1
    check(0, model.epochs[last], round(20 * model.chosen))
    assert explorer.find("[name=epoch] + output").text == "end"
    for number in range(min(3, len(model.pictures))):
        explorer.move("picture", number)
        for position, epoch in enumerate(model.epochs):
            explorer.move("epoch", position)
            for twentieths in (0, 7, 19) if number == 0 else (12,):
                explorer.move("confidence", twentieths)
                check(number, epoch, twentieths)
    maps, look = model.pictures[number].maps, model.pseudo_look
    taught = np.where(maps[f"sure_{model.epochs[-1]}"] >= 12, maps[f"teacher_{model.epochs[-1]}"], IGNORE)
    drawn = explorer.canvas("what is taught")
    alpha = np.where(taught == IGNORE, 0.9, np.where(look.striped[taught] & light_stripes(taught.shape), 0.7 * 0.45, 0.7))
    assert is_mixed(drawn, look.colours[taught], alpha)[taught != 0].all()

    points = {who: [teaching_shares(model, epoch, 0)[who] for epoch in model.epochs] for who in ("student", "teacher")}
    charts = explorer.root.find_elements("css selector", "svg")
    if np.isnan(points["teacher"]).all():  # a curve of shares of nothing would be a lie
        assert charts == []
    else:
        name = charts[0].get_attribute("aria-label")
        for who, values in points.items():
            text = name.partition(f"{who} ")[2].partition(" percent")[0]
            np.testing.assert_allclose([float(v) for v in text.split(",")], 100 * np.array(values), atol=0.5 + 1e-9)


def test_predictions(browser, tmp_path, case):
    model: explorer_data.Predictions = case.models["predictions"]
    explorer = shown(browser, tmp_path, case.explorers["predictions"])
    assert explorer.names() == ["picture", "model", "class", "view", "left", "right", "divider"]
    models, names = list(model.scores), list(next(iter(model.scores.values())).per_class)

    def overlap(picture: Picture, said: str, label: int) -> tuple[int, int]:
        truth, prediction = picture.maps["truth"].ravel().tolist(), picture.maps[said].ravel().tolist()
        pairs = [(t == label, p == label) for t, p in zip(truth, prediction, strict=True) if t != IGNORE]
        both, either = sum(t and p for t, p in pairs), sum(t or p for t, p in pairs)
        assert class_iou(picture, said, label) == pytest.approx(both / either if either else np.nan, nan_ok=True)
        return both, either

    def score(value: float | None) -> str:
        return "–" if value is None else percent(value, 1)

    def check(number: int, said: str, label: int | None) -> None:
        picture, scores = model.pictures[number], model.scores[said]
        if label is None:
            pixels = np.bincount(picture.maps["truth"].ravel(), minlength=256)
            order = sorted(range(1, len(names)), key=lambda c: -pixels[c])  # the greatest object first
            there = [(c, f) for c in order if (f := overlap(picture, said, c))[1]][:3]
            mean = scores.base_miou if scores.novel_miou is None else scores.novel_miou
            explorer.reads({"miou": score(mean), **{f"iou-{c}": percent(*f) for c, f in there}})
        else:
            explorer.reads({f"iou-{label}": percent(*overlap(picture, said, label)), "iou-all": score(scores.per_class[names[label]])})

    check(0, models[-1], None)
    chosen = range(len(names)) if len(names) < 9 else (0, 1, 7, len(names) - 1)
    for number in range(min(3, len(model.pictures))):
        explorer.move("picture", number)
        for said in models:
            explorer.choose("model", said)
            check(number, said, None)
    for label in chosen:
        explorer.move("class", 1 + label)
        check(number, models[-1], label)

    picture = model.pictures[number]
    truth, said = picture.maps["truth"], picture.maps[models[-1]]
    label = chosen[-1]
    drawn = explorer.canvas("prediction")
    there, found = truth == label, (said == label) & (truth != IGNORE)
    light = light_stripes(truth.shape)
    for colour, where in (((0, 0x72, 0xB2), there & found), ((0xF0, 0xE4, 0x42), there & ~found), ((0xD5, 0x5E, 0), found & ~there)):
        alpha = np.where(light & (colour[0] == 0xD5), 0.7 * 0.45, 0.7)
        assert is_mixed(drawn, np.array(colour), alpha)[where].all()
    explorer.move("class", 0)
    check(number, models[-1], None)
    drawn, inside = explorer.canvas("prediction"), said != 0
    assert is_mixed(drawn, model.look.colours[said], 0.7)[inside].all()


# --- what all kinds have in common -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_changes_the_picture_or_the_numbers(browser, tmp_path, cases, kind):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers[kind])

    if "view" in explorer.names():
        explorer.choose("view", "two, divided by a line")

    def state() -> tuple[str, bytes, list[str]]:
        explorer.rest()
        pictures = [explorer.browser.picture(c).tobytes() for c in explorer.root.find_elements("css selector", ".ncdss-view > canvas")]
        return str(explorer.readout()), b"".join(pictures), explorer.views()

    for name in explorer.names():
        before, place = state(), explorer.place(name)
        explorer.move(name, 1 if place != 1 else 0)
        assert explorer.place(name) == (1 if place != 1 else 0)
        assert eventually(state, lambda seen, before=before: seen != before) != before, name
        explorer.move(name, place)
        assert eventually(state, before.__eq__) == before, name


def test_a_menu_is_chosen_from_by_typing(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["predictions"])
    explorer.press("class", "owl")
    assert explorer.value("class") == str(LABELS.names.index("owl's"))
    assert set(eventually(explorer.readout, lambda seen: len(seen) == 2)) == {f"iou-{explorer.value('class')}", "iou-all"}


def test_pictures_are_stepped_through_with_buttons_too(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["layers"])
    last = len(cases["by hand"].models["layers"].pictures) - 1
    explorer.find("button[aria-label='previous image']").send_keys(" ")
    assert explorer.value("picture") == str(last)
    explorer.find("button[aria-label='next image']").send_keys("\n")
    assert explorer.value("picture") == "0"


def test_a_pixel_is_read_by_mouse_and_by_touch(browser, tmp_path, cases):
    model: explorer_data.Layers = cases["by hand"].models["layers"]
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["layers"])
    height, width = model.pictures[0].image.shape[:2]

    def place(x: int, y: int) -> dict[str, float]:
        box = browser.js(
            "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", explorer.find("canvas")
        )
        return {"x": box[0] + (x + 0.5) / width * box[2], "y": box[1] + (y + 0.5) / height * box[3]}

    def told(x: int, y: int) -> str:
        layer = "truth" if x < 0.5 * width else "pseudo"
        return f"Pixel {x}, {y}: {model.looks[layer].names[int(model.pictures[0].maps[layer][y, x])]}"

    explorer.divide("truth", "pseudo", 50)

    for x, y in ((0, 0), (width - 1, height - 1), (width // 2, 3), (5, 11)):
        browser.command("Input.dispatchMouseEvent", type="mouseMoved", **place(x, y))
        assert eventually(lambda: explorer.find(".ncdss-point").text, told(x, y).__eq__) == told(x, y)
    for x, y in ((7, 9), (width - 3, height - 4)):  # not on the button at the top right
        browser.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[place(x, y)])
        browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert eventually(lambda: explorer.find(".ncdss-point").text, told(x, y).__eq__) == told(x, y)


def test_the_line_is_dragged_on_the_picture(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["layers"])
    explorer.divide("truth", "image", 50)
    box = browser.js("const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", explorer.find("canvas"))
    at = [{"x": box[0] + share * box[2], "y": box[1] + 0.5 * box[3]} for share in (0.5, 0.25)]
    browser.command("Input.dispatchMouseEvent", type="mousePressed", button="left", buttons=1, **at[0])
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, **at[1])
    browser.command("Input.dispatchMouseEvent", type="mouseReleased", button="left", **at[1])
    assert float(eventually(lambda: explorer.value("divider"), lambda v: float(v) < 0.4)) == pytest.approx(0.25, abs=0.03)


def test_a_picture_opens_large_and_the_arrow_keys_lead_to_the_others(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["threshold"])
    explorer.find(".ncdss-enlarge").send_keys("\n")
    dialog = explorer.find("dialog[open]")
    assert dialog.find_element("css selector", "canvas").rect["width"] > 2 * explorer.find(".ncdss-view canvas").rect["width"]
    assert "image (1 of 4)" in dialog.text
    from selenium.webdriver.common.keys import Keys

    dialog.find_element("css selector", "button").send_keys(Keys.ARROW_RIGHT)
    assert "confidently base (2 of 4)" in dialog.text
    dialog.find_element("css selector", "button").send_keys(Keys.ESCAPE)
    assert eventually(lambda: explorer.root.find_elements("css selector", "dialog"), lambda found: not found) == []


def test_a_try_moves_the_controls_and_says_what_to_see(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["threshold"])
    explorer.find(".ncdss-try").click()
    assert (explorer.value("tau"), explorer.value("picture")) == ("4", "1")
    assert explorer.find("[name=tau] + output").text == "0.9"
    explorer.find(".ncdss-tries summary").click()
    assert "A & <b>." in explorer.find(".ncdss-tries").text


def test_the_story_goes_by_itself_until_it_is_touched(browser, tmp_path, cases):
    frames = [(f"frame <{n}>", "words") for n in range(1, 7)]
    page = tmp_path / "page.html"
    text = as_story(cases["a tiny run"].explorers["pipeline"]._repr_html_(), frames)
    page.write_text(f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>t</title><body><main>{text}</main></body></html>')

    def frame() -> str:
        return browser.js("return document.querySelector('.ncdss-explorer').dataset.frame")

    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "no-preference"}])
    browser.open(page.as_uri())
    OnPage(browser)
    assert eventually(frame, lambda n: n == "1") == "1"
    browser.find(".ncdss-steps li:nth-child(5) button").click()
    time.sleep(3)  # longer than a frame is shown
    assert frame() == "4"
    assert browser.find(".ncdss-step[aria-current=step] strong").text == "5 frame <5>"
    assert browser.find(".ncdss-view > canvas").get_attribute("aria-label") == "view: frame <5>"
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.open(page.as_uri())
    OnPage(browser)
    time.sleep(3)
    assert frame() == "0"
    browser.command("Emulation.setEmulatedMedia", features=[])


def test_two_explorers_do_not_disturb_each_other_nor_one_shown_twice(browser, tmp_path, cases):
    layers, threshold = (cases["by hand"].explorers[kind] for kind in ("layers", "threshold"))
    browser.open(write(tmp_path, layers, threshold, layers))
    first, second, third = (OnPage(browser, number) for number in range(3))
    ids = browser.js("return [...document.querySelectorAll('.ncdss-explorer [id]')].map((e) => e.id)")
    controls = [i for i in ids if i.startswith("ncdss-control-")]
    assert len(controls) == len(set(controls)) == 16
    others = first.readout(), first.canvas().tobytes(), third.readout(), third.canvas().tobytes()
    before = second.readout()
    second.move("tau", 5)
    assert eventually(second.readout, lambda seen: seen != before) != before
    assert others == (first.readout(), first.canvas().tobytes(), third.readout(), third.canvas().tobytes())
    third.move("picture", 2)
    assert eventually(third.readout, lambda seen: seen != others[2]) != others[2]
    assert first.readout() == others[0]


def test_without_scripts_there_is_a_still_picture(browser, tmp_path, cases):
    address = write(tmp_path, *cases["by hand"].explorers.values())
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(address)
        stills = browser.driver.find_elements("css selector", ".ncdss-explorer > .ncdss-still")
        assert [still.get_dom_attribute("alt") for still in stills] == ['A "picture" <of> noise.'] * len(KINDS)
        assert all(still.is_displayed() and still.rect["width"] > 200 for still in stills)
        assert browser.driver.find_elements("css selector", ".ncdss-explorer :is(input, canvas)") == []
        assert browser.find("figcaption").text == 'A <title> Words & "more" words.'
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(address)
    for number in range(len(KINDS)):
        explorer = OnPage(browser, number)
        assert explorer.root.find_elements("css selector", ".ncdss-still") == []
        assert explorer.find("input, select").is_displayed()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("which", ["a tiny run", "by hand"])
def test_axe_finds_nothing_and_every_control_has_a_label(browser, tmp_path, cases, which, theme):
    browser.open(write(tmp_path, *cases[which].explorers.values(), theme=theme))
    for number in range(len(KINDS)):
        OnPage(browser, number)
    labels = browser.js(
        "return [...document.querySelectorAll('.ncdss-explorer :is(input, select)')].map((c) => c.labels.length && c.labels[0].textContent)"
    )
    assert len(labels) == sum(len(OnPage(browser, number).names()) for number in range(len(KINDS)))
    assert all(labels)
    assert browser.axe() == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(browser, tmp_path, cases, width):
    browser.open(write(tmp_path, *cases["by hand"].explorers.values()), width, 800)
    for number in range(len(KINDS)):
        OnPage(browser, number)
    assert browser.js("return document.documentElement.scrollWidth") <= width


def test_names_are_text_and_never_markup(browser, tmp_path, cases):
    explorer = shown(browser, tmp_path, cases["by hand"].explorers["predictions"])
    assert explorer.find("[name=picture] option").text.strip() == f"1: {ODD_ID}"
    offered = [o.text.strip() for o in explorer.find("[name=class]").find_elements("css selector", "option")]
    assert offered == ["all classes", *LABELS.names]
    assert browser.js("return document.querySelectorAll('.ncdss-explorer :is(b, i)').length") == 0


def test_the_text_form_is_short_and_the_page_form_is_bounded(cases):
    for kind, explorer in cases["by hand"].explorers.items():
        assert len(repr(explorer)) < 200
        assert len(explorer._repr_html_()) < 350_000, kind  # script and style once each, and small pictures
