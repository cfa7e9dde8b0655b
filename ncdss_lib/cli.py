"""The command line: ``ncdss run | reproduce | prepare | evaluate | predict | report``."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ncdss_lib import __version__
from ncdss_lib.system.errors import InputError, NCDSSError, did_you_mean


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest valid option."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (`{self.prog} --help` explains the options)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {rest[0]!r}: {did_you_mean(rest[0], options)}")
        return known, rest


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ncdss", description="Novel class discovery in semantic segmentation, stage by stage.")
    parser.add_argument("--version", action="version", version=f"ncdss {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    shape = argparse.ArgumentDefaultsHelpFormatter

    debug = _Parser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")

    data = _Parser(add_help=False)
    data.add_argument(
        "--dataset", default="toyscenes", help="toyscenes (drawn by the library), pascal5i, coco20i or folder (your own images)"
    )
    data.add_argument("--data-root", metavar="DIR", help="folder of the data set; without it $NCDSS_DATA_ROOT")

    settings = _Parser(add_help=False)
    settings.add_argument(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change a field of the recipe (repeatable)",
    )
    settings.add_argument("--device", default="auto", help="auto, cpu or cuda")

    whole = _Parser(add_help=False, parents=[data, settings, debug])
    whole.add_argument("--recipe", default="laptop", help="laptop (frozen encoder, CPU) or paper (published values, GPU)")
    whole.add_argument(
        "--out", metavar="DIR", help="run folder, or for a grid the folder of all runs; without it runs/DATASET/foldF/RECIPE/seedS"
    )

    run = verbs.add_parser(
        "run", parents=[whole], formatter_class=shape, help="one run, the library alone", description="Run all stages; write report.json."
    )
    run.add_argument("--fold", type=int, default=0, help="which classes are novel: 0 to 3, and 4 for the animals of PASCAL")
    run.add_argument("--seed", type=int, default=0, help="of weights, order of images, augmentation and clustering")
    run.add_argument("--show-recipe", action="store_true", help="print every field of the recipe with its meaning, and stop")

    grid = verbs.add_parser(
        "reproduce", parents=[whole], formatter_class=shape, help="the notebooks over folds and seeds, by papermill",
        description="Execute the notebooks for every fold and seed, one process a run.",
    )  # fmt: skip
    grid.add_argument("--folds", type=int, nargs="+", default=[0], help="folds of the grid")
    grid.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the grid")
    grid.add_argument("--jobs", type=int, help="runs at a time on this machine; without it one per CUDA device, or one")
    grid.add_argument("--submit", metavar="CLUSTER", help="give the runs to a cluster: slurm (or local, to try it on this machine)")
    grid.add_argument(
        "--submit-option", metavar="KEY=VALUE", action="append", default=[], dest="submit_options",
        help="of the cluster's jobs, such as slurm_partition=gpu or timeout_min=1440 (repeatable)",
    )  # fmt: skip
    grid.add_argument("--timeout", type=float, default=3600.0, help="seconds that a cell may take; 0 for no limit")

    prepare = verbs.add_parser("prepare", help="data as the pipeline reads it", description="Make or verify a data set's folder.")
    kinds = prepare.add_subparsers(dest="kind", metavar="WHAT", required=True)
    place = _Parser(add_help=False, parents=[debug])
    place.add_argument("--data-root", metavar="DIR", help="folder of the data set; without it $NCDSS_DATA_ROOT")
    raw = _Parser(add_help=False, parents=[place])
    raw.add_argument("--sources", metavar="DIR", help="where the archives or what was extracted from them lie; without it --data-root")
    raw.add_argument("--download", action="store_true", help="fetch the archives that are missing")
    kinds.add_parser("pascal5i", parents=[raw], formatter_class=shape, help="PASCAL VOC 2012 and SBD to masks and lists")
    coco = kinds.add_parser("coco20i", parents=[raw], formatter_class=shape, help="COCO 2014 annotations to masks and lists")
    coco.add_argument(
        "--masks", nargs="+", default=["published", "complete"], help="which masks to make; data.coco_masks chooses among them"
    )
    saliency = kinds.add_parser("saliency", parents=[place], formatter_class=shape, help="saliency maps for a folder of images")
    saliency.add_argument("--images", metavar="DIR", help="the images; without it those of --data-root that train")
    saliency.add_argument("--out", metavar="DIR", help="where the maps go; without it --data-root/saliency_supervised_model")
    saliency.add_argument("--model", default="u2netp", help="u2netp (comes with a package), or a model of rembg, which it downloads")
    saliency.add_argument("--maps", metavar="DIR", help="instead of a model: a folder of ready maps, 0/1, 0/255 or soft")
    saliency.add_argument("--threshold", type=float, default=0.5, help="a pixel is salient above this share of the map's range")
    saliency.add_argument("--min-area", type=float, default=0.01, help="smaller components, as a share of the image, are removed")

    trained = _Parser(add_help=False, parents=[settings, debug])
    trained.add_argument("--checkpoint", metavar="FILE", required=True, help="a .safetensors of a run, or a released .pth.tar of the paper")
    trained.add_argument("--network", default="student", help="of an EUMS checkpoint: student or teacher")
    trained.add_argument("--fold", type=int, default=0, help="of the data set that the checkpoint was trained on")
    score = verbs.add_parser(
        "evaluate", parents=[data, trained], formatter_class=shape, help="score a checkpoint",
        description="Score a checkpoint on the validation images under every protocol.",
    )  # fmt: skip
    score.add_argument("--clusters", type=int, metavar="K", help="the number of clusters that is expected; without it the checkpoint's")
    score.add_argument("--out", metavar="FILE", help="write the scores there too, as JSON")
    see = verbs.add_parser(
        "predict", parents=[trained], formatter_class=shape, help="segment any pictures",
        description="Write a mask and an overlay for each picture, and a legend.",
    )  # fmt: skip
    see.add_argument("--dataset", help="for the class names of a released checkpoint or an unfinished run; else the run's report has them")
    see.add_argument("--data-root", metavar="DIR", help="of your own images, whose classes an unfinished run does not tell")
    see.add_argument("--images", metavar="DIR", required=True, help="a folder of pictures, or one picture")
    see.add_argument("--out", metavar="DIR", required=True, help="a new folder for the masks, overlays and legend")

    report = verbs.add_parser(
        "report",
        parents=[debug],
        formatter_class=shape,
        help="tables from run folders",
        description="Tables from report.json files, in Markdown.",
    )
    report.add_argument("paths", metavar="DIR", nargs="+", help="run folders, or folders above them")
    report.add_argument(
        "--protocol",
        default="published",
        help="of the headline: published, hungarian, majority, argmax_iou, held_out, original_size, best_epoch",
    )
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
        _VERBS[options.verb](options)
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
        hint = "" if debug else " (--debug shows where)"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", debug, 1)


def _fail(message: str, debug: bool, status: int) -> int:
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):  # the message gets a line of its own
            bar.close()
    if debug:
        traceback.print_exc()
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from ncdss_lib.runtime import report_failure

        report_failure(sys.exception())
    print(f"ncdss: {message}", file=sys.stderr)
    return status


# The verbs import what they need: --help and wrong options answer at once, without loading torch.


def _run(options: argparse.Namespace) -> None:
    from ncdss_lib.recipes import describe, load_recipe

    if options.show_recipe:
        print(describe(load_recipe(options.recipe, options.overrides, options.dataset)))
        return
    from ncdss_lib.pipeline import open_run
    from ncdss_lib.runs.report import report_tables

    run = open_run(
        options.dataset, options.data_root, options.fold, options.seed, options.recipe, options.out, options.overrides, options.device
    )
    path = run.write_report()
    if run.runtime.is_main:
        print(report_tables([path]), f"\n\nWritten: {path}")


def _reproduce(options: argparse.Namespace) -> None:
    from ncdss_lib.data import open_dataset
    from ncdss_lib.data.base import label_space
    from ncdss_lib.recipes import load_recipe
    from ncdss_lib.runs.cluster import parse_options
    from ncdss_lib.runs.grid import reproduce
    from ncdss_lib.runs.report import report_tables

    recipe = load_recipe(options.recipe, options.overrides, options.dataset)
    data = open_dataset(options.dataset, options.data_root, config=recipe.data)
    for fold in options.folds:  # a wrong one is refused before the others run
        label_space(data, fold)
    folders = reproduce(
        options.dataset, options.data_root, options.folds, options.seeds, options.recipe, options.overrides, options.out, options.device,
        options.jobs, options.timeout or None, options.submit, parse_options(options.submit_options),
    )  # fmt: skip
    print(report_tables(folders))


def _report(options: argparse.Namespace) -> None:
    from ncdss_lib.runs.report import report_tables

    print(report_tables(options.paths, options.protocol))


def _prepare(options: argparse.Namespace) -> None:
    root = options.data_root or os.environ.get("NCDSS_DATA_ROOT")
    if not root:
        raise InputError("prepare needs the data set's folder: --data-root DIR, or $NCDSS_DATA_ROOT.")
    place, sources = Path(root).expanduser(), getattr(options, "sources", None)
    if options.kind == "pascal5i":
        from ncdss_lib.prepare import pascal5i

        print(pascal5i.prepare(place, sources=sources and Path(sources), download=options.download))
    elif options.kind == "coco20i":
        from ncdss_lib.prepare import coco20i

        print(coco20i.prepare(place, sources=sources and Path(sources), download=options.download, masks=options.masks))
    else:
        from ncdss_lib.prepare import saliency

        images, out, maps = (value and Path(value) for value in (options.images, options.out, options.maps))
        print(
            saliency.prepare(
                place, images=images, out=out, model=options.model, maps=maps, threshold=options.threshold, min_area=options.min_area
            )
        )


def _evaluate(options: argparse.Namespace) -> None:
    from ncdss_lib.runs.evaluate_checkpoint import evaluate_checkpoint, evaluation_tables

    scores = evaluate_checkpoint(
        Path(options.checkpoint), options.dataset, options.data_root, options.fold, overrides=options.overrides, device=options.device,
        network=options.network, clusters=options.clusters, out=options.out and Path(options.out),
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        print(evaluation_tables(scores))


def _predict(options: argparse.Namespace) -> None:
    from ncdss_lib.runs.predict_images import predict_images

    print(
        predict_images(
            Path(options.checkpoint), Path(options.images), Path(options.out), dataset=options.dataset, data_root=options.data_root,
            fold=options.fold, overrides=options.overrides, device=options.device, network=options.network,
        )
    )  # fmt: skip


_VERBS = {"run": _run, "reproduce": _reproduce, "prepare": _prepare, "evaluate": _evaluate, "predict": _predict, "report": _report}
