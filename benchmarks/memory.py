"""Peak memory of clustering and of evaluation at 1x, 4x and 16x the images: it should not grow, one
prototype and one score apart.

Images are those of the data over and over, at 160 pixels, through the bundled encoder without its
weights; each stage has a process of its own, warmed up with the smallest number of images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from safetensors.torch import save_file

from benchmarks.measure import Figure, main, peak_bytes
from ncdss_lib.data.pascal5i import Pascal5i
from ncdss_lib.method import clustering
from ncdss_lib.method.evaluation import confusion_on_val
from ncdss_lib.recipes import load_recipe
from ncdss_lib.runs.pipeline import Run

SIZE = 160
OVERRIDES = (
    *(
        f"data.size={SIZE}",
        "data.features=online",
        "model.weights=none",
        "compute.precision=fp32",
        "compute.inference_batch=4",
    ),
    *("clustering.n_init=2", "clustering.min_area_fraction=0"),
)


class Repeated:
    """A data set of any length: the images of another one over and over, under other names."""

    def __init__(self, data: Pascal5i, novel: Sequence[str], train: int, val: int) -> None:
        others = [i for i in data.train_ids if i not in novel][:4]  # a run needs base images too
        self._data = data
        self.train_ids = sorted(
            [f"{novel[k % len(novel)]}@{k:06d}" for k in range(train)]
            + [f"{i}@base" for i in others]
        )
        self.val_ids = sorted(f"{data.val_ids[k % len(data.val_ids)]}@{k:06d}" for k in range(val))

    def presence(self) -> dict[str, tuple[int, ...]]:
        known = self._data.presence()
        return {i: known[i.partition("@")[0]] for i in (*self.train_ids, *self.val_ids)}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._data, name)
        return (
            (lambda image_id: value(image_id.partition("@")[0]))
            if name in ("image", "mask", "saliency", "has_truth")
            else value
        )


def peaks(root: str, stage: str, counts: Sequence[int]) -> list[int]:
    """Peak memory of a stage over each number of images, in bytes above the process that has run it
    once.
    """
    data = Pascal5i(root, None)
    known, classes = data.presence(), set(data.folds[0])
    novel = [i for i in data.train_ids if classes & set(known[i]) and data.saliency(i) is not None]
    with tempfile.TemporaryDirectory() as folder:

        def call(count: int) -> None:
            chosen: Any = Repeated(data, novel, count, count)
            run = Run(
                chosen, 0, 0, load_recipe("laptop", OVERRIDES), Path(tempfile.mkdtemp(dir=folder))
            )
            if stage == "evaluation":
                confusion_on_val(run, run.new_segmenter(run.clusters["basic_oc"], seed=0), SIZE)
                return
            weights = run.weights("base")
            weights.parent.mkdir(parents=True)
            save_file(
                {n: t.contiguous() for n, t in run.new_segmenter(0, seed=0).state_dict().items()},
                weights,
            )
            (run.folder / "clustering").mkdir()
            clustering.compute(run, run.folder / "clustering")

        call(counts[0])
        return [peak_bytes(partial(call, count)) for count in counts]


def run(data: Pascal5i, *, images: int = 12, multiples: Sequence[int] = (1, 4, 16)) -> list[Figure]:
    figures = []
    for stage in ("clustering", "evaluation"):
        # Memory that is freed goes back to the system at once, so that what is resident is what is
        # alive.
        with (
            patch.dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536"),
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            found = pool.submit(
                peaks, str(data.root), stage, [multiple * images for multiple in multiples]
            ).result()
        growth = (found[-1] - found[0]) / (images * (multiples[-1] - multiples[0]))
        counts = ", ".join(
            f"{multiple * images} images {value / 1e6:.1f} MB"
            for multiple, value in zip(multiples, found, strict=True)
        )
        figures.append(
            Figure(
                f"{stage}: peak at {multiples[0]}x over peak at {multiples[-1]}x",
                found[0] / found[-1],
                "",
                0.9,
                counts,
            )
        )
        detail = f"a float map of {SIZE} px would be {SIZE**2 * 4 / 1e3:.0f} kB"
        figures.append(Figure(f"{stage}: growth an image", growth / 1e3, "kB", None, detail))
    return figures


if __name__ == "__main__":
    main({"memory": run}, __doc__)
