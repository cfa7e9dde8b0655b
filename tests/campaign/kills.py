"""Kills at random moments, then the same command again: every file must be that of an undisturbed run.

``python -m tests.campaign kills --count 200 --seed 0 [--only run ...]``

What is being made is chosen first, each stage as often as any other, and then the moment within it: short
stages are hit as often as long ones.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.campaign.trials import (
    COMMANDS,
    Command,
    differences,
    forget,
    group_is_gone,
    make_given,
    said,
    start,
    wait,
    wait_for,
    work_in_progress,
)

PATIENCE = 600.0  # seconds for a call that nobody disturbs
WORDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


class Count:
    """What was tried and what went wrong."""

    def __init__(self) -> None:
        self.hit: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.chains = 0

    def check(self, good: bool, what: str, root: Path) -> None:
        if not good:
            self.wrong.append(what)
            print(f"WRONG {what}\n{said(root)[-2000:]}", flush=True)


def killed_and_resumed(name: str, command: Command, root: Path, given: Path, rng: random.Random, count: Count, kills: int) -> int:
    """Kill a command again and again until it has ended by itself or was killed ``kills`` times.

    A call goes on with what was made before: where the chosen work is done already, it ends by itself.

    Returns:
        How often it was killed.
    """
    done = 0
    while done < kills:
        moment = rng.choice(list(command.moments))
        pid = start(command, root, given)
        status = wait_for(pid, moment, root, PATIENCE)
        if status is None:
            status = wait(pid, rng.uniform(0, command.moments[moment]))
        if status is not None:
            break
        count.hit[f"{name}: {work_in_progress(root)}"] += 1
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            os.kill(pid, signal.SIGKILL)
        wait(pid, PATIENCE)
        done += 1
    if done == kills:
        status = wait(start(command, root, given), PATIENCE)
    count.check(ended_well(command, status), f"{name}: status {status} after {done} kills", root)
    count.check("Traceback" not in said(root), f"{name}: a traceback", root)
    changed = differences(command, root)
    count.check(not changed, f"{name}: {changed[:5]} after {done} kills", root)
    count.chains += 1
    return done


def ended_well(command: Command, status: int | None) -> bool:
    """Whether the last call did what it had to, or found that it was done: the disturbance may have come a moment too late."""
    return status == 0 or (status == 2 and not command.resumes)


def signalled(name: str, command: Command, root: Path, given: Path, rng: random.Random, count: Count, number: signal.Signals) -> None:
    """Interrupt or terminate a command: its status, one line, no process left; then it goes on to the same end."""
    pid = start(command, root, given)
    status = wait(pid, 0.05 + rng.uniform(0, command.seconds / 2))
    if status is None:
        os.kill(pid, number)
        status = wait(pid, 60)
        expected, word = WORDS[number]
        lines = [line for line in said(root).replace("\r", "\n").splitlines() if line.startswith("ncdss: ")]
        begun = status != -number or said(root)  # else the signal came before the program heeds any
        count.check(status in (expected, 0) or not begun, f"{name}: status {status} after {number.name}", root)
        if status and begun:
            count.check(lines == [f"ncdss: {word}; run the same command again to go on."], f"{name}: {lines} after {number.name}", root)
        count.check(group_is_gone(pid), f"{name}: a process is left after {number.name}", root)
        if status and "Traceback" in said(root):
            count.check(False, f"{name}: a traceback after {number.name}", root)
        forget(root)
        if status:
            status = wait(start(command, root, given), PATIENCE)
    good = ended_well(command, status) and not differences(command, root)
    count.check(good, f"{name}: not the same after {number.name} ({status})", root)


def at_once(name: str, command: Command, root: Path, given: Path, count: Count, processes: int) -> None:
    """Start a command several times at the same moment: all end well, or all but one are told that it is done."""
    pids = [start(command, root, given) for _ in range(processes)]
    statuses = sorted(str(wait(pid, PATIENCE)) for pid in pids)
    fine = statuses == ["0"] * processes or (not command.resumes and statuses == ["0"] + ["2"] * (processes - 1))
    count.check(fine, f"{name}: {processes} at once end with {statuses}", root)
    changed = differences(command, root)
    count.check(not changed, f"{name}: {changed[:5]} after {processes} at once", root)
    count.check("Traceback" not in said(root), f"{name}: a traceback", root)


def main(arguments: list[str]) -> int:
    """Run the campaign; 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign kills")
    parser.add_argument("--count", type=int, default=200, help="SIGKILLs, over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args(arguments)
    rng, count, began = random.Random(options.seed), Count(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ncdss-kills-") as folder:
        given = Path(folder, "given")
        make_given(given, options.only)
        for name in options.only:
            moments = ", ".join(f"{moment} {seconds:.2f}" for moment, seconds in COMMANDS[name].moments.items())
            print(f"{name}: {COMMANDS[name].seconds:.2f} s undisturbed ({moments})", flush=True)

        def fresh() -> Path:
            root = Path(folder, "trial")
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            forget(root)
            return root

        kills, signals, together = 0, 0, 0
        turn = 0
        while kills < options.count:
            name = options.only[turn % len(options.only)]
            turn += 1
            kills += killed_and_resumed(name, COMMANDS[name], fresh(), given, rng, count, options.count - kills)
            print(f"{time.monotonic() - began:6.0f} s  {kills} kills, {count.chains} resumed, {len(count.wrong)} wrong", flush=True)
        for name in options.only:
            for number in WORDS:
                signalled(name, COMMANDS[name], fresh(), given, rng, count, number)
                signals += 1
            for processes in (2, 3):
                at_once(name, COMMANDS[name], fresh(), given, count, processes)
                together += 1
    for what, times in sorted(count.hit.items()):
        print(f"  {times:4}  {what}")
    print(f"{kills} kills, {count.chains} times resumed to the end, {signals} SIGINT and SIGTERM, {together} times two or three at once: ")
    print(f"{len(count.wrong)} wrong, {time.monotonic() - began:.0f} s")
    return 1 if count.wrong else 0
