"""What PASCAL-5i, COCO-20i and your own images share: images, masks and saliency maps in files.

Opening such a data set lists its folders and reads no picture; every file is read, and checked,
once, by :meth:`FileDataset.contents`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ncdss_lib.data.dataset import Contents, SegmentationData
from ncdss_lib.data.image_files import Listing, check_size, in_threads, list_files, read_image
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.data.masks import classes_in, read_labels
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import disk_errors, whole_file

SALIENCY = "saliency_supervised_model"


class FileDataset(SegmentationData):
    """A data set of files. It says which files; how they are read is the same for all.

    Args:
        root: the folder of the data set.
        cache_dir: where the table of contents is kept between runs; None keeps it in memory only.
        train_ids, val_ids: sorted and disjoint.
        listings: the folders that were listed, for ``left_out``.
        images: the photo of every id.
        masks: the mask of every id that has one.
        need_maps: the training images that ask for a saliency map.
        needs_saliency: whether to insist on maps, which all but evaluation and preparation need;
            single images may lack one, not all.

    Attributes:
        missing_saliency: the images of ``need_maps`` without a map, sorted.

    Raises:
        InputError: when no image of ``need_maps`` has a map.
    """

    saliency_note = f"saliency maps from {SALIENCY}"

    def __init__(
        self,
        root: Path,
        cache_dir: Path | None,
        train_ids: list[str],
        val_ids: list[str],
        *,
        listings: Sequence[Listing],
        images: Mapping[str, Path],
        masks: Mapping[str, Path],
        need_maps: Sequence[str],
        needs_saliency: bool,
    ) -> None:
        self.root = root
        self.cache_dir = cache_dir
        self.train_ids = train_ids
        self.val_ids = val_ids
        self._images = images
        self._masks = masks

        # saliency maps, which the data set may lack
        found: dict[str, Path] = {}
        if (root / SALIENCY).is_dir():
            maps = list_files(root / SALIENCY, (".png",), "saliency maps, STEM.png")
            found = maps.files
            listings = [*listings, maps]
        self.left_out = [line for listing in listings for line in listing.note]
        self._maps = {i: found[i] for i in [*train_ids, *val_ids] if i in found}
        self.missing_saliency = [i for i in need_maps if i not in found]
        if needs_saliency and len(self.missing_saliency) == len(need_maps):
            raise InputError(
                f"{root / SALIENCY} has no map for any of the {len(need_maps)} training images "
                f"that need one (first missing: {need_maps[0]}.png). Make the maps with `ncdss "
                f"prepare saliency --data-root {root}`, or put ready ones there: one PNG for each "
                "image with something salient, named as the image."
            )

        # the files as they are now; what depends on them is made again when they change
        about = (self.masks_note, *self.classes)
        self._fingerprint = self._digest(self._images, self._masks, self._maps, about=about)
        self._images_fingerprint = self._digest(self._images)
        self._contents: dict[str, Contents] = {}

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 [H, W, 3]. Raises InputError when the file is truncated."""
        return read_image(self._images[image_id])

    def mask(self, image_id: str) -> np.ndarray:
        """Original class ids, uint8 [H, W]: 0 background, 1..len(classes), 255 ignore.

        Raises:
            InputError: for an image without a mask, a truncated file, or any other id.
        """
        if not self.has_truth(image_id):
            raise InputError(
                f"{self.root} holds no mask of {image_id!r}, so there is no truth to read. Add "
                "its mask, or leave it out."
            )
        mask = read_labels(self._masks[image_id])
        refuse_unknown_ids(self._masks[image_id], mask, *self.allowed_ids(image_id))
        return mask

    def allowed_ids(self, image_id: str) -> tuple[int, str]:
        """The highest class id that a mask may hold, and what to do when it holds another."""
        return len(self.classes), "write class indices, neither colours nor object numbers"

    def saliency(self, image_id: str) -> np.ndarray | None:
        """Salient pixels, bool [H, W], or None where nothing is salient.

        Files may hold {0, 1}, {0, 255} or soft values 0..255. They are binarised here, once, so
        that nothing soft is passed on (ours): above 127, or above 0 where no value exceeds 1.
        """
        salient = self._salient(image_id)
        return salient if salient is not None and salient.any() else None

    def _salient(self, image_id: str) -> np.ndarray | None:
        """The map of an image, bool [H, W], where it has one."""
        if image_id not in self._maps:
            return None
        values = read_labels(self._maps[image_id], modes=("P", "L", "1"))
        return values > (127 if values.max() > 1 else 0)

    def has_truth(self, image_id: str) -> bool:
        """Whether :meth:`mask` can be asked for."""
        return image_id in self._masks

    def fingerprint(self) -> str:
        """16 hex digits that change when a list, a class name or a listed file changes.

        A file changes when its name, size or modification time does.
        """
        return self._fingerprint

    def images_fingerprint(self) -> str:
        """As :meth:`fingerprint`, of the lists and the photos alone: what features depend on."""
        return self._images_fingerprint

    def _digest(self, *kinds: Mapping[str, Path], about: tuple[str, ...] = ()) -> str:
        """A hash of lists and files; the place of the data set is no part of it."""
        digest = hashlib.sha256(f"{about}\n".encode())
        for ids in (self.train_ids, self.val_ids):
            for image_id in ids:
                files = [_look(paths.get(image_id)) for paths in kinds]
                digest.update(f"{image_id} {files}\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def contents(self) -> dict[str, Contents]:
        """What each image holds, by id.

        The first call decodes every photo, mask and map and verifies it; the table is cached in
        ``cache_dir`` until :meth:`fingerprint` changes.

        Raises:
            InputError: for a file that cannot be decoded, a mask that :meth:`mask` refuses, or a
                mask or saliency map that is not the size of its image.
        """
        if self._contents:
            return self._contents
        ids = [*self.train_ids, *self.val_ids]
        name = f"contents-{self._fingerprint}.json"
        cache = self.cache_dir and self.cache_dir / self.name / name
        if cache and (known := _read_table(cache)) and list(known) == ids:
            self._contents = known
            return known
        found = in_threads(self.verified, ids, "checking images, masks and maps")
        self._contents = dict(zip(ids, found, strict=True))
        if cache:
            with disk_errors("what the images hold", cache), whole_file(cache) as draft:
                draft.write_text(json.dumps(self._contents))
        return self._contents

    def verified(self, image_id: str) -> Contents:
        """What one image holds, after decoding its files and comparing their sizes."""
        photo = self._images[image_id]
        height, width = self.image(image_id).shape[:2]
        mask = self.mask(image_id) if self.has_truth(image_id) else None
        salient = self._salient(image_id)
        advice = "resize it with nearest-neighbour, or restore the file that belongs to the image"
        for pixels, paths in ((mask, self._masks), (salient, self._maps)):
            if pixels is not None:
                check_size(paths[image_id], pixels.shape[::-1], (width, height), photo, advice)

        # images without a mask are of the one data set, with one fold, that has unlabelled ones
        classes = self.folds[0] if mask is None else classes_in(mask)
        area = 0 if salient is None else int(np.count_nonzero(salient))
        return Contents(classes, area, height * width)


def _look(path: Path | None) -> tuple[str, int, int] | None:
    """Name, size in bytes and time in ns of a file."""
    if path is None:
        return None
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns


def _read_table(path: Path) -> dict[str, Contents] | None:
    """A cached table of contents, or None when there is no usable one."""
    try:
        table = json.loads(path.read_text())
        return {
            image_id: Contents(tuple(classes), int(salient), int(pixels))
            for image_id, (classes, salient, pixels) in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def refuse_unknown_ids(path: Path, mask: np.ndarray, highest: int, advice: str) -> None:
    """Raise InputError where a mask, uint8 [H, W], holds an id above ``highest`` but 255."""
    if unknown := [c for c in classes_in(mask) if c > highest]:
        raise InputError(
            f"{path} holds label ids {unknown}. Expected 0 (background), 1..{highest} or {IGNORE} "
            f"(ignore): {advice}."
        )
