"""`gigaseg train METHOD`: options, data, and one run of the loop."""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from gigaseg.errors import ConfigError
from gigaseg.options import add_options, from_options
from gigaseg.train.config import LoopConfig
from gigaseg.train.methods import METHODS

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Add a sub-command for each method."""
    sub = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name, method in METHODS.items():
        child = sub.add_parser(name, help=method.help, description=method.help)
        child.add_argument("--data", type=Path, required=True, help="folder of the data set")
        child.add_argument(
            "--layout",
            default="plain",
            help="plain, dsb2018, monuseg, monuseg-crops, monuseg-tiles, tissuenet, glas, conic, cpm15, cpm17, "
            "cpm17-tiles, whu, inria, inria-buildings, massachusetts, pannuke, consep, consep-types (default: plain)",
        )
        child.add_argument(
            "--split",
            default="own",
            help="own, own-val-20, own-val-15, random-80-10-10, random-85-15, pannuke-123, pannuke-213, pannuke-321, "
            "all, or a TSV file with split or fold (default: own)",
        )
        child.add_argument("--fold", type=int, help="with a file of folds, the one that validates")
        child.add_argument("--licence", default="not stated", help="licence of the data, for the checkpoint's card")
        child.add_argument("--out", type=Path, required=True, help="folder of all outputs; a run in it goes on")
        child.add_argument(
            "--evaluate", metavar="PART", help="train, val, test or all: measure best.safetensors on it, do not train"
        )
        add_options(child.add_argument_group("loop"), LoopConfig)
        method.arguments(child)


def train(args: Namespace) -> None:
    """Train as parsed options say; a run that was interrupted goes on exactly where its last state was saved.

    With ``--evaluate`` the run's best weights are measured instead, see `gigaseg.train.parts`.

    Raises
    ------
    ConfigError, FormatError, CheckpointError
        An option, the data set or a file of weights is wrong.
    """
    from gigaseg.files import sha256_file
    from gigaseg.train.data import load
    from gigaseg.train.layouts import read_layout
    from gigaseg.train.loop import run
    from gigaseg.train.splits import split

    config = from_options(LoopConfig, args)
    if args.evaluate is not None:
        from gigaseg.train.parts import evaluate_part

        evaluate_part(args, config)
        return
    method = METHODS[args.method].make(args)
    if method.drops and config.schedule != "cosine":
        raise ConfigError(f"--schedule is {config.schedule}, accepted with --drops: cosine, which these replace")
    entries = read_layout(args.layout, args.data)
    parts = split(entries, args.split, fold=args.fold, seed=config.seed)
    classes = method.card().get("classes", ())
    training, validation = (load(parts[part], workers=2, classes=classes) for part in ("train", "val"))
    if all(not sample.diameter > 0 for sample in training):
        raise ConfigError(f"--data {args.data}: no training image has an instance")
    log.info("%s: %d images train, %d validate", args.data, len(training), len(validation))
    about = {
        "data": args.data.name,
        "layout": args.layout,
        "licence": args.licence,
        "split": Path(args.split).name + ("" if args.fold is None else f", fold {args.fold} validates"),
        "images": {part: len(found) for part, found in parts.items()},
    }
    if Path(args.split).is_file():
        about["split_sha256"] = sha256_file(args.split)
    progress = run(method, config, training, validation, args.out, about=about)
    log.info("best score %.4f after step %d: %s", progress.best, progress.best_step, args.out / "best.safetensors")
