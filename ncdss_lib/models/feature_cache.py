"""Dense features of a frozen encoder, computed once for all folds and seeds.

One file a view, ``float16 [N, h, w, C]`` (channels last, as the networks read it), memory-mapped: training touches only the rows of
its batch, whatever the number of images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm.auto import tqdm

from ncdss_lib.runtime import Runtime
from ncdss_lib.store import MANIFEST, commit_folder, disk_errors, fingerprint, manifest, partial_folder, read_json, write_json


class FeatureCache:
    """Dense features by view and image id.

    Args:
        folder: a finished cache folder, as :func:`build_cache` returns it.

    Attributes:
        channels: channels of each encoder stage; the features are their concatenation.
    """

    def __init__(self, folder: Path) -> None:
        contents = read_json(folder / MANIFEST)
        self.channels: tuple[int, ...] = tuple(contents["channels"])
        self._row = {view: {i: row for row, i in enumerate(ids)} for view, ids in contents["views"].items()}
        self._files = {view: np.load(folder / f"{view}.npy", mmap_mode="r") for view in contents["views"]}

    def read(self, views: Sequence[str], ids: Sequence[str]) -> torch.Tensor:
        """Features float16 [B, C, h, w] (channels-last memory) of each id in its view."""
        rows = [self._files[view][self._row[view][i]] for view, i in zip(views, ids, strict=True)]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


def build_cache(
    root: Path, key: Any, views: dict[str, Sequence[str]], load: Callable[[str, str], np.ndarray], make_encoder: Callable[[], Any],
    runtime: Runtime, batch: int,
) -> Path:  # fmt: skip
    """Run the encoder over all views of all images, unless that was done before.

    Args:
        root: folder of all caches.
        key: JSON-able; everything that the features depend on.
        views: view name -> image ids.
        load: (view, id) -> uint8 [S, S, 3].
        make_encoder: called only when there is something to compute.

    Returns:
        The finished cache folder. An interrupted extraction goes on where it stopped.

    Raises:
        RunError: the disk has no room; checked before anything is computed.
    """
    name = fingerprint(key)
    folder = root / name
    if manifest(folder).get("key") == name:
        return folder
    if runtime.is_main:
        encoder = runtime.prepare(make_encoder().eval())
        with disk_errors("cached features", root):
            partial = partial_folder(folder, name)
            for view, ids in views.items():
                _extract(partial, view, list(ids), load, encoder, runtime, batch)
            for progress in partial.glob("*.done"):  # kept until all views are done, so that a finished view is not made again
                progress.unlink()
            commit_folder(partial, folder, {"key": name, "made_from": key, "channels": encoder.channels, "views": views})
    runtime.barrier()
    return folder


@torch.inference_mode()
def _extract(folder: Path, view: str, ids: list[str], load: Any, encoder: Any, runtime: Runtime, batch: int) -> None:
    progress, path = folder / f"{view}.done", folder / f"{view}.npy"
    done = read_json(progress) if progress.is_file() else 0
    array = open_memmap(path, mode="r+") if done else None
    for start in tqdm(range(done, len(ids), batch), desc=f"features: {view}", unit="batch", disable=not runtime.is_main):
        images = np.stack([load(view, i) for i in ids[start : start + batch]])
        with runtime.autocast():
            features = encoder(runtime.to_device(torch.from_numpy(images).permute(0, 3, 1, 2)))
        if array is None:
            channels, height, width = features.shape[1:]
            array = open_memmap(path, mode="w+", dtype=np.float16, shape=(len(ids), height, width, channels))
            with path.open("r+b") as file:  # claim the blocks now: a full disk is then an error here, not a crash in the middle
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        array[start : start + batch] = features.permute(0, 2, 3, 1).half().cpu().numpy()
        write_json(progress, min(start + batch, len(ids)))
