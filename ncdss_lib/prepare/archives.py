"""Archives of public data sets: found or fetched, and extracted whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from ncdss_lib.prepare import refuse_read_only
from ncdss_lib.system.errors import InputError, NCDSSError, RunError

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

    def extracted_in(self, folder: Path) -> bool:
        """Whether all members lie below a folder."""
        return all((folder / member).exists() for member in self.members)


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
    places = [sources, data_root] if sources != data_root else [data_root]
    folders: dict[str, Path] = {}
    archives: dict[str, Path] = {}
    for part in parts:
        for place in reversed(places):  # what is in the sources goes before
            if part.extracted_in(place):
                folders[part.name] = place
            if (place / part.archive).is_file():
                archives[part.name] = place / part.archive

    # all or nothing: what is missing is told before anything is extracted
    packed = [part for part in parts if part.name not in folders]
    missing = [part for part in packed if part.name not in archives]
    if missing and not download:
        raise _missing(parts, missing, places)
    if packed:
        refuse_read_only(data_root)
    for part in missing:
        archives[part.name] = sources / part.archive
        fetch(part.url, archives[part.name], part.md5)
    for part in packed:
        extract(archives[part.name], data_root, part.members)
    return [folders.get(part.name, data_root) for part in parts]


def _missing(parts: Sequence[Part], missing: Sequence[Part], places: Sequence[Path]) -> InputError:
    found = ", ".join(part.name for part in parts if part not in missing) or "nothing"
    wanted = "; ".join(
        f"{part.name}: {part.archive}, or extracted {', '.join(part.members)}" for part in missing
    )
    return InputError(
        f"{' and '.join(part.name for part in missing)} missing ({found} found): looked in "
        f"{' and '.join(map(str, places))} for {wanted}. Put it there (from "
        f"{', '.join(part.url for part in missing)}), name its folder with --sources, or fetch it "
        "with --download."
    )


# -------------------------------------------------------------------------------------- downloads
def fetch(url: str, path: Path, md5: str | None = None) -> None:
    """Download a file; an interrupted download goes on where it stopped.

    Raises:
        RunError: no network, the server refuses, the file ends early, its checksum is wrong, or the
            disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    by_hand = (
        "Run the same command again to go on, or download it in another way, put it there as "
        f"{path} and leave --download out."
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = _download(url, partial)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, HTTPError):
            reason = error
            if error.code == 416:  # the partial file is no part of what the server has now
                partial.unlink()
        raise RunError(f"{url} cannot be downloaded to {path} ({reason}). {by_hand}") from error

    # what was downloaded
    size = partial.stat().st_size
    if expected is not None and size != expected:
        raise RunError(f"{url} ended after {size:,} of {expected:,} bytes. {by_hand}")
    if md5:
        with open(partial, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if digest.hexdigest() != md5:
            partial.unlink()
            raise RunError(
                f"{url} gave a file with MD5 {digest.hexdigest()}. Expected {md5}; the file was "
                f"removed. {by_hand}"
            )
    partial.rename(path)


def _download(url: str, partial: Path) -> int | None:
    """Download to a file, or what it lacks. Returns the size of the whole, if the server tells."""
    start = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"User-Agent": "ncdss"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urlopen(request, timeout=60) as response:
        if response.status != 206:  # the server sends all of it
            start = 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        bar = tqdm(desc=f"fetching {url}", initial=start, total=total, unit="B", unit_scale=True)
        with open(partial, "ab" if start else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    return total


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
    with _archive_errors(archive, folder):
        try:
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir(parents=True)
            unpack(archive, partial, members)
            for member in members:
                if not (partial / member).exists():
                    raise InputError(
                        f"{archive} holds no {member}. Expected {', '.join(members)}: is it the "
                        "right archive?"
                    )
            for member in members:
                if not (folder / member).exists():
                    (folder / member).parent.mkdir(parents=True, exist_ok=True)
                    (partial / member).rename(folder / member)
        finally:
            with suppress(OSError):
                shutil.rmtree(partial)


@contextmanager
def _archive_errors(archive: Path, folder: Path) -> Iterator[None]:
    """Tell a damaged archive, an InputError, from a disk that refuses, a RunError."""
    try:
        yield
    except NCDSSError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip's errors have none
            raise RunError(
                f"{archive} cannot be extracted to {folder} ({error.strerror}). Make room there, "
                "or choose another --data-root."
            ) from error
        reason = str(error).partition(":\n")[0]  # tarfile adds a line for each compression
        raise InputError(
            f"{archive} cannot be read to its end ({reason}). Expected the complete archive; "
            "nothing was extracted. Remove it and get it again."
        ) from error


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
