"""Artefacts on disk: fingerprints of what they were made from, and folders that appear whole or not at all, made by one run at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ncdss_lib.errors import NCDSSError, RunError

if TYPE_CHECKING:
    from ncdss_lib.runtime import Runtime

MANIFEST = "manifest.json"
POLL = 1.0  # seconds between looks at a folder that another run is making


def project_root() -> Path:
    """The project folder (it holds ``_toc.yml``) above the working directory, or the working directory itself."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "_toc.yml").is_file()), here)


def runs_root() -> Path:
    """Where runs are kept: ``$NCDSS_RUNS``, or ``runs/`` of the project."""
    return Path(os.environ.get("NCDSS_RUNS") or project_root() / "runs")


def cache_root() -> Path:
    """Where scenes and dense features are kept for all folds and seeds: ``$NCDSS_CACHE``, or ``runs/cache``."""
    return Path(os.environ.get("NCDSS_CACHE") or runs_root() / "cache")


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON-able value; equal values give equal fingerprints."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage folder, or an empty one."""
    path = folder / MANIFEST
    return read_json(path) if path.is_file() else {}


def partial_folder(folder: Path, key: str) -> Path:
    """The hidden folder in which ``folder`` is being made; what an interrupted attempt with the same key left there is kept."""
    partial = folder.with_name(f".{folder.name}.partial")
    stamp = partial / ".key"
    if partial.exists() and (not stamp.is_file() or stamp.read_text() != key):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    return partial


def commit_folder(partial: Path, folder: Path, contents: dict[str, Any]) -> None:
    """Give a finished partial folder its manifest and its name, in place of an earlier one. Its hidden files served the making: they go."""
    write_json(partial / MANIFEST, contents)
    for hidden in partial.glob(".*"):
        hidden.unlink()
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # left there by a process that was killed below
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def making(folder: Path, key: str, runtime: Runtime) -> Iterator[Path | None]:
    """Hold the partial folder of ``folder`` for this run alone, or wait for the other run that holds it. All processes of a run enter.

    The lock is the main process's and the operating system's: it ends with the process, however that ends.

    Args:
        folder: whose manifest says ``key`` once it is made.

    Yields:
        The partial folder, to be filled and given to :func:`commit_folder`; None where ``folder`` is current, perhaps since the wait.

    Raises:
        RunError: a process of another machine does not see the partial folder.
    """
    partial, path = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.lock")
    lock, told = FileLock(path), False

    def claim() -> str:
        if manifest(folder).get("key") == key:
            return "current"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return "held"
        if manifest(folder).get("key") == key:  # finished between the look and the claim
            return "current"
        (partial_folder(folder, key) / ".owner").write_text(f"process {os.getpid()} on {socket.gethostname()}")
        return "ours"

    try:
        while (state := runtime.from_main(claim)) == "held":
            if runtime.is_main and not told:
                with suppress(OSError):  # not written yet, or committed just now
                    tqdm.write(f"{(partial / '.owner').read_text()} is making {folder}; waiting for it.", file=sys.stderr)
                    told = True
            time.sleep(POLL)
        if state == "ours" and not partial.is_dir():
            raise RunError(
                f"{socket.gethostname()} does not see {partial}, which the main process has just made: all machines of a run must share "
                "its folder and the cache. Choose places on a file system that they share (--out, $NCDSS_RUNS, $NCDSS_CACHE)."
            )
        yield partial if state == "ours" else None
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows keeps the open file
                path.unlink()  # while it is held: whoever waits at this file sees that it has no name any more, and begins anew
            lock.release()


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a clear RunError, also where a library reports it by a type of its own."""
    try:
        yield
    except NCDSSError:
        raise
    except Exception as error:
        known = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
        if not known and "No space left" not in str(error) and shutil.disk_usage(_existing(folder)).free > 2**20:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "No space left on device"
        raise RunError(
            f"{what} cannot be written to {folder}: {reason}. Make room or choose another place (--out, $NCDSS_RUNS, $NCDSS_CACHE) "
            "and run the same command again; what is finished is kept."
        ) from error


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
