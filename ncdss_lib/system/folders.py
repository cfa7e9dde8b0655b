"""Where runs are kept, and files and folders that appear whole or not at all.

A finished folder holds a manifest with the key (a fingerprint) of what it was made from, and the
checksums of its files. While it is made it has a hidden name, and a lock keeps other runs out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ncdss_lib.system.errors import InputError, NCDSSError, RunError

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.sha256"  # as `sha256sum` writes it, and `sha256sum --check` reads it
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # as file names are
POLL = 1.0  # seconds between looks at a folder that another run is making

#: Calls a function in the main process of a run and returns its result in all of them.
Broadcast = Callable[[Callable[[], Any]], Any]


# --- places -------------------------------------------------------------------------------------


def project_root() -> Path:
    """The folder with ``_toc.yml`` above the working directory, or the working directory itself."""
    here = Path.cwd()
    above = (folder for folder in (here, *here.parents) if (folder / "_toc.yml").is_file())
    return next(above, here)


def runs_root() -> Path:
    """Where runs are kept: ``$NCDSS_RUNS``, or ``runs/`` of the project."""
    return Path(os.environ.get("NCDSS_RUNS") or project_root() / "runs")


def cache_root() -> Path:
    """Where features and scenes are kept for all runs: ``$NCDSS_CACHE``, or ``runs/cache``."""
    return Path(os.environ.get("NCDSS_CACHE") or runs_root() / "cache")


def run_folder(dataset: str, fold: int, recipe: str, seed: int, root: Path | None = None) -> Path:
    """``runs/DATASET/foldF/RECIPE/seedS`` of the project, or the same below ``root``."""
    return (root or runs_root()) / dataset / f"fold{fold}" / recipe / f"seed{seed}"


def refuse_file(folder: Path, option: str) -> None:
    """Refuse a place for a folder that is a file, or lies below one.

    Args:
        option: that names the place, such as ``--out``.

    Raises:
        InputError: what is there, and what to do.
    """
    there = _existing(folder)
    if not there.is_dir():
        raise InputError(
            f"{option} {folder}: {there} is a file. Expected a folder, there or to be made: choose "
            "another place, or remove the file."
        )


# --- files --------------------------------------------------------------------------------------


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON-able value; equal values give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; it becomes ``path`` when the block ends well, or goes.

    What a killed process left there is written over. Of two that write at once, the later one gets
    a path of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".draft-{path.name}")
    lock = FileLock(draft.with_name(f"{draft.name}.lock"))
    if not _taken(lock):
        draft = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        _release(lock)


def read_json(path: Path) -> Any:
    """What a file holds.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}). Restore it, or make it again."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all. NaN and infinity are ValueErrors."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_sealed(path: Path, value: Any) -> None:
    """Write a JSON-able value with its fingerprint, whole or not at all."""
    write_json(path, {"fingerprint": fingerprint(value), "value": value})


def read_sealed(path: Path) -> Any:
    """What :func:`write_sealed` wrote; None where there is nothing, or not that any more."""
    try:
        sealed = read_json(path)
        whole = sealed["fingerprint"] == fingerprint(sealed["value"])
    except (FileNotFoundError, InputError, LookupError, TypeError):
        return None
    return sealed["value"] if whole else None


# --- folders ------------------------------------------------------------------------------------


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder; an empty one where there is none that can be read."""
    try:
        contents = read_json(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, InputError):
        return {}
    return contents if isinstance(contents, dict) else {}


def finished(folder: Path, key: str) -> bool:
    """Whether a folder was made from what ``key`` stands for, and is still as it was written."""
    return manifest(folder).get("key") == key and not damaged_files(folder)


def damaged_files(folder: Path) -> list[str]:
    """The files of a finished folder that are not as they were written, or are gone.

    A folder without a list of checksums, of an earlier version of this program, is taken as it is;
    so are files that were put into a folder later.
    """
    if (folder / MANIFEST).is_file() and not manifest(folder):
        return [MANIFEST]
    if not (folder / CHECKSUMS).is_file():
        return []
    text = (folder / CHECKSUMS).read_text(**_TEXT)
    if not text.endswith(f"  {MANIFEST}\n"):  # it is listed last
        return [CHECKSUMS]
    lines = text[:-1].split("\n")
    written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _digests([folder / name for name in written])
    return [name for name, digest in zip(written, found, strict=True) if digest != written[name]]


def refuse_damage(folder: Path) -> None:
    """Raise InputError where :func:`damaged_files` finds something."""
    if damaged := damaged_files(folder):
        raise InputError(
            f"{folder / damaged[0]} is damaged: it is not what was written there, by the checksums "
            f"in {folder / CHECKSUMS}. Run `ncdss run` with the settings of this run again (that "
            "stage is then made anew), or restore the file."
        )


def _write_checksums(folder: Path, pattern: str) -> None:
    paths = (path for path in folder.glob(pattern) if path.is_file() and path.name != MANIFEST)
    listed = [*sorted(paths), folder / MANIFEST]
    lines = [
        f"{digest}  {path.relative_to(folder).as_posix()}\n"
        for path, digest in zip(listed, _digests(listed), strict=True)
    ]
    (folder / CHECKSUMS).write_text("".join(lines), **_TEXT)


def _digests(paths: list[Path]) -> list[str | None]:
    """The SHA-256 of each file, by threads; None where there is none."""

    def digest(path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):  # a damaged list may name anything
            return None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, paths))


def partial_folder(folder: Path, key: str) -> Path:
    """The hidden folder in which ``folder`` is made; what was begun with the same key is kept."""
    made_in = _hidden(folder, "partial")
    stamp = made_in / ".key"
    if made_in.exists() and (not stamp.is_file() or stamp.read_text() != key):
        shutil.rmtree(made_in)
    made_in.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    return made_in


def commit_folder(
    made_in: Path, folder: Path, contents: dict[str, Any], *, checked: str | None = None
) -> None:
    """Give a partial folder its manifest and its name, in place of an earlier folder.

    Its hidden files, which served the making, go.

    Args:
        checked: pattern of the files whose checksums are kept beside that of the manifest; None:
            no checksums.
    """
    write_json(made_in / MANIFEST, contents)
    for file in made_in.glob(".*"):
        file.unlink()
    if checked is not None:
        _write_checksums(made_in, checked)
    old = _hidden(folder, "old")
    shutil.rmtree(old, ignore_errors=True)  # left there by a process that was killed below
    if folder.exists():
        folder.rename(old)
    made_in.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked_partial_folder(folder: Path, key: str, broadcast: Broadcast) -> Iterator[Path | None]:
    """Hold the partial folder for this run alone, or wait for the run that holds it.

    All processes of a run enter. The lock is the main process's and the operating system's: it ends
    with the process, however that ends.

    Args:
        folder: whose manifest says ``key`` once it is made.
        broadcast: such as the run's :meth:`~ncdss_lib.system.distributed.Runtime.from_main`.

    Yields:
        The partial folder, to be filled and given to :func:`commit_folder`; None where ``folder``
        is current and whole, perhaps since the wait.

    Raises:
        RunError: a process of another machine does not see the partial folder.
    """
    made_in = _hidden(folder, "partial")
    lock = FileLock(_hidden(folder, "lock"))
    waiting = False
    try:
        while (state := broadcast(partial(_claim, lock, folder, key))) == "held":
            if not waiting:
                broadcast(partial(_say_that_we_wait, folder))
            waiting = True
            time.sleep(POLL)
        if state == "ours" and not made_in.is_dir():
            raise RunError(
                f"{socket.gethostname()} does not see {made_in}, which the main process has just "
                "made: all machines of a run must share its folder and the cache. Choose places "
                "on a file system that they share (--out, $NCDSS_RUNS, $NCDSS_CACHE)."
            )
        yield made_in if state == "ours" else None
    finally:
        _release(lock)


@contextmanager
def one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Make ``name`` in a folder alone, or wait for the process that makes it.

    For what is more than one partial folder. A folder that cannot be written to is not locked:
    nobody else writes to it either.
    """
    lock = FileLock(_hidden(folder / name, "lock"))
    absent = [above for above in (folder, *folder.parents) if not above.exists()]
    waiting = False
    try:
        with suppress(OSError):
            while not _taken(lock):
                if not waiting:
                    _say_that_we_wait(folder / name)
                waiting = True
                time.sleep(POLL)
        yield
    finally:
        _release(lock)
        for above in absent:  # nothing came into them
            with suppress(OSError):
                above.rmdir()


def is_held(folder: Path) -> bool:
    """Whether a process is making a folder, in :func:`locked_partial_folder`."""
    lock = FileLock(_hidden(folder, "lock"))
    free = _taken(lock)
    _release(lock)
    return not free


def _taken(lock: FileLock) -> bool:
    """Take a lock, if it is free."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _release(lock: FileLock) -> None:
    if lock.is_locked:
        # Unlinked while it is held: whoever waits at this file sees that it has no name any more,
        # and begins anew. Windows keeps the open file.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _claim(lock: FileLock, folder: Path, key: str) -> Literal["current", "held", "ours"]:
    """Take the lock and make the partial folder, unless the folder is current or another run's."""
    if finished(folder, key):
        return "current"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not _taken(lock):
        return "held"
    if finished(folder, key):  # between the look and the claim
        return "current"
    if damaged := damaged_files(folder):
        others = f" and {len(damaged) - 1} more files" if len(damaged) > 1 else ""
        tqdm.write(
            f"{folder / damaged[0]}{others}: damaged, not what was written there. "
            f"{folder.name} is made again.",
            file=sys.stderr,
        )
    partial_folder(folder, key)
    return "ours"


def _say_that_we_wait(path: Path) -> None:
    tqdm.write(f"another process is making {path}; waiting for it.", file=sys.stderr)


def _hidden(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


# --- what the disk refuses ----------------------------------------------------------------------


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a clear RunError, whatever a library calls it."""
    try:
        yield
    except NCDSSError:
        raise
    except Exception as error:
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
        known = isinstance(error, OSError) and error.errno in numbers
        full = "No space left" in str(error) or shutil.disk_usage(_existing(folder)).free <= 2**20
        if not known and not full:
            raise
        reason = (isinstance(error, OSError) and error.strerror) or "No space left on device"
        raise RunError(
            f"{what} cannot be written to {folder}: {reason}. Make room or choose another place "
            "(--out, $NCDSS_RUNS, $NCDSS_CACHE) and run the same command again; what is finished "
            "is kept."
        ) from error


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
