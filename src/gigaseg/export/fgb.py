"""FlatGeobuf: one file that QGIS, GDAL and web maps read by its spatial index; the frame of `gigaseg.export.vector`."""

from __future__ import annotations

from pathlib import Path

from gigaseg.export.measured import MeasuredInstances
from gigaseg.export.vector import made_locally, write_layer


def write_fgb(found: MeasuredInstances, path: Path) -> None:
    """Write the instances in the order of the spatial index (Hilbert's curve); their numbers tell them apart.

    GDAL puts the features aside and holds some 100 bytes a feature in memory while it sorts. The file is made in the
    system's temporary folder (TMPDIR) and then copied.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    with made_locally(path) as made:
        write_layer(found, made, "FlatGeobuf", {"SPATIAL_INDEX": "YES"})
