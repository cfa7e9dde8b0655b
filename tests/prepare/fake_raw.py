"""Tiny VOC 2012, SBD and COCO 2014 as they are distributed, their archives, and a server that hands the archives out."""

from __future__ import annotations

import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from scipy.io import savemat

from ncdss_lib.data.coco20i import COCO_CLASSES
from tests.data.fake_coco import CATEGORY_IDS

# ------------------------------------------------------------------------------------------------------------------ VOC and SBD
VOC_TRAIN = ["2007_000001", "2007_000002", "2007_000003"]
VOC_VAL = ["2007_000101", "2007_000102"]
SBD_TRAIN = ["2008_000001", "2007_000001", "2007_000101"]  # one of its own, one of VOC's training, one of VOC's validation list
SBD_VAL = ["2008_000003", "2008_000002", "2007_000102"]
TRAINAUG = ["2007_000001", "2007_000002", "2007_000003", "2008_000001", "2008_000002", "2008_000003"]
SPARE = "2009_000001"  # VOC holds many photos that are in no list
#: Original ids in each mask: with fold 0 the first two are novel, 2007_000003 novel and base, 2008_000002 background only.
CLASSES: dict[str, tuple[int, ...]] = {
    "2007_000001": (1,), "2007_000002": (2, 3), "2007_000003": (5, 20), "2008_000001": (6, 11), "2008_000002": (), "2008_000003": (16,),
    "2007_000101": (4,), "2007_000102": (12, 13),
}  # fmt: skip


def voc_mask(image_id: str) -> np.ndarray:
    """VOC's mask of an image, uint8 [H, W]: stripes of its classes between ignored borders."""
    height, width = (20, 30) if int(image_id[-1]) % 2 else (30, 20)
    mask = np.zeros((height, width), np.uint8)
    for slot, c in enumerate(CLASSES[image_id]):
        mask[5 * slot + 2 : 5 * slot + 7, 3:15] = 255
        mask[5 * slot + 3 : 5 * slot + 6, 4:14] = c
    return mask


def sbd_mask(image_id: str) -> np.ndarray:
    """SBD's: the same stripes, wider and without borders."""
    mask = np.where(voc_mask(image_id) == 255, 0, voc_mask(image_id))
    return np.maximum(mask, np.roll(mask, 2, axis=1))


def make_voc(folder: Path) -> Path:
    """Write VOCdevkit/VOC2012 below a folder and return it."""
    voc = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (voc / name).mkdir(parents=True)
    for image_id in [*VOC_TRAIN, *VOC_VAL]:
        save_palette(voc / "SegmentationClass" / f"{image_id}.png", voc_mask(image_id))
    for number, image_id in enumerate([*CLASSES, SPARE]):
        height, width = voc_mask(image_id if image_id in CLASSES else VOC_TRAIN[0]).shape
        Image.new("RGB", (width, height), (20 * number, 100, 200)).save(voc / "JPEGImages" / f"{image_id}.jpg")
    (voc / "Annotations" / "2007_000001.xml").write_text("<annotation/>")
    for name, ids in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", VOC_TRAIN + VOC_VAL)):
        write_list(voc / "ImageSets" / "Segmentation" / f"{name}.txt", ids)
    return voc


def make_sbd(folder: Path) -> Path:
    """Write benchmark_RELEASE/dataset below a folder and return it."""
    sbd = folder / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    (sbd / "img").mkdir()
    for image_id in {*SBD_TRAIN, *SBD_VAL}:
        save_mat(sbd / "cls" / f"{image_id}.mat", sbd_mask(image_id))
    write_list(sbd / "train.txt", SBD_TRAIN)
    write_list(sbd / "val.txt", SBD_VAL)
    return sbd


def save_mat(path: Path, mask: np.ndarray) -> None:
    """SBD's format: a struct GTcls with Boundaries, Segmentation and CategoriesPresent."""
    present = np.unique(mask[(mask > 0)]).astype(np.uint8)[:, None]
    savemat(path, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": present}}, do_compression=True)


def save_palette(path: Path, mask: np.ndarray) -> None:
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def write_list(path: Path, ids: list[str]) -> None:
    path.write_text("".join(f"{i}\n" for i in ids))


# ------------------------------------------------------------------------------------------------------------------------- COCO
def image(number: int, split: str = "train", *, width: int = 20, height: int = 12) -> dict[str, Any]:
    return {"id": number, "file_name": f"COCO_{split}2014_{number:012d}.jpg", "width": width, "height": height}


def annotation(number: int, image_id: int, label: int, segmentation: Any, *, crowd: int = 0) -> dict[str, Any]:
    """An annotation of the category that is the label-th in the list."""
    category = CATEGORY_IDS[label - 1]
    return {"id": number, "image_id": image_id, "category_id": category, "iscrowd": crowd, "segmentation": segmentation}


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A rectangle as a polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def make_coco(root: Path, contents: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> Path:
    """Write photos and annotation files; ``contents`` holds images and annotations by split."""
    (root / "annotations").mkdir(parents=True)
    for split, (images, things) in contents.items():
        (root / f"{split}2014").mkdir()
        for entry in images:
            Image.new("RGB", (entry["width"], entry["height"])).save(root / f"{split}2014" / entry["file_name"])
        categories = [{"supercategory": "thing", "id": i, "name": name} for i, name in zip(CATEGORY_IDS, COCO_CLASSES, strict=True)]
        write_annotations(root, split, {"info": {}, "images": images, "annotations": things, "categories": categories})
    return root


def annotations_file(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{split}2014.json"


def write_annotations(root: Path, split: str, content: dict[str, Any]) -> None:
    annotations_file(root, split).write_text(json.dumps(content))


# -------------------------------------------------------------------------------------------------------------------- archives
def pack(folder: Path, archive: Path) -> Path:
    """Everything below a folder as a .tar, .tgz or .zip with relative names."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for name in names:
                target.write(folder / name, name)
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as target:
            for name in names:
                target.add(folder / name, name, recursive=False)
    return archive


class _Handler(SimpleHTTPRequestHandler):
    """A static server with byte ranges; files whose name begins with ``short`` end after half of what it promised."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(content) and asked:
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.server.asked.append((path.name, asked))  # type: ignore[attr-defined]
        self.wfile.write(content[start : (len(content) - start) // 2 if path.name.startswith("short") else None])

    def log_message(self, *_: Any) -> None:
        """No lines on standard error."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve a folder on 127.0.0.1; yields its address and, of each file handed out, its name and the range that was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    with patch.dict(os.environ, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1"), server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def tree(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())
