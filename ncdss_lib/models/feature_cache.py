"""Dense features of a frozen encoder, computed once for all folds and seeds.

One file a view, ``float16 [N, h, w, C]`` (channels last, as the networks read it), memory-mapped: training touches only the rows of
its batch, whatever the number of images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm.auto import tqdm

from ncdss_lib.runtime import Runtime
from ncdss_lib.system.folders import MANIFEST, commit_folder, disk_errors, fingerprint, locked_partial_folder, read_json


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


Item = tuple[str, int, str]  # view, row of its file, image id


def build_cache(
    root: Path, key: Any, views: dict[str, Sequence[str]], load: Callable[[str, str], np.ndarray], make_encoder: Callable[[], Any],
    runtime: Runtime, batch: int,
) -> Path:  # fmt: skip
    """Run the encoder over all views of all images, shared out over the processes, unless that was done before.

    Args:
        root: folder of all caches.
        key: JSON-able; everything that the features depend on.
        views: view name -> image ids.
        load: (view, id) -> uint8 [S, S, 3].
        make_encoder: called only when there is something to compute.

    Returns:
        The finished cache folder. An interrupted extraction goes on where it stopped, also with another number of processes.

    Raises:
        RunError: the disk has no room; checked before anything but one image is computed.
    """
    name = fingerprint(key)
    folder = root / name
    with disk_errors("cached features", root), locked_partial_folder(folder, name, runtime.from_main) as partial:
        if partial:
            encoder = runtime.prepare(make_encoder().eval())
            _extract(partial, [(v, row, i) for v, ids in views.items() for row, i in enumerate(ids)], load, encoder, runtime, batch)
            runtime.barrier()
            if runtime.is_main:
                commit_folder(partial, folder, {"key": name, "made_from": key, "channels": encoder.channels, "views": views})
            runtime.barrier()
    return folder


@torch.inference_mode()
def _extract(folder: Path, items: list[Item], load: Any, encoder: Any, runtime: Runtime, batch: int) -> None:
    def features(part: list[Item]) -> np.ndarray:
        """float16 [B, h, w, C]"""
        images = np.stack([load(view, i) for view, _, i in part])
        with runtime.autocast():
            found = encoder(runtime.to_device(torch.from_numpy(images).permute(0, 3, 1, 2)))
        return found.permute(0, 2, 3, 1).half().cpu().contiguous().numpy()

    def pending() -> np.ndarray:
        """Positions in ``items`` that are not done yet. Each process lists what it does in a file of its own; here they become one."""
        lists = list(folder.glob(".done.*"))
        if not lists:
            _allocate(folder, items, features(items[:1]).shape[1:])
        done = np.zeros(len(items), bool)
        for path in lists:
            data = path.read_bytes()
            done[np.frombuffer(data[: len(data) // 4 * 4], np.uint32)] = True  # a full disk may have cut the last number short
        np.flatnonzero(done).astype(np.uint32).tofile(folder / ".merged")
        (folder / ".merged").replace(folder / ".done.0")
        for path in lists:
            if path.name != ".done.0":
                path.unlink()
        return np.flatnonzero(~done)

    todo = runtime.from_main(pending)
    mine = runtime.shard([todo[start : start + batch] for start in range(0, len(todo), batch)])
    with ExitStack() as stack:
        paths = {view: folder / f"{view}.npy" for view, _, _ in items}
        first = {view: np.load(path, mmap_mode="r").offset for view, path in paths.items()}
        # Written to rather than mapped, and opened for writing alone: on a network file system, processes of several machines may
        # then write to both sides of a row's border. (Mode "wb" without the opener would empty the file.)
        files = {view: stack.enter_context(open(path, "wb", opener=_write_only)) for view, path in paths.items()}
        record = stack.enter_context((folder / f".done.{runtime.rank}").open("ab"))
        for positions in tqdm(mine, desc="features", unit="batch", disable=not runtime.is_main):
            part = [items[position] for position in positions]
            for (view, row, _), values in zip(part, features(part), strict=True):
                files[view].seek(first[view] + row * values.nbytes)
                files[view].write(values)
            for file in files.values():
                file.flush()
            record.write(positions.astype(np.uint32).tobytes())
            record.flush()


def _allocate(folder: Path, items: list[Item], shape: tuple[int, ...]) -> None:
    """Create each view's file and claim its blocks: a full disk is then an error here, not a crash in the middle."""
    for view, rows in Counter(view for view, _, _ in items).items():
        path = folder / f"{view}.npy"
        open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, *shape))
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_only(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
