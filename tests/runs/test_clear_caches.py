"""What is kept for all runs: listed with sizes, cleared by key, never while a run makes it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from filelock import FileLock

from ncdss_lib.cli import main
from ncdss_lib.models.cached_features import feature_cache_key
from ncdss_lib.runs.clear_caches import cache_entries, cache_table, clear_cache
from ncdss_lib.runs.pipeline import open_run
from ncdss_lib.system.errors import InputError
from ncdss_lib.system.folders import fingerprint
from tests.conftest import TINY_LAPTOP


@pytest.fixture(scope="module")
def filled(voc, tmp_path_factory):
    """A cache with the features of one run; read only."""
    folder = tmp_path_factory.mktemp("filled") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCDSS_CACHE", str(folder))
        assert open_run("pascal5i", str(voc), 0, 0, "laptop", None, TINY_LAPTOP).views.channels
    return folder


@pytest.fixture
def keys(filled, voc, tmp_path, monkeypatch):
    """A copy of it in use; the keys of plain and of strong views."""
    monkeypatch.setenv("NCDSS_CACHE", str(shutil.copytree(filled, tmp_path / "cache")))
    run = open_run("pascal5i", str(voc), 0, 0, "laptop", None, TINY_LAPTOP)
    plain = fingerprint(feature_cache_key(run.data, run.recipe.data, run.recipe.model))
    strong = next(e.key for e in cache_entries() if e.key not in (plain, "pascal5i"))
    return plain, strong


def test_the_cache_is_listed_with_keys_sizes_and_what_it_holds(keys):
    plain, strong = keys
    entries = {entry.key: entry for entry in cache_entries()}
    assert set(entries) == {"pascal5i", plain, strong}
    assert entries[plain].what.startswith("pascal5i at 64 px, ")
    assert entries[plain].what.endswith("104 pictures: clean, flip")
    assert entries[strong].what.endswith("pictures: jitter, flip_jitter")
    size = sum(path.stat().st_size for path in entries[plain].path.iterdir())
    assert size <= entries[plain].bytes < size + 5 * 4096
    text = cache_table()
    assert all(key in text for key in entries)
    assert f"{sum(entry.bytes for entry in entries.values()) / 1e6:,.1f} MB in " in text


def test_entries_are_cleared_by_key_or_all(keys, capsys):
    plain, strong = keys
    with pytest.raises(InputError, match=f"--clear {plain[:-1]}x: no such key in .*; did you mean '{plain}'"):
        clear_cache([strong, f"{plain[:-1]}x"])
    assert len(cache_entries()) == 3
    assert main(["cache", "--clear", plain]) == 0
    assert capsys.readouterr().out.startswith("1 entries removed, ")
    assert {entry.key for entry in cache_entries()} == {"pascal5i", strong}
    assert main(["cache", "--clear"]) == 0
    assert main(["cache"]) == 0
    assert "Nothing is cached in " in capsys.readouterr().out


def test_what_a_run_is_making_stays_and_what_one_left_unfinished_is_cleared(keys):
    plain, _ = keys
    folder = next(entry.path for entry in cache_entries() if entry.key == plain)
    partial = folder.rename(folder.with_name(f".{plain}.partial"))
    (partial / "manifest.json").unlink()
    entry = next(entry for entry in cache_entries() if entry.key == plain)
    assert entry.what == "features, unfinished: a run goes on with them"
    with FileLock(folder.with_name(f".{plain}.lock")), pytest.raises(InputError, match="a run is making"):
        clear_cache([plain])
    clear_cache([plain])
    assert not partial.exists()


def test_other_settings_offer_to_clear_what_they_do_not_read(keys, voc, capsys):
    capsys.readouterr()
    assert open_run("pascal5i", str(voc), 1, 0, "laptop", None, TINY_LAPTOP).views.channels
    assert "features of other settings" not in capsys.readouterr().err
    assert open_run("pascal5i", str(voc), 0, 0, "laptop", None, [*TINY_LAPTOP, "data.size=32"]).views.channels
    assert "3 caches hold features of other settings: `ncdss cache` lists and clears." in capsys.readouterr().err


def test_cached_features_take_a_byte_a_value(keys):
    plain, _ = keys
    rows = np.load(next(e.path for e in cache_entries() if e.key == plain) / "clean.npy", mmap_mode="r")
    assert rows.itemsize == rows["values"][0].size + 8 * rows["low"].shape[1] + 4
