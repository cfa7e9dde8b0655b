"""PASCAL-5i from the VOCSegmentation folder layout: the full data set, or any subset in it.

::

    ROOT/images/ID.jpg                       photos
    ROOT/SegmentationClassAug/ID.png         class ids 0..20, 255 = ignore; a palette or grey PNG
    ROOT/SegmentationClass/ID.png            optional: VOC's own masks, for data.val_masks
    ROOT/saliency_supervised_model/ID.png    saliency map; no file where nothing is salient
    ROOT/sets/trainaug.txt, sets/val.txt     one image id a line

The lists of a fold are not read: ``make_splits`` makes them again from the masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ncdss_lib.data.file_dataset import FileDataset
from ncdss_lib.data.image_files import data_folder, list_files, read_list, refuse_shared

VOC_CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

#: Fold -> original ids of its novel classes. Fold 4, the animals, was released with the lists; no
#: published result uses it.
FOLDS: dict[int, tuple[int, ...]] = {
    **{fold: tuple(range(5 * fold + 1, 5 * fold + 6)) for fold in range(4)},
    4: (8, 10, 12, 13, 17),
}

MASKS = "SegmentationClassAug"
LAYOUT = (
    "the VOCSegmentation layout: images/, SegmentationClassAug/, saliency_supervised_model/, "
    "sets/trainaug.txt, sets/val.txt (`ncdss prepare pascal5i` makes it of VOC 2012 and SBD)"
)


class Pascal5i(FileDataset):
    """PASCAL VOC images; a :class:`~ncdss_lib.data.dataset.SegmentationData`.

    Args:
        root: the folder that holds ``images`` and its neighbours.
        cache_dir, needs_saliency: see :class:`~ncdss_lib.data.file_dataset.FileDataset`.
        val_masks: folder of the validation masks. Where there is no SegmentationClass,
            SegmentationClassAug is taken, and ``masks_note`` says so.

    Raises:
        InputError: when a folder or list is missing, or a list is empty, repeats an id or names a
            file that is not there.
    """

    name = "pascal5i"
    classes = VOC_CLASSES
    folds = FOLDS

    def __init__(
        self,
        root: Path | str | None,
        cache_dir: Path | None = None,
        *,
        val_masks: Literal["SegmentationClassAug", "SegmentationClass"] = "SegmentationClassAug",
        needs_saliency: bool = True,
    ) -> None:
        root = data_folder(root, self.name, LAYOUT)

        # the files and the lists
        images = list_files(root / "images", (".jpg",), LAYOUT)
        masks = list_files(root / MASKS, (".png",), LAYOUT)
        train_list = root / "sets" / "trainaug.txt"
        val_list = root / "sets" / "val.txt"
        train = read_list(train_list, "2007_000032")
        val = read_list(val_list, "2007_000033")
        refuse_shared(train, val, f"{train_list} and {val_list}")

        # the masks that validation is scored on
        self.masks_note = MASKS
        masks_of_val = masks
        if val_masks != MASKS and (root / val_masks).is_dir():
            self.masks_note = f"{MASKS}, for validation {val_masks}"
            masks_of_val = list_files(root / val_masks, (".png",), LAYOUT)
        elif val_masks != MASKS:
            self.masks_note = f"{MASKS} (no {val_masks} here)"

        named_train = f"{train_list} lists"
        named_val = f"{val_list} lists"
        super().__init__(
            root,
            cache_dir,
            train,
            val,
            listings=[images, masks],
            images=images.pick(train, named_train) | images.pick(val, named_val),
            masks=masks.pick(train, named_train) | masks_of_val.pick(val, named_val),
            need_maps=train,
            needs_saliency=needs_saliency,
        )


def published_counts(fold: int) -> dict[str, int]:
    """Images in the lists of the released code, to compare a full VOC with; 10,582 for training.

    ``base`` has no novel class. ``base_train`` has a base class, and ``base_train_and_novel`` of
    these a novel class too; ``base_val`` are the validation images with a base class. The released
    ``base.txt`` of fold 4 is its ``base_train`` list.
    """
    names = ("novel", "base", "base_train", "base_train_and_novel", "base_val")
    rows = {
        0: (2836, 7746, 8829, 1083, 1165),
        1: (3604, 6978, 8713, 1735, 1194),
        2: (5542, 5040, 7679, 2639, 1129),
        3: (2145, 8437, 9568, 1131, 1240),
        4: (3131, 7451, 8309, 858, 1125),
    }
    return dict(zip(names, rows[fold], strict=True))
