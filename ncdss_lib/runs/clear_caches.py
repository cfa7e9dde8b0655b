"""What is kept for all runs in ``$NCDSS_CACHE`` (``runs/cache``): listed with sizes, and cleared.

Everything in it is made again when a run needs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ncdss_lib.runs.report import to_markdown
from ncdss_lib.system.errors import InputError, did_you_mean
from ncdss_lib.system.folders import cache_root, is_held, manifest


@dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    path: Path

    @property
    def key(self) -> str:
        """The name by which it is cleared."""
        return self.path.name.removeprefix(".").removesuffix(".partial")

    @property
    def bytes(self) -> int:
        """How much disk it takes."""
        files = [self.path, *self.path.rglob("*")]
        return sum(file.lstat().st_blocks * 512 for file in files)

    @property
    def what(self) -> str:
        """What it holds, for people; what features are of, by their manifest."""
        if self.path.parent.name != "features":
            scenes = self.key == "toyscenes"
            return "drawn scenes and their classes" if scenes else "classes in each mask"
        contents = manifest(self.path)
        if not contents:
            return "features, unfinished: a run goes on with them"
        made_from = contents["made_from"]
        encoder, weights, *_ = made_from["encoder"]
        count = sum(len(ids) for ids in contents["views"].values())
        return (
            f"{made_from.get('dataset', 'a data set')} at {made_from['size']} px, {encoder} "
            f"({weights}), {count} pictures: {', '.join(contents['views'])}"
        )


def cache_entries() -> list[Entry]:
    """What the cache holds, unfinished folders as well, sorted by path."""
    root = cache_root()
    paths = sorted([*root.glob("*"), *root.glob("features/*")])
    return [Entry(path) for path in paths if path.is_dir() and path != root / "features"]


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
