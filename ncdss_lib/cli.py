"""The command line: ``ncdss run | reproduce | prepare | evaluate | predict | report | cache``.

Each verb imports what it needs: --help and wrong options answer at once, without loading torch.
"""

from __future__ import annotations

import argparse
import inspect
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ncdss_lib import __version__
from ncdss_lib.system.errors import InputError, NCDSSError, Terminated, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit status: 0 done, 2 the input or the options are wrong, 130 interrupted, 143
        terminated, 1 anything else.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        options = build_parser().parse_args(arguments)
        with _unwinding_on_sigterm():
            options.do(options)
        return 0
    except Terminated:
        return _fail("terminated; run the same command again to go on.", debug, 143)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on.", debug, 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `ncdss report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NCDSSError as error:
        return _fail(str(error), debug, error.exit_code)
    except OSError as error:
        return _fail(f"{error}.", debug, 1)
    except Exception as error:
        hint = "" if debug else " (--debug shows where)"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", debug, 1)


@contextmanager
def _unwinding_on_sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM, so that kernels are ended and drafts removed.

    Not where somebody else sees to that: where it is ignored (see ``runs.grid_run``), or under
    torchrun, which ends its processes by it once one of them has said what is wrong.
    """

    def terminate(number: int, frame: Any) -> NoReturn:
        raise Terminated

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours or "TORCHELASTIC_RUN_ID" in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str, debug: bool, status: int) -> int:
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.close()  # so that the message gets a line of its own
    if debug:
        traceback.print_exc()
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from ncdss_lib.system.distributed import report_failure

        report_failure(sys.exception())
    print(f"ncdss: {message}", file=sys.stderr)
    return status


# --- the parser ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Help shows defaults; an error is one line, with the nearest valid option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)

    def option(self, name: str, text: str, default: Any = None, **settings: Any) -> None:
        """An option with its help. A default that is a number sets the type, False makes a flag."""
        if default is False:
            settings["action"] = "store_true"
        elif isinstance(default, int | float):
            settings["type"] = type(default)
        self.add_argument(name, help=text, default=default, **settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (`{self.prog} --help` explains the options)")

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {rest[0]!r}: {did_you_mean(rest[0], options)}")
        return known, rest


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; ``do`` of what it parses is the verb's function."""
    about = "Novel class discovery in semantic segmentation, stage by stage."
    parser = _Parser(prog="ncdss", description=about)
    parser.add_argument("--version", action="version", version=f"ncdss {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    # options that several verbs share
    debug = _Parser(add_help=False)
    debug.option("--debug", "show the traceback of an error", False)

    place = _Parser(add_help=False)
    text = "folder of the data set; without it $NCDSS_DATA_ROOT"
    place.option("--data-root", text, metavar="DIR")

    data = _Parser(add_help=False, parents=[place])
    text = "toyscenes (drawn by the library), pascal5i, coco20i or folder (your own images)"
    data.option("--dataset", text, "toyscenes")

    settings = _Parser(add_help=False, parents=[debug])
    text = "change a field of the recipe (repeatable)"
    many = {"action": "append", "dest": "overrides"}
    settings.option("--set", text, [], metavar="STAGE.FIELD=VALUE", **many)
    settings.option("--device", "auto, cpu or cuda", "auto")

    recipe = _Parser(add_help=False, parents=[data, settings])
    text = "laptop (frozen encoder, CPU), regions (laptop and ours beyond the paper) or paper (GPU)"
    recipe.option("--recipe", text, "laptop")
    text = "run folder, or for a grid the folder of all runs; without it "
    recipe.option("--out", text + "runs/DATASET/foldF/RECIPE/seedS", metavar="DIR")

    checkpoint = _Parser(add_help=False, parents=[settings])
    text = "a .safetensors of a run, or a released .pth.tar of the paper"
    checkpoint.option("--checkpoint", text, metavar="FILE", type=Path, dest="path", required=True)
    checkpoint.option("--network", "of an EUMS checkpoint: student or teacher", "student")
    checkpoint.option("--fold", "of the data set that the checkpoint was trained on", 0)

    # the verbs
    _add_run(verbs, recipe)
    _add_reproduce(verbs, recipe)
    _add_prepare(verbs, place, debug)
    _add_evaluate(verbs, data, checkpoint)
    _add_predict(verbs, checkpoint)
    _add_report(verbs, debug)
    _add_cache(verbs, debug)
    return parser


def _verb(
    verbs: Any, name: str, text: str, do: Callable[[argparse.Namespace], None], *parents: _Parser
) -> _Parser:
    """The parser of a verb, which ``text`` explains in the list of verbs and ``do`` carries out."""
    parser: _Parser = verbs.add_parser(name, help=text, description=do.__doc__, parents=parents)
    parser.set_defaults(do=do)
    return parser


def _call(function: Callable[..., Any], options: argparse.Namespace, **others: Any) -> Any:
    """Call a function of the library with those of its arguments that are options of the verb."""
    given = vars(options) | others
    wanted = inspect.signature(function).parameters
    return function(**{name: value for name, value in given.items() if name in wanted})


# --- run ----------------------------------------------------------------------------------------


def _add_run(verbs: Any, recipe: _Parser) -> None:
    run = _verb(verbs, "run", "one run, the library alone", _run, recipe)
    run.option("--fold", "which classes are novel: 0 to 3, and 4 for the animals of PASCAL", 0)
    run.option("--seed", "of weights, order of images, augmentation and clustering", 0)
    run.option("--show-recipe", "print every field of the recipe with its meaning, and stop", False)


def _run(options: argparse.Namespace) -> None:
    """Run all stages; write report.json."""
    from ncdss_lib.recipes import describe, load_recipe

    # wrong settings are refused before torch is loaded, which takes seconds
    recipe = load_recipe(options.recipe, options.overrides, options.dataset)
    if options.show_recipe:
        print(describe(recipe))
        return
    from ncdss_lib.runs.pipeline import open_run
    from ncdss_lib.runs.report import report_tables

    run = _call(open_run, options)
    for line in run.data.left_out if run.runtime.is_main else ():
        print(line, file=sys.stderr)
    path = run.write_report()
    if run.runtime.is_main:
        print(report_tables([path]), f"\n\nWritten: {path}")


# --- reproduce ----------------------------------------------------------------------------------


def _add_reproduce(verbs: Any, recipe: _Parser) -> None:
    text = "the notebooks over folds and seeds, by papermill"
    grid = _verb(verbs, "reproduce", text, _reproduce, recipe)
    grid.option("--folds", "folds of the grid", [0], type=int, nargs="+")
    grid.option("--seeds", "seeds of the grid", [0], type=int, nargs="+")
    text = "runs at a time on this machine; without it one per CUDA device, or one"
    grid.option("--jobs", text, type=int)
    text = "give the runs to a cluster: slurm (or local, to try it on this machine)"
    grid.option("--submit", text, metavar="CLUSTER")
    text = "of the cluster's jobs, such as slurm_partition=gpu or timeout_min=1440 (repeatable)"
    many = {"action": "append", "dest": "submit_options"}
    grid.option("--submit-option", text, [], metavar="KEY=VALUE", **many)
    grid.option("--timeout", "seconds that a cell may take; 0 for no limit", 3600.0)


def _reproduce(options: argparse.Namespace) -> None:
    """Execute the notebooks for every fold and seed."""
    from ncdss_lib.recipes import load_recipe

    recipe = load_recipe(options.recipe, options.overrides, options.dataset)
    from ncdss_lib.data import open_dataset
    from ncdss_lib.data.splits import label_space
    from ncdss_lib.runs.grid import reproduce
    from ncdss_lib.runs.report import report_tables
    from ncdss_lib.runs.submit_jobs import parse_options

    # a wrong fold is refused before the others run
    data = open_dataset(options.dataset, options.data_root, config=recipe.data)
    for line in data.left_out:
        print(line, file=sys.stderr)
    for fold in options.folds:
        label_space(data, fold)

    # the grid, and the tables of all its runs
    of_jobs = parse_options(options.submit_options)
    timeout = options.timeout or None
    print(report_tables(_call(reproduce, options, timeout=timeout, submit_options=of_jobs)))


# --- prepare ------------------------------------------------------------------------------------


def _add_prepare(verbs: Any, place: _Parser, debug: _Parser) -> None:
    about = "Make or verify a data set's folder."
    prepare = verbs.add_parser("prepare", help="data as the pipeline reads it", description=about)
    kinds = prepare.add_subparsers(dest="kind", metavar="WHAT", required=True)

    # from public archives
    raw = _Parser(add_help=False, parents=[place, debug])
    text = "where the archives or what was extracted from them lie; without it --data-root"
    raw.option("--sources", text, metavar="DIR", type=Path)
    raw.option("--download", "fetch the archives that are missing", False)

    text = "PASCAL VOC 2012 and SBD to masks and lists"
    _verb(kinds, "pascal5i", text, _prepare_pascal5i, raw)

    text = "COCO 2014 annotations to masks and lists"
    coco = _verb(kinds, "coco20i", text, _prepare_coco20i, raw)
    text = "which masks to make; data.coco_masks chooses among them"
    coco.option("--masks", text, ["published", "complete"], nargs="+")

    # from any images
    text = "saliency maps for a folder of images"
    saliency = _verb(kinds, "saliency", text, _prepare_saliency, place, debug)
    text = "the images; without it those of --data-root that train"
    saliency.option("--images", text, metavar="DIR", type=Path)
    text = "where the maps go; without it --data-root/saliency_supervised_model"
    saliency.option("--out", text, metavar="DIR", type=Path)
    text = "u2netp (comes with a package), or a model of rembg, which it downloads"
    saliency.option("--model", text, "u2netp")
    text = "instead of a model: a folder of ready maps, 0/1, 0/255 or soft"
    saliency.option("--maps", text, metavar="DIR", type=Path)
    saliency.option("--threshold", "a pixel is salient above this share of the map's range", 0.5)
    saliency.option("--min-area", "smaller components, as a share of the image, are removed", 0.01)


def _prepare_pascal5i(options: argparse.Namespace) -> None:
    from ncdss_lib.prepare.pascal_masks import prepare

    print(_call(prepare, options, data_root=_root_to_prepare(options)))


def _prepare_coco20i(options: argparse.Namespace) -> None:
    from ncdss_lib.prepare.coco_masks import prepare

    print(_call(prepare, options, data_root=_root_to_prepare(options)))


def _prepare_saliency(options: argparse.Namespace) -> None:
    from ncdss_lib.prepare.saliency_maps import prepare

    print(_call(prepare, options, data_root=_root_to_prepare(options)))


def _root_to_prepare(options: argparse.Namespace) -> Path:
    root = options.data_root or os.environ.get("NCDSS_DATA_ROOT")
    if not root:
        raise InputError(
            "prepare needs the data set's folder: --data-root DIR, or $NCDSS_DATA_ROOT."
        )
    return Path(root).expanduser()


# --- evaluate and predict -----------------------------------------------------------------------


def _add_evaluate(verbs: Any, data: _Parser, checkpoint: _Parser) -> None:
    evaluate = _verb(verbs, "evaluate", "score a checkpoint", _evaluate, data, checkpoint)
    text = "the number of clusters that is expected; without it the checkpoint's"
    evaluate.option("--clusters", text, type=int, metavar="K")
    evaluate.option("--out", "write the scores there too, as JSON", metavar="FILE", type=Path)


def _evaluate(options: argparse.Namespace) -> None:
    """Score a checkpoint on the validation images under every protocol."""
    from ncdss_lib.runs.evaluate_checkpoint import evaluate_checkpoint, evaluation_tables

    scores = _call(evaluate_checkpoint, options)
    if os.environ.get("RANK", "0") == "0":
        print(evaluation_tables(scores))


def _add_predict(verbs: Any, checkpoint: _Parser) -> None:
    predict = _verb(verbs, "predict", "segment any pictures", _predict, checkpoint)
    text = "for the class names of a released checkpoint or an unfinished run; "
    predict.option("--dataset", text + "else the run's report has them")
    text = "of your own images, whose classes an unfinished run does not tell"
    predict.option("--data-root", text, metavar="DIR")
    text = "a folder of pictures, or one picture"
    predict.option("--images", text, metavar="DIR", type=Path, required=True)
    text = "a new folder for the masks, overlays and legend"
    predict.option("--out", text, metavar="DIR", type=Path, required=True)


def _predict(options: argparse.Namespace) -> None:
    """Write a mask and an overlay for each picture, and a legend."""
    from ncdss_lib.runs.predict_images import predict_images

    print(_call(predict_images, options))


# --- report -------------------------------------------------------------------------------------


def _add_report(verbs: Any, debug: _Parser) -> None:
    report = _verb(verbs, "report", "tables from run folders", _report, debug)
    text = "run folders, or folders above them"
    report.add_argument("paths", metavar="DIR", nargs="+", help=text)
    text = "of the headline: published, hungarian, majority, argmax_iou, held_out, "
    report.option("--protocol", text + "original_size, best_epoch", "published")
    text = "also write the numbers of these runs into one file, which `report` and the book read"
    report.option("--export", text, metavar="FILE", type=Path)


def _report(options: argparse.Namespace) -> None:
    """Tables from report.json files, in Markdown."""
    from ncdss_lib.runs.report import export, report_tables

    print(report_tables(options.paths, options.protocol))
    if options.export:
        count = export(options.paths, options.export)
        print(f"\nWritten: {options.export} (runs: {count})")


# --- cache --------------------------------------------------------------------------------------


def _add_cache(verbs: Any, debug: _Parser) -> None:
    text = "what is kept for all runs, and how much disk it takes"
    cache = _verb(verbs, "cache", text, _cache, debug)
    text = "remove the entries with these keys, or all; what a run needs is made again"
    cache.add_argument("--clear", metavar="KEY", nargs="*", help=text)


def _cache(options: argparse.Namespace) -> None:
    """List cached features, scenes and class tables, or clear them."""
    from ncdss_lib.runs.clear_caches import cache_table, clear_cache

    print(cache_table() if options.clear is None else clear_cache(options.clear))
