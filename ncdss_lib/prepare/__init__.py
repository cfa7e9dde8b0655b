"""From public archives and plain photos to the folders that the data sets are read from: ``ncdss prepare``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from ncdss_lib.system.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], text: str) -> list[Result]:
    """``function`` of each item, in order; the first error stops the rest.

    Args:
        text: what the progress bar says.
    """
    chunks = [items[start : start + 64] for start in range(0, len(items), 64)]  # a task for each image would be 120,000 of COCO's
    results: list[Result] = []
    with ThreadPoolExecutor() as pool, tqdm(desc=text, total=len(items), unit="image") as bar:
        for rows in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
            results += rows
            bar.update(len(rows))
    return results


def writable(folder: Path) -> bool:
    """Whether this user may write to a folder that is there; one that nobody may write to is respected by root as well."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def refuse_read_only(data_root: Path) -> None:
    """Raise RunError for a folder that is there and not :func:`writable`."""
    if data_root.exists() and not writable(data_root):
        raise _refused(data_root, "it is read-only")


@contextmanager
def writing(data_root: Path) -> Iterator[None]:
    """What the disk refuses is a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        raise _refused(Path(error.filename or data_root), error.strerror or str(error)) from error


def _refused(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path} cannot be written ({reason}). Make room, or give a folder that may be written to with --data-root (and name the one with "
        "the archives with --sources); then run the same command again."
    )
