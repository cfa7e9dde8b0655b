"""``python -m benchmarks.gpu``: every part in turn, printed and written as it ends."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import gpu
from benchmarks.gpu import PAPER, TINY, Kit, Row, inference, loading, machine, runs, steps
from benchmarks.measure import open_data
from ncdss_lib.system.folders import write_json

PARTS: dict[str, Callable[[Kit], Iterable[Row]]] = {
    "machine": machine.run,
    "steps": steps.run,
    "loading": loading.run,
    "inference": inference.run,
    "runs": runs.run,
    "checks": runs.checks,
    "laptop": runs.laptop,
    "compiled": steps.run_compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where gpu.json is written"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=6,
        help="no further row is begun after this time (default: 6)",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="photos in the layout of PASCAL-5i; without it toy scenes are drawn",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="small images and networks, to see that everything runs"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="some of the parts (default: all)",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="REGEX",
        help='steps whose "TRAINING: VARIANT" it matches (default: all)',
    )
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "PyTorch sees no CUDA device here: nothing was run. --device cpu --tiny tries the "
            "program itself."
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    result: dict[str, Any] = {
        "schema": 1,
        "machine": machine.describe(arguments.device),
        "tiny": arguments.tiny,
        "data": "photos" if arguments.data_root else "toyscenes",
        "parts": {},
    }
    print(tabulate(result["machine"].items(), tablefmt="plain"), flush=True)
    with open_data(arguments.data_root, images=64) as data:
        kit = Kit(arguments.device, TINY if arguments.tiny else PAPER, data, arguments.only)
        for name in arguments.parts:
            result["parts"][name] = part = {"rows": [], "seconds": 0.0, "status": "cut off"}
            _run_part(
                PARTS[name],
                kit,
                part,
                deadline,
                lambda: write_json(arguments.out / "gpu.json", result),
            )
            print(
                f"\n{name}: {part['status']}, {part['seconds']:.0f} s\n{_table(part['rows'])}",
                flush=True,
            )
    failed = [name for name, part in result["parts"].items() if part["status"].startswith("failed")]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _run_part(
    rows: Callable[[Kit], Iterable[Row]],
    kit: Kit,
    part: dict[str, Any],
    deadline: float,
    save: Callable[[], object],
) -> None:
    """Add the rows of a part one by one, each written at once, until it ends, fails, or the time is
    over.
    """
    started = time.monotonic()
    try:
        if started > deadline:
            part["status"] = "not run: out of time"
            return
        for row in rows(kit):
            part["rows"].append(row)
            part["seconds"] = round(time.monotonic() - started, 1)
            save()
            if time.monotonic() > deadline:
                part["status"] = "cut off: out of time"
                return
        part["status"] = "done"
    except Exception as error:  # the other parts are to run all the same
        traceback.print_exc()
        part["status"] = f"failed: {type(error).__name__}: {str(error)[:500]}"
    finally:
        part["seconds"] = round(time.monotonic() - started, 1)
        save()


def _table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return tabulate(
        [[row.get(name) for name in columns] for row in rows], headers=columns, floatfmt=".4g"
    )


if __name__ == "__main__":
    main()
