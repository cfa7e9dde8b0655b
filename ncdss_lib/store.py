"""Artefacts on disk: fingerprints of what they were made from, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncdss_lib.errors import NCDSSError, RunError

MANIFEST = "manifest.json"


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
    """Give a finished partial folder its manifest and its name, in place of an earlier one."""
    write_json(partial / MANIFEST, contents)
    (partial / ".key").unlink()
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # left there by a process that was killed below
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


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
            "and run the same command again; finished stages are kept."
        ) from error


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
