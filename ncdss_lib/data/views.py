"""Views: how images and label maps become the network's input, augmented or not, from files or from cached features.

Both kinds have the same three methods, so the stages do not know which one they use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import ColorJitter, InterpolationMode

from ncdss_lib.data.base import SegmentationData
from ncdss_lib.errors import NCDSSError
from ncdss_lib.models.encoders import weights_stamp
from ncdss_lib.models.feature_cache import FeatureCache
from ncdss_lib.recipes import Data, Model

Targets = Callable[[str], np.ndarray]  # image id -> contiguous label map, uint8 [H, W]; picklable, for loading processes


@dataclass
class Source:
    """One list of training images.

    Attributes:
        name: seeds the order and the augmentation.
        ids: image ids; dynamic reassignment replaces them between epochs.
        targets: label maps; without, each image gives a weak and a strong view of the same geometry instead.
    """

    name: str
    ids: Sequence[str]
    targets: Targets | None
    batch_size: int

    def batches(self, seed: int, epoch: int, steps: int) -> list[list[str]]:
        """The ids of each step: shuffled passes over the list, one after the other, cut into batches."""
        rng = np.random.default_rng([seed, crc32(self.name.encode()), epoch])
        needed = steps * self.batch_size
        passes = [rng.permutation(len(self.ids)) for _ in range(-(-needed // len(self.ids)))]
        order = np.concatenate(passes)[:needed].reshape(steps, self.batch_size)
        return [[self.ids[i] for i in row] for row in order]


class Views(Protocol):
    """What a stage asks of its input."""

    size: int
    channels: tuple[int, ...] | None  # channels of cached features by encoder stage; None: inputs are images

    def train(self, source: Source, batches: Sequence[Sequence[str]], seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        """For each batch of ids: ``x`` and ``y`` (int64 [B, T, T]), or ``weak`` and ``strong`` where the source has no targets."""
        ...

    def clean(self, ids: Sequence[str], batch_size: int) -> Iterator[tuple[list[str], Tensor]]:
        """Batches of ids with their input, not augmented."""
        ...


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Bicubic resize of uint8 [H, W, 3] to [size, size, 3] without anti-aliasing, as OpenCV's cubic (aspect ratio not kept)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    resized = TF.resize(tensor, [size, size], InterpolationMode.BICUBIC, antialias=False)
    return resized.permute(1, 2, 0).contiguous().numpy()


def resize_labels(labels: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Nearest resize of uint8 or bool [H, W] to [size, size] or to (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    return labels[rows[:, None], columns]


def read_labels(path: Path) -> np.ndarray:
    """An 8-bit PNG of class indices, uint8 [H, W]; palettes are not applied."""
    with Image.open(path) as png:
        return np.array(png)


class ImageViews:
    """Views of image files: flip, rotation and scaling at original size, then the resize (method reference, section 0)."""

    channels: tuple[int, ...] | None = None

    def __init__(self, data: SegmentationData, config: Data) -> None:
        self.data, self.config, self.size = data, config, config.size
        self._jitter = ColorJitter(*config.jitter)

    def train(self, source: Source, batches: Sequence[Sequence[str]], seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        samples = _Samples(self, source, [(i, (seed, epoch, step)) for step, ids in enumerate(batches) for i in ids])
        return _load(DataLoader(samples, batch_size=len(batches[0]), num_workers=self.config.workers, pin_memory=torch.cuda.is_available()))

    def clean(self, ids: Sequence[str], batch_size: int) -> Iterator[tuple[list[str], Tensor]]:
        loader = _load(DataLoader(_Clean(self, ids), batch_size=batch_size, num_workers=self.config.workers))
        for start, images in zip(range(0, len(ids), batch_size), loader, strict=True):
            yield list(ids[start : start + batch_size]), images

    def augment(self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """One random geometry applied to an image and its label map.

        Returns:
            uint8 [3, size, size] and int64 [target_size, target_size] (or None). Uncovered borders are black and ``label_border``.
        """
        config = self.config
        angle, scale, flip = rng.uniform(-config.rotation, config.rotation), rng.uniform(*config.scale), rng.random() < config.flip
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        picture = TF.affine(TF.horizontal_flip(picture) if flip else picture, angle, [0, 0], scale, [0.0, 0.0], InterpolationMode.BILINEAR)
        picture = torch.from_numpy(resize_image(picture.permute(1, 2, 0).numpy(), config.size)).permute(2, 0, 1)
        if labels is None:
            return picture, None
        target = torch.from_numpy(labels)[None]
        target = TF.horizontal_flip(target) if flip else target
        target = TF.affine(target, angle, [0, 0], scale, [0.0, 0.0], InterpolationMode.NEAREST, fill=[config.label_border])
        return picture, torch.from_numpy(resize_labels(target[0].numpy(), config.target_size)).long()

    def sample(self, source: Source, image_id: str, key: Sequence[int]) -> dict[str, Tensor]:
        rng = np.random.default_rng([*key, crc32(f"{source.name}/{image_id}".encode())])
        image, target = self.augment(self.data.image(image_id), source.targets(image_id) if source.targets else None, rng)
        if target is not None:
            return {"x": image, "y": target}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            return {"weak": image, "strong": self._jitter(image)}


def _load(loader: DataLoader) -> Iterator[Any]:
    """A loader's batches. The error of a loading process arrives with its traceback as the message, whose last line is what it said."""
    try:
        yield from loader
    except NCDSSError as error:
        raise type(error)(str(error).rstrip().rpartition(f"{type(error).__name__}: ")[2]) from error


class _Samples(Dataset):
    def __init__(self, views: ImageViews, source: Source, items: list[tuple[str, tuple[int, int, int]]]) -> None:
        self.views, self.source, self.items = views, source, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.views.sample(self.source, *self.items[index])


class _Clean(Dataset):
    def __init__(self, views: ImageViews, ids: Sequence[str]) -> None:
        self.views, self.ids = views, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(resize_image(self.views.data.image(self.ids[index]), self.views.size)).permute(2, 0, 1)


VIEW_NAMES = ("clean", "flip", "jitter", "flip_jitter")


class FeatureViews:
    """Views from cached features: clean or flipped as the weak view, their colour-jittered twins as the strong one.

    Ours, because a frozen encoder needs to see each view only once: rotation and scaling are left out, flips and jitter are drawn
    from a cached set.
    """

    def __init__(self, cache: FeatureCache, data: SegmentationData, config: Data) -> None:
        self.cache, self.config, self.size = cache, config, config.size
        self.channels: tuple[int, ...] | None = cache.channels

    def train(self, source: Source, batches: Sequence[Sequence[str]], seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng([seed, epoch, crc32(source.name.encode()), 1])
        for ids in batches:
            flips = rng.random(len(ids)) < self.config.flip
            weak = self._read(ids, flips, ("clean", "flip"))
            if source.targets is None:
                yield {"weak": weak, "strong": self._read(ids, flips, ("jitter", "flip_jitter"))}
            else:
                targets = [
                    self._target(source, i)[:, ::-1] if flip else self._target(source, i) for i, flip in zip(ids, flips, strict=True)
                ]
                yield {"x": weak, "y": torch.from_numpy(np.stack(targets)).long()}

    def clean(self, ids: Sequence[str], batch_size: int) -> Iterator[tuple[list[str], Tensor]]:
        for start in range(0, len(ids), batch_size):
            batch = list(ids[start : start + batch_size])
            yield batch, self.cache.read(["clean"] * len(batch), batch)

    def _read(self, ids: Sequence[str], flips: np.ndarray, views: tuple[str, str]) -> Tensor:
        return self.cache.read([views[int(flip)] for flip in flips], ids)

    def _target(self, source: Source, image_id: str) -> np.ndarray:
        assert source.targets is not None
        return resize_labels(source.targets(image_id), self.config.target_size)


def load_view(data: SegmentationData, config: Data, view: str, image_id: str) -> np.ndarray:
    """The image of a cached view, uint8 [size, size, 3]. The jitter of an image is drawn from its id, so a cache is reproducible."""
    image = torch.from_numpy(resize_image(data.image(image_id), config.size)).permute(2, 0, 1)
    if view.startswith("flip"):
        image = TF.horizontal_flip(image)
    if view.endswith("jitter"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(crc32(f"{view}/{image_id}".encode()))
            image = ColorJitter(*config.jitter)(image)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def feature_cache_key(data: SegmentationData, config: Data, model: Model) -> dict[str, Any]:
    """All that cached features depend on."""
    return {
        "version": 1, "data": data.fingerprint(), "size": config.size, "jitter": config.jitter,
        "encoder": [model.encoder, model.weights, weights_stamp(model), model.output_stride, model.stages],
    }  # fmt: skip
