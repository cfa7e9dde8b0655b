"""Images and label maps as the network's input: batches and loading processes.

Inputs come from image files (here) or from cached features (``models/cached_features.py``); both
have the same two methods, so the stages do not know which one they use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar
from zlib import crc32

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ncdss_lib.data.augmentation import augment, jitter_colours, resize_image
from ncdss_lib.data.dataset import SegmentationData
from ncdss_lib.recipes import Data
from ncdss_lib.system.distributed import Batches, cores
from ncdss_lib.system.errors import NCDSSError

#: Image id -> contiguous label map, uint8 [H, W]; picklable, for loading processes.
Targets = Callable[[str], np.ndarray]
Item = TypeVar("Item")
Step = dict[str, Sequence[str]]  # source name -> ids of the images of one training step
Key = tuple[int, int, int]  # seed, epoch and step, from which chance is drawn
#: (steps, seed, epoch) -> the batches of each step
LoadEpoch = Callable[[Sequence[Step], int, int], Iterator[Batches]]


@dataclass
class Source:
    """One list of training images.

    Attributes:
        name: seeds the order and the augmentation.
        ids: image ids; dynamic reassignment replaces them between epochs.
        targets: label maps; without, each image gives a weak and a strong view of the same geometry
            instead.
    """

    name: str
    ids: Sequence[str]
    targets: Targets | None
    batch_size: int

    def batches(self, seed: int, epoch: int, steps: int) -> list[list[str]]:
        """The ids of each step: shuffled passes over the list, cut into batches."""
        rng = np.random.default_rng([seed, crc32(self.name.encode()), epoch])
        needed = steps * self.batch_size
        passes = [rng.permutation(len(self.ids)) for _ in range(-(-needed // len(self.ids)))]
        order = np.concatenate(passes)[:needed].reshape(steps, self.batch_size)
        return [[self.ids[i] for i in row] for row in order]


def most_workers() -> int:
    """Loading processes where nothing else is to do for the cores: one each, at most 16."""
    return min(cores(), 16)


class Views(Protocol):
    """What a stage asks of its input."""

    size: int
    #: Channels of cached features by encoder stage; None: inputs are images.
    channels: tuple[int, ...] | None

    def train_loader(self, sources: Sequence[Source]) -> LoadEpoch:
        """What loads the batches of a training, epoch by epoch.

        Of each source ``x`` and ``y`` (uint8 [b, T, T]), or ``weak`` and ``strong``.
        """
        ...

    def clean(
        self, ids: Sequence[str], batch_size: int, size: int | None = None, flip: bool = False
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Batches of ids with their input, not augmented.

        Args:
            size, flip: another size, or mirrored, as the validation images alone can be had.
        """
        ...


class ImageViews:
    """Views of image files: flip, rotation and scaling at original size, then the resize.

    Pixels stay uint8 and channels-last until the network normalises them on its device: a quarter
    of the bytes to hand over from the loading processes, and nothing to transpose.
    """

    channels: tuple[int, ...] | None = None

    def __init__(self, data: SegmentationData, config: Data) -> None:
        self.data, self.config, self.size = data, config, config.size

    def train_loader(self, sources: Sequence[Source]) -> LoadEpoch:
        return _StepLoader(self, sources)

    def clean(
        self, ids: Sequence[str], batch_size: int, size: int | None = None, flip: bool = False
    ) -> Iterator[tuple[list[str], Tensor]]:
        batches = [list(ids[k : k + batch_size]) for k in range(0, len(ids), batch_size)]
        load = partial(self._clean, size or self.size, flip)
        for batch, images in zip(batches, load_batches(load, batches, self.workers), strict=True):
            yield batch, _channels_first(images)

    def _clean(self, size: int, flip: bool, image_id: str) -> np.ndarray:
        image = resize_image(self.data.image(image_id), size)
        return image[:, ::-1] if flip else image

    @property
    def workers(self) -> int:
        """Loading processes: as many as the recipe says, or :func:`most_workers`."""
        return most_workers() if self.config.workers is None else self.config.workers

    def sample(self, source: Source, image_id: str, key: Sequence[int]) -> dict[str, np.ndarray]:
        """One training sample; chance depends on ``key`` and the names of source and image.

        Returns:
            ``x`` uint8 [size, size, 3] and ``y`` uint8 [target_size, target_size]; without targets
            ``weak`` and ``strong``, both as ``x``.
        """
        rng = np.random.default_rng([*key, crc32(f"{source.name}/{image_id}".encode())])
        labels = source.targets(image_id) if source.targets else None
        image, target = augment(self.data.image(image_id), labels, self.config, rng)
        if target is not None:
            return {"x": image, "y": target}
        return {
            "weak": image,
            "strong": jitter_colours(image, self.config, seed=int(rng.integers(2**31))),
        }


def _one_thread(worker: int) -> None:
    """Loading processes are many: OpenCV should start no threads in them."""
    cv2.setNumThreads(0)


class _StepLoader:
    """Loads whole steps in processes that live as long as this object.

    One set of them serves all sources and epochs of a training.
    """

    def __init__(self, views: ImageViews, sources: Sequence[Source]) -> None:
        # The loader's sampler: each epoch puts its steps here.
        self._plan: list[tuple[Step, Key]] = []
        self._loader = DataLoader(
            _Steps(views, sources),
            batch_size=None,
            sampler=self._plan,
            num_workers=views.workers,
            worker_init_fn=_one_thread,
            persistent_workers=views.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __call__(self, steps: Sequence[Step], seed: int, epoch: int) -> Iterator[Batches]:
        self._plan[:] = [(step, (seed, epoch, number)) for number, step in enumerate(steps)]
        for batches in _one_line_errors(self._loader):
            yield {
                source: {name: _channels_first(view) for name, view in views.items()}
                for source, views in batches.items()
            }


class _Steps(Dataset):
    """Item: all samples of a step, by the ids of each source and the key of its random numbers."""

    def __init__(self, views: ImageViews, sources: Sequence[Source]) -> None:
        self.views = views
        self.sources = {source.name: source for source in sources}

    def __getitem__(self, item: tuple[Step, Key]) -> dict[str, dict[str, np.ndarray]]:
        step, key = item
        return {
            name: self._stack([self.views.sample(self.sources[name], i, key) for i in ids])
            for name, ids in step.items()
        }

    @staticmethod
    def _stack(samples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _channels_first(batch: Tensor) -> Tensor:
    """Images [b, H, W, 3] as [b, 3, H, W] in the same memory, which is then channels-last.

    Label maps as they are.
    """
    return batch.permute(0, 3, 1, 2) if batch.ndim == 4 else batch


def _one_line_errors(loader: DataLoader) -> Iterator[Any]:
    """The batches of a loader.

    The error of a loading process has its traceback as message, whose last line is what it said.
    """
    try:
        yield from loader
    except NCDSSError as error:
        raise type(error)(str(error).rstrip().rpartition(f"{type(error).__name__}: ")[2]) from error


class _Loaded(Dataset):
    """Item: what is loaded of it; a sampler gives items themselves, not their places in a list."""

    def __init__(self, load: Callable[[Any], np.ndarray]) -> None:
        self.load = load

    def __getitem__(self, item: Any) -> np.ndarray:
        return np.ascontiguousarray(self.load(item))  # a flipped one may be a view


def load_batches(
    load: Callable[[Item], np.ndarray], batches: Sequence[list[Item]], workers: int
) -> Iterator[Tensor]:
    """What ``load`` gives of each item, stacked by batch, loaded ahead by ``workers`` processes."""
    loader = DataLoader(
        _Loaded(load),
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )
    return _one_line_errors(loader)
