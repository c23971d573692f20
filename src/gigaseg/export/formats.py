"""The export formats by name. Light: their modules are imported when a file is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gigaseg.export.measured import MeasuredInstances


@dataclass(frozen=True)
class Format:
    """An export format: the name of its file, and what writes a `MeasuredInstances` to a path."""

    file: str
    write: Callable[[MeasuredInstances, Path], None]


def _geojson(found: MeasuredInstances, path: Path) -> None:
    from gigaseg.export.geojson import write_geojson

    write_geojson(found, path)


def _geojson_gz(found: MeasuredInstances, path: Path) -> None:
    from gigaseg.export.geojson import write_geojson

    write_geojson(found, path, compress=True)


def _gpkg(found: MeasuredInstances, path: Path) -> None:
    from gigaseg.export.gpkg import write_gpkg

    write_gpkg(found, path)


FORMATS = {
    "geojson": Format("instances.geojson", _geojson),
    "geojson.gz": Format("instances.geojson.gz", _geojson_gz),
    "gpkg": Format("instances.gpkg", _gpkg),
}
"""geojson: for QuPath, level-0 px. geojson.gz: the same, smaller; QuPath reads it from version 0.4 on.
gpkg: GeoPackage for QGIS and GDAL, in the raster's CRS."""
