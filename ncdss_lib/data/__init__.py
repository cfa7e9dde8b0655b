"""Data sets with one small interface, their folds, and the views that networks see of them."""

from __future__ import annotations

import os
from pathlib import Path

from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.recipes import Data
from ncdss_lib.system.errors import InputError, did_you_mean

DATASETS = ("toyscenes", "pascal5i", "coco20i", "folder")


def open_dataset(
    name: str,
    data_root: str | Path | None = None,
    cache_dir: Path | None = None,
    config: Data | None = None,
    *,
    needs_saliency: bool = True,
) -> SegmentationData:
    """Open a data set by name.

    Args:
        data_root: folder of the data; None takes ``$NCDSS_DATA_ROOT``. Toyscenes needs none.
        cache_dir: where class tables and rendered scenes are kept.
        config: the recipe's ``data`` section; None takes the published choices.
        needs_saliency: False opens data without saliency maps too, to evaluate or to make them.

    Raises:
        InputError: unknown name, or the folder is not as the data set expects it.
    """
    config = config or Data()
    root = data_root or os.environ.get("NCDSS_DATA_ROOT")
    if config.num_novel is not None and name in DATASETS and name != "folder":
        raise InputError(
            f"data.num_novel={config.num_novel} is for --dataset folder: {name} knows its novel "
            "classes. Drop the override."
        )
    match name:
        case "toyscenes":
            from ncdss_lib.data.toyscenes import ToyScenes

            return ToyScenes(cache_dir)
        case "pascal5i":
            from ncdss_lib.data.pascal5i import Pascal5i

            masks = config.val_masks
            return Pascal5i(root, cache_dir, val_masks=masks, needs_saliency=needs_saliency)
        case "coco20i":
            from ncdss_lib.data.coco20i import Coco20i

            kind = config.coco_masks
            return Coco20i(root, cache_dir, masks=kind, needs_saliency=needs_saliency)
        case "folder":
            from ncdss_lib.data.own_images import OwnImages

            novel = config.num_novel
            return OwnImages(root, cache_dir, num_novel=novel, needs_saliency=needs_saliency)
    raise InputError(f"unknown data set {name!r} (--dataset): {did_you_mean(name, DATASETS)}")
