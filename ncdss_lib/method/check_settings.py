"""What the settings of a run ask of its data and of each other, before any training.

What needs no data is in :mod:`ncdss_lib.recipes`, and what the encoder decides in
:func:`ncdss_lib.models.encoders.check_encoder`. What a trained network decides (how many images
keep a novel mask) is checked where it is known, by the same :func:`check_images`.
"""

from __future__ import annotations

import os
from collections import Counter

from ncdss_lib.data.label_space import IGNORE, LabelSpace
from ncdss_lib.method.context import Context
from ncdss_lib.method.training_loop import check_lists, least_batch
from ncdss_lib.recipes import EUMS, Recipe
from ncdss_lib.system.errors import InputError


def check_labels(recipe: Recipe, labels: LabelSpace) -> None:
    """Refuse more labels than a map of 8 bits can hold, in which 255 is ignored.

    No file of the data set is read for that. Raises InputError.
    """
    config = recipe.clustering
    novel = config.num_novel if isinstance(config.num_novel, int) else labels.num_novel
    clusters = max(novel, config.num_clusters or novel * config.over_clustering)
    count = 1 + labels.num_base + clusters
    if count > IGNORE:
        raise InputError(
            f"K = {clusters} clusters: with the background and {labels.num_base} base classes "
            f"that makes {count} labels. Expected at most {IGNORE}, since label maps have 8 bits: "
            "lower clustering.num_clusters or clustering.over_clustering."
        )


def check_settings(run: Context) -> None:
    """Refuse settings with which a stage would fail.

    Raises:
        InputError: epochs are chosen by a score that does not exist; too few images for the
            clusters or batches.
    """
    _check_selection(run)
    check_images(run, possible_images(run))


def _check_selection(run: Context) -> None:
    """Refuse to choose epochs by a score that does not exist."""
    stages = ("base_training", "basic_framework", "eums")
    choosing = [stage for stage in stages if getattr(run.recipe, stage).select == "best_val"]
    presence, novel = run.data.presence(), set(run.labels.novel_ids)
    if choosing and not any(novel.intersection(presence[i]) for i in run.data.val_ids):
        raise InputError(
            f"{', '.join(choosing)}: select=best_val chooses the epoch by the novel classes' IoU, "
            f"but none of the {len(run.data.val_ids)} validation masks of {run.data.name} holds "
            f"one. Set {' and '.join(f'--set {stage}.select=last' for stage in choosing)}."
        )


def possible_images(run: Context) -> Counter[str]:
    """What can become of the novel images at best: before the base model takes pixels away.

    Returns:
        How many are ``used``, without saliency (``no_saliency``), or ``below_min_area``.
    """
    config = run.recipe.clustering
    contents = run.data.contents()
    status: Counter[str] = Counter()
    for image_id in run.splits.novel:
        _, salient, pixels = contents[image_id]
        # at the network's size a map may grow by rounding, at most to the whole image
        area = pixels if config.mask_size == "network" and salient else salient
        large = area > config.min_area_pixels and area / pixels > config.min_area_fraction
        kind = "used" if large else "below_min_area"
        status[kind if salient else "no_saliency"] += 1
    return status


def check_images(
    run: Context, status: Counter[str], regions: int | None = None, num_novel: int | None = None
) -> None:
    """Refuse more clusters than there is to cluster, and lists that cannot fill a batch.

    Args:
        status: how many novel images are ``used``, ``no_saliency`` and ``below_min_area``.
        regions: how many there are to cluster; None before they are known. Then there are as many
            as images where the unit is an image, and nobody knows where it is a part.
        num_novel: N; None before it is estimated.
    """
    used, known = status["used"], run.num_novel if num_novel is None else num_novel
    largest = max(run.clusters_for(known or 1).values())
    if regions is None:
        regions = used if run.recipe.clustering.unit == "image" else max(2, largest)
    if not used or regions < max(2, largest):
        raise InputError(
            f"more clusters than images: K = {largest}, but only {used} of {status.total()} novel "
            f"images are left ({status['no_saliency']} without saliency, "
            f"{status['below_min_area']} below the area limit); two are needed at least. Use more "
            "images, lower clustering.min_area_fraction / min_area_pixels, or "
            "clustering.over_clustering / num_clusters."
        )

    # the lists of each training, epoch by epoch
    recipe, base = run.recipe, len(run.splits.base)
    least = least_batch(run, int(os.environ.get("WORLD_SIZE", "1")))
    base_train = {"base_train": len(run.splits.base_train)}
    check_lists("base", base_train, recipe.base_training, 0, least)
    check_lists("basic", {"base": base, "novel": used}, recipe.basic_framework, 0, least)
    for name, config in _variants(run).items():
        for epoch, (clean, unclean) in enumerate(_splits(run, config, used)):
            lists = {"base": base, "clean": clean, "unclean": unclean}
            if not config.self_training:
                del lists["unclean"]
            check_lists(name, lists, config, epoch, least)


def _variants(run: Context) -> dict[str, EUMS]:
    """The settings of EUMS, and of the rows of the ablation that ask for more."""
    config = run.recipe.eums
    if not run.recipe.ablation.enabled:
        return {"eums": config}
    learns = {"self_training": True, "dynamic_reassignment": False}
    ranks = {"self_training": False, "dynamic_reassignment": True}
    rows = {"er_st": config.model_copy(update=learns), "er_dr": config.model_copy(update=ranks)}
    return {"eums": config, **rows}


def _splits(run: Context, config: EUMS, used: int) -> list[tuple[int, int]]:
    """Clean and unclean images before each epoch, as :func:`split_clean` counts them.

    Where clusters are ranked by themselves their sizes decide, which nobody knows yet: none then.
    """
    ranking = run.recipe.entropy_ranking
    if ranking.per == "cluster" and ranking.enabled:
        return []
    clean = int(used * ranking.clean_share) if ranking.enabled else used
    counts = []
    for epoch in range(config.epochs):
        if config.dynamic_reassignment and epoch in config.reassign_epochs:
            clean = int(clean * config.reassign_share)
        counts.append((clean, used - clean))
    return counts
