"""The measure step: instances.parquet and the slide in, measurements.parquet and summary.json out.

Instances stream through twice: once for what needs all of them (centroids), once to measure and write batch by batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from gigaseg import __version__
from gigaseg.config import MeasureConfig
from gigaseg.files import same_slide, write_json
from gigaseg.measure.channels import channels_of
from gigaseg.measure.morphology import morphology
from gigaseg.measure.regions import Regions
from gigaseg.measure.spatial import AREA_OF_DENSITY, spatial
from gigaseg.measure.stream import InstanceBatch, InstanceStream, parquet_writer, read_column
from gigaseg.measure.summary import counts, distributions
from gigaseg.measure.sweep import PixelBatch, PixelSweep
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)

MEASUREMENTS_FORMAT = "gigaseg/measurements/1"
SUMMARY_FORMAT = "gigaseg/summary/1"

_DIMENSION = {
    "area": 2, "perimeter": 1, "equivalent_diameter": 1, "major_axis": 1, "minor_axis": 1,
    "eccentricity": 0, "solidity": 0,
}  # fmt: skip

NO_MEASUREMENT = ("instance", "class", "region", "centroid_x_px", "centroid_y_px")
"""Columns of measurements.parquet that nobody wants the mean of."""

_NO_MEMBERS = np.empty(0, np.int64), np.empty(0, np.int64)

Columns = dict[str, npt.NDArray[Any]]


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
) -> dict[str, Any]:
    """Measure every instance of a slide and sum the slide up.

    Parameters
    ----------
    instances, info, foreground : instances.parquet, slide.json and foreground.tif of the slide.
    measurements, summary : the two outputs.
    regions : polygons that the slide is reported by, as `gigaseg.sidefiles.read_polygons` takes them.
    config : what is measured.

    Returns
    -------
    The summary as written.

    Raises
    ------
    UpstreamFailure, FormatError
        An input is a failure record, missing or damaged.
    SlideError
        The slide has to be read, and is missing, has changed or cannot be decoded.
    """
    config = config or MeasureConfig()
    slide = SlideInfo.read(info)
    stream = InstanceStream(instances)
    same_slide(slide.slide, stream.metadata["slide"], instances)
    tissue = Foreground.read(foreground)
    tiling = Tiling.from_dict(stream.metadata["grid"])
    found = Regions.read(regions, slide, tiling) if regions is not None else None
    overview = _overview(stream)
    fixed: Columns = {}
    if config.spatial:
        fixed |= spatial(overview.centroid, slide.pixel_size, slide.unit, config.neighbours_within, tissue)
    members = _NO_MEMBERS
    if found is not None:
        members = found.members(overview.centroid)
        fixed["region"] = found.smallest(stream.count, members)
    base = {"slide": slide.slide, "version": __version__, "digest": digest, "unit": slide.unit}
    with _sweep(slide, tiling, config) as sweep:
        tables = _tables(stream, overview, slide, tiling, sweep, fixed, found.names if found is not None else ())
        first = next(tables)
        with parquet_writer(measurements, first.schema, {**base, "format": MEASUREMENTS_FORMAT}) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
    content: dict[str, Any] = {"format": SUMMARY_FORMAT, "status": "ok", **base, **_provenance(stream.metadata, slide)}
    names = [name for name in first.column_names if name not in NO_MEASUREMENT]
    read = partial(read_column, measurements)
    content |= _summarise(read, names, overview, stream.classes, slide, tissue, config, found, members)
    content["seams"] = stream.metadata.get("stitch", {})
    write_json(summary, content)
    log.info("slide '%s': %d instances measured, %d columns", slide.slide, stream.count, len(first.column_names))
    return content


@dataclass(frozen=True)
class _Overview:
    """What must be known of all instances before any can be measured to the end.

    centroid (n, 2) level-0 px; class_index (n,); above: for each batch the level-0 y above which neither it nor a later
    one reaches; mean_score, cut: of all.
    """

    centroid: npt.NDArray[np.float64]
    class_index: npt.NDArray[np.int32]
    above: list[float]
    mean_score: float | None
    cut: int


def _overview(stream: InstanceStream) -> _Overview:
    centroid, class_index = np.empty((stream.count, 2)), np.empty(stream.count, np.int32)
    tops: list[float] = []
    first, score, cut = 0, 0.0, 0
    for batch in stream:
        part = slice(first, first + len(batch))
        centroid[part] = shapely.get_coordinates(shapely.centroid(batch.geometry)).reshape(-1, 2)
        class_index[part] = batch.class_index
        tops.append(float(shapely.bounds(batch.geometry)[:, 1].min()))
        score += float(batch.score.sum(dtype=np.float64))
        cut += int(np.count_nonzero(batch.cut))
        first += len(batch)
    above = np.minimum.accumulate(np.array(tops[::-1]))[::-1].tolist() if tops else []
    return _Overview(centroid, class_index, above, score / first if first else None, cut)


@contextmanager
def _sweep(info: SlideInfo, tiling: Tiling, config: MeasureConfig) -> Iterator[PixelSweep | None]:
    if not config.intensity:
        yield None
        return
    with closing(open_slide(info)) as slide:
        yield PixelSweep(slide, tiling, channels_of(info), config.intensity_quantiles, config.texture)


def _tables(
    stream: InstanceStream,
    overview: _Overview,
    info: SlideInfo,
    tiling: Tiling,
    sweep: PixelSweep | None,
    fixed: Columns,
    regions: tuple[str, ...],
) -> Iterator[pa.Table]:
    """The rows of measurements.parquet, in order, at least one table; batches wait until their pixels are known."""
    exact = stream.metadata["outlines"] == "pixels"
    step = (tiling.scale[0] * info.pixel_size[0], tiling.scale[1] * info.pixel_size[1]) if exact else None
    waiting: list[tuple[int, npt.NDArray[np.int32], Columns, PixelBatch | None]] = []
    # sums of pixels are known when the sweep has passed the last row of a batch
    limits = [*(top / tiling.scale[1] for top in overview.above[1:]), float("inf")]
    first = 0

    def finished(reached: float) -> Iterator[pa.Table]:
        while waiting and (waiting[0][3] is None or waiting[0][3].bottom <= reached):
            begin, class_index, columns, pixels = waiting.pop(0)
            part = slice(begin, begin + len(class_index))
            columns["centroid_x_px"], columns["centroid_y_px"] = overview.centroid[part].T
            if sweep is not None and pixels is not None:
                columns |= dict(zip(sweep.columns, pixels.values.T.astype(np.float32)))
            columns |= {name: _narrow(values[part]) for name, values in fixed.items()}
            yield _table(begin, class_index, stream.classes, columns, regions)

    nothing = InstanceBatch(np.empty(0, object), np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.int32))
    batches = iter(stream) if stream.count else iter([nothing])
    for batch, limit in zip(batches, limits):
        pixels = None
        if sweep is not None:
            pixels = sweep.add(_to_working(batch.geometry, tiling.scale, exact))
        shapes = measure_shapes(batch.geometry, info, step, overview.centroid[first : first + len(batch)])
        waiting.append((first, batch.class_index, shapes, pixels))
        first += len(batch)
        yield from finished(sweep.advance(limit) if sweep is not None else 0)


def _to_working(geometry: npt.NDArray[np.object_], scale: tuple[float, float], exact: bool) -> npt.NDArray[np.object_]:
    if scale == (1.0, 1.0):
        return geometry

    def divide(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # level-0 coordinates are working px times a scale that need not be whole
        return np.asarray(np.rint(xy / scale) if exact else xy / scale)

    return np.asarray(shapely.transform(geometry, divide), dtype=object)


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _table(
    first: int, class_index: npt.NDArray[np.int32], classes: tuple[str, ...], columns: Columns, regions: tuple[str, ...]
) -> pa.Table:
    n = len(class_index)
    arrays: dict[str, pa.Array] = {
        "instance": pa.array(np.arange(first + 1, first + n + 1), pa.int64()),
        "class": pa.DictionaryArray.from_arrays(pa.array(class_index), pa.array(classes, pa.string())),
    }
    for name, values in columns.items():
        if name == "region":
            # -1, no region, takes the null at the end
            arrays[name] = pa.array([*regions, None], pa.string()).take(pa.array(values % (len(regions) + 1)))
        else:
            arrays[name] = pa.array(values, from_pandas=True)
    return pa.table(arrays)


def measure_shapes(
    geometry: npt.NDArray[np.object_],
    info: SlideInfo,
    step: tuple[float, float] | None,
    centroid: npt.NDArray[np.float64] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Shape of every instance by column name, the unit in the name.

    Parameters
    ----------
    geometry : (n,) level-0 px.
    info : the slide: pixel size and unit.
    step : size (x, y) in the slide's unit of the pixels the outlines follow; None for free outlines.
    centroid : (n, 2) level-0 px, where known.
    """
    shape = morphology(geometry, step, info.pixel_size, centroid)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, dimension in _DIMENSION.items():
        suffix = {0: "", 1: f"_{info.unit}", 2: f"_{info.unit}2"}[dimension]
        columns[name + suffix] = shape[name]
    columns["orientation_deg"] = shape["orientation"]
    return columns


def _summarise(
    read: Callable[[str], npt.NDArray[np.float64]],
    names: list[str],
    overview: _Overview,
    classes: tuple[str, ...],
    info: SlideInfo,
    foreground: Foreground,
    config: MeasureConfig,
    regions: Regions | None,
    members: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> dict[str, Any]:
    """Numbers of a slide, of its classes and of its regions; quality flags."""
    unit, per = AREA_OF_DENSITY[info.unit]
    one = info.pixel_size[0] * info.pixel_size[1] / per
    subsets = {}
    if len(classes) > 1:
        subsets = {("class", i): np.flatnonzero(overview.class_index == i) for i in range(len(classes))}
    for i in range(len(regions.names) if regions is not None else 0):
        subsets["region", i] = members[0][members[1] == i]
    whole, parts = distributions(read, names, config.quantiles, subsets)
    content = counts(overview.class_index, classes, foreground.area_px() * one, unit)
    content["mean_score"] = overview.mean_score
    content["measurements"] = whole
    for i, label in enumerate(classes):
        if ("class", i) in parts:
            content["classes"][label]["measurements"] = parts["class", i]
    content["flags"] = _flags(content["instances"], content[f"foreground_{unit}"], overview.cut, info)
    if regions is not None:
        content["regions"] = {
            name: counts(overview.class_index[subsets["region", i]], classes, float(area) * one, unit)
            | {"measurements": parts["region", i]}
            for i, (name, area) in enumerate(zip(regions.names, regions.areas_px(foreground)))
        }
    return content


def _flags(n: int, area: float, cut: int, info: SlideInfo) -> list[str]:
    flags = []
    if n == 0:
        flags.append("no instances")
    if area == 0:
        flags.append("no foreground")
    if cut > 0.01 * n:
        flags.append("more than 1 % of the instances are cut at the border of the foreground")
    if info.pixel_size_source == "objective":
        flags.append("pixel size is derived from the objective power")
    return flags


def _provenance(provenance: dict[str, Any], info: SlideInfo) -> dict[str, Any]:
    return {
        "segmenter": provenance["segmenter"],
        "checkpoint": provenance["checkpoint"],
        "kind": info.kind,
        "pixel_size": list(info.pixel_size),
        "pixel_size_source": info.pixel_size_source,
        "working_pixel_size": provenance["grid"]["pixel_size"],
    }
