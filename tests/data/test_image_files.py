"""What reads of pictures share; the readers are tested with the data sets that use them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncdss_lib.data.image_files import (
    ORIENTATION,
    in_threads,
    list_files,
    picture_size,
    read_image,
    read_lines,
)
from ncdss_lib.data.masks import read_labels
from ncdss_lib.system.errors import InputError

#: EXIF orientation -> what a viewer does with the stored pixels.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
    9: lambda a: a,  # no orientation
}


@pytest.mark.parametrize("orientation", TURNS)
def test_photos_and_masks_are_read_as_a_viewer_shows_them(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    Image.fromarray(stored[..., 0]).save(tmp_path / "mask.png", exif=exif)
    shown = TURNS[orientation](stored)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), shown)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), shown[..., 0])
    assert picture_size(tmp_path / "photo.png") == shown.shape[1::-1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_8_bits_becomes_rgb(tmp_path: Path, mode: str) -> None:
    name = "x.png" if mode not in ("CMYK", "YCbCr") else "x.tif"
    Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), np.full((3, 4, 3), 255))


def test_a_transparent_pixel_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, 0].tolist() == [10, 20, 30]


def test_16_bits_of_colour_are_scaled_by_their_range(tmp_path: Path) -> None:
    import cv2

    values = np.array([[[0, 32768, 65535]]], np.uint16)  # BGR
    cv2.imwrite(str(tmp_path / "x.png"), values)
    assert read_image(tmp_path / "x.png")[0, 0].tolist() == [255, 128, 0]


def test_a_listing_counts_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.jpg", "c.txt", "d.webp", ".hidden", "manifest.json", "maps.csv"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "lost.jpg").symlink_to("nowhere")
    listing = list_files(tmp_path, (".jpg",), "photos")
    assert sorted(listing.files) == ["a", "b"]
    (line,) = listing.note
    counted = ["files of other formats (2)", "links that lead nowhere (1)", "subfolders (1)"]
    assert sorted(line.removeprefix(f"{tmp_path}: left out ").split(", ")) == counted
    (tmp_path / "c.txt").unlink()
    (tmp_path / "d.webp").unlink()
    (tmp_path / "lost.jpg").unlink()
    (tmp_path / "deeper").rmdir()
    assert list_files(tmp_path, (".jpg",), "photos").note == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lines_of_utf8_with_any_ends(tmp_path: Path, end: str, encoding: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(end.join(["\u00c4pfel ", "", " b\u2028c"]).encode(encoding))
    assert read_lines(path, "names") == ["\u00c4pfel", "", "b\u2028c"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_lines_of_another_encoding_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("a\n\u00c4pfel\n".encode(encoding))
    expected = "line 2 is not UTF-8 but perhaps Latin-1" if encoding == "latin-1" else "UTF-16"
    with pytest.raises(InputError, match=rf"{path}.*{expected}.*UTF-8"):
        read_lines(path, "names")


def test_threads_keep_the_order_and_stop_at_the_first_error() -> None:
    assert in_threads(lambda x: x * x, range(1000), "squares") == [x * x for x in range(1000)]
    done: list[int] = []

    def fails(x: int) -> None:
        if x == 3:
            raise InputError("three")
        done.append(x)
        os.sched_yield()

    with pytest.raises(InputError, match="three"):
        in_threads(fails, range(200_000), "numbers")
    assert len(done) < 150_000
