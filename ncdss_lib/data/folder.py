"""A folder of one's own images: some with masks of known (base) classes, the others unlabelled, each with something new in it.

::

    ROOT/classes.txt                           names of the B base classes; line i names class id i
    ROOT/images/NAME.jpg                       labelled photos (.jpg, .jpeg or .png, of any size)
    ROOT/masks/NAME.png                        their masks: 0 background, 1..B, 255 ignore
    ROOT/unlabelled/NAME.jpg                   photos that hold novel classes, known to nobody
    ROOT/saliency_supervised_model/NAME.png    saliency maps of the unlabelled photos
    ROOT/novel_classes.txt                     optional: names of the N novel classes; line i names class id B + i
    ROOT/val/images/, ROOT/val/masks/          optional: photos to score on; masks as above, with B+1..B+N where novel classes have names

N comes from ``novel_classes.txt`` or, where the novel classes have no names, from ``data.num_novel``. Ours: the paper has no such data set.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ncdss_lib.data.files import FileData, Listing, data_folder, list_files, opened, read_lines, refuse_shared
from ncdss_lib.labels import IGNORE
from ncdss_lib.system.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png")
OTHER_PICTURES = (".avif", ".bmp", ".gif", ".heic", ".jp2", ".tif", ".tiff", ".webp")
LAYOUT = (
    "classes.txt, images/, masks/, unlabelled/, saliency_supervised_model/, and if there are any novel_classes.txt, val/images/, val/masks/"
)
ORIENTATION = 0x0112  # the EXIF tag of a picture that is stored turned; 1: upright


class Folder(FileData):
    """Labelled and unlabelled images of one's own; a :class:`~ncdss_lib.data.base.SegmentationData` with one fold, 0.

    Ids are file names without suffix. Training images are the labelled and the unlabelled ones; only the latter need saliency maps.

    Args:
        root: the folder that holds ``classes.txt`` and its neighbours.
        cache_dir: where the class table is kept between runs; None keeps it in memory only.
        num_novel: N, the number of novel classes; None takes it from ``novel_classes.txt``.
        needs_saliency: whether to insist on saliency maps, which all but evaluation and preparation need.

    Raises:
        InputError: when a folder or list is missing or holds what it should not, or two images have the same name.
    """

    name = "folder"

    def __init__(
        self, root: Path | str | None, cache_dir: Path | None = None, *, num_novel: int | None = None, needs_saliency: bool = True
    ) -> None:
        root = data_folder(root, self.name, LAYOUT)
        base = read_names(root / "classes.txt")
        self._num_base, self._named = len(base), (root / "novel_classes.txt").is_file()
        self.classes = (*base, *novel_names(root, num_novel))
        self.folds = {0: tuple(range(len(base) + 1, len(self.classes) + 1))}
        if twice := [name for name, times in Counter(self.classes).items() if times > 1]:
            raise InputError(f"{root}: the class {twice[0]!r} is named more than once. Give each class one line, base or novel.")
        if len(self.classes) >= IGNORE:
            raise InputError(f"{root} has {len(self.classes)} classes. Expected at most {IGNORE - 1}, base and novel: masks have 8 bits.")

        labelled, unlabelled = list_pictures(root / "images"), list_pictures(root / "unlabelled")
        self._labelled, self._unlabelled = frozenset(labelled.files), frozenset(unlabelled.files)
        refuse_shared(
            list(labelled.files), list(unlabelled.files), f"{labelled.folder} and {unlabelled.folder}",
            "An image is labelled or unlabelled: remove or rename one.",
        )  # fmt: skip
        masks = list_files(root / "masks", (".png",), LAYOUT)
        advice = "Add the masks, or move these images to unlabelled/ when they hold something new."
        train = sorted([*labelled.files, *unlabelled.files])
        images, truth = labelled.files | unlabelled.files, masks.pick(sorted(labelled.files), f"{labelled.folder} holds", advice)
        val: list[str] = []
        if (root / "val").is_dir():
            pictures, masks = list_pictures(root / "val" / "images"), list_files(root / "val" / "masks", (".png",), LAYOUT)
            val = sorted(pictures.files)
            refuse_shared(train, val, f"the training images of {root} and {pictures.folder}", "Remove or rename one: names are ids.")
            images, truth = images | pictures.files, truth | masks.pick(val, f"{pictures.folder} holds", "Add the masks.")
        scored = "validation masks of base and novel classes" if self._named else "validation masks of base classes only"
        self.masks_note = f"masks/ of base classes, {scored if val else 'no validation masks'}"
        super().__init__(
            root, cache_dir, train, val, images=images, masks=truth, need_saliency=sorted(unlabelled.files) if needs_saliency else ()
        )

    def _allowed_ids(self, image_id: str) -> tuple[int, str]:
        if image_id in self._labelled:
            return self._num_base, (
                "only the classes of classes.txt are labelled. Move an image that holds another class to unlabelled/ (without its mask), "
                "or add the class to classes.txt, or ignore its pixels"
            )
        highest, advice = super()._allowed_ids(image_id)
        return (highest, advice) if self._named else (self._num_base, "to score novel classes too, name them in novel_classes.txt")

    def _classes_of(self, image_id: str) -> tuple[int, ...]:
        """The classes in the mask; all novel ones for an unlabelled image. Turned photos are refused: their masks would not fit."""
        path = self._images[image_id].path
        with opened(path) as picture:
            turned = picture.getexif().get(ORIENTATION, 1)
        if turned != 1:
            raise InputError(
                f"{path} is stored turned (EXIF orientation {turned}). Expected an upright picture, as its mask and map are read: "
                "save it upright, e.g. by `mogrify -auto-orient`."
            )
        return self.folds[0] if image_id in self._unlabelled else super()._classes_of(image_id)


def read_names(path: Path) -> tuple[str, ...]:
    """Class names, one a line; the ids follow the lines.

    Raises:
        InputError: for a list that cannot be read, is empty, has a blank line between names, or names the background.
    """
    names = read_lines(path, "one class name a line")
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"{path} is empty. Expected one class name a line: fill the list.")
    for number, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"{path}: line {number} is blank. Expected a class name on each line, since the line number is the class id.")
        if name.lower() == "background":
            raise InputError(f"{path}: line {number} names the background, which is id 0 and not a class. Remove the line.")
    return tuple(names)


def novel_names(root: Path, num_novel: int | None) -> tuple[str, ...]:
    """The names of the novel classes: of ``novel_classes.txt``, or ``novel 1`` to ``novel N``.

    Raises:
        InputError: when neither tells N, or the two contradict each other.
    """
    path = root / "novel_classes.txt"
    if not path.is_file():
        if num_novel is None:
            raise InputError(
                f"{root} does not say how many novel classes there are. Give their number N with --set data.num_novel=N "
                f"(no ground truth needed), or name them in {path}, one a line."
            )
        return tuple(f"novel {i}" for i in range(1, num_novel + 1))
    names = read_names(path)
    if num_novel not in (None, len(names)):
        raise InputError(f"{path} names {len(names)} novel classes, but data.num_novel is {num_novel}. Correct one of them.")
    return names


def list_pictures(folder: Path) -> Listing:
    """The photos of a folder. Raises InputError when there is none, or one in a format that is not read."""
    pictures = list_files(folder, PICTURES, LAYOUT)
    expected = f"Expected photos that end in {', '.join(PICTURES)}"
    if other := sorted(file.name for file in list_files(folder, OTHER_PICTURES, LAYOUT).files.values()):
        raise InputError(f"{folder} holds {len(other)} pictures in another format (first: {other[0]}). {expected}: convert them.")
    if not pictures.files:
        raise InputError(f"{folder} holds no picture. {expected}: add some.")
    return pictures
