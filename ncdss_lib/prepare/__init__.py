"""From public archives and plain photos to the folders that data sets read: ``ncdss prepare``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ncdss_lib.data.file_dataset import SALIENCY
from ncdss_lib.system.errors import RunError


def writable(folder: Path) -> bool:
    """Whether this user may write to a folder; where nobody may, root is not to either."""
    anybody = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & anybody)


def refuse_read_only(folder: Path) -> None:
    """Raise RunError for a folder that is there and not :func:`writable`."""
    if folder.exists() and not writable(folder):
        raise _refused(folder, "it is read-only")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the disk refuses is a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename or folder)
        raise _refused(path, error.strerror or str(error)) from error


def _refused(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path} cannot be written ({reason}). Make room, or choose a folder that may be written "
        "to: with --data-root (then --sources names the one with the archives), or for saliency "
        "maps with --out. Then run the same command again."
    )


def counts_table(columns: Sequence[str], rows: Sequence[tuple[str | int, ...]]) -> str:
    """A Markdown table that compares counts with the published ones.

    Args:
        columns: heads of the first columns.
        rows: of each the cells of these columns, our count and the published one.
    """
    table = pd.DataFrame(rows, columns=[*columns, "images", "published"])
    table[""] = (table["images"] == table["published"]).map({True: "equal", False: "differs"})
    return table.to_markdown(index=False, intfmt=",")


def next_step(data_root: Path) -> list[str]:
    """The line of a summary that asks for saliency maps, where there are none."""
    if (data_root / SALIENCY).is_dir():
        return []
    command = f"ncdss prepare saliency --data-root {data_root}"
    return [f"- Next, the saliency maps: `{command}`."]
