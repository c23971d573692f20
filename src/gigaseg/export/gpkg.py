"""GeoPackage: for QGIS, GDAL and geopandas; in the frame of `gigaseg.export.vector`.

A slide in pixels has the CRS "undefined Cartesian" (srs_id -1). The table `layer_styles` is QGIS's own: it draws the
classes in their colours without being asked.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from gigaseg.export.measured import MeasuredInstances
from gigaseg.export.qgis import layer_style
from gigaseg.export.vector import LAYER, georeferenced, made_locally, raise_if_disk_full, write_layer

_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
);
"""

_DATE = "1970-01-01T00:00:00.000Z"


def write_gpkg(found: MeasuredInstances, path: Path) -> None:
    """Write the instances as layer "instances", and how QGIS draws it.

    The file is made in the system's temporary folder (TMPDIR) and then copied: SQLite locks what it writes, which not
    every network file system can.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    with made_locally(path) as made:
        write_layer(found, made, "GPKG", {} if georeferenced(found.info) else {"SRID": "-1"})
        try:
            _add_style(made, layer_style(found.classes, found.colors))
        except sqlite3.OperationalError as error:
            raise_if_disk_full(error, made)
            raise


def _add_style(path: Path, style: str) -> None:
    row = ("", "", LAYER, "geometry", "classes", style, "", True, "colours of the classes", "", None, _DATE)
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript(_STYLES)
        base.execute(f"INSERT INTO layer_styles VALUES (NULL{', ?' * len(row)})", row)
        # what is not listed here counts as no part of the package
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
            (_DATE,),
        )
