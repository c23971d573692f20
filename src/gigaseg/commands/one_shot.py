"""The command that scores one-shot segmentation."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from gigaseg.commands.base import Command, add_path
from gigaseg.config import SegmenterConfig
from gigaseg.options import add_options, from_options


def _arguments(parser: ArgumentParser) -> None:
    # the names are written out: the module that has them loads numpy
    parser.add_argument("--layout", required=True, help="of the data: persense-d, coco-20i or lvis-92i")
    add_path(parser, "--data", "folder of the data set, as published")
    add_path(parser, "--out", "scores as JSON")
    parser.add_argument("--fold", type=int, help="of coco-20i (0 .. 3) or lvis-92i (0 .. 9) (default: all)")
    parser.add_argument(
        "--episodes", type=int, help="pairs of images a fold (default: 1000 of coco-20i, 2300 of lvis-92i)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the pairs that are drawn (default: 0)")
    parser.add_argument("--limit", type=int, help="queries of a class at most (default: all)")
    parser.add_argument(
        "--as-published", action="store_true", help="of persense-d leave out the queries that the release leaves out"
    )
    add_options(parser, SegmenterConfig, ("checkpoint", "device", "options"))


def _run(args: Namespace) -> None:
    from gigaseg.devices import choose_device, gpu_name
    from gigaseg.one_shot.evaluate import one_shot
    from gigaseg.one_shot.layouts import Choice
    from gigaseg.runrecord import processor
    from gigaseg.segmenters.persense.one_shot import OneShot  # type: ignore[import-not-found, unused-ignore]

    choice = Choice(args.layout, args.fold, args.episodes, args.seed, args.limit, args.as_published)
    config = from_options(SegmenterConfig, args)
    device = choose_device(config.device)
    report = one_shot(
        args.data,
        choice,
        lambda: OneShot.open(config.checkpoint, device, config.options),
        out=args.out,
        settings={"checkpoint": config.checkpoint, "options": config.options},
        machine={"processor": processor(), "device": device, "gpu": gpu_name(device)},
    )
    sys.stdout.write(report.table() + "\n")


ONE_SHOT = Command("scores of PerSense, which is shown an object once", _arguments, _run, None)
