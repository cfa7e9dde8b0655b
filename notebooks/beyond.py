"""What chapter 9 draws and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.palette import BAD, INK, NEUTRAL, class_look, cluster_look
from ncdss_lib.method.base_class_removal import novel_regions
from ncdss_lib.method.clustering import (
    base_objects,
    cluster_prototypes,
    region_prototypes,
    used_images,
    within_class_whitening,
)
from ncdss_lib.method.evaluation import (
    GATED,
    After,
    PseudoLabels,
    pseudo_label_counts,
    refined_confusions,
)
from ncdss_lib.method.inference import load_model, predict, read_images
from ncdss_lib.method.metrics import score
from ncdss_lib.method.refinement import Gate, refine
from ncdss_lib.viz import figures, percent, results
from ncdss_lib.viz.figures import Drawing, overlay, photo

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

UNITS = {"image": "one region an image", "part": "a region a connected part"}
METRICS = {"plain": "as they are", "base": "metric of base objects"}


# --- the gate -------------------------------------------------------------------------------------


def head_logits(run: Run, ids: Sequence[str], model: str = "eums") -> torch.Tensor:
    """Logits of some images as the head gives them, float32 [n, 1 + B + K, h, w] on the CPU."""
    batches = predict(run, load_model(run, model), ids, None)
    return torch.cat([logits.cpu() for _, logits in batches])


def most_changed(run: Run, candidates: int = 100, count: int = 4) -> list[str]:
    """The validation images of which the gate changes most, as far as it is right there.

    Only images are taken in which the gate makes more pixels right than wrong.
    """
    ids = run.splits.val[:candidates]
    logits = head_logits(run, ids)
    mapping = _matching(run)
    changed = {}
    for i, own in zip(ids, logits, strict=True):
        truth = run.truth(i)
        kinds: tuple[Gate, ...] = ("none", "part")
        labels = [_labels(run, own, mapping, kind, truth) for kind in kinds]
        known = truth != 255
        gain = (labels[1] == truth)[known].mean() - (labels[0] == truth)[known].mean()
        changed[i] = gain
    best = sorted(changed, key=lambda i: -changed[i])[:count]
    return [i for i in best if changed[i] > 0] or ids[:count]


def gate_rows(run: Run, ids: Sequence[str]) -> Drawing:
    """Some validation images: the prediction of EUMS as it is and behind both gates, the truth."""
    look, mapping = class_look(run.labels), _matching(run)
    rows = []
    for i, own in zip(ids, head_logits(run, ids), strict=True):
        image, truth = run.data.image(i), run.truth(i)
        maps = [_labels(run, own, mapping, kind, truth) for kind in GATED]
        rows.append([photo(run, i), *(overlay(image, labels, look) for labels in (*maps, truth))])
    titles = ["image", "no gate", "gate by part", "gate by image", "truth"]
    return figures.grid(rows, titles)


def _matching(run: Run) -> np.ndarray:
    entry = run.report()["models"]["eums"]["matching"]["cluster_to_class"]
    names = run.labels.names
    return np.array([names.index(name) if name else -1 for name in entry.values()])


def _labels(
    run: Run,
    logits: torch.Tensor,
    mapping: np.ndarray,
    kind: Gate,
    truth: np.ndarray,
    follow: str | None = None,
) -> np.ndarray:
    """Classes that one image is given behind a gate, uint8 [H, W] as the truth.

    Args:
        follow: id of the image whose edges borders follow.
    """
    strength = run.recipe.evaluation.gate_strength
    images = read_images(run, [follow], run.views.size).cpu() if follow else None
    said = refine(logits[None], kind, strength, run.views.size, images)
    labels = said.argmax(1)[0].numpy()
    classes = results.to_classes(labels, mapping, run.labels.num_base)
    return resize_labels(classes, (truth.shape[0], truth.shape[1]))


def gate_table(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Novel and base mIoU of each model, as it is and behind both gates, in percent."""
    rows = {}
    for name, model in report["models"].items():
        row = {}
        for kind, protocol in GATED.items():
            found = model["protocols"][protocol]
            title = "no gate" if kind == "none" else f"by {kind}"
            row[f"novel, {title}"] = percent(found["novel_miou"])
            row[f"base, {title}"] = percent(found["base_miou"])
        rows[name] = row
    return rows


def gate_gains(report: Mapping[str, Any], kind: Gate = "part") -> dict[str, tuple[float, float]]:
    """Model with clusters -> what the gate adds to its novel and base mIoU, as fractions."""
    gains = {}
    for name, model in report["models"].items():
        plain, gated = (model["protocols"][GATED[which]] for which in ("none", kind))
        if plain["novel_miou"] is not None:
            gains[name] = (
                gated["novel_miou"] - plain["novel_miou"],
                gated["base_miou"] - plain["base_miou"],
            )
    return gains


# --- borders --------------------------------------------------------------------------------------


def edge_rows(run: Run, ids: Sequence[str]) -> Drawing:
    """Some validation images: EUMS behind the gate by image, without and with borders that follow
    the image, and the truth.
    """
    look, mapping = class_look(run.labels), _matching(run)
    rows = []
    for i, own in zip(ids, head_logits(run, ids), strict=True):
        truth = run.truth(i)
        maps = [
            _labels(run, own, mapping, "image", truth, image_id)
            for image_id in (None, i)  # without an image there is nothing to follow
        ]
        rows.append([photo(run, i), *(overlay(run.data.image(i), m, look) for m in (*maps, truth))])
    return figures.grid(rows, ["image", "gate by image", "edges followed", "truth"])


def edge_table(run: Run, models: Sequence[str] = ("base", "eums")) -> dict[str, dict[str, str]]:
    """Novel and base mIoU behind the gate by image, without and with followed edges, in percent."""
    ways: dict[str, After] = {"gate": ("image", "none"), "gate and edges": ("image", "guided")}
    rows = {}
    for name in models:
        model = load_model(run, name)
        found = refined_confusions(run, model, run.recipe.evaluation.size, tuple(ways.values()))
        row = {}
        for title, way in ways.items():
            scores = score(found[way].total, run.labels)
            row[f"novel, {title}"] = percent(scores.novel_miou)
            row[f"base, {title}"] = percent(scores.base_miou)
        rows[name] = row
    return rows


# --- regions and metric ---------------------------------------------------------------------------


def regions_of(run: Run, unit: str) -> Run:
    """The same run with another unit of clustering."""
    return run.with_settings("clustering", unit=unit)


def label_quality(run: Run, unit: str, metric: str, clusters: int) -> dict[str, Any]:
    """What pseudo-labels of another unit and metric would be worth, without any training.

    The novel masks are those of the run; truth is read to count what is right.

    Returns:
        ``regions``, and ``correct_share`` and ``purity`` as in report.json.
    """
    variant, folder = regions_of(run, unit), run.folder / "clustering"
    used = used_images(folder)
    table, prototypes = region_prototypes(variant, used, partial(novel_regions, variant, folder))
    if metric == "base":
        objects, known = region_prototypes(run, run.splits.base, partial(base_objects, run))
        prototypes = prototypes @ within_class_whitening(known, objects["region"].to_numpy())
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    config = run.recipe.clustering
    table["cluster"], _ = cluster_prototypes(
        prototypes,
        clusters,
        **config.k_means,
        seed=run.seed,
    )

    # what each region's cluster covers
    first = 1 + run.labels.num_base
    found = PseudoLabels(np.zeros((len(run.labels.names), clusters), np.int64), [])
    for image_id, own in table.groupby("id"):
        truth = resize_labels(run.truth(str(image_id)), (run.views.size,) * 2)
        pseudo = np.zeros(truth.shape, np.uint8)
        for number, mask in novel_regions(variant, folder, str(image_id)).items():
            cluster = own.loc[own["region"] == number, "cluster"].iloc[0]
            pseudo[mask] = first - 1 + cluster
        found.add(pseudo_label_counts(truth, pseudo, run.labels, clusters), first)
    quality = found.quality(first)
    return {"regions": len(table), **quality}


def quality_table(run: Run, clusters: int) -> dict[str, dict[str, str]]:
    """:func:`label_quality` of each unit and metric, as cells."""
    rows = {}
    for unit, unit_name in UNITS.items():
        for metric, metric_name in METRICS.items():
            found = label_quality(run, unit, metric, clusters)
            rows[f"{unit_name}, {metric_name}"] = {
                "regions": str(found["regions"]),
                "right pixels": percent(found["correct_share"]),
                "purity": percent(found["purity"]),
            }
    return rows


def part_rows(run: Run, count: int = 3) -> Drawing:
    """Used images whose novel mask has most parts: the image, the parts, the truth."""
    variant, folder = regions_of(run, "part"), run.folder / "clustering"
    parts = {i: novel_regions(variant, folder, i) for i in used_images(folder)}
    chosen = sorted(parts, key=lambda i: -len(parts[i]))[:count]
    look = cluster_look(run.labels, 9)
    rows = []
    for i in chosen:
        image = run.data.image(i)
        numbered = np.zeros((run.views.size,) * 2, np.uint8)
        for number, mask in parts[i].items():
            numbered[mask] = run.labels.num_base + min(number, 9)
        shown = overlay(image, numbered, look, tags=False)
        rows.append([photo(run, i), shown, figures.truth(run, i)])
    return figures.grid(rows, ["image", "parts of its novel mask", "truth (hidden)"])


# --- how many classes -----------------------------------------------------------------------------


def signal_curves(curves: Mapping[str, np.ndarray], numbers: Sequence[int], true: int) -> Drawing:
    """Each signal over K, scaled to 0..1, its best K marked; the true number as a line."""
    drawing = figures.blank(2.4)
    axes = drawing.subplots(1, len(curves), sharey=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        low, high = float(np.min(curve)), float(np.max(curve))
        scaled = (curve - low) / (high - low or 1)
        best = numbers[int(np.argmax(curve))]
        axis.plot(numbers, scaled, color=INK, linewidth=1.2)
        axis.plot([best], [1], "o", color=BAD, markersize=6)
        axis.axvline(true, color=NEUTRAL, linestyle="--", linewidth=1)
        axis.set_title(f"{name}: {best}", fontsize=9)
        axis.set_xlabel("K", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("signal, scaled", fontsize=8)
    return drawing


def estimates(curves: Mapping[str, np.ndarray], numbers: Sequence[int], true: int) -> str:
    """A sentence: which signal says what, and which are within a fifth of the truth."""
    best = {name: numbers[int(np.argmax(curve))] for name, curve in curves.items()}
    said = ", ".join(f"{name} {number}" for name, number in best.items())
    near = [name for name, number in best.items() if abs(number - true) <= 0.2 * true]
    verdict = f"Within a fifth of it: {', '.join(near)}." if near else "None is within a fifth."
    return f"**In this run** the true number is {true}. The signals say: {said}. {verdict}"
