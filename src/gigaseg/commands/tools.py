"""What is no step of the data's path: scores, model weights, their features, training, the demo slide."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from gigaseg.commands.base import Command, add_path
from gigaseg.commands.one_shot import ONE_SHOT


def _evaluate_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "prediction", "label image, instances.parquet or other polygons; or a folder of them")
    add_path(parser, "truth", "the same for the truth; folders are paired by file name")
    parser.add_argument("--out", type=Path, help="scores as JSON (default: none)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the intervals (default: 1000)")
    parser.add_argument("--classes", nargs="+", help="names of the classes to score (default: all of the truth)")
    parser.add_argument(
        "--radius", type=float, default=12.0, help="px within which centroids are one object (default: 12)"
    )
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9], help="IoUs of F1")
    parser.add_argument("--slide", type=Path, help="slide.json, for truth in a CRS (default: beside the prediction)")
    parser.add_argument("--connected", action="store_true", help="give 8-connected parts of a label ids of their own")
    parser.add_argument(
        "--reference", action="store_true", help="add figures as single papers compute them, and how many objects touch"
    )


def _evaluate(args: Namespace) -> None:
    from gigaseg.metrics.evaluate import evaluate

    found = evaluate(
        args.prediction,
        args.truth,
        out=args.out,
        bootstrap=args.bootstrap,
        classes=args.classes,
        radius=args.radius,
        thresholds=args.thresholds,
        slide=args.slide,
        connected=args.connected,
        reference=args.reference,
    )
    sys.stdout.write(found.table() + "\n")


def _average_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reports", nargs="+", type=Path, help="JSON files of scores, such as test.json of each fold")
    parser.add_argument("--out", type=Path, help="means as JSON (default: none)")


def _average(args: Namespace) -> None:
    from gigaseg.metrics.average import average, table

    sys.stdout.write(table(average(args.reports, args.out)) + "\n")


def _checkpoints_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="names to fetch, such as vit_b, or files to look for (default: list)")


def _checkpoints(args: Namespace) -> None:
    from gigaseg.sam.downloads import OFFICIAL, checkpoint_path, fetch, inventory

    if not args.names:
        sys.stdout.write(inventory())
    for name in args.names:
        sys.stdout.write(f"{fetch(name) if name in OFFICIAL else checkpoint_path(name)}\n")


def _train_arguments(parser: ArgumentParser) -> None:
    from gigaseg.train.train import add_arguments

    add_arguments(parser)


def _train(args: Namespace) -> None:
    from gigaseg.train.train import train

    train(args)


def _analyse_features_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "image", "picture, slide or raster")
    add_path(parser, "--out", "folder to write features.png, features.npz and features.tsv into")
    parser.add_argument("--checkpoint", help="of a SAM: a name such as vit_b, or a file (default: the one that ships)")
    parser.add_argument(
        "--layers",
        nargs="+",
        help="patch, positions of blocks from 0, neck (default: patch, the global-attention blocks, neck)",
    )
    parser.add_argument(
        "--point",
        nargs=2,
        type=float,
        action="append",
        default=[],
        metavar=("X", "Y"),
        help="level-0 px; may be given several times (default: the middle; with labels the object nearest to it)",
    )
    parser.add_argument(
        "--region", nargs=4, type=int, metavar=("X", "Y", "W", "H"), help="level-0 px (default: the whole image)"
    )
    parser.add_argument("--size", type=int, help="long side that the encoder sees, px (default: the model's)")
    parser.add_argument("--labels", type=Path, help="label image: figures of how well layers tell its objects apart")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def _analyse_features(args: Namespace) -> None:
    from gigaseg.report.features import analyse_features

    table = analyse_features(
        args.image,
        args.out,
        checkpoint=args.checkpoint,
        layers=args.layers,
        points=args.point,
        region=args.region,
        size=args.size,
        labels=args.labels,
        device=args.device,
    )
    sys.stdout.write(table)


def _demo_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "--out", "folder to write slide.tif, its truth and slides.tsv into")
    parser.add_argument("--side", type=int, default=4096, help="width and height of the slide, px (default: 4096)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def _demo(args: Namespace) -> None:
    from gigaseg.testing.demo import write_demo

    write_demo(args.out, side=args.side, seed=args.seed)


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="*", type=Path, help="configuration files, later ones laid over earlier (default: config.yaml)"
    )
    parser.add_argument("--slides-dir", type=Path, help="folder whose slides are taken, as slides_dir in config.yaml")


def _doctor(args: Namespace) -> None:
    from gigaseg.doctor.doctor import doctor

    doctor(args.config or [Path("config.yaml")], args.slides_dir)


def _view_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        help="results folder of a cohort, or of one slide in it (default: results)",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        type=Path,
        help="configuration files with the colours of classes (default: config.yaml, where its results are these)",
    )
    parser.add_argument("--config-json", metavar="JSON", help="the configuration itself, as the workflow has it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, help="port to listen at (default: 8787, or a free one)")
    parser.add_argument("--out", type=Path, help="write the viewer as a folder for a web server instead")
    parser.add_argument("--workers", type=int, default=2, help="threads that render its pictures (default: 2)")


def _view(args: Namespace) -> None:
    from gigaseg.configfiles import parse_config, read_configs
    from gigaseg.viewer.view import view

    config = read_configs(args.config) if args.config else None
    if args.config_json is not None:
        config = parse_config(args.config_json)
    view(args.results, config=config, host=args.host, port=args.port, out=args.out, workers=args.workers)


TOOLS: dict[str, Command] = {
    "view": Command("look at slides and what was found in them, in a browser", _view_arguments, _view, None),
    "doctor": Command("look whether this machine can run a cohort", _doctor_arguments, _doctor, None),
    "evaluate": Command("scores of instances against the truth", _evaluate_arguments, _evaluate, None),
    "average": Command("mean of scores over several runs, such as folds", _average_arguments, _average, None),
    "one-shot": ONE_SHOT,
    "checkpoints": Command("fetch published model weights, or list them", _checkpoints_arguments, _checkpoints, None),
    "train": Command("train a method on images with instances", _train_arguments, _train, None),
    "analyse-features": Command(
        "what the layers of SAM's encoder tell of an image", _analyse_features_arguments, _analyse_features, None
    ),
    "demo": Command("a synthetic slide with its truth", _demo_arguments, _demo, None),
}
