"""The sub-commands: for each its arguments, its outputs, and the one call it makes. Steps are imported when run."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gigaseg.config import MeasureConfig, Preset, ReportConfig, SegmenterConfig, StitchConfig
from gigaseg.errors import ConfigError
from gigaseg.options import add_grid_options, add_options, from_options, grid_preset


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes
    ----------
    help : one line.
    arguments : adds its arguments to a parser.
    run : does it.
    outputs : the files it writes; None for a command that is no step of the data's path.
    """

    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    outputs: Callable[[Namespace], list[Path]] | None


def _path(parser: ArgumentParser, name: str, help: str) -> None:
    if name.startswith("--"):
        parser.add_argument(name, type=Path, required=True, help=help)
    else:
        parser.add_argument(name, type=Path, help=help)


def _out(args: Namespace) -> list[Path]:
    return [args.out]


def _inspect_arguments(parser: ArgumentParser) -> None:
    _path(parser, "path", "slide file")
    _path(parser, "--out", "slide.json to write")
    parser.add_argument("--slide", help="name of the slide (default: the file's stem)")
    parser.add_argument("--unit", choices=("um", "m"), default="um", help="unit of lengths (default: um)")
    parser.add_argument("--reader", default="auto", help="reader by name (default: auto, the first that opens)")
    parser.add_argument("--pixel-size", help="size of a level-0 pixel in the unit, or px to work in pixels")
    parser.add_argument("--channels", help="channels to render, by name or 1-based number, comma-separated")


def _inspect(args: Namespace) -> None:
    from gigaseg.slides.inspect import inspect

    channels = [name.strip() for name in args.channels.split(",")] if args.channels else None
    info = inspect(
        args.path,
        slide=args.slide or args.path.stem,
        unit=args.unit,
        reader=args.reader,
        pixel_size=args.pixel_size,
        channels=channels,
    )
    info.write(args.out, args.digest)


def _grid_arguments(parser: ArgumentParser) -> None:
    _path(parser, "info", "slide.json")
    _path(parser, "--out", "grid.parquet to write")
    _path(parser, "--foreground", "foreground.tif to write")
    parser.add_argument("--side-file", type=Path, action="append", default=[], help="polygons whose tiles are kept")
    parser.add_argument("--prompts", type=Path, help="points and polygons whose tiles are kept, too")
    add_grid_options(parser)


def _grid(args: Namespace) -> None:
    from gigaseg.tiles.grid import grid

    grid(
        args.info,
        args.out,
        args.foreground,
        preset=grid_preset(args),
        side_files=args.side_file,
        prompts=args.prompts,
        digest=args.digest,
    )


def _tile_arguments(parser: ArgumentParser) -> None:
    _path(parser, "info", "slide.json")
    _path(parser, "grid", "grid.parquet")
    _path(parser, "--out", "tile store (.zarr.zip) to write")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="decoding processes (default: 1)")


def _tile(args: Namespace) -> None:
    from gigaseg.tiles.store import tile

    tile(args.info, args.grid, args.shard, args.out, workers=args.workers, digest=args.digest)


def _prompt_arguments(parser: ArgumentParser) -> None:
    _path(parser, "info", "slide.json")
    _path(parser, "grid", "grid.parquet")
    _path(parser, "--foreground", "foreground.tif")
    _path(parser, "--out", "prompts.parquet to write")
    parser.add_argument("--prompts", type=Path, help="points, boxes and polygons (GeoJSON, GeoPackage, GeoParquet)")
    parser.add_argument("--polygons-as", default="box", help="what a polygon becomes: box, mask, points (default: box)")


def _prompt(args: Namespace) -> None:
    from gigaseg.prompts.prompt import prompt

    prompt(
        args.info,
        args.grid,
        args.foreground,
        args.out,
        prompts=args.prompts,
        polygons_as=args.polygons_as,
        digest=args.digest,
    )


def _segment_arguments(parser: ArgumentParser) -> None:
    _path(parser, "info", "slide.json")
    _path(parser, "grid", "grid.parquet")
    _path(parser, "--out", "instances/NNN.parquet to write")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard (default: 0)")
    parser.add_argument("--tiles", type=Path, help="tile store of the shard (default: read the slide)")
    parser.add_argument("--annotations", type=Path, help="polygons, for the segmenter that takes them")
    parser.add_argument("--prompts", type=Path, help="prompts.parquet, for a segmenter that needs prompts")
    parser.add_argument("--workers", type=int, default=1, help="processes of a CPU segmenter (default: 1)")
    add_options(parser, SegmenterConfig)
    add_options(parser, Preset, ("object_diameter",))


def _segment(args: Namespace) -> None:
    from gigaseg.instances.segment import segment

    segment(
        args.info,
        args.grid,
        args.shard,
        args.out,
        segmenter=from_options(SegmenterConfig, args),
        tiles=args.tiles,
        annotations=args.annotations,
        prompts=args.prompts,
        object_diameter=from_options(Preset, args).object_diameter,
        workers=args.workers,
        digest=args.digest,
    )


def _stitch_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("instances", type=Path, nargs="+", help="instances/NNN.parquet of every shard")
    _path(parser, "--grid", "grid.parquet")
    _path(parser, "--out", "instances.parquet to write")
    parser.add_argument("--workers", type=int, default=1, help="threads or processes (default: 1)")
    parser.add_argument(
        "--scheduler",
        help="threads, processes, or tcp://HOST:PORT of Dask (default: $DASK_SCHEDULER_ADDRESS, else threads)",
    )
    parser.add_argument(
        "--block", type=int, default=100_000, help="tile instances a worker holds at a time (default: 100000)"
    )
    add_options(parser, StitchConfig)


def _stitch(args: Namespace) -> None:
    from gigaseg.stitch.stitch import stitch

    agreement = from_options(StitchConfig, args).agreement
    stitch(
        args.instances,
        args.grid,
        args.out,
        agreement=agreement,
        digest=args.digest,
        workers=args.workers,
        scheduler=args.scheduler,
        block=args.block,
    )


def _measure_arguments(parser: ArgumentParser) -> None:
    _path(parser, "instances", "instances.parquet")
    _path(parser, "--info", "slide.json")
    _path(parser, "--foreground", "foreground.tif")
    parser.add_argument("--regions", type=Path, help="polygons to report on (default: none)")
    _path(parser, "--out", "measurements.parquet to write")
    _path(parser, "--summary", "summary.json to write")
    parser.add_argument("--workers", type=int, default=1, help="threads or processes (default: 1)")
    parser.add_argument(
        "--scheduler",
        help="threads, processes, or tcp://HOST:PORT of Dask (default: $DASK_SCHEDULER_ADDRESS, else threads)",
    )
    parser.add_argument("--block", type=int, default=25_000, help="instances a worker holds at a time (default: 25000)")
    add_options(parser, MeasureConfig)


def _measure(args: Namespace) -> None:
    from gigaseg.measure.measure import measure

    measure(
        args.instances,
        args.info,
        args.foreground,
        args.out,
        args.summary,
        regions=args.regions,
        config=from_options(MeasureConfig, args),
        digest=args.digest,
        workers=args.workers,
        scheduler=args.scheduler,
        block=args.block,
    )


def _export_arguments(parser: ArgumentParser) -> None:
    from gigaseg.export.formats import FORMATS

    _path(parser, "instances", "instances.parquet")
    _path(parser, "measurements", "measurements.parquet")
    _path(parser, "--info", "slide.json")
    _path(parser, "--out", "file to write")
    parser.add_argument("--format", choices=tuple(FORMATS), default="geojson", help="default: geojson")


def _export(args: Namespace) -> None:
    from gigaseg.export.export import export

    export(args.instances, args.measurements, args.info, args.format, args.out)


_OVERVIEW_KEYS = ("overview_px", "instance_color", "foreground_color", "grid_color")


def _overview_arguments(parser: ArgumentParser) -> None:
    _path(parser, "instances", "instances.parquet")
    _path(parser, "--info", "slide.json")
    _path(parser, "--grid", "grid.parquet")
    _path(parser, "--foreground", "foreground.tif")
    _path(parser, "--out", "overview.png to write")
    add_options(parser, ReportConfig, _OVERVIEW_KEYS)


def _overview(args: Namespace) -> None:
    from gigaseg.report.overview import overview

    config = from_options(ReportConfig, args)
    overview(
        args.info,
        args.grid,
        args.foreground,
        args.instances,
        args.out,
        long_side=config.overview_px,
        instance_color=config.instance_color,
        foreground_color=config.foreground_color,
        grid_color=config.grid_color,
    )


def _cohort_arguments(parser: ArgumentParser) -> None:
    _path(parser, "--sheet", "slides.tsv")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    parser.add_argument("--presets", nargs="+", default=["nuclei"], help="names of the presets, the default one first")


def _aggregate_arguments(parser: ArgumentParser) -> None:
    _cohort_arguments(parser)
    _path(parser, "--out", "cohort.tsv to write")
    _path(parser, "--table", "cohort.parquet to write")
    parser.add_argument("--pooled", type=Path, help="cohort_measurements.tsv to write (default: none)")


def _aggregate(args: Namespace) -> None:
    from gigaseg.measure.aggregate import aggregate
    from gigaseg.sheet import read_sheet

    rows, bad = read_sheet(args.sheet, args.presets)
    aggregate(
        [(row.slide, args.results / row.slide / "summary.json") for row in rows],
        args.out,
        args.table,
        labels={row.slide: {"preset": row.preset, "group": row.group or ""} for row in rows},
        pooled=args.pooled,
        bad_rows=[(row.slide, row.reason) for row in bad],
        digest=args.digest,
    )


def _report_arguments(parser: ArgumentParser) -> None:
    _path(parser, "cohort", "cohort.tsv")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    parser.add_argument("--config-json", default="{}", metavar="JSON", help="configuration to show in the report")
    _path(parser, "--out", "report.html to write")
    add_options(parser, ReportConfig, ("title",))


def _report(args: Namespace) -> None:
    import json

    from gigaseg.measure.aggregate import read_cohort
    from gigaseg.report.cohort import report
    from gigaseg.report.runs import find_records

    slides = [args.results / row["slide"] for row in read_cohort(args.cohort) if row["step"] != "sheet"]
    slides = list(dict.fromkeys(slides))  # regions have rows of their own
    try:
        config = json.loads(args.config_json)
    except ValueError as error:
        raise ConfigError(f"--config-json is no JSON ({error})") from error
    report(
        args.cohort,
        [folder / "summary.json" for folder in slides],
        [folder / "overview.png" for folder in slides],
        [record for folder in slides for record in find_records(folder)],
        config,
        args.out,
        title=from_options(ReportConfig, args).title,
    )


def _gate_arguments(parser: ArgumentParser) -> None:
    _path(parser, "cohort", "cohort.tsv")


def _gate(args: Namespace) -> None:
    from gigaseg.measure.aggregate import gate

    gate(args.cohort)


def _evaluate_arguments(parser: ArgumentParser) -> None:
    _path(parser, "prediction", "label image, instances.parquet or other polygons; or a folder of them")
    _path(parser, "truth", "the same for the truth; folders are paired by file name")
    parser.add_argument("--out", type=Path, help="scores as JSON (default: none)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the intervals (default: 1000)")
    parser.add_argument("--classes", nargs="+", help="names of the classes to score (default: all of the truth)")
    parser.add_argument(
        "--radius", type=float, default=12.0, help="px within which centroids are one object (default: 12)"
    )
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9], help="IoUs of F1")
    parser.add_argument("--slide", type=Path, help="slide.json, for truth in a CRS (default: beside the prediction)")
    parser.add_argument("--connected", action="store_true", help="give 8-connected parts of a label ids of their own")
    parser.add_argument("--reference", action="store_true", help="add the figures as single papers compute them")


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


def _demo_arguments(parser: ArgumentParser) -> None:
    _path(parser, "--out", "folder to write slide.tif, its truth and slides.tsv into")
    parser.add_argument("--side", type=int, default=4096, help="width and height of the slide, px (default: 4096)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def _demo(args: Namespace) -> None:
    from gigaseg.testing.demo import write_demo

    write_demo(args.out, side=args.side, seed=args.seed)


COMMANDS: dict[str, Command] = {
    "inspect": Command("slide file to slide.json", _inspect_arguments, _inspect, _out),
    "grid": Command("foreground and kept tiles", _grid_arguments, _grid, lambda args: [args.out, args.foreground]),
    "tile": Command("pixels of a shard's tiles", _tile_arguments, _tile, _out),
    "prompt": Command("prompts from a file, each given to one tile", _prompt_arguments, _prompt, _out),
    "segment": Command("instances of a shard's tiles", _segment_arguments, _segment, _out),
    "stitch": Command("instances of the slide, exact at seams", _stitch_arguments, _stitch, _out),
    "measure": Command("measurements and summary", _measure_arguments, _measure, lambda args: [args.out, args.summary]),
    "export": Command("instances for QuPath and GIS", _export_arguments, _export, _out),
    "overview": Command("picture of a slide with its instances", _overview_arguments, _overview, _out),
    "aggregate": Command("one row a slide", _aggregate_arguments, _aggregate, lambda args: [args.out, args.table]),
    "report": Command("report of the cohort", _report_arguments, _report, _out),
    "gate": Command("fail when a slide of the cohort failed", _gate_arguments, _gate, None),
    "evaluate": Command("scores of instances against the truth", _evaluate_arguments, _evaluate, None),
    "checkpoints": Command("fetch published model weights, or list them", _checkpoints_arguments, _checkpoints, None),
    "train": Command("train a method on images with instances", _train_arguments, _train, None),
    "demo": Command("a synthetic slide with its truth", _demo_arguments, _demo, None),
}
