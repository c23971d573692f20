"""The measure step: instances.parquet in, measurements.parquet and summary.json out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from gigaseg import __version__
from gigaseg.config import MeasureConfig
from gigaseg.files import write_json, write_parquet
from gigaseg.instances.table import Instances, read_instances
from gigaseg.measure.morphology import morphology
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.foreground import Foreground

log = logging.getLogger(__name__)

MEASUREMENTS_FORMAT = "gigaseg/measurements/1"
SUMMARY_FORMAT = "gigaseg/summary/1"

_DIMENSION = {
    "area": 2, "perimeter": 1, "equivalent_diameter": 1, "major_axis": 1, "minor_axis": 1,
    "eccentricity": 0, "solidity": 0,
}  # fmt: skip

_AREA_OF_DENSITY = {"um": ("mm2", 1e6), "m": ("km2", 1e6), "px": ("megapixel", 1e6)}
"""Area that densities refer to, and how many square units it holds."""


def measure(
    instances: str | Path,
    info: str | Path,
    foreground: str | Path,
    measurements: str | Path,
    summary: str | Path,
    *,
    config: MeasureConfig | None = None,
    digest: str = "",
) -> dict[str, Any]:
    """Measure every instance of a slide and sum the slide up.

    Returns
    -------
    The summary as written.

    Raises
    ------
    UpstreamFailure, FormatError
        An input is a failure record, missing or damaged.
    """
    config = config or MeasureConfig()
    slide = SlideInfo.read(info)
    found, provenance = read_instances(instances, stitched=True)
    area_px = Foreground.read(foreground).area_px()
    step = _pixel_step(provenance, slide)
    columns = measure_instances(found, slide, step)
    table = pa.table({"instance": pa.array(np.arange(1, len(found) + 1), pa.int64()), **columns})
    base = {"slide": slide.slide, "version": __version__, "digest": digest, "unit": slide.unit}
    write_parquet(measurements, table, {**base, "format": MEASUREMENTS_FORMAT})
    content = {"format": SUMMARY_FORMAT, "status": "ok", **base, **_provenance(provenance, slide)}
    content |= summarise(found, columns, slide, area_px, config)
    content["seams"] = provenance.get("stitch", {})
    write_json(summary, content)
    log.info("slide '%s': %d instances measured", slide.slide, len(found))
    return content


def measure_instances(
    instances: Instances, info: SlideInfo, step: tuple[float, float] | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Measurements of every instance by column name, the unit in the name.

    Parameters
    ----------
    instances : geometry in level-0 px.
    info : the slide: pixel size and unit.
    step : size (x, y) in the slide's unit of the pixels the outlines follow; None for free outlines.
    """
    size = np.asarray(info.pixel_size)
    physical = shapely.transform(instances.geometry, lambda xy: xy * size)
    shape = morphology(np.asarray(physical, dtype=object), step)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, dimension in _DIMENSION.items():
        suffix = {0: "", 1: f"_{info.unit}", 2: f"_{info.unit}2"}[dimension]
        columns[name + suffix] = shape[name]
    columns["orientation_deg"] = shape["orientation"]
    centroid = shapely.get_coordinates(shapely.centroid(instances.geometry)).reshape(-1, 2)
    columns["centroid_x_px"], columns["centroid_y_px"] = centroid[:, 0], centroid[:, 1]
    return columns


def summarise(
    instances: Instances,
    columns: dict[str, npt.NDArray[np.float64]],
    info: SlideInfo,
    foreground_px: float,
    config: MeasureConfig,
) -> dict[str, Any]:
    """Numbers of a slide: count, foreground area, density, classes, quantiles of each measurement, quality flags."""
    name, per = _AREA_OF_DENSITY[info.unit]
    area = foreground_px * info.pixel_size[0] * info.pixel_size[1] / per
    n = len(instances)
    counts = np.bincount(instances.class_index, minlength=len(instances.classes))
    flags = []
    if n == 0:
        flags.append("no instances")
    if area == 0:
        flags.append("no foreground")
    if n and (instances.cut > 0).mean() > 0.01:
        flags.append("more than 1 % of the instances are cut at the border of the foreground")
    if info.pixel_size_source == "objective":
        flags.append("pixel size is derived from the objective power")
    return {
        "instances": n,
        f"foreground_{name}": area,
        f"density_per_{name}": n / area if area > 0 else None,
        "mean_score": float(instances.score.mean()) if n else None,
        "classes": {
            label: {"instances": int(count), "fraction": count / n if n else None}
            for label, count in zip(instances.classes, counts)
        },
        "measurements": {
            key: _distribution(values, config.quantiles)
            for key, values in columns.items()
            if not key.startswith("centroid_")
        },
        "flags": flags,
    }


def _distribution(values: npt.NDArray[np.float64], quantiles: tuple[float, ...]) -> dict[str, float | None]:
    if len(values) == 0:
        return {"mean": None, "sd": None, **{f"q{q * 100:g}": None for q in quantiles}}
    found = np.quantile(values, quantiles)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(values.mean()),
        "sd": spread,
        **{f"q{q * 100:g}": float(v) for q, v in zip(quantiles, found)},
    }


def _pixel_step(provenance: dict[str, Any], info: SlideInfo) -> tuple[float, float] | None:
    if provenance["outlines"] != "pixels":
        return None
    scale = provenance["grid"]["scale"]
    return (scale[0] * info.pixel_size[0], scale[1] * info.pixel_size[1])


def _provenance(provenance: dict[str, Any], info: SlideInfo) -> dict[str, Any]:
    return {
        "segmenter": provenance["segmenter"],
        "checkpoint": provenance["checkpoint"],
        "kind": info.kind,
        "pixel_size": list(info.pixel_size),
        "pixel_size_source": info.pixel_size_source,
        "working_pixel_size": provenance["grid"]["pixel_size"],
    }
