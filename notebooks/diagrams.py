"""Diagrams and tables of numbers for the notebooks; pictures of images are the library's.

Each function computes nothing that a stage should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from sklearn.decomposition import PCA

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.palette import (
    BAD,
    GOOD,
    INK,
    MODEL_COLOURS,
    NEUTRAL,
    class_colour,
    cluster_colour,
    to_hex,
)
from ncdss_lib.method.cluster_matching import (
    UNMATCHED,
    match_clusters,
    merge_clusters,
    pairwise_iou,
)
from ncdss_lib.method.clustering import read_prototypes
from ncdss_lib.method.eums import ramp_up
from ncdss_lib.method.evaluation import purity
from ncdss_lib.method.metrics import Scores, confusion_matrix
from ncdss_lib.runs.report import PROTOCOLS
from ncdss_lib.viz import examples, results, tables
from ncdss_lib.viz.figures import ENTROPY_LABEL, SPLIT_COLOURS, WIDTH, Drawing, blank

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run


# --- diagrams -------------------------------------------------------------------------------------


def _style(axis: Axes, **properties: Any) -> None:
    """Titles, labels and limits of a diagram, and the same sizes everywhere."""
    axis.set(**properties)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.xaxis.label.set_fontsize(9)
    axis.yaxis.label.set_fontsize(9)
    axis.title.set_fontsize(10)


def _legend(axis: Axes, **options: Any) -> None:
    axis.legend(fontsize=8, frameon=False, **options)


def _legend_above(axis: Axes, columns: int) -> None:
    _legend(axis, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _mark(axis: Axes, x: float, text: str, y: float = 1.0) -> None:
    """A dashed line at the setting of the run, with its value; ``y`` is a share of the height."""
    axis.axvline(x, color=INK, linestyle="--", linewidth=1)
    place = axis.get_xaxis_transform()
    axis.text(x, y, f" {text}", fontsize=8, va="top", transform=place)


def _bars(axis: Axes, table: pd.DataFrame, form: str = "", *, lying: bool = False) -> None:
    """Bars in groups, a group for each row and a bar for each model or split, its column.

    Args:
        form: of the number at the end of each bar, in per cent; a dash where there is none.
    """
    colours = {name: {**MODEL_COLOURS, **SPLIT_COLOURS}.get(name, NEUTRAL) for name in table}
    draw = table.plot.barh if lying else table.plot.bar
    draw(ax=axis, width=0.8, rot=0, color=colours, legend=False, xlabel="", ylabel="")
    for bars, name in zip(axis.containers, table, strict=True):
        if name == "unclean":
            for bar in bars:
                bar.set(hatch="//", edgecolor="white")
        if form:
            texts = [form.format(100 * v) if pd.notna(v) else "–" for v in table[name]]
            axis.bar_label(bars, texts, fontsize=7, padding=1)  # type: ignore[arg-type]


def _heat(
    axis: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str,
    vmax: float | None = None,
) -> None:
    """A table of numbers, darker where greater, each written in its cell; zeros are left empty."""
    top = vmax or max(float(np.nanmax(values, initial=0)), 1e-9)
    axis.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(columns)), columns, fontsize=8, **turned)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if values.size > 500:
        return
    for (r, c), value in np.ndenumerate(values):
        if value:
            ink = "white" if value > 0.55 * top else INK
            axis.text(c, r, format(value, form), ha="center", va="center", fontsize=7, color=ink)


# --- tables ---------------------------------------------------------------------------------------


def score_table(scores: Mapping[str, Scores]) -> HTML:
    """Clusters, mean IoU and the rule of matching of some models."""
    rows = {
        name: {
            "K": len(s.cluster_to_class),
            "novel mIoU": tables.percent(s.novel_miou),
            "base mIoU": tables.percent(s.base_miou),
            "background IoU": tables.percent(s.background_iou),
            "mean of all": tables.percent(s.all_miou),
            "matching": s.rule,
        }
        for name, s in scores.items()
    }
    return tables.table(rows, "model")


def quality_table(parts: Mapping[str, pd.DataFrame]) -> HTML:
    """How good the pseudo-labels of some images are.

    Args:
        parts: rows of :func:`ncdss_lib.viz.results.pseudo_label_table`.
    """
    rows = {}
    for name, part in parts.items():
        rows[name] = {
            "images": len(part),
            "right pixels": tables.percent(results.right_share(part)),
            "purity (images)": tables.percent(purity(part["cluster"], part["main_class"])),
        }
    return tables.table(rows, "pseudo-labels")


# --- 01 data --------------------------------------------------------------------------------------


def class_counts(run: Run) -> Drawing:
    """Images of each class: training images with labels, training images without, validation."""
    labels = run.labels
    presence = run.data.presence()
    lists = {
        "base images": run.splits.base,
        "novel images": run.splits.novel,
        "validation": run.splits.val,
    }
    original = [*labels.base_ids, *labels.novel_ids]
    colours = [to_hex(class_colour(c)) for c in original]

    figure = blank(max(2.5, 0.2 * len(labels.names) + 0.6))
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (title, ids) in zip(axes, lists.items(), strict=True):
        counts = [sum(c in presence[i] for i in ids) for c in original]
        axis.barh(labels.names[1:], counts, color=colours, edgecolor=INK, linewidth=0.4)
        axis.axhline(labels.num_base - 0.5, color=INK, linewidth=0.8, linestyle=":")
        _style(axis, title=f"{title} ({len(ids)})", xlabel="images that hold the class")
    axes[0].invert_yaxis()
    axes[0].text(0.5, labels.num_base - 0.4, "novel classes", va="top", fontsize=8)
    return figure


def saliency_shares(run: Run, limit: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """What is under the saliency maps of the novel images, and what of each kind they cover.

    Args:
        limit: images that are read at most, evenly spread.

    Returns:
        For novel, base and background pixels, float [3] each: their share of the salient pixels,
        and the share of them that is salient.
    """
    # pixels by kind (background, base, novel, ignored) and by not salient, salient
    kinds = np.full(256, 3, np.int64)
    kinds[: len(run.labels.names)] = [0] + [1] * run.labels.num_base + [2] * run.labels.num_novel
    counts = np.zeros((4, 2), np.int64)
    for i in examples.spread(run.splits.novel, limit):
        truth = torch.from_numpy(kinds[run.truth(i)])
        salient = torch.from_numpy(results.salient_pixels(run, i).astype(int))
        counts += confusion_matrix(truth, salient, 4, 2).numpy()

    # as shares, novel classes first
    by_kind = counts[[2, 1, 0]]
    return by_kind[:, 1] / max(1, by_kind[:, 1].sum()), by_kind[:, 1] / np.maximum(
        1, by_kind.sum(1)
    )


def saliency_quality(what_is_salient: np.ndarray, covered: np.ndarray) -> Drawing:
    """Two bars from :func:`saliency_shares`."""
    names = ["novel classes", "base classes", "background"]
    colours = [BAD, GOOD, "#bbbbbb"]
    figure = blank(2.2)
    left, right = figure.subplots(1, 2)
    start = 0.0
    for name, share, colour in zip(names, what_is_salient, colours, strict=True):
        text = f"{name} {share:.0%}"
        left.barh(0, share, left=start, color=colour, edgecolor="white", label=text)
        start += share
    _legend(left, loc="upper left", bbox_to_anchor=(0, -0.25))
    _style(left, yticks=[], xlim=(0, 1), title="salient pixels: which class?")
    left.xaxis.set_major_formatter(PercentFormatter(1))
    bars = right.barh(names, covered, color=colours)
    right.bar_label(bars, [f"{share:.0%}" for share in covered], fontsize=8, padding=2)
    right.invert_yaxis()
    _style(right, xlim=(0, 1.1), title="pixels of a class: salient?")
    right.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


# --- training -------------------------------------------------------------------------------------


def curves(
    run: Run,
    names: Sequence[str],
    columns: Sequence[str] = ("loss",),
    titles: Mapping[str, str] | None = None,
) -> Drawing:
    """Recorded losses by epoch, one panel a column.

    A panel more where an epoch was chosen on validation.
    """
    histories = {name: results.history(run, name) for name in names}
    recorded = set().union(*histories.values())
    shown = [c for c in (*columns, "val_miou") if c in recorded]
    titles = {"val_miou": "validation mIoU by which the epoch is chosen", **(titles or {})}
    figure = blank(2.5, min(WIDTH, 3.6 * len(shown) + 1))
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, column in zip(axes, shown, strict=True):
        for name, epochs in histories.items():
            if column in epochs:
                line = {"color": MODEL_COLOURS[name], "marker": "o", "markersize": 3}
                axis.plot(epochs["epoch"], epochs[column], label=name, **line)
        _style(axis, xlabel="epoch", title=titles.get(column, column), ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(histories) > 1:
            _legend(axis)
    return figure


# --- 02 base training -----------------------------------------------------------------------------


@dataclass
class BaseConfidence:
    """Pixels of novel images that the base model gives to a base class, by what they really are.

    Attributes:
        counts: [4, 20], by kind (the right base class, another one, a novel class, background) and
            by probability in twentieths.
        above: [4], those above the threshold.
        everything: [4], all pixels of a base class (twice the same number), of novel classes, and
            of the background, whatever the base model says of them.
    """

    counts: np.ndarray
    above: np.ndarray
    everything: np.ndarray


def base_confidences(run: Run, limit: int = 80) -> BaseConfidence:
    """:class:`BaseConfidence` of some novel images, evenly spread."""
    threshold = run.recipe.clustering.base_confidence
    num_base = run.labels.num_base
    bins = np.linspace(0, 1, 21)
    counts = np.zeros((4, 20))
    sure = np.zeros(4)
    everything = np.zeros(4)
    ids = examples.spread(run.splits.novel, limit)
    for i, logits in results.logits_of(run, "base", ids, run.recipe.data.target_size).items():
        probability, label = (x.numpy() for x in logits.softmax(0).max(0))
        truth = resize_labels(run.truth(i), label.shape)
        kind = np.select([truth == 0, truth > num_base, truth == label], [3, 2, 0], 1)
        for k in range(4):
            chosen = probability[(label > 0) & (kind == k) & (truth != IGNORE)]
            counts[k] += np.histogram(chosen, bins)[0]
            sure[k] += (chosen > threshold).sum()
        novel = (truth > num_base) & (truth != IGNORE)
        base = (truth > 0) & (truth <= num_base)
        everything += [base.sum(), base.sum(), novel.sum(), (truth == 0).sum()]
    return BaseConfidence(counts, sure, everything)


def base_confidence(found: BaseConfidence, threshold: float) -> Drawing:
    """How confident the base model is of its base-class pixels, by what they really are."""
    kinds = {
        "the right base class": GOOD,
        "another base class": "#56b4e9",
        "a novel class": BAD,
        "background": NEUTRAL,
    }
    counts, sure = found.counts, found.above
    bins = np.linspace(0, 1, 21)
    figure = blank(2.8)
    axis = figure.subplots()
    totals = np.maximum(1, counts.sum(1))
    shares = counts.sum(1) / max(1, counts.sum())
    for k, (name, colour) in enumerate(kinds.items()):
        of_them = f"{shares[k]:.0%} of these pixels, {sure[k] / totals[k]:.0%} of them above τ"
        text = f"{name}: {of_them}"
        axis.stairs(counts[k] / totals[k], bins, color=colour, linewidth=2, label=text)
    _mark(axis, threshold, f"τ = {threshold:g}")
    _legend(axis, title="the pixel is really", title_fontsize=8, loc="upper left")
    what = "probability of the predicted base class"
    _style(axis, xlabel=what, ylabel="share of each kind", xlim=(0, 1))
    return figure


def iou_bars(run: Run, scores: Mapping[str, Scores]) -> Drawing:
    """IoU of each class for some models; novel classes right of the dotted line."""
    table = pd.DataFrame({name: s.per_class for name, s in scores.items()}, dtype=float)
    table = table.dropna(how="all")
    first_novel = sum(name not in run.labels.novel_names for name in table.index)
    figure = blank(2.9)
    axis = figure.subplots()
    _bars(axis, table)
    if first_novel < len(table):
        axis.axvline(first_novel - 0.5, color=INK, linestyle=":", linewidth=1)
        axis.text(first_novel - 0.4, 1.0, "novel", fontsize=8, va="top")
    axis.set_xticklabels(table.index, rotation=45, ha="right", rotation_mode="anchor")
    _legend_above(axis, len(scores))
    _style(axis, ylabel="IoU", ylim=(0, 1), xlim=(-0.7, len(table) - 0.3))
    return figure


# --- 03 clustering --------------------------------------------------------------------------------


def prototype_map(run: Run, clusters: int) -> Drawing:
    """The prototypes in their first two principal components.

    Coloured by cluster, and by the class that is really there.
    """
    table = results.pseudo_label_table(run, clusters)
    points = PCA(2).fit_transform(read_prototypes(run.folder / "clustering"))
    original = (0, *run.labels.base_ids, *run.labels.novel_ids)
    figure = blank(4.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    edge = {"edgecolor": INK, "linewidth": 0.3}

    # left: clusters, with their numbers in the middle
    for k in range(1, clusters + 1):
        members = points[table["cluster"] == k]
        colour = to_hex(cluster_colour(k))
        left.scatter(*members.T, s=16, color=colour, **edge)
        if len(members):
            box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour}
            left.text(*members.mean(0), str(k), ha="center", va="center", fontsize=8, bbox=box)

    # right: classes, each with a shape of its own; 0, none, comes last
    classes = sorted(set(table["main_class"]), key=lambda c: c or len(original))
    for n, c in enumerate(classes):
        members = points[table["main_class"] == c]
        look = {"color": to_hex(class_colour(original[c])), "label": run.labels.names[c]}
        if c == 0:
            look = {"color": "#bbbbbb", "label": "no novel class"}
        right.scatter(*members.T, s=20, marker="osD^vPX*<>hpd8"[n % 14], **look, **edge)

    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.04)}
    right.legend(fontsize=7.5, frameon=False, ncols=4, **place)
    _style(left, title=f"k-means with K = {clusters}: cluster numbers", xticks=[], yticks=[])
    _style(right, title="class under the mask (hidden from the method)")
    return figure


def cluster_table(run: Run, choices: Sequence[int]) -> Drawing:
    """Images by cluster and by the class that most of the novel region really is, for some K."""
    classes = [*range(1 + run.labels.num_base, len(run.labels.names)), 0]
    names = [*run.labels.novel_names, "none"]
    figure = blank(0.28 * max(choices) + 1.1)
    axes = figure.subplots(1, len(choices), squeeze=False)[0]
    for axis, clusters in zip(axes, choices, strict=True):
        table = results.pseudo_label_table(run, clusters)
        numbers = range(1, clusters + 1)
        counts = pd.crosstab(table["cluster"], table["main_class"])
        counts = counts.reindex(index=numbers, columns=classes, fill_value=0)
        _heat(axis, counts.to_numpy(float), [f"cluster {k}" for k in numbers], names, ".0f")
        axis.set_title(f"K = {clusters}: images of each class", fontsize=10)
    return figure


# --- 04 basic framework ---------------------------------------------------------------------------


def matching(run: Run, confusions: Mapping[str, np.ndarray], rule: str = "published") -> Drawing:
    """IoU of novel classes and clusters on the pixels that the matching looks at.

    The chosen class of each cluster is framed.
    """
    first = 1 + run.labels.num_base
    widths = [confusion.shape[1] - first for confusion in confusions.values()]
    figure = blank(0.33 * run.labels.num_novel + 1.3)
    axes = figure.subplots(1, len(confusions), squeeze=False, width_ratios=widths)[0]
    for axis, (name, confusion) in zip(axes, confusions.items(), strict=True):
        iou = pairwise_iou(confusion[first:, first:].astype(float))
        numbers = [str(k + 1) for k in range(iou.shape[1])]
        _heat(axis, iou, run.labels.novel_names, numbers, ".2f", vmax=1)
        axis.set_xticks(range(len(numbers)), numbers, rotation=0, ha="center", fontsize=8)
        for cluster, label in enumerate(match_clusters(confusion, run.labels, rule)):
            if label != UNMATCHED and confusion[:, first + cluster].any():
                corner = (cluster - 0.5, label - first - 0.5)
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BAD, linewidth=2.5))
        axis.set_title(f"{name}: K = {iou.shape[1]}", fontsize=10)
        axis.set_xlabel("cluster", fontsize=9)
    return figure


def confusion(run: Run, counts: np.ndarray, rule: str = "published") -> Drawing:
    """Where the pixels of each class went, as shares of its pixels.

    Clusters are merged into their matched classes.
    """
    merged = merge_clusters(counts, match_clusters(counts, run.labels, rule), run.labels)
    columns = [*run.labels.names, "no class"]
    if not merged[:, -1].any():
        merged = merged[:, :-1]
        columns = columns[:-1]
    shares = merged / np.maximum(1, merged.sum(1, keepdims=True))
    shares[shares < 0.005] = 0
    figure = blank(0.2 * len(shares) + 1.3)
    axis = figure.subplots()
    _heat(axis, shares, run.labels.names, columns, ".2f", vmax=1)
    axis.axvline(run.labels.num_base + 0.5, color=BAD, linewidth=1)
    axis.axhline(run.labels.num_base + 0.5, color=BAD, linewidth=1)
    axis.set_xlabel("prediction", fontsize=9)
    axis.set_ylabel("truth", fontsize=9)
    return figure


# --- 05 entropy ranking ---------------------------------------------------------------------------


def ranking_curve(run: Run) -> Drawing:
    """Each image's entropy in ascending order, and how right pseudo-labels are along it."""
    table = results.ranking_table(run)
    parts = np.array_split(np.arange(len(table)), min(10, len(table)))
    shares = [results.right_share(table.iloc[part]) for part in parts]
    figure = blank(2.9)
    left, right = figure.subplots(1, 2)

    ranks = np.arange(1, len(table) + 1)
    for split, colour in SPLIT_COLOURS.items():
        chosen = table["split"] == split
        text = f"{split} ({chosen.sum()})"
        left.scatter(ranks[chosen], table["entropy"][chosen], s=9, color=colour, label=text)
    _legend(left)
    _style(left, xlabel="rank", ylabel=f"s(x), {ENTROPY_LABEL}", title="every image, sorted")

    places = range(1, len(parts) + 1)
    right.bar(places, shares, color="#aaaaaa")
    right.axhline(
        results.right_share(table), color=INK, linestyle="--", linewidth=1, label="all images"
    )
    _legend(right, loc="upper right")
    _style(right, ylim=(0, 1.15), xticks=places, title="how right the pseudo-labels are")
    _style(right, xlabel="part of the ranking, surest first", ylabel="share of right pixels")
    return figure


def split_by_cluster(run: Run) -> Drawing:
    """Clean and unclean images of each cluster, ranked in one list and within each cluster."""
    table = results.ranking_table(run)
    config = run.recipe.entropy_ranking
    numbers = range(1, run.clusters["eums"] + 1)
    rankings = {
        "dataset": "one ranking of all images (published)",
        "cluster": "a ranking in each cluster",
    }
    figure = blank(2.8)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (per, title) in zip(axes, rankings.items(), strict=True):
        clean = results.clean_rows(table, config.clean_share, per)
        kept = table["cluster"][clean].value_counts().reindex(numbers, fill_value=0)
        lost = table["cluster"][~clean].value_counts().reindex(numbers, fill_value=0)
        axis.bar(numbers, kept, color=GOOD, label="clean")
        axis.bar(
            numbers, lost, bottom=kept, color=BAD, label="unclean", hatch="//", edgecolor="white"
        )
        this_run = ", this run" if per == config.per else ""
        _style(axis, xlabel="cluster", title=title + this_run, xticks=numbers)
    axes[0].set_ylabel("images")
    _legend(axes[1])
    return figure


def clean_share_curve(run: Run) -> Drawing:
    """Share of right pixels among clean and among unclean images for every clean share."""
    table = results.ranking_table(run)
    config = run.recipe.entropy_ranking
    shares = np.linspace(0.05, 0.95, 19)
    figure = blank(2.8, 6)
    axis = figure.subplots()
    for split, marker in {"clean": "o", "unclean": "s"}.items():
        sides = [
            results.clean_rows(table, share, config.per) == (split == "clean") for share in shares
        ]
        right = [results.right_share(table[side]) for side in sides]
        colour = SPLIT_COLOURS[split]
        axis.plot(shares, right, color=colour, marker=marker, markersize=4, label=split)
    _mark(axis, config.clean_share, f"{config.clean_share:.2f}", y=0.08)
    _legend(axis)
    _style(axis, xlabel="clean share", ylabel="share of right pixels", ylim=(0, 1), xlim=(0, 1))
    return figure


# --- 06 EUMS --------------------------------------------------------------------------------------


def ramp(run: Run) -> Drawing:
    """The weight of the self-training loss by epoch."""
    config = run.recipe.eums
    epochs = range(config.epochs)
    fine = np.linspace(0, config.epochs, 200)
    figure = blank(2.2, 5)
    axis = figure.subplots()
    weights = [ramp_up(e, config.ramp_up_epochs, config.max_weight) for e in fine]
    axis.plot(fine, weights, color="#bbbbbb")
    weights = [ramp_up(e, config.ramp_up_epochs, config.max_weight) for e in epochs]
    axis.plot(epochs, weights, "o", color=MODEL_COLOURS["eums"], markersize=4)
    for e in set(config.reassign_epochs).intersection(epochs):
        axis.axvline(e, color=BAD, linestyle="--", linewidth=1)
        place = axis.get_xaxis_transform()
        axis.text(e, 0.1, " reassignment", fontsize=8, color=BAD, transform=place)
    _style(axis, xlabel="epoch e", ylabel="w(e)", ylim=(0, None))
    return figure


def reassignment(run: Run) -> Drawing:
    """Images on either side before and after reassignment, and how right their labels are."""
    splits = results.read_splits(run.folder / "eums")
    table = results.pseudo_label_table(run, run.clusters["eums"])
    images, right_shares = {}, {}
    for column in splits:
        name = f"from epoch {column.removeprefix('epoch_')}"
        sides = {"clean": table.loc[splits[column]], "unclean": table.loc[~splits[column]]}
        images[name] = {side: len(rows) for side, rows in sides.items()}
        right_shares[name] = {side: results.right_share(rows) for side, rows in sides.items()}

    figure = blank(2.5, 7)
    left, right = figure.subplots(1, 2)
    _bars(left, pd.DataFrame.from_dict(images, orient="index"))
    _bars(right, pd.DataFrame.from_dict(right_shares, orient="index"), "{:.0f}%")
    _style(left, ylabel="images")
    _style(right, ylabel="share of right pixels", ylim=(0, 1))
    _legend(left)
    return figure


def teacher_pixels(run: Run, limit: int = 80) -> np.ndarray:
    """Truly novel pixels of unclean images that the teacher labels at each threshold, int [2, 50].

    Wrong ones and right ones, for the thresholds 0, 0.02, ... 0.98. Clusters are given the class of
    most pixels in the training masks, as for the pseudo-labels.

    Args:
        limit: images that are read at most, evenly spread.
    """
    num_base = run.labels.num_base
    mapping = results.training_classes(run, run.clusters["eums"])
    teacher = results.load_teacher(run)
    ids = examples.spread(results.unclean_images(run), limit)

    # wrong and right pixels by probability
    edges = np.linspace(0, 1, 51)
    counts = np.zeros((2, 50))
    for i, logits in results.logits_of(run, teacher, ids, run.recipe.data.target_size).items():
        probability, label = (x.numpy() for x in logits.softmax(0).max(0))
        truth = resize_labels(run.truth(i), label.shape)
        novel = (truth > num_base) & (truth != IGNORE)
        right = results.to_classes(label, mapping, num_base) == truth
        counts[0] += np.histogram(probability[novel & ~right], edges)[0]
        counts[1] += np.histogram(probability[novel & right], edges)[0]
    return counts[:, ::-1].cumsum(1)[:, ::-1]


def teacher_shares(above: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """From :func:`teacher_pixels`: labelled at a threshold, right of these, right without it."""
    labelled = above.sum(0)
    place = int(confidence * 50 + 1e-6)
    right = above[1] / np.maximum(1, labelled)
    return float(labelled[place] / max(1, labelled[0])), float(right[place]), float(right[0])


def teacher_confidence(above: np.ndarray, confidence: float) -> Drawing:
    """For every confidence threshold: how much the teacher labels, and how right it is."""
    edges = np.linspace(0, 1, 51)
    labelled = above.sum(0)
    known = labelled > 0.005 * labelled[0]  # a handful of pixels says nothing

    figure = blank(2.6, 6)
    axis = figure.subplots()
    starts = edges[:-1]
    share = labelled / max(1, labelled[0])
    axis.plot(starts, share, color=NEUTRAL, label="novel pixels that get a label")
    right_share = above[1][known] / labelled[known]
    axis.plot(starts[known], right_share, color=GOOD, linestyle="-.", label="of those, right")
    axis.axvline(confidence, color=INK, linestyle="--", linewidth=1)
    _legend(axis, loc="lower left")
    what = "confidence threshold of the teacher's labels"
    _style(axis, xlabel=what, ylabel="share", ylim=(0, 1.02), xlim=(0, 1))
    return figure


# --- 07 results -----------------------------------------------------------------------------------


def score_bars(report: Mapping[str, Any]) -> Drawing:
    """Novel, base, background and all-class mean IoU of every model of a report."""
    titles = {
        "novel_miou": "novel",
        "base_miou": "base",
        "background_iou": "background",
        "all_miou": "all classes",
        "harmonic_mean": "harmonic mean",
    }
    table = pd.DataFrame(report["models"]).loc[list(titles)].astype(float).rename(index=titles)
    figure = blank(2.6)
    axis = figure.subplots()
    _bars(axis, table, "{:.0f}")
    _legend_above(axis, len(table.columns))
    _style(axis, ylabel="mean IoU", ylim=(0, 1))
    return figure


def protocols(report: Mapping[str, Any]) -> Drawing:
    """Novel mIoU of each model under each protocol.

    The same predictions (but for the best epoch), different rulers.
    """
    scores = {
        name: {ruler: found and found["novel_miou"] for ruler, found in model["protocols"].items()}
        for name, model in report["models"].items()
        if model["clusters"]
    }
    table = pd.DataFrame(scores, dtype=float)
    table = table.reindex([ruler for ruler in PROTOCOLS if ruler in table.index])
    figure = blank(0.55 * len(table) + 0.8, 7.5)
    axis = figure.subplots()
    _bars(axis, table.rename(index=PROTOCOLS), "{:.1f}", lying=True)
    axis.invert_yaxis()
    _legend_above(axis, 3)
    _style(axis, xlabel="novel mIoU", xlim=(0, None))
    return figure
