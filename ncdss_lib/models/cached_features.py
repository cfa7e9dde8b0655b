"""Dense features of a frozen encoder, computed once for all folds and seeds, as inputs.

One file a view, a row an image, memory-mapped: training touches only the rows of its batch,
whatever the number of images. A row keeps features in eight bits with a scale of its own for each
channel (ours: half the disk of half precision, and what is rounded off is at most 1/510 of the
channel's range in that image), channels last as the networks read it, and a checksum, which is
compared whenever the row is read.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm.auto import tqdm

from ncdss_lib.data.augmentation import jitter_colours, resize_image
from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.data.loading import LoadEpoch, Source, Step, load_batches, most_workers
from ncdss_lib.data.masks import resize_labels
from ncdss_lib.models.encoders import Encoder, weights_stamp
from ncdss_lib.recipes import Data, Model
from ncdss_lib.system.distributed import Batches, Runtime
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import (
    MANIFEST,
    commit_folder,
    disk_errors,
    fingerprint,
    locked_partial_folder,
    manifest,
    read_json,
)


def row_type(height: int, width: int, channels: int) -> np.dtype:
    """A row of a file: features are ``low + step * values``."""
    return np.dtype(
        [
            ("checksum", np.uint32),
            ("low", np.float32, (channels,)),
            ("step", np.float32, (channels,)),
            ("values", np.uint8, (height, width, channels)),
        ]
    )


def to_rows(features: Tensor) -> np.ndarray:
    """Float [B, h, w, C], on any device, as rows of :func:`row_type`, [B]."""
    low, high = features.amin((1, 2)), features.amax((1, 2))
    step = (high - low) / 255
    scaled = (features - low[:, None, None]) / step.clamp(min=1e-12)[:, None, None]
    rows = np.empty(len(features), row_type(*features.shape[1:]))
    rows["low"], rows["step"] = low.cpu().numpy(), step.cpu().numpy()
    rows["values"] = scaled.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    rows["checksum"] = [_checksum(row) for row in rows]
    return rows


def from_rows(rows: Sequence[np.void]) -> Tensor:
    """The inverse of :func:`to_rows`, but for what was rounded off: float16 [B, h, w, C]."""
    features = torch.empty(len(rows), *rows[0]["values"].shape, dtype=torch.float16)
    for image, row in zip(features, rows, strict=True):  # one by one, since one fits a core's cache
        values = row["values"].astype(np.float32)
        values *= row["step"]
        values += row["low"]
        image.copy_(torch.from_numpy(values))
    return features


def _checksum(row: np.void) -> int:
    return crc32(row["values"], crc32(row["step"], crc32(row["low"])))


class FeatureCache:
    """Dense features by view and image id.

    Args:
        folders: finished cache folders of the same encoder, as :func:`build_cache` returns them.

    Attributes:
        channels: channels of each encoder stage; the features are their concatenation.
    """

    def __init__(self, *folders: Path) -> None:
        self._row: dict[str, dict[str, int]] = {}
        self._files: dict[str, np.memmap] = {}
        self._paths: dict[str, Path] = {}
        for folder in folders:
            contents = read_json(folder / MANIFEST)
            self.channels: tuple[int, ...] = tuple(contents["channels"])
            for view, ids in contents["views"].items():
                self._paths[view] = path = folder / f"{view}.npy"
                self._files[view] = _opened(path, len(ids), sum(self.channels))
                self._row[view] = {i: row for row, i in enumerate(ids)}

    def read(self, views: Sequence[str], ids: Sequence[str]) -> torch.Tensor:
        """Features float16 [b, C, h, w] (channels-last memory) of each id in its view.

        Raises:
            InputError: the disk gives other bytes than were written.
        """
        rows = [self._files[view][self._row[view][i]] for view, i in zip(views, ids, strict=True)]
        for view, row in zip(views, rows, strict=True):
            if row["checksum"] != _checksum(row):
                raise _damaged(self._paths[view])
        return from_rows(rows).permute(0, 3, 1, 2)


def _opened(path: Path, rows: int, channels: int) -> np.memmap:
    """The file of a view; its header is read here, its rows when they are asked for."""
    try:
        file = np.load(path, mmap_mode="r")
        height, width, _ = file.dtype["values"].shape
        if (file.dtype, file.shape) != (row_type(height, width, channels), (rows,)):
            raise ValueError("other rows")
    except (OSError, ValueError, LookupError, SyntaxError, EOFError):  # by what is cut or changed
        raise _damaged(path) from None
    return file


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged: it does not hold the features that were written there. Remove it by "
        f"`ncdss cache --clear {path.parent.name}`, and run again: they are made anew."
    )


Item = tuple[str, int, str]  # view, row of its file, image id


def build_cache(
    root: Path,
    key: Any,
    views: Mapping[str, Sequence[str]],
    load: Callable[[str, str], np.ndarray],
    make_encoder: Callable[[], Any],
    runtime: Runtime,
    batch: int,
) -> Path:
    """Run the encoder over all views of all images, unless that was done before.

    The work is shared out over the processes of the run.

    Args:
        root: folder of all caches.
        key: JSON-able; everything that the features depend on.
        views: view name -> image ids.
        load: (view, id) -> uint8 [S, S, 3].
        make_encoder: called only when there is something to compute.

    Returns:
        The finished cache folder. An interrupted extraction goes on where it stopped, also with
        another number of processes.

    Raises:
        RunError: the disk has no room; checked before anything but one image is computed.
    """
    name = fingerprint(key)
    folder = root / name
    with (
        disk_errors("cached features", root),
        locked_partial_folder(folder, name, runtime.from_main) as unfinished,
    ):
        if unfinished:
            encoder = runtime.prepare(make_encoder().eval())
            _extract(
                unfinished,
                [(v, row, i) for v, ids in views.items() for row, i in enumerate(ids)],
                load,
                encoder,
                runtime,
                batch,
            )
            runtime.barrier()
            if runtime.is_main:
                commit_folder(
                    unfinished,
                    folder,
                    {"key": name, "made_from": key, "channels": encoder.channels, "views": views},
                    checked=MANIFEST,  # rows have checksums of their own
                )
            runtime.barrier()
    return folder


@torch.inference_mode()
def _extract(
    folder: Path, items: list[Item], load: Any, encoder: Any, runtime: Runtime, batch: int
) -> None:
    load_item = partial(_load_item, load)
    # A CPU's cores are busy with the encoder.
    workers = most_workers() if runtime.device.type == "cuda" else 0

    def features(images: Tensor) -> np.ndarray:
        """Rows [b] of the files, of images uint8 [b, S, S, 3]."""
        with runtime.autocast():
            found = encoder(runtime.to_device(images.permute(0, 3, 1, 2)))
        return to_rows(found.permute(0, 2, 3, 1).float().contiguous())

    def pending() -> np.ndarray:
        """Positions in ``items`` that are not done yet.

        Each process lists what it does in a file of its own; here they become one.
        """
        lists = list(folder.glob(".done.*"))
        if not lists:
            (image,) = load_batches(load_item, [items[:1]], workers=0)
            _allocate(folder, items, features(image).dtype)
        done = np.zeros(len(items), bool)
        for path in lists:
            data = path.read_bytes()
            done[np.frombuffer(data[: len(data) // 4 * 4], np.uint32)] = (
                True  # a full disk may have cut the last number short
            )
        np.flatnonzero(done).astype(np.uint32).tofile(folder / ".merged")
        (folder / ".merged").replace(folder / ".done.0")
        for path in lists:
            if path.name != ".done.0":
                path.unlink()
        return np.flatnonzero(~done)

    todo = runtime.from_main(pending)
    mine = runtime.shard([todo[start : start + batch] for start in range(0, len(todo), batch)])
    parts = [[items[position] for position in positions] for positions in mine]
    with ExitStack() as stack:
        paths = {view: folder / f"{view}.npy" for view, _, _ in items}
        first = {view: np.load(path, mmap_mode="r").offset for view, path in paths.items()}
        # Written to rather than mapped, and opened for writing alone: on a network file system,
        # processes of several machines may then write to both sides of a row's border. (Mode "wb"
        # without the opener would empty the file.)
        files = {
            view: stack.enter_context(open(path, "wb", opener=_write_only))
            for view, path in paths.items()
        }
        record = stack.enter_context((folder / f".done.{runtime.rank}").open("ab"))
        steps = zip(mine, parts, load_batches(load_item, parts, workers), strict=True)
        for positions, part, images in tqdm(
            steps, desc="features", total=len(mine), unit="batch", disable=not runtime.is_main
        ):
            for (view, row, _), values in zip(part, features(images), strict=True):
                files[view].seek(first[view] + row * values.nbytes)
                files[view].write(values.tobytes())
            for file in files.values():
                file.flush()
            record.write(positions.astype(np.uint32).tobytes())
            record.flush()


def _load_item(load: Callable[[str, str], np.ndarray], item: Item) -> np.ndarray:
    view, _, image_id = item
    return load(view, image_id)


def _allocate(folder: Path, items: list[Item], row: np.dtype) -> None:
    """Create each view's file and claim its blocks: a full disk is then an error at once."""
    for view, rows in Counter(view for view, _, _ in items).items():
        path = folder / f"{view}.npy"
        open_memmap(path, mode="w+", dtype=row, shape=(rows,))
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_only(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))


class FeatureViews:
    """Views from cached features: plain or flipped, and colour-jittered as the strong ones.

    Ours, because a frozen encoder needs to see each view only once: rotation and scaling are left
    out, flips and jitter are drawn from a cached set.
    """

    def __init__(
        self,
        cache: FeatureCache,
        data: SegmentationData,
        config: Data,
        others: Callable[[int], FeatureCache] | None = None,
    ) -> None:
        """With ``others``, what gives the features of validation images of another size, mirrored
        too, when they are first asked for."""
        self.cache, self.config, self.size = cache, config, config.size
        self.channels: tuple[int, ...] | None = cache.channels
        self._others = others
        self._has_val = bool(data.val_ids)

    def train_loader(self, sources: Sequence[Source]) -> LoadEpoch:
        return partial(self._epoch, {source.name: source for source in sources})

    def _epoch(
        self, sources: dict[str, Source], steps: Sequence[Step], seed: int, epoch: int
    ) -> Iterator[Batches]:
        flips = {
            name: np.random.default_rng([seed, epoch, crc32(name.encode()), 1]) for name in sources
        }
        for step in steps:
            yield {
                name: self._batch(
                    sources[name], ids, flips[name].random(len(ids)) < self.config.flip
                )
                for name, ids in step.items()
            }

    def _batch(self, source: Source, ids: Sequence[str], flips: np.ndarray) -> dict[str, Tensor]:
        weak = self._read(ids, flips, ("clean", "flip"))
        if source.targets is None:
            return {"weak": weak, "strong": self._read(ids, flips, ("jitter", "flip_jitter"))}
        targets = [
            self._target(source, i)[:, ::-1] if flip else self._target(source, i)
            for i, flip in zip(ids, flips, strict=True)
        ]
        return {"x": weak, "y": torch.from_numpy(np.stack(targets))}

    def clean(
        self, ids: Sequence[str], batch_size: int, size: int | None = None, flip: bool = False
    ) -> Iterator[tuple[list[str], Tensor]]:
        cache = self.cache
        # Asked of the data, not of ``ids``: all processes make the features together or none does.
        if self._has_val and (flip or size not in (None, self.size)):
            assert self._others, "there are no features of other sizes"
            cache = self._others(size or self.size)
        view = "flip" if flip else "clean"
        for start in range(0, len(ids), batch_size):
            batch = list(ids[start : start + batch_size])
            yield batch, cache.read([view] * len(batch), batch)

    def _read(self, ids: Sequence[str], flips: np.ndarray, views: tuple[str, str]) -> Tensor:
        return self.cache.read([views[int(flip)] for flip in flips], ids)

    def _target(self, source: Source, image_id: str) -> np.ndarray:
        assert source.targets is not None
        return resize_labels(source.targets(image_id), self.config.target_size)


def load_view(data: SegmentationData, config: Data, view: str, image_id: str) -> np.ndarray:
    """The image of a cached view, uint8 [size, size, 3].

    The jitter of an image is drawn from its id, so a cache is reproducible.
    """
    image = resize_image(data.image(image_id), config.size)
    if view.startswith("flip"):
        image = cv2.flip(image, 1)
    return (
        jitter_colours(image, config, crc32(f"{view}/{image_id}".encode()))
        if view.endswith("jitter")
        else image
    )


def feature_folders(
    root: Path,
    data: SegmentationData,
    novel: Sequence[str],
    config: Data,
    model: Model,
    runtime: Runtime,
    batch: int,
) -> tuple[Path, Path]:
    """The caches of a run: what every fold and seed reads, and strong views of one fold's images.

    Args:
        root: folder of all caches.
        novel: ids of the images that may be unclean: no others are seen in a strong view.
    """
    key = feature_cache_key(data, config, model)
    strong_key = key | {"jitter": config.jitter, "novel": fingerprint(novel)}

    def build(key: dict[str, Any], views: dict[str, Sequence[str]]) -> Path:
        load = partial(load_view, data, config)
        return build_cache(root, key, views, load, partial(Encoder, model), runtime, batch)

    before = set(root.glob("[!.]*"))
    made = (
        build(key, {"clean": [*data.train_ids, *data.val_ids], "flip": data.train_ids}),
        build(strong_key, {"jitter": novel, "flip_jitter": novel}),
    )
    if not before.issuperset(made) and runtime.is_main:
        _offer_to_clear(key, before)
    return made


def view_folder(
    root: Path,
    data: SegmentationData,
    config: Data,
    model: Model,
    runtime: Runtime,
    batch: int,
    size: int,
) -> Path:
    """The cache of validation images at a size, as they are and mirrored."""
    resized = config.model_copy(update={"size": size})
    key = feature_cache_key(data, resized, model) | {"views": fingerprint(data.val_ids)}
    views = {"clean": data.val_ids, "flip": data.val_ids}
    load = partial(load_view, data, resized)
    return build_cache(root, key, views, load, partial(Encoder, model), runtime, batch)


def _offer_to_clear(key: dict[str, Any], folders: Iterable[Path]) -> None:
    """Say that there are features of other settings, which nobody may need any more."""
    made_from = [manifest(folder).get("made_from", {}) for folder in folders]
    same = [fingerprint({name: other.get(name) for name in key}) for other in made_from]
    if others := len(same) - same.count(fingerprint(key)):
        line = f"{others} caches hold features of other settings: `ncdss cache` lists and clears."
        tqdm.write(line, file=sys.stderr)


def feature_cache_key(data: SegmentationData, config: Data, model: Model) -> dict[str, Any]:
    """All that cached features of plain and flipped images depend on."""
    return {
        "version": 3,
        "dataset": data.name,
        "data": data.images_fingerprint(),
        "size": config.size,
        "encoder": [
            model.encoder,
            model.weights,
            weights_stamp(model),
            model.output_stride,
            model.stages,
        ],
    }
