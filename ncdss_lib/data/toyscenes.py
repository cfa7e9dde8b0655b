"""Toy scenes as a data set: drawings with simulated saliency maps, in the shape of PASCAL-5i.

The scenes themselves are drawn by the package ``toyscenes``, which stands beside this library.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ncdss_lib.data.masks import classes_in, write_labels
from ncdss_lib.system.folders import whole_file
from toyscenes import CLASSES, FOLDS, MIN_SIZE, VERSION, Scene, render_scene

SPLITS = ("train", "val")  # the place of a split is the first number of its scenes' seeds


@lru_cache(maxsize=64)
def render(split: str, index: int, size: int) -> Scene:
    """The scene with this place in a split."""
    return render_scene((SPLITS.index(split), index), size)


class ToyScenes:
    """A :class:`~ncdss_lib.data.dataset.SegmentationData`, rendered when first asked for.

    Args:
        cache_dir: where rendered scenes are kept as PNG files, for this and later processes; None
            keeps a few in memory only.
        train, val: numbers of images. Image i is the same in data sets of any length.
        size: side of the images in pixels, at least 32.
    """

    name = "toyscenes"
    classes = CLASSES
    folds = FOLDS
    saliency_note = "simulated saliency (noise on the true masks, no detector)"
    masks_note = "drawn with the scenes"
    knows_num_novel = True

    def __init__(
        self, cache_dir: Path | None = None, *, train: int = 600, val: int = 200, size: int = 224
    ) -> None:
        if size < MIN_SIZE:
            raise ValueError(f"toy scenes need size >= {MIN_SIZE}, got {size}")
        self.size = size
        self.train_ids = [f"train_{i:05d}" for i in range(train)]
        self.val_ids = [f"val_{i:05d}" for i in range(val)]
        self._known = frozenset(self.train_ids + self.val_ids)
        self._folder = cache_dir and Path(cache_dir) / "toyscenes" / f"v{VERSION}-{size}px"
        self._presence: dict[str, tuple[int, ...]] = {}

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [S, S, 3]."""
        return self._load(image_id, "image")

    def mask(self, image_id: str) -> np.ndarray:
        """Class ids, uint8 [S, S]: 0 background, 1..20, 255 on the rim of objects."""
        return self._load(image_id, "mask")

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Simulated saliency, bool [S, S], or None where nothing is salient."""
        salient = self._load(image_id, "saliency") > 0
        return salient if salient.any() else None

    def has_truth(self, image_id: str) -> bool:
        """True for every image of the data set."""
        return image_id in self._known

    def fingerprint(self) -> str:
        """Changes with the generator's version, the size and the numbers of images."""
        numbers = f"train={len(self.train_ids)} val={len(self.val_ids)}"
        made_from = f"toyscenes v{VERSION} size={self.size} {numbers}"
        return hashlib.sha256(made_from.encode()).hexdigest()[:16]

    def images_fingerprint(self) -> str:
        """As :meth:`fingerprint`: a seed gives image, mask and saliency map together."""
        return self.fingerprint()

    def presence(self) -> dict[str, tuple[int, ...]]:
        """Image id -> sorted ids of the classes with at least one pixel; kept with the images."""
        if not self._presence:
            table = self._folder and self._folder / "presence.json"
            known = json.loads(table.read_text()) if table and table.exists() else {}
            ids = self.train_ids + self.val_ids
            new = [i for i in ids if i not in known]
            for i in tqdm(new, "rendering toy scenes", leave=False, disable=len(new) < 50):
                known[i] = classes_in(self.mask(i))
            if table and new:
                with whole_file(table) as draft:
                    draft.write_text(json.dumps(known))
            self._presence = {i: tuple(known[i]) for i in ids}
        return self._presence

    def export(self, folder: Path) -> None:
        """Write all scenes in the VOCSegmentation layout, as :class:`Pascal5i` reads it."""
        for name in ("images", "SegmentationClassAug", "saliency_supervised_model", "sets"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for i in self.train_ids + self.val_ids:
            Image.fromarray(self.image(i)).save(folder / "images" / f"{i}.jpg", quality=95)
            write_labels(folder / "SegmentationClassAug" / f"{i}.png", self.mask(i))
            if (salient := self.saliency(i)) is not None:
                salient_map = Image.fromarray(salient.astype(np.uint8))
                salient_map.save(folder / "saliency_supervised_model" / f"{i}.png")
        for name, ids in (("trainaug", self.train_ids), ("val", self.val_ids)):
            (folder / "sets" / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))

    def _load(self, image_id: str, kind: str) -> np.ndarray:
        """Read one picture of a scene from the cache, or render the scene."""
        if image_id not in self._known:
            raise KeyError(
                f"no image {image_id!r}: this data set has {len(self.train_ids)} training images "
                f"from train_00000 and {len(self.val_ids)} validation images from val_00000 on; "
                "make it larger with train= or val=."
            )
        path = self._folder and self._folder / kind / f"{image_id}.png"
        if path and path.exists():
            return np.array(Image.open(path))
        split, index = image_id.split("_")
        scene = render(split, int(index), self.size)
        salient = np.zeros_like(scene.mask) if scene.saliency is None else 255 * scene.saliency
        pictures = {
            "image": scene.image, "mask": scene.mask, "saliency": salient.astype(np.uint8)
        }  # fmt: skip
        if self._folder:
            for name, picture in pictures.items():
                with whole_file(self._folder / name / f"{image_id}.png") as draft:
                    Image.fromarray(picture).save(draft, compress_level=1)
        return pictures[kind].copy()
