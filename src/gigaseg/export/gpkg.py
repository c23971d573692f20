"""GeoPackage: for QGIS, GDAL and geopandas.

A slide with a CRS is written in that CRS, through its affine transform. Any other slide is written in pixels
of level 0 with the CRS "undefined Cartesian" (srs_id -1); y then points down, as in the picture.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from gigaseg.export.measured import MeasuredInstances
from gigaseg.files import atomic, scratch

_COPIED = 1 << 20
"""Bytes copied at a time."""

LAYER = "instances"
_EPOCH = "1970-01-01T00:00:00.000Z"


def write_gpkg(found: MeasuredInstances, path: Path) -> None:
    """Write the instances as layer "instances": number, class, score, a column a measurement, multipolygon.

    The file's date of last change is fixed, so the same instances give the same bytes with the same GDAL. It is made in
    the system's temporary folder (TMPDIR) and then copied.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    schema = pa.schema(
        [
            pa.field("instance", pa.int64()),
            pa.field("class", pa.string()),
            pa.field("score", pa.float32()),
            *found.measurements,
            pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
        ]
    )
    crs = found.info.crs if _georeferenced(found) else None
    # SQLite locks what it writes, which not every network file system can
    local = Path(tempfile.gettempdir(), "gigaseg-export")
    with scratch(local) as folder, _fixed_date(), warnings.catch_warnings():
        written = folder / path.name
        # that a slide in pixels has no CRS is meant
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        try:
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, _batches(found, schema)),
                written,
                driver="GPKG",
                layer=LAYER,
                geometry_name="geometry",
                geometry_type="MultiPolygon",
                crs=crs,
                layer_options={} if crs else {"SRID": "-1"},
            )
        except (DataLayerError, DataSourceError) as error:
            _raise_if_disk_full(error, written)
            raise
        # not copyfile, whose error for a full disk names the source
        with atomic(path) as temporary, written.open("rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, _COPIED)


def to_crs(
    geometry: npt.NDArray[np.object_], transform: tuple[float, float, float, float, float, float]
) -> npt.NDArray[np.object_]:
    """Geometries in level-0 px through the affine transform (a, b, c, d, e, f) of `SlideInfo`."""
    a, b, c, d, e, f = transform
    matrix, origin = np.array([[a, d], [b, e]]), np.array([c, f])
    return np.asarray(shapely.transform(geometry, lambda xy: xy @ matrix + origin), dtype=object)


def _georeferenced(found: MeasuredInstances) -> bool:
    return found.info.crs is not None and found.info.transform is not None


def _batches(found: MeasuredInstances, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    classes = pa.array(found.classes, pa.string())
    transform = found.info.transform if _georeferenced(found) else None
    for batch in found:
        geometry = batch.geometry if transform is None else to_crs(batch.geometry, transform)
        columns = [
            pa.array(batch.instance),
            classes.take(pa.array(batch.class_index)),
            pa.array(batch.score),
            *batch.measurements.columns,
            pa.array(shapely.to_wkb(_multi(geometry), byte_order=1), pa.binary()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _multi(geometry: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Every geometry as a multipolygon: GIS programs want one geometry type a layer."""
    parts, index = shapely.get_parts(geometry, return_index=True)
    return np.asarray(shapely.multipolygons(parts, indices=index), dtype=object)


def _raise_if_disk_full(error: Exception, path: Path) -> None:
    """Raise the system's error where that is what stopped GDAL, which tells the last of several errors of SQLite."""
    # SQLite gives up its transaction by itself when the disk is full, and may so make room again
    if any(words in str(error) for words in ("disk is full", "no transaction is active")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    with path.open("ab") as stream:
        stream.write(bytes(1 << 20))


@contextmanager
def _fixed_date() -> Iterator[None]:
    """GDAL stamps its files with this date instead of now."""
    name = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: _EPOCH})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})
