"""What notebooks explore with. Every ``explore_*`` function takes a run, or the folder of a finished one.

In a live notebook those that must ask the model or the data are ipywidgets, explicit controls with ``observe``; everywhere else, under
papermill, in the book, in a script, they are the self-contained explorer of the same view model. Nothing here ever waits for input.

A widget needs somebody at a front end. A Jupyter front end says with each cell whether it can answer a question (``allow_stdin``):
JupyterLab and VS Code say yes, papermill and nbclient say no. ``NCDSS_STATIC=1`` asks for the page's explorer in any case.
"""

from __future__ import annotations

import html
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets  # type: ignore[import-untyped]
import numpy as np
from IPython.core.getipython import get_ipython
from PIL import Image, ImageOps

from ncdss_lib.data.label_maps import resize_labels
from ncdss_lib.data.toyscenes import CLASSES, FOLDS, render_scene, simulate_saliency
from ncdss_lib.labels import IGNORE, LabelSpace
from ncdss_lib.metrics import UNMATCHED
from ncdss_lib.models.teacher import hard_pseudo_labels
from ncdss_lib.pipeline import Run, reopen
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.stages.clustering import confident_base, read_pseudo_label, used_images
from ncdss_lib.viz import artefacts, explorers, figures, view_models
from ncdss_lib.viz.explorers import Explorer
from ncdss_lib.viz.figures import Panel, binary, grid, overlay
from ncdss_lib.viz.palette import BAD, GOOD, class_look, cluster_look
from ncdss_lib.viz.show import percent

AnyRun = Run | str | Path
Draw = Callable[..., tuple[figures.Picture, Mapping[str, str]]]


def is_live() -> bool:
    """Whether a person sits at the front end of this kernel."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False)) and not os.environ.get("NCDSS_STATIC")


def live(controls: Mapping[str, ipywidgets.Widget], draw: Draw) -> ipywidgets.VBox:
    """Controls above a read-out and a picture that follow them.

    Args:
        controls: widgets with a ``value``; the names are their descriptions.
        draw: takes the values in that order, returns a picture and the read-out, what -> text.
    """
    picture, readout = ipywidgets.Image(format="png", layout={"max_width": "100%"}), ipywidgets.HTML()
    for name, control in controls.items():
        control.description, control.style.description_width = name, "10em"

    def follow(_: object = None) -> None:
        drawn, numbers = draw(*(control.value for control in controls.values()))
        cells = "".join(f"<tr><td>{html.escape(what)}</td><td><b>{html.escape(text)}</b></td></tr>" for what, text in numbers.items())
        picture.value, readout.value = drawn.png(), f"<table>{cells}</table>"

    for control in controls.values():
        control.observe(follow, names="value")
    follow()
    return ipywidgets.VBox([*controls.values(), readout, picture])


def _slider(value: float, low: float, high: float, step: float = 0.01) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, continuous_update=False, readout_format=".2f")


def _opened(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else reopen(run)


# --- 01 data ----------------------------------------------------------------------------------------------------------------------------


def explore_labels(run: AnyRun) -> Explorer:
    """Training images: the truth, and the part of it that each training is told."""
    run = _opened(run)
    text = (
        "The line divides the picture: choose what is shown on either side of it, and move it. "
        "Compare the whole truth with what base training and fine-tuning are told, and with what is salient."
    )
    still = figures.what_is_told(run)
    alt = "Some training images with their ground truth, what is told of it in training, and their saliency maps."
    return explorers.layers(view_models.told_layers(run), "What is told.", text, still, alt)


def explore_scenes(size: int = 224) -> ipywidgets.VBox | Explorer:
    """The generator of toyscenes: a scene of any seed, and the noise of its simulated saliency; some scenes where nobody is there."""
    labels = LabelSpace(CLASSES, FOLDS[0])
    look = class_look(labels)
    if not is_live():
        scenes = {f"scene {seed}": render_scene(seed, size) for seed in range(8)}
        salient = {name: np.zeros(scene.mask.shape, bool) if scene.saliency is None else scene.saliency for name, scene in scenes.items()}
        pictures = [
            view_models.Picture(
                name, scene.image, {"truth": labels.to_contiguous(scene.mask), "saliency": np.uint8(view_models.SALIENT) * salient[name]}
            )
            for name, scene in scenes.items()
        ]
        rows = [[Panel(p.image) for p in pictures[:4]], [overlay(p.image, p.maps["truth"], look) for p in pictures[:4]]]
        model = view_models.Layers(pictures, {"truth": look, "saliency": view_models.salient_look()})
        text = "Scenes that the generator drew from the seeds 0 to 7, with their masks and simulated saliency maps."
        return explorers.layers(
            model, "Toyscenes.", text, grid(rows), "Four drawn scenes, and the same with their objects coloured and named."
        )

    def draw(seed: int, miss_main: float, miss_small: float, false_blob: float, ragged: float) -> tuple[figures.Picture, dict[str, str]]:
        scene = render_scene(seed, size)
        noise = {"miss_main": miss_main, "miss_small": miss_small, "false_blob": false_blob, "ragged": ragged}
        found = simulate_saliency(scene.mask, np.random.default_rng([seed, 1]), **noise)  # type: ignore[arg-type]
        truth, salient = (scene.mask > 0) & (scene.mask != IGNORE), np.zeros(scene.mask.shape, bool) if found is None else found
        union = (truth | salient)[scene.mask != IGNORE].sum()
        numbers = {"IoU of saliency and objects": percent((truth & salient).sum() / union if union else float("nan"))}
        panels = [Panel(scene.image), overlay(scene.image, labels.to_contiguous(scene.mask), look), binary(scene.image, found)]
        return grid([panels], ["scene", "truth", "simulated saliency"]), numbers

    noise = {"main object missed": _slider(0.09, 0, 1), "small object missed": _slider(0.4, 0, 1)}
    noise |= {"false blob": _slider(0.45, 0, 1), "ragged border": _slider(0.45, 0, 2)}
    return live({"seed": ipywidgets.BoundedIntText(value=0, min=0, max=10**6), **noise}, draw)


# --- 03 clustering ----------------------------------------------------------------------------------------------------------------------


def explore_threshold(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """The threshold of base-class removal; live, on any novel image with the model's own probabilities."""
    run = _opened(run)
    if not is_live():
        text = (
            "Orange is the novel mask: salient, and not confidently base. Move the threshold and watch base objects enter the mask "
            "and novel ones leave it. The last three lines count over all novel images."
        )
        still = figures.threshold_strip(run, figures.used_examples(run, 3))
        alt = "Three images with their hidden truth and the novel mask for several thresholds."
        return explorers.threshold(view_models.threshold_model(run), "The threshold.", text, still, alt)
    ids, look = [i for i in run.splits.novel if run.data.saliency(i) is not None], class_look(run.labels)

    def draw(i: str, threshold: float) -> tuple[figures.Picture, dict[str, str]]:
        image, truth, salient = run.data.image(i), run.truth(i), run.data.saliency(i)
        assert salient is not None
        base = resize_labels(confident_base(artefacts.logits_of(run, "base", [i])[i][None], threshold)[0].numpy(), salient.shape)
        mask = salient & (base == 0)
        known = mask & (truth != IGNORE)
        novel = (known & (truth > run.labels.num_base)).sum() / known.sum() if known.any() else float("nan")
        panels = [binary(image, salient), overlay(image, base, look), binary(image, mask), overlay(image, truth, look)]
        shown = grid([panels], ["salient", "confidently base", "novel mask M", "truth (hidden)"])
        return shown, {"in the novel mask": percent(mask.mean()), "of that, really novel": percent(novel)}

    first = figures.used_examples(run, 1)[0]
    controls = {"image": ipywidgets.Dropdown(options=ids, value=first), "threshold": _slider(run.recipe.clustering.base_confidence, 0, 1)}
    return live(controls, draw)


def explore_clusters(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """Any number of clusters and their members; live, k-means runs when K is moved."""
    run = _opened(run)
    model = view_models.clusters_model(run)
    if not is_live():
        text = (
            "Pick K and a cluster to see its members, pale outside their novel masks. A solid blue frame: of the class of most members; "
            "a dashed orange one: of another, or of none. Watch purity rise with K."
        )
        still = figures.cluster_gallery(run, run.clusters["basic"])
        alt = "Members of each cluster in rows, with the cluster's number, class and purity."
        return explorers.clusters(model, "The clusters.", text, still, alt)
    most = min(3 * run.labels.num_novel, len(model.ids))
    k, cluster = (ipywidgets.IntSlider(value=v, min=low, max=most, continuous_update=False) for v, low in ((model.chosen, 2), (1, 1)))
    cluster.max = k.value

    def draw(clusters: int, chosen: int) -> tuple[figures.Picture, dict[str, str]]:
        cluster.max = clusters
        chosen = min(chosen, clusters)
        of, about = model.assign(clusters), model.members(clusters, chosen)
        tiles = [
            Panel(pixels, edge=GOOD if model.main_class[n] == about["label"] and about["label"] else BAD)
            for n, pixels in model.thumbnails.items()
            if of[n] == chosen
        ]
        rows: list[list[Panel | None]] = [list(tiles[n : n + 12]) for n in range(0, len(tiles), 12)]
        numbers = {"images": str(about["images"]), "class of most": run.labels.names[int(about["label"])] if about["label"] else "–"}
        return grid(rows or [[None]]), {**numbers, f"purity with K = {clusters}": percent(model.purity(clusters))}

    return live({"clusters K": k, "cluster": cluster}, draw)


def explore_pseudo_labels(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """How a pseudo-label came about; live, for any image."""
    run = _opened(run)
    if not is_live():
        text = "Compare the pseudo-labels for K = N and for over-clustering with the truth. Striped regions are clusters."
        still = figures.pseudo_label_steps(run, figures.used_examples(run, 10)[6:], run.clusters["basic"])
        alt = "Further novel images from saliency to pseudo-label, with the hidden ground truth."
        return explorers.layers(view_models.pseudo_label_layers(run), "Pseudo-labels.", text, still, alt)
    tables = {k: artefacts.pseudo_label_table(run, k) for k in sorted({run.clusters["basic"], run.clusters["basic_oc"]})}

    def draw(i: str, k: int) -> tuple[figures.Picture, dict[str, str]]:
        row = tables[k].loc[[i]]
        numbers = {"cluster": str(int(row["cluster"].iloc[0])), "right pixels": percent(artefacts.right_share(row))}
        return figures.pseudo_label_steps(run, [i], k), numbers

    image = ipywidgets.Dropdown(options=used_images(run.folder / "clustering"), value=figures.used_examples(run, 1)[0])
    return live({"image": image, "clusters K": ipywidgets.Dropdown(options=list(tables))}, draw)


# --- 04 and 07 predictions --------------------------------------------------------------------------------------------------------------


def explore_predictions(run: AnyRun, confusions: Mapping[str, np.ndarray]) -> Explorer:
    """Predictions of some models beside the truth, class by class.

    Args:
        confusions: of each model to show, by which its clusters are matched to classes.
    """
    run = _opened(run)
    model = view_models.predictions_model(run, confusions)
    text = (
        "Left of the line a model's prediction, right of it the truth. Choose a class to see which of its pixels are right, "
        "wrong and missed, with its IoU on the picture and over all validation images."
    )
    still = figures.predictions(run, tuple(confusions), artefacts.val_examples(run, 3), confusions)
    return explorers.predictions(
        model, "Prediction and truth.", text, still, "Validation images, predictions of the models, and ground truth."
    )


# --- 05 entropy ranking -----------------------------------------------------------------------------------------------------------------


def explore_entropy(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """The clean share: which images fall on which side, and how right each side is."""
    run = _opened(run)
    model = view_models.ranking_model(run, count=8 if is_live() else 40)
    if not is_live():
        text = (
            "Images in the order of their entropy, surest first. Move the clean share: blue frames are clean, dashed orange ones unclean, "
            "and the numbers say how right the pseudo-labels of each side are. Choose an image to see its labels and its entropy."
        )
        still = figures.clean_share_view(run, model.table, model.chosen)
        alt = "Clean and unclean images with their pseudo-novel regions, scores and shares of right pixels."
        return explorers.ranking(model, "The clean share.", text, still, alt)

    def draw(share: float) -> tuple[figures.Picture, dict[str, str]]:
        found = model.numbers(share)
        text = {f"{side}: images, right pixels": f"{found[side]:.0f}, {percent(found[f'{side}_right'])}" for side in ("clean", "unclean")}
        return figures.clean_share_view(run, model.table, share), text

    return live({"clean share": _slider(model.chosen, 0.05, 0.95)}, draw)


# --- 06 EUMS ----------------------------------------------------------------------------------------------------------------------------


def explore_teacher(run: AnyRun) -> ipywidgets.VBox | Explorer | figures.Picture:
    """Student and teacher over the epochs; live, the finished teacher on any unclean image, with any confidence threshold.

    A run that watched no image (``eums.watch=0``, as in ``paper``) has only the end to show, as a still picture.
    """
    run = _opened(run)
    if not is_live():
        model = view_models.teaching_model(run)
        if not model.epochs:
            splits = artefacts.read_splits(run.folder / "eums")
            return figures.self_training(run, artefacts.thin(splits.index[~splits.iloc[:, -1]].tolist(), 4))
        still = figures.self_training(run, [p.id for p in model.pictures[:3]])
        text = (
            "A few unclean images before each epoch and at the end. Move the epoch to see the student change and the teacher follow; "
            "move the confidence to see what is taught: white pixels are left out. Right and wrong are by the hidden truth."
        )
        alt = "Unclean images: weak view, strong view, discarded pseudo-label, the teacher's labels and the hidden truth."
        return explorers.teaching(model, "Student and teacher.", text, still, alt)
    clusters, first = run.clusters["eums"], 1 + run.labels.num_base
    splits, quality = artefacts.read_splits(run.folder / "eums"), artefacts.pseudo_label_table(run, clusters)
    mapping = np.full(clusters, UNMATCHED, np.int64)
    mapping[quality["cluster"] - 1] = quality["cluster_class"]
    teacher, looks = artefacts.load_teacher(run), (cluster_look(run.labels, clusters), class_look(run.labels))

    def draw(i: str, confidence: float) -> tuple[figures.Picture, dict[str, str]]:
        image, truth, logits = run.data.image(i), run.truth(i), artefacts.logits_of(run, teacher, [i])[i][None]
        taught = resize_labels(hard_pseudo_labels(logits, confidence)[0].numpy().astype(np.uint8), truth.shape)
        novel = (truth >= first) & (truth != IGNORE) & (taught != IGNORE)
        right = (artefacts.to_classes(taught, mapping, run.labels.num_base) == truth)[novel]
        panels = [Panel(image), overlay(image, read_pseudo_label(run.folder / "clustering", clusters, i), looks[0])]
        panels += [overlay(image, taught, looks[0]), overlay(image, truth, looks[1])]
        shown = grid([panels], ["image", "discarded pseudo-label", "teacher's labels", "truth (hidden)"])
        right_share = float(right.mean()) if right.size else float("nan")
        return shown, {"labelled pixels": percent((taught != IGNORE).mean()), "of the novel ones among them, right": percent(right_share)}

    unclean = splits.index[~splits.iloc[:, -1]].tolist()
    return live({"image": ipywidgets.Dropdown(options=unclean), "confidence": _slider(run.recipe.eums.confidence, 0, 0.99)}, draw)


# --- 08 your own images -----------------------------------------------------------------------------------------------------------------


def explore_image(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """Segment a picture from your disk with the network of a run; validation images where nobody is there to pick one."""
    run = _opened(run)
    trained = open_checkpoint(run.weights("eums"))
    look = trained.look

    def segment(image: np.ndarray) -> tuple[figures.Picture, dict[str, str]]:
        labels, probability = trained.predict_image(image)
        shown = grid([[Panel(image), overlay(image, labels, look), Panel(probability, cmap="viridis")]], ["image", "labels", "probability"])
        sizes = np.bincount(labels.ravel(), minlength=256)
        return shown, {look.names[k]: percent(sizes[k] / labels.size) for k in np.argsort(-sizes)[:6] if sizes[k]}

    if not is_live():
        ids = artefacts.thin(run.splits.val, 8)
        pictures, rows = [], []
        for i in ids:
            labels, probability = trained.predict_image(run.data.image(i))
            sure = np.where(probability < 0.5, IGNORE, labels)
            pictures.append(view_models.shrunken(run, i, view_models.SIDE, **{"labels": labels, "labels surer than 0.5": sure}))
            rows.append(overlay(run.data.image(i), labels, look))
        model = view_models.Layers(pictures, {"labels": look, "labels surer than 0.5": look})
        text = "Images that no training has seen, segmented by the network of this run. White: no label has half of the probability."
        return explorers.layers(
            model, "Segmented.", text, grid([rows[:4], rows[4:]]), "Images with the labels that the network gives them."
        )

    upload = ipywidgets.FileUpload(accept="image/*", multiple=False)

    def draw(files: tuple[Mapping[str, memoryview], ...]) -> tuple[figures.Picture, dict[str, str]]:
        if not files:
            return segment(run.data.image(run.splits.val[0]))
        try:
            with Image.open(io.BytesIO(files[0]["content"])) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
        except OSError as error:
            return figures.blank(0.2), {"this file cannot be read as a picture": str(error)}
        upright.thumbnail((1024, 1024))
        return segment(np.array(upright))

    return live({"a picture": upload}, draw)
