"""What a run showed, in sentences: each function takes numbers and gives Markdown.

Words that depend on the outcome (more or less, first or last) are chosen here and tested, so that a
page never says what the run behind it denies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from IPython.display import HTML

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.method.prediction_history import read_snapshots
from ncdss_lib.recipes import load_recipe, sections
from ncdss_lib.runs.report import PROTOCOLS
from ncdss_lib.system.folders import manifest
from ncdss_lib.viz import percent, results, table

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

EVEN = 0.0005  # a twentieth of a point: what is printed as equal is called equal


# --- words ----------------------------------------------------------------------------------------


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, or ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def points(difference: float) -> str:
    """A difference of fractions as points with one decimal, without its sign."""
    return f"{abs(100 * difference):.1f} points"


def compared(difference: float) -> str:
    """``2.0 points above``, ``2.0 points below`` or ``level with``."""
    if abs(difference) < EVEN:
        return "level with"
    return f"{points(difference)} {'above' if difference > 0 else 'below'}"


def number_of(count: int, thing: str) -> str:
    """``1 cluster``, ``2 clusters``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


# --- settings -------------------------------------------------------------------------------------


def settings(run: Run, *fields: str) -> HTML:
    """Settings of the run beside the published ones, and what each means.

    Args:
        fields: ``stage.field``.
    """
    published = load_recipe("paper", dataset=run.data.name)
    rows = {}
    for name in fields:
        stage, field = name.split(".")
        here = getattr(getattr(run.recipe, stage), field)
        there = getattr(getattr(published, stage), field)
        meaning = sections()[stage].model_fields[field].description or ""
        rows[name] = {"this run": _plain(here), "published": _plain(there), "meaning": meaning}
    return table(rows, "setting", right=False)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def run_facts(run: Run, *stages: str) -> HTML:
    """What this run is, and what the stages of the notebook cost.

    Args:
        stages: those that the notebook needs; they are computed by now.
    """
    labels, data = run.labels, run.data
    rows = {
        "data set": f"{data.name}, fold {run.fold}",
        "saliency, masks": f"{data.saliency_note}; {data.masks_note}",
        "base classes": f"{labels.num_base}: {', '.join(labels.base_names)}",
        "novel classes": f"{labels.num_novel}: {', '.join(labels.novel_names)}",
        "recipe, seed": f"{run.recipe.name}, {run.seed}",
    }
    for stage in stages:
        cost = manifest(run.folder / stage)
        memory = cost["peak_memory_bytes"]
        peak = f", {memory / 1e9:.1f} GB of memory at most" if memory else ""
        rows[f"stage {stage}"] = f"computed in {cost['seconds']:.0f} s{peak}"
    return table({name: {"": text} for name, text in rows.items()}, "this run", right=False)


# --- 01 data --------------------------------------------------------------------------------------


def saliency(what_is_salient: Sequence[float], covered: Sequence[float]) -> str:
    """What saliency maps hold and miss, from shares of novel, base and background pixels."""
    novel, base, background = what_is_salient
    return (
        f"**In this run,** {percent(novel)} of the salient pixels belong to a novel class, "
        f"{percent(base)} to a base class and {percent(background)} to neither. The maps cover "
        f"{percent(covered[0])} of all novel pixels; the rest is lost before the method begins."
    )


# --- 02 base training -----------------------------------------------------------------------------


def swallowed(called_base: Mapping[str, tuple[int, int]], threshold: float) -> str:
    """How many novel and base pixels lie above the threshold.

    Args:
        called_base: kind -> (pixels that the base model gives to a base class with more than the
            threshold, all pixels of the kind); kinds are ``novel`` and ``base``.
    """
    lost, novel = called_base["novel"]
    found, base = called_base["base"]
    return (
        f"**In this run,** {percent(lost / max(1, novel))} of the novel pixels are called a base "
        f"class with a probability above τ = {threshold:g}: the next stage loses them. Of the "
        f"base pixels, {percent(found / max(1, base))} lie above τ: the others, where they are "
        "salient, will be taken for novel."
    )


def extremes(per_class: Mapping[str, float | None]) -> str:
    """The class with the highest and the one with the lowest IoU."""
    known = {name: value for name, value in per_class.items() if value is not None}
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return (
        f"highest for *{best}* ({percent(known[best])}), lowest for *{worst}* "
        f"({percent(known[worst])})"
    )


# --- 03 clustering --------------------------------------------------------------------------------


def clusters(rows: pd.DataFrame, names: Sequence[str], novel: Sequence[int], number: int) -> str:
    """Which classes were divided, which have no cluster, and which cluster is the most mixed.

    Args:
        rows: a :func:`ncdss_lib.viz.results.pseudo_label_table`. A cluster has the class of most of
            its images, as in the gallery and in purity.
        names: of all classes by contiguous id.
        novel: contiguous ids of the novel classes.
        number: K.
    """
    owners = rows.groupby("cluster")["most_images"].first()
    count = Counter(owners)
    divided = [f"*{names[c]}* ({count[c]} clusters)" for c in novel if count[c] > 1]
    without = [f"*{names[c]}*" for c in novel if not count[c]]
    text = f"**In this run,** with K = {number}, "
    if divided:
        text += f"{listed(divided)} {'was' if len(divided) == 1 else 'were'} divided"
    else:
        text += "no class was divided"
    if without:
        text += f", and in no cluster most images are of {listed(without)}. "
    else:
        text += ", and every novel class has a cluster of its own. "
    of_most = (rows["main_class"] == rows["most_images"]) & (rows["main_class"] > 0)
    members = of_most.groupby(rows["cluster"]).agg(["mean", "sum", "count"])
    worst = members["mean"].idxmin()
    most, images = members.loc[worst, ["sum", "count"]].astype(int)
    text += f"Cluster {worst} is the most mixed: "
    if not owners[worst]:
        return text + f"under none of its {images} masks is a novel class."
    return text + f"only {most} of its {images} images are of *{names[owners[worst]]}*, its class."


# --- 04 and 07 scores -----------------------------------------------------------------------------


def cause_of_gain(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    novel: Sequence[str],
    models: tuple[str, str],
) -> str:
    """How much one model gained over another in novel mIoU, and which class made most of it.

    Args:
        before, after: IoU by class of both models.
        novel: names of the novel classes.
        models: names of both.
    """
    known = [c for c in novel if before.get(c) is not None and after.get(c) is not None]
    if not known:
        return ""
    change = {c: (after[c] - before[c]) / len(known) for c in known}  # type: ignore[operator]
    total = sum(change.values())
    text = f"**In this run,** {models[1]} is {compared(total)} {models[0]} in novel mIoU. "
    if abs(total) < EVEN:
        return text.strip()
    main = max(known, key=lambda c: np.sign(total) * change[c])
    alone = abs(change[main]) >= abs(total) / 2
    cause = "The main cause is" if alone else "No class makes half of it; most comes from"
    text += (
        f"{cause} *{main}*, whose IoU goes from {percent(before[main])} to "
        f"{percent(after[main])}: {points(change[main])} of the mean of {len(known)} classes."
    )
    against = [c for c in known if change[c] * total < 0 and abs(change[c]) >= EVEN]
    if against:
        verb = "fall" if total > 0 else "rise"
        text += f" {listed([f'*{c}*' for c in against])} {verb}{'s' if len(against) == 1 else ''}."
    return text


def under_other_rulers(gains: Mapping[str, float], models: tuple[str, str]) -> str:
    """Whether a gain keeps its sign under every way of matching.

    Args:
        gains: protocol -> difference of novel mIoU.
        models: names of the one and of the other, which gained.
    """
    published = gains["published"]
    text = f"**In this run,** {models[1]} is {compared(published)} {models[0]} as published. "
    others = {name: gain for name, gain in gains.items() if name != "published"}
    turned = {name: gain for name, gain in others.items() if gain * published < 0}
    if not turned:
        return text + "The sign is the same under every other rule."
    parts = [
        f"{compared(gain)} under *{PROTOCOLS.get(name, name)}*" for name, gain in turned.items()
    ]
    return text + f"The sign turns: it is {listed(parts)}."


def order_of_models(novel: Mapping[str, Mapping[str, float | None]]) -> str:
    """Whether the models come in one order under all protocols.

    Args:
        novel: model -> protocol -> novel mIoU.
    """
    shared = set.intersection(*(set(scores) for scores in novel.values()))
    orders: dict[tuple[str, ...], list[str]] = {}
    for protocol in [p for p in PROTOCOLS if p in shared]:
        scores = {model: found[protocol] or 0.0 for model, found in novel.items()}
        ranked = tuple(sorted(scores, key=scores.__getitem__, reverse=True))
        orders.setdefault(ranked, []).append(PROTOCOLS[protocol])
    if len(orders) == 1:
        (ranked,) = orders
        return f"**In this run,** the order is the same under every protocol: {' > '.join(ranked)}."
    usual = max(orders, key=lambda ranked: len(orders[ranked]))
    total = sum(map(len, orders.values()))
    text = (
        "**In this run,** the order depends on the protocol. It is "
        f"{' > '.join(usual)} under {len(orders.pop(usual))} of {total}. "
    )
    for ranked, names in orders.items():
        text += f"It is {' > '.join(ranked)} under {listed([f'*{name}*' for name in names])}. "
    return text.strip()


def leaks(merged: np.ndarray, names: Sequence[str], first_novel: int) -> str:
    """Where most pixels of novel classes went wrong.

    Args:
        merged: counts of true against predicted classes, from ``merge_clusters``.
        names: of the classes.
        first_novel: 1 + B.
    """
    classes = len(names)
    rows = merged[first_novel:].astype(float)
    total = max(1.0, rows.sum())
    wrong = rows.copy()
    for row in range(len(rows)):
        wrong[row, first_novel + row] = 0
    to_background = wrong[:, 0].sum() / total
    to_base = wrong[:, 1:first_novel].sum() / total
    to_novel = wrong[:, first_novel:].sum() / total
    text = (
        f"**In this run,** of all novel pixels {percent(to_background)} are called background, "
        f"{percent(to_base)} a base class, and {percent(to_novel)} another novel class. "
    )
    shares = wrong[:, :classes] / np.maximum(1, rows.sum(1, keepdims=True))
    row, column = np.unravel_index(shares.argmax(), shares.shape)
    return text + (
        f"The greatest single loss: {percent(shares[row, column])} of *{names[first_novel + row]}* "
        f"is called *{names[column]}*."
    )


# --- 05 entropy ranking ---------------------------------------------------------------------------


def ranking(rows: pd.DataFrame, parts: int = 10) -> str:
    """Whether low entropy meant right labels.

    Args:
        rows: a :func:`ncdss_lib.viz.results.ranking_table`, in ascending entropy.
        parts: into how many equal parts the order is divided.
    """
    pieces = np.array_split(np.arange(len(rows)), min(parts, len(rows)))
    surest, least = (results.right_share(rows.iloc[piece]) for piece in (pieces[0], pieces[-1]))
    clean = results.right_share(rows[rows["split"] == "clean"])
    unclean = results.right_share(rows[rows["split"] == "unclean"])
    verdict = "Low entropy does mean right labels here."
    if not clean > unclean:
        verdict = "Low entropy does not mean right labels here."
    elif not surest > least:
        verdict = "The two parts differ as hoped, but not steadily along the order."
    return (
        f"**In this run,** {percent(surest)} of the pseudo-novel pixels are right in the surest "
        f"part of the order and {percent(least)} in the least sure part; {percent(clean)} in clean "
        f"images and {percent(unclean)} in unclean ones. {verdict}"
    )


def ranked_by_cluster(
    cluster: np.ndarray, together: np.ndarray, apart: np.ndarray, share: float
) -> str:
    """What one ranking of all images does to single clusters.

    Args:
        cluster: of each image.
        together, apart: which images are clean under one ranking, and under one in each cluster.
        share: the clean share.
    """
    shares = pd.Series(together).groupby(np.asarray(cluster)).mean()
    least, most = shares.idxmin(), shares.idxmax()
    moved = int((together != apart).sum())
    return (
        f"**In this run,** one ranking of all images calls {percent(shares[least], 0)} of cluster "
        f"{least} clean and {percent(shares[most], 0)} of cluster {most}, where "
        f"{percent(share, 0)} is the average. A ranking in each cluster would move "
        f"{number_of(moved, 'image')} of {len(cluster)} to the other side."
    )


# --- 06 EUMS --------------------------------------------------------------------------------------


def right_by_epoch(run: Run) -> pd.DataFrame:
    """Share of right pixels of student and teacher on the watched images, a row an epoch.

    Over the truly novel pixels of these unclean images; clusters have the class of most of their
    pixels in the training masks.
    """
    mapping = results.training_classes(run, run.clusters["eums"])
    shares = {}
    for epoch, said in read_snapshots(run.folder / "eums").items():
        size = said["student"].shape[-2:]
        truth = np.stack([resize_labels(run.truth(i), size) for i in said["ids"].tolist()])
        novel = (truth > run.labels.num_base) & (truth != IGNORE)
        shares[epoch] = {
            name: float(
                (results.to_classes(said[name], mapping, run.labels.num_base) == truth)[
                    novel
                ].mean()
            )
            for name in ("student", "teacher")
        }
    return pd.DataFrame.from_dict(shares, orient="index")


def who_is_right_first(shares: pd.DataFrame, images: int) -> str:
    """Whether student or teacher is right first, from :func:`right_by_epoch`."""
    ahead = shares["student"] - shares["teacher"]
    start, end = shares.index[0], shares.index[-1]
    text = (
        f"**In this run,** on {number_of(images, 'watched image')}, the student has "
        f"{percent(shares['student'].iloc[0])} of the novel pixels right before the first epoch "
        f"and {percent(shares['student'].iloc[-1])} at the end; the teacher "
        f"{percent(shares['teacher'].iloc[0])} and {percent(shares['teacher'].iloc[-1])}. "
    )
    later = ahead.loc[ahead.index > start]
    leads = later[later > EVEN]
    trails = later[later < -EVEN]
    if len(leads) and not len(trails):
        text += (
            f"The student is right first: it is ahead from epoch {leads.index[0]} on, by "
            f"{points(leads.max())} at most, and the teacher follows."
        )
    elif len(trails) and not len(leads):
        text += (
            f"The teacher is right first: it is ahead from epoch {trails.index[0]} on, by "
            f"{points(trails.min())} at most."
        )
    elif not len(later) or not len(leads) + len(trails):
        text += "Neither is ahead of the other."
    else:
        final = {True: "the student", False: "the teacher"}[bool(ahead.loc[end] > 0)]
        if abs(ahead.loc[end]) < EVEN:
            final = "neither"
        text += (
            f"They take turns: the student is ahead before {number_of(len(leads), 'epoch')}, the "
            f"teacher before {number_of(len(trails), 'epoch')}, and at the end {final} is."
        )
    return text


def kept_pixels(kept: Sequence[float], confidence: float) -> str:
    """How much the teacher labelled in the first and in the last epoch."""
    if not confidence:
        return "**In this run** the threshold is 0, as published: the teacher labels every pixel."
    return (
        f"**In this run** the teacher is sure enough (at least {confidence:g}; published: 0, every "
        f"pixel) of {percent(kept[0])} of the unclean pixels in the first epoch and of "
        f"{percent(kept[-1])} in the last."
    )


def reassigned(
    clean: Mapping[int, int], right: Mapping[int, float], epochs: int, published: str
) -> str:
    """What dynamic reassignment did.

    Args:
        clean: epoch -> clean images from it on, 0 first.
        right: epoch -> share of right pixels in the pseudo-labels of these.
        epochs: of the training.
        published: the same moment in the published schedule, in words.
    """
    moments = list(clean)
    if len(moments) == 1:
        return "**In this run** no reassignment took place."
    first, last = moments[0], moments[-1]
    change = right[last] - right[first]
    verb = "rises" if change > EVEN else "falls" if change < -EVEN else "stays"
    return (
        f"**In this run,** before epoch {last} of {epochs} (published: {published}), "
        f"{clean[first]} clean images become {clean[last]}. The share of right pixels in the "
        f"labels that stay {verb}: {percent(right[first])} before, {percent(right[last])} after."
    )


def confidence_helps(labelled: float, right: float, right_without: float, confidence: float) -> str:
    """What the teacher's threshold did to the novel pixels of unclean images.

    Args:
        labelled: share of them that is labelled at the threshold.
        right: share of these that is right.
        right_without: share that is right when all are labelled.
    """
    if not confidence:
        return (
            f"**In this run** there is no threshold, as published: {percent(right_without)} of the "
            "novel pixels in unclean images get a right label."
        )
    return (
        f"**In this run,** without a threshold {percent(right_without)} of the labels on novel "
        f"pixels would be right. With {confidence:g} the teacher labels {percent(labelled)} of "
        f"them, and {percent(right)} of those are right: {compared(right - right_without)} the "
        "published way, on fewer pixels."
    )


# --- 08 your own images ---------------------------------------------------------------------------


def used_clusters(pixels: Mapping[str, int], number: int) -> str:
    """Which clusters the predictions hold.

    Args:
        pixels: name in the legend -> pixels in all predictions.
        number: K.
    """
    names = [f"cluster {k}" for k in range(1, number + 1)]
    absent = [name for name in names if not pixels.get(name)]
    if not absent:
        return f"All {number} clusters occur in these pictures."
    return f"Of {number_of(number, 'cluster')}, {listed(absent)} {_occur(absent)} in none of them."


def _occur(names: Sequence[str]) -> str:
    return "occurs" if len(names) == 1 else "occur"
