"""COCO-20i: COCO 2014 with its 80 categories in four contiguous folds of 20.

::

    ROOT/train2014/STEM.jpg, val2014/STEM.jpg     photos
    ROOT/masks_published/STEM.png                 class ids 0..80 as in the paper: first polygon of
                                                  each object, crowds background
    ROOT/masks_complete/STEM.png                  all polygons, crowds 255 (ignore)
    ROOT/saliency_supervised_model/STEM.png       saliency map; no file where nothing is salient
    ROOT/sets/train2014.txt, sets/val2014.txt     stems that have a mask, one a line

``data.coco_masks`` chooses one of the two kinds of masks. Masks and lists are made by ``ncdss
prepare coco20i`` from ``annotations/instances_{train,val}2014.json``. This is not the interleaved
COCO-20i of few-shot segmentation, in which fold f holds the categories f, f + 4, ...: figures of
the two cannot be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ncdss_lib.data.file_dataset import FileDataset
from ncdss_lib.data.image_files import data_folder, list_files, read_list, refuse_shared
from ncdss_lib.system.errors import InputError

#: The categories in annotation order; the i-th, counted from 1, has original id i (COCO's own
#: category ids have gaps).
COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)

#: Fold -> original ids of its novel classes.
FOLDS: dict[int, tuple[int, ...]] = {f: tuple(range(20 * f + 1, 20 * f + 21)) for f in range(4)}

LAYOUT = (
    "COCO 2014: train2014/, val2014/, annotations/, and what `ncdss prepare coco20i` makes: "
    "masks_published/, masks_complete/, sets/"
)
MASKS_NOTE = {
    "published": "published COCO masks (first polygon of each object, crowds as background)",
    "complete": "complete COCO masks (all polygons, crowds ignored)",
}


class Coco20i(FileDataset):
    """COCO 2014 with prepared masks and lists; a :class:`~ncdss_lib.data.dataset.SegmentationData`.

    Args:
        root: the folder that holds ``train2014`` and its neighbours.
        cache_dir, needs_saliency: see :class:`~ncdss_lib.data.file_dataset.FileDataset`.
        masks: ``published`` or ``complete``, for training and validation alike.

    Raises:
        InputError: when a folder is missing or not prepared, or a list is empty, repeats an id or
            names a file that is not there.
    """

    name = "coco20i"
    classes = COCO_CLASSES
    folds = FOLDS

    def __init__(
        self,
        root: Path | str | None,
        cache_dir: Path | None = None,
        *,
        masks: Literal["published", "complete"] = "published",
        needs_saliency: bool = True,
    ) -> None:
        root = data_folder(root, self.name, LAYOUT)
        self.masks_note = MASKS_NOTE[masks]

        # what `ncdss prepare` makes
        train_list = root / "sets" / "train2014.txt"
        val_list = root / "sets" / "val2014.txt"
        prepare = f"`ncdss prepare coco20i --data-root {root}`"
        for path in (root / f"masks_{masks}", train_list, val_list):
            if not path.exists():
                raise InputError(
                    f"{path} is not there. Expected masks and lists made from COCO's annotations: "
                    f"run {prepare}."
                )

        # the files and the lists
        of_train = list_files(root / "train2014", (".jpg",), LAYOUT)
        of_val = list_files(root / "val2014", (".jpg",), LAYOUT)
        drawn = list_files(root / f"masks_{masks}", (".png",), LAYOUT)
        train = read_list(train_list, "COCO_train2014_000000000009")
        val = read_list(val_list, "COCO_val2014_000000000042")
        refuse_shared(train, val, f"{train_list} and {val_list}")

        named_train = f"{train_list} lists"
        named_val = f"{val_list} lists"
        again = f"Run {prepare} again."
        super().__init__(
            root,
            cache_dir,
            train,
            val,
            listings=[of_train, of_val, drawn],
            images=of_train.pick(train, named_train) | of_val.pick(val, named_val),
            masks=drawn.pick(train, named_train, again) | drawn.pick(val, named_val, again),
            need_maps=train,
            needs_saliency=needs_saliency,
        )


def published_counts(fold: int) -> dict[str, dict[str, int]]:
    """Images in the lists of the released code, to compare a full COCO with.

    Returns:
        ``train`` and ``val`` -> ``base`` (images with a base class), ``novel`` (with a novel
        class), ``overlap`` (with both) and ``union``, which is 82,081 and 40,137 in every fold.
        Fine-tuning takes the ``base`` images that are not ``novel``.
    """
    rows = {
        0: {"train": (62515, 60602, 41036), "val": (30467, 29499, 19829)},
        1: {"train": (77860, 35683, 31462), "val": (38008, 17101, 14972)},
        2: {"train": (78457, 26320, 22696), "val": (38340, 12870, 11073)},
        3: {"train": (76902, 26892, 21713), "val": (37506, 13325, 10694)},
    }
    return {
        split: {"base": base, "novel": novel, "overlap": overlap, "union": base + novel - overlap}
        for split, (base, novel, overlap) in rows[fold].items()
    }
