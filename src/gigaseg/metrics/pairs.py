"""Which prediction belongs to which truth, and both sides of a pair in one form."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.errors import FormatError, one_line
from gigaseg.metrics import images, vectors
from gigaseg.metrics.detection import Points
from gigaseg.metrics.figures import Compared
from gigaseg.metrics.images import LabelImage
from gigaseg.metrics.overlap import IntArray, Overlap
from gigaseg.metrics.polygons import PolygonBatch, PolygonStore, overlap_of_polygons
from gigaseg.metrics.reference import split_fragments
from gigaseg.slides.base import SlideInfo

logger = logging.getLogger(__name__)

STITCHED = "instances.parquet"
"""In a folder of results, the prediction of slide NAME is NAME/instances.parquet."""


@dataclass(frozen=True)
class Pair:
    """Files of one image."""

    name: str
    prediction: Path
    truth: Path


def find_pairs(prediction: Path, truth: Path) -> list[Pair]:
    """Pair two files, or two folders by the names of their files without suffix, in alphabetical order.

    Raises
    ------
    FormatError : one is a folder and the other a file, a name occurs twice, a truth has no prediction, or
        there is no truth at all. Predictions without truth are left out, with a log line.
    """
    for path in (prediction, truth):
        if not path.exists():
            raise FormatError(f"{path}: no such file or folder")
    if prediction.is_dir() != truth.is_dir():
        raise FormatError(f"{prediction} and {truth}: expected two files or two folders")
    if not truth.is_dir():
        return [Pair(truth.name.split(".")[0], prediction, truth)]
    wanted, found = _by_name(truth), _by_name(prediction)
    if not wanted:
        raise FormatError(f"{truth}: holds no label images or polygons ({_accepted()})")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise FormatError(
            f"{prediction}: no prediction for {len(missing)} of {len(wanted)} images of {truth}, first '{missing[0]}'"
        )
    extra = sorted(set(found) - set(wanted))
    if extra:
        logger.warning(
            "%s: %d predictions have no truth and are left out, first '%s'", prediction, len(extra), extra[0]
        )
    return [Pair(name, found[name], wanted[name]) for name in sorted(wanted)]


def compare(
    pair: Pair, classes: Sequence[str] | None = None, *, connected: bool = False, slide: Path | None = None
) -> Compared:
    """Read both sides of a pair and find their overlap.

    Two label images are compared by pixel, two sets of polygons by exact areas; where one side is a label
    image, the polygons of the other are drawn on its pixels, the higher score on top.

    Parameters
    ----------
    classes : names in the order wanted; None: all of both sides.
    connected : give the 8-connected parts of a label ids of their own.
    slide : slide.json, needed for files that state a CRS; None: the one beside the prediction, if any.
    """
    has_labels = [vectors.vector_suffix(path) is None for path in (pair.truth, pair.prediction)]
    info = slide if slide is not None else pair.prediction.parent / "slide.json"
    if not any(has_labels):
        stores = [PolygonStore.collect(_level0(path, info), str(path)) for path in (pair.truth, pair.prediction)]
        overlap = overlap_of_polygons(stores[0], stores[1])
        names = _class_names([s.classes if s.class_index is not None else None for s in stores], classes, pair)
        points = [Points(s.centroid, _recode(s, names), s.score) for s in stores]
        for store in stores:
            store.close()
        return Compared(overlap, points[0], points[1], names)
    sides: list[LabelImage | None] = [
        images.read_labels(path) if is_label else None
        for path, is_label in zip((pair.truth, pair.prediction), has_labels)
    ]
    shape = next(side.labels.shape for side in sides if side is not None)
    scores: list[dict[int, float] | None] = [None, None]
    for k, path in enumerate((pair.truth, pair.prediction)):
        if sides[k] is None:
            sides[k], scores[k] = _drawn(_level0(path, info), (shape[0], shape[1]))
    both = [side for side in sides if side is not None]
    if connected:
        both = [_split(side) for side in both]
        scores = [None, None]
    if both[0].labels.shape != both[1].labels.shape:
        (h, w), (k, m) = both[0].labels.shape, both[1].labels.shape
        raise FormatError(f"{pair.prediction}: is {m}x{k} px but its truth {pair.truth} is {w}x{h}; expected the same")
    overlap = Overlap.from_labels(both[0].labels, both[1].labels)
    both = [_named(side, classes) for side in both]
    names = _class_names([None if s.class_of is None else s.class_of.values() for s in both], classes, pair)
    ids = (overlap.truth_ids, overlap.prediction_ids)
    points = [
        Points(
            images.label_points(side.labels, i),
            None if side.class_of is None else _codes([side.class_of[k] for k in i.tolist()], names),
            None if score is None else np.array([score[k] for k in i.tolist()], dtype=np.float64),
        )
        for side, i, score in zip(both, ids, scores)
    ]
    return Compared(overlap, points[0], points[1], names, len(images.touching_ids(both[0].labels)))


def _by_name(folder: Path) -> dict[str, Path]:
    """Files of a folder that can be scored, by name; `instances.parquet` of sub-folders by the sub-folder's name."""
    result: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            name, path = path.name, path / STITCHED
            if not path.is_file():
                continue
        else:
            suffix = vectors.vector_suffix(path) or path.suffix.lower()
            if suffix not in vectors.SUFFIXES + images.SUFFIXES or path.name.startswith("."):
                continue
            name = path.name[: -len(suffix)]
        if name in result:
            raise FormatError(f"{folder}: both {result[name].name} and {path.name} are named '{name}'; keep one")
        result[name] = path
    return result


def _accepted() -> str:
    return ", ".join(images.SUFFIXES + vectors.SUFFIXES)


def _level0(path: Path, slide: Path) -> Iterator[PolygonBatch]:
    """Batches of a file in level-0 px; coordinates in a CRS go through the slide's transform.

    GeoJSON is counted from the corner of the scanned area where the slide has one (`SlideInfo.bounds`), as QuPath does.
    """
    batches, crs = vectors.read_batches(path)
    if crs is None or "undefined" in crs.lower():
        in_qupath = vectors.vector_suffix(path) in vectors.GEOJSON and slide.is_file()
        bounds = SlideInfo.read(slide).bounds if in_qupath else None
        return _moved(batches, bounds[:2]) if bounds else batches
    if not slide.is_file():
        raise FormatError(f"{path}: has the CRS {one_line(crs)[:60]}; give the slide.json that places it in pixels")
    info = SlideInfo.read(slide)
    if info.transform is None or info.crs is None:
        raise FormatError(f"{path}: has the CRS {one_line(crs)[:60]}, but {slide} has none; expected pixels")
    return _to_pixels(batches, crs, info.crs, info.transform, path)


def _moved(batches: Iterator[PolygonBatch], origin: tuple[int, int]) -> Iterator[PolygonBatch]:
    for batch in batches:
        yield replace(batch, geometry=shapely.transform(batch.geometry, lambda xy: xy + origin))


def _to_pixels(
    batches: Iterator[PolygonBatch],
    crs: str,
    target: str,
    transform: tuple[float, float, float, float, float, float],
    path: Path,
) -> Iterator[PolygonBatch]:
    import pyproj

    try:
        to_target = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise FormatError(f"{path}: unknown CRS ({one_line(error)})") from error
    a, b, c, d, e, f = transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))

    def to_pixels(xy: npt.NDArray[Any]) -> npt.NDArray[Any]:
        x, y = to_target.transform(xy[:, 0], xy[:, 1])
        pixels: npt.NDArray[Any] = np.column_stack([x - c, y - f]) @ inverse.T
        return pixels

    for batch in batches:
        yield replace(batch, geometry=shapely.transform(batch.geometry, to_pixels))


def _drawn(batches: Iterator[PolygonBatch], shape: tuple[int, int]) -> tuple[LabelImage, dict[int, float] | None]:
    """A label image of polygons, and the score of each id."""
    parts = list(batches)
    geometry = np.concatenate([part.geometry for part in parts])
    present = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    score = None if any(part.score is None for part in parts) else np.concatenate([part.score for part in parts])
    order = np.arange(len(geometry)) if score is None else np.argsort(score, kind="stable")
    order = order[present[order]]
    class_of = None
    if all(part.classes is not None for part in parts):
        names = np.concatenate([part.classes for part in parts])[order]
        class_of = {i + 1: str(name) for i, name in enumerate(names)}
    labels = images.rasterise(geometry[order], shape)
    return LabelImage(labels, class_of), None if score is None else dict(enumerate(score[order].tolist(), 1))


def _split(side: LabelImage) -> LabelImage:
    parts = split_fragments(side.labels)
    if side.class_of is None:
        return LabelImage(parts)
    ids, first = np.unique(parts, return_index=True)
    origin = side.labels.ravel()[first]
    return LabelImage(parts, {int(i): side.class_of[int(o)] for i, o in zip(ids, origin) if i})


def _class_names(sides: Sequence[Iterable[str] | None], wanted: Sequence[str] | None, pair: Pair) -> tuple[str, ...]:
    """The classes of a pair: those wanted, else all of both sides; none unless both sides have classes."""
    truth, prediction = sides
    if truth is None or prediction is None:
        if wanted:
            missing = pair.truth if truth is None else pair.prediction
            raise FormatError(f"{missing}: has no classes (or not for every object); expected {', '.join(wanted)}")
        return ()
    return tuple(wanted) if wanted else tuple(sorted({*truth, *prediction}))


def _named(side: LabelImage, wanted: Sequence[str] | None) -> LabelImage:
    """Classes that a file only numbers, by the names wanted: class 1 is the first."""
    if not wanted or not side.class_of or not all(c.isdigit() for c in side.class_of.values()):
        return side
    names = {str(number): name for number, name in enumerate(wanted, 1)}
    return LabelImage(side.labels, {i: names.get(c, c) for i, c in side.class_of.items()})


def _recode(store: PolygonStore, names: tuple[str, ...]) -> IntArray | None:
    if store.class_index is None:
        return None
    table = np.array([names.index(c) if c in names else -1 for c in store.classes], dtype=np.int64)
    return table[store.class_index] if len(store) else np.empty(0, np.int64)


def _codes(values: Sequence[str], names: tuple[str, ...]) -> IntArray:
    table = {name: k for k, name in enumerate(names)}
    return np.array([table.get(value, -1) for value in values], dtype=np.int64)
