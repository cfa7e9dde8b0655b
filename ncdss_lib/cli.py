"""The command line: ``ncdss run | reproduce | report``."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from ncdss_lib import __version__
from ncdss_lib.errors import InputError, NCDSSError, nearest


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest valid option."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (`{self.prog} --help` explains the options)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {rest[0]!r}: {nearest(rest[0], options)}")
        return known, rest


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ncdss", description="Novel class discovery in semantic segmentation, stage by stage.")
    parser.add_argument("--version", action="version", version=f"ncdss {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    shape = argparse.ArgumentDefaultsHelpFormatter

    common = _Parser(add_help=False)
    common.add_argument("--dataset", default="toyscenes", help="toyscenes (drawn by the library) or pascal5i")
    common.add_argument("--data-root", metavar="DIR", help="folder of the data set; without it $NCDSS_DATA_ROOT")
    common.add_argument("--recipe", default="laptop", help="laptop (frozen encoder, CPU) or paper (published values, GPU)")
    common.add_argument(
        "--out", metavar="DIR", help="run folder, or for a grid the folder of all runs; without it runs/DATASET/foldF/RECIPE/seedS"
    )
    common.add_argument(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change a field of the recipe (repeatable)",
    )
    common.add_argument("--device", default="auto", help="auto, cpu or cuda")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    run = verbs.add_parser(
        "run", parents=[common], formatter_class=shape, help="one run, the library alone", description="Run all stages; write report.json."
    )
    run.add_argument("--fold", type=int, default=0, help="which classes are novel: 0 to 3, and 4 for the animals of PASCAL")
    run.add_argument("--seed", type=int, default=0, help="of weights, order of images, augmentation and clustering")
    run.add_argument("--show-recipe", action="store_true", help="print every field of the recipe with its meaning, and stop")

    grid = verbs.add_parser(
        "reproduce", parents=[common], formatter_class=shape, help="the notebooks over folds and seeds, by papermill",
        description="Execute the notebooks for every fold and seed, one process a run.",
    )  # fmt: skip
    grid.add_argument("--folds", type=int, nargs="+", default=[0], help="folds of the grid")
    grid.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the grid")
    grid.add_argument("--jobs", type=int, default=1, help="runs at a time")
    grid.add_argument("--timeout", type=float, default=3600.0, help="seconds that a cell may take; 0 for no limit")

    report = verbs.add_parser(
        "report", formatter_class=shape, help="tables from run folders", description="Tables from report.json files, in Markdown."
    )
    report.add_argument("paths", metavar="DIR", nargs="+", help="run folders, or folders above them")
    report.add_argument(
        "--protocol", default="published", help="matching of clusters to classes: published, hungarian, argmax_iou or majority"
    )
    report.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit status: 0 done, 2 the input or the options are wrong, 1 anything else.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        options = build_parser().parse_args(arguments)
        {"run": _run, "reproduce": _reproduce, "report": _report}[options.verb](options)
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on.", debug, 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `ncdss report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NCDSSError as error:
        return _fail(str(error), debug, error.exit_code)
    except OSError as error:
        hint = " Make room and run the same command again." if error.errno == errno.ENOSPC else ""
        return _fail(f"{error}.{hint}", debug, 1)
    except Exception as error:
        return _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", debug, 1)


def _fail(message: str, debug: bool, status: int) -> int:
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):  # the message gets a line of its own
            bar.close()
    if debug:
        traceback.print_exc()
    print(f"ncdss: {message}", file=sys.stderr)
    return status


# The verbs import what they need: --help and wrong options answer at once, without loading torch.


def _run(options: argparse.Namespace) -> None:
    from ncdss_lib.recipes import describe, load_recipe

    if options.show_recipe:
        print(describe(load_recipe(options.recipe, options.overrides)))
        return
    from ncdss_lib.pipeline import open_run
    from ncdss_lib.report import report_tables

    run = open_run(
        options.dataset, options.data_root, options.fold, options.seed, options.recipe, options.out, options.overrides, options.device
    )
    path = run.write_report()
    if run.runtime.is_main:
        print(report_tables([path]), f"\n\nWritten: {path}")


def _reproduce(options: argparse.Namespace) -> None:
    if options.debug:
        os.environ["NCDSS_DEBUG"] = "1"
    from ncdss_lib.batch import reproduce
    from ncdss_lib.data import open_dataset
    from ncdss_lib.data.base import label_space
    from ncdss_lib.report import report_tables

    data = open_dataset(options.dataset, options.data_root)
    for fold in options.folds:  # a wrong one is refused before the others run
        label_space(data, fold)
    folders = reproduce(
        options.dataset, options.data_root, options.folds, options.seeds, options.recipe, options.overrides, options.out, options.device,
        options.jobs, options.timeout or None,
    )  # fmt: skip
    print(report_tables(folders))


def _report(options: argparse.Namespace) -> None:
    from ncdss_lib.report import report_tables

    print(report_tables(options.paths, options.protocol))
