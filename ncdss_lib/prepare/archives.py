"""Archives of public data sets: found or fetched, and extracted so that a folder appears whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from ncdss_lib.prepare import refuse_read_only
from ncdss_lib.system.errors import InputError, NCDSSError, RunError


@dataclass(frozen=True)
class Part:
    """A part of a data set that comes as one archive.

    Attributes:
        name: for messages.
        archive: file name of the archive.
        url, md5: where it can be had; no checksum: the archive's own are enough.
        members: what is needed of it, as paths in the archive; extracted they lie below the folder that the archive lies in.
    """

    name: str
    archive: str
    url: str
    md5: str | None
    members: tuple[str, ...]


def obtain(parts: Sequence[Part], data_root: Path, sources: Path, *, download: bool) -> list[Path]:
    """Find each part extracted or as an archive, in ``sources`` or ``data_root``; extract archives into ``data_root``.

    Args:
        download: fetch an archive that is in neither place, to ``sources``.

    Returns:
        For each part, the folder below which its members are.

    Raises:
        InputError: a part is missing (nothing was extracted then), or an archive is damaged or unsafe.
        RunError: a download or the disk failed.
    """
    places = list(dict.fromkeys((sources, data_root)))
    folders = [next((p for p in places if all((p / member).exists() for member in part.members)), None) for part in parts]
    archives = [next((p / part.archive for p in places if (p / part.archive).is_file()), None) for part in parts]
    missing = [part for part, folder, archive in zip(parts, folders, archives, strict=True) if not (folder or archive)]
    if missing and not download:
        found = [part.name for part in parts if part not in missing]
        wanted = "; ".join(f"{part.name}: {part.archive}, or extracted {', '.join(part.members)}" for part in missing)
        raise InputError(
            f"{' and '.join(part.name for part in missing)} missing ({', '.join(found) or 'nothing'} found): looked in "
            f"{' and '.join(map(str, places))} for {wanted}. Put it there (from {', '.join(part.url for part in missing)}), "
            "name its folder with --sources, or fetch it with --download."
        )
    if not all(folders):
        refuse_read_only(data_root)
    for part in missing:
        fetch(part.url, sources / part.archive, part.md5)
    for i, part in enumerate(parts):
        if not folders[i]:
            extract(archives[i] or sources / part.archive, data_root, part.members)
    return [folder or data_root for folder in folders]


def fetch(url: str, path: Path, md5: str | None = None) -> None:
    """Download a file; an interrupted download goes on where it stopped.

    Raises:
        RunError: no network, the server refuses, the file ends early, its checksum is wrong, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    by_hand = f"Run the same command again to go on, or download it in another way, put it there as {path} and leave --download out."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start = partial.stat().st_size if partial.exists() else 0
        request = Request(url, headers={"User-Agent": "ncdss", **({"Range": f"bytes={start}-"} if start else {})})
        with urlopen(request, timeout=60) as response:
            start = start if response.status == 206 else 0
            length = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
            bar = tqdm(desc=f"fetching {path.name}", initial=start, total=length and start + length, unit="B", unit_scale=True)
            with open(partial, "ab" if start else "wb") as file, bar:
                while block := response.read(2**20):
                    file.write(block)
                    bar.update(len(block))
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError) and error.code == 416:  # the partial file is no part of what the server has now
            partial.unlink()
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise RunError(f"{url} cannot be downloaded to {path} ({reason}). {by_hand}") from error
    if length is not None and (size := partial.stat().st_size) != start + length:
        raise RunError(f"{url} ended after {size:,} of {start + length:,} bytes. {by_hand}")
    if md5 and (found := _md5(partial)) != md5:
        partial.unlink()
        raise RunError(f"{url} gave a file with MD5 {found}. Expected {md5}; the file was removed. {by_hand}")
    partial.rename(path)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def extract(archive: Path, folder: Path, members: Sequence[str]) -> None:
    """Extract files or folders of a tar or zip archive as ``folder / member``. A member that is there already stays as it is.

    Every name in the archive is checked, also of what is not extracted.

    Raises:
        InputError: the archive is no archive, truncated, lacks a member, or holds a path or link that leaves its folder.
        RunError: the disk is full or read-only. In either case nothing is left behind.
    """
    partial = folder / f".{archive.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        (_unpack_zip if archive.suffix == ".zip" else _unpack_tar)(archive, partial, members)
        if lacking := [member for member in members if not (partial / member).exists()]:
            raise InputError(f"{archive} holds no {lacking[0]}. Expected {', '.join(members)}: is it the right archive?")
        for member in members:
            if not (folder / member).exists():
                (folder / member).parent.mkdir(parents=True, exist_ok=True)
                (partial / member).rename(folder / member)
    except NCDSSError:
        raise
    except OSError as error:
        if error.errno is None:  # gzip's errors are OSErrors too
            raise _damaged(archive, error) from error
        raise RunError(
            f"{archive} cannot be extracted to {folder} ({error.strerror}). Make room there, or choose another --data-root."
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(archive, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(partial)


def _unpack_tar(archive: Path, partial: Path, members: Sequence[str]) -> None:
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"extracting {archive.name}", unit="file"):
            wanted = _checked(archive, member.name, members)
            try:
                tarfile.data_filter(member, str(partial))
            except tarfile.FilterError as error:
                raise _unsafe(archive, member.name) from error
            if wanted and not (member.isfile() or member.isdir()):
                raise _unsafe(archive, member.name)
            if wanted:
                tar.extract(member, partial, filter="data")
        # tarfile takes a file that ends between two members, or in the header of one, for a complete archive; and gzip compares the
        # checksum where its stream ends.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
        while tar.fileobj.read(2**20):
            pass


def _unpack_zip(archive: Path, partial: Path, members: Sequence[str]) -> None:
    with zipfile.ZipFile(archive) as source:
        wanted = []
        for member in source.infolist():
            if _checked(archive, member.filename, members):
                wanted.append(member)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _unsafe(archive, member.filename)
        for member in tqdm(wanted, desc=f"extracting {archive.name}", unit="file"):
            source.extract(member, partial)


def _checked(archive: Path, name: str, members: Sequence[str]) -> bool:
    """Whether a member of an archive is asked for; InputError when its name, read as a path of either kind, leaves the folder."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise _unsafe(archive, name)
    return any(PurePosixPath(name).is_relative_to(member) for member in members)


def _unsafe(archive: Path, name: str) -> InputError:
    return InputError(
        f"{archive} holds {name!r}: a path that leaves the archive's folder, a link or a device. Expected files and folders with "
        "relative names. Nothing was extracted; get the archive from its source again."
    )


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = str(error).partition(":\n")[0]  # tarfile adds a line for each compression it has tried
    return InputError(
        f"{archive} cannot be read to its end ({reason}). Expected the complete archive; nothing was extracted. Remove it and get it again."
    )
