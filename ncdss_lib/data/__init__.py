"""Data sets with one small interface, their splits, and the views that training and inference take of them."""

from __future__ import annotations

import os
from pathlib import Path

from ncdss_lib.data.base import SegmentationData
from ncdss_lib.errors import InputError, nearest

DATASETS = ("toyscenes", "pascal5i")


def open_dataset(name: str, data_root: str | Path | None = None, cache_dir: Path | None = None) -> SegmentationData:
    """Open a data set by name.

    Args:
        data_root: folder of the data; None takes ``$NCDSS_DATA_ROOT``. Toyscenes needs none.
        cache_dir: where class tables and rendered scenes are kept.

    Raises:
        InputError: unknown name, or the folder is not as the data set expects it.
    """
    if name == "toyscenes":
        from ncdss_lib.data.toyscenes import ToyScenes

        return ToyScenes(cache_dir)
    if name == "pascal5i":
        from ncdss_lib.data.pascal5i import Pascal5i

        return Pascal5i(data_root or os.environ.get("NCDSS_DATA_ROOT"), cache_dir)
    raise InputError(f"unknown data set {name!r} (--dataset): {nearest(name, DATASETS)}")
