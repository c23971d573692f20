"""GeoParquet 1.1: outlines, classes and measurements in one file; in the frame of `gigaseg.export.vector`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from gigaseg.export.measured import MeasuredInstances
from gigaseg.export.vector import columns, georeferenced, placed, rows
from gigaseg.files import parquet_writer
from gigaseg.instances.table import box_column

MEASURED_FORMAT = "gigaseg/measured/1"


def write_geoparquet(found: MeasuredInstances, path: Path) -> None:
    """Write a row an instance; the boxes in column "bbox" let readers skip what lies elsewhere.

    The file's metadata has, under the key ``gigaseg``, slide, pixel size and unit.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    box = pa.struct([pa.field(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
    schema = pa.schema(
        [*columns(found), pa.field("geometry", pa.binary()), pa.field("bbox", box)],
        metadata={b"geo": json.dumps(_header(found)).encode()},
    )
    info = found.info
    metadata = {
        "format": MEASURED_FORMAT,
        "slide": info.slide,
        "pixel_size": list(info.pixel_size),
        "unit": info.unit,
    }
    plain = [name for name in schema.names if name != "class"]
    with parquet_writer(path, schema, metadata, plain) as writer:
        for batch in found:
            geometry = placed(batch.geometry, info)
            packed = pa.array(shapely.to_wkb(geometry, byte_order=1), pa.binary())
            boxes = box_column(shapely.bounds(geometry).reshape(len(batch), 4))
            # a row group a batch
            writer.write_batch(pa.RecordBatch.from_arrays([*rows(found, batch), packed, boxes], names=schema.names))


def _header(found: MeasuredInstances) -> dict[str, Any]:
    import pyproj

    wkt = found.info.crs if georeferenced(found.info) else None
    crs = None if wkt is None else pyproj.CRS.from_wkt(wkt).to_json_dict()
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon", "MultiPolygon"],
        "crs": crs,
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
