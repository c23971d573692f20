"""The slide in windows: which there are, and what the outlines and pixels of one of them tell."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.measure.cover import BlockCover, Scene, cover
from gigaseg.measure.morphology import DIMENSION, morphology
from gigaseg.measure.stream import Batch, InstanceFile
from gigaseg.measure.sweep import BLOCK, Statistics, WindowPixels, measure_pixels
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.ground import Ground
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.tiling import Tiling

Index = npt.NDArray[np.int64]
Window = tuple[int, int, int, int]

_MARGIN = 2
"""Working px around a window in which outlines are looked for: what touches it, and rounding."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know to measure a window.

    Attributes
    ----------
    instances : the slide's instances, scanned.
    info, tiling, ground : of the slide.
    scene : of which coverage is told.
    statistics : of pixels; None where none are measured.
    ahead : whether a thread reads pixels ahead.
    """

    instances: InstanceFile
    info: SlideInfo
    tiling: Tiling
    ground: Ground
    scene: Scene
    statistics: Statistics | None
    ahead: bool

    @property
    def exact(self) -> bool:
        """Whether outlines follow the edges of working pixels."""
        return bool(self.instances.metadata["outlines"] == "pixels")


@dataclass(frozen=True)
class WindowFound:
    """What a window tells.

    Attributes
    ----------
    row : (m,) instances whose first corner lies in the window: each belongs to one window.
    shapes : (m,) columns of these.
    row_of : (k,) row of the instances that `pixels` numbers.
    cover : of the blocks of the window.
    pixels : None where none are measured.
    """

    row: Index
    shapes: dict[str, npt.NDArray[np.float64]]
    row_of: Index
    cover: list[BlockCover]
    pixels: WindowPixels | None


def shape_columns(unit: str) -> tuple[str, ...]:
    """Columns of `WindowFound.shapes`, in order."""
    suffix = {0: "", 1: f"_{unit}", 2: f"_{unit}2"}
    names = [name + suffix[power] for name, power in DIMENSION.items()]
    return *names, "orientation_deg", "centroid_x_px", "centroid_y_px"


class BlockCounts:
    """Number of instances whose first corner lies in each block of a slide."""

    def __init__(self, tiling: Tiling, side: int = BLOCK) -> None:
        self._tiling, self._side = tiling, side
        self._found = np.zeros((-(-tiling.height // side), -(-tiling.width // side)), np.int64)

    def add(self, batch: Batch) -> None:
        """Take in instances."""
        corner = first_corner(batch.box, self._tiling) // self._side
        np.add.at(self._found, (corner[:, 1], corner[:, 0]), 1)

    def windows(self, size: int) -> list[Window]:
        """Cut the slide into windows of about `size` instances, row by row; at least one block each."""
        windows: list[Window] = []
        per_row, side = self._found.sum(1), self._side
        first = 0
        while first < len(per_row):
            end = first + 1
            while end < len(per_row) and per_row[first : end + 1].sum() <= size:
                end += 1
            top, bottom = first * side, min(end * side, self._tiling.height)
            per_column = self._found[first:end].sum(0)
            left = 0
            for column in range(1, len(per_column) + 1):
                if column == len(per_column) or per_column[left : column + 1].sum() > size:
                    windows.append((left * side, top, min(column * side, self._tiling.width), bottom))
                    left = column
            first = end
        return windows


def first_corner(box: npt.NDArray[np.float64], tiling: Tiling) -> Index:
    """(n, 2) x, y of the first pixel of boxes in level-0 px: working px, inside the slide."""
    corner = np.floor(box[:, :2] / tiling.scale).clip(0, (tiling.width - 1, tiling.height - 1))
    return np.asarray(corner, np.int64)


def measure_window(job: Job, window: Window) -> WindowFound:
    """Measure the outlines that begin in a window and the pixels in it; see `WindowFound`."""
    tiling = job.tiling
    left, top, right, bottom = window
    around = (
        (left - _MARGIN) * tiling.scale[0] if left > 0 else -np.inf,
        (top - _MARGIN) * tiling.scale[1] if top > 0 else -np.inf,
        (right + _MARGIN) * tiling.scale[0] if right < tiling.width else np.inf,
        (bottom + _MARGIN) * tiling.scale[1] if bottom < tiling.height else np.inf,
    )
    step = tiling.scale if job.exact else None
    rows, outlines, own_rows = [np.empty(0, np.int64)], [np.empty(0, object)], [np.empty(0, np.int64)]
    labels = [np.empty(0, np.int32)]
    names = shape_columns(job.info.unit)
    shapes: list[npt.NDArray[np.float64]] = [np.empty((0, len(names)))]
    for row, box, label, geometry in job.instances.window(around):
        corner = first_corner(box, tiling)
        own = (corner[:, 0] >= left) & (corner[:, 0] < right) & (corner[:, 1] >= top) & (corner[:, 1] < bottom)
        if own.any():
            own_rows.append(row[own])
            shapes.append(_shapes(geometry[own], step, job.ground))
        rows.append(row)
        labels.append(label)
        outlines.append(to_working(geometry, tiling.scale, job.exact))
    pixels, row_of, drawn = None, np.concatenate(rows), np.concatenate(outlines)
    if job.statistics is not None and len(row_of):
        with closing(open_slide(job.info)) as slide:
            pixels = measure_pixels(slide, tiling, job.statistics, drawn, window, ahead=job.ahead)
    columns = dict(zip(names, np.concatenate(shapes).T))
    covered = cover(job.scene, tiling, drawn, np.concatenate(labels), window)
    return WindowFound(np.concatenate(own_rows), columns, row_of, covered, pixels)


def _shapes(
    geometry: npt.NDArray[np.object_], step: tuple[float, float] | None, ground: Ground
) -> npt.NDArray[np.float64]:
    """(n, columns) in the order of `shape_columns`."""
    centroid = shapely.get_coordinates(shapely.centroid(geometry)).reshape(-1, 2)
    found = morphology(geometry, step, ground.stretch(centroid), centroid)
    return np.column_stack([*(found[name] for name in DIMENSION), found["orientation"], centroid])


def to_working(geometry: npt.NDArray[np.object_], scale: tuple[float, float], exact: bool) -> npt.NDArray[np.object_]:
    """Outlines in level-0 px as working px, whole ones where they are `exact`: along the edges of working pixels."""
    if scale == (1.0, 1.0):
        return geometry

    def divide(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # level-0 coordinates are working px times a scale that need not be whole
        return np.asarray(np.rint(xy / scale) if exact else xy / scale)

    return np.asarray(shapely.transform(geometry, divide), dtype=object)
