"""The `regions` step: the polygons that a slide is reported by, with their statistics, for a map in QGIS."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

from gigaseg.files import atomic, read_json, same_slide
from gigaseg.gdal import fixed_date
from gigaseg.measure.aggregate import cells
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.measure.regions import name_columns, united_by_name
from gigaseg.sidefiles import class_names, read_frame, repair
from gigaseg.slides.base import SlideInfo

log = logging.getLogger(__name__)

LAYER = "regions"


def regions_map(
    summary: str | Path, info: str | Path, regions: str | Path, out: str | Path, *, named_by: str | None = None
) -> None:
    """Write a GeoPackage with one row a region: its name, its numbers as in cohort.tsv, and its outline.

    Parameters
    ----------
    summary, info : summary.json and slide.json of the slide.
    regions : the file of polygons that it was measured by; outlines and CRS are those of this file, also of what lies
        off the slide. A slide without CRS has none here either: level-0 px. Polygons of one name are one row.
    out : the file to write. It has the same bytes whenever it is written.
    named_by : property that names the polygons, as for `gigaseg.measure.regions.Regions.read`.

    Raises
    ------
    UpstreamFailure, FormatError
        An input is a failure record, missing or damaged.
    """
    import geopandas

    content, slide = read_json(summary, SUMMARY_FORMAT), SlideInfo.read(info)
    same_slide(slide.slide, content["slide"], summary)
    frame = read_frame(Path(regions))
    crs = frame.crs if slide.crs is not None and slide.transform is not None else None
    geometry = np.asarray(shapely.force_2d(frame.geometry.to_numpy()), dtype=object)
    polygonal = np.isin(shapely.get_type_id(geometry), (3, 6)) & ~shapely.is_empty(geometry)
    geometry, _ = repair(geometry[polygonal])
    names, index = np.unique(class_names(frame, name_columns(named_by))[polygonal].astype(str), return_inverse=True)
    outlines = united_by_name(geometry, index, len(names))
    known = content.get("regions", {})
    rows = [_row(name, known, content["unit"]) for name in names.tolist()]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = {key: [row.get(key) for row in rows] for key in columns}
    whole = [key for key in columns if all(isinstance(value, int) for value in table[key])]
    kinds: dict[str, Any] = {key: np.int64 if key in whole else np.float64 for key in columns if key != "region"}
    parts, owner = shapely.get_parts(outlines, return_index=True)
    solid = shapely.get_dimensions(parts) == 2  # what is left of a polygon without an area is none
    drawn = shapely.multipolygons(parts[solid], indices=owner[solid], out=np.full(len(rows), None, object))
    found = geopandas.GeoDataFrame(table, geometry=drawn, crs=crs).astype(kinds)
    stream = io.BytesIO()
    with fixed_date(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")  # a slide in pixels has none
        pyogrio.write_dataframe(
            found,
            stream,
            driver="GPKG",
            layer=LAYER,
            geometry_type="MultiPolygon",
            layer_options={} if crs is not None else {"SRID": "-1"},
        )
    with atomic(out) as temporary:
        temporary.write_bytes(stream.getbuffer())
    log.info("slide '%s': %d regions, %d of them on it", content["slide"], len(rows), len(known))


def _row(name: str, known: dict[str, Any], unit: str) -> dict[str, Any]:
    """The numbers of a region; of one off the slide none but that nothing lies in it."""
    if name not in known:
        return {"region": name, "instances": 0}
    found = cells(known[name])
    area, mean = f"area_{unit}2", found.get(f"area_{unit}2_mean")
    first = {key: found.pop(key) for key in list(found) if key.startswith(("instances", "foreground_"))}
    return {"region": name, **first, f"{area}_sum": (mean or 0.0) * first["instances"], **found}
