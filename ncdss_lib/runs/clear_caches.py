"""What is kept for all runs in ``$NCDSS_CACHE`` (``runs/cache``): listed with sizes, and cleared.

Everything in it is made again when a run needs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ncdss_lib.runs.report import to_markdown
from ncdss_lib.system.errors import InputError, did_you_mean
from ncdss_lib.system.folders import cache_root, is_held, manifest


@dataclass(frozen=True)
class Entry:
    """One folder of the cache.

    Attributes:
        key: the name by which it is cleared.
        what: what it holds, for people.
    """

    key: str
    path: Path
    what: str

    @property
    def bytes(self) -> int:
        """How much disk it takes."""
        files = [self.path, *self.path.rglob("*")]
        return sum(file.lstat().st_blocks * 512 for file in files)


def cache_entries() -> list[Entry]:
    """What the cache holds, unfinished folders as well, sorted by path."""
    return sorted(_entries(cache_root()), key=lambda entry: entry.path)


def _entries(root: Path) -> Iterator[Entry]:
    for path in (root / "features").glob("*"):
        if path.is_dir():
            yield Entry(path.name.removeprefix(".").removesuffix(".partial"), path, _features(path))
    for path in root.glob("*"):
        if path.is_dir() and path.name == "toyscenes":
            yield Entry(path.name, path, "drawn scenes and their classes")
        elif path.is_dir() and path.name != "features":
            yield Entry(path.name, path, "classes in each mask")


def _features(folder: Path) -> str:
    """What features are of, by their manifest."""
    contents = manifest(folder)
    if not contents:
        return "features, unfinished: a run goes on with them"
    made_from = contents["made_from"]
    encoder, weights, *_ = made_from["encoder"]
    count = sum(len(ids) for ids in contents["views"].values())
    return (
        f"{made_from.get('dataset', 'a data set')} at {made_from['size']} px, {encoder} "
        f"({weights}), {count} pictures: {', '.join(contents['views'])}"
    )


def cache_table() -> str:
    """All entries as Markdown, with their sizes."""
    entries = cache_entries()
    if not entries:
        return f"Nothing is cached in {cache_root()}."
    sizes = [entry.bytes for entry in entries]
    rows = [
        {"key": entry.key, "MB": f"{size / 1e6:,.1f}", "what": entry.what}
        for entry, size in zip(entries, sizes, strict=True)
    ]
    table = to_markdown(pd.DataFrame(rows), index=False)
    return (
        f"{table}\n\n{sum(sizes) / 1e6:,.1f} MB in {cache_root()}. `ncdss cache --clear` removes "
        "all, `ncdss cache --clear KEY ...` some; what a run needs is made again."
    )


def clear_cache(keys: Sequence[str]) -> str:
    """Remove the entries with these keys, or all.

    Returns:
        What was removed, in a sentence.

    Raises:
        InputError: no entry has a key, or a run is making it; nothing was removed then.
    """
    entries = cache_entries()
    known = {entry.key for entry in entries}
    for key in keys:
        if key not in known:
            raise InputError(
                f"--clear {key}: no such key in {cache_root()}; "
                f"{did_you_mean(key, known)} (`ncdss cache` lists them)."
            )
    chosen = [entry for entry in entries if not keys or entry.key in keys]
    for entry in chosen:
        if is_held(entry.path.parent / entry.key):
            raise InputError(f"a run is making {entry.path}: wait for it, or end it.")
    size = sum(entry.bytes for entry in chosen)
    for entry in chosen:
        shutil.rmtree(entry.path)
    return f"{len(chosen)} entries removed, {size / 1e6:,.1f} MB."
