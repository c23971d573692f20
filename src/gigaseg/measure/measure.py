"""The measure step: instances.parquet and the slide in, measurements.parquet and summary.json out.

Windows of the slide are measured one by one, then strips of centroids; what they tell is put aside on disk, row by row
of instances.parquet, and written from there in order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gigaseg import __version__
from gigaseg.config import MeasureConfig
from gigaseg.errors import ConfigError
from gigaseg.files import parquet_writer, same_slide, scratch, write_json
from gigaseg.measure.channels import channels_of
from gigaseg.measure.cover import BlockCover, PixelAreas, Scene, total
from gigaseg.measure.regions import Regions
from gigaseg.measure.spatial import spatial, spatial_columns
from gigaseg.measure.store import Store
from gigaseg.measure.stream import BATCH, InstanceFile
from gigaseg.measure.summary import SlideNumbers, summarise
from gigaseg.measure.sweep import Joiner, Statistics
from gigaseg.measure.windows import BlockCounts, Job, Window, measure_window, shape_columns
from gigaseg.progress import Progress
from gigaseg.runner import Runner, open_runner
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.ground import ground_of
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)

MEASUREMENTS_FORMAT = "gigaseg/measurements/1"
SUMMARY_FORMAT = "gigaseg/summary/1"

NO_MEASUREMENT = ("instance", "class", "region", "centroid_x_px", "centroid_y_px")
"""Columns of measurements.parquet that nobody wants the mean of."""

BLOCK = 10_000
"""Instances of a block: some 80 MB a worker with nuclei."""

_CLASS, _REGION = "class", "region"


def measure(
    instances: str | Path,
    info: str | Path,
    foreground: str | Path,
    measurements: str | Path,
    summary: str | Path,
    *,
    regions: str | Path | None = None,
    config: MeasureConfig | None = None,
    digest: str = "",
    workers: int = 1,
    scheduler: str | None = None,
    block: int = BLOCK,
) -> dict[str, Any]:
    """Measure every instance of a slide and sum the slide up.

    Parameters
    ----------
    instances, info, foreground : instances.parquet, slide.json and foreground.tif of the slide.
    measurements, summary : the two outputs: the same bytes for every number of workers and scheduler.
    regions : polygons that the slide is reported by, as `gigaseg.sidefiles.read_polygons` takes them.
    config : what is measured.
    digest : of the step.
    workers, scheduler : who works on the blocks, see `gigaseg.runner.open_runner`.
    block : instances of a block; sets the memory of a worker.

    Returns
    -------
    The summary as written.

    Raises
    ------
    UpstreamFailure, FormatError
        An input is a failure record, missing or damaged.
    SlideError
        The slide has to be read, and is missing, has changed or cannot be decoded.
    ConfigError
        No cluster answers, or `workers`, `scheduler` or `block` is not accepted.
    """
    config = config or MeasureConfig()
    if block < 1:
        raise ConfigError(f"--block is {block}, accepted: a whole number >= 1")
    slide = SlideInfo.read(info)
    found = InstanceFile(instances)
    same_slide(slide.slide, found.metadata["slide"], instances)
    tissue = Foreground.read(foreground)
    tiling, ground = Tiling.of_file(instances, found.metadata), ground_of(slide)
    areas = Regions.read(regions, slide, tiling, config.region_name) if regions is not None else None
    statistics = None
    if config.intensity:
        statistics = Statistics(channels_of(slide), config.intensity_quantiles, config.texture)
    columns = _columns(slide, config, statistics)
    base = {"slide": slide.slide, "version": __version__, "digest": digest, "unit": slide.unit}
    with open_runner(workers, scheduler) as runner, scratch(measurements) as folder:
        aside = Store.create(folder, found.count, {**columns, _CLASS: "i4", _REGION: "i4"})
        overview = _scan(found, tiling, aside, block)
        outlines = areas.working(tiling) if areas is not None else np.empty(0, object)
        scene = Scene(PixelAreas(ground, slide.width, slide.height), tissue, outlines, len(found.classes))
        job = Job(found, slide, tiling, ground, scene, statistics, ahead=runner.options is None)
        covers = _measure_windows(runner, job, overview.windows, aside)
        if config.spatial:
            spatial(aside, slide, ground, config.neighbours_within, tissue, runner, block)
        members = areas.assign(aside, _REGION) if areas is not None else None
        valid, covered = total(covers, len(outlines), len(found.classes))
        names = areas.names if areas is not None else None
        tables = _tables(aside, list(columns), found.classes, names)
        with parquet_writer(measurements, next(tables).schema, {**base, "format": MEASUREMENTS_FORMAT}) as writer:
            for table in tables:
                writer.write_table(table)
        content: dict[str, Any] = {"format": SUMMARY_FORMAT, "status": "ok", **base}
        content |= _provenance(found.metadata, slide)
        numbers = SlideNumbers(
            names=tuple(name for name in columns if name not in NO_MEASUREMENT),
            read=aside.read,
            class_index=aside.read(_CLASS),
            classes=found.classes,
            mean_score=overview.mean_score,
            foreground=np.append(scene.areas.of(tissue), valid),
            covered=covered,
            cut=overview.cut,
            unmatched=found.metadata.get("stitch", {}).get("unmatched", 0),
            prompts=found.metadata.get("prompts", {}),
        )
        quantiles = tuple(sorted({*config.quantiles, 0.5}))  # the cohort's tables have the median always
        content |= summarise(numbers, slide, quantiles, names, members)
    if "prompts" in found.metadata:
        content["prompts"] = found.metadata["prompts"]
    content["seams"] = found.metadata.get("stitch", {})
    write_json(summary, content)
    log.info("slide '%s': %d instances measured, %d columns", slide.slide, found.count, len(columns))
    return content


def _columns(info: SlideInfo, config: MeasureConfig, statistics: Statistics | None) -> dict[str, str]:
    """Columns of numbers of measurements.parquet, in order, with their dtype."""
    columns = dict.fromkeys(shape_columns(info.unit), "f8")
    if statistics is not None:
        columns |= dict.fromkeys(statistics.columns, "f4")
    if config.spatial:
        columns |= dict.fromkeys(spatial_columns(info.unit, config.neighbours_within), "f4")
    return columns


@dataclass(frozen=True)
class _Overview:
    """What is known of all instances without their outlines.

    windows : that the slide is cut into; mean_score, cut : of all.
    """

    windows: list[Window]
    mean_score: float | None
    cut: int


def _scan(found: InstanceFile, tiling: Tiling, aside: Store, block: int) -> _Overview:
    counts, score, cut = BlockCounts(tiling), 0.0, 0
    for batch in found.scan():
        counts.add(batch)
        aside.write(_CLASS, slice(batch.first, batch.first + len(batch.box)), batch.class_index)
        score += float(batch.score.sum(dtype=np.float64))
        cut += int(np.count_nonzero(batch.cut))
    return _Overview(counts.windows(block), score / found.count if found.count else None, cut)


def _measure_windows(runner: Runner, job: Job, windows: Sequence[Window], aside: Store) -> list[BlockCover]:
    covers: list[BlockCover] = []
    joiner = Joiner(job.statistics) if job.statistics is not None else None
    with Progress("measure", "windows", len(windows)) as progress:
        for found in progress.over(runner.map(measure_window, job, windows), repeat(1)):
            for name, values in found.shapes.items():
                aside.write(name, found.row, values)
            covers += found.cover
            pixels = found.pixels
            if pixels is None or joiner is None or job.statistics is None:
                continue
            rows, values = joiner.add(found.row_of[pixels.cut], pixels.sums, found.row_of[pixels.last])
            rows = np.concatenate([found.row_of[pixels.index], rows])
            for name, column in zip(job.statistics.columns, np.concatenate([pixels.values, values]).T):
                aside.write(name, rows, column)
    return covers


def _tables(
    aside: Store, columns: Sequence[str], classes: Sequence[str], regions: Sequence[str] | None
) -> Iterator[pa.Table]:
    """An empty table, then the rows of measurements.parquet in order."""
    for first, end in [(0, 0), *((i, min(i + BATCH, aside.count)) for i in range(0, aside.count, BATCH))]:
        part = slice(first, end)
        label = pa.array(aside.read(_CLASS, part))
        arrays: dict[str, pa.Array] = {
            "instance": pa.array(np.arange(first + 1, end + 1), pa.int64()),
            _CLASS: pa.DictionaryArray.from_arrays(label, pa.array(classes, pa.string())),
        }
        arrays |= {name: pa.array(aside.read(name, part), from_pandas=True) for name in columns}
        if regions is not None:
            # -1, no region, takes the null at the end
            index = aside.read(_REGION, part) % (len(regions) + 1)
            arrays[_REGION] = pa.array([*regions, None], pa.string()).take(pa.array(index))
        yield pa.table(arrays)


def _provenance(provenance: dict[str, Any], info: SlideInfo) -> dict[str, Any]:
    return {
        "segmenter": provenance["segmenter"],
        "checkpoint": provenance["checkpoint"],
        "kind": info.kind,
        "pixel_size": list(info.pixel_size),
        "pixel_size_source": info.pixel_size_source,
        "working_pixel_size": provenance["grid"]["pixel_size"],
    }
