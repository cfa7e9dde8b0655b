"""Folders that appear whole or not at all, fingerprints, and what a full disk says."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncdss_lib import store
from ncdss_lib.errors import RunError


def test_a_folder_appears_with_its_manifest_when_it_is_committed(tmp_path):
    folder = tmp_path / "a" / "stage"
    partial = store.partial_folder(folder, "k")
    (partial / "x.txt").write_text("1")
    assert not folder.exists()
    assert store.manifest(folder) == {}
    store.commit_folder(partial, folder, {"key": "k"})
    assert store.manifest(folder) == {"key": "k"}
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "x.txt"]
    assert [p.name for p in folder.parent.iterdir()] == ["stage"]


def test_an_interrupted_attempt_is_kept_for_the_same_key_and_wiped_for_another(tmp_path):
    folder = tmp_path / "stage"
    (store.partial_folder(folder, "one") / "x.txt").write_text("1")
    assert (store.partial_folder(folder, "one") / "x.txt").read_text() == "1"
    assert not (store.partial_folder(folder, "two") / "x.txt").exists()


def test_a_partial_folder_without_a_key_is_wiped(tmp_path):
    (tmp_path / ".stage.partial").mkdir()
    (tmp_path / ".stage.partial" / "x.txt").write_text("?")
    assert not (store.partial_folder(tmp_path / "stage", "one") / "x.txt").exists()


def commit(folder, text: str) -> None:
    partial = store.partial_folder(folder, text)
    (partial / f"{text}.txt").write_text(text)
    store.commit_folder(partial, folder, {"key": text})


def test_a_commit_replaces_the_earlier_folder_completely(tmp_path):
    for text in ("one", "two"):
        commit(tmp_path / "stage", text)
    assert sorted(p.name for p in (tmp_path / "stage").iterdir()) == ["manifest.json", "two.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_what_a_killed_commit_left_over_does_not_stop_the_next(tmp_path):
    commit(tmp_path / "stage", "one")
    (tmp_path / ".stage.old").mkdir()
    (tmp_path / ".stage.old" / "zero.txt").write_text("0")
    commit(tmp_path / "stage", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_until_the_commit_the_earlier_folder_stays(tmp_path):
    commit(tmp_path / "stage", "one")
    (store.partial_folder(tmp_path / "stage", "two") / "x.txt").write_text("half")
    assert (tmp_path / "stage" / "one.txt").read_text() == "one"
    assert store.manifest(tmp_path / "stage") == {"key": "one"}


def test_fingerprints_are_stable_and_independent_of_the_order_of_keys():
    assert store.fingerprint({"a": 1, "b": [1, 2]}) == store.fingerprint({"b": (1, 2), "a": 1}) == "e6f20bdc3757e5e7"


@settings(max_examples=40)
@given(st.recursive(st.integers() | st.text() | st.none() | st.booleans(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_fingerprints_follow_the_value(value):
    assert store.fingerprint(value) == store.fingerprint(json.loads(json.dumps(value)))
    assert len(store.fingerprint(value)) == 16
    assert store.fingerprint([value]) != store.fingerprint([value, 0])


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 0.1})
    assert store.read_json(path) == {"a": 0.1}
    with pytest.raises(ValueError, match="Out of range float"):
        store.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        store.write_json(path, {"a": object()})
    assert store.read_json(path) == {"a": 0.1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_disk_errors_say_what_where_and_what_to_do(tmp_path, number):
    with pytest.raises(RunError) as caught, store.disk_errors("stage eums", tmp_path):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert message.startswith(f"stage eums cannot be written to {tmp_path}: {os.strerror(number)}. ")
    assert "--out" in message
    assert caught.value.exit_code == 1


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), store.disk_errors("x", tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no")


def test_folders_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NCDSS_RUNS", str(tmp_path / "r"))
    monkeypatch.setenv("NCDSS_CACHE", str(tmp_path / "c"))
    assert (store.runs_root(), store.cache_root()) == (tmp_path / "r", tmp_path / "c")
    monkeypatch.delenv("NCDSS_CACHE")
    assert store.cache_root() == tmp_path / "r" / "cache"
    monkeypatch.delenv("NCDSS_RUNS")
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    assert store.runs_root() == tmp_path / "project" / "runs"
