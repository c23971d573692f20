"""config.yaml: its sections as frozen dataclasses of keys (`gigaseg.keys`), and the checks that go beyond types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gigaseg.errors import ConfigError, one_line, unknown
from gigaseg.keys import build, key

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class SegmenterConfig:
    """What finds the instances of a tile."""

    name: str = key("centersam", "segmenter by registry name")
    checkpoint: str | None = key(
        None, "model weights: a file, or a name such as vit_b; null for the one the segmenter's card names"
    )
    device: str = key("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU when there is one")
    batch_size: int | None = key(
        None, "tiles that a GPU works on at a time; null: what its free memory takes, up to 64", low=1, high=4096
    )
    skip_blank: bool = key(True, "models are not asked about tiles in which nothing stands out")
    overlaps: str | None = key(
        None,
        "exclusive: within a tile the higher score keeps shared pixels; keep: masks may overlap; null: the card's",
        choices=("exclusive", "keep"),
    )
    options: dict[str, Any] = key(dict, "the segmenter's own options, see its card")


@dataclass(frozen=True)
class ForegroundConfig:
    """Where to look."""

    method: str = key(
        "auto",
        "auto, tissue (bright background), fluorescence, valid (raster with nodata or alpha), all",
        choices=("auto", "tissue", "fluorescence", "valid", "all"),
    )
    min_fraction: float = key(
        0.01,
        "a tile with any foreground is kept when it, or one of its 8 neighbours, has at least this share of it",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class TilesConfig:
    """How the slide is cut."""

    tile: int | None = key(None, "side of a tile, working px; null: the segmenter's card", low=16, high=16384)
    overlap: int | None = key(None, "what neighbours share, working px, 0 .. tile / 2; null: the card", low=0)
    tiles_per_shard: int = key(1000, "tiles per job; 10-30 minutes of GPU is a good size", low=1, high=1e9)
    materialise: bool = key(True, "write tiles to tiles/NNN.zarr.zip before segment; false: segment reads the slide")


@dataclass(frozen=True)
class StitchConfig:
    """How instances of overlapping tiles become one."""

    agreement: float = key(
        0.5,
        "least IoU (or cover) inside the shared area at which two instances are one object",
        low=0.01,
        high=1,
    )
    regularise: float | None = key(
        None,
        "straight walls and right angles for outlines of buildings: how far walls may lie from the outline, in unit, "
        "2 working px or so; null: outlines as drawn",
        low=1e-9,
    )
    simplify: float | None = key(
        None,
        "how far outlines with fewer corners may lie from those drawn, in unit; null: no corner is left out",
        low=1e-9,
    )


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured."""

    quantiles: tuple[float, ...] = key(
        lambda: (0.05, 0.25, 0.5, 0.75, 0.95),
        "quantiles of each measurement in summary.json, 0 .. 1",
        low=0,
        high=1,
    )
    intensity: bool = key(True, "measure pixels: stains of brightfield slides, native channels of others")
    intensity_quantiles: tuple[float, ...] = key(
        lambda: (0.1, 0.5, 0.9),
        "quantiles over the pixels of each instance, beside mean and sd, 0 .. 1; none: []",
        low=0,
        high=1,
    )
    texture: bool = key(False, "Haralick features of grey levels, 1 working px apart; needs intensity")
    spatial: bool = key(True, "distance to the nearest neighbour, number of neighbours, local density")
    neighbours_within: float = key(
        50.0, "distance within which instances count as neighbours, in the preset's unit", low=1e-9
    )
    region_name: str | None = key(
        None, "property that names the polygons of the sheet's `regions`; null: region, classification, class or name"
    )


@dataclass(frozen=True)
class ClassConfig:
    """What a class of the segmenter is called, and its colour."""

    name: str | None = key(
        None, "its name in the results; classes of one name become one, whose probabilities add up; null: its own"
    )
    color: str | None = key(None, "its colour in exports and pictures, #rrggbb; null: one of gigaseg's own")


@dataclass(frozen=True)
class Preset:
    """All that one kind of slide needs."""

    unit: str = key("um", "unit of lengths in this preset: um (slides) or m (rasters)", choices=("um", "m"))
    working_resolution: float | None = key(
        None,
        "size of a pixel that inference sees, in unit; null: from object_diameter, else the card's",
        low=1e-9,
    )
    object_diameter: float | None = key(
        None, "typical object diameter in unit; sets the working resolution to suit the segmenter", low=1e-9
    )
    segmenter: SegmenterConfig = key(SegmenterConfig, "see SegmenterConfig")
    foreground: ForegroundConfig = key(ForegroundConfig, "see ForegroundConfig")
    tiles: TilesConfig = key(TilesConfig, "see TilesConfig")
    stitch: StitchConfig = key(StitchConfig, "see StitchConfig")
    measure: MeasureConfig = key(MeasureConfig, "see MeasureConfig")
    export: tuple[str, ...] = key(lambda: ("geojson",), "export formats, possibly none; see docs/formats.md")
    classes: dict[str, ClassConfig] = key(dict, "classes of the segmenter that get another name or colour")

    @property
    def class_names(self) -> dict[str, str]:
        """The name of each class of the segmenter that gets another one."""
        return {label: entry.name for label, entry in self.classes.items() if entry.name not in (None, label)}

    @property
    def class_colors(self) -> dict[str, str]:
        """The colour, #rrggbb, of each class of the results that gets one."""
        return {entry.name or label: entry.color for label, entry in self.classes.items() if entry.color}


@dataclass(frozen=True)
class ReportConfig:
    """How the report looks; changing it runs nothing but the report again."""

    title: str = key("gigaseg report", "heading of report.html")
    overview_px: int = key(1600, "long side of the overview pictures, px", low=64, high=8192)
    instance_color: str = key("#00c853", "colour of the instances' outlines, #rrggbb")
    foreground_color: str = key("#ff9100", "colour of the foreground's outline, #rrggbb")
    grid_color: str = key("#2962ff", "colour of the tile grid, #rrggbb")
    viewer: bool = key(False, "also write the viewer as a folder for a web server")


@dataclass(frozen=True)
class TrainConfig:
    """What the target `train` runs; nothing else reads it."""

    method: str = key("sam", "method to train, see gigaseg train --help")
    data: str | None = key(None, "folder of the data set; null: there is nothing to train")
    out: str = key("training", "folder of the run; one that was interrupted goes on")
    options: tuple[str, ...] = key(tuple, "further options of gigaseg train METHOD, such as --config=small")


@dataclass(frozen=True)
class BenchmarkConfig:
    """What the target `benchmark` runs; nothing else reads it."""

    data: str | None = key(None, "folder with dsb2018, monuseg, consep; null: there is nothing to measure on")
    out: str = key("accuracy", "folder of the page, its figures and the predictions")
    options: tuple[str, ...] = key(tuple, "further options of benchmarks/accuracy.py, such as --workflow")


@dataclass(frozen=True)
class Config:
    """config.yaml as a whole."""

    slides: str = key("slides.tsv", "sample sheet")
    slides_dir: str | None = key(None, "folder whose slides are taken, all of them, in place of a sample sheet")
    settle_minutes: float = key(
        10.0, "minutes for which a file of slides_dir must not have changed: newer ones may still be copied", low=0.0
    )
    results: str = key("results", "folder of all outputs")
    presets: dict[str, Preset] = key(lambda: {"nuclei": Preset()}, "presets by name; the first one is the default")
    report: ReportConfig = key(ReportConfig, "see ReportConfig")
    train: TrainConfig = key(TrainConfig, "see TrainConfig")
    benchmark: BenchmarkConfig = key(BenchmarkConfig, "see BenchmarkConfig")


def load_config(content: Mapping[str, Any], source: str = "config.yaml") -> Config:
    """Build and check the configuration.

    Parameters
    ----------
    content : the parsed YAML.
    source : name used in messages.

    Raises
    ------
    ConfigError
        One line for each wrong key: key path, value found, values accepted.
    """
    errors: list[str] = []
    config = build(Config, content, "", errors)
    for name, preset in config.presets.items():
        if not _NAME.fullmatch(name):
            errors.append(f"presets has the name '{name}', accepted: letters, digits, '.', '_' and '-'")
        errors += _check_preset(f"presets.{name}", preset)
    if set("{}") & set(config.results):
        errors.append(f"results is '{config.results}', accepted: a folder without braces")
    if not config.presets:
        errors.append("presets is empty, accepted: at least one preset")
    colors = [f.name for f in fields(ReportConfig) if f.name.endswith("_color")]
    errors += [
        f"report.{name} is '{getattr(config.report, name)}', accepted: a colour as #rrggbb"
        for name in colors
        if not _is_color(getattr(config.report, name))
    ]
    if errors:
        raise ConfigError("\n".join(f"{source}: {one_line(error)}" for error in errors))
    return config


def _check_classes(path: str, preset: Preset, accepted: tuple[str, ...] | None) -> list[str]:
    """Messages on the class table; `accepted`: the segmenter's classes, where they are known."""
    errors = []
    for label, entry in preset.classes.items():
        if accepted is not None and label not in accepted:
            errors.append(f"{path}: {unknown('class', label, accepted)}, of segmenter '{preset.segmenter.name}'")
        if entry.color is not None and not _is_color(entry.color):
            errors.append(f"{path}.{label}.color is '{entry.color}', accepted: a colour as #rrggbb")
        color = preset.class_colors.get(entry.name or label)
        if entry.color is not None and entry.color != color:
            errors.append(
                f"{path}.{label}.color is '{entry.color}', but '{color}' for another class of the name "
                f"'{entry.name or label}'; accepted: one colour a name"
            )
    return errors


def _is_color(value: str) -> bool:
    return len(value) == 7 and value[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in value[1:])


def _check_preset(path: str, preset: Preset) -> list[str]:
    from gigaseg.errors import SegmenterError
    from gigaseg.export.formats import FORMATS
    from gigaseg.segmenters.card import read_card

    errors = []
    if preset.working_resolution is not None and preset.object_diameter is not None:
        errors.append(f"{path}: working_resolution and object_diameter are both set, accepted: one of them")
    if preset.stitch.regularise is not None and preset.stitch.simplify is not None:
        errors.append(f"{path}.stitch: regularise and simplify are both set, accepted: one of them")
    if not _DEVICE.fullmatch(preset.segmenter.device):
        errors.append(f"{path}.segmenter.device is '{preset.segmenter.device}', accepted: auto, cpu, cuda, cuda:N")
    # a bare name is looked up when the cohort is planned
    checkpoint = Path(preset.segmenter.checkpoint or ".")
    if checkpoint.suffix in (".pth", ".pt", ".safetensors") and not checkpoint.is_file():
        errors.append(f"{path}.segmenter.checkpoint is '{preset.segmenter.checkpoint}', no such file")
    try:
        card = read_card(preset.segmenter.name)
        card.complete(preset.segmenter.options)
        # others bring their own: a checkpoint, a file that the sheet names, or the label of what is shown
        named = card.needs_annotations or card.needs_prompts_file or card.needs_exemplar
        known = preset.segmenter.checkpoint is None and not named
        errors += _check_classes(f"{path}.classes", preset, card.classes if known else None)
        tile = preset.tiles.tile or card.tile
        overlap = card.overlap if preset.tiles.overlap is None else preset.tiles.overlap
        errors += check_overlap(tile, overlap, f"{path}.tiles.overlap")
        if preset.object_diameter is not None and card.object_diameter is None:
            errors.append(
                f"{path}.object_diameter is {preset.object_diameter:g}, but segmenter '{card.name}' takes any size; "
                "accepted: working_resolution"
            )
    except SegmenterError as error:
        errors.append(f"{path}.segmenter: {error}")
    if preset.measure.texture and not preset.measure.intensity:
        errors.append(f"{path}.measure.texture is true, but intensity is false; accepted: both true, or texture false")
    errors += [f"{path}.export: {unknown('format', name, FORMATS)}" for name in preset.export if name not in FORMATS]
    return errors


def check_overlap(tile: int, overlap: int, path: str = "overlap") -> list[str]:
    """Messages (none or one) on the overlap of tiles; more than half a tile would let three tiles share a pixel row."""
    if not 0 <= overlap <= tile // 2:
        return [
            f"{path} is {overlap}, accepted: 0 .. {tile // 2} (half of tile = {tile}); twice the largest object is good"
        ]
    return []
