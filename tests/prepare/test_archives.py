"""Archives: what is extracted, what is refused, and that nothing is left of what failed."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ncdss_lib.prepare.archives import Part, extract, fetch, obtain
from ncdss_lib.system.errors import InputError, RunError
from tests.prepare.fake_raw import pack, serving, tree

KINDS = ("data.tar", "data.tgz", "data.zip")


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Three files of 9 kB, incompressible, in two folders; top/other is what nobody asks for."""
    folder = tmp_path / "content"
    for number, name in enumerate(("top/wanted/a.bin", "top/wanted/deep/b.bin", "top/other/c.bin")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(hashlib.sha256(bytes([number, i])).digest() for i in range(250)) + b"end of file")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_asked_for_is_extracted(content: Path, out: Path, tmp_path: Path, kind: str) -> None:
    extract(pack(content, tmp_path / kind), out, ["top/wanted"])
    assert tree(out) == ["top/wanted/a.bin", "top/wanted/deep/b.bin"]
    for name in tree(out):
        assert (out / name).read_bytes() == (content / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_stays(content: Path, out: Path, tmp_path: Path, kind: str) -> None:
    (out / "top" / "wanted").mkdir(parents=True)
    (out / "top" / "wanted" / "mine.bin").write_bytes(b"mine")
    extract(pack(content, tmp_path / kind), out, ["top/wanted", "top/other/c.bin"])
    assert tree(out) == ["top/other/c.bin", "top/wanted/mine.bin"]


def test_names_with_a_leading_dot_slash(content: Path, out: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.add(content, ".")
    extract(tmp_path / "data.tar", out, ["top/other"])
    assert tree(out) == ["top/other/c.bin"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_is_refused_wherever_it_ends(content: Path, out: Path, tmp_path: Path, kind: str) -> None:
    whole = pack(content, tmp_path / kind).read_bytes()
    end = whole.rindex(b"end of file") + 512 if kind == "data.tar" else len(whole) - 100  # a tar's zero blocks hold nothing
    for size in sorted({0, 1, 511, 512, *range(700, end, 1709), *range(1024, end, 512)}):
        (tmp_path / kind).write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{kind} cannot be read to its end .*nothing was extracted"):
            extract(tmp_path / kind, out, ["top/wanted"])
        assert tree(out) == []


@pytest.mark.parametrize("kind", ["data.tgz", "data.zip"])
def test_a_damaged_archive_is_refused(content: Path, out: Path, tmp_path: Path, kind: str) -> None:
    whole = bytearray(pack(content, tmp_path / kind).read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / kind).write_bytes(whole)
    with pytest.raises(InputError, match=rf"{kind} cannot be read to its end"):
        extract(tmp_path / kind, out, ["top"])
    assert tree(out) == []


def test_a_page_instead_of_an_archive_is_refused(out: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / kind).write_text("<html>404</html>" * 100)
        with pytest.raises(InputError, match="get it again"):
            extract(tmp_path / kind, out, ["top"])


def _tar(path: Path, name: str, **changes: object) -> Path:
    with tarfile.open(path, "w") as archive:
        for own in ("top/good.bin", name):
            member = tarfile.TarInfo(own)
            member.size = 4
            if own == name:
                for attribute, value in changes.items():
                    setattr(member, attribute, value)
                member.size = 0 if changes else 4
            archive.addfile(member, io.BytesIO(b"data"))
    return path


def _zip(path: Path, name: str, *, link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top/good.bin", b"data")
        member = zipfile.ZipInfo(name)
        if link:
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, b"../../outside")
    return path


UNSAFE_NAMES = ["../evil.bin", "top/../../evil.bin", "/tmp/evil.bin", "C:\\evil.bin", "..\\evil.bin", "\\\\host\\share\\evil.bin"]


@pytest.mark.parametrize("make", [lambda path, name: _tar(path / "data.tar", name), lambda path, name: _zip(path / "data.zip", name)])
@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_paths_that_leave_the_folder_are_refused(out: Path, tmp_path: Path, make: Callable[[Path, str], Path], name: str) -> None:
    archive = make(tmp_path, name)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="holds .*evil.bin.*a path that leaves") as caught:
        extract(archive, out, ["top"])
    assert str(archive) in str(caught.value)
    assert repr(name) in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "../../outside"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "../outside"},
        {"type": tarfile.SYMTYPE, "linkname": "good.bin"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE},
    ],
)
def test_links_and_devices_in_a_tar_are_refused(out: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="holds 'top/link'"):
        extract(_tar(tmp_path / "data.tar", "top/link", **changes), out, ["top"])
    assert tree(out) == []


def test_a_link_that_leaves_is_refused_even_where_it_is_not_asked_for(out: Path, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "data.tar", "elsewhere/link", type=tarfile.SYMTYPE, linkname="../../outside")
    with pytest.raises(InputError, match="elsewhere/link"):
        extract(archive, out, ["top"])


def test_links_in_a_zip_are_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 'top/link'"):
        extract(_zip(tmp_path / "data.zip", "top/link", link=True), out, ["top"])
    assert tree(out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_another_archive_is_refused(content: Path, out: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=rf"{kind} holds no top/lists. Expected top/wanted, top/lists"):
        extract(pack(content, tmp_path / kind), out, ["top/wanted", "top/lists"])
    assert tree(out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing(content: Path, out: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(content, tmp_path / kind)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil if kind == "data.zip" else tarfile, "copyfileobj", full)
    with pytest.raises(RunError, match=r"cannot be extracted to .*out \(No space left on device\). Make room"):
        extract(archive, out, ["top"])
    assert tree(out) == []


def test_what_a_killed_process_left_is_no_hindrance(content: Path, out: Path, tmp_path: Path) -> None:
    (out / ".data.tar.partial" / "top" / "wanted").mkdir(parents=True)
    (out / ".data.tar.partial" / "top" / "wanted" / "half.bin").write_bytes(b"half")
    extract(pack(content, tmp_path / "data.tar"), out, ["top/wanted"])
    assert tree(out) == ["top/wanted/a.bin", "top/wanted/deep/b.bin"]


# --- downloads ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(content: Path) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    with serving(content) as served:
        yield served


def test_a_download_is_checked_and_renamed(site: tuple[str, list], content: Path, out: Path) -> None:
    expected = (content / "top/other/c.bin").read_bytes()
    fetch(f"{site[0]}/top/other/c.bin", out / "c.bin", hashlib.md5(expected).hexdigest())
    assert (out / "c.bin").read_bytes() == expected
    assert tree(out) == ["c.bin"]


def test_a_download_goes_on_where_it_stopped(site: tuple[str, list], content: Path, out: Path) -> None:
    expected = (content / "top/other/c.bin").read_bytes()
    out.mkdir()
    (out / ".c.bin.partial").write_bytes(expected[:1000])
    fetch(f"{site[0]}/top/other/c.bin", out / "c.bin", hashlib.md5(expected).hexdigest())
    assert site[1] == [("c.bin", "bytes=1000-")]
    assert (out / "c.bin").read_bytes() == expected


def test_a_download_that_ends_early_is_no_file(site: tuple[str, list], content: Path, out: Path) -> None:
    (content / "short.bin").write_bytes(bytes(1000))
    with pytest.raises(RunError, match=r"short.bin cannot be downloaded .*(500|IncompleteRead).*Run the same command again"):
        fetch(f"{site[0]}/short.bin", out / "short.bin")
    assert tree(out) == [".short.bin.partial"]


def test_a_wrong_checksum_removes_the_file(site: tuple[str, list], out: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be downloaded .*\(its MD5 is \w+, not 0123; what came was removed\)"):
        fetch(f"{site[0]}/top/other/c.bin", out / "c.bin", "0123")
    assert tree(out) == []


def test_a_partial_file_longer_than_the_file_is_removed(site: tuple[str, list], out: Path) -> None:
    out.mkdir()
    (out / ".c.bin.partial").write_bytes(bytes(50_000))
    with pytest.raises(RunError, match="416"):
        fetch(f"{site[0]}/top/other/c.bin", out / "c.bin")
    assert tree(out) == []
    fetch(f"{site[0]}/top/other/c.bin", out / "c.bin")
    assert tree(out) == ["c.bin"]


def test_no_such_file_and_no_network(site: tuple[str, list], out: Path) -> None:
    with pytest.raises(RunError, match=rf"/nothing.tar cannot be downloaded to .*Not Found.*put it there as {out}/nothing.tar"):
        fetch(f"{site[0]}/nothing.tar", out / "nothing.tar")
    with serving(out) as (address, _):
        pass  # the port is free again: nobody listens
    with pytest.raises(RunError, match=r"cannot be downloaded to .*refused.*leave --download out"):
        fetch(f"{address}/data.tar", out / "data.tar")
    assert tree(out) == []


# --- finding the parts ----------------------------------------------------------------------------------------------------------


def part(url: str = "http://example.org/data.tar", name: str = "the data", archive: str = "data.tar") -> Part:
    return Part(name, archive, url, None, ("top/wanted",))


def test_parts_are_taken_extracted_or_packed_from_either_place(content: Path, out: Path, tmp_path: Path) -> None:
    assert obtain([part()], out, content, download=False) == [content]
    assert tree(out) == []
    sources = tmp_path / "sources"
    sources.mkdir()
    pack(content, sources / "data.tar")
    assert obtain([part()], out, sources, download=False) == [out]
    assert tree(out) == ["top/wanted/a.bin", "top/wanted/deep/b.bin"]
    assert obtain([part()], out, sources, download=True) == [out]  # there now: nothing is fetched


def test_missing_parts_are_fetched_to_the_sources(site: tuple[str, list], content: Path, out: Path, tmp_path: Path) -> None:
    pack(content, content / "data.tar")
    assert obtain([part(f"{site[0]}/data.tar")], out, tmp_path / "sources", download=True) == [out]
    assert tree(tmp_path / "sources") == ["data.tar"]
    assert tree(out) == ["top/wanted/a.bin", "top/wanted/deep/b.bin"]


def test_missing_parts_are_named_before_anything_is_extracted(content: Path, out: Path, tmp_path: Path) -> None:
    pack(content, tmp_path / "data.tar")
    with pytest.raises(InputError, match=r"the lists missing \(the data found\)") as caught:
        obtain([part(), part("http://example.org/lists.zip", "the lists", "lists.zip")], out, tmp_path, download=False)
    for text in (str(out), str(tmp_path), "lists.zip", "http://example.org/lists.zip", "--sources", "--download"):
        assert text in str(caught.value)
    assert not out.exists()
