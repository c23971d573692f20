"""The export formats by name. Light: their modules are imported when a file is written."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gigaseg.export.measured import MeasuredInstances


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes
    ----------
    file : name of its file in `export/`.
    write : writes a `MeasuredInstances` to a path.
    folder : whether what it writes is a folder (a Zarr store).
    needs : library of the extra `spatialdata` that it is written with, if any.
    """

    file: str
    write: Callable[[MeasuredInstances, Path], None]
    folder: bool = False
    needs: str | None = None

    @property
    def lacking(self) -> str | None:
        """What to do where the library is not installed; None where it is."""
        if self.needs is None or importlib.util.find_spec(self.needs) is not None:
            return None
        return f"{self.needs}, which is not installed; run: pip install 'gigaseg[spatialdata]'"


def _writer(module: str, function: str, **options: object) -> Callable[[MeasuredInstances, Path], None]:
    """A function of a module of this package, which is imported when it is called."""

    def write(found: MeasuredInstances, path: Path) -> None:
        getattr(importlib.import_module(f"gigaseg.export.{module}"), function)(found, path, **options)

    return write


FORMATS = {
    "geojson": Format("instances.geojson", _writer("geojson", "write_geojson")),
    "geojson.gz": Format("instances.geojson.gz", _writer("geojson", "write_geojson", compress=True)),
    "geojson-regions": Format("instances.regions.zip", _writer("by_region", "write_regions")),
    "gpkg": Format("instances.gpkg", _writer("gpkg", "write_gpkg")),
    "fgb": Format("instances.fgb", _writer("fgb", "write_fgb")),
    "parquet": Format("instances.measured.parquet", _writer("parquet", "write_geoparquet")),
    "csv": Format("instances.csv", _writer("csv", "write_csv")),
    "coco": Format("instances.coco.json", _writer("coco", "write_coco")),
    "anndata": Format("instances.h5ad", _writer("anndata", "write_anndata"), needs="anndata"),
    "ome-zarr": Format("instances.ome.zarr", _writer("ome_zarr", "write_ome_zarr"), folder=True),
    "spatialdata": Format(
        "instances.sdata.zarr", _writer("spatialdata", "write_spatialdata"), folder=True, needs="spatialdata"
    ),
}
"""docs/formats.md tells what each is for, its frame and its limits."""
