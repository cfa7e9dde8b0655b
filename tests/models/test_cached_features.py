"""Cached features: equal to a forward, made once, resumed after an interruption, never half there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ncdss_lib.models import cached_features
from ncdss_lib.models.cached_features import FeatureCache, build_cache
from ncdss_lib.recipes import Compute
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.distributed import Runtime
from ncdss_lib.system.errors import InputError, RunError
from ncdss_lib.system.folders import fingerprint
from tests.conftest import TINY_LAPTOP

IDS = [f"image {i}" for i in range(10)]
VIEWS = {"clean": IDS, "flip": IDS[:6]}


class Tiny(nn.Module):
    """A strided convolution that counts its images, and fails after some if told to."""

    channels = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3, stride=2)
        self.seen, self.fail_after = 0, 10**9

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.seen + len(images) > self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return self.convolution(images.float() / 255)


def load(view: str, image_id: str) -> np.ndarray:
    image = np.random.default_rng(IDS.index(image_id)).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return image[:, ::-1] if view == "flip" else image


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", Compute(precision="fp32"))


def build(root: Path, runtime: Runtime, encoder: Tiny, key: object = "key", batch: int = 4) -> Path:
    return build_cache(root, key, VIEWS, load, lambda: encoder, runtime, batch)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def check(folder: Path) -> None:
    cache, encoder = FeatureCache(folder), Tiny()
    assert cache.channels == (2, 3)
    for view, ids in VIEWS.items():
        found = cache.read([view] * len(ids), ids)
        assert found.dtype == torch.float16
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(np.stack([load(view, i) for i in ids])).permute(0, 3, 1, 2))
        span = expected.amax((2, 3), keepdim=True) - expected.amin((2, 3), keepdim=True)
        rounded = span / 510 + expected.abs() * 2**-10  # to 8 bits between a channel's extremes, then to half precision
        assert ((found.float() - expected).abs() <= rounded + 1e-6).all()


def test_cached_features_are_those_of_a_forward(tmp_path, runtime):
    encoder = Tiny()
    folder = build(tmp_path, runtime, encoder)
    check(folder)
    assert encoder.seen == 17  # one image is seen twice: it tells the shape
    assert sorted(p.name for p in folder.iterdir()) == ["checksums.sha256", "clean.npy", "flip.npy", "manifest.json"]


def test_views_and_ids_may_be_mixed_and_repeated(tmp_path, runtime):
    cache = FeatureCache(build(tmp_path, runtime, Tiny()))
    mixed = cache.read(["flip", "clean", "flip"], [IDS[2], IDS[9], IDS[2]])
    assert torch.equal(mixed[0], mixed[2])
    assert torch.equal(mixed[0], cache.read(["flip"], [IDS[2]])[0])
    assert torch.equal(mixed[1], cache.read(["clean"], [IDS[9]])[0])
    with pytest.raises(KeyError):
        cache.read(["flip"], [IDS[9]])


def test_a_finished_cache_needs_no_encoder(tmp_path, runtime):
    folder = build(tmp_path, runtime, Tiny())
    unused = Tiny()
    assert build(tmp_path, runtime, unused) == folder
    assert unused.seen == 0
    assert build(tmp_path, runtime, unused, key="another") != folder
    assert unused.seen == 17


@pytest.mark.parametrize(("after", "left"), [(0, 17), (1, 16), (5, 12), (9, 8), (13, 4)])
@pytest.mark.parametrize("batch", [4, 3])
def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path, runtime, after, left, batch):
    broken, again = Tiny(), Tiny()
    broken.fail_after = after
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, runtime, broken)
    assert broken.seen == after
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]  # nothing that looks finished
    check(build(tmp_path, runtime, again, batch=batch))
    assert again.seen == left
    assert [p.name for p in tmp_path.iterdir()] == [fingerprint("key")]


def test_what_processes_that_are_no_more_have_done_is_kept_and_a_torn_record_is_not_believed(tmp_path, runtime):
    broken = Tiny()
    broken.fail_after = 9
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, runtime, broken)
    partial = tmp_path / f".{fingerprint('key')}.partial"
    record = (partial / ".done.0").read_bytes()
    assert np.frombuffer(record, np.uint32).tolist() == list(range(8))
    (partial / ".done.0").write_bytes(record[:16])  # four by process 0, two by process 7, and the first byte of a third
    (partial / ".done.7").write_bytes(record[16:25])
    again = Tiny()
    check(build(tmp_path, runtime, again))
    assert again.seen == 10


def test_a_full_disk_is_found_before_the_work_and_leaves_nothing_half(tmp_path, runtime, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    encoder = Tiny()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(RunError, match="No space left on device.*NCDSS_CACHE") as caught:
            build(tmp_path, runtime, encoder)
    assert caught.value.exit_code == 1
    assert encoder.seen == 1  # to know the shape
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    check(build(tmp_path, runtime, Tiny()))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_disk_that_fills_up_in_the_middle_is_a_clear_error(tmp_path, runtime, monkeypatch):
    """As on a file system that claims no blocks in advance."""
    with monkeypatch.context() as patch:
        patch.setattr(cached_features, "_write_only", lambda path, flags: os.open("/dev/full", os.O_WRONLY))
        with pytest.raises(RunError, match="cached features cannot be written to .*: No space left on device"):
            build(tmp_path, runtime, Tiny())
    check(build(tmp_path, runtime, Tiny()))


def test_folds_and_seeds_share_plain_features_and_another_size_has_its_own(voc, tmp_path, monkeypatch):
    """Strong views are those of one fold's novel images: all seeds share them."""
    monkeypatch.setenv("NCDSS_CACHE", str(tmp_path / "cache"))

    def folders(fold: int, seed: int, *overrides: str) -> set[str]:
        run = open_run("pascal5i", str(voc), fold, seed, "laptop", None, [*TINY_LAPTOP, *overrides])
        assert run.views.channels
        return {p.name for p in (tmp_path / "cache" / "features").iterdir()}

    first = folders(0, 0)
    assert len(first) == 2
    assert folders(0, 5) == folders(0, 0, "eums.lr=0.2", "model.head_channels=4") == first
    assert len(folders(1, 0)) == 3
    assert len(folders(0, 0, "data.jitter=[0.2,0.2,0.2,0.1]")) == 4
    assert len(folders(0, 0, "data.size=32")) == 6


# --- damage ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["checksum", "low", "step", "values"])
def test_a_row_that_changed_on_the_disk_is_refused_when_it_is_read(tmp_path, runtime, part):
    folder = build(tmp_path, runtime, Tiny())
    rows = np.load(folder / "flip.npy", mmap_mode="r+")
    raw = rows[part][3:4].view(np.uint8)
    raw.flat[0] ^= 1
    rows.flush()
    cache = FeatureCache(folder)
    cache.read(["flip", "clean"], [IDS[2], IDS[3]])
    with pytest.raises(InputError, match=rf"flip.npy is damaged: .*`ncdss cache --clear {folder.name}`, and run again"):
        cache.read(["clean", "flip"], [IDS[3], IDS[3]])


@pytest.mark.parametrize("cut", [1, 100, 10**9])
def test_a_file_without_its_tail_or_head_is_refused(tmp_path, runtime, cut):
    folder = build(tmp_path, runtime, Tiny())
    content = (folder / "clean.npy").read_bytes()
    (folder / "clean.npy").write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(InputError, match=r"clean.npy is damaged"):
        FeatureCache(folder)


def test_a_damaged_manifest_is_made_again_with_all_that_it_tells(tmp_path, runtime, capsys):
    folder = build(tmp_path, runtime, Tiny())
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("image 3", "image 4"))
    again = Tiny()
    check(build(tmp_path, runtime, again))
    assert again.seen == 17
    assert f"{path}: damaged, not what was written there. {folder.name} is made again." in capsys.readouterr().err
