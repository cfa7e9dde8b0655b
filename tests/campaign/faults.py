"""Full and read-only disks, and damage to what lies on them; then the same command again.

``python -m tests.campaign faults --count 40 --seed 0`` (as root on Linux: small file systems are mounted)
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.campaign.trials import COMMANDS, Command, differences, forget, make_given, said, start, wait

PATIENCE = 600.0
FAULTS = ("disks", "cache", "run")


class Table:
    """A row a fault: how often it was tried, what was answered, and what was wrong."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.wrong: list[str] = []

    def add(self, fault: str, answer: str, good: bool, root: Path) -> None:
        self.answers[fault][answer] += 1
        if not good:
            self.wrong.append(f"{fault}: {answer}")
            print(f"WRONG {fault}: {answer}\n{said(root)[-2000:]}", flush=True)


def call(command: Command, root: Path, given: Path) -> tuple[int | None, str]:
    """Exit status, and what was said."""
    forget(root)
    status = wait(start(command, root, given), PATIENCE)
    return status, said(root)


def message(text: str) -> str:
    """The last message of the program, empty where there is none."""
    found = re.findall(r"^ncdss: (.*)$", text.replace("\r", "\n"), re.MULTILINE)
    return found[-1] if found else ""


@contextmanager
def small_disk(root: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at ``root``."""
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", root], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def remounted(root: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", root], check=True)


def full_disk(name: str, command: Command, root: Path, given: Path, rng: random.Random, table: Table) -> None:
    """A disk that fills up somewhere: one clear message, and after room was made the same end as ever."""
    needed = sum(len(content) // 4096 * 4096 + 8192 for content in command.expected.values())
    with small_disk(root, int(rng.uniform(4096, needed))):
        status, text = call(command, root, given)
        clear = status == 0 or (status == 1 and "No space left" in message(text) and "Traceback" not in text)
        table.add(f"full disk: {name}", "fits" if status == 0 else f"exit {status}", clear, root)
        remounted(root, "size=1g")
        status, _ = call(command, root, given)
        ends = status == 0 or (status == 2 and not command.resumes)
        changed = differences(command, root)
        table.add(f"full disk, then room: {name}", "the same files", ends and not changed, root)


def read_only_disk(name: str, command: Command, root: Path, given: Path, table: Table) -> None:
    """A disk that takes nothing: one clear message."""
    with small_disk(root, 2**20):
        remounted(root, "ro")
        status, text = call(command, root, given)
        clear = status in (1, 2) and re.search("[Rr]ead-only", message(text)) and "Traceback" not in text
        table.add(f"read-only: {name}", f"exit {status}", bool(clear), root)


def kinds_of_artefacts(root: Path) -> dict[str, list[Path]]:
    """All files below a folder, by name without numbers, keys, and names of networks and protocols."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = re.sub(r"[0-9a-f]{16}", "KEY", path.relative_to(root).as_posix())
        name = re.sub(r"(?<=ablation/)\w+(?=/)", "ROW", re.sub(r"confusion_\w+", "confusion_NAME", name))
        found[re.sub(r"\d+", "N", name)].append(path)
    return dict(found)


def damaged(kind: str, path: Path, how: str, root: Path, given: Path, rng: random.Random, table: Table) -> None:
    """Damage a file of a finished run; run again, and once more with the stages gone that would hide it in a cache."""
    command, content = COMMANDS["run"], bytearray(path.read_bytes())
    if how == "flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content if how == "flipped" else content[: rng.randrange(len(content))])
    fault = f"{how}: {kind}"
    if "cache" in kind:
        shutil.rmtree(root / "run")
    status, text = call(command, root, given)
    answer = "made again, a line says so" if "damaged" in text else "made again"
    if status == 2 and path.name in message(text):
        answer = "exit 2 with the file's name; made again once it was removed"
        shutil.rmtree(path.parent)
        status, text = call(command, root, given)
    changed = differences(command, root)
    if "cache" in kind and status == 0 and changed == [path.relative_to(root).as_posix()]:
        answer, changed = "not read by this run, nothing else differs", []
    unnoticed = "run/" in kind and "report.json" not in kind and "damaged" not in text
    good = status == 0 and not changed and not unnoticed and "Traceback" not in text
    table.add(fault, answer if good else f"exit {status}, {changed[:3]}", good, root)
    print(f"  {fault}: {answer}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the campaign; 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign faults")
    parser.add_argument("--count", type=int, default=5, help="full disks a command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=FAULTS, help="cache and run: damage to what lies there")
    options = parser.parse_args(arguments)
    rng, table, began = random.Random(options.seed), Table(), time.monotonic()
    names = ["run", "prepare pascal5i", "prepare saliency", "predict", "evaluate"]
    with tempfile.TemporaryDirectory(prefix="ncdss-faults-") as folder:
        given, root = Path(folder, "given"), Path(folder, "trial")
        make_given(given, names if "disks" in options.only else ["run"])
        if "disks" in options.only:
            for name in names:
                read_only_disk(name, COMMANDS[name], root, given, table)
                for _ in range(options.count):
                    full_disk(name, COMMANDS[name], root, given, rng, table)
        undisturbed = given / "undisturbed" / "run"
        for kind, paths in kinds_of_artefacts(undisturbed).items():
            for how in ("flipped", "cut") if kind.split("/")[0] in options.only else ():
                shutil.rmtree(root, ignore_errors=True)
                shutil.copytree(undisturbed, root)
                path = root / rng.choice(paths).relative_to(undisturbed)
                if path.stat().st_size:
                    damaged(kind, path, how, root, given, rng, table)
    for fault, answers in table.answers.items():
        print(f"  {fault:60} {', '.join(f'{times} x {answer}' for answer, times in answers.items())}")
    print(f"{len(table.wrong)} wrong, {time.monotonic() - began:.0f} s")
    return 1 if table.wrong else 0
