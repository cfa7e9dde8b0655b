"""Wrong inputs of every kind, each by the command that reads it: refused with one message that helps.

``python -m tests.campaign malformed`` runs each as a process of its own, ``--fork`` as a fork of one process that has
loaded everything (minutes instead of half an hour). A row is right when the command ends with status 2 in less than 20
seconds of processor time, leaves one message with the expected words as its last line, and nothing on disk has changed.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import OVERRIDES, REPO, TINY_LAPTOP, TINY_PAPER
from tests.data.fake_voc import make_fake_folder, make_fake_voc
from tests.prepare.fake_raw import annotation, box, image, make_coco, make_sbd, make_voc, pack

LIMIT = 20.0  # seconds
Spoil = Callable[[Path], object]  # changes a copy of a kit


class Case(NamedTuple):
    """A wrong input.

    Attributes:
        kit: the folder that is copied and spoiled, see :func:`make_kits`.
        command: words of the command line; {kit}, {out} and {work} are folders.
        words: what the message must hold.
        environment: what is different there; a value of None takes a variable away.
    """

    name: str
    kit: str
    spoil: Spoil
    command: list[str]
    words: tuple[str, ...]
    environment: dict[str, str | None] | None = None


class Outcome(NamedTuple):
    status: int
    output: str
    errors: str
    seconds: float  # of the processor, since other processes may want it too


# --- kits -------------------------------------------------------------------------------------------------------------


def make_kits(root: Path) -> None:
    """Small inputs in order: ``none``, ``voc``, ``own`` (a folder), ``raw_voc``, ``raw_coco`` and ``run``, a finished run."""
    (root / "none").mkdir(parents=True)
    make_fake_voc(root / "voc", train=48, val=8)
    make_fake_folder(root / "own", make_fake_voc(root / "drawn", train=48, val=8))
    (root / "own" / "novel_classes.txt").write_text("".join(f"new {i}\n" for i in range(1, 6)))
    make_voc(root / "raw_voc")
    make_sbd(root / "raw_voc")
    contents = {
        "train": ([image(9), image(2)], [annotation(1, 9, 1, [box(1, 1, 8, 6)]), annotation(2, 2, 80, CROWD)]),
        "val": ([image(1, "val")], [annotation(7, 1, 41, [box(2, 2, 5, 5)])]),
    }
    make_coco(root / "raw_coco", contents)


def make_run_kit(root: Path, finished: Path, voc: Path) -> None:
    """The kit of trained networks: a finished run, its data, and pictures."""
    shutil.copytree(finished, root / "run" / "run")
    shutil.copytree(voc, root / "run" / "voc")
    (root / "run" / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("one.jpg", "two.png"):
        Image.fromarray(pixels).save(root / "run" / "pictures" / name)


CROWD = {"size": [12, 20], "counts": [100, 40, 100]}


# --- how things are spoiled ---------------------------------------------------------------------------------------------


def nothing(kit: Path) -> None:
    pass


def put(name: str, content: bytes | str) -> Spoil:
    """Write a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda kit: (kit / name).write_bytes(data)


def cut(name: str, share: float = 0.5) -> Spoil:
    return lambda kit: (kit / name).write_bytes((kit / name).read_bytes()[: int(share * (kit / name).stat().st_size)])


def gone(name: str) -> Spoil:
    def remove(kit: Path) -> None:
        path = kit / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def empty(name: str) -> Spoil:
    def clear(kit: Path) -> None:
        shutil.rmtree(kit / name)
        (kit / name).mkdir()

    return clear


def both(*spoils: Spoil) -> Spoil:
    return lambda kit: [spoil(kit) for spoil in spoils]


def convert(name: str, mode: str) -> Spoil:
    """The same picture in another mode."""

    def change(kit: Path) -> None:
        with Image.open(kit / name) as picture:
            picture.load()
        if mode == "I;16":
            wide = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 14 + 300)
        else:
            wide = picture.convert(mode)
        wide.save(kit / name, "PNG" if name.endswith("png") else None)

    return change


def grey16(name: str) -> Spoil:
    """16-bit grey, as PNG whatever its name."""
    values = np.linspace(300, 4000, 48 * 64).reshape(48, 64).astype(np.uint16)
    return lambda kit: Image.fromarray(values).save(kit / name, "PNG")


def floats(name: str) -> Spoil:
    return lambda kit: Image.fromarray(np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)).save(kit / name, "TIFF")


def animation(name: str) -> Spoil:
    frames = [Image.new("RGB", (64, 48), (i * 90, 0, 0)) for i in range(3)]
    return lambda kit: frames[0].save(kit / name, "GIF", save_all=True, append_images=frames[1:])


def pages(name: str) -> Spoil:
    frames = [Image.new("RGB", (64, 48), (i * 90, 0, 0)) for i in range(2)]
    return lambda kit: frames[0].save(kit / name, "TIFF", save_all=True, append_images=frames[1:])


def bomb(name: str) -> Spoil:
    """30,000 x 30,000 pixels in a few bytes: a header alone, which must be enough to refuse it."""

    def write(kit: Path) -> None:
        small = io.BytesIO()
        Image.new("L", (8, 8)).save(small, "PNG")
        data = bytearray(small.getvalue())
        data[16:24] = (30_000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        (kit / name).write_bytes(bytes(data))

    return write


def turned(name: str, orientation: int) -> Spoil:
    def write(kit: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(kit / name) as picture:
            picture.load()
        picture.save(kit / name, exif=exif)

    return write


def smaller(name: str) -> Spoil:
    def write(kit: Path) -> None:
        with Image.open(kit / name) as picture:
            picture.load()
        picture.resize((20, 10), Image.Resampling.NEAREST).save(kit / name)

    return write


def labels(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Other ids in a mask, or in all masks of a folder."""

    def write(kit: Path) -> None:
        paths = sorted((kit / name).iterdir()) if (kit / name).is_dir() else [kit / name]
        for path in paths:
            with Image.open(path) as picture:
                mask = np.array(picture)
            Image.fromarray(change(mask).astype(np.uint8)).save(path)

    return write


def four_bits(name: str) -> Spoil:
    """A grey PNG of 4 bits a pixel, which readers stretch to 0..255: id 1 would be id 17."""
    header = b"\x89PNG\r\n\x1a\n"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def write(kit: Path) -> None:
        with Image.open(kit / name) as picture:
            width, height = picture.size
        size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x04\x00\x00\x00\x00"
        rows = (b"\x00" + b"\x11" * (width // 2)) * height
        (kit / name).write_bytes(header + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

    return write


def copy(name: str, to: str) -> Spoil:
    return lambda kit: shutil.copy(kit / name, kit / to)


def keep(name: str, count: int) -> Spoil:
    """Leave the first files of a folder only."""
    return lambda kit: [path.unlink() for path in sorted((kit / name).iterdir())[count:]]


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Spoil:
    return lambda kit: (kit / name).write_text("".join(f"{line}\n" for line in change((kit / name).read_text().split())))


def encoded(name: str, encoding: str, text: str | None = None) -> Spoil:
    return lambda kit: (kit / name).write_bytes((text or (kit / name).read_text()).encode(encoding))


def annotations(change: Callable[[dict[str, Any]], object], split: str = "train") -> Spoil:
    def write(kit: Path) -> None:
        path = kit / "annotations" / f"instances_{split}2014.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


def archive(name: str, add: Callable[[tarfile.TarFile], object]) -> Spoil:
    """What is extracted becomes an archive again, with something added; ``name`` says of which part."""

    def write(kit: Path) -> None:
        folder = {"VOCtrainval_11-May-2012.tar": "VOCdevkit", "benchmark.tgz": "benchmark_RELEASE"}[name]
        (kit / ".packed").mkdir()
        (kit / folder).rename(kit / ".packed" / folder)
        pack(kit / ".packed", kit / name)
        shutil.rmtree(kit / ".packed")
        if name.endswith(".tar"):
            with tarfile.open(kit / name, "a") as tar:
                add(tar)

    return write


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], object]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)

    return add


def zipped(change: Callable[[zipfile.ZipFile], object]) -> Spoil:
    """COCO's annotations as an archive, with something added."""

    def write(kit: Path) -> None:
        (kit / ".packed").mkdir()
        (kit / "annotations").rename(kit / ".packed" / "annotations")
        path = pack(kit / ".packed", kit / "annotations_trainval2014.zip")
        shutil.rmtree(kit / ".packed")
        with zipfile.ZipFile(path, "a") as target:
            change(target)

    return write


def zip_link(target: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("annotations/link")
    info.external_attr = 0o120777 << 16
    target.writestr(info, "/etc/passwd")


def tensors(change: Callable[[dict[str, torch.Tensor]], object], name: str = "run/eums/eums.safetensors") -> Spoil:
    def write(kit: Path) -> None:
        state = load_file(kit / name)
        change(state)
        save_file(state, kit / name)

    return write


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/this-must-not-exist",)


def report(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def write(kit: Path) -> None:
        path = kit / "run" / "report.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


# --- the table ----------------------------------------------------------------------------------------------------------


def sets(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


RUN = ["run", "--device", "cpu", "--out", "{out}"]
VOC = [*RUN, "--dataset", "pascal5i", "--data-root", "{kit}", *sets(TINY_LAPTOP)]
PAPER = [*RUN, "--dataset", "pascal5i", "--data-root", "{kit}", "--recipe", "paper", *sets(TINY_PAPER)]
OWN = [*RUN, "--dataset", "folder", "--data-root", "{kit}", *sets(TINY_LAPTOP)]
SALIENCY = ["prepare", "saliency", "--data-root", "{kit}", "--out", "{out}"]
NETWORK = ["--checkpoint", "{kit}/run/eums/eums.safetensors", "--device", "cpu"]
PREDICT = ["predict", *NETWORK, "--images", "{kit}/pictures", "--out", "{out}"]
EVALUATE = ["evaluate", *NETWORK, "--dataset", "pascal5i", "--data-root", "{kit}/voc"]
PASCAL = ["prepare", "pascal5i", "--data-root", "{kit}"]
COCO = ["prepare", "coco20i", "--data-root", "{kit}"]
REPORT = ["report", "{kit}/run"]

#: Overrides that no data is needed for -> words of the message.
SETTINGS: dict[str, tuple[str, ...]] = {
    "eums.lr=.inf": ("eums.lr=inf", "finite"),
    "eums.lr=nan": ("eums.lr=nan", "finite"),
    "eums.lr=1e400": ("finite",),
    "base_training.lr=-.inf": ("finite",),
    "data.scale=[.nan, 1]": ("data.scale", "finite"),
    "data.scale=[-1, 1]": ("data.scale=[-1.0, 1.0]", "low <= high"),
    "data.scale=[2, 1]": ("data.scale=[2.0, 1.0]", "low <= high"),
    "data.scale=[0, 0]": ("low <= high",),
    "data.scale=[1]": ("data.scale",),
    "data.jitter=[0, 0, 0, 0.6]": ("hue in 0..0.5",),
    "data.jitter=[-1, 0, 0, 0]": ("brightness",),
    "data.size=0": ("data.size=0", "32"),
    "data.size=1000000": ("data.size", "4096"),
    "data.workers=100000": ("data.workers", "256"),
    "data.flip=1.5": ("data.flip", "1"),
    "model.stages=[]": ("model.stages", "at least 1"),
    "model.stages=[-1]": ("model.stages=[-1]", "from 0 on"),
    "model.stages=[4, 2]": ("model.stages=[4, 2]", "rising"),
    "model.stages=[2, 2]": ("each once",),
    "model.output_stride=7": ("model.output_stride",),
    "model.head_channels=0": ("model.head_channels",),
    "model.dropout=1": ("model.dropout",),
    "compute.precision=fp8": ("compute.precision", "bf16"),
    "base_training.epochs=0": ("base_training.epochs",),
    "base_training.epochs=99999999999999999999": ("base_training.epochs", "10000"),
    "base_training.batch_size=-4": ("base_training.batch_size",),
    "base_training.lr=1.0e30": ("base_training.lr", "10"),
    "eums.momentum=1": ("eums.momentum",),
    "eums.max_weight=1.0e300": ("eums.max_weight",),
    "eums.reassign_epochs=[-1]": ("reassign_epochs", "from 0 on"),
    "eums.reassign_share=0": ("eums.reassign_share",),
    "eums.teacher_momentum=2": ("eums.teacher_momentum",),
    "entropy_ranking.clean_share=1": ("entropy_ranking.clean_share",),
    "clustering.num_clusters=1": ("clustering.num_clusters",),
    "clustering.min_area_fraction=-0.1": ("clustering.min_area_fraction",),
    "eums.epochs=2024-01-01": ("eums.epochs", "integer"),
    "eums.epochs=[": ("not valid YAML",),
    "eums.epochs": ("stage.field=value",),
    "eum.epochs=1": ("unknown stage 'eum'", "eums"),
    "eums.epoch=1": ("unknown field 'epoch'", "epochs"),
    "eums.epochs=\u0665": ("eums.epochs", "integer"),
}

#: Overrides that only the data or the encoder refuses.
SETTINGS_AND_DATA: dict[str, tuple[str, ...]] = {
    "model.stages=[9]": ("model.stages=[9]", "stages 0 to 4"),
    "model.encoder=resnot50": ("timm has no model 'resnot50'",),
    "model.encoder=": ("model.encoder",),
    "model.encoder=resnet18.nobody": ("Invalid pretrained tag",),
    "model.weights=absent.pth": ("absent.pth is not a file",),
    "clustering.num_clusters=100000": ("K = 100000", "labels"),
    "clustering.num_clusters=250": ("K = 250", "266 labels", "255"),
    "clustering.num_clusters=40": ("more clusters than images", "K = 40"),
    "clustering.over_clustering=9": ("more clusters than images", "K = 45"),
    "clustering.min_area_pixels=1000000000": ("more clusters than images", "area limit"),
    "clustering.min_area_fraction=1": ("more clusters than images",),
    "entropy_ranking.clean_share=0.01": ("'clean' is empty", "epoch 0"),
    "entropy_ranking.enabled=false": ("'unclean' is empty",),
    "eums.reassign_share=0.01": ("'clean' is empty", "epoch 1"),
    "data.num_novel=3": ("data.num_novel=3", "folder"),
}
PAPER_AND_DATA: dict[str, tuple[str, ...]] = {
    "basic_framework.batch_size=1": ("basic", "batch_size=1", "at least 2"),
    "data.size=32 model.output_stride=32": ("data.size=32", "1 x 1"),
    "model.encoder=vgg16": ("gives no features", "vgg16"),
    "basic_framework.steps_per_epoch=null basic_framework.batch_size=40": ("basic", "fewer than one batch"),
}

PHOTO = "images/2007_000005.jpg"
VAL_PHOTO = "images/2008_000002.jpg"
MASK = "SegmentationClassAug/2007_000005.png"
MAPS = "saliency_supervised_model"
MAP = f"{MAPS}/2007_000005.png"

#: What is wrong with a photo, and the words for it; tried on each reader of photos.
PHOTOS: dict[str, tuple[Callable[[str], Spoil], tuple[str, ...]]] = {
    "truncated": (cut, ("cannot be read", "again")),
    "without a byte": (lambda name: put(name, b""), ("not an image",)),
    "text": (lambda name: put(name, "no picture"), ("not an image",)),
    "16-bit grey": (grey16, ("mode I;16", "8 bits a channel", "0..255")),
    "floating-point": (floats, ("mode F", "8 bits a channel")),
    "animated": (animation, ("3 pictures", "Expected one")),
    "a bomb": (bomb, ("too many pixels", "scale it down")),
}


def cases() -> Iterator[Case]:
    """All rows."""
    for override, words in SETTINGS.items():
        yield Case(f"setting {override}", "none", nothing, [*RUN, "--set", override], words)
    for override, words in SETTINGS_AND_DATA.items():
        yield Case(f"setting {override} on data", "voc", nothing, [*VOC, "--set", override], words)
    for overrides, words in PAPER_AND_DATA.items():
        yield Case(f"paper with {overrides}", "voc", nothing, [*PAPER, *sets(overrides.split())], words)
    yield from option_cases()
    yield from photo_cases()
    yield from mask_cases()
    yield from map_cases()
    yield from list_cases()
    yield from folder_cases()
    yield from annotation_cases()
    yield from archive_cases()
    yield from checkpoint_cases()
    yield from report_cases()
    yield from environment_cases()


def option_cases() -> Iterator[Case]:
    file = put("file", "")
    is_file = ("is a file", "Expected a folder")
    place = [*RUN[:3], "--out"]
    data = ["--dataset", "pascal5i", "--data-root", "{kit}"]
    yield Case("--out is a file", "none", file, [*place, "{kit}/file"], ("--out", *is_file))
    yield Case("--out below a file", "none", file, [*place, "{kit}/file/run"], ("--out", *is_file))
    yield Case("reproduce --out is a file", "none", file, ["reproduce", "--out", "{kit}/file"], ("--out", *is_file))
    yield Case("predict --out below a file", "run", file, [*PREDICT[:-1], "{kit}/file/x"], is_file)
    yield Case("predict --out is not empty", "run", nothing, [*PREDICT[:-1], "{kit}/voc"], ("not an empty folder",))
    yield Case("evaluate --out below a file", "run", file, [*EVALUATE, "--out", "{kit}/file/x.json"], is_file)
    yield Case("evaluate --out is a folder", "run", nothing, [*EVALUATE, "--out", "{kit}"], ("is a folder", "file name"))
    for variable in ("NCDSS_RUNS", "NCDSS_CACHE"):
        yield Case(f"${variable} is a file", "none", file, ["run"], (variable, *is_file), {variable: "{kit}/file"})
    yield Case("unknown data set", "none", nothing, ["run", "--dataset", "voc"], ("unknown data set 'voc'",))
    yield Case("unknown fold", "voc", nothing, [*RUN, *data, "--fold", "7"], ("fold 7 does not exist",))
    yield Case("negative fold", "voc", nothing, [*RUN, *data, "--fold", "-1"], ("fold -1 does not exist",))
    yield Case("fold in words", "none", nothing, ["run", "--fold", "one"], ("--fold", "'one'"))
    yield Case("seed too large", "none", nothing, ["run", "--seed", "99999999999"], ("--seed 99999999999",))
    yield Case("unknown device", "voc", nothing, [*VOC[:1], *VOC[3:], "--device", "tpu"], ("unknown device 'tpu'",))
    yield Case("unknown option", "none", nothing, ["run", "--sed", "1"], ("unknown option '--sed'",))
    yield Case("no data root", "none", nothing, ["run", "--dataset", "coco20i"], ("--data-root", "$NCDSS_DATA_ROOT"))
    yield Case("seeds twice", "none", nothing, ["reproduce", "--seeds", "1", "1"], ("without repetition",))
    yield Case("no jobs", "none", nothing, ["reproduce", "--jobs", "0"], ("--jobs must be at least 1",))
    yield Case("unknown cluster", "none", nothing, ["reproduce", "--submit", "slum"], ("--submit 'slum'",))


def photo_cases() -> Iterator[Case]:
    readers = {
        "training photo": ("voc", PHOTO, VOC),
        "validation photo under paper": ("voc", VAL_PHOTO, PAPER),
        "unlabelled photo": ("own", "unlabelled/2007_000001.jpg", OWN),
        "picture to predict": ("run", "pictures/one.jpg", PREDICT),
        "picture for a map": ("voc", PHOTO, SALIENCY),
    }
    for reader, (kit, name, command) in readers.items():
        for kind, (make, words) in PHOTOS.items():
            yield Case(f"{reader}: {kind}", kit, make(name), command, (name.split("/")[-1], *words))
    sideways = ("is 64x48", "Expected 48x64")
    yield Case("voc photo turned", "voc", turned(PHOTO, 6), VOC, ("2007_000005.png", *sideways))
    yield Case("labelled photo turned", "own", turned("images/2007_000002.jpg", 8), OWN, ("2007_000002.png", *sideways))
    yield Case("several pages", "run", both(gone("pictures/one.jpg"), pages("pictures/one.tif")), PREDICT, ("2 pictures",))
    yield Case("no such picture", "run", nothing, [*PREDICT, "--images", "{kit}/absent"], ("neither a folder nor a file",))
    yield Case("no picture at all", "run", empty("pictures"), PREDICT, ("holds no picture",))


def mask_cases() -> Iterator[Case]:
    readers = {
        "voc": ("voc", MASK, VOC, "1..20 or 255"),
        "own": ("own", "masks/2007_000002.png", OWN, "1..15 or 255"),
        "val": ("own", "val/masks/2008_000002.png", OWN, "1..20 or 255"),
    }
    for reader, (kit, name, command, ids) in readers.items():
        file = name.split("/")[-1]
        for mode in ("RGB", "RGBA", "LA", "I;16", "1"):
            yield Case(f"{reader} mask: {mode}", kit, convert(name, mode), command, (file, "mode", "one channel"))
        yield Case(f"{reader} mask: truncated", kit, cut(name), command, (file, "cannot be read"))
        yield Case(f"{reader} mask: empty", kit, put(name, b""), command, (file, "not an image"))
        yield Case(f"{reader} mask: size", kit, smaller(name), command, (file, "is 20x10", "Expected"))
        yield Case(f"{reader} mask: ids", kit, labels(name, lambda m: m * 0 + 99), command, (file, "label ids [99]", ids))
        yield Case(f"{reader} mask: 4 bits", kit, four_bits(name), command, (file, "less than 8 bits"))
    black_and_white = ("0 (background) or 255", "black and white")
    for kit, folder, command in (("voc", "SegmentationClassAug", VOC), ("own", "masks", OWN)):
        spoil = labels(folder, lambda m: np.where(m > 0, 255, 0))
        # of a folder of one's own the unlabelled images hold novel classes, so a base class is missed
        words = black_and_white if kit == "voc" else ("no base image", "Check the masks")
        yield Case(f"{kit} masks: 0 and 255", kit, spoil, command, words)
        yield Case(f"{kit} masks: 255 only", kit, labels(folder, lambda m: m * 0 + 255), command, words)


def rename_maps(kit: Path) -> None:
    for path in (kit / MAPS).iterdir():
        path.rename(path.with_stem(f"x{path.stem}"))


def map_cases() -> Iterator[Case]:
    for kit, command, name in (("voc", VOC, MAP), ("own", OWN, f"{MAPS}/2007_000001.png")):
        file = name.split("/")[-1]
        yield Case(f"{kit} map: RGB", kit, convert(name, "RGB"), command, (file, "mode RGB", "one channel"))
        yield Case(f"{kit} map: 16 bits", kit, grey16(name), command, (file, "I;16", "8-bit"))
        yield Case(f"{kit} map: truncated", kit, cut(name), command, (file, "cannot be read"))
        yield Case(f"{kit} map: empty", kit, put(name, b""), command, (file, "not an image"))
        yield Case(f"{kit} map: size", kit, smaller(name), command, (file, "is 20x10"))
        yield Case(f"{kit} maps: none", kit, gone(MAPS), command, ("no map", "ncdss prepare saliency"))
        yield Case(f"{kit} maps: three", kit, keep(MAPS, 3), command, ("more clusters than images", "without saliency"))
        yield Case(f"{kit} maps: black", kit, labels(MAPS, lambda m: m * 0), command, ("more clusters than images",))
    ready = [*SALIENCY, "--maps", f"{{kit}}/{MAPS}"]
    yield Case("ready map: RGB", "voc", convert(MAP, "RGB"), ready, ("mode RGB", "one channel"))
    yield Case("ready map: size", "voc", smaller(MAP), ready, ("is 20x10",))
    yield Case("ready map: truncated", "voc", cut(MAP), ready, ("cannot be read",))
    yield Case("ready maps: other names", "voc", rename_maps, ready, ("has the name of one",))
    yield Case("ready maps: no folder", "voc", gone(MAPS), ready, ("is not a folder",))
    yield Case("--threshold 2", "voc", nothing, [*SALIENCY, "--threshold", "2"], ("--threshold is 2.0",))
    yield Case("--threshold nan", "voc", nothing, [*SALIENCY, "--threshold", "nan"], ("--threshold is nan",))
    yield Case("--min-area -1", "voc", nothing, [*SALIENCY, "--min-area", "-1"], ("--min-area is -1.0",))
    yield Case("maps of others", "voc", nothing, SALIENCY[:4], ("did not write", "--out"))
    yield Case("--model and --maps", "voc", nothing, [*ready, "--model", "u2net"], ("exclude each other",))
    yield Case("unknown model", "voc", nothing, [*SALIENCY, "--model", "u9net"], ("u9net", "not installed"))


def list_cases() -> Iterator[Case]:
    train, val = "sets/trainaug.txt", "sets/val.txt"
    yield Case("list: missing", "voc", gone(train), VOC, (train, "No such file"))
    yield Case("list: empty", "voc", put(train, "\n \n"), VOC, (train, "is empty"))
    yield Case("list: twice", "voc", lines(train, lambda ids: [*ids, ids[0]]), VOC, ("more than once",))
    yield Case("list: shared", "voc", lines(val, lambda ids: [*ids, "2007_000001"]), VOC, ("share 1 ids",))
    yield Case("list: UTF-16", "voc", encoded(train, "utf-16"), VOC, (train, "UTF-16", "UTF-8"))
    yield Case("list: UTF-16 without mark", "voc", encoded(train, "utf-16-le"), VOC, (train, "UTF-16"))
    yield Case("list: Latin-1", "voc", encoded(train, "latin-1", "2007_000001\n\u00e4pfel\n"), VOC, (train, "line 2", "Latin-1"))
    yield Case("list: paths", "voc", lines(train, lambda ids: [*ids, "../../etc/passwd"]), VOC, ("etc/passwd",))
    yield Case("list: suffixes", "voc", lines(train, lambda ids: [f"{i}.jpg" for i in ids]), VOC, (".jpg.jpg",))
    yield Case("list: a folder", "voc", both(gone(train), lambda kit: (kit / train).mkdir()), VOC, (train, "Is a directory"))
    yield Case("list: unknown id", "voc", lines(val, lambda ids: [*ids, "2009_1"]), VOC, ("2009_1.jpg", "1 of them"))
    for name in ("classes.txt", "novel_classes.txt"):
        yield Case(f"{name}: Latin-1", "own", encoded(name, "latin-1", "Tisch\n\u00c4pfel\n"), OWN, (name, "line 2", "UTF-8"))
        yield Case(f"{name}: UTF-16", "own", encoded(name, "utf-16"), OWN, (name, "UTF-16"))
        yield Case(f"{name}: blank line", "own", put(name, "a\n\nb\n"), OWN, (name, "line 2 is blank"))
        yield Case(f"{name}: background", "own", put(name, "a\nBackground\n"), OWN, (name, "line 2", "background"))
        yield Case(f"{name}: empty", "own", put(name, "\ufeff\n"), OWN, (name, "is empty"))
        yield Case(f"{name}: twice", "own", put(name, "a\nb\na\n"), OWN, ("'a'", "more than once"))
    many = put("classes.txt", "".join(f"thing {i}\n" for i in range(300)))
    yield Case("classes.txt: 300 names", "own", many, OWN, ("305 classes", "8 bits"))
    yield Case("novel classes contradict", "own", nothing, [*OWN, "--set", "data.num_novel=3"], ("names 5 novel classes",))


def folder_cases() -> Iterator[Case]:
    for name in ("images", "SegmentationClassAug", "sets"):
        yield Case(f"voc without {name}", "voc", gone(name), VOC, (name, "No such file"))
    for name in ("images", "masks", "unlabelled", "val/masks"):
        yield Case(f"own without {name}", "own", gone(name), OWN, (name, "No such file"))
    yield Case("two files of a name", "voc", copy(PHOTO, PHOTO.replace(".jpg", ".JPG")), VOC, ("2007_000005.JPG and 2007_000005.jpg",))
    webp = put("unlabelled/x.webp", "")
    yield Case("photos of another format", "own", webp, OWN, ("another format", "x.webp", "convert"))
    shared = copy("images/2007_000002.jpg", "unlabelled/2007_000002.jpg")
    yield Case("labelled and unlabelled", "own", shared, OWN, ("share 1 ids",))
    yield Case("no unlabelled photo", "own", empty("unlabelled"), OWN, ("holds no picture",))
    one = both(keep("unlabelled", 1), gone("novel_classes.txt"))
    command = [*OWN, "--set", "data.num_novel=1"]
    yield Case("one unlabelled photo", "own", one, command, ("more clusters than images", "two are needed"))
    yield Case("a name that is not UTF-8", "own", put(os.fsdecode(b"unlabelled/\xe4.jpg"), ""), OWN, ("not UTF-8", "rename"))
    nowhere = both(gone(PHOTO), lambda kit: (kit / PHOTO).symlink_to("/nowhere"))
    yield Case("a link that leads nowhere", "voc", nowhere, VOC, ("no file for 1 of them",))
    paper = [*RUN, "--dataset", "folder", "--data-root", "{kit}", "--recipe", "paper", *sets(TINY_PAPER)]
    yield Case("best epoch without validation", "own", gone("val"), paper, ("best_val", "select=last"))
    yield Case("root is a file", "none", put("file", ""), [*RUN, "--dataset", "folder", "--data-root", "{kit}/file"], ("is not a folder",))


def annotation_cases() -> Iterator[Case]:
    def things(index: int, **values: Any) -> Spoil:
        return annotations(lambda content: content["annotations"][index].update(values))

    def pictures(**values: Any) -> Spoil:
        return annotations(lambda content: content["images"][0].update(values))

    file = "instances_train2014.json"
    path = f"annotations/{file}"
    rows: dict[str, tuple[Spoil, tuple[str, ...]]] = {
        "no JSON": (put(path, "{"), ("Invalid JSON",)),
        "empty": (put(path, ""), ("Invalid JSON",)),
        "a list": (put(path, "[]"), ("Input should be an object",)),
        "deep": (put(path, "[" * 100_000), ("Invalid JSON",)),
        "truncated": (cut(path), ("Invalid JSON",)),
        "UTF-16": (encoded(path, "utf-16-le", '{"images": "\u00e4"}'), (file,)),
        "three categories": (annotations(lambda c: c.update(categories=c["categories"][:3])), ("3 categories", "--dataset folder")),
        "other names": (annotations(lambda c: c["categories"][4].update(name="kite red")), ("none of its own", "by their names")),
        "a name twice": (annotations(lambda c: c["categories"][4].update(name="person")), ("none of its own", "by their names")),
        "category ids twice": (annotations(lambda c: c["categories"][4].update(id=1)), ("none of its own for 'person'",)),
        "no categories": (annotations(lambda c: c.pop("categories")), ("categories: Field required",)),
        "no images": (annotations(lambda c: c.update(images=[])), ("not among the images",)),
        "ids in fractions": (things(0, id=1.5), ("annotations.0.id: Input should be a valid integer",)),
        "ids in words": (things(0, image_id="nine"), ("image_id",)),
        "unknown image": (things(0, image_id=77), ("image 77 is not among",)),
        "unknown category": (things(0, category_id=12), ("category 12 is not among",)),
        "four and a half points": (things(0, segmentation=[[1, 2, 3, 4, 5]]), ("a polygon of 5 numbers",)),
        "NaN": (things(0, segmentation=[[1, 2, float("nan"), 4, 5, 6]]), ("the coordinate nan",)),
        "far away": (things(0, segmentation=[[1, 2, 1e9, 4, 5, 6]]), ("the coordinate 1000000000.0",)),
        "no segmentation": (things(0, segmentation=None), ("segmentation",)),
        "negative run": (things(1, segmentation={"size": [12, 20], "counts": [-100, 340]}), ("counts.0: Input should be greater than",)),
        "runs too short": (things(1, segmentation={"size": [12, 20], "counts": [3]}), ("its runs cover 3 of 240",)),
        "runs of another size": (things(1, segmentation={"size": [20, 12], "counts": [240]}), ("12x20 pixels",)),
        "damaged runs": (things(1, segmentation={"size": [12, 20], "counts": "~~~"}), ("is damaged",)),
        "crowd 2": (things(1, iscrowd=2), ("iscrowd", "0 or 1")),
        "a path": (pictures(file_name="../x.jpg"), ("file_name", "'../x.jpg'")),
        "a size of 0": (pictures(height=0), ("height",)),
        "another size": (pictures(height=24), ("Expected 20x24",)),
        "ids of images twice": (pictures(id=2), ("image ids occur more than once",)),
        "no objects": (annotations(lambda c: c.update(annotations=[])), ("no image holds an object",)),
        "photo missing": (gone("train2014/COCO_train2014_000000000009.jpg"), ("no file for 1 of them",)),
        "photo damaged": (put("train2014/COCO_train2014_000000000009.jpg", "x"), ("not an image",)),
        "masks of others": (lambda kit: (kit / "masks_published").mkdir(), ("was not made by",)),
    }
    for name, (spoil, words) in rows.items():
        yield Case(f"annotations: {name}", "raw_coco", spoil, COCO, words)
    yield Case("unknown masks", "raw_coco", nothing, [*COCO, "--masks", "complet"], ("did you mean 'complete'",))
    yield Case("coco not prepared", "raw_coco", nothing, [*RUN, "--dataset", "coco20i", "--data-root", "{kit}"], ("ncdss prepare coco20i",))


def other_archive(kit: Path) -> None:
    pack(kit / "benchmark_RELEASE", kit / "VOCtrainval_11-May-2012.tar")


def archive_cases() -> Iterator[Case]:
    tar = "VOCtrainval_11-May-2012.tar"
    unsafe = (tar, "leaves the archive", "Nothing was extracted")
    rows: dict[str, tuple[Spoil, tuple[str, ...]]] = {
        "a path that leaves": (archive(tar, member("../evil.txt")), unsafe),
        "an absolute path": (archive(tar, member("/tmp/evil.txt")), unsafe),
        "a Windows path": (archive(tar, member("C:\\evil.txt")), unsafe),
        "a link": (archive(tar, member("VOCdevkit/VOC2012/JPEGImages/a.jpg", tarfile.SYMTYPE, "/etc/passwd")), unsafe),
        "a hard link": (archive(tar, member("VOCdevkit/VOC2012/JPEGImages/a.jpg", tarfile.LNKTYPE, "../../x")), unsafe),
        "a device": (archive(tar, member("VOCdevkit/VOC2012/JPEGImages/a.jpg", tarfile.CHRTYPE)), unsafe),
        "truncated": (both(archive(tar, nothing), cut(tar)), (tar, "cannot be read to its end")),
        "without a byte": (both(archive(tar, nothing), put(tar, b"")), (tar, "cannot be read to its end")),
        "text": (both(archive(tar, nothing), put(tar, "x" * 2000)), (tar, "cannot be read to its end")),
        "a tgz that is truncated": (both(archive("benchmark.tgz", nothing), cut("benchmark.tgz")), ("benchmark.tgz", "to its end")),
        "something else": (both(archive(tar, nothing), other_archive), ("holds no", "right archive")),
        "nothing": (gone("VOCdevkit"), ("VOC 2012 missing", "--download")),
        "a damaged .mat": (put("benchmark_RELEASE/dataset/cls/2008_000001.mat", "x"), ("2008_000001.mat", "cannot be read")),
        "a mask missing": (gone("VOCdevkit/VOC2012/SegmentationClass/2007_000001.png"), ("no file for 1 of them",)),
        "half a layout": (lambda kit: (kit / "images").mkdir(), ("holds images but not",)),
    }
    for name, (spoil, words) in rows.items():
        yield Case(f"archive: {name}", "raw_voc", spoil, PASCAL, words)
    zips: dict[str, tuple[Spoil, tuple[str, ...]]] = {
        "a path that leaves": (zipped(lambda z: z.writestr("../evil", "")), ("leaves the archive",)),
        "a link": (zipped(zip_link), ("leaves the archive",)),
        "truncated": (both(zipped(nothing), cut("annotations_trainval2014.zip")), ("cannot be read to its end",)),
        "an archive in it": (both(zipped(nothing), lambda kit: _nest(kit / "annotations_trainval2014.zip")), ("holds no annotations/",)),
    }
    for name, (spoil, words) in zips.items():
        yield Case(f"zip: {name}", "raw_coco", spoil, COCO, words)


def _nest(path: Path) -> None:
    inner = path.read_bytes()
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("inner.zip", inner)


def checkpoint_cases() -> Iterator[Case]:
    file = "run/eums/eums.safetensors"
    head = "head.0.weight"

    def fill(value: float) -> Spoil:
        return tensors(lambda state: state[head].view(-1)[:1].fill_(value))

    def saved(content: Any) -> Spoil:
        return lambda kit: torch.save(content, kit / file)

    rows: dict[str, tuple[Spoil, tuple[str, ...]]] = {
        "NaN": (fill(float("nan")), ("no numbers", head)),
        "infinite": (fill(float("inf")), ("no numbers", head)),
        "a tensor missing": (tensors(lambda state: state.pop(head)), (f"{head} is missing",)),
        "a tensor more": (tensors(lambda state: state.update({"head.99.bias": torch.zeros(3)})), ("head.99.bias is unknown",)),
        "another shape": (tensors(lambda state: state.update({head: torch.zeros(3, 3)})), (f"{head} has shape",)),
        "half precision of NaN": (tensors(lambda state: state.update({head: state[head].half() * float("nan")})), (head,)),
        "an unknown layout": (tensors(lambda state: state.update({"foo.bar": torch.zeros(1)})), ("no known layout",)),
        "truncated": (cut(file), ("cannot be read",)),
        "a wrong header": (put(file, (10**15).to_bytes(8, "little") + b"{}"), ("cannot be read",)),
        "without a byte": (put(file, b""), ("cannot be read",)),
        "text": (put(file, "no checkpoint"), ("cannot be read",)),
        "code": (saved({"model": Runs()}), ("nothing of it was run",)),
        "a list": (saved([1, 2]), ("holds no state dict",)),
        "numbers": (saved({"a": 1}), ("holds no state dict",)),
        "missing": (gone(file), ("there is no checkpoint",)),
        "a folder": (both(gone(file), lambda kit: (kit / file).mkdir()), ("there is no checkpoint",)),
        "manifest missing": (gone("run/eums/manifest.json"), ("manifest.json", "not beside it")),
        "manifest cut": (cut("run/eums/manifest.json"), ("manifest.json",)),
        "report cut": (cut("run/report.json"), ("report.json", "not valid JSON")),
    }
    for name, (spoil, words) in rows.items():
        yield Case(f"checkpoint: {name}", "run", spoil, PREDICT, words)
    yield Case("evaluate: NaN", "run", fill(float("nan")), EVALUATE, ("no numbers", head))
    yield Case("evaluate: another K", "run", nothing, [*EVALUATE, "--clusters", "3"], ("K = 3",))
    yield Case("evaluate: another fold", "run", nothing, [*EVALUATE, "--fold", "2"], ("--fold 0",))
    yield Case("evaluate: toyscenes", "run", nothing, ["evaluate", *NETWORK], ("trained on pascal5i",))
    yield Case("unknown network", "run", nothing, [*PREDICT, "--network", "tutor"], ("unknown network 'tutor'",))


def report_cases() -> Iterator[Case]:
    rows: dict[str, tuple[Spoil, tuple[str, ...]]] = {
        "another schema": (report(lambda r: r.update(schema=2)), ("schema 2",)),
        "no schema": (report(lambda r: r.pop("schema")), ("report.json", "schema")),
        "no models": (report(lambda r: r.pop("models")), ("report.json", "models")),
        "models as text": (report(lambda r: r.update(models="none")), ("is not a report",)),
        "no JSON": (put("run/report.json", "{"), ("is not a report",)),
        "a list": (put("run/report.json", "[]"), ("is not a report",)),
        "without a byte": (put("run/report.json", ""), ("is not a report",)),
        "missing": (gone("run/report.json"), ("no report.json",)),
        "images as text": (report(lambda r: r.update(images={"base": "many", "novel": 1})), ("is not a report",)),
    }
    for name, (spoil, words) in rows.items():
        yield Case(f"report: {name}", "run", spoil, REPORT, words)
    yield Case("report: unknown protocol", "run", nothing, [*REPORT, "--protocol", "best"], ("unknown protocol 'best'",))
    yield Case("report: no such folder", "none", nothing, ["report", "{kit}/absent"], ("no report.json",))


def environment_cases() -> Iterator[Case]:
    wrong = encoded("classes.txt", "latin-1", "Tisch\n\u00c4pfel\n")
    words = ("classes.txt", "line 2", "UTF-8")
    places: dict[str, dict[str, str | None]] = {
        "no HOME": {"HOME": None},
        "a HOME that is not there": {"HOME": "/nonexistent"},
        "LC_ALL=C": {"LC_ALL": "C", "LANG": "C"},
        "an ASCII terminal": {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "a Latin-1 terminal": {"PYTHONIOENCODING": "latin-1:strict"},
        "no PATH": {"PATH": ""},
    }
    for name, environment in places.items():
        yield Case(f"environment: {name}", "own", wrong, OWN, words, environment)
    for name in ("a b", "it's", 'say "hi"', "$HOME", "100%", "#1", "{fold}", "\u00e4\u0161\u6f22", "*?"):
        spoil = both(wrong, lambda kit, name=name: shutil.copytree(kit, kit.parent / name))
        command = [*OWN, "--data-root", f"{{work}}/{name.replace('{', '{{').replace('}', '}}')}"]
        yield Case(f"a folder called {name}", "own", spoil, command, (name, *words))


# --- running them -------------------------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, but for caches; folders count too."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not name.startswith("cache"):
            stat = path.lstat()
            found[name] = (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
    return found


def prepare_case(case: Case, kits: Path, work: Path) -> tuple[list[str], dict[str, str]]:
    """Copy and spoil the kit of a case below ``work``. Returns its command and its environment."""
    kit = work / "kit"
    shutil.copytree(kits / case.kit, kit, symlinks=True)
    case.spoil(kit)
    places = {"kit": str(kit), "out": str(work / "out"), "work": str(work)}
    environment = {**os.environ, "NCDSS_RUNS": str(work / "runs"), "NCDSS_CACHE": str(work / "cache"), "PYTHONPATH": str(REPO)}
    environment.pop("NCDSS_DATA_ROOT", None)
    for name, value in (case.environment or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value.format(**places)
    return [word.format(**places) for word in case.command], environment


def as_process(command: list[str], environment: dict[str, str], work: Path) -> Outcome:
    words = [sys.executable, "-m", "ncdss_lib", *command]
    files = [work.parent / f"{work.name}{name}" for name in (".stdout", ".stderr")]
    with files[0].open("wb") as output, files[1].open("wb") as errors:
        process = subprocess.Popen(words, cwd=work, env=environment, stdout=output, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said = [file.read_text(errors="replace") for file in files]
    return Outcome(process.returncode, *said, used.ru_utime + used.ru_stime)


def as_fork(command: list[str], environment: dict[str, str], work: Path) -> Outcome:
    """The same in a copy of this process: what it takes to import everything is not counted."""
    from ncdss_lib.cli import main as ncdss

    child = os.fork()
    if child == 0:
        os.chdir(work)
        os.environ.clear()
        os.environ.update(environment)
        for number, name in ((1, ".stdout"), (2, ".stderr")):
            os.dup2(os.open(work.parent / f"{work.name}{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        status = ncdss(command)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, used = os.wait4(child, 0)
    output, errors = ((work.parent / f"{work.name}{name}").read_text(errors="replace") for name in (".stdout", ".stderr"))
    return Outcome(os.waitstatus_to_exitcode(status), output, errors, used.ru_utime + used.ru_stime)


def problems(case: Case, outcome: Outcome, changed: set[str]) -> list[str]:
    """What is wrong with how a case ended; nothing is the right answer."""
    found = []
    said = outcome.errors.replace("\r", "\n").rstrip("\n").split("\n")
    messages = [line for line in said if line.startswith("ncdss: ")]
    if outcome.status != 2:
        found.append(f"status {outcome.status}")
    if "Traceback" in outcome.errors or "Traceback" in outcome.output:
        found.append("a traceback")
    if len(messages) != 1 or said[-1] != messages[0]:
        found.append(f"{len(messages)} messages, last line {said[-1][:80]!r}")
    found += [f"{word!r} is not said" for word in case.words if word not in " ".join(messages)]
    if outcome.seconds > LIMIT:
        found.append(f"{outcome.seconds:.0f} s")
    if changed:
        found.append(f"left or changed {sorted(changed)[:3]}")
    return found


def try_case(case: Case, kits: Path, work: Path, how: Callable[[list[str], dict[str, str], Path], Outcome]) -> tuple[Outcome, list[str]]:
    """Run one case in ``work``, a new folder."""
    work.mkdir(parents=True)
    command, environment = prepare_case(case, kits, work)
    before = tree(work)
    outcome = how(command, environment, work)
    after = tree(work)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    shutil.rmtree(work)
    return outcome, problems(case, outcome, changed)


def main(arguments: list[str]) -> int:
    """Run all cases, or those whose name holds a word; exit status 0 when all are right."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign malformed", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="of the names of the cases")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first cases, seen before")
    parser.add_argument("--fork", action="store_true", help="forks of one process instead of processes")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--show", action="store_true", help="print every message")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if any(word in case.name for word in options.only)][options.skip :]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory(prefix="malformed-") as folder:
        kits, work = Path(folder) / "kits", Path(folder) / "work"
        make_kits(kits)
        if any(case.kit == "run" for case in chosen):
            _finish_run(kits)
        if options.fork:  # what every child would import
            for module in ("ncdss_lib.runs.grid", "ncdss_lib.runs.predict_images", "ncdss_lib.runs.evaluate_checkpoint"):
                importlib.import_module(module)
        how = as_fork if options.fork else as_process
        with ThreadPoolExecutor(1 if options.fork else options.jobs) as pool:
            pending = [pool.submit(try_case, case, kits, work / f"{i:03d}", how) for i, case in enumerate(chosen)]
            results = []
            for case, future in zip(chosen, pending, strict=True):
                outcome, found = future.result()
                results.append((outcome.seconds, case, found))
                print(f"{'right' if not found else 'WRONG'} {outcome.seconds:5.1f} s  {case.name}", *found, sep="  ", flush=True)
                if options.show or found:
                    print("    ", outcome.errors.strip().split("\n")[-1][:600], flush=True)
    right = sum(not found for *_, found in results)
    slowest = max(results, key=lambda result: result[0])
    print(f"{len(results)} malformed inputs, {right} right; slowest refusal {slowest[0]:.1f} s of processor time ({slowest[1].name})")
    return int(right < len(results))


def _finish_run(kits: Path) -> None:
    from ncdss_lib.runs.pipeline import open_run

    os.environ["NCDSS_CACHE"] = str(kits / "cache")
    finished = kits / "finished"
    open_run("pascal5i", str(kits / "voc"), 0, 0, "laptop", str(finished), OVERRIDES["laptop"], "cpu").write_report()
    make_run_kit(kits, finished, kits / "voc")
