"""Matplotlib figures of what the stages did; each function returns a figure and computes nothing that a stage should.

Label maps are drawn with nearest interpolation and the fixed colours of :mod:`ncdss_lib.viz.palette`. Figures have a white face of
their own, so that they read the same on light and dark pages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from sklearn.decomposition import PCA

from ncdss_lib.data.label_maps import read_labels, resize_labels
from ncdss_lib.data.views import load_view, resize_image
from ncdss_lib.labels import IGNORE
from ncdss_lib.metrics import UNMATCHED, Scores, confusion_matrix, match_clusters, pairwise_iou, relabel
from ncdss_lib.models.teacher import hard_pseudo_labels
from ncdss_lib.runs.report import PROTOCOLS
from ncdss_lib.stages.clustering import confident_base, read_prototypes, read_pseudo_label, used_images
from ncdss_lib.stages.entropy_ranking import entropy_map, split_clean
from ncdss_lib.stages.eums import ramp_up
from ncdss_lib.viz import artefacts
from ncdss_lib.viz.palette import (
    BAD,
    GOOD,
    INK,
    MODEL_COLOURS,
    NEUTRAL,
    Look,
    class_colour,
    class_look,
    cluster_colour,
    cluster_look,
    paint,
    readable_on,
    rgb,
    to_hex,
)  # fmt: skip

if TYPE_CHECKING:
    from ncdss_lib.pipeline import Run

WIDTH = 9.0  # inches
SPLIT_COLOURS = {"clean": GOOD, "unclean": BAD}
ENTROPY_LABEL = "normalised entropy"


class Picture(Figure):
    """A figure that notebooks show without pyplot, so that it is shown once and nothing is kept open."""

    def png(self, dpi: float = 110) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def blank(height: float, width: float = WIDTH) -> Picture:
    """An empty figure in inches."""
    return Picture(figsize=(width, height), layout="constrained", facecolor="white")


@dataclass
class Panel:
    """One picture of a grid: RGB, or a map of numbers with ``cmap``.

    Attributes:
        tags: (x, y, text, colour) in pixels, small names on regions.
        edge: colour of a frame.
        note: words in the middle.
    """

    pixels: np.ndarray
    title: str = ""
    tags: list[tuple[float, float, str, np.ndarray]] = field(default_factory=list)
    cmap: str | None = None
    vmax: float = 1.0
    edge: str | None = None
    note: str = ""


def grid(
    rows: Sequence[Sequence[Panel | None]], columns: Sequence[str] = (), row_titles: Sequence[str] = (), *,
    legend: Sequence[tuple[str, np.ndarray]] = (), colourbar: str | None = None, width: float = WIDTH,
) -> Picture:  # fmt: skip
    """Panels in rows and columns, with column titles, row titles, a legend below and a colour bar for the maps."""
    count = max(len(row) for row in rows)
    shapes = [panel.pixels.shape for row in rows for panel in row if panel]
    aspect = float(np.median([shape[0] / shape[1] for shape in shapes]))
    cell = (width - 0.1 - 0.3 * bool(row_titles) - 0.9 * bool(colourbar)) / count
    titled = any(panel and panel.title for row in rows for panel in row)
    height = len(rows) * (cell * aspect + (0.22 if titled else 0.04)) + 0.3 * bool(columns) + 0.45 * bool(legend)
    figure = blank(height + 0.1, width)
    axes = figure.subplots(len(rows), count, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]
    shown = None
    for r, row in enumerate(rows):
        for c in range(count):
            axis, panel = axes[r, c], row[c] if c < len(row) else None
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(bool(panel and panel.edge))
                spine.set(color=panel.edge if panel else None, linewidth=3)
            if c == 0 and row_titles:
                axis.set_ylabel(row_titles[r], fontsize=9, color=INK)
            if r == 0 and c < len(columns):
                axis.set_title(columns[c], fontsize=9.5, color=INK)
            if panel is None:
                continue
            drawn = axis.imshow(panel.pixels, cmap=panel.cmap, vmin=0, vmax=panel.vmax, interpolation="nearest")
            shown = drawn if panel.cmap else shown
            if panel.title:
                axis.set_xlabel(panel.title, fontsize=8, labelpad=2, color=INK)
            if panel.note:
                axis.text(0.5, 0.5, panel.note, transform=axis.transAxes, ha="center", va="center", fontsize=9, color=NEUTRAL)
            for x, y, text, colour in panel.tags:
                box = {"boxstyle": "round,pad=0.15", "facecolor": to_hex(colour), "edgecolor": "white", "linewidth": 0.6}
                axis.text(x, y, text, fontsize=6.5, ha="center", va="center", color=readable_on(colour), bbox=box, clip_on=True)
    if legend:
        handles = [Patch(facecolor=to_hex(colour), edgecolor=INK, linewidth=0.4, label=name) for name, colour in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8, frameon=False)
    if colourbar and shown is not None:
        figure.colorbar(shown, ax=axes, label=colourbar, shrink=0.7, aspect=30, pad=0.01)
    return figure


def photo(run: Run, image_id: str, title: str = "") -> Panel:
    """An image as it is."""
    return Panel(run.data.image(image_id), title)


def overlay(image: np.ndarray, labels: np.ndarray, look: Look, title: str = "", *, tags: bool = True, edge: str | None = None) -> Panel:
    """Labels over an image, with the name of each region of at least 1 % of it."""
    labels = labels if labels.shape == image.shape[:2] else resize_labels(labels, image.shape[:2])
    marks = []
    for label in np.unique(labels) if tags else ():
        rows, columns = np.nonzero(labels == label)
        if label in (0, IGNORE) or label not in look.names or len(rows) < 0.01 * labels.size:
            continue
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        x = np.clip(columns[nearest], 0.16 * labels.shape[1], 0.84 * labels.shape[1])
        y = np.clip(rows[nearest], 0.06 * labels.shape[0], 0.94 * labels.shape[0])
        marks.append((float(x), float(y), look.names[int(label)], look.colours[label]))
    return Panel(paint(image, labels, look), title, marks, edge=edge)


def binary(image: np.ndarray, mask: np.ndarray | None, title: str = "", colour: str = BAD) -> Panel:
    """A mask over the image in one colour; an empty one where there is none."""
    colours = np.tile(rgb(colour), (256, 1))
    label_map = np.zeros(image.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
    look = Look(colours, {}, np.zeros(256, bool))
    return overlay(image, label_map, look, title if mask is not None else "none", tags=False)


def _saliency_title(run: Run) -> str:
    return "saliency (simulated)" if "simulated" in run.data.saliency_note else "saliency"


def _axis(axis: Axes, **labels: Any) -> Axes:
    axis.set(**labels)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.xaxis.label.set_fontsize(9)
    axis.yaxis.label.set_fontsize(9)
    axis.title.set_fontsize(10)
    return axis


def _heat(axis: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], form: str, vmax: float | None = None) -> None:
    """A table of numbers, darker where greater, each number written in its cell; zeros are left empty."""
    top = vmax or max(float(np.nanmax(values, initial=0)), 1e-9)
    axis.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.tick_params(length=0)
    if values.size <= 500:
        for (r, c), value in np.ndenumerate(values):
            if value:
                axis.text(c, r, format(value, form), ha="center", va="center", fontsize=7, color="white" if value > 0.55 * top else INK)
    for spine in axis.spines.values():
        spine.set_visible(False)


# --- 01 data ------------------------------------------------------------------------------------------------------------------------------


def scenes(run: Run, count: int = 5) -> Picture:
    """Novel images above base images, each with its ground truth painted over it below."""
    look = class_look(run.labels)
    rows: list[list[Panel]] = []
    for ids in (artefacts.novel_examples(run, count), artefacts.base_examples(run, count)):
        rows += [[photo(run, i) for i in ids], [overlay(run.data.image(i), run.truth(i), look) for i in ids]]
    return grid(rows, row_titles=["novel images", "their truth", "base images", "their truth"])


def what_is_told(run: Run) -> Picture:
    """Which labels the method gets to see: of novel images none later on, but some in base training; of base images all."""
    look, leaked = class_look(run.labels), set(run.splits.base_train) & set(run.splits.novel)
    kinds = {
        "novel image": artefacts.novel_examples(run, 2, [i for i in run.splits.novel if i not in leaked]),
        "novel image\nwith a base object": artefacts.mixed_examples(run, 1, sorted(leaked)),
        "base image": artefacts.base_examples(run, 1),
    }
    rows, titles = [], []
    for kind, i in ((kind, i) for kind, ids in kinds.items() for i in ids):
        image, hidden = run.data.image(i), run.truth(i, hide_novel=True)
        told = overlay(image, hidden, look) if i in run.splits.base_train else Panel(np.full_like(image, 245), note="nothing")
        later = overlay(image, hidden, look) if kind == "base image" else Panel(np.full_like(image, 245), note="nothing")
        rows.append([photo(run, i), overlay(image, run.truth(i), look), told, later, binary(image, run.data.saliency(i))])
        titles.append(kind)
    return grid(rows, ["image", "whole truth", "told in base training", "told in fine-tuning", _saliency_title(run)], titles)


def class_counts(run: Run) -> Picture:
    """Images of each class: training images with labels, training images without, validation."""
    presence, labels = run.data.presence(), run.labels
    lists = {"base images": run.splits.base, "novel images": run.splits.novel, "validation": run.splits.val}
    figure = blank(max(2.5, 0.2 * len(labels.names) + 0.6))
    axes = figure.subplots(1, 3, sharey=True)
    original = [*labels.base_ids, *labels.novel_ids]
    for axis, (title, ids) in zip(axes, lists.items(), strict=True):
        counts = [sum(c in presence[i] for i in ids) for c in original]
        axis.barh(range(len(original)), counts, color=[to_hex(class_colour(c)) for c in original], edgecolor=INK, linewidth=0.4)
        axis.axhline(labels.num_base - 0.5, color=INK, linewidth=0.8, linestyle=":")
        _axis(axis, title=f"{title} ({len(ids)})", xlabel="images that hold the class")
    axes[0].set_yticks(range(len(original)), labels.names[1:], fontsize=8)
    axes[0].invert_yaxis()
    axes[0].text(0.5, labels.num_base - 0.4, "novel classes", va="top", fontsize=8)
    return figure


def saliency_quality(run: Run, limit: int = 300) -> Picture:
    """What is under the saliency maps of the novel images, and what of each kind of pixel they cover.

    Args:
        limit: images that are read at most, evenly spread.
    """
    counts = np.zeros((4, 2), np.int64)  # background, base, novel, ignored x not salient, salient
    kinds = np.full(256, 3, np.int64)
    kinds[: len(run.labels.names)] = [0] + [1] * run.labels.num_base + [2] * run.labels.num_novel
    for i in artefacts.thin(run.splits.novel, limit):
        salient, truth = run.data.saliency(i), kinds[run.truth(i)]
        covered = np.zeros(truth.shape, np.int64) if salient is None else salient.astype(np.int64)
        counts += confusion_matrix(torch.from_numpy(truth), torch.from_numpy(covered), 4, 2).numpy()
    counts = counts[[2, 1, 0]]
    figure = blank(2.2)
    left, right = figure.subplots(1, 2)
    start, colours = 0.0, [BAD, GOOD, "#bbbbbb"]
    shares = counts[:, 1] / max(1, counts[:, 1].sum())
    for name, share, colour in zip(("novel classes", "base classes", "background"), shares, colours, strict=True):
        left.barh(0, share, left=start, color=colour, edgecolor="white", label=f"{name} {share:.0%}")
        start += share
    left.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    _axis(left, yticks=[], xlim=(0, 1), title="what salient pixels are")
    covered_share = counts[:, 1] / np.maximum(1, counts.sum(1))
    right.barh([2, 1, 0], covered_share, color=colours)
    right.set_yticks([2, 1, 0], ["novel classes", "base classes", "background"], fontsize=8)
    for y, share in zip([2, 1, 0], covered_share, strict=True):
        right.text(share + 0.01, y, f"{share:.0%}", va="center", fontsize=8)
    _axis(right, xlim=(0, 1.1), title="share of each that is salient")
    return figure


# --- training -----------------------------------------------------------------------------------------------------------------------------


def curves(run: Run, names: Sequence[str], columns: Sequence[str] = ("loss",), titles: Mapping[str, str] | None = None) -> Picture:
    """Recorded losses by epoch, one panel a column; a panel more where an epoch was chosen on validation."""
    histories = {name: artefacts.history(run, name) for name in names}
    columns = [c for c in (*columns, "val_miou") if any(c in h for h in histories.values())]
    titles = {"val_miou": "validation mIoU by which the epoch is chosen", **(titles or {})}
    figure = blank(2.5, min(WIDTH, 3.6 * len(columns) + 1))
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        for name, table in histories.items():
            if column in table:
                axis.plot(table["epoch"], table[column], color=MODEL_COLOURS[name], marker="o", markersize=3, label=name)
        _axis(axis, xlabel="epoch", title=titles.get(column, column), ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(histories) > 1:
            axis.legend(fontsize=8, frameon=False)
    return figure


# --- 02 base training -------------------------------------------------------------------------------------------------------------------


def base_model_on(run: Run, ids: Sequence[str]) -> Picture:
    """What the base model says: image, truth, most probable class, and its probability."""
    look, rows = class_look(run.labels), []
    for i, logits in artefacts.logits_of(run, "base", ids).items():
        image, (probability, label) = run.data.image(i), logits.softmax(0).max(0)
        certainty = resize_labels(probability.numpy(), image.shape[:2])
        rows.append(
            [
                photo(run, i),
                overlay(image, run.truth(i), look),
                overlay(image, label.numpy().astype(np.uint8), look),
                Panel(certainty, cmap="viridis"),
            ]
        )
    return grid(rows, ["image", "truth", "base model's class", "its probability"], colourbar="probability")


def base_confidence(run: Run, limit: int = 80) -> Picture:
    """How confident the base model is of its base-class pixels in novel images, by what the pixels really are."""
    threshold, labels, bins = run.recipe.clustering.base_confidence, run.labels, np.linspace(0, 1, 21)
    kinds = ("the right base class", "another base class", "a novel class", "background")
    counts, sure = np.zeros((4, 20)), np.zeros(4)
    for i, logits in artefacts.logits_of(run, "base", artefacts.thin(run.splits.novel, limit), run.recipe.data.target_size).items():
        probability, label = (x.numpy() for x in logits.softmax(0).max(0))
        truth = resize_labels(run.truth(i), label.shape)
        kind = np.select([truth == 0, truth > labels.num_base, truth == label], [3, 2, 0], 1)
        for k in range(4):
            chosen = probability[(label > 0) & (kind == k) & (truth != IGNORE)]
            counts[k] += np.histogram(chosen, bins)[0]
            sure[k] += (chosen > threshold).sum()
    figure = blank(2.8)
    axis = figure.subplots()
    for k, (name, colour) in enumerate(zip(kinds, (GOOD, "#56b4e9", BAD, NEUTRAL), strict=True)):
        total = max(1, counts[k].sum())
        text = f"{name}: {counts[k].sum() / max(1, counts.sum()):.0%} of these pixels, {sure[k] / total:.0%} of them above τ"
        axis.stairs(counts[k] / total, bins, color=colour, linewidth=2, label=text)
    axis.axvline(threshold, color=INK, linestyle="--", linewidth=1)
    axis.text(threshold, axis.get_ylim()[1], f" τ = {threshold:g}", va="top", ha="left", fontsize=8)
    axis.legend(fontsize=8, frameon=False, title="the pixel is really", title_fontsize=8, loc="upper left")
    _axis(axis, xlabel="probability of the predicted base class", ylabel="share of each kind", xlim=(0, 1))
    return figure


def iou_bars(run: Run, scores: Mapping[str, Scores]) -> Picture:
    """IoU of each class for some models; novel classes right of the dotted line."""
    names = [n for n in run.labels.names if any(s.per_class.get(n) is not None for s in scores.values())]
    figure = blank(2.9)
    axis, width = figure.subplots(), 0.8 / len(scores)
    for k, (model, values) in enumerate(scores.items()):
        heights = [values.per_class.get(n) or 0.0 for n in names]
        places = np.arange(len(names)) + (k - (len(scores) - 1) / 2) * width
        axis.bar(places, heights, width, color=MODEL_COLOURS.get(model, NEUTRAL), label=model)
    first_novel = sum(n not in run.labels.novel_names for n in names)
    if first_novel < len(names):
        axis.axvline(first_novel - 0.5, color=INK, linestyle=":", linewidth=1)
        axis.text(first_novel - 0.4, 1.0, "novel", fontsize=8, va="top")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.legend(fontsize=8, frameon=False, ncols=len(scores), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _axis(axis, ylabel="IoU", ylim=(0, 1), xlim=(-0.7, len(names) - 0.3)).figure  # type: ignore[return-value]


# --- 03 clustering ----------------------------------------------------------------------------------------------------------------------


def pseudo_label_steps(run: Run, ids: Sequence[str], clusters: int) -> Picture:
    """From saliency to pseudo-label: image, saliency, confident base classes, novel mask, pseudo-label, truth."""
    folder, truth, pseudo = run.folder / "clustering", class_look(run.labels), cluster_look(run.labels, clusters)
    rows = []
    for i in ids:
        image = run.data.image(i)
        rows.append(
            [
                photo(run, i),
                binary(image, run.data.saliency(i)),
                overlay(image, read_labels(folder / "base_pred" / f"{i}.png"), truth),
                binary(image, read_labels(folder / "novel_map" / f"{i}.png") > 0),
                overlay(image, read_pseudo_label(folder, clusters, i), pseudo),
                overlay(image, run.truth(i), truth),
            ]
        )
    return grid(rows, ["image", _saliency_title(run), "confidently base", "novel mask M", "pseudo-label", "truth (hidden)"])


def threshold_strip(run: Run, ids: Sequence[str], thresholds: Sequence[float] = (0.3, 0.6, 0.9, 0.99)) -> Picture:
    """The novel mask of some images for several confidence thresholds."""
    rows = []
    for i, logits in artefacts.logits_of(run, "base", ids).items():
        image, salient = run.data.image(i), run.data.saliency(i)
        masks = [
            None if salient is None else salient & (resize_labels(confident_base(logits[None], t)[0].numpy(), salient.shape) == 0)
            for t in thresholds
        ]
        rows.append([overlay(image, run.truth(i), class_look(run.labels)), *(binary(image, mask) for mask in masks)])
    return grid(rows, ["truth (hidden)", *(f"novel mask, τ = {t:g}" for t in thresholds)])


def prototype_map(run: Run, clusters: int) -> Picture:
    """The prototypes in their first two principal components: coloured by cluster, and by the class that is really there."""
    table = artefacts.pseudo_label_table(run, clusters)
    points = PCA(2).fit_transform(read_prototypes(run.folder / "clustering"))
    labels, original = run.labels, (0, *run.labels.base_ids, *run.labels.novel_ids)
    figure = blank(4.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for k in range(1, clusters + 1):
        mine = points[table["cluster"].to_numpy() == k]
        colour = to_hex(cluster_colour(k))
        left.scatter(*mine.T, s=16, color=colour, edgecolor=INK, linewidth=0.3)
        if len(mine):
            box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour}
            left.text(*mine.mean(0), str(k), ha="center", va="center", fontsize=8, bbox=box)
    for c, marker in zip((*sorted(set(table["main_class"]) - {0}), 0), "osD^vPX*<>hpd8" * 8, strict=False):
        mine = points[table["main_class"].to_numpy() == c]
        if len(mine):
            name = labels.names[c] if c else "no novel class"
            colour = to_hex(class_colour(original[c])) if c else "#bbbbbb"
            right.scatter(*mine.T, s=20, marker=marker, color=colour, edgecolor=INK, linewidth=0.3, label=name)
    right.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=4)
    for axis, title in ((left, f"k-means with K = {clusters}: cluster numbers"), (right, "class under the mask (hidden from the method)")):
        _axis(axis, title=title, xticks=[], yticks=[])
    return figure


def cluster_gallery(run: Run, clusters: int, per_cluster: int = 7) -> Picture:
    """Some members of each cluster, its number and purity at the left; a frame in vermilion where the class is not the cluster's.

    Where nobody knows the truth (images of one's own), the number of members at the left and no frames.
    """
    table, look = artefacts.pseudo_label_table(run, clusters), cluster_look(run.labels, clusters)
    rows: list[list[Panel | None]] = []
    titles, known = [], bool(table["pixels"].any())
    for k in range(1, clusters + 1):
        members = table[table["cluster"] == k]
        wrong = known & (members["main_class"] != members["cluster_class"])
        row: list[Panel | None] = []
        for i in artefacts.thin(members.index.tolist(), per_cluster):
            pseudo = read_pseudo_label(run.folder / "clustering", clusters, i)
            only = np.where(pseudo == run.labels.num_base + k, pseudo, 0).astype(np.uint8)
            row.append(_thumbnail(overlay(run.data.image(i), only, look, tags=False, edge=BAD if wrong[i] else "white")))
        rows.append(row + [None] * (per_cluster - len(row)))
        if known and len(members):
            titles.append(f"{k}: {run.labels.names[members['cluster_class'].iloc[0]]}\n{(~wrong).mean():.0%} of {len(members)}")
        else:
            titles.append(f"{k}: empty" if members.empty else f"{k}\nmembers: {len(members)}")
    return grid(rows, row_titles=titles)


def _thumbnail(panel: Panel) -> Panel:
    """The middle square of a picture, so that rows of a gallery line up."""
    height, width = panel.pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    panel.pixels = resize_image(panel.pixels[top : top + side, left : left + side], 128)
    return panel


def cluster_table(run: Run, choices: Sequence[int]) -> Picture:
    """Images by cluster and by the class that most of the novel region really is, for one or several K."""
    names = [*run.labels.novel_names, "none"]
    figure = blank(0.28 * max(choices) + 1.1)
    axes = figure.subplots(1, len(choices), squeeze=False)[0]
    for axis, clusters in zip(axes, choices, strict=True):
        table = artefacts.pseudo_label_table(run, clusters)
        columns = [*range(1 + run.labels.num_base, len(run.labels.names)), 0]
        counts = pd.crosstab(table["cluster"], table["main_class"]).reindex(index=range(1, clusters + 1), columns=columns, fill_value=0)
        _heat(axis, counts.to_numpy().astype(float), [f"cluster {k}" for k in counts.index], names, ".0f")
        axis.set_title(f"K = {clusters}: images of each class", fontsize=10)
    return figure


# --- 04 basic framework -----------------------------------------------------------------------------------------------------------------


def predictions(
    run: Run, names: Sequence[str], ids: Sequence[str], confusions: Mapping[str, np.ndarray], rule: str = "published"
) -> Picture:
    """Image, prediction of each model with its clusters named by their matched class, truth."""
    look = class_look(run.labels)
    look.names[artefacts.UNMATCHED_LABEL] = "no class"
    look.colours[artefacts.UNMATCHED_LABEL] = 0
    found = {name: artefacts.logits_of(run, name, ids) for name in names}
    matched = {name: match_clusters(confusions[name], run.labels, rule) for name in names}
    rows = []
    for i in ids:
        image, row = run.data.image(i), [photo(run, i)]
        for name in names:
            row.append(overlay(image, artefacts.to_classes(found[name][i].argmax(0).numpy(), matched[name], run.labels.num_base), look))
        rows.append([*row, overlay(image, run.truth(i), look)])
    return grid(rows, ["image", *names, "truth"])


def matching(run: Run, confusions: Mapping[str, np.ndarray], rule: str = "published") -> Picture:
    """IoU of novel classes and clusters on the pixels that the matching looks at; the chosen class of each cluster is framed."""
    first = 1 + run.labels.num_base
    widths = [confusion.shape[1] - first for confusion in confusions.values()]
    figure = blank(0.33 * run.labels.num_novel + 1.3)
    axes = figure.subplots(1, len(confusions), squeeze=False, width_ratios=widths)[0]
    for axis, (name, confusion) in zip(axes, confusions.items(), strict=True):
        iou = pairwise_iou(confusion[first:, first:].astype(float))
        _heat(axis, iou, run.labels.novel_names, [str(k + 1) for k in range(iou.shape[1])], ".2f", vmax=1)
        axis.set_xticklabels(axis.get_xticklabels(), rotation=0, ha="center")
        for cluster, label in enumerate(match_clusters(confusion, run.labels, rule)):
            if label != UNMATCHED and confusion[:, first + cluster].any():
                axis.add_patch(Rectangle((cluster - 0.5, label - first - 0.5), 1, 1, fill=False, edgecolor=BAD, linewidth=2.5))
        axis.set_title(f"{name}: K = {iou.shape[1]}", fontsize=10)
        axis.set_xlabel("cluster", fontsize=9)
    return figure


def confusion(run: Run, counts: np.ndarray, rule: str = "published") -> Picture:
    """Where the pixels of each class went, as shares of its pixels, clusters merged into their matched classes."""
    merged = relabel(counts, match_clusters(counts, run.labels, rule), run.labels)
    spare = ["no class"] if merged[:, -1].any() else []
    merged = merged if spare else merged[:, :-1]
    shares = merged / np.maximum(1, merged.sum(1, keepdims=True))
    figure = blank(0.2 * len(shares) + 1.3)
    axis = figure.subplots()
    _heat(axis, np.where(shares < 0.005, 0, shares), run.labels.names, [*run.labels.names, *spare], ".2f", vmax=1)
    first = run.labels.num_base + 0.5
    axis.axvline(first, color=BAD, linewidth=1)
    axis.axhline(first, color=BAD, linewidth=1)
    axis.set_xlabel("prediction", fontsize=9)
    axis.set_ylabel("truth", fontsize=9)
    for text in axis.texts:
        text.set_fontsize(6)
    return figure


# --- 05 entropy ranking -----------------------------------------------------------------------------------------------------------------


def entropy_rows(run: Run, ids: Sequence[str], model: str = "basic_oc") -> Picture:
    """Image, pseudo-label, entropy of the network, truth; the pixels that count are outlined."""
    clusters = run.clusters["eums"]
    table, pseudo_look, truth_look = artefacts.ranking_table(run), cluster_look(run.labels, clusters), class_look(run.labels)
    rows, titles = [], []
    for i, logits in artefacts.logits_of(run, model, ids).items():
        image, pseudo = run.data.image(i), read_pseudo_label(run.folder / "clustering", clusters, i)
        entropy = resize_labels(entropy_map(logits[None])[0].numpy(), image.shape[:2])
        shown = [overlay(image, pseudo, pseudo_look), Panel(entropy, cmap="magma"), overlay(image, run.truth(i), truth_look)]
        rows.append([photo(run, i), *shown])
        row = table.loc[i]
        titles.append(f"{row['split']}\ns = {row['entropy']:.2f}")
    figure = grid(rows, ["image", "pseudo-label", "entropy map", "truth (hidden)"], titles, colourbar=ENTROPY_LABEL, width=8)
    for r, i in enumerate(ids):
        pseudo = read_pseudo_label(run.folder / "clustering", clusters, i)
        region = (pseudo > run.labels.num_base) & (pseudo != IGNORE)
        figure.axes[4 * r + 2].contour(region, levels=[0.5], colors="white", linewidths=1.2)
    return figure


def ranking_curve(run: Run) -> Picture:
    """Each image's entropy in ascending order by its split, and how right the pseudo-labels are along the ranking."""
    table = artefacts.ranking_table(run)
    figure = blank(2.9)
    left, right = figure.subplots(1, 2)
    ranks = np.arange(1, len(table) + 1)
    for split, colour in SPLIT_COLOURS.items():
        mine = (table["split"] == split).to_numpy()
        left.scatter(ranks[mine], table["entropy"][mine], s=9, color=colour, label=f"{split} ({mine.sum()})")
    left.legend(fontsize=8, frameon=False)
    _axis(left, xlabel="rank", ylabel=f"s(x), {ENTROPY_LABEL}", title="every image, sorted")
    parts = np.array_split(np.arange(len(table)), min(10, len(table)))
    shares = [artefacts.right_share(table.iloc[part]) for part in parts]
    right.bar(range(1, len(parts) + 1), shares, color="#aaaaaa")
    right.axhline(artefacts.right_share(table), color=INK, linestyle="--", linewidth=1, label="all images")
    right.legend(fontsize=8, frameon=False, loc="upper right")
    right.set(ylim=(0, 1.15), xticks=range(1, len(parts) + 1))
    _axis(right, xlabel="part of the ranking, surest first", ylabel="share of right pixels", title="how right the pseudo-labels are")
    return figure


def split_by_cluster(run: Run) -> Picture:
    """Clean and unclean images of each cluster, ranked over the whole data set and within each cluster."""
    table, share, clusters = artefacts.ranking_table(run), run.recipe.entropy_ranking.clean_share, run.clusters["eums"]
    figure = blank(2.8)
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"dataset": "one ranking of all images (published)", "cluster": "a ranking in each cluster"}
    for axis, (per, title) in zip(axes, titles.items(), strict=True):
        clean = split_clean(table["entropy"].to_numpy(), table["cluster"].to_numpy(), share, per)  # type: ignore[arg-type]
        kept = [int(clean[table["cluster"] == k].sum()) for k in range(1, clusters + 1)]
        lost = [int((~clean)[table["cluster"] == k].sum()) for k in range(1, clusters + 1)]
        axis.bar(range(1, clusters + 1), kept, color=GOOD, label="clean")
        axis.bar(range(1, clusters + 1), lost, bottom=kept, color=BAD, label="unclean", hatch="//", edgecolor="white")
        used = ", this run" if per == run.recipe.entropy_ranking.per else ""
        _axis(axis, xlabel="cluster", title=title + used, xticks=range(1, clusters + 1))
    axes[0].set_ylabel("images")
    axes[1].legend(fontsize=8, frameon=False)
    return figure


def clean_share_curve(run: Run) -> Picture:
    """Share of right pixels among clean and among unclean images for every clean share."""
    table, config = artefacts.ranking_table(run), run.recipe.entropy_ranking
    shares = np.linspace(0.05, 0.95, 19)
    figure = blank(2.8, 6)
    axis = figure.subplots()
    for split, colour in SPLIT_COLOURS.items():
        values = [artefacts.right_share(table[_clean(table, s, config.per) == (split == "clean")]) for s in shares]
        axis.plot(shares, values, color=colour, marker="o" if split == "clean" else "s", markersize=4, label=split)
    axis.axvline(config.clean_share, color=INK, linestyle="--", linewidth=1)
    axis.text(config.clean_share, 0.03, f" {config.clean_share:.2f}", fontsize=8)
    axis.legend(fontsize=8, frameon=False)
    _axis(axis, xlabel="clean share", ylabel="share of right pixels", ylim=(0, 1), xlim=(0, 1))
    return figure


def _clean(table: pd.DataFrame, share: float, per: Any) -> np.ndarray:
    return split_clean(table["entropy"].to_numpy(), table["cluster"].to_numpy(), share, per)


def clean_share_view(run: Run, table: pd.DataFrame, share: float, count: int = 6) -> Picture:
    """For one clean share: the surest and the least sure images on either side of the line, and how right each side is."""
    clean, look = _clean(table, share, run.recipe.entropy_ranking.per), cluster_look(run.labels, run.clusters["eums"])
    rows: list[list[Panel | None]] = []
    titles = []
    for name, chosen in (("clean", table[clean]), ("unclean", table[~clean])):
        row: list[Panel | None] = []
        for i in artefacts.thin(chosen.index.tolist(), count):
            pseudo = read_pseudo_label(run.folder / "clustering", run.clusters["eums"], i)
            panel = _thumbnail(overlay(run.data.image(i), pseudo, look, tags=False, edge=SPLIT_COLOURS[name]))
            part = artefacts.right_share(table.loc[[i]])
            panel.title = f"s = {table.loc[i, 'entropy']:.2f}, right {part:.0%}" if part == part else f"s = {table.loc[i, 'entropy']:.2f}"
            row.append(panel)
        rows.append(row + [None] * (count - len(row)))
        right = artefacts.right_share(chosen)
        titles.append(f"{name}: {len(chosen)} images\n" + (f"{right:.0%} right" if right == right else ""))
    return grid(rows, row_titles=titles)


# --- 06 EUMS ----------------------------------------------------------------------------------------------------------------------------


def self_training(run: Run, ids: Sequence[str]) -> Picture:
    """Weak and strong view, the discarded pseudo-label, the teacher's labels where it is confident, truth."""
    clusters, config = run.clusters["eums"], run.recipe.eums
    pseudo_look, truth_look = cluster_look(run.labels, clusters), class_look(run.labels)
    rows = []
    for i, logits in artefacts.logits_of(run, artefacts.load_teacher(run), ids).items():
        image = run.data.image(i)
        jittered = Image.fromarray(load_view(run.data, run.recipe.data, "jitter", i))
        strong = np.asarray(jittered.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC))
        labels = hard_pseudo_labels(logits[None], config.confidence)[0].numpy().astype(np.uint8)
        rows.append(
            [
                photo(run, i),
                Panel(strong),
                overlay(image, read_pseudo_label(run.folder / "clustering", clusters, i), pseudo_look),
                overlay(image, labels, pseudo_look),
                overlay(image, run.truth(i), truth_look),
            ]
        )
    return grid(rows, ["weak view", "strong view", "discarded pseudo-label", "teacher's labels", "truth (hidden)"])


def ramp(run: Run) -> Picture:
    """The weight of the self-training loss by epoch."""
    config = run.recipe.eums
    figure = blank(2.2, 5)
    axis = figure.subplots()
    fine = np.linspace(0, config.epochs, 200)
    axis.plot(fine, [ramp_up(e, config.ramp_up_epochs, config.max_weight) for e in fine], color="#bbbbbb")
    weights = [ramp_up(e, config.ramp_up_epochs, config.max_weight) for e in range(config.epochs)]
    axis.plot(range(config.epochs), weights, "o", color=MODEL_COLOURS["eums"], markersize=4)
    for e in (e for e in config.reassign_epochs if e < config.epochs):
        axis.axvline(e, color=BAD, linestyle="--", linewidth=1)
        axis.text(e, 0.1, " reassignment", fontsize=8, color=BAD, transform=axis.get_xaxis_transform())
    _axis(axis, xlabel="epoch e", ylabel="w(e)", ylim=(0, None))
    return figure


def reassignment(run: Run) -> Picture:
    """Images on either side before and after reassignment, and how right their pseudo-labels are."""
    splits, table = artefacts.read_splits(run.folder / "eums"), artefacts.pseudo_label_table(run, run.clusters["eums"])
    stages = list(splits.columns)
    figure = blank(2.5, 7)
    left, right = figure.subplots(1, 2)
    names = [f"from epoch {c.removeprefix('epoch_')}" for c in stages]
    sides = {side: [table.loc[splits.index[splits[c] == (side == "clean")]] for c in stages] for side in SPLIT_COLOURS}
    for k, (side, parts) in enumerate(sides.items()):
        places = np.arange(len(stages)) + (k - 0.5) * 0.35
        hatch = "//" if side == "unclean" else None
        left.bar(places, [len(part) for part in parts], 0.35, color=SPLIT_COLOURS[side], label=side, hatch=hatch, edgecolor="white")
        shares = [artefacts.right_share(part) for part in parts]
        right.bar(places, np.nan_to_num(shares), 0.35, color=SPLIT_COLOURS[side], label=side, hatch=hatch, edgecolor="white")
        for x, share in zip(places, shares, strict=True):
            right.text(x, np.nan_to_num(share) + 0.01, f"{share:.0%}" if share == share else "–", ha="center", fontsize=8)
    for axis, label in ((left, "images"), (right, "share of right pixels")):
        axis.set_xticks(range(len(stages)), names, fontsize=8)
        _axis(axis, ylabel=label)
    right.set_ylim(0, 1)
    left.legend(fontsize=8, frameon=False)
    return figure


def teacher_confidence(run: Run, limit: int = 80) -> Picture:
    """For every confidence threshold: how much of the unclean images' truly novel pixels the teacher labels, and how right it is.

    Clusters are given the class of most pixels in the training masks, as for the pseudo-labels.
    """
    clusters, first = run.clusters["eums"], 1 + run.labels.num_base
    quality = artefacts.pseudo_label_table(run, clusters)
    splits = artefacts.read_splits(run.folder / "eums")
    mapping = np.full(clusters, UNMATCHED, np.int64)
    mapping[quality["cluster"] - 1] = quality["cluster_class"]
    ids = artefacts.thin(splits.index[~splits.iloc[:, -1]].tolist(), limit)
    edges, counts = np.linspace(0, 1, 51), np.zeros((2, 50))
    for i, logits in artefacts.logits_of(run, artefacts.load_teacher(run), ids, run.recipe.data.target_size).items():
        probability, label = (x.numpy() for x in logits.softmax(0).max(0))
        truth = resize_labels(run.truth(i), label.shape)
        novel = (truth >= first) & (truth != IGNORE)
        right = artefacts.to_classes(label, mapping, run.labels.num_base) == truth
        for k in range(2):
            counts[k] += np.histogram(probability[novel & (right == bool(k))], edges)[0]
    above = counts[:, ::-1].cumsum(1)[:, ::-1]
    figure = blank(2.6, 6)
    axis = figure.subplots()
    axis.plot(edges[:-1], above.sum(0) / max(1, counts.sum()), color=NEUTRAL, label="novel pixels that get a label")
    known = above.sum(0) > 0.005 * counts.sum()  # a handful of pixels says nothing
    axis.plot(edges[:-1][known], above[1][known] / above.sum(0)[known], color=GOOD, linestyle="-.", label="of those, right")
    axis.axvline(run.recipe.eums.confidence, color=INK, linestyle="--", linewidth=1)
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    _axis(axis, xlabel="confidence threshold of the teacher's labels", ylabel="share", ylim=(0, 1.02), xlim=(0, 1))
    return figure


# --- 07 results -------------------------------------------------------------------------------------------------------------------------


def score_bars(report: Mapping[str, Any]) -> Picture:
    """Novel, base, background and all-class mean IoU of every model of a report."""
    titles = {"novel_miou": "novel", "base_miou": "base", "background_iou": "background", "all_miou": "all classes"}
    titles["harmonic_mean"] = "harmonic mean"
    figure = blank(2.6)
    axis, models = figure.subplots(), report["models"]
    for k, (name, model) in enumerate(models.items()):
        places = np.arange(len(titles)) + (k - (len(models) - 1) / 2) * 0.2
        axis.bar(places, [model[key] or 0 for key in titles], 0.2, color=MODEL_COLOURS[name], label=name)
        for x, key in zip(places, titles, strict=True):
            axis.text(x, (model[key] or 0) + 0.01, "–" if model[key] is None else f"{100 * model[key]:.0f}", ha="center", fontsize=7)
    axis.set_xticks(range(len(titles)), list(titles.values()))
    axis.legend(fontsize=8, frameon=False, ncols=len(models), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _axis(axis, ylabel="mean IoU", ylim=(0, 1))
    return figure


def protocols(report: Mapping[str, Any]) -> Picture:
    """Novel mIoU of each model under each protocol: the same predictions (but for the best epoch), different rulers."""
    models = {name: model for name, model in report["models"].items() if model["clusters"]}
    rulers = [p for p in PROTOCOLS if any(p in model["protocols"] for model in models.values())]
    figure = blank(0.55 * len(rulers) + 0.8, 7.5)
    axis = figure.subplots()
    for k, (name, model) in enumerate(models.items()):
        values = [(model["protocols"].get(ruler) or {}).get("novel_miou") for ruler in rulers]
        places = np.arange(len(rulers)) + (k - (len(models) - 1) / 2) * 0.27
        axis.barh(places, [v or 0 for v in values], 0.27, color=MODEL_COLOURS[name], label=name)
        for y, value in zip(places, values, strict=True):
            axis.text((value or 0) + 0.005, y, "–" if value is None else f"{100 * value:.1f}", va="center", fontsize=7)
    axis.set_yticks(range(len(rulers)), [PROTOCOLS[ruler] for ruler in rulers])
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _axis(axis, xlabel="novel mIoU", xlim=(0, None))
    return figure


def used_examples(run: Run, count: int = 5) -> list[str]:
    """Images with a pseudo-label for illustration: in turn one of a novel class and one that holds a base object as well."""
    used = used_images(run.folder / "clustering")
    pairs = zip_longest(artefacts.mixed_examples(run, count, used), artefacts.novel_examples(run, count, used))
    return list(dict.fromkeys(i for pair in pairs for i in pair if i))[:count]
