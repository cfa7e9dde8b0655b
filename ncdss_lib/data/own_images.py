"""Your own images: some with masks of base classes, the others with something new in each.

::

    ROOT/classes.txt                           names of the B base classes; line i names class id i
    ROOT/images/NAME.jpg                       labelled photos (.jpg, .jpeg or .png, of any size)
    ROOT/masks/NAME.png                        their masks: 0 background, 1..B, 255 ignore
    ROOT/unlabelled/NAME.jpg                   photos that hold novel classes, known to nobody
    ROOT/saliency_supervised_model/NAME.png    saliency maps of the unlabelled photos
    ROOT/novel_classes.txt                     optional: names of the N novel classes; line i names
                                               class id B + i
    ROOT/val/images/, ROOT/val/masks/          optional: photos to score on; masks as above, with
                                               B+1..B+N where novel classes have names

N comes from ``novel_classes.txt`` or, where the novel classes have no names, from
``data.num_novel``; without either it is estimated, see ``method/number_of_classes.py``, and the
novel classes are one name. The data set's name is ``folder``. Ours: the paper has no such data set.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ncdss_lib.data.file_dataset import FileDataset
from ncdss_lib.data.image_files import (
    PHOTOS,
    Listing,
    data_folder,
    list_files,
    read_lines,
    refuse_shared,
)
from ncdss_lib.data.label_space import IGNORE
from ncdss_lib.system.errors import InputError

OTHER_PHOTOS = (".avif", ".bmp", ".gif", ".heic", ".jp2", ".tif", ".tiff", ".webp")
LAYOUT = (
    "classes.txt, images/, masks/, unlabelled/, saliency_supervised_model/, and if there are any "
    "novel_classes.txt, val/images/, val/masks/"
)


class OwnImages(FileDataset):
    """Your own images; a :class:`~ncdss_lib.data.dataset.SegmentationData` with one fold, 0.

    Ids are file names without suffix. Training images are the labelled and the unlabelled ones;
    only the latter need saliency maps.

    Args:
        root: the folder that holds ``classes.txt`` and its neighbours.
        cache_dir, needs_saliency: see :class:`~ncdss_lib.data.file_dataset.FileDataset`.
        num_novel: N, the number of novel classes; None takes it from ``novel_classes.txt``, and
            where that is missing nobody knows it.

    Raises:
        InputError: when a folder or list is missing or holds what it should not, or two images have
            the same name.
    """

    name = "folder"

    def __init__(
        self,
        root: Path | str | None,
        cache_dir: Path | None = None,
        *,
        num_novel: int | None = None,
        needs_saliency: bool = True,
    ) -> None:
        root = data_folder(root, self.name, LAYOUT)

        # classes
        base, novel = read_classes(root, num_novel)
        self.classes = (*base, *novel)
        self.folds = {0: tuple(range(len(base) + 1, len(self.classes) + 1))}
        self._num_base = len(base)
        self._novel_are_named = (root / "novel_classes.txt").is_file()
        self.knows_num_novel = self._novel_are_named or num_novel is not None

        # training images: labelled ones with masks, and unlabelled ones
        labelled = list_photos(root / "images")
        unlabelled = list_photos(root / "unlabelled")
        where = f"{labelled.folder} and {unlabelled.folder}"
        advice = "An image is labelled or unlabelled: remove or rename one."
        refuse_shared(list(labelled.files), list(unlabelled.files), where, advice)
        self._labelled = frozenset(labelled.files)
        train = sorted([*labelled.files, *unlabelled.files])
        images = labelled.files | unlabelled.files
        advice = "Add the masks, or move these images to unlabelled/ when they hold something new."
        listings = [labelled, unlabelled, list_files(root / "masks", (".png",), LAYOUT)]
        masks = listings[-1].pick(sorted(labelled.files), f"{labelled.folder} holds", advice)

        # images to score on, where there are any
        val: list[str] = []
        self.masks_note = "masks/ of base classes, no validation masks"
        if (root / "val").is_dir():
            photos = list_photos(root / "val" / "images")
            val = sorted(photos.files)
            where = f"the training images of {root} and {photos.folder}"
            refuse_shared(train, val, where, "Remove or rename one: names are ids.")
            images = images | photos.files
            listings += [photos, list_files(root / "val" / "masks", (".png",), LAYOUT)]
            masks |= listings[-1].pick(val, f"{photos.folder} holds", "Add the masks.")
            held = "base and novel classes" if self._novel_are_named else "base classes only"
            self.masks_note = f"masks/ of base classes, validation masks of {held}"

        super().__init__(
            root,
            cache_dir,
            train,
            val,
            listings=listings,
            images=images,
            masks=masks,
            need_maps=sorted(unlabelled.files),
            needs_saliency=needs_saliency,
        )

    def allowed_ids(self, image_id: str) -> tuple[int, str]:
        """Base classes alone where an image is for training, or novel classes have no names."""
        if image_id in self._labelled:
            return self._num_base, (
                "only the classes of classes.txt are labelled. Move an image that holds another "
                "class to unlabelled/ (without its mask), or add the class to classes.txt, or "
                "ignore its pixels"
            )
        if not self._novel_are_named:
            return self._num_base, "to score novel classes too, name them in novel_classes.txt"
        return super().allowed_ids(image_id)


def read_classes(root: Path, num_novel: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the base classes and of the novel ones, all different.

    The novel ones are those of ``novel_classes.txt``, or ``novel 1`` to ``novel N``, or ``novel``
    alone where nobody knows N.

    Raises:
        InputError: for a bad list, a name that is there twice, more classes than 8 bits hold, or
            another N than ``novel_classes.txt`` has names.
    """
    base = read_names(root / "classes.txt")
    path = root / "novel_classes.txt"
    if path.is_file():
        novel = read_names(path)
        if num_novel not in (None, len(novel)):
            raise InputError(
                f"{path} names {len(novel)} novel classes, but data.num_novel is {num_novel}. "
                "Correct one of them."
            )
    else:
        novel = tuple(f"novel {i + 1}" for i in range(num_novel or 0)) or ("novel",)

    # together
    names = (*base, *novel)
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(
            f"{root}: the class {twice[0]!r} is named more than once. Give each class one line, "
            "base or novel."
        )
    if len(names) >= IGNORE:
        raise InputError(
            f"{root} has {len(names)} classes. Expected at most {IGNORE - 1}, base and novel: "
            "masks have 8 bits."
        )
    return base, novel


def read_names(path: Path) -> tuple[str, ...]:
    """Class names, one a line; the ids follow the lines.

    Raises:
        InputError: for a list that cannot be read, is empty, has a blank line between names, or
            names the background.
    """
    names = read_lines(path, "one class name a line")
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"{path} is empty. Expected one class name a line: fill the list.")
    for number, name in enumerate(names, start=1):
        if not name or name.lower() == "background":
            found = "names the background, which is id 0 and not a class" if name else "is blank"
            raise InputError(
                f"{path}: line {number} {found}. Expected a class name on each line, since the "
                "line number is the class id. Remove the line."
            )
    return tuple(names)


def list_photos(folder: Path) -> Listing:
    """The photos of a folder.

    Raises:
        InputError: when there is none, or one in a format that is not read.
    """
    photos = list_files(folder, PHOTOS, LAYOUT)
    other = sorted(path.name for path in list_files(folder, OTHER_PHOTOS, LAYOUT).files.values())
    if other or not photos.files:
        found = "no picture"
        if other:
            found = f"{len(other)} pictures in another format (first: {other[0]})"
        raise InputError(
            f"{folder} holds {found}. Expected photos that end in {', '.join(PHOTOS)}: "
            "convert them, or add some."
        )
    return photos
