"""AnnData: instances × measurements with their places, for scanpy, squidpy and the rest of scverse.

``obsm["spatial"]`` has the centroids, x and y, in level-0 px, y down: as squidpy takes them. These times
``uns["pixel_size"]`` are µm (or metres). Values have the seven digits of float32; the full ones are in
measurements.parquet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import shapely

from gigaseg.export.measured import BATCH, MeasuredInstances
from gigaseg.export.names import display_name
from gigaseg.files import atomic, scratch

_ROW, _HEAD = 64, 1 << 20
"""Bytes that an instance and the file as a whole take beside the values."""


def write_anndata(found: MeasuredInstances, path: Path) -> None:
    """Write the instances as an .h5ad file; measurements pass through memory batch by batch.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    with scratch(path) as folder:
        table = annotated(found, folder)
        with atomic(path) as temporary:
            _reserve(temporary, 4 * table.n_obs * table.n_vars + _ROW * table.n_obs + _HEAD)
            table.write_h5ad(temporary, compression="gzip")


def annotated(found: MeasuredInstances, folder: Path) -> Any:
    """The instances as an AnnData whose values lie in a file in `folder` until it is written.

    obs : class (categorical), score, tile_row, tile_col, and measurements that are no numbers; named by the instance's
    number. var : measurements, with `label` in words. obsm["spatial"] : (n, 2) centroids, level-0 px. uns : slide,
    pixel size (x, y), unit, colours of the classes as scanpy keeps them, and as squidpy an entry under "spatial"
    without a picture.
    """
    import anndata
    import dask.array as da

    numeric = [field.name for field in found.measurements if _is_number(field)]
    values: npt.NDArray[np.float32] = np.empty((0, len(numeric)), np.float32)
    if found.count and numeric:
        _reserve(folder / "values", 4 * found.count * len(numeric))
        values = np.memmap(folder / "values", np.float32, "r+", shape=(found.count, len(numeric)))
    obs: dict[str, list[npt.NDArray[Any]]] = {}
    place = np.empty((found.count, 2))
    done = 0
    for batch in found:
        part = slice(done, done + len(batch))
        for i, name in enumerate(numeric):
            values[part, i] = batch.measurements[name].cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        columns = {name: getattr(batch, name) for name in ("class_index", "score", "tile_row", "tile_col")}
        columns |= {
            field.name: batch.measurements[field.name].to_numpy(zero_copy_only=False)
            for field in found.measurements
            if not _is_number(field)
        }
        for name, column in columns.items():
            obs.setdefault(name, []).append(column)
        place[part] = shapely.get_coordinates(shapely.centroid(batch.geometry))
        done += len(batch)
    frame = pd.DataFrame(
        {name: np.concatenate(parts) for name, parts in obs.items()},
        index=pd.RangeIndex(1, found.count + 1).astype(str),
    )
    classes = frame.pop("class_index") if len(frame) else np.empty(0, np.int32)
    frame.insert(0, "class", pd.Categorical.from_codes(classes, list(found.classes)))
    frame = frame.astype(dict.fromkeys(frame.select_dtypes(object).columns, "category"))
    names = pd.DataFrame(
        {"label": [display_name(name, "²") for name in numeric]}, index=pd.Index(numeric, dtype=object)
    )
    x: Any = values
    if len(values):
        x = da.from_array(values, chunks=(BATCH, len(numeric)), name=False)
    info = found.info
    return anndata.AnnData(
        X=x,
        obs=frame,
        var=names,
        obsm={"spatial": place},
        uns={
            "slide": info.slide,
            "pixel_size": np.asarray(info.pixel_size),
            "unit": info.unit,
            "class_colors": np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in found.colors], dtype=object),
            "spatial": {info.slide: {"images": {}, "scalefactors": {}}},
        },
    )


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes; on a full disk that is an error, where HDF5 and mapped memory end the process."""
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:
            stream.truncate(size)


def _is_number(field: pa.Field) -> bool:
    return bool(pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
