"""Matplotlib figures of what the stages did.

Each function returns a figure and computes nothing that a stage should. Label maps are drawn with
nearest interpolation and the fixed colours of :mod:`ncdss_lib.data.palette`. Figures have a white
face of their own, so that they read the same on light and dark pages.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ncdss_lib.data.augmentation import resize_image
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import read_labels, resize_labels
from ncdss_lib.data.palette import (
    BAD,
    GOOD,
    INK,
    NEUTRAL,
    Look,
    class_look,
    cluster_look,
    paint,
    readable_on,
    rgb,
    to_hex,
)
from ncdss_lib.method.base_class_removal import confident_base
from ncdss_lib.method.cluster_matching import match_clusters
from ncdss_lib.method.entropy_ranking import entropy_map
from ncdss_lib.method.mean_teacher import hard_pseudo_labels
from ncdss_lib.models.cached_features import load_view
from ncdss_lib.viz import examples, explorer_data, results
from ncdss_lib.viz.explorer_data import middle_square

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

WIDTH = 6.8  # inches at most: as wide as a page, so that the smallest text is still 10 pixels there
SMALLEST = 7.0  # points
SPLIT_COLOURS = {"clean": GOOD, "unclean": BAD}
ENTROPY_LABEL = "normalised entropy"
LICENCE = "Apache-2.0, a figure of the NCDSS project"


class Drawing(Figure):
    """A figure that notebooks show without pyplot: it is shown once and nothing is kept open.

    As SVG where it is lines and text alone, and else, with a picture or a map in it, as PNG.
    """

    def png(self, dpi: float = 150) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def svg(self) -> str:
        """The same file for the same figure: its licence is in it, and neither date nor chance."""
        buffer = io.StringIO()
        about = {"Rights": LICENCE, "Date": None}
        with matplotlib.rc_context({"svg.hashsalt": "ncdss"}):
            self.savefig(buffer, format="svg", metadata=about)
        return buffer.getvalue()

    def is_line_art(self) -> bool:
        return not any(axis.images for axis in self.axes)

    def _repr_svg_(self) -> str | None:
        return self.svg() if self.is_line_art() else None

    def _repr_png_(self) -> bytes | None:
        return None if self.is_line_art() else self.png()


def blank(height: float, width: float = WIDTH) -> Drawing:
    """An empty figure in inches, no wider than :data:`WIDTH`."""
    return Drawing(figsize=(min(width, WIDTH), height), layout="constrained", facecolor="white")


# --- grids of images ------------------------------------------------------------------------------


Tag = tuple[float, float, str, np.ndarray]  # x, y, name, colour
TAG_WIDTH, TAG_HEIGHT = 0.037, 0.11  # of a letter and of a line, as shares of a panel of a grid


@dataclass
class Panel:
    """One picture of a grid: RGB, or a map of numbers 0..1 with ``cmap``.

    Attributes:
        tags: (x, y, text, colour) in pixels, small names on regions.
        edge: colour of a frame.
        note: words in the middle.
    """

    pixels: np.ndarray
    title: str = ""
    tags: list[Tag] = field(default_factory=list)
    cmap: str | None = None
    edge: str | None = None
    note: str = ""

    def draw(self, axis: Axes) -> Any:
        """Draw on an axis; returns matplotlib's image."""
        drawn = axis.imshow(self.pixels, cmap=self.cmap, vmin=0, vmax=1, interpolation="nearest")
        axis.set_xlabel(self.title, fontsize=7.5, labelpad=2, color=INK)
        center: dict[str, Any] = {"ha": "center", "va": "center"}
        middle = axis.transAxes
        axis.text(0.5, 0.5, self.note, fontsize=9, color=NEUTRAL, transform=middle, **center)
        for x, y, text, colour in self.tags:
            box = {"boxstyle": "round,pad=0.15", "edgecolor": "white", "linewidth": 0.6}
            box["facecolor"] = to_hex(colour)
            ink = readable_on(colour)
            axis.text(x, y, text, fontsize=SMALLEST, color=ink, bbox=box, clip_on=True, **center)
        if self.edge:
            axis.spines[:].set(visible=True, color=self.edge, linewidth=3)
        return drawn


def grid(
    rows: Sequence[Sequence[Panel | None]],
    columns: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    *,
    legend: Sequence[tuple[str, np.ndarray]] = (),
    colourbar: str | None = None,
    width: float = WIDTH,
) -> Drawing:
    """Panels in rows and columns.

    Args:
        columns, row_titles: their titles.
        legend: names and colours, below.
        colourbar: what the maps show, beside a bar.
    """
    # the height follows from the usual shape of the panels
    panels = [panel for row in rows for panel in row if panel]
    count = max(len(row) for row in rows)
    aspect = np.median([panel.pixels.shape[0] / panel.pixels.shape[1] for panel in panels])
    cell = (width - 0.1 - 0.3 * bool(row_titles) - 0.9 * bool(colourbar)) / count
    title = 0.2 if any(panel.title for panel in panels) else 0.04
    columns = [textwrap.fill(text, max(9, int(17 * cell))) for text in columns]
    top = 0.15 + 0.13 * max((text.count("\n") for text in columns), default=0)
    height = len(rows) * (cell * aspect + title) + top * bool(columns) + 0.4 * bool(legend)
    figure = blank(height + 0.1, width)
    axes = figure.subplots(len(rows), count, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]

    # panels, and their titles at the top and the left
    maps = []
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axes_of_row, row in zip(axes, rows, strict=True):
        for axis, panel in zip(axes_of_row, row, strict=False):
            if panel:
                drawn = panel.draw(axis)
                maps += [drawn] if panel.cmap else []
    for axis, text in zip(axes[0], columns, strict=False):
        axis.set_title(text, fontsize=8, color=INK, pad=3)
    for axis, text in zip(axes[:, 0], row_titles, strict=False):
        axis.set_ylabel(text, fontsize=8, color=INK)

    # what is beside and below
    if legend:
        handles = [
            Patch(facecolor=to_hex(colour), edgecolor=INK, linewidth=0.4, label=name)
            for name, colour in legend
        ]
        across = min(6, len(handles))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=across, fontsize=8, frameon=False
        )
    if colourbar and maps:
        figure.colorbar(maps[-1], ax=axes, label=colourbar, shrink=0.7, aspect=30, pad=0.01)
    return figure


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    look: Look,
    title: str = "",
    *,
    tags: bool = True,
    edge: str | None = None,
) -> Panel:
    """Labels over an image, with the name of each region of at least 1 % of it."""
    height, width = image.shape[:2]
    if labels.shape != (height, width):
        labels = resize_labels(labels, (height, width))
    marks = []
    for label in np.unique(labels) if tags else ():
        rows, columns = np.nonzero(labels == label)
        is_small = len(rows) < 0.01 * labels.size
        if label in (0, IGNORE) or label not in look.names or is_small:
            continue
        # the name stands on the region's pixel nearest to its middle, but not across the border
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        x = float(np.clip(columns[nearest], 0.24 * width, 0.76 * width))
        y = float(np.clip(rows[nearest], 0.06 * height, 0.94 * height))
        marks.append((x, y, look.names[int(label)], look.colours[label]))
    return Panel(paint(image, labels, look), title, apart(marks, width, height), edge=edge)


def apart(marks: Sequence[Tag], width: int, height: int) -> list[Tag]:
    """Names of regions moved up where they would stand on another, in a picture of this size."""
    placed: list[Tag] = []
    for x, y, name, colour in sorted(marks, key=lambda mark: -mark[1]):
        for other_x, other_y, other, _ in placed:
            together = abs(x - other_x) < (len(name) + len(other) + 1) * TAG_WIDTH / 2 * width
            if together and abs(y - other_y) < TAG_HEIGHT * height:
                y = other_y - TAG_HEIGHT * height
        placed.append((x, max(y, 0.06 * height), name, colour))
    return placed


def binary(image: np.ndarray, mask: np.ndarray | None, title: str = "") -> Panel:
    """A mask over the image in vermilion; an empty one where there is none."""
    if mask is None:
        mask = np.zeros(image.shape[:2], bool)
        title = "none"
    look = Look(np.tile(rgb(BAD), (256, 1)), {}, np.zeros(256, bool))
    return overlay(image, mask.astype(np.uint8), look, title, tags=False)


def photo(run: Run, image_id: str) -> Panel:
    """An image as it is."""
    return Panel(run.data.image(image_id))


def truth(run: Run, image_id: str) -> Panel:
    """An image with its ground truth."""
    return overlay(run.data.image(image_id), run.truth(image_id), class_look(run.labels))


def salient(run: Run, image_id: str) -> Panel:
    """An image with its saliency map."""
    return binary(run.data.image(image_id), run.data.saliency(image_id))


def pseudo_label(run: Run, clusters: int, image_id: str) -> Panel:
    """An image with its pseudo-label for one number of clusters."""
    labels = results.pseudo_label(run, clusters, image_id)
    return overlay(run.data.image(image_id), labels, cluster_look(run.labels, clusters))


def thumbnail(panel: Panel) -> Panel:
    """The middle square of a picture, so that rows of a gallery line up."""
    panel.pixels = resize_image(middle_square(panel.pixels), 128)
    return panel


def _saliency_title(run: Run) -> str:
    return "saliency (simulated)" if "simulated" in run.data.saliency_note else "saliency"


# --- the whole pipeline ---------------------------------------------------------------------------


def pipeline_steps(data: explorer_data.Pipeline) -> Drawing:
    """The six frames of the first image: from the image to the prediction of EUMS."""
    picture = data.pictures[0]
    base, mask = explorer_data.threshold_masks(picture, data.thresholds, data.chosen)
    label = np.where(base > 0, base, mask * data.about[picture.id]["label"])
    image = picture.image
    before = [
        Panel(image, "image"),
        binary(image, picture.maps["salient"] > 0, "salient"),
        overlay(image, base, data.look, "recognised"),
    ]
    after = [
        binary(image, mask, "novel mask"),
        overlay(image, label.astype(np.uint8), data.pseudo_look, "pseudo-label"),
        overlay(image, picture.maps["prediction"], data.look, "prediction"),
    ]
    return grid([before, after])


# --- 01 data --------------------------------------------------------------------------------------


def scenes(run: Run, count: int = 5) -> Drawing:
    """Novel images above base images, each with its ground truth painted over it below."""
    rows = []
    for ids in (examples.novel(run, count), examples.base(run, count)):
        rows.append([photo(run, i) for i in ids])
        rows.append([truth(run, i) for i in ids])
    titles = ["novel images", "their truth", "base images", "their truth"]
    return grid(rows, row_titles=titles)


def what_is_told(run: Run) -> Drawing:
    """Which labels the method gets to see.

    Of novel images none later on, but some in base training; of base images all.
    """
    # images of each kind; a leaked one is in base training although it is novel
    leaked = set(run.splits.base_train) & set(run.splits.novel)
    unseen = [i for i in run.splits.novel if i not in leaked]
    kinds = {
        "novel image\nwith a base object": examples.mixed(run, 1, sorted(leaked)),
        "base image": examples.base(run, 1),
        "novel image": examples.novel(run, 1, unseen),
    }

    # what is known of them, and what each training sees
    rows, titles = [], []
    for kind, ids in kinds.items():
        for i in ids:
            image = run.data.image(i)
            told = overlay(image, run.truth(i, hide_novel=True), class_look(run.labels))
            nothing = Panel(np.full_like(image, 245), note="nothing")
            at_first = told if i in run.splits.base_train else nothing
            later = told if kind == "base image" else nothing
            rows.append([photo(run, i), truth(run, i), at_first, later, salient(run, i)])
            titles.append(kind)
    columns = ["image", "whole truth", "told in base training", "told in fine-tuning"]
    return grid(rows, [*columns, _saliency_title(run)], titles)


# --- 02 base training -----------------------------------------------------------------------------


def base_model_on(run: Run, ids: Sequence[str]) -> Drawing:
    """What the base model says: image, truth, most probable class, and its probability."""
    rows = []
    for i, logits in results.stream_logits(run, "base", ids):
        image = run.data.image(i)
        probability, label = (x.numpy() for x in logits.softmax(0).max(0))
        said = overlay(image, label.astype(np.uint8), class_look(run.labels))
        sure = Panel(resize_labels(probability, image.shape[:2]), cmap="viridis")
        rows.append([photo(run, i), truth(run, i), said, sure])
    columns = ["image", "truth", "base model's class", "its probability"]
    return grid(rows, columns, colourbar="probability")


# --- 03 clustering --------------------------------------------------------------------------------


def pseudo_label_steps(run: Run, ids: Sequence[str], clusters: int) -> Drawing:
    """From saliency to pseudo-label, and the truth."""
    folder = run.folder / "clustering"
    quality = examples.pseudo_label_quality(run, clusters)
    kinds = examples.kinds(quality)
    rows, titles = [], []
    for i in ids:
        image = run.data.image(i)
        said = read_labels(folder / "base_pred" / f"{i}.png")
        base = overlay(image, said, class_look(run.labels))
        mask = binary(image, read_labels(folder / "novel_map" / f"{i}.png") > 0)
        result = pseudo_label(run, clusters, i)
        rows.append([photo(run, i), salient(run, i), base, mask, result, truth(run, i)])
        titles.append(f"{kinds[i]}\n{quality[i]:.0%} right" if kinds.get(i) else "")
    steps = ["confidently base", "novel mask M", "pseudo-label", "truth (hidden)"]
    return grid(rows, ["image", _saliency_title(run), *steps], titles)


def threshold_strip(run: Run, ids: Sequence[str]) -> Drawing:
    """The novel mask of some images for several confidence thresholds."""
    thresholds = (0.3, 0.6, 0.9, 0.99)
    rows = []
    for i, logits in results.stream_logits(run, "base", ids):
        image, found = run.data.image(i), run.data.saliency(i)
        row = [truth(run, i)]
        for threshold in thresholds:
            base = confident_base(logits[None], threshold)[0].numpy()
            rest = resize_labels(base, image.shape[:2]) == 0
            row.append(binary(image, None if found is None else found & rest))
        rows.append(row)
    return grid(rows, ["truth (hidden)", *(f"novel mask, τ = {t:g}" for t in thresholds)])


def cluster_gallery(run: Run, clusters: int, per_cluster: int = 7) -> Drawing:
    """Some members of each cluster; framed in vermilion where the class is not the cluster's.

    At the left its number, the class of most of its images, and how many are of it. Where nobody
    knows the truth (images of one's own), the number of members instead, and no frames.
    """
    table = results.pseudo_label_table(run, clusters)
    look = cluster_look(run.labels, clusters)
    is_known = bool(table["pixels"].any())
    is_wrong = is_known & (table["main_class"] != table["most_images"])
    rows, titles = [], []
    for k in range(1, clusters + 1):
        members = table[table["cluster"] == k]
        row: list[Panel | None] = []
        for i in examples.spread(members.index.tolist(), per_cluster):
            pseudo = results.pseudo_label(run, clusters, i)
            only = np.where(pseudo == run.labels.num_base + k, pseudo, 0).astype(np.uint8)
            edge = BAD if is_wrong[i] else "white"
            row.append(thumbnail(overlay(run.data.image(i), only, look, tags=False, edge=edge)))
        rows.append(row + [None] * (per_cluster - len(row)))
        if members.empty:
            titles.append(f"{k}: empty")
        elif is_known:
            name = run.labels.names[members["most_images"].iloc[0]]
            right = (~is_wrong[members.index]).mean()
            titles.append(f"{k}: {name}\n{right:.0%} of {len(members)}")
        else:
            titles.append(f"{k}\nmembers: {len(members)}")
    return grid(rows, row_titles=titles)


# --- 04 basic framework ---------------------------------------------------------------------------


def predictions(
    run: Run,
    names: Sequence[str],
    ids: Sequence[str],
    confusions: Mapping[str, np.ndarray],
    rule: str = "published",
) -> Drawing:
    """Image, prediction of each model with its clusters named by their matched class, truth."""
    look = class_look(run.labels)
    look.names[results.UNMATCHED_LABEL] = "no class"
    look.colours[results.UNMATCHED_LABEL] = 0
    rows = {i: [photo(run, i)] for i in ids}
    for name in names:
        mapping = match_clusters(confusions[name], run.labels, rule)
        for i, logits in results.stream_logits(run, name, ids):
            label = logits.argmax(0).numpy()
            classes = results.to_classes(label, mapping, run.labels.num_base)
            rows[i].append(overlay(run.data.image(i), classes, look))
    for i, row in rows.items():
        row.append(truth(run, i))
    return grid(list(rows.values()), ["image", *names, "truth"])


# --- 05 entropy ranking ---------------------------------------------------------------------------


def entropy_rows(run: Run, ids: Sequence[str]) -> Drawing:
    """Image, pseudo-label, entropy of the network, truth; the pixels that count are outlined."""
    clusters = run.clusters["eums"]
    table = results.ranking_table(run)
    rows, titles, regions = [], [], []
    for i, logits in results.stream_logits(run, "basic_oc", ids):
        labels = results.pseudo_label(run, clusters, i)
        entropy = resize_labels(entropy_map(logits[None])[0].numpy(), labels.shape)
        drawn = Panel(entropy, cmap="magma")
        rows.append([photo(run, i), pseudo_label(run, clusters, i), drawn, truth(run, i)])
        titles.append(f"{table.loc[i, 'split']}\ns = {table.loc[i, 'entropy']:.2f}")
        regions.append((labels > run.labels.num_base) & (labels != IGNORE))
    columns = ["image", "pseudo-label", "entropy map", "truth (hidden)"]
    figure = grid(rows, columns, titles, colourbar=ENTROPY_LABEL)
    for axis, region in zip(figure.axes[2::4], regions, strict=False):
        axis.contour(region, levels=[0.5], colors="white", linewidths=1.2)
    return figure


def clean_share_view(run: Run, table: pd.DataFrame, share: float, count: int = 6) -> Drawing:
    """For one clean share: the surest and the least sure images on either side of the line.

    With the share of right pixels of each image and of each side.
    """
    clusters = run.clusters["eums"]
    look = cluster_look(run.labels, clusters)
    clean = results.clean_rows(table, share, run.recipe.entropy_ranking.per)
    rows, titles = [], []
    for name, side in (("clean", table[clean]), ("unclean", table[~clean])):
        row: list[Panel | None] = []
        for i in examples.spread(side.index.tolist(), count):
            panel = overlay(
                run.data.image(i),
                results.pseudo_label(run, clusters, i),
                look,
                f"s = {table.loc[i, 'entropy']:.2f}{_right(table.loc[[i]], ', right {:.0%}')}",
                tags=False,
                edge=SPLIT_COLOURS[name],
            )
            row.append(thumbnail(panel))
        rows.append(row + [None] * (count - len(row)))
        titles.append(f"{name}: {len(side)} images\n{_right(side, '{:.0%} right')}")
    return grid(rows, row_titles=titles)


def _right(rows: pd.DataFrame, form: str) -> str:
    """The share of right pixels in words; none where nobody knows it."""
    share = results.right_share(rows)
    return "" if np.isnan(share) else form.format(share)


# --- 06 EUMS --------------------------------------------------------------------------------------


def self_training(run: Run, ids: Sequence[str]) -> Drawing:
    """Weak and strong view, the discarded pseudo-label, the teacher's confident labels, truth."""
    clusters = run.clusters["eums"]
    rows = []
    for i, logits in results.stream_logits(run, results.load_teacher(run), ids):
        image = run.data.image(i)
        height, width = image.shape[:2]
        jittered = Image.fromarray(load_view(run.data, run.recipe.data, "jitter", i))
        strong = Panel(np.asarray(jittered.resize((width, height), Image.Resampling.BICUBIC)))
        taught = hard_pseudo_labels(logits[None], run.recipe.eums.confidence)[0].numpy()
        said = overlay(image, taught.astype(np.uint8), cluster_look(run.labels, clusters))
        discarded = pseudo_label(run, clusters, i)
        rows.append([photo(run, i), strong, discarded, said, truth(run, i)])
    labels = ["discarded pseudo-label", "teacher's labels", "truth (hidden)"]
    return grid(rows, ["weak view", "strong view", *labels])
