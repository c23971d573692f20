"""Overlap of two sets of polygons, in memory that does not grow with their vertices.

The geometries lie in a temporary file; of each only its box, area, centroid, class and score stay in memory
(about 100 bytes). The plane is cut into square cells of some thousand objects; a cell reads the objects whose
boxes touch it and joins them by an R-tree. Objects of any size are compared whole: a pair that meets in
several cells counts in the one that holds the lower left corner of the intersection of the two boxes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.errors import FormatError
from gigaseg.metrics.overlap import BoolArray, FloatArray, IntArray, Overlap

logger = logging.getLogger(__name__)

OBJECTS_PER_CELL = 5000
"""Objects of one side in a cell, on average: some 10 MB of geometry, and enough for the R-tree to pay."""

Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True)
class PolygonBatch:
    """Some polygons as they come from a file.

    Attributes
    ----------
    geometry : (n,) shapely polygons, multipolygons, or None; px.
    classes : (n,) class names, or None where the file has none.
    score : (n,) float64, or None where the file has none.
    """

    geometry: Geometries
    classes: npt.NDArray[np.object_] | None = None
    score: FloatArray | None = None


@dataclass(frozen=True)
class PolygonStore:
    """n polygons: their geometry in a temporary file, what is needed of all of them in memory.

    Attributes
    ----------
    bounds : (n, 4) float64 (xmin, ymin, xmax, ymax), px.
    area : (n,) float64, px².
    centroid : (n, 2) float64 (x, y), px.
    class_index : (n,) int64 into `classes`; None when an object has no class.
    classes : names in the order in which they first occur.
    score : (n,) float64; None when an object has no score.
    """

    bounds: FloatArray
    area: FloatArray
    centroid: FloatArray
    class_index: IntArray | None
    classes: tuple[str, ...]
    score: FloatArray | None
    _offset: IntArray
    _file: IO[bytes]

    def __len__(self) -> int:
        return len(self.area)

    @classmethod
    def collect(cls, batches: Iterable[PolygonBatch], name: str = "polygons") -> PolygonStore:
        """Take polygons in; invalid ones are made valid, those without area are left out, both with a log line.

        Parameters
        ----------
        name : names the source in messages.

        Raises
        ------
        FormatError : a geometry is no polygon.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the store
        columns: list[tuple[FloatArray, FloatArray, FloatArray, IntArray]] = []
        codes: list[IntArray] = []
        scores: list[FloatArray] = []
        known: dict[str, int] = {}
        mended = dropped = row = 0
        for batch in batches:
            geometry, bad, kept = _polygonal(batch.geometry, row, name)
            row += len(batch.geometry)
            mended += bad
            dropped += len(kept) - len(geometry)
            packed = shapely.to_wkb(geometry)
            file.write(b"".join(packed))
            size = np.fromiter(map(len, packed), np.int64, len(packed))
            centre = shapely.centroid(geometry)
            xy = np.column_stack([shapely.get_x(centre), shapely.get_y(centre)])
            columns.append((shapely.bounds(geometry).reshape(-1, 4), shapely.area(geometry), xy, size))
            if batch.classes is not None:
                names = batch.classes[kept]
                codes.append(np.fromiter((known.setdefault(n, len(known)) for n in names), np.int64, len(names)))
            if batch.score is not None:
                scores.append(np.asarray(batch.score, dtype=np.float64)[kept])
        if mended:
            logger.warning("%s: %d invalid polygons were made valid", name, mended)
        if dropped:
            logger.warning("%s: %d objects without area were left out", name, dropped)
        bounds, area, centroid, sizes = (np.concatenate(c) for c in zip(*columns)) if columns else _NOTHING
        n = len(area)
        return cls(
            bounds=bounds,
            area=area,
            centroid=centroid,
            class_index=_joined(codes, n, np.int64),
            classes=tuple(known),
            score=_joined(scores, n, np.float64),
            _offset=np.concatenate([[0], np.cumsum(sizes)]),
            _file=file,
        )

    @classmethod
    def from_geometries(cls, geometry: Sequence[Any] | Geometries) -> PolygonStore:
        """A store of polygons that are in memory already."""
        return cls.collect([PolygonBatch(np.asarray(geometry, dtype=object).reshape(-1))])

    def load(self, rows: IntArray) -> Geometries:
        """The geometries of `rows`, ascending."""
        packed = []
        for first, last in _runs(rows):
            self._file.seek(self._offset[first])
            content = self._file.read(self._offset[last + 1] - self._offset[first])
            cuts = (self._offset[first : last + 2] - self._offset[first]).tolist()
            packed += [content[a:b] for a, b in pairwise(cuts)]
        geometry: Geometries = np.asarray(shapely.from_wkb(packed), dtype=object).reshape(-1)
        return geometry

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def overlap_of_polygons(
    truth: PolygonStore, prediction: PolygonStore, objects_per_cell: int = OBJECTS_PER_CELL
) -> Overlap:
    """Compare two sets of polygons by exact intersection areas.

    Parameters
    ----------
    truth, prediction : in one frame.
    objects_per_cell : trades memory for speed; the result does not depend on it (but for rounding).
    """
    cells = _Cells.over(truth, prediction, objects_per_cell)
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    covered = np.zeros(3)
    for box, rows_t, rows_p in cells:
        pairs, areas = _join(box, truth, prediction, rows_t, rows_p)
        found.append(pairs)
        covered += areas
    t, p, area = (np.concatenate(c) for c in zip(*found)) if found else (_NO_ROWS, _NO_ROWS, np.empty(0))
    order = np.lexsort((p, t))
    return Overlap(
        truth_ids=np.arange(len(truth)),
        prediction_ids=np.arange(len(prediction)),
        truth_area=truth.area,
        prediction_area=prediction.area,
        truth=t[order],
        prediction=p[order],
        intersection=area[order],
        covered=(float(covered[0]), float(covered[1]), float(covered[2])),
    )


_NO_ROWS: IntArray = np.empty(0, np.int64)
_NOTHING = (np.empty((0, 4)), np.empty(0), np.empty((0, 2)), _NO_ROWS)


@dataclass(frozen=True)
class _Cells:
    """Square cells over the plane, and the objects whose boxes touch each."""

    xmin: float
    ymin: float
    side: float
    cols: int
    members: tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]  # of each side: cells and rows, ascending

    @classmethod
    def over(cls, truth: PolygonStore, prediction: PolygonStore, objects_per_cell: int) -> _Cells:
        boxes = np.concatenate([truth.bounds, prediction.bounds])
        if not len(boxes):
            return cls(0, 0, 1, 1, ((_NO_ROWS, _NO_ROWS), (_NO_ROWS, _NO_ROWS)))
        xmin, ymin, xmax, ymax = boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()
        wanted = max(1, max(len(truth), len(prediction)) / objects_per_cell)
        # Cells smaller than the objects would only repeat them.
        common = float(np.median(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])))
        side = max(np.sqrt((xmax - xmin) * (ymax - ymin) / wanted), 4 * common)
        cols = int((xmax - xmin) // side) + 1
        place = [_place(store.bounds, xmin, ymin, side, cols) for store in (truth, prediction)]
        return cls(xmin, ymin, side, cols, (place[0], place[1]))

    def __iter__(self) -> Any:
        (cell_t, row_t), (cell_p, row_p) = self.members
        for cell in np.union1d(cell_t, cell_p):
            y, x = divmod(int(cell), self.cols)
            left, top = self.xmin + x * self.side, self.ymin + y * self.side
            box = (left, top, left + self.side, top + self.side)
            t = slice(*np.searchsorted(cell_t, [cell, cell + 1]))
            p = slice(*np.searchsorted(cell_p, [cell, cell + 1]))
            yield box, row_t[t], row_p[p]


def _place(bounds: FloatArray, xmin: float, ymin: float, side: float, cols: int) -> tuple[IntArray, IntArray]:
    """(cell, row) of every cell that a box touches, ordered by cell, then row."""
    low = ((bounds[:, :2] - (xmin, ymin)) // side).astype(np.int64)
    high = ((bounds[:, 2:] - (xmin, ymin)) // side).astype(np.int64)
    span = high - low + 1
    count = span.prod(1)
    row = np.repeat(np.arange(len(bounds)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    cell = (low[row, 1] + nth // span[row, 0]) * cols + low[row, 0] + nth % span[row, 0]
    order = np.argsort(cell, kind="stable")
    return cell[order], row[order]


def _join(
    box: tuple[float, float, float, float],
    truth: PolygonStore,
    prediction: PolygonStore,
    rows_t: IntArray,
    rows_p: IntArray,
) -> tuple[tuple[IntArray, IntArray, FloatArray], FloatArray]:
    """The pairs that belong to a cell, and the areas covered in it by (both, truth, prediction)."""
    geo_t, geo_p = truth.load(rows_t), prediction.load(rows_p)
    box_t, box_p = truth.bounds[rows_t], prediction.bounds[rows_p]
    tree = shapely.STRtree(geo_p)
    i, j = tree.query(geo_t, predicate="intersects") if len(geo_t) and len(geo_p) else (_NO_ROWS, _NO_ROWS)
    shared = shapely.intersection(geo_t[i], geo_p[j])
    area = shapely.area(shared)
    x, y = np.maximum(box_t[i, 0], box_p[j, 0]), np.maximum(box_t[i, 1], box_p[j, 1])
    mine = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]) & (area > 0)
    mixed_t, mixed_p = _overlapping(geo_t), _overlapping(geo_p)
    covered = [
        _covered(shared, box, mixed_t[i] | mixed_p[j]),
        _covered(geo_t, box, mixed_t),
        _covered(geo_p, box, mixed_p),
    ]
    return (rows_t[i[mine]], rows_p[j[mine]], area[mine]), np.array(covered)


def _overlapping(geometry: Geometries) -> BoolArray:
    """Which polygons share interior points with another."""
    result = np.zeros(len(geometry), dtype=bool)
    if len(geometry) > 1:
        i, j = shapely.STRtree(geometry).query(geometry, predicate="intersects")
        i, j = i[i < j], j[i < j]
        cross = shapely.relate_pattern(geometry[i], geometry[j], "T********")
        result[i[cross]] = result[j[cross]] = True
    return result


def _covered(geometry: Geometries, box: tuple[float, float, float, float], overlapping: BoolArray) -> float:
    """Area within `box` that any of the geometries covers; only the `overlapping` ones need a union."""
    if not len(geometry):
        return 0.0
    cell = shapely.box(*box)
    total = 0.0
    if overlapping.any():
        union = shapely.disjoint_subset_union_all(geometry[overlapping])
        total += float(shapely.intersection(union, cell).area)
        geometry = geometry[~overlapping]
    bounds = shapely.bounds(geometry)
    inside = (bounds[:, :2] >= box[:2]).all(1) & (bounds[:, 2:] <= box[2:]).all(1)
    total += float(shapely.area(geometry[inside]).sum())
    return total + float(shapely.area(shapely.intersection(geometry[~inside], cell)).sum())


def _polygonal(geometry: Geometries, row: int, name: str) -> tuple[Geometries, int, BoolArray]:
    """(valid polygons with area, number that were invalid, which were kept); `row` is the number of the first."""
    kinds = shapely.get_type_id(geometry)
    present = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    wrong = present & ~np.isin(kinds, (3, 6))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        kind = geometry[first].geom_type
        raise FormatError(f"{name}: object {row + first + 1} is a {kind}; expected Polygon or MultiPolygon")
    invalid = present & ~shapely.is_valid(geometry)
    if invalid.any():
        geometry = geometry.copy()
        # Dimension 2 only: the lines and points that make_valid may leave have no area.
        geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
        present &= np.isin(shapely.get_type_id(geometry), (3, 6))
    kept = present & (shapely.area(geometry) > 0)
    return geometry[kept], int(invalid.sum()), kept


def _joined(parts: list[npt.NDArray[Any]], n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    """The n values of all batches; None when a batch had none."""
    return np.concatenate([np.empty(0, dtype), *parts]) if sum(map(len, parts)) == n else None


def _runs(rows: IntArray) -> list[tuple[int, int]]:
    """First and last of every run of consecutive rows."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1)
    return list(zip(rows[np.concatenate([[0], breaks + 1])].tolist(), rows[np.append(breaks, len(rows) - 1)].tolist()))
