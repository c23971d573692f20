"""Instances as rows with geometry, as the vector formats write them, in the frame of geographic programs.

A slide with a CRS is written in that CRS, through its affine transform. Any other slide is written in pixels of
level 0; y then points down, as in the picture.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from gigaseg.export.measured import Batch, MeasuredInstances
from gigaseg.files import atomic, scratch
from gigaseg.gdal import fixed_date
from gigaseg.slides.base import SlideInfo

LAYER = "instances"

_COPIED = 1 << 20
"""Bytes copied at a time."""


def write_layer(found: MeasuredInstances, path: Path, driver: str, layer_options: Mapping[str, str]) -> None:
    """Write the instances as layer "instances" of GDAL's `driver`: number, class, score, measurements, multipolygon.

    The file's date of last change is fixed, so the same instances give the same bytes with the same GDAL.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    OSError : the disk is full.
    """
    schema = pa.schema([*columns(found), _multipolygon()])
    with fixed_date(), warnings.catch_warnings():
        # that a slide in pixels has no CRS is meant
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        try:
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, _batches(found, schema)),
                path,
                driver=driver,
                layer=LAYER,
                geometry_name="geometry",
                geometry_type="MultiPolygon",
                crs=found.info.crs if georeferenced(found.info) else None,
                layer_options=dict(layer_options),
            )
        except (DataLayerError, DataSourceError) as error:
            raise_if_disk_full(error, path)
            raise


@contextmanager
def made_locally(path: Path) -> Iterator[Path]:
    """Yield a path in the system's temporary folder (TMPDIR); what lies there in the end is copied to `path`."""
    with scratch(Path(tempfile.gettempdir(), "gigaseg-export")) as folder:
        yield folder / path.name
        # not copyfile, whose error for a full disk names the source
        with atomic(path) as temporary, (folder / path.name).open("rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, _COPIED)


def columns(found: MeasuredInstances) -> list[pa.Field]:
    """The columns without geometry that `rows` gives."""
    own = [pa.field("instance", pa.int64()), pa.field("class", pa.string()), pa.field("score", pa.float32())]
    return [*own, *found.measurements]


def rows(found: MeasuredInstances, batch: Batch) -> list[pa.Array]:
    """Number, class, score and measurements of a batch."""
    classes = pa.array(found.classes, pa.string()).take(pa.array(batch.class_index))
    return [pa.array(batch.instance), classes, pa.array(batch.score), *batch.measurements.columns]


def georeferenced(info: SlideInfo) -> bool:
    """Whether the slide has a place on the ground."""
    return info.crs is not None and info.transform is not None


def placed(geometry: npt.NDArray[np.object_], info: SlideInfo) -> npt.NDArray[np.object_]:
    """Outlines in level-0 px, brought into the slide's CRS where it has one."""
    if info.crs is None or info.transform is None:
        return geometry
    return to_crs(geometry, info.transform)


def to_crs(
    geometry: npt.NDArray[np.object_], transform: tuple[float, float, float, float, float, float]
) -> npt.NDArray[np.object_]:
    """Geometries in level-0 px through the affine transform (a, b, c, d, e, f) of `SlideInfo`."""
    a, b, c, d, e, f = transform
    matrix, origin = np.array([[a, d], [b, e]]), np.array([c, f])
    return np.asarray(shapely.transform(geometry, lambda xy: xy @ matrix + origin), dtype=object)


def _multipolygon() -> pa.Field:
    return pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})


def _batches(found: MeasuredInstances, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in found:
        packed = shapely.to_wkb(_multi(placed(batch.geometry, found.info)), byte_order=1)
        yield pa.RecordBatch.from_arrays([*rows(found, batch), pa.array(packed, pa.binary())], schema=schema)


def _multi(geometry: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Every geometry as a multipolygon: GIS programs want one geometry type a layer."""
    parts, index = shapely.get_parts(geometry, return_index=True)
    return np.asarray(shapely.multipolygons(parts, indices=index), dtype=object)


def raise_if_disk_full(error: Exception, path: Path) -> None:
    """Raise the system's error where that is what stopped GDAL, which tells the last of several errors of SQLite."""
    # SQLite gives up its transaction by itself when the disk is full, and may so make room again
    if any(words in str(error) for words in ("disk is full", "no transaction is active")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    with path.open("ab") as stream:
        stream.write(bytes(1 << 20))
