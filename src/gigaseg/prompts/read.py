"""Prompts from a vector file: points, boxes and polygons drawn by hand, or footprints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.errors import ConfigError, FormatError, unknown
from gigaseg.prompts.table import BOX, MASK, NEGATIVE, POINT, POSITIVE, UNLABELLED, PromptTable
from gigaseg.sidefiles import UNCLASSIFIED, class_names, on_slide, read_features, repair
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import Tiling

POLYGONS_AS = ("box", "mask", "points")
"""What a polygon becomes: its bounding box; the box and its outline as mask prompt; one point well inside."""

MOST_POINTS = 256
"""Points of one object: each is a token that all others attend to, and SAM was trained with some ten."""

_LABELS = {
    **dict.fromkeys(("positive", "pos", "1", "1.0", "true"), POSITIVE),
    **dict.fromkeys(("negative", "neg", "0", "0.0", "false"), NEGATIVE),
}
_CLASS_COLUMNS = ("classification", "class", "class_name")
_POINTS, _POLYGONS = (0, 4), (3, 6)  # shapely's type ids, single and multi


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of a file.

    Attributes
    ----------
    table : the prompts of objects that lie on the slide; tile_row and tile_col are -1. Objects are numbered in the
        order of the file.
    off_slide : (p, 2) float64 working px, where the left-out ones lie.
    counts : features of other kinds, repaired polygons, polygons without area (left out), and negative points that
        joined the nearest object; or, of `read_points`, positive and negative points, also those off the slide, and
        features of other kinds.
    """

    table: PromptTable
    off_slide: npt.NDArray[np.float64]
    counts: dict[str, int]


def read_prompts(path: Path, info: SlideInfo, tiling: Tiling, polygons_as: str = "box") -> FilePrompts:
    """Read the prompts of a GeoJSON (QuPath's export too), GeoPackage, shapefile or GeoParquet file.

    Coordinates are as `gigaseg.sidefiles.read_polygons` takes them: level-0 px, or a CRS for a georeferenced slide.

    A point is positive unless its property ``label`` says negative (or 0); without ``label`` a classification named
    Positive or Negative, as QuPath has them, decides. Features with the same property ``object`` (or QuPath metadata
    of that key) prompt one object together; without it each polygon and each positive point, also each of a
    multipoint, is an object of its own, and a negative point joins the nearest object. The class of an object is the
    first that its features name in ``classification``, ``class`` or ``class_name``.

    Parameters
    ----------
    path, info, tiling : the file, the slide and its grid.
    polygons_as : one of `POLYGONS_AS`.

    Raises
    ------
    ConfigError
        `polygons_as` is none of them.
    FormatError
        The file is unreadable, holds no point or polygon or none on the slide, a label is not accepted, or an object
        has negative points only or more than `MOST_POINTS`.
    """
    if polygons_as not in POLYGONS_AS:
        raise ConfigError(unknown("value of polygons_as", polygons_as, POLYGONS_AS))
    frame, geometry = read_features(path, info, tiling)
    polygonal, pointed = _are(geometry, _POLYGONS), _are(geometry, _POINTS)
    if not (polygonal | pointed).any():
        raise FormatError(f"{path}: {len(geometry)} features, none of them a point or polygon; expected prompts")
    sign, classes_of = _signs(path, frame, pointed)

    # one row a prompt, in the order of the file
    parts, of = _points(geometry, pointed)
    shape = np.concatenate([geometry[polygonal], parts])
    feature = np.concatenate([np.flatnonzero(polygonal), of]).astype(np.int64)
    order = np.argsort(feature, kind="stable")
    shape, feature = shape[order], feature[order]
    polygon = polygonal[feature]
    label = np.where(polygon, POSITIVE, sign[feature]).astype(np.int8)
    found, joined = _objects(path, shape, label, _object_names(frame)[feature], feature)

    where = shapely.get_coordinates(shapely.centroid(shape)).reshape(-1, 2)
    shape[polygon], repaired = repair(shape[polygon])
    flat = shapely.is_empty(shape)
    shape[polygon] = on_slide(shape[polygon], info, tiling)
    here = np.where(polygon, ~shapely.is_empty(shape), _on_slide(where, info, tiling))
    left = here & np.isin(found, found[here & (label == POSITIVE)])  # what negative points alone are left of, goes
    if flat.all():
        raise FormatError(f"{path}: none of its {len(flat)} polygons has an area; expected prompts")
    if not left.any():
        raise FormatError(f"{path}: none of its {len(left)} prompts lies on slide '{info.slide}'; wrong CRS or slide?")
    counts = {
        "other_features": int((~(polygonal | pointed)).sum()),
        "repaired": repaired,
        "without_area": int(flat.sum()),
        "negatives_to_nearest": joined,
    }
    names, class_index = np.unique(_first_class(found, classes_of[feature])[left], return_inverse=True)
    table = _table(shape[left], polygon[left], label[left], polygons_as)
    table = replace(
        table,
        object=found[left],
        feature=feature[left],
        class_index=class_index.astype(np.int32),
        classes=tuple(names.tolist()),
    )
    return FilePrompts(table, where[~left & ~flat], counts)


def read_points(path: Path, info: SlideInfo, tiling: Tiling) -> FilePrompts:
    """Read the points of a file as `read_prompts` takes it, each for itself.

    Points have the same labels as there; negative ones alone are fine, and ``object`` and classes have no say. Other
    features are left out. A file without points gives an empty table.

    Raises
    ------
    FormatError
        The file is unreadable, holds points but none on the slide, or a label is not accepted.
    """
    frame, geometry = read_features(path, info, tiling)
    pointed = _are(geometry, _POINTS)
    shape, feature = _points(geometry, pointed)
    label = _signs(path, frame, pointed)[0][feature]
    where = shapely.get_coordinates(shape).reshape(-1, 2)
    here = _on_slide(where, info, tiling)
    if len(here) and not here.any():
        raise FormatError(f"{path}: none of its {len(here)} points lies on slide '{info.slide}'; wrong CRS or slide?")
    counts = {
        "positive": int((label == POSITIVE).sum()),
        "negative": int((label == NEGATIVE).sum()),
        "other_features": int((~pointed).sum()),
    }
    table = _table(shape[here], np.zeros(int(here.sum()), dtype=bool), label[here], "box")
    return FilePrompts(replace(table, object=np.flatnonzero(here), feature=feature[here]), where[~here], counts)


def _are(geometry: npt.NDArray[np.object_], types: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isin(shapely.get_type_id(geometry), types) & ~shapely.is_empty(geometry))


def _points(
    geometry: npt.NDArray[np.object_], pointed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Each point of the features `pointed`, and the number of its feature."""
    parts, of = shapely.get_parts(geometry[pointed], return_index=True)
    filled = ~shapely.is_empty(parts)
    return parts[filled], np.flatnonzero(pointed)[of[filled]]


def _on_slide(xy: npt.NDArray[np.float64], info: SlideInfo, tiling: Tiling) -> npt.NDArray[np.bool_]:
    """Whether the slide, which may end within the last working pixel, holds each of the (n, 2) places."""
    size = [min(tiling.width, info.width / tiling.scale[0]), min(tiling.height, info.height / tiling.scale[1])]
    return np.asarray(((xy >= 0) & (xy < size)).all(axis=1))


def _signs(
    path: Path, frame: Any, pointed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.object_]]:
    """Label and class of each feature; a classification that gives a point its label is no class."""
    classes = class_names(frame, _CLASS_COLUMNS)
    sign = np.full(len(frame), POSITIVE, np.int8)
    given = frame["label"].tolist() if "label" in frame.columns else [None] * len(frame)
    for i in np.flatnonzero(pointed):
        said = _text(given[i])
        if said is None:
            if classes[i].lower() in ("positive", "negative"):
                sign[i] = _LABELS[classes[i].lower()]
                classes[i] = UNCLASSIFIED
        elif said.lower() in _LABELS:
            sign[i] = _LABELS[said.lower()]
        else:
            raise FormatError(f"{path}: label of point feature {i} is '{said}', accepted: positive, negative, 1, 0")
    return sign, classes


def _object_names(frame: Any) -> npt.NDArray[np.object_]:
    """Property ``object`` of each feature, else that of its QuPath metadata; None without."""
    names = np.full(len(frame), None, dtype=object)
    for column in [name for name in ("metadata", "object") if name in frame.columns]:
        for i, value in enumerate(frame[column]):
            said = _text(_of_metadata(value) if column == "metadata" else value)
            names[i] = names[i] if said is None else said
    return names


def _of_metadata(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value.get("object") if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    """A property as text, whole numbers without a point; None for what says nothing."""
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return None
        value = int(value) if value == int(value) else value
    return str(value).strip() or None if isinstance(value, str | bool | int | float | np.generic) else None


def _objects(
    path: Path,
    shape: npt.NDArray[np.object_],
    label: npt.NDArray[np.int8],
    names: npt.NDArray[np.object_],
    feature: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], int]:
    """Number of each prompt's object, and how many negative points joined the nearest one."""
    named = np.array([name is not None for name in names], dtype=bool)
    found = np.arange(len(names))
    _, first, inverse = np.unique(names[named].astype(str), return_index=True, return_inverse=True)
    found[named] = np.flatnonzero(named)[first][inverse]
    positive = label == POSITIVE
    if not positive.any():
        raise FormatError(f"{path}: {len(label)} points, all of them negative; expected positive ones too")
    lost = np.flatnonzero(named & ~np.isin(found, found[positive]))
    if len(lost):
        raise FormatError(
            f"{path}: object '{names[lost[0]]}' (feature {feature[lost[0]]}) has negative points only; "
            "expected a positive point, a box or a polygon with the same object"
        )
    joining = np.flatnonzero(~named & ~positive)
    if len(joining):
        tree = shapely.STRtree(shape[positive])
        (who, near) = tree.query_nearest(shape[joining], all_matches=True)
        _, start = np.unique(who, return_index=True)
        found[joining] = found[np.flatnonzero(positive)[np.minimum.reduceat(near, start)]]
    count = np.bincount(found, weights=shapely.get_type_id(shape) == 0)
    if count.max() > MOST_POINTS:
        first = np.flatnonzero(found == count.argmax())[0]
        raise FormatError(
            f"{path}: object '{names[first] or 'without a name'}' (feature {feature[first]}) has {count.max():.0f} "
            f"points, accepted: up to {MOST_POINTS} (negative points without the property object join the nearest)"
        )
    # numbered in the order of the file
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int64)[inverse], len(joining)


def _first_class(found: npt.NDArray[np.int64], classes: npt.NDArray[np.object_]) -> npt.NDArray[np.str_]:
    """Class of each prompt's object: the first that one of its prompts names."""
    said = np.flatnonzero(classes != UNCLASSIFIED)
    names, first = np.unique(found[said], return_index=True)
    of_object = np.full(found.max() + 1, UNCLASSIFIED, dtype=object)
    of_object[names] = classes[said[first]]
    return of_object[found].astype(str)


def _table(
    shape: npt.NDArray[np.object_], polygon: npt.NDArray[np.bool_], label: npt.NDArray[np.int8], polygons_as: str
) -> PromptTable:
    """The prompts' kinds and coordinates; objects, classes and tiles are to be filled in."""
    n = len(shape)
    dotted = ~polygon
    if polygons_as == "points":
        # the centre of the largest disc within: the point that is surest to lie on the object
        shape[polygon] = shapely.get_point(shapely.maximum_inscribed_circle(shape[polygon]), 0)
        dotted = np.ones(n, dtype=bool)
    xy, box = np.full((n, 2), np.nan), np.full((n, 4), np.nan)
    xy[dotted] = shapely.get_coordinates(shape[dotted]).reshape(-1, 2)
    box[~dotted] = shapely.bounds(shape[~dotted]).reshape(-1, 4)
    outlined = ~dotted & (polygons_as == "mask")
    outline = np.full(n, None, dtype=object)
    outline[outlined] = shape[outlined]
    return PromptTable(
        tile_row=np.full(n, -1, np.int32),
        tile_col=np.full(n, -1, np.int32),
        object=np.arange(n, dtype=np.int64),
        kind=np.where(dotted, POINT, np.where(outlined, MASK, BOX)).astype(np.int8),
        xy=xy,
        box=box,
        label=np.where(dotted, label, UNLABELLED).astype(np.int8),
        class_index=np.zeros(n, np.int32),
        score=np.ones(n, np.float32),
        feature=np.zeros(n, np.int64),
        geometry=outline,
        classes=(UNCLASSIFIED,),
    )
