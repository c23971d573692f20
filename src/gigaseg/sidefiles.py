"""Vector files that the sample sheet names: read, brought into the slide's working frame, repaired."""

from __future__ import annotations

import gzip
import io
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.errors import FormatError, is_machine_fault, one_line, unknown
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)

_CLASS_COLUMNS = ("classification", "class", "class_name", "label")
FARTHEST = 1e12
"""Largest coordinate of a side file, px or units of its CRS: what lies beyond is no place, and squares overflow."""

UNCLASSIFIED = "object"
"""Class of a polygon that its file gives none."""


@dataclass(frozen=True)
class Polygons:
    """Polygons of a side file.

    Attributes
    ----------
    geometry : (n,) valid polygons or multipolygons, working px, clipped to the slide.
    class_index : (n,) int32 into `classes`.
    classes : class names, sorted; at least one.
    """

    geometry: npt.NDArray[np.object_]
    class_index: npt.NDArray[np.int32]
    classes: tuple[str, ...]


def read_polygons(
    path: Path, info: SlideInfo, tiling: Tiling, names: Sequence[str] = _CLASS_COLUMNS, *, required: bool = False
) -> Polygons:
    """Read the polygons of a GeoJSON (QuPath's export too), GeoPackage, shapefile or GeoParquet file.

    Coordinates are level-0 px of the slide, of GeoJSON counted from the corner of the scanned area where the slide has
    one (`SlideInfo.bounds`), as QuPath counts; for a georeferenced slide they are in the file's CRS and are transformed
    to the slide's. Invalid geometries are repaired, empty ones and other types left out, both counted in the log.
    The class of a polygon is the first of its properties `names` that says something; with `required` the file has to
    have one of them.

    Raises
    ------
    FormatError
        The file is missing or unreadable, holds no polygon, or none of its polygons lies on the slide.
    """
    frame, geometry = read_features(path, info, tiling)
    has = [str(name) for name in frame.columns if name != frame.geometry.name]
    if required and not set(names) & set(has):
        raise FormatError(f"{path}: {unknown('property', names[0], has)}")
    polygonal = np.isin(shapely.get_type_id(geometry), (3, 6)) & ~shapely.is_empty(geometry)
    if not polygonal.any():
        raise FormatError(f"{path}: {len(geometry)} features, none of them a polygon; expected polygons")
    geometry, classes_of = geometry[polygonal], class_names(frame, names)[polygonal]
    geometry, repaired = repair(geometry)
    flat = shapely.is_empty(geometry)
    geometry = on_slide(geometry, info, tiling)
    left = ~shapely.is_empty(geometry)
    if flat.all():
        raise FormatError(f"{path}: none of its {len(flat)} polygons has an area; expected polygons")
    if not left.any():
        raise FormatError(f"{path}: none of its {len(left)} polygons lies on slide '{info.slide}'; wrong CRS or slide?")
    log.info(
        "%s: %d polygons, %d repaired, %d without area, %d not polygons, %d off the slide",
        path, int(left.sum()), repaired, int(flat.sum()), int((~polygonal).sum()), int((~left & ~flat).sum()),
    )  # fmt: skip
    classes, index = np.unique(classes_of[left].astype(str), return_inverse=True)
    return Polygons(geometry[left], index.astype(np.int32), tuple(classes.tolist()))


def read_features(path: Path, info: SlideInfo, tiling: Tiling) -> tuple[Any, npt.NDArray[np.object_]]:
    """Read all features of a side file, of any kind.

    Returns
    -------
    frame : GeoDataFrame of the features with their properties, in the order of the file.
    geometry : (n,) their geometries in two dimensions, working px, as they are: None, empty, invalid or off the slide.

    Raises
    ------
    FormatError
        The file is missing or unreadable, does not suit the slide's CRS, or holds a coordinate that is no number or
        beyond `FARTHEST`.
    """
    frame = read_frame(path)
    if info.crs is not None and info.transform is not None:
        if frame.crs is None:
            raise FormatError(
                f"{path}: has no CRS, but slide '{info.slide}' is georeferenced; expected a file with one"
            )
        try:
            frame = frame.to_crs(info.crs)
            finite = len(frame) == 0 or frame.geometry.isna().all() or np.isfinite(frame.total_bounds).all()
        except Exception as error:  # pyproj and GEOS raise many kinds on coordinates that a CRS does not have
            raise FormatError(
                f"{path}: cannot be brought into the CRS of '{info.slide}' ({one_line(error)}); "
                "are its coordinates pixels?"
            ) from error
        if not finite:
            raise FormatError(f"{path}: coordinates outside its CRS {frame.crs}; are they pixels?")
    elif _names_crs(path, frame):
        log.warning(
            "%s: its CRS, %s, is not used: slide '%s' has none, so its coordinates are taken as level-0 px",
            path, frame.crs.name, info.slide,
        )  # fmt: skip
    geometry = np.asarray(frame.geometry.to_numpy(), dtype=object)

    # what QuPath writes of such a slide
    origin = info.bounds[:2] if info.bounds and info.crs is None and _is_json(path) else (0, 0)

    def working(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        wrong = xy[~(np.abs(xy) <= FARTHEST)]
        if len(wrong):
            raise FormatError(f"{path}: holds the coordinate {wrong[0]:g}, accepted: up to {FARTHEST:g}")
        return _to_working(xy + origin, info, tiling)

    return frame, shapely.transform(shapely.force_2d(geometry), working)


def _names_crs(path: Path, frame: Any) -> bool:
    """Whether the file itself says that its coordinates are places on the ground."""
    if frame.crs is None or frame.crs.is_engineering:
        return False
    # without a word GeoJSON is in WGS 84, also where its numbers are pixels
    return not (_is_json(path) and frame.crs.is_geographic and frame.crs.name.startswith("WGS 84"))


def on_slide(geometry: npt.NDArray[np.object_], info: SlideInfo, tiling: Tiling) -> npt.NDArray[np.object_]:
    """Polygons (working px) clipped to the slide, empty where they lie off it; in place."""
    # the working size is rounded up, so the slide may end within its last pixel
    width = min(tiling.width, info.width / tiling.scale[0])
    height = min(tiling.height, info.height / tiling.scale[1])
    slide = shapely.box(0, 0, width, height)
    inside = shapely.contains_properly(slide, geometry)
    geometry[~inside] = only_polygons(shapely.intersection(geometry[~inside], slide))
    return geometry


def read_frame(path: Path) -> Any:
    """The GeoDataFrame of a side file as it stands; raises FormatError for a file that is missing or unreadable."""
    import geopandas

    if not path.is_file():
        raise FormatError(f"{path}: no such file; expected GeoJSON, GeoPackage or GeoParquet")
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: empty file; expected GeoJSON, GeoPackage or GeoParquet")
    try:
        array = _array_of_features(path)
        with warnings.catch_warnings():
            # of odd geometries, which are repaired below or refused, and odd properties
            warnings.simplefilter("ignore")
            if path.suffix == ".parquet":
                frame = geopandas.read_parquet(path)
            elif array is not None:
                frame = geopandas.read_file(io.BytesIO(array), on_invalid="fix")
            else:
                # a plain path would be taken for a URL or an archive where it holds ';' or '!'
                plain = f"/vsisubfile/0,{path}" if _is_json(path) else str(path)
                place = f"/vsigzip/{path}" if path.suffix == ".gz" else plain
                frame = geopandas.read_file(place, on_invalid="fix")  # closes rings that are open
    except Exception as error:  # GDAL, pyarrow and geopandas raise many kinds
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as polygons or points ({one_line(error)})") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise FormatError(f"{path}: a table without geometry; expected GeoJSON, GeoPackage or GeoParquet")
    return frame


def _is_json(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".geojson", ".json"))


def _array_of_features(path: Path) -> bytes | None:
    """A bare array of features (an export of QuPath can be one) as a collection; None for any other file."""
    if not _is_json(path):
        return None
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        start = stream.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start.startswith(b"["):
            return None
        return b'{"type": "FeatureCollection", "features": ' + start + stream.read() + b"}"


def class_names(frame: Any, names: Sequence[str] = _CLASS_COLUMNS) -> npt.NDArray[np.object_]:
    """Class of each feature: QuPath's classification object, or a plain column."""
    found = np.full(len(frame), UNCLASSIFIED, dtype=object)
    for column in [name for name in names if name in frame.columns][::-1]:
        said = np.array([_class_name(value) for value in frame[column]], dtype=object)
        found = np.where(said == UNCLASSIFIED, found, said)
    return found


def _class_name(value: Any) -> str:
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    if isinstance(value, dict):
        value = value.get("name")
    if isinstance(value, float) and value.is_integer():  # whole numbers with a gap among them
        value = int(value)
    return str(value) if isinstance(value, str | int) and value != "" else UNCLASSIFIED


def _to_working(xy: npt.NDArray[np.float64], info: SlideInfo, tiling: Tiling) -> npt.NDArray[np.float64]:
    if info.transform is not None and info.crs is not None:
        a, b, c, d, e, f = info.transform
        xy = (xy - (c, f)) @ np.linalg.inv(np.array([[a, b], [d, e]])).T
    return np.asarray(xy / np.asarray(tiling.scale))


def repair(geometry: npt.NDArray[np.object_]) -> tuple[npt.NDArray[np.object_], int]:
    """Polygons made valid (possibly empty), in place, and how many were not."""
    invalid = ~shapely.is_valid(geometry)
    geometry[invalid] = only_polygons(shapely.make_valid(geometry[invalid]))
    return geometry, int(invalid.sum())


def only_polygons(geometry: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Each geometry without the points and lines that clipping and repairing leave behind (possibly empty)."""
    mixed = ~np.isin(shapely.get_type_id(geometry), (3, 6))
    if not mixed.any():
        return geometry
    result = np.array(geometry, dtype=object)
    parts, owner = shapely.get_parts(geometry[mixed], return_index=True)
    inner, index = shapely.get_parts(parts, return_index=True)
    owner, solid = owner[index], shapely.get_dimensions(inner) == 2
    cleaned = np.full(int(mixed.sum()), shapely.Polygon(), dtype=object)
    if solid.any():
        owners, counts = np.unique(owner[solid], return_counts=True)
        several = shapely.multipolygons(inner[solid], indices=np.repeat(np.arange(len(owners)), counts))
        cleaned[owners] = several
        cleaned[owners[counts == 1]] = shapely.get_geometry(several[counts == 1], 0)
    result[mixed] = cleaned
    return result
