"""What kills and faults share: small commands, each in a process group of its own, and what they must leave behind.

A command is a fork of this process, which has imported everything: a trial costs no more than the work itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ncdss_lib import cli
from ncdss_lib.data.toyscenes import ToyScenes
from ncdss_lib.runs import evaluate_checkpoint, grid, grid_run, pipeline, predict_images  # noqa: F401
from ncdss_lib.system import folders
from tests.conftest import TINY_LAPTOP
from tests.prepare.fake_raw import annotation, box, image, make_coco, make_sbd, make_voc, pack
from tests.runs.test_notebooks import write_notebook

SMALL = ("data.size=32", "evaluation.size=32", "clustering.num_clusters=6", "clustering.min_area_fraction=0", "ablation.enabled=true")
SETTINGS = [*(f"--set={override}" for override in (*TINY_LAPTOP, *SMALL)), "--device=cpu"]
TIMES = {"seconds", "peak_memory_bytes", "skipped"}
SCENES = {"train": 64, "val": 6, "size": 32}
NOTEBOOK = (
    "from ncdss_lib.data.toyscenes import ToyScenes\nfrom ncdss_lib.runs.pipeline import open_run\n"
    f"ToyScenes.__init__.__kwdefaults__.update({SCENES})\n"  # a kernel is no fork of this process
    "open_run(dataset, data_root, fold, seed, recipe, out, overrides).{last}"
)
PARAMETERS = (
    'dataset: str = "toyscenes"\ndata_root: str | None = None\nfold: int = 0\nseed: int = 0\nrecipe: str = "laptop"\n'
    "out: str | None = None\noverrides: list = []"
)


@dataclass
class Command:
    """A command as it is tried: ``arguments`` with ``{root}`` for the trial's folder and ``{given}`` for what all trials read.

    Attributes:
        resumes: a second call ends what a first one began, and finds nothing to do after that.
    """

    arguments: Sequence[str]
    resumes: bool = True
    seconds: float = 0.0  # of an undisturbed call
    moments: dict[str, float] = field(default_factory=dict)  # what it was making, and for how many seconds
    expected: dict[str, bytes] = field(default_factory=dict)  # what an undisturbed call leaves


COMMANDS: dict[str, Command] = {
    "run": Command(["run", "--out={root}/run", *SETTINGS]),
    "prepare pascal5i": Command(["prepare", "pascal5i", "--data-root={root}/voc", "--sources={given}/archives"]),
    "prepare coco20i": Command(["prepare", "coco20i", "--data-root={root}/coco", "--sources={given}/coco"]),
    "prepare saliency": Command(["prepare", "saliency", "--data-root={given}/pictures", "--out={root}/maps", "--maps={given}/soft"]),
    "predict": Command(
        ["predict", "--checkpoint={given}/run/eums/eums.safetensors", "--images={given}/pictures", "--out={root}/out", "--device=cpu"],
        resumes=False,
    ),
    "evaluate": Command(
        [
            *("evaluate", "--checkpoint={given}/run/eums/eums.safetensors", "--dataset=toyscenes", "--out={root}/scores.json"),
            "--device=cpu",
        ]
    ),
    "reproduce": Command(["reproduce", "--out={root}/run", *SETTINGS]),
}


# --- processes ----------------------------------------------------------------------------------------------------------------------------


def start(command: Command, root: Path, given: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs a command as the leader of its own group; its id.

    Args:
        prepare: called in the new process before the command.
    """
    arguments = [argument.format(root=root, given=given) for argument in command.arguments]
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        said = os.open(_said_file(root), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(said, number)
        os.environ |= {"NCDSS_RUNS": str(root / "runs"), "NCDSS_CACHE": str(root / "cache")}
        prepare()
        status = cli.main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a process, negative for a signal, or None when it has not ended in that time."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def group_is_gone(group: int, seconds: float = 10.0) -> bool:
    """Whether no process of a group is left, after a moment in which kernels may end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def said(root: Path) -> str:
    """What the commands in a folder have said so far; the file is beside it, since it may be full or read-only."""
    return _said_file(root).read_text(errors="replace") if _said_file(root).exists() else ""


def forget(root: Path) -> None:
    _said_file(root).unlink(missing_ok=True)


def _said_file(root: Path) -> Path:
    return root.with_name(f"{root.name}.said")


def watched(pid: int, root: Path) -> tuple[int, dict[str, float]]:
    """The exit status of a process that nobody disturbs, and the seconds that it spent on what."""
    moments: dict[str, float] = {}
    last = time.monotonic()
    while (status := wait(pid, 0.005)) is None:
        moment, now = work_in_progress(root), time.monotonic()
        moments[moment] = moments.get(moment, 0.0) + now - last
        last = now
    return status, moments


def wait_for(pid: int, moment: str, root: Path, seconds: float) -> int | None:
    """Wait until something is being made; the exit status where the process ends before."""
    deadline = time.monotonic() + seconds
    while (status := wait(pid, 0)) is None and work_in_progress(root) != moment and time.monotonic() < deadline:
        time.sleep(0.005)
    return status


def work_in_progress(root: Path) -> str:
    """What is being made: the hidden names below a folder, of drafts of folders and of notebooks."""
    names = {_plain(name) for _, folders, files in os.walk(root) for name in (*folders, *files) if _DRAFT.match(name)}
    return ", ".join(sorted(names)) or "between"


_DRAFT = re.compile(r"\.(?:(?P<folder>.+)\.partial|(?:draft|[0-9a-f]{32})-(?P<notebook>.+)\.ipynb)$")


def _plain(name: str) -> str:
    found = _DRAFT.match(name)
    made = (found and (found["folder"] or found["notebook"])) or name
    return "features" if re.fullmatch("[0-9a-f]{16}", made) else made


# --- what a command leaves --------------------------------------------------------------------------------------------------------


def artefacts(root: Path) -> dict[str, bytes]:
    """Every file below a folder by its name, without times, which differ from run to run."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "reproduce.log")
    return {path.relative_to(root).as_posix(): _without_times(path) for path in paths}


def _without_times(path: Path) -> bytes:
    if path.suffix == ".ipynb":  # times in all its metadata; that it is whole is what counts
        return str(len(json.loads(path.read_text())["cells"])).encode()
    if path.name == folders.CHECKSUMS:
        return b"".join(line for line in path.read_bytes().splitlines() if not line.endswith(folders.MANIFEST.encode()))
    if path.name in (folders.MANIFEST, "report.json"):
        return json.dumps(_dropped(json.loads(path.read_text())), sort_keys=True).encode()
    return path.read_bytes()


def _dropped(value: object) -> object:
    if isinstance(value, dict):
        return {key: _dropped(entry) for key, entry in value.items() if key not in TIMES}
    return value


def differences(command: Command, root: Path) -> list[str]:
    """Files that differ from those of an undisturbed call, are missing, or are left over."""
    found = artefacts(root)
    locks = {name for name in found if name.endswith(".lock")}  # of a killed process; the next one takes and removes it
    names = (found.keys() | command.expected.keys()) - locks
    return sorted(name for name in names if found.get(name) != command.expected.get(name))


# --- what all trials read ---------------------------------------------------------------------------------------------------------


def make_given(given: Path, names: Sequence[str]) -> None:
    """Pictures, archives and a finished run, and an undisturbed call of each command to compare with."""
    ToyScenes.__init__.__kwdefaults__.update(SCENES)  # forks inherit it
    rng = np.random.default_rng(0)
    for name in ("pictures", "soft", "archives"):
        (given / name).mkdir(parents=True)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(given / "pictures" / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (90, 120), np.uint8)).save(given / "soft" / f"{number}.png")

    # archives that take a moment to read
    voc = make_voc(given / "raw" / "voc")
    for number in range(200):
        (voc / "JPEGImages" / f"2010_{number:06d}.jpg").write_bytes(rng.bytes(20_000))
    pack(given / "raw" / "voc", given / "archives" / "VOCtrainval_11-May-2012.tar")
    make_sbd(given / "raw" / "sbd")
    pack(given / "raw" / "sbd", given / "archives" / "benchmark.tgz")
    things = [annotation(number, number, 1 + number % 80, [box(1, 1, 9, 9)]) for number in range(1, 41)]
    make_coco(
        given / "coco",
        {"train": ([image(n) for n in range(1, 41)], things), "val": ([image(n, "val") for n in range(1, 11)], things[:10])},
    )

    # two small notebooks
    notebooks = given / "notebooks"
    for number, last in enumerate(('ensure("clustering")', "write_report()"), 1):
        write_notebook(notebooks / f"0{number}_small.ipynb", NOTEBOOK.replace("{last}", last), parameters=PARAMETERS)
    paths = sorted(notebooks.iterdir())
    grid.notebook_paths = grid_run.notebook_paths = lambda: paths  # type: ignore[attr-defined]

    reads_a_run = {"run", "predict", "evaluate"}
    for name in (*(["run"] if reads_a_run.intersection(names) else []), *names):
        command = COMMANDS[name]
        root = given / "undisturbed" / name
        root.mkdir(parents=True, exist_ok=True)
        if not command.expected:
            status, command.moments = watched(start(command, root, given), root)
            if status != 0:
                raise SystemExit(f"{name} does not work undisturbed:\n{said(root)}")
            command.seconds = sum(command.moments.values())
            command.expected = artefacts(root)
        if name == "run" and not (given / "run").exists():
            (given / "run").symlink_to(root / "run")
