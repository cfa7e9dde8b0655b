"""Archives of public data sets: found or fetched, and extracted whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from ncdss_lib.prepare import refuse_read_only
from ncdss_lib.system.errors import InputError, RunError

BLOCK = 2**20  # bytes that are read at a time
#: what the standard library raises for a damaged archive; RuntimeError for an encrypted one
DAMAGE = (OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


@dataclass(frozen=True)
class Part:
    """A part of a data set that comes as one archive.

    Attributes:
        name: for messages.
        archive: file name of the archive.
        url, md5: where it can be had; no checksum: the archive's own are enough.
        members: what is needed of it, as paths in the archive; extracted they lie below the folder
            that the archive lies in.
    """

    name: str
    archive: str
    url: str
    md5: str | None
    members: tuple[str, ...]


def obtain(parts: Sequence[Part], data_root: Path, sources: Path, *, download: bool) -> list[Path]:
    """Find each part in ``sources`` or ``data_root``; extract archives into ``data_root``.

    Args:
        download: fetch an archive that is in neither place, to ``sources``.

    Returns:
        For each part, the folder below which its members are.

    Raises:
        InputError: a part is missing (nothing was extracted then), or an archive is damaged or
            unsafe.
        RunError: a download or the disk failed.
    """
    folders: dict[Part, Path] = {}
    archives: dict[Part, Path] = {}
    places = list(dict.fromkeys((data_root, sources)))
    for place in places:  # what is in the sources goes before
        for part in parts:
            if all((place / member).exists() for member in part.members):
                folders[part] = place
            if (place / part.archive).is_file():
                archives[part] = place / part.archive

    # all or nothing: what is missing is told before anything is extracted
    packed = [part for part in parts if part not in folders]
    missing = [part for part in packed if part not in archives]
    if missing and not download:
        raise _missing(parts, missing, places)
    if packed:
        refuse_read_only(data_root)
    for part in missing:
        archives[part] = sources / part.archive
        fetch(part.url, archives[part], part.md5)
    for part in packed:
        extract(archives[part], data_root, part.members)
    return [folders.get(part, data_root) for part in parts]


def _missing(parts: Sequence[Part], missing: Sequence[Part], places: Sequence[Path]) -> InputError:
    found = ", ".join(part.name for part in parts if part not in missing) or "nothing"
    wanted = "; ".join(
        f"{part.archive} (from {part.url}), or extracted {', '.join(part.members)}"
        for part in missing
    )
    return InputError(
        f"{' and '.join(part.name for part in missing)} missing ({found} found): looked in "
        f"{' and '.join(map(str, places))} for {wanted}. Put it there, name its folder with "
        "--sources, or fetch it with --download."
    )


# -------------------------------------------------------------------------------------- downloads
def fetch(url: str, path: Path, md5: str | None = None) -> None:
    """Download a file; an interrupted download goes on where it stopped.

    Raises:
        RunError: no network, the server refuses, the file ends early, its checksum is wrong, or the
            disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, partial)
        if md5:
            with open(partial, "rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if digest.hexdigest() != md5:
                partial.unlink()
                raise OSError(f"its MD5 is {digest.hexdigest()}, not {md5}; what came was removed")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError) and error.code == 416:
            partial.unlink()  # it is no part of what the server has now
        raise RunError(
            f"{url} cannot be downloaded to {path} ({error}). Run the same command again to go on, "
            f"or download it in another way, put it there as {path} and leave --download out."
        ) from error
    partial.rename(path)


def _download(url: str, partial: Path) -> None:
    """Download to a file, or what it lacks; OSError where the file ends early."""
    start = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"User-Agent": "ncdss"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urlopen(request, timeout=60) as response:
        if response.status != 206:  # the server sends all of it
            start = 0
        total = start + int(response.headers["Content-Length"] or 0)
        bar = {"desc": f"fetching {url}", "initial": start, "total": total}
        with (
            open(partial, "ab" if start else "wb") as file,
            tqdm.wrapattr(response, "read", **bar) as source,
        ):
            shutil.copyfileobj(source, file, BLOCK)
    if (size := partial.stat().st_size) < total:
        raise OSError(f"it ended after {size:,} of {total:,} bytes")


# ------------------------------------------------------------------------------------- extraction
def extract(archive: Path, folder: Path, members: Sequence[str]) -> None:
    """Extract files or folders of a tar or zip archive as ``folder / member``.

    A member that is there already stays as it is. Every name in the archive is checked, also of
    what is not extracted.

    Raises:
        InputError: the archive is no archive, truncated, lacks a member, or holds a path or link
            that leaves its folder.
        RunError: the disk is full or read-only. In either case nothing is left behind.
    """
    partial = folder / f".{archive.name}.partial"
    unpack = _unpack_zip if archive.suffix == ".zip" else _unpack_tar
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        unpack(archive, partial, members)
        for member in members:
            if not (partial / member).exists():
                raise InputError(
                    f"{archive} holds no {member}. Expected {', '.join(members)}: is it the right "
                    "archive?"
                )
        for member in members:
            if not (folder / member).exists():
                (folder / member).parent.mkdir(parents=True, exist_ok=True)
                (partial / member).rename(folder / member)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; gzip's have none
            raise RunError(
                f"{archive} cannot be extracted to {folder} ({error.strerror}). Make room there, "
                "or choose another --data-root."
            ) from error
        reason = str(error).partition(":\n")[0]  # tarfile adds a line for each compression
        raise InputError(
            f"{archive} cannot be read to its end ({reason}). Expected the complete archive; "
            "nothing was extracted. Remove it and get it again."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_tar(archive: Path, partial: Path, members: Sequence[str]) -> None:
    def keep(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        wanted = _is_wanted(archive, member.name, members)
        safe = tarfile.data_filter(member, path)
        if wanted and not (member.isfile() or member.isdir()):
            raise _unsafe(archive, member.name)
        return safe if wanted else None

    with tarfile.open(archive) as tar:
        files = tqdm(tar, desc=f"extracting {archive.name}", unit="file")
        try:
            tar.extractall(partial, files, filter=keep)
        except tarfile.FilterError as error:
            raise _unsafe(archive, error.tarinfo.name) from error
        # tarfile takes a file that ends between two members, or in the header of one, for a
        # complete archive; and gzip compares the checksum where its stream ends.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
        while tar.fileobj.read(BLOCK):
            pass


def _unpack_zip(archive: Path, partial: Path, members: Sequence[str]) -> None:
    with zipfile.ZipFile(archive) as source:
        wanted = []
        for member in source.infolist():
            if _is_wanted(archive, member.filename, members):
                wanted.append(member)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _unsafe(archive, member.filename)
        for member in tqdm(wanted, desc=f"extracting {archive.name}", unit="file"):
            source.extract(member, partial)


def _is_wanted(archive: Path, name: str, members: Sequence[str]) -> bool:
    """Whether a member of an archive is asked for.

    Raises:
        InputError: when its name, read as a path of either kind, leaves the folder.
    """
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise _unsafe(archive, name)
    return any(PurePosixPath(name).is_relative_to(member) for member in members)


def _unsafe(archive: Path, name: str) -> InputError:
    return InputError(
        f"{archive} holds {name!r}: a path that leaves the archive's folder, a link or a device. "
        "Expected files and folders with relative names. Nothing was extracted; get the archive "
        "from its source again."
    )
