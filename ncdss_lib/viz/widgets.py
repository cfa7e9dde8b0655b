"""What notebooks explore with. Every ``explore_*`` takes a run, or the folder of a finished one.

In a live notebook those that must ask the model or the data are ipywidgets, explicit controls with
``observe``; everywhere else, under papermill, in the book, in a script, they are the self-contained
explorer of the same data. Nothing here ever waits for input.

A widget needs somebody at a front end. A Jupyter front end says with each cell whether it can
answer a question (``allow_stdin``): JupyterLab and VS Code say yes, papermill and nbclient say no.
``NCDSS_STATIC=1`` asks for the page's explorer in any case.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets  # type: ignore[import-untyped]
import numpy as np
from IPython.core.getipython import get_ipython
from PIL import Image

from ncdss_lib.data.image_files import read_image
from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.data.palette import BAD, GOOD, class_look, cluster_look
from ncdss_lib.method.clustering import used_images
from ncdss_lib.method.mean_teacher import hard_pseudo_labels
from ncdss_lib.runs.pipeline import Run, reopen
from ncdss_lib.runs.trained_network import open_checkpoint
from ncdss_lib.system.errors import InputError
from ncdss_lib.viz import examples, explorer_data, figures, results
from ncdss_lib.viz.explorer_data import SALIENT, SIDE, Layers, Picture, salient_look
from ncdss_lib.viz.explorer_html import Explorer, Try
from ncdss_lib.viz.figures import Drawing, Panel, binary, grid, overlay
from ncdss_lib.viz.tables import percent
from toyscenes import CLASSES, FOLDS, render_scene, simulate_saliency

AnyRun = Run | str | Path
Shown = tuple[Drawing, Mapping[str, str]]  # a picture, and the read-out: what -> text


def is_live() -> bool:
    """Whether a person sits at the front end of this kernel."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False)) and not os.environ.get("NCDSS_STATIC")


def live(controls: Mapping[str, ipywidgets.Widget], draw: Callable[..., Shown]) -> ipywidgets.VBox:
    """Controls above a read-out and a picture that follow them.

    Args:
        controls: widgets with a ``value``; the names are their descriptions.
        draw: takes the values in that order.
    """
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    readout = ipywidgets.HTML()

    def follow(_: object = None) -> None:
        drawn, numbers = draw(*(control.value for control in controls.values()))
        rows = (
            f"<tr><td>{html.escape(what)}</td><td><b>{html.escape(text)}</b></td></tr>"
            for what, text in numbers.items()
        )
        picture.value = drawn.png()
        readout.value = f"<table>{''.join(rows)}</table>"

    for name, control in controls.items():
        control.description = name
        control.style.description_width = "10em"
        control.observe(follow, names="value")
    follow()
    return ipywidgets.VBox([*controls.values(), readout, picture])


def _slider(value: float, low: float, high: float) -> ipywidgets.FloatSlider:
    """A slider that reports when it is let go."""
    options = {"step": 0.01, "continuous_update": False, "readout_format": ".2f"}
    return ipywidgets.FloatSlider(value=value, min=low, max=high, **options)


def _opened(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else reopen(run)


# --- 01 data --------------------------------------------------------------------------------------


def explore_labels(run: AnyRun) -> Explorer:
    """Training images: the truth, and the part of it that each training is told."""
    run = _opened(run)
    return Explorer(
        explorer_data.label_layers(run),
        "What is told.",
        "The whole truth of some training images, the part of it that each training is told, and "
        "what is salient.",
        figures.what_is_told(run),
        "Some training images with their ground truth, what is told of it in training, and their "
        "saliency maps.",
        (
            (
                "Look at image 1, a novel image with a base object.",
                "Base training is told of the base object; the novel one counts as background. "
                "Fine-tuning is told nothing.",
                {"picture": 0, "view": "side"},
            ),
            (
                "Look at image 4, a base image.",
                "Both trainings are told all of it: nothing in it is novel.",
                {"picture": 3, "view": "side"},
            ),
            (
                "Lay the salient pixels over the whole truth, and drag the line.",
                "Saliency knows no classes: it marks old and new objects alike, and its borders "
                "are rough.",
                {"view": "line", "left": "the whole truth", "right": "salient pixels"},
            ),
        ),
    )


def explore_scenes(size: int = 224) -> ipywidgets.VBox | Explorer:
    """The generator of toyscenes: a scene of any seed, and the noise of its simulated saliency.

    Some scenes where nobody is there.
    """
    labels = LabelSpace(CLASSES, FOLDS[0])
    look = class_look(labels)

    # for a page
    if not is_live():
        pictures = []
        for seed in range(8):
            scene = render_scene(seed, size)
            salient = np.zeros(scene.mask.shape, np.uint8)
            if scene.saliency is not None:
                salient[scene.saliency] = SALIENT
            maps = {"truth": labels.to_contiguous(scene.mask), "saliency": salient}
            pictures.append(Picture(f"scene {seed}", scene.image, maps))
        drawn = [Panel(p.image) for p in pictures[:4]]
        named = [overlay(p.image, p.maps["truth"], look) for p in pictures[:4]]
        return Explorer(
            Layers(pictures, {"truth": look, "saliency": salient_look()}),
            "Toyscenes.",
            "Scenes that the generator drew from the seeds 0 to 7, with their masks and simulated "
            "saliency maps.",
            grid([drawn, named]),
            "Four drawn scenes, and the same with their objects coloured and named.",
        )

    # live: a scene is drawn whenever a control moves
    def draw(seed: int, miss_main: float, miss_small: float, blob: float, ragged: float) -> Shown:
        scene = render_scene(seed, size)
        found = simulate_saliency(
            scene.mask,
            np.random.default_rng([seed, 1]),
            miss_main=miss_main,
            miss_small=miss_small,
            false_blob=blob,
            ragged=ragged,
        )
        known = scene.mask != IGNORE
        salient = known & (found if found is not None else False)
        object_ = known & (scene.mask > 0)
        iou = results.share_of((object_ & salient).sum(), (object_ | salient).sum())
        truth = overlay(scene.image, labels.to_contiguous(scene.mask), look)
        panels = [Panel(scene.image), truth, binary(scene.image, found)]
        drawn = grid([panels], ["scene", "truth", "simulated saliency"])
        return drawn, {"IoU of saliency and objects": percent(iou)}

    controls = {
        "seed": ipywidgets.BoundedIntText(value=0, min=0, max=10**6),
        "main object missed": _slider(0.09, 0, 1),
        "small object missed": _slider(0.4, 0, 1),
        "false blob": _slider(0.45, 0, 1),
        "ragged border": _slider(0.45, 0, 2),
    }
    return live(controls, draw)


# --- 03 clustering --------------------------------------------------------------------------------


def explore_threshold(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """The threshold of base-class removal; live, on any novel image with the model's answer."""
    run = _opened(run)

    # for a page
    if not is_live():
        data = explorer_data.threshold_data(run)
        return Explorer(
            data,
            "The threshold.",
            "The novel mask is what is salient and not confidently a base class. Move the "
            "threshold: the curve counts the masks of all novel images.",
            figures.threshold_strip(run, [p.id for p in data.pictures[:3]]),
            "Three images with their hidden truth and the novel mask for several thresholds.",
            _threshold_tries(data),
        )

    # live
    look = class_look(run.labels)
    thresholds = explorer_data.threshold_choices(run)

    def draw(image_id: str, threshold: float) -> Shown:
        logits = results.logits_of(run, "base", [image_id])[image_id]
        maps = explorer_data.threshold_maps(run, image_id, logits, thresholds)
        picture = explorer_data.shrunken(run, image_id, None, maps)
        base, mask = explorer_data.threshold_masks(picture, thresholds, threshold)
        panels = [
            binary(picture.image, picture.maps["salient"] > 0),
            overlay(picture.image, base, look),
            binary(picture.image, mask),
            overlay(picture.image, picture.maps["truth"], look),
        ]
        drawn = grid([panels], ["salient", "confidently base", "novel mask M", "truth (hidden)"])
        return drawn, {
            "in the novel mask": percent(mask.mean()),
            "of that, really novel": percent(
                explorer_data.novel_share(picture, mask, run.labels.num_base)
            ),
        }

    ids = [i for i in run.splits.novel if run.data.saliency(i) is not None]
    controls = {
        "image": ipywidgets.Dropdown(options=ids, value=examples.used(run, 1)[0]),
        "threshold": ipywidgets.SelectionSlider(
            options=thresholds,
            value=run.recipe.clustering.base_confidence,
            continuous_update=False,
        ),
    }
    return live(controls, draw)


def _threshold_tries(data: explorer_data.Threshold) -> list[Try]:
    def told(threshold: float) -> str:
        shares = data.shares(threshold)
        return (
            f"{percent(shares['novel'])} of the masks' pixels are really novel, and the masks "
            f"cover {percent(shares['covered'])} of the novel objects"
        )

    def place(threshold: float) -> int:
        return data.thresholds.index(threshold)

    return [
        (
            "Set the threshold to 0: everything that looks like a base class goes.",
            f"At 0, {told(0.0)}. Novel objects that the base model takes for a base class are "
            "lost.",
            {"tau": 0},
        ),
        (
            f"Set it to the published {data.published:g}.",
            f"At {data.published:g}, {told(data.published)}. At this run's {data.chosen:g}: "
            f"{percent(data.shares(data.chosen)['novel'])} and "
            f"{percent(data.shares(data.chosen)['covered'])}.",
            {"tau": place(data.published)},
        ),
        (
            "Set the threshold to 1: nothing is recognised.",
            f"At 1, {told(1.0)}. The mask is the whole saliency map: base objects are in it.",
            {"tau": place(1.0)},
        ),
    ]


def explore_clusters(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """Any number of clusters and their members; live, k-means runs when K is moved."""
    run = _opened(run)
    data = explorer_data.clusters_data(run)

    # for a page
    if not is_live():
        return Explorer(
            data,
            "The clusters.",
            "The members of a cluster, pale outside their novel masks. A solid blue frame: of the "
            "class of most members; a dashed orange one: of another class, or of none.",
            figures.cluster_gallery(run, run.clusters["basic"]),
            "Members of each cluster in rows, with the cluster's number, class and purity.",
            _cluster_tries(data),
        )

    # live: the second slider ends at K
    most = min(3 * run.labels.num_novel, len(data.ids))
    options = {"max": most, "continuous_update": False}
    slider = ipywidgets.IntSlider(value=1, min=1, **options)

    def draw(clusters: int, cluster: int) -> Shown:
        slider.max = clusters
        cluster = min(cluster, clusters)
        about = data.members(clusters, cluster)
        label = about["label"]
        tiles = []
        for row, pixels in data.thumbnails.items():
            if data.assign(clusters)[row] == cluster:
                is_of_most = label and data.main_class[row] == label
                tiles.append(Panel(pixels, edge=GOOD if is_of_most else BAD))
        rows = [tiles[n : n + 12] for n in range(0, len(tiles), 12)]
        return grid(rows or [[None]]), {
            "images": str(about["images"]),
            "class of most": run.labels.names[label] if label else "–",
            f"purity with K = {clusters}": percent(data.purity(clusters)),
        }

    clusters = ipywidgets.IntSlider(value=data.chosen, min=2, **options)
    return live({"clusters K": clusters, "cluster": slider}, draw)


def _cluster_tries(data: explorer_data.Clusters) -> list[Try]:
    most = data.choices[-1]
    sizes = [data.members(data.chosen, k + 1) for k in range(data.chosen)]
    shares = [own["right"] / own["images"] if own["images"] else 1.0 for own in sizes]
    worst = shares.index(min(shares))
    name = data.look.names[sizes[worst]["label"]] if sizes[worst]["label"] else "no novel class"
    at = {k: percent(data.purity(k)) for k in (data.chosen, data.over, most)}
    return [
        (
            f"Look at cluster {worst + 1} of {data.chosen}, the most mixed one.",
            f"{percent(shares[worst])} of its images are of the class of most, {name}: k-means "
            "sees features, not names.",
            {"K": data.choices.index(data.chosen), "cluster": worst + 1},
        ),
        (
            f"Double the number of clusters, to {data.over}.",
            f"Purity goes from {at[data.chosen]} to {at[data.over]}: a class may now have two "
            "clusters.",
            {"K": data.choices.index(data.over)},
        ),
        (
            f"Go to {most} clusters.",
            f"Purity is {at[most]}. It would be 100 % with a cluster for each image, so a high "
            "purity alone says little.",
            {"K": len(data.choices) - 1},
        ),
    ]


def explore_pseudo_labels(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """How a pseudo-label came about; live, for any image."""
    run = _opened(run)

    # for a page
    if not is_live():
        data = explorer_data.pseudo_label_layers(run)
        layers = list(data.looks)  # one or two numbers of clusters, and the truth
        return Explorer(
            data,
            "Pseudo-labels.",
            "The pseudo-labels for K = N and for over-clustering beside the truth. Striped regions "
            "are clusters. First come images where the label is right, last where it fails.",
            figures.pseudo_label_steps(
                run, [p.id for p in data.pictures[:3]], run.clusters["basic"]
            ),
            "Novel images from saliency to pseudo-label, with the hidden ground truth.",
            [
                (
                    "Divide one picture by a line, label against truth, and drag it.",
                    "The region is right where the saliency map is; its border is never exact.",
                    {"view": "line", "left": layers[-2], "right": layers[-1], "picture": 0},
                ),
                (
                    "Go to the last image.",
                    f"It is the one that this run does worst on among those here: "
                    f"{data.pictures[-1].note or 'nobody knows its truth'}.",
                    {"picture": len(data.pictures) - 1, "view": "side"},
                ),
                (
                    "Compare both numbers of clusters.",
                    "The region is the same: only the number of the cluster changes.",
                    {"view": "line", "left": layers[0], "right": layers[-2]},
                ),
            ],
        )

    # live
    choices = sorted({run.clusters["basic"], run.clusters["basic_oc"]})
    tables = {k: results.pseudo_label_table(run, k) for k in choices}

    def draw(image_id: str, clusters: int) -> Shown:
        row = tables[clusters].loc[[image_id]]
        return figures.pseudo_label_steps(run, [image_id], clusters), {
            "cluster": str(int(row["cluster"].iloc[0])),
            "right pixels": percent(results.right_share(row)),
        }

    ids = used_images(run.folder / "clustering")
    controls = {
        "image": ipywidgets.Dropdown(options=ids, value=examples.used(run, 1)[0]),
        "clusters K": ipywidgets.Dropdown(options=choices),
    }
    return live(controls, draw)


# --- 04 and 07 predictions ------------------------------------------------------------------------


def explore_predictions(run: AnyRun, confusions: Mapping[str, np.ndarray]) -> Explorer:
    """Predictions of some models beside the truth, class by class.

    Args:
        confusions: of each model to show, by which its clusters are matched to classes.
    """
    run = _opened(run)
    data = explorer_data.predictions_data(run, confusions)
    return Explorer(
        data,
        "Prediction and truth.",
        "Choose a class to see which of its pixels are right, wrong and missed, with its IoU on "
        "the picture and over all validation images.",
        figures.predictions(run, tuple(confusions), examples.val(run, 3), confusions),
        "Validation images, predictions of the models, and ground truth.",
        _prediction_tries(data, run.labels),
    )


def _prediction_tries(data: explorer_data.Predictions, labels: LabelSpace) -> list[Try]:
    """The class on which the last model is best and worst, and the step from the first model."""
    first, *_, last = (*data.scores, *data.scores)
    per_class = data.scores[last].per_class
    kind, names = "novel", labels.novel_names
    if not data.scores[last].cluster_to_class:  # the base model knows no novel class
        kind, names = "base", labels.base_names
    scored = {name: iou for name in names if (iou := per_class.get(name)) is not None}
    third: Try = (
        f"Change the model to {first}.",
        "Base classes hardly change. What changes is novel.",
        {"model": first, "class": "all"},
    )
    if kind == "base":
        third = (
            "Choose background, and look at novel objects.",
            "Striped orange is what this model calls background and is not: most novel objects "
            "are, and it was never told otherwise. A novel object without orange was taken for a "
            "base class.",
            {"class": 0},
        )
    if not scored:  # nobody knows the truth
        return [third]
    best, worst = max(scored, key=scored.__getitem__), min(scored, key=scored.__getitem__)
    return [
        (
            f"Choose the class {best}.",
            f"It has the highest {kind} IoU of {last}, {percent(scored[best])}: blue pixels are "
            "right, striped orange ones false alarms, yellow ones missed.",
            {"class": labels.names.index(best), "model": last},
        ),
        (
            f"Choose the class {worst}.",
            f"It has the lowest, {percent(scored[worst])}. Step through the images: is it missed, "
            "or taken for another class?",
            {"class": labels.names.index(worst), "model": last},
        ),
        third,
    ]


# --- 05 entropy ranking ---------------------------------------------------------------------------


def explore_entropy(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """The clean share: which images fall on which side, and how right each side is."""
    run = _opened(run)
    data = explorer_data.ranking_data(run, count=8 if is_live() else 40)
    if not is_live():
        return Explorer(
            data,
            "The clean share.",
            "Images in the order of their entropy, surest first: blue frames are clean, dashed "
            "orange ones unclean. Move the clean share; choose an image to see its labels.",
            figures.clean_share_view(run, data.table, data.chosen),
            "Clean and unclean images with their pseudo-novel regions, scores and shares of right "
            "pixels.",
            _ranking_tries(data),
        )

    def draw(share: float) -> Shown:
        found = data.numbers(share)
        return figures.clean_share_view(run, data.table, share), {
            f"{side}: images, right pixels": f"{found[side]}, {percent(found[f'{side}_right'])}"
            for side in ("clean", "unclean")
        }

    return live({"clean share": _slider(data.chosen, 0.05, 0.95)}, draw)


def _ranking_tries(data: explorer_data.Ranking) -> list[Try]:
    def told(share: float) -> str:
        found = data.numbers(share)
        clean, unclean = (percent(found[f"{side}_right"]) for side in ("clean", "unclean"))
        return f"{clean} of the clean pixels are right and {unclean} of the unclean ones"

    return [
        (
            "Set the clean share to 0.10: only the surest images.",
            f"Then {told(0.1)}. What is left to learn from is little.",
            {"share": 0.1},
        ),
        (
            f"Set it to the published {data.published:.2f}.",
            f"Then {told(round(data.published, 2))}. This run's share is {data.chosen:.2f}.",
            {"share": round(data.published, 2)},
        ),
        (
            "Set it to 0.90: nearly everything is called clean.",
            f"Then {told(0.9)}.",
            {"share": 0.9},
        ),
    ]


# --- 06 EUMS --------------------------------------------------------------------------------------


def explore_teacher(run: AnyRun) -> ipywidgets.VBox | Explorer | Drawing:
    """Student and teacher over the epochs.

    Live, the finished teacher on any unclean image, with any confidence threshold. A run that
    watched no image (``eums.watch=0``, as in ``paper``) has only the end to show, as a picture.
    """
    run = _opened(run)
    unclean = results.unclean_images(run)

    # for a page
    if not is_live():
        data = explorer_data.teaching_data(run)
        if not data.epochs:
            return figures.self_training(run, examples.spread(unclean, 4))
        return Explorer(
            data,
            "Student and teacher.",
            "A few unclean images before each epoch and at the end. Move the epoch to see the "
            "student change and the teacher follow; move the confidence to see what is taught: "
            "white pixels are left out. Right and wrong are by the hidden truth.",
            figures.self_training(run, [p.id for p in data.pictures[:3]]),
            "Unclean images: weak view, strong view, discarded pseudo-label, the teacher's labels "
            "and the hidden truth.",
            _teaching_tries(data),
        )

    # live
    clusters = run.clusters["eums"]
    num_base = run.labels.num_base
    teacher = results.load_teacher(run)
    mapping = results.training_classes(run, clusters)
    look = cluster_look(run.labels, clusters)

    def draw(image_id: str, confidence: float) -> Shown:
        image, truth = run.data.image(image_id), run.truth(image_id)
        logits = results.logits_of(run, teacher, [image_id])[image_id]
        labels = hard_pseudo_labels(logits[None], confidence)[0].numpy().astype(np.uint8)
        labels = resize_labels(labels, truth.shape)
        is_taught = labels != IGNORE
        novel = is_taught & (truth > num_base) & (truth != IGNORE)
        is_right = results.to_classes(labels, mapping, num_base) == truth
        panels = [
            Panel(image),
            figures.pseudo_label(run, clusters, image_id),
            overlay(image, labels, look),
            figures.truth(run, image_id),
        ]
        titles = ["image", "discarded pseudo-label", "teacher's labels", "truth (hidden)"]
        right_share = results.share_of((novel & is_right).sum(), novel.sum())
        return grid([panels], titles), {
            "labelled pixels": percent(is_taught.mean()),
            "of the novel ones among them, right": percent(right_share),
        }

    controls = {
        "image": ipywidgets.Dropdown(options=unclean),
        "confidence": _slider(run.recipe.eums.confidence, 0, 0.99),
    }
    return live(controls, draw)


def _teaching_tries(data: explorer_data.Teaching) -> list[Try]:
    """What the curves of these few images show: who is right more often, and when that turns."""
    right = data.right_by_epoch()
    last = len(data.epochs) - 1
    ahead = [e for e in range(last + 1) if right["student"][e] > right["teacher"][e]]
    who = "student" if ahead else "teacher"
    turn = ahead[0] if ahead else last
    when = "at the end" if turn == last else f"before epoch {data.epochs[turn]}"
    told = {
        e: {name: percent(values[e]) for name, values in right.items()} for e in (0, turn, last)
    }
    return [
        (
            "Begin before epoch 0.",
            f"Student and teacher are the same network: {told[0]['student']} and "
            f"{told[0]['teacher']} of the novel pixels are right.",
            {"epoch": 0},
        ),
        (
            f"Go to where the {who} is first ahead." if ahead else "Go to the end.",
            f"{when.capitalize()} the student has {told[turn]['student']} right, the teacher "
            f"{told[turn]['teacher']}; at the end {told[last]['student']} and "
            f"{told[last]['teacher']}.",
            {"epoch": turn},
        ),
        (
            "Raise the confidence to 0.90.",
            "Fewer pixels are taught, and a greater share of them is right.",
            {"epoch": last, "confidence": 0.9},
        ),
    ]


# --- the whole pipeline ---------------------------------------------------------------------------


def explore_pipeline(run: AnyRun) -> Explorer:
    """What every stage makes of an image, from saliency to the prediction of EUMS."""
    run = _opened(run)
    data = explorer_data.pipeline_data(run)
    last = len(data.pictures) - 1
    first = data.about[data.pictures[0].id]
    return Explorer(
        data,
        "The whole pipeline.",
        "What each stage makes of one image. Move the threshold of base-class removal, and see "
        "what becomes of the mask and of the pseudo-label.",
        figures.pipeline_steps(data),
        "An image in six steps: image, salient pixels, recognised base classes, novel mask, "
        "pseudo-label, and prediction.",
        [
            (
                "Follow image 1 from frame 1 to frame 7.",
                f"What is salient and not recognised becomes cluster {first['cluster']}; of the "
                f"{data.images} images it is number {first['rank']} in doubt, so it is "
                f"{first['split']}.",
                {"picture": 0, "view": "side", "tau": data.thresholds.index(data.chosen)},
            ),
            (
                "Set the threshold to 1.",
                "Nothing is recognised any more: base objects enter the mask, and get the "
                "cluster's number.",
                {"tau": len(data.thresholds) - 1},
            ),
            (
                f"Go to image {last + 1}.",
                f"The pseudo-label {data.pictures[last].note or 'is not judged'} here. Find the "
                "frame in which it goes wrong, and see whether the prediction repairs it.",
                {"picture": last},
            ),
        ],
    )


# --- 08 your own images ---------------------------------------------------------------------------


def explore_image(run: AnyRun) -> ipywidgets.VBox | Explorer:
    """Segment a picture from your disk with the network of a run.

    Validation images where nobody is there to pick one.
    """
    run = _opened(run)
    trained = open_checkpoint(run.weights("eums"))
    look = trained.look

    # for a page
    if not is_live():
        pictures, panels = [], []
        for i in examples.spread(run.splits.val, 8):
            labels, probability = trained.predict_image(run.data.image(i))
            sure = np.where(probability < 0.5, IGNORE, labels)
            maps = {"labels": labels, "labels surer than 0.5": sure}
            pictures.append(explorer_data.shrunken(run, i, SIDE, maps))
            panels.append(overlay(run.data.image(i), labels, look))
        return Explorer(
            Layers(pictures, dict.fromkeys(("labels", "labels surer than 0.5"), look)),
            "Segmented.",
            "Images that no training has seen, segmented by the network of this run. White: no "
            "label has half of the probability.",
            grid([panels[:4], panels[4:]]),
            "Images with the labels that the network gives them.",
            [
                (
                    "Divide the first image by a line: all labels against the surer ones.",
                    "Most doubt lies along borders and on what the network takes for new.",
                    {"view": "line", "left": "labels", "right": "labels surer than 0.5"},
                )
            ],
        )

    # live
    def draw(uploaded: tuple[Mapping[str, memoryview], ...]) -> Shown:
        image = run.data.image(run.splits.val[0])
        if uploaded:
            try:
                image = _read_upload(uploaded[0]["content"])
            except InputError as error:
                return figures.blank(0.2), {"this file cannot be read as a picture": str(error)}
        labels, probability = trained.predict_image(image)
        panels = [Panel(image), overlay(image, labels, look), Panel(probability, cmap="viridis")]
        shares = np.bincount(labels.ravel(), minlength=256) / labels.size
        greatest = [k for k in np.argsort(-shares)[:6] if shares[k]]
        drawn = grid([panels], ["image", "labels", "probability"])
        return drawn, {look.names[k]: percent(shares[k]) for k in greatest}

    upload = ipywidgets.FileUpload(accept="image/*", multiple=False)
    return live({"a picture": upload}, draw)


def _read_upload(content: memoryview) -> np.ndarray:
    """A picture of at most 1,024 pixels a side, by the rule of all readers; uint8 [H, W, 3]."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "upload"
        file.write_bytes(content)
        try:
            picture = Image.fromarray(read_image(file))
        except InputError as error:
            raise InputError(str(error).replace(str(file), "the picture")) from None
    picture.thumbnail((1024, 1024))
    return np.array(picture)
