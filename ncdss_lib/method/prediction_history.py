"""What student and teacher say of a few images before each epoch of EUMS, kept to be looked at.

The book shows how they change; the training does not depend on it. A snapshot is
``watched/epoch_E.npz`` in the folder of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ncdss_lib.method.context import Context
from ncdss_lib.method.inference import predict
from ncdss_lib.system.folders import whole_file

Maps = dict[str, np.ndarray]  # name -> uint8 [S, S]


def spread(ids: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the ids, evenly from the first on."""
    step = max(1, len(ids) // max(1, count))
    return list(ids[::step][:count])


def keep_snapshot(
    run: Context, folder: Path, epoch: int, ids: Sequence[str], networks: Mapping[str, nn.Module]
) -> None:
    """Keep what the networks say, unless it is kept already: in a resumed run they are older.

    Args:
        folder: of the stage.
        networks: by name, ``student`` and ``teacher``.

    The file holds ``ids``, for each NAME its labels, uint8 [n, S, S], and under
    ``NAME_probability`` the probability of each label, uint8 [n, S, S], 255 for certain.
    """
    path = folder / "watched" / f"epoch_{epoch}.npz"
    if not ids or path.is_file():
        return
    rows: list[tuple[str, Maps]] = []
    for name, network in networks.items():
        for batch, logits in predict(run, network, ids, run.views.size, "snapshot"):
            probability, label = logits.softmax(1).max(1)
            labels = label.to(torch.uint8).cpu().numpy()
            shares = (probability * 255).round().to(torch.uint8).cpu().numpy()
            for i, own, share in zip(batch, labels, shares, strict=True):
                rows.append((i, {name: own, f"{name}_probability": share}))

    # All processes' maps of an image together, in the order of the ids.
    found: dict[str, Maps] = {i: {} for i in ids}
    for i, maps in run.runtime.gather(rows):
        found[i] |= maps
    if run.runtime.is_main:
        path.parent.mkdir(exist_ok=True)
        stacked: dict[str, Any] = {
            key: np.stack([maps[key] for maps in found.values()]) for key in found[ids[0]]
        }
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, ids=np.array(ids), **stacked)


def read_snapshots(folder: Path) -> dict[int, Maps]:
    """Epoch -> arrays of :func:`keep_snapshot`, from the folder of the stage; empty where none are.

    The arrays are those of the file: uint8 [n, S, S] and ``ids``.
    """
    paths = (folder / "watched").glob("epoch_*.npz")
    files = {int(path.stem.removeprefix("epoch_")): path for path in paths}
    return {epoch: dict(np.load(files[epoch])) for epoch in sorted(files)}
