"""The whole pipeline measured on one card by one command, for a machine where nothing can be
installed.

::

    python -m benchmarks.gpu --out DIR [--minutes 6] [--data-root DIR]   # prints, and DIR/gpu.json
    python -m benchmarks.gpu --out DIR --device cpu --tiny               # the same in small
    python -m benchmarks.gpu.pack --data-root DIR --out PACK             # a folder to carry along

Each part is printed and written as it ends, so a run that is cut off keeps what it has. A part that
fails says so in its place; one for which no time is left is written as not run.

machine
    card, driver, versions; what it multiplies, convolves and copies at best
steps
    a training step of each stage: the published loop and ours, feature by feature; what the slowest
    kernels are
loading
    images a second from JPEG files by number of processes, and augmentation on the device
inference
    base-class removal, prototypes, entropy, scores: the published formulation and ours
runs
    ``ncdss run --recipe paper`` in short, by stage
checks
    a run killed and resumed, one equal to the CPU's, one under torchrun
laptop
    ``ncdss run --recipe laptop`` on the card and on the CPU
compiled
    the steps again, with batch-norm folded into convolutions, and compiled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ncdss_lib.data.pascal5i import Pascal5i

Row = dict[str, Any]  # one line of a part's table

#: A fold whose base and novel images are about as many, so that a small data set fills batches of
#: both.
FOLD = 2


@dataclass(frozen=True)
class Scale:
    """How large everything is: the paper's sizes, or sizes at which a CPU is done in a minute.

    Attributes:
        size: side of the images in pixels.
        encoder: a timm model.
        base_batch, batch: images a step of base training, and of each list of the other trainings.
        steps, rounds: timed steps at a stretch, and how often they are repeated; the median counts.
        processes: numbers of loading processes.
        matrix, channels: sizes of the products that tell what the machine can do.
        images: of the inference part.
    """

    size: int
    encoder: str
    base_batch: int
    batch: int
    steps: int
    rounds: int
    processes: tuple[int, ...]
    matrix: int
    channels: int
    images: int


PAPER = Scale(512, "resnet50.tv_in1k", 16, 8, 5, 3, (1, 4, 8, 16), 8192, 512, 96)
TINY = Scale(64, "test_resnet", 2, 2, 1, 1, (0, 1), 256, 32, 4)


@dataclass(frozen=True)
class Kit:
    """What every part is given.

    Attributes:
        device: cuda or cpu.
        data: photos in the layout of PASCAL-5i.
        only: regular expression for "TRAINING: VARIANT"; steps that it does not match are left out.
    """

    device: str
    scale: Scale
    data: Pascal5i
    only: str = ""
