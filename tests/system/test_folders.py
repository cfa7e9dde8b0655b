"""Folders that appear whole or not at all, made by one run at a time; what a full disk says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncdss_lib.runs.pipeline import STAGES
from ncdss_lib.system import folders
from ncdss_lib.system.errors import InputError, RunError
from tests.conftest import REPO, TINY_LAPTOP


def test_a_folder_appears_with_its_manifest_when_it_is_committed(tmp_path):
    folder = tmp_path / "a" / "stage"
    partial = folders.partial_folder(folder, "k")
    (partial / "x.txt").write_text("1")
    assert not folder.exists()
    assert folders.manifest(folder) == {}
    folders.commit_folder(partial, folder, {"key": "k"})
    assert folders.manifest(folder) == {"key": "k"}
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "x.txt"]
    assert [p.name for p in folder.parent.iterdir()] == ["stage"]


def test_an_interrupted_attempt_is_kept_for_the_same_key_and_wiped_for_another(tmp_path):
    folder = tmp_path / "stage"
    (folders.partial_folder(folder, "one") / "x.txt").write_text("1")
    assert (folders.partial_folder(folder, "one") / "x.txt").read_text() == "1"
    assert not (folders.partial_folder(folder, "two") / "x.txt").exists()


def test_a_partial_folder_without_a_key_is_wiped(tmp_path):
    (tmp_path / ".stage.partial").mkdir()
    (tmp_path / ".stage.partial" / "x.txt").write_text("?")
    assert not (folders.partial_folder(tmp_path / "stage", "one") / "x.txt").exists()


WRITER = """
import pathlib, sys, time
from ncdss_lib.system.folders import whole_file
with whole_file(pathlib.Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing ``tmp_path / "x.json"``."""
    command = [sys.executable, "-c", WRITER, tmp_path / "x.json"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)}, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        yield process
        process.kill()


def test_what_a_killed_process_left_of_a_file_is_written_over(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert not (tmp_path / "x.json").exists()
    folders.write_json(tmp_path / "x.json", [1])
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert folders.read_json(tmp_path / "x.json") == [1]


def test_a_second_writer_leaves_the_draft_of_the_first_alone(writer, tmp_path):
    folders.write_json(tmp_path / "x.json", [1])
    assert folders.read_json(tmp_path / "x.json") == [1]
    assert (tmp_path / ".draft-x.json").read_text() == "half"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".draft-x.json", ".draft-x.json.lock", "x.json"]


def commit(folder, text: str) -> None:
    partial = folders.partial_folder(folder, text)
    (partial / f"{text}.txt").write_text(text)
    folders.commit_folder(partial, folder, {"key": text})


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
    (folders.partial_folder(tmp_path / "stage", "two") / "x.txt").write_text("half")
    assert (tmp_path / "stage" / "one.txt").read_text() == "one"
    assert folders.manifest(tmp_path / "stage") == {"key": "one"}


# --- damage -------------------------------------------------------------------------------------


def checked(folder: Path) -> Path:
    partial = folders.partial_folder(folder, "k")
    (partial / "maps").mkdir()
    (partial / "maps" / "ä b.png").write_bytes(bytes(range(256)))
    (partial / "x.csv").write_text("id,area\n1,2\n")
    folders.commit_folder(partial, folder, {"key": "k", "numbers": {"miou": 0.5}}, checked="**/*")
    return folder


def test_the_list_of_checksums_is_that_of_sha256sum_with_the_manifest_last(tmp_path):
    folder = checked(tmp_path / "stage")
    lines = (folder / "checksums.sha256").read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["maps/ä b.png", "x.csv", "manifest.json"]
    subprocess.run(["sha256sum", "--check", "--strict", "checksums.sha256"], cwd=folder, check=True, capture_output=True)


def test_every_flipped_bit_and_every_cut_is_found_and_what_was_added_later_is_not(tmp_path):
    folder = checked(tmp_path / "stage")
    (folder / "note.txt").touch()
    assert folders.damaged_files(folder) == []
    assert folders.finished(folder, "k")
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "note.txt"):
        content = path.read_bytes()
        flips = [content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :] for n in range(0, len(content), 7)]
        for damaged in [*flips, content[:-2], content[: len(content) // 2], b""]:
            path.write_bytes(damaged)
            assert folders.damaged_files(folder)
            assert not folders.finished(folder, "k")
        path.write_bytes(content)
    (folder / "x.csv").unlink()
    assert folders.damaged_files(folder) == ["x.csv"]
    with pytest.raises(InputError, match=r"x\.csv is damaged"):
        folders.refuse_damage(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path, content):
    folder = checked(tmp_path / "stage")
    (folder / "checksums.sha256").unlink()
    (folder / "manifest.json").write_text(content, encoding="latin-1")
    assert folders.manifest(folder) == {}
    assert folders.damaged_files(folder) == ["manifest.json"]


# --- one run at a time --------------------------------------------------------------------------


def alone(function):
    return function()


MAKER = """
import sys, time
from pathlib import Path
from ncdss_lib.system import folders

folder, key, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
folders.POLL = 0.05
with folders.locked_partial_folder(folder, key, lambda function: function()) as partial:
    if partial:
        with (partial / "log").open("a") as log:
            log.write(key)
        time.sleep(seconds)
        folders.commit_folder(partial, folder, {"key": key})
print("made" if partial else "found")
"""


def maker(folder: Path, key: str = "k", seconds: float = 0.5) -> subprocess.Popen:
    command = [sys.executable, "-c", MAKER, str(folder), key, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(folder: Path) -> None:
    """Wait until a maker of ``folder`` is at work."""
    deadline = time.monotonic() + 60
    while not (folder.parent / f".{folder.name}.partial" / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_processes_that_start_together_one_makes_and_the_others_wait_for_it(tmp_path):
    folder = tmp_path / "run" / "stage"
    makers = [maker(folder) for _ in range(3)]
    ended = [(*process.communicate(timeout=60), process) for process in makers]
    assert [process.returncode for *_, process in ended] == [0, 0, 0]
    assert sorted(out.strip() for out, *_ in ended) == ["found", "found", "made"]
    waited = [err for out, err, _ in ended if out == "found\n" and err]
    assert all(err == f"another process is making {folder}; waiting for it.\n" for err in waited)
    assert (folder / "log").read_text() == "k"
    assert sorted(p.name for p in folder.iterdir()) == ["log", "manifest.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["stage"]


def test_whoever_waits_says_for_what(tmp_path):
    first = maker(tmp_path / "stage", seconds=8)
    begun(tmp_path / "stage")
    out, err = maker(tmp_path / "stage").communicate(timeout=60)
    assert out == "found\n"
    assert err == f"another process is making {tmp_path / 'stage'}; waiting for it.\n"
    assert first.wait(60) == 0


def test_a_process_that_is_killed_frees_the_folder_and_what_it_did_is_kept(tmp_path):
    first = maker(tmp_path / "stage", seconds=600)
    begun(tmp_path / "stage")
    second = maker(tmp_path / "stage")
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60)[0] == "made\n"
    assert (tmp_path / "stage" / "log").read_text() == "kk"
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_after_the_wait_a_folder_with_another_key_is_made_again(tmp_path):
    first = maker(tmp_path / "stage", "one", seconds=1)
    begun(tmp_path / "stage")
    assert maker(tmp_path / "stage", "two").communicate(timeout=60)[0] == "made\n"
    assert first.wait(60) == 0
    assert (tmp_path / "stage" / "log").read_text() == "two"


def test_a_failure_frees_the_folder_and_keeps_what_was_done(tmp_path):
    def fail(partial: Path) -> None:
        (partial / "half").touch()
        raise ValueError("half done")

    with (
        pytest.raises(ValueError, match="half done"),
        folders.locked_partial_folder(tmp_path / "stage", "k", alone) as partial,
    ):
        fail(partial)
    assert [p.name for p in tmp_path.iterdir()] == [".stage.partial"]
    with folders.locked_partial_folder(tmp_path / "stage", "k", alone) as partial:
        assert (partial / "half").exists()


def test_for_a_current_folder_nothing_is_locked_or_written(tmp_path):
    commit(tmp_path / "stage", "one")
    with folders.locked_partial_folder(tmp_path / "stage", "one", alone) as partial:
        assert partial is None
        assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_a_machine_that_does_not_share_the_folder_is_told_so(tmp_path):
    def other(function):
        return "ours"

    with (
        pytest.raises(RunError, match=r"does not see .*\.stage\.partial.*must share"),
        folders.locked_partial_folder(tmp_path / "stage", "k", other),
    ):
        pass


def test_what_is_more_than_one_folder_is_made_by_one_at_a_time(tmp_path):
    code = """
import sys, time
from pathlib import Path
from ncdss_lib.system import folders

folders.POLL = 0.05
with folders.one_at_a_time(Path(sys.argv[1]), "maps"):
    print(time.monotonic())
    time.sleep(0.3)
    print(time.monotonic())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "new" / "data")]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    makers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in makers]
    times = sorted([float(line) for line in out.split()] for out, _ in ended)
    assert all(first[1] <= second[0] for first, second in pairwise(times))
    assert all(err in ("", f"another process is making {tmp_path / 'new' / 'data' / 'maps'}; waiting for it.\n") for _, err in ended)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_was_made_for_a_lock_alone_goes_with_it(tmp_path):
    with folders.one_at_a_time(tmp_path / "new" / "data", "maps"):
        assert (tmp_path / "new" / "data" / ".maps.lock").is_file()
    assert not list(tmp_path.iterdir())


RUN = """
import dataclasses, sys
from pathlib import Path
from ncdss_lib.runs import pipeline
from ncdss_lib.models import cached_features

def counted(name, function):
    def work(*arguments):
        with (Path(sys.argv[1]) / "log").open("a") as log:
            log.write(name + "\\n")
        return function(*arguments)
    return work

for name, stage in pipeline.STAGES.items():
    pipeline._ALL[name] = dataclasses.replace(stage, compute=counted(name, stage.compute))
cached_features._extract = counted("features", cached_features._extract)
out = sys.argv[1] + "/run"
run = pipeline.open_run("pascal5i", sys.argv[2], out=out, overrides=sys.argv[3:], device="cpu")
run.write_report()
"""


def test_two_runs_that_start_together_on_one_folder_compute_each_stage_and_the_features_once(tmp_path, voc):
    command = [sys.executable, "-c", RUN, str(tmp_path), str(voc), *TINY_LAPTOP]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "NCDSS_CACHE": str(tmp_path / "cache")}
    runs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=240)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    once = ["features", "features", *STAGES]  # two caches: of all images, and of strong views
    assert sorted((tmp_path / "log").read_text().split()) == sorted(once)
    assert sum("is making" in error for error in errors) >= 1
    assert folders.read_json(tmp_path / "run" / "report.json")["models"]["eums"]["clusters"] == 10
    assert not list(tmp_path.rglob(".*"))


# --- fingerprints and errors --------------------------------------------------------------------


def test_fingerprints_are_stable_and_independent_of_the_order_of_keys():
    assert folders.fingerprint({"a": 1, "b": [1, 2]}) == folders.fingerprint({"b": (1, 2), "a": 1}) == "e6f20bdc3757e5e7"


@settings(max_examples=40)
@given(
    st.recursive(
        st.integers() | st.text() | st.none() | st.booleans(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_fingerprints_follow_the_value(value):
    assert folders.fingerprint(value) == folders.fingerprint(json.loads(json.dumps(value)))
    assert len(folders.fingerprint(value)) == 16
    assert folders.fingerprint([value]) != folders.fingerprint([value, 0])


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    folders.write_json(path, {"a": 0.1})
    assert folders.read_json(path) == {"a": 0.1}
    with pytest.raises(ValueError, match="Out of range float"):
        folders.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        folders.write_json(path, {"a": object()})
    assert folders.read_json(path) == {"a": 0.1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_disk_errors_say_what_where_and_what_to_do(tmp_path, number):
    with pytest.raises(RunError) as caught, folders.disk_errors("stage eums", tmp_path):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert message.startswith(f"stage eums cannot be written to {tmp_path}: {os.strerror(number)}. ")
    assert "--out" in message
    assert caught.value.exit_code == 1


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), folders.disk_errors("x", tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no")


def test_folders_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NCDSS_RUNS", str(tmp_path / "r"))
    monkeypatch.setenv("NCDSS_CACHE", str(tmp_path / "c"))
    assert (folders.runs_root(), folders.cache_root()) == (tmp_path / "r", tmp_path / "c")
    monkeypatch.delenv("NCDSS_CACHE")
    assert folders.cache_root() == tmp_path / "r" / "cache"
    monkeypatch.delenv("NCDSS_RUNS")
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    assert folders.runs_root() == tmp_path / "project" / "runs"
