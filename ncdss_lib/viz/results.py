"""What the stages of a run left behind, to look at: tables by image, and what networks answer.

Ground truth of unlabelled training images is read here to *look* at what a stage did; no stage
reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.method.cluster_matching import UNMATCHED
from ncdss_lib.method.clustering import images_table, read_pseudo_label, used_images
from ncdss_lib.method.entropy_ranking import read_ranking, split_clean
from ncdss_lib.method.evaluation import pseudo_label_counts
from ncdss_lib.method.inference import load_model, predict
from ncdss_lib.method.training_loop import read_history
from ncdss_lib.models.checkpoints import load_weights
from ncdss_lib.models.segmenter import Segmenter

if TYPE_CHECKING:
    from ncdss_lib.runs.pipeline import Run

UNMATCHED_LABEL = 254  # in pictures only: a pixel of a cluster that no class was given to


# --- networks -------------------------------------------------------------------------------------


def stream_logits(
    run: Run,
    model: nn.Module | str,
    ids: Sequence[str],
    size: int | None = None,
    what: str = "predict",
) -> Iterator[tuple[str, torch.Tensor]]:
    """Logits of images one after another: its id, and float32 [outputs, size, size] on the CPU.

    Args:
        model: a network, or the name of a trained one.
        size: of the logits in pixels; None is that of training.
        what: caption of the progress bar.
    """
    network = load_model(run, model) if isinstance(model, str) else model
    for batch, logits in predict(run, network, ids, size or run.views.size, what):
        yield from zip(batch, logits.cpu(), strict=True)


def logits_of(
    run: Run, model: nn.Module | str, ids: Sequence[str], size: int | None = None
) -> dict[str, torch.Tensor]:
    """:func:`stream_logits` of a few images, by id."""
    return dict(stream_logits(run, model, ids, size))


def load_teacher(run: Run) -> Segmenter:
    """The mean teacher of the EUMS stage, as its last step left it."""
    teacher = run.new_segmenter(run.clusters["eums"], seed=run.seed)
    load_weights(teacher, run.folder / "eums" / "eums_teacher.safetensors")
    return teacher.eval()


def to_classes(prediction: np.ndarray, mapping: np.ndarray, num_base: int) -> np.ndarray:
    """Replace clusters by the classes that a matching gave them.

    Args:
        prediction: integer labels 0..B+K, any shape; 255 stays.
        mapping: int64 [K] from :func:`ncdss_lib.method.cluster_matching.match_clusters`.

    Returns:
        uint8 of the same shape, UNMATCHED_LABEL where a cluster has no class.
    """
    first = 1 + num_base
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[:first] = np.arange(first)
    lookup[first : first + len(mapping)] = np.where(mapping == UNMATCHED, UNMATCHED_LABEL, mapping)
    return lookup[prediction]


def history(run: Run, name: str) -> pd.DataFrame:
    """The training history of ``base``, ``basic``, ``basic_oc`` or ``eums``, a row an epoch."""
    return read_history(run.weights(name, "").parent, name)


# --- images ---------------------------------------------------------------------------------------


def salient_pixels(run: Run, image_id: str) -> np.ndarray:
    """The saliency map of an image, bool [H, W]; False everywhere where there is none."""
    found = run.data.saliency(image_id)
    return np.zeros(run.data.image(image_id).shape[:2], bool) if found is None else found


# --- pseudo-labels --------------------------------------------------------------------------------


def pseudo_label(run: Run, clusters: int, image_id: str) -> np.ndarray:
    """The pseudo-label of a novel image for one number of clusters, uint8 [H, W]."""
    return read_pseudo_label(run.folder / "clustering", clusters, image_id)


def pseudo_label_table(run: Run, clusters: int) -> pd.DataFrame:
    """What each used image's pseudo-label got right, indexed by id.

    Columns: ``cluster`` 1..K; ``cluster_class``, the novel class of most novel pixels in that
    cluster, contiguous id; ``main_class``, the novel class of most pixels under this image's region
    (0: none); ``pixels``; ``right``, pixels whose truth is the cluster's class; ``most_images``,
    the ``main_class`` of most images in that cluster (0: none has one), by which purity goes.
    """
    first = 1 + run.labels.num_base
    used = used_images(run.folder / "clustering")
    images = images_table(run.folder / "clustering").loc[used]

    # pixels of each image by true class and cluster, int [n, classes, K]
    counts = np.stack(
        [
            pseudo_label_counts(run.truth(i), pseudo_label(run, clusters, i), run.labels, clusters)
            for i in used
        ]
    )
    novel_pixels = counts[:, first:].sum(2)
    class_of_cluster = counts.sum(0)[first:].argmax(0) + first

    frame = pd.DataFrame(index=pd.Index(used, name="id"))
    frame["cluster"] = images[f"cluster_{clusters}"].astype(int)
    frame["cluster_class"] = class_of_cluster[frame["cluster"].to_numpy() - 1]
    frame["main_class"] = np.where(novel_pixels.any(1), novel_pixels.argmax(1) + first, 0)
    frame["pixels"] = counts.sum((1, 2))
    frame["right"] = counts[np.arange(len(used)), frame["cluster_class"], frame["cluster"] - 1]
    known = frame[frame["main_class"] > 0]
    most = pd.crosstab(known["cluster"], known["main_class"]).idxmax(axis=1)
    frame["most_images"] = frame["cluster"].map(most).fillna(0).astype(int)
    return frame


def right_share(frame: pd.DataFrame) -> float:
    """Share of right pixels in the pseudo-novel regions of some rows; NaN where there are none."""
    return share_of(frame["right"].sum(), frame["pixels"].sum())


def share_of(part: float, whole: float) -> float:
    """A fraction; NaN where there is nothing to take a share of."""
    return float(part) / float(whole) if whole else float("nan")


def training_classes(run: Run, clusters: int) -> np.ndarray:
    """The class of each cluster by its pixels in the training masks, int64 [K].

    UNMATCHED where the cluster is empty.
    """
    table = pseudo_label_table(run, clusters)
    mapping = np.full(clusters, UNMATCHED, np.int64)
    mapping[table["cluster"] - 1] = table["cluster_class"]
    return mapping


def ranking_table(run: Run) -> pd.DataFrame:
    """:func:`pseudo_label_table` of the over-clustered pseudo-labels, in ascending entropy.

    Two columns more: ``entropy`` and ``split``, clean or unclean.
    """
    ranking = read_ranking(run.folder / "entropy_ranking")
    return ranking[["entropy", "split"]].join(pseudo_label_table(run, run.clusters["eums"]))


def clean_rows(ranking: pd.DataFrame, share: float, per: str) -> np.ndarray:
    """Which images of a ranking are clean for a clean share, bool [n].

    Args:
        per: what is ranked, ``dataset`` or ``cluster``.
    """
    entropy, cluster = ranking["entropy"].to_numpy(), ranking["cluster"].to_numpy()
    return split_clean(entropy, cluster, share, per)  # type: ignore[arg-type]


def read_splits(folder: Path) -> pd.DataFrame:
    """``splits.csv`` of the EUMS stage: whether each image is clean from an epoch on.

    A column for each epoch at which that changed.
    """
    return pd.read_csv(folder / "splits.csv", index_col="id", dtype={"id": str})


def unclean_images(run: Run) -> list[str]:
    """Images whose pseudo-label EUMS had thrown away when it ended."""
    is_clean = read_splits(run.folder / "eums").iloc[:, -1]
    return is_clean.index[~is_clean].tolist()
