"""SpatialData: the slide's picture, the label image, outlines and measurements in one Zarr store.

Elements are "slide" (picture) and "labels" at the working resolution, "instances" (outlines) and "measurements" (the
table of `gigaseg.export.anndata`, which annotates the outlines). Coordinate system "global" is level-0 px; "um" (or
"m") is the same in µm (or metres) from the slide's top-left corner; there is none of a slide in pixels.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from gigaseg.export.anndata import annotated
from gigaseg.export.labels import CHUNK, LabelPyramid
from gigaseg.export.measured import MeasuredInstances
from gigaseg.files import atomic_folder, scratch
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import Slide
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.tiling import Tiling

SLIDE, LABELS, INSTANCES, TABLE = "slide", "labels", "instances", "measurements"
"""Names of the elements."""

_ELEMENT, _NUMBER = "element", "instance"
"""Columns of the table that name what it annotates."""


def write_spatialdata(found: MeasuredInstances, path: Path) -> None:
    """Write the store; pictures and values pass through memory in blocks, outlines are held as a whole.

    A slide without instances has no outlines and no table.

    Parameters
    ----------
    found : the instances of a slide, whose file is read for the picture.
    path : target, a folder; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`; or instances.parquet does not tell its working resolution.
    SlideError : the slide cannot be read.
    """
    import dask
    import spatialdata

    pyramid = LabelPyramid.of(found)
    with scratch(path) as folder, closing(open_slide(found.info)) as slide, warnings.catch_warnings():
        # of what these libraries ask of one another
        warnings.simplefilter("ignore")
        group = zarr.create_group(folder / "labels.zarr")
        pyramid.write(group)
        transformations = _transformations(pyramid.tiling, found)
        data = spatialdata.SpatialData(
            images={SLIDE: _raster(_picture(slide, pyramid), ("c", "y", "x"), transformations[0])},
            labels={LABELS: _raster(_levels(group, pyramid), ("y", "x"), transformations[0])},
            # its models have no empty ones
            shapes={INSTANCES: _shapes(found, transformations[1])} if found.count else {},
            tables={TABLE: _table(found, folder)} if found.count else {},
        )
        # one reader, one block at a time
        with atomic_folder(path) as temporary, dask.config.set(scheduler="synchronous"):
            data.write(temporary, update_sdata_path=False)


def _transformations(tiling: Tiling, found: MeasuredInstances) -> tuple[dict[str, Any], dict[str, Any]]:
    """Coordinate systems of what is in working px, and of what is in level-0 px."""
    from spatialdata.transformations import Identity, Scale

    size = np.asarray(found.info.pixel_size)
    working: dict[str, Any] = {"global": Scale(np.asarray(tiling.scale), axes=("x", "y"))}
    level0: dict[str, Any] = {"global": Identity()}
    if found.info.unit != "px":
        working[found.info.unit] = Scale(size * tiling.scale, axes=("x", "y"))
        level0[found.info.unit] = Scale(size, axes=("x", "y"))
    return working, level0


def _raster(levels: Sequence[Any], dims: tuple[str, ...], transformations: dict[str, Any]) -> Any:
    """A pyramid of dask arrays as an element; the models' own `parse` would make the levels again."""
    from spatialdata.transformations import set_transformation
    from xarray import DataArray, Dataset, DataTree

    coordinates = {"c": ["red", "green", "blue"]} if "c" in dims else {}
    arrays = [DataArray(level, dims=dims, coords=coordinates, name="image") for level in levels]
    tree = DataTree.from_dict({f"scale{i}": Dataset({"image": array}) for i, array in enumerate(arrays)})
    set_transformation(tree, transformations, set_all=True)
    return tree


def _picture(slide: Slide, pyramid: LabelPyramid) -> list[Any]:
    """The slide as people see it, (3, y, x) uint8, each level read from the slide's own pyramid when it is needed."""
    import dask.array as da

    lock = threading.Lock()
    found = []
    for level, (height, width) in enumerate(pyramid.shapes):
        step = tuple(2**level * scale for scale in pyramid.tiling.scale)

        def read(block_info: Any, step: tuple[float, ...] = step) -> npt.NDArray[np.uint8]:
            (_, _), (top, bottom), (left, right) = block_info[None]["array-location"]
            bounds = Bounds(left, top, right, bottom).scaled(*step)
            with lock:
                native = slide.read(bounds, Shape2d(bottom - top, right - left))
            return np.ascontiguousarray(slide.info.rendering.rgb(native).transpose(2, 0, 1))

        chunks = da.core.normalize_chunks((3, CHUNK, CHUNK), (3, height, width))
        found.append(da.map_blocks(read, dtype=np.uint8, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8)))
    return found


def _levels(group: zarr.Group, pyramid: LabelPyramid) -> list[Any]:
    import dask.array as da

    return [da.from_zarr(group[str(level)], chunks=(CHUNK, CHUNK)) for level in range(len(pyramid.shapes))]


def _shapes(found: MeasuredInstances, transformations: dict[str, Any]) -> Any:
    import geopandas
    from spatialdata.models import ShapesModel

    geometry = np.concatenate([np.empty(0, object), *(batch.geometry for batch in found)])
    frame = geopandas.GeoDataFrame(geometry=geometry, index=np.arange(1, found.count + 1))
    return ShapesModel.parse(frame, transformations=transformations)


def _table(found: MeasuredInstances, folder: Path) -> Any:
    import pandas as pd
    from spatialdata.models import TableModel

    table = annotated(found, folder)
    table.obs[_ELEMENT] = pd.Categorical([INSTANCES] * found.count, [INSTANCES])
    table.obs[_NUMBER] = np.arange(1, found.count + 1)
    return TableModel.parse(table, region=INSTANCES, region_key=_ELEMENT, instance_key=_NUMBER)
