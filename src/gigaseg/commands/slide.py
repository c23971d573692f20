"""The steps of a slide, from its file to exports and picture. Each is imported when it runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from gigaseg.commands.base import Command, add_path, add_runner, runner_options, written
from gigaseg.config import MeasureConfig, Preset, ReportConfig, SegmenterConfig, StitchConfig
from gigaseg.errors import ConfigError
from gigaseg.options import (
    CLASS_COLORS,
    CLASS_NAMES,
    add_grid_options,
    add_options,
    add_pairs,
    from_options,
    grid_preset,
    pairs,
)


def _inspect_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "path", "slide file")
    add_path(parser, "--out", "slide.json to write")
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
    add_path(parser, "info", "slide.json")
    add_path(parser, "--out", "grid.parquet to write")
    add_path(parser, "--foreground", "foreground.tif to write")
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
    add_path(parser, "info", "slide.json")
    add_path(parser, "grid", "grid.parquet")
    add_path(parser, "--out", "tile store (.zarr.zip) to write")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="decoding processes (default: 1)")


def _tile(args: Namespace) -> None:
    from gigaseg.tiles.store import tile

    tile(args.info, args.grid, args.shard, args.out, workers=args.workers, digest=args.digest)


def _propose_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "info", "slide.json")
    add_path(parser, "grid", "grid.parquet")
    add_path(parser, "--out", "prompts/NNN.parquet to write")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard (default: 0)")
    parser.add_argument("--tiles", type=Path, help="tile store of the shard (default: read the slide)")
    parser.add_argument("--workers", type=int, default=1, help="processes of a CPU segmenter (default: 1)")
    add_options(parser, SegmenterConfig)
    add_options(parser, Preset, ("object_diameter",))


def _propose(args: Namespace) -> None:
    from gigaseg.instances.propose import propose

    propose(
        args.info,
        args.grid,
        args.shard,
        args.out,
        segmenter=from_options(SegmenterConfig, args),
        tiles=args.tiles,
        object_diameter=from_options(Preset, args).object_diameter,
        workers=args.workers,
        digest=args.digest,
    )


def _prompt_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "info", "slide.json")
    add_path(parser, "grid", "grid.parquet")
    parser.add_argument("--foreground", type=Path, help="foreground.tif, for prompts from a file")
    add_path(parser, "--out", "prompts.parquet to write")
    parser.add_argument("--prompts", type=Path, help="points, boxes and polygons (GeoJSON, GeoPackage, GeoParquet)")
    parser.add_argument("--polygons-as", default="box", help="what a polygon becomes: box, mask, points (default: box)")
    parser.add_argument(
        "--every-tile",
        action="store_true",
        help="take points alone, and give each to every tile that holds it: hints for a segmenter that takes points",
    )
    proposed = parser.add_argument_group("points that a segmenter proposed")
    proposed.add_argument("--proposals", type=Path, nargs="+", help="prompts/NNN.parquet of every shard")
    add_options(proposed, SegmenterConfig, ("name", "checkpoint", "options"))
    add_options(proposed, Preset, ("object_diameter",))


def _prompt(args: Namespace) -> None:
    if args.proposals:
        from gigaseg.prompts.merge import merge_proposals

        merge_proposals(
            args.info,
            args.grid,
            args.out,
            proposals=args.proposals,
            segmenter=from_options(SegmenterConfig, args),
            object_diameter=from_options(Preset, args).object_diameter,
            digest=args.digest,
        )
        return
    if args.foreground is None:
        raise ConfigError("--foreground is missing; expected foreground.tif, which `grid` writes (or --proposals)")
    from gigaseg.prompts.prompt import prompt

    prompt(
        args.info,
        args.grid,
        args.foreground,
        args.out,
        prompts=args.prompts,
        polygons_as=args.polygons_as,
        every_tile=args.every_tile,
        digest=args.digest,
    )


def _segment_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "info", "slide.json")
    add_path(parser, "grid", "grid.parquet")
    add_path(parser, "--out", "instances/NNN.parquet to write")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard (default: 0)")
    parser.add_argument("--tiles", type=Path, help="tile store of the shard (default: read the slide)")
    parser.add_argument("--annotations", type=Path, help="polygons, for the segmenter that takes them")
    parser.add_argument("--exemplar", type=Path, help="polygons or a picture, for a segmenter that is shown an object")
    parser.add_argument("--prompts", type=Path, help="prompts.parquet, for a segmenter that takes prompts")
    parser.add_argument("--workers", type=int, default=1, help="processes of a CPU segmenter (default: 1)")
    add_options(parser, SegmenterConfig)
    add_options(parser, Preset, ("object_diameter",))
    add_pairs(parser, *CLASS_NAMES)


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
        exemplar=args.exemplar,
        prompts=args.prompts,
        object_diameter=from_options(Preset, args).object_diameter,
        class_names=pairs(args, *CLASS_NAMES),
        workers=args.workers,
        digest=args.digest,
    )


def _stitch_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("instances", type=Path, nargs="+", help="instances/NNN.parquet of every shard")
    add_path(parser, "--grid", "grid.parquet")
    parser.add_argument("--info", type=Path, help="slide.json, for lengths on the ground where an outline lies")
    add_path(parser, "--out", "instances.parquet to write")
    add_runner(parser, "tile instances")
    add_options(parser, StitchConfig)


def _stitch(args: Namespace) -> None:
    from gigaseg.stitch.stitch import stitch

    config = from_options(StitchConfig, args)
    stitch(
        args.instances,
        args.grid,
        args.out,
        agreement=config.agreement,
        tolerance=config.regularise,
        simplify=config.simplify,
        info=args.info,
        digest=args.digest,
        **runner_options(args),
    )


def _measure_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "instances", "instances.parquet")
    add_path(parser, "--info", "slide.json")
    add_path(parser, "--foreground", "foreground.tif")
    parser.add_argument("--regions", type=Path, help="polygons to report on (default: none)")
    add_path(parser, "--out", "measurements.parquet to write")
    add_path(parser, "--summary", "summary.json to write")
    add_runner(parser, "instances")
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
        **runner_options(args),
    )


def _regions_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "summary", "summary.json")
    add_path(parser, "--info", "slide.json")
    add_path(parser, "--regions", "polygons that the slide was measured by")
    add_path(parser, "--out", "regions.gpkg to write")
    add_options(parser, MeasureConfig, ("region_name",))


def _regions(args: Namespace) -> None:
    from gigaseg.measure.regions_map import regions_map

    named_by = from_options(MeasureConfig, args).region_name
    regions_map(args.summary, args.info, args.regions, args.out, named_by=named_by)


def _export_arguments(parser: ArgumentParser) -> None:
    from gigaseg.export.formats import FORMATS

    add_path(parser, "instances", "instances.parquet")
    add_path(parser, "measurements", "measurements.parquet")
    add_path(parser, "--info", "slide.json")
    add_path(parser, "--out", "file to write; a folder for ome-zarr and spatialdata")
    parser.add_argument("--format", choices=tuple(FORMATS), default="geojson", help="default: geojson")
    add_pairs(parser, *CLASS_COLORS)


def _export(args: Namespace) -> None:
    from gigaseg.export.export import export

    colors = pairs(args, *CLASS_COLORS)
    export(args.instances, args.measurements, args.info, args.format, args.out, class_colors=colors)


_OVERVIEW_KEYS = ("overview_px", "instance_color", "foreground_color", "grid_color")


def _overview_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "instances", "instances.parquet")
    add_path(parser, "--info", "slide.json")
    add_path(parser, "--grid", "grid.parquet")
    add_path(parser, "--foreground", "foreground.tif")
    add_path(parser, "--out", "overview.png to write")
    add_options(parser, ReportConfig, _OVERVIEW_KEYS)
    add_pairs(parser, *CLASS_COLORS)


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
        class_colors=pairs(args, *CLASS_COLORS),
    )


SLIDE: dict[str, Command] = {
    "inspect": Command("slide file to slide.json", _inspect_arguments, _inspect, written),
    "grid": Command("foreground and kept tiles", _grid_arguments, _grid, lambda args: [args.out, args.foreground]),
    "tile": Command("pixels of a shard's tiles", _tile_arguments, _tile, written),
    "propose": Command("points that a segmenter proposes on a shard's tiles", _propose_arguments, _propose, written),
    "prompt": Command("prompts from a file or proposed, given to the tiles", _prompt_arguments, _prompt, written),
    "segment": Command("instances of a shard's tiles", _segment_arguments, _segment, written),
    "stitch": Command("instances of the slide, exact at seams", _stitch_arguments, _stitch, written),
    "measure": Command("measurements and summary", _measure_arguments, _measure, lambda args: [args.out, args.summary]),
    "regions": Command("regions with their statistics, for QGIS", _regions_arguments, _regions, written),
    "export": Command("instances for other programs (docs/formats.md)", _export_arguments, _export, written),
    "overview": Command("picture of a slide with its instances", _overview_arguments, _overview, written),
}
