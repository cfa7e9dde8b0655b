"""A folder of one's own images: what is read, how many novel classes there are, and one clear message for each bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from ncdss_lib.data import open_dataset
from ncdss_lib.data.dataset import SegmentationData, read_truth
from ncdss_lib.data.own_images import ORIENTATION, OwnImages
from ncdss_lib.data.splits import label_space, make_splits
from ncdss_lib.recipes import Data
from ncdss_lib.system.errors import InputError


class Photo(NamedTuple):
    """What was written for one picture."""

    folder: str
    name: str
    classes: tuple[int, ...]  # in the mask; of an unlabelled photo: what it really shows
    size: tuple[int, int]  # height, width

    @property
    def stem(self) -> str:
        return Path(self.name).stem


#: Two base classes (1 cup, 2 plate), two novel ones (3, 4), pictures of every size and suffix.
PHOTOS = (
    Photo("images", "breakfast.jpg", (1,), (20, 30)),
    Photo("images", "DSC 0001.JPG", (1, 2), (31, 17)),
    Photo("images", "nothing.png", (), (24, 24)),
    Photo("unlabelled", "desk.jpeg", (3,), (40, 28)),
    Photo("unlabelled", "new one.png", (1, 4), (16, 48)),
    Photo("unlabelled", "dark.jpg", (4,), (24, 20)),
    Photo("val/images", "v1.jpg", (1, 3), (22, 33)),
    Photo("val/images", "v2.png", (2, 4), (33, 22)),
)
BY_STEM = {photo.stem: photo for photo in PHOTOS}


def draw(photo: Photo) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 [H, W, 3], and its mask, uint8 [H, W]: a column of pixels for each class, 255 in the last row."""
    mask = np.zeros(photo.size, np.uint8)
    for slot, c in enumerate(photo.classes):
        mask[2:-2, 3 + 4 * slot : 6 + 4 * slot] = c
    image = 60 * mask[..., None] + np.array([5, 10, 15], np.uint8)
    mask[-1] = 255
    return image, mask


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own") / "photos"
    for folder in ("images", "masks", "unlabelled", "saliency_supervised_model", "val/images", "val/masks"):
        (root / folder).mkdir(parents=True)
    for photo in PHOTOS:
        image, mask = draw(photo)
        Image.fromarray(image).save(root / photo.folder / photo.name, **({} if photo.name.endswith("png") else {"quality": 95}))
        if photo.folder == "unlabelled":
            if photo.stem != "dark":
                Image.fromarray(255 * ((mask > 0) & (mask < 255)).astype(np.uint8)).save(
                    root / f"saliency_supervised_model/{photo.stem}.png"
                )
        else:
            Image.fromarray(mask).save(root / photo.folder.replace("images", "masks") / f"{photo.stem}.png")
    (root / "classes.txt").write_text("cup\nplate\n")
    (root / "novel_classes.txt").write_text("\ufeffspoon\r\nfork\r\n\r\n", encoding="utf-8")
    (root / "images" / ".DS_Store").write_text("?")
    (root / "images" / "._breakfast.jpg").write_text("?")
    (root / "unlabelled" / "notes.txt").write_text("?")
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "photos"))


def drop_val(root: Path) -> None:
    shutil.rmtree(root / "val")


# --- what is read ---------------------------------------------------------------------------------------------------------------


def test_reads_back_what_was_written(written: Path) -> None:
    data: SegmentationData = open_dataset("folder", written)
    assert data.train_ids == ["DSC 0001", "breakfast", "dark", "desk", "new one", "nothing"]
    assert data.val_ids == ["v1", "v2"]
    assert data.classes == ("cup", "plate", "spoon", "fork")
    assert data.folds == {0: (3, 4)}
    assert data.masks_note == "masks/ of base classes, validation masks of base and novel classes"
    assert data.saliency_note == "saliency maps from saliency_supervised_model"
    for image_id in [*data.train_ids, *data.val_ids]:
        photo = BY_STEM[image_id]
        image, mask = draw(photo)
        assert data.image(image_id).shape == (*photo.size, 3)
        assert np.abs(data.image(image_id).astype(int) - image).mean() < 8
        assert data.has_truth(image_id) == (photo.folder != "unlabelled")
        if photo.folder == "unlabelled":
            with pytest.raises(InputError, match=f"holds no mask of '{image_id}', so there is no truth to read"):
                data.mask(image_id)
        else:
            np.testing.assert_array_equal(data.mask(image_id), mask)
            assert data.saliency(image_id) is None
    np.testing.assert_array_equal(data.saliency("new one"), np.isin(draw(BY_STEM["new one"])[1], [1, 4]))
    assert data.saliency("dark") is None
    assert OwnImages(written).missing_saliency == ["dark"]


def test_unlabelled_images_count_as_novel(written: Path) -> None:
    data = OwnImages(written)
    labels = label_space(data, 0)
    assert (labels.base_names, labels.novel_names) == (("cup", "plate"), ("spoon", "fork"))
    assert data.presence() == {
        "DSC 0001": (1, 2), "breakfast": (1,), "dark": (3, 4), "desk": (3, 4), "new one": (3, 4), "nothing": (), "v1": (1, 3), "v2": (2, 4),
    }  # fmt: skip
    splits = make_splits(data, labels)
    assert splits.novel == ["dark", "desk", "new one"]
    assert splits.base == ["DSC 0001", "breakfast", "nothing"]
    assert splits.base_train == ["DSC 0001", "breakfast"]
    assert splits.val == ["v1", "v2"]
    assert make_splits(data, labels, base_list="strict").base_train == splits.base
    assert set(read_truth(data, labels, "v1").ravel().tolist()) == {0, 1, 3, 255}
    assert set(read_truth(data, labels, "v1", hide_novel=True).ravel().tolist()) == {0, 1, 255}


def test_novel_classes_may_have_a_number_instead_of_names(root: Path) -> None:
    (root / "novel_classes.txt").unlink()
    drop_val(root)
    data = open_dataset("folder", root, None, Data(num_novel=3))
    assert data.classes == ("cup", "plate", "novel 1", "novel 2", "novel 3")
    assert data.folds == {0: (3, 4, 5)}
    assert data.val_ids == []
    assert data.masks_note == "masks/ of base classes, no validation masks"
    assert data.presence()["desk"] == (3, 4, 5)
    assert make_splits(data, label_space(data, 0)).val == []


def test_number_and_names_may_agree(written: Path) -> None:
    assert OwnImages(written, num_novel=2).classes == OwnImages(written).classes


def test_without_names_validation_masks_hold_base_classes(root: Path) -> None:
    (root / "novel_classes.txt").unlink()
    for path in (root / "val" / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[(mask > 2) & (mask < 255)] = 255
        Image.fromarray(mask).save(path)
    data = OwnImages(root, num_novel=2)
    assert data.masks_note == "masks/ of base classes, validation masks of base classes only"
    assert (data.presence()["v1"], data.presence()["v2"]) == ((1,), (2,))


def test_a_mask_of_an_unlabelled_image_is_no_truth(root: Path) -> None:
    """The advice for an image with something new is to move it: its mask may stay behind."""
    shutil.move(root / "images" / "breakfast.jpg", root / "unlabelled" / "breakfast.jpg")
    data = OwnImages(root)
    assert not data.has_truth("breakfast")
    assert data.presence()["breakfast"] == (3, 4)


def test_fingerprints_and_the_class_table(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = OwnImages(root, cache)
    table = before.presence()
    assert OwnImages(root, cache).presence() == table
    assert [path.name for path in (cache / "folder").iterdir()] == [f"presence-{before.fingerprint()}.json"]
    (root / "novel_classes.txt").write_text("spoon\nknife\n")
    renamed = OwnImages(root, cache)
    assert renamed.fingerprint() != before.fingerprint()
    (root / "novel_classes.txt").write_text("spoon\nknife\nfork\n")
    assert OwnImages(root, cache).presence()["desk"] == (3, 4, 5)
    mask = np.array(Image.open(root / "masks" / "nothing.png"))
    mask[4, 4] = 2
    Image.fromarray(mask).save(root / "masks" / "nothing.png")
    assert OwnImages(root, cache).presence()["nothing"] == (2,)
    assert OwnImages(root).images_fingerprint() == before.images_fingerprint()
    (root / "unlabelled" / "dark.jpg").unlink()
    assert OwnImages(root).images_fingerprint() != before.images_fingerprint()


def test_saliency_maps_are_asked_for_unless_told(root: Path) -> None:
    shutil.rmtree(root / SALIENCY)
    assert open_dataset("folder", root, needs_saliency=False).saliency("desk") is None


# --- bad input ------------------------------------------------------------------------------------------------------------------

SALIENCY = "saliency_supervised_model"


def relabel(path: Path, class_id: int) -> None:
    mask = np.array(Image.open(path))
    mask[3, 3] = class_id
    Image.fromarray(mask).save(path)


def shrink(path: Path) -> None:
    with Image.open(path) as picture:
        smaller = picture.resize((20, 10), Image.Resampling.NEAREST)
    smaller.save(path)


def turn(path: Path) -> None:
    """Save a photo as a camera does that was held upright: turned, with a note to turn it back."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, exif=exif)


def drop_names(root: Path) -> None:
    (root / "novel_classes.txt").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def many_classes(root: Path) -> None:
    (root / "classes.txt").write_text("".join(f"thing {i}\n" for i in range(253)))


#: name: (how to spoil the folder, when that is noticed, the path in the message, what else the message says)
BAD: dict[str, tuple[Callable[[Path], object], str, str, tuple[str, ...]]] = {
    "no classes": (lambda r: (r / "classes.txt").unlink(), "open", "classes.txt", ("No such file", "one class name a line")),
    "empty classes": (lambda r: (r / "classes.txt").write_text("\n\n"), "open", "classes.txt", ("is empty", "fill the list")),
    "blank line": (lambda r: (r / "classes.txt").write_text("a\n\nb"), "open", "classes.txt", ("line 2 is blank", "the class id")),
    "background": (lambda r: (r / "classes.txt").write_text("Background\nb"), "open", "classes.txt", ("line 1", "id 0", "Remove")),
    "class twice": (lambda r: (r / "novel_classes.txt").write_text("cup\nfork"), "open", "", ("class 'cup'", "more than once", "one line")),
    "too many classes": (many_classes, "open", "", ("has 255 classes", "at most 254", "8 bits")),
    "no images": (lambda r: shutil.rmtree(r / "images"), "open", "images", ("No such file", "classes.txt, images/", "add the folder")),
    "no masks": (lambda r: shutil.rmtree(r / "masks"), "open", "masks", ("No such file", "add the folder")),
    "no unlabelled": (lambda r: shutil.rmtree(r / "unlabelled"), "open", "unlabelled", ("No such file", "add the folder")),
    "empty unlabelled": (lambda r: empty(r / "unlabelled"), "open", "unlabelled", ("holds no picture", ".jpg, .jpeg, .png", "add some")),
    "other format": (lambda r: (r / "images/x.webp").touch(), "open", "images", ("1 pictures in another format", "x.webp", "convert")),
    "a mask is missing": (
        lambda r: (r / "masks/nothing.png").unlink(),
        "open", "masks", ("images holds 3", "for 1 of them", "nothing.png", "move these images"),
    ),
    "a val mask is missing": (lambda r: (r / "val/masks/v2.png").unlink(), "open", "val/masks", ("holds 2", "v2.png", "Add the masks")),
    "no val masks": (lambda r: shutil.rmtree(r / "val/masks"), "open", "val/masks", ("No such file", "val/masks/")),
    "no val images": (lambda r: shutil.rmtree(r / "val/images"), "open", "val/images", ("No such file", "val/images/")),
    "two suffixes": (
        lambda r: shutil.copy(r / "unlabelled/dark.jpg", r / "unlabelled/dark.jpeg"),
        "open", "unlabelled", ("holds dark.jpeg and dark.jpg", "one file of a name"),
    ),
    "labelled and unlabelled": (
        lambda r: shutil.copy(r / "images/breakfast.jpg", r / "unlabelled"),
        "open", "unlabelled", ("share 1 ids", "breakfast", "labelled or unlabelled"),
    ),
    "trained and validated": (
        lambda r: shutil.copy(r / "unlabelled/desk.jpeg", r / "val/images"),
        "open", "val/images", ("share 1 ids", "desk", "names are ids"),
    ),
    "no saliency": (
        lambda r: shutil.rmtree(r / SALIENCY),
        "open", SALIENCY, ("any of the 3 training", "dark.png", "`ncdss prepare saliency --data-root "),
    ),
    "novel id in a labelled mask": (
        lambda r: relabel(r / "masks/nothing.png", 3),
        "verify", "masks/nothing.png", ("label ids [3]", "1..2 or 255", "Move an image", "unlabelled/", "classes.txt"),
    ),
    "unknown id in a val mask": (
        lambda r: relabel(r / "val/masks/v1.png", 5), "verify", "val/masks/v1.png", ("label ids [5]", "1..4 or 255", "class indices"),
    ),
    "colour mask": (
        lambda r: Image.new("RGB", (30, 20)).save(r / "masks/breakfast.png"), "verify", "masks/breakfast.png", ("mode RGB", "convert"),
    ),
    "mask size": (lambda r: shrink(r / "masks/breakfast.png"), "verify", "masks/breakfast.png", ("is 20x10", "Expected 30x20")),
    "map size": (lambda r: shrink(r / SALIENCY / "desk.png"), "verify", f"{SALIENCY}/desk.png", ("is 20x10", "Expected 28x40")),
    "turned photo": (lambda r: turn(r / "unlabelled/dark.jpg"), "verify", "unlabelled/dark.jpg", ("EXIF orientation 6", "upright")),
    "text for a photo": (lambda r: (r / "images/nothing.png").write_text("?"), "verify", "images/nothing.png", ("not an image",)),
}  # fmt: skip


def test_where_nobody_knows_how_many_novel_classes_there_are_they_are_one_name(root: Path) -> None:
    assert OwnImages(root).knows_num_novel
    drop_names(root)
    data = OwnImages(root)
    assert not data.knows_num_novel
    assert data.classes[data.folds[0][0] - 1 :] == ("novel",)
    assert OwnImages(root, num_novel=2).knows_num_novel


def refusal(root: Path, num_novel: int | None = None) -> tuple[str, str]:
    """Open and verify the data; return the step that is refused, and the message."""
    step = "open"
    try:
        data = OwnImages(root, num_novel=num_novel)
        step = "verify"
        data.presence()
    except InputError as error:
        return step, str(error)
    return "none", ""


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_path_and_hint(root: Path, name: str) -> None:
    spoil, when, path, phrases = BAD[name]
    assert refusal(root) == ("none", "")
    spoil(root)
    step, message = refusal(root)
    assert step == when
    assert str(root / path) in message
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert "\n" not in message


def test_number_and_names_that_differ_are_refused(written: Path) -> None:
    step, message = refusal(written, num_novel=3)
    assert step == "open"
    assert f"{written / 'novel_classes.txt'} names 2 novel classes, but data.num_novel is 3" in message


def test_novel_ids_in_validation_masks_need_names(root: Path) -> None:
    drop_names(root)
    step, message = refusal(root, num_novel=2)
    assert step == "verify"
    assert "v1.png holds label ids [3]. Expected 0 (background), 1..2 or 255 (ignore)" in message
    assert "name them in novel_classes.txt" in message
