"""Coverage: how much of the ground, of regions of it and by which class, lies under instances.

Block by block of working pixels. Outlines become runs of pixels, runs of a row that overlap are joined, so that what
several instances cover counts once, and only what is foreground counts. Every run is weighed with the true area that
its pixels have where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.measure.runs import Runs, pixel_runs
from gigaseg.slides.ground import Ground, areas_of
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

SIDE = 2048
"""Side of a block, working px; windows hold whole blocks, so that sums do not depend on how a slide is cut."""

_NODES = 65
"""Places along x and y at which the area of a pixel is known; between them a cubic spline has it within 1e-5."""

Index = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Geometry = npt.NDArray[np.object_]


class PixelAreas:
    """Area of a level-0 pixel anywhere in a slide, 0 where the CRS is not defined."""

    def __init__(self, ground: Ground, width: int, height: int) -> None:
        from scipy.interpolate import RectBivariateSpline

        x, y = np.linspace(0, width, _NODES), np.linspace(0, height, _NODES)
        nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        areas = np.nan_to_num(areas_of(ground.stretch(nodes)))
        self._same = float(areas[0]) if np.ptp(areas) == 0 else None
        self._spline = RectBivariateSpline(y, x, areas.reshape(_NODES, _NODES)) if self._same is None else None

    def at(self, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Values:
        """(n,) areas at places in level-0 px."""
        if self._spline is None:
            return np.full(len(x), self._same)
        return np.asarray(self._spline.ev(y, x)).clip(0)

    def mean(
        self, start: npt.NDArray[np.floating], stop: npt.NDArray[np.floating], y: npt.NDArray[np.floating]
    ) -> Values:
        """(n,) mean area of the pixels of runs along x (Simpson's rule)."""
        if self._spline is None:
            return np.full(len(y), self._same)
        middle = self.at((start + stop) / 2, y)
        return np.asarray((self.at(start, y) + 4 * middle + self.at(stop, y)) / 6)

    def of(self, foreground: Foreground) -> float:
        """Area of a foreground."""
        row, column = np.nonzero(foreground.mask)
        x, y = (column + 0.5) * foreground.scale[0], (row + 0.5) * foreground.scale[1]
        if self._same is not None:
            return foreground.area_px() * self._same
        return float(self.at(x, y).sum() * foreground.scale[0] * foreground.scale[1])


@dataclass(frozen=True)
class Scene:
    """What a worker has to know to tell coverage.

    Attributes
    ----------
    areas : of pixels.
    foreground : what of the ground counts.
    regions : (r,) polygons, working px; they may overlap.
    classes : number of classes.
    """

    areas: PixelAreas
    foreground: Foreground
    regions: Geometry
    classes: int


@dataclass(frozen=True)
class BlockCover:
    """Areas of a block, in the square of the unit of length.

    Attributes
    ----------
    block : (row, column).
    region : (k,) regions that meet it.
    valid : (k,) foreground in each of them.
    covered : (1 + k, classes + 1) foreground under instances: of the block and of each region, all classes together,
        then by class.
    """

    block: tuple[int, int]
    region: Index
    valid: Values
    covered: Values


def cover(
    scene: Scene, tiling: Tiling, outlines: Geometry, class_index: npt.NDArray[np.int32], window: tuple[int, ...]
) -> list[BlockCover]:
    """Coverage in the blocks of a window (left, top, right, bottom) of `SIDE` working px.

    Parameters
    ----------
    outlines, class_index : (n,) all instances that meet the window, working px.
    """
    left, top, right, bottom = window
    box, around = shapely.bounds(outlines).reshape(-1, 4), shapely.bounds(scene.regions).reshape(-1, 4)
    found = []
    for y in range(top, bottom, SIDE):
        for x in range(left, right, SIDE):
            block = x, y, min(x + SIDE, right), min(y + SIDE, bottom)
            inside, region = (np.flatnonzero(_meet(bounds, block)) for bounds in (box, around))
            if not len(inside) and not len(region):
                continue
            valid, covered = _cover(scene, tiling, outlines[inside], class_index[inside], scene.regions[region], block)
            found.append(BlockCover((y // SIDE, x // SIDE), region, valid, covered))
    return found


def total(found: Sequence[BlockCover], regions: int, classes: int) -> tuple[Values, Values]:
    """(regions,) `valid` and (1 + regions, classes + 1) `covered` of all blocks, in whatever order they come."""
    valid, covered = np.zeros(regions), np.zeros((1 + regions, classes + 1))
    for part in sorted(found, key=lambda part: part.block):
        valid[part.region] += part.valid
        covered[np.append(0, 1 + part.region)] += part.covered
    return valid, covered


def _meet(bounds: Values, block: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = block
    return np.asarray(
        (bounds[:, 0] < right) & (bounds[:, 2] > left) & (bounds[:, 1] < bottom) & (bounds[:, 3] > top), bool
    )


def _cover(
    scene: Scene,
    tiling: Tiling,
    outlines: Geometry,
    class_index: npt.NDArray[np.int32],
    regions: Geometry,
    block: tuple[int, int, int, int],
) -> tuple[Values, Values]:
    """`valid` and `covered` of a block."""
    left, top, right, bottom = block
    ground = _Rows(scene, tiling, top, bottom)
    within = pixel_runs(regions, top, bottom, tiling.width).clipped(left, right)
    valid = np.bincount(within.owner, ground.area(within), len(regions))
    covered = np.zeros((1 + len(regions), scene.classes + 1))
    runs = pixel_runs(outlines, top, bottom, tiling.width).clipped(left, right)
    label = class_index[runs.owner]
    for column in range(scene.classes + 1):
        if column == 1 and scene.classes == 1:
            covered[:, 1] = covered[:, 0]
            break
        joined = _joined(runs if column == 0 else runs.take(label == column - 1), tiling.width + 1)
        area = ground.area(joined)
        covered[0, column] = area.sum()
        if len(within.row):
            covered[1:, column] = _under(joined, area, within, tiling.width + 1, len(regions))
    return np.asarray(valid, np.float64), covered


class _Rows:
    """The ground of some rows of working pixels."""

    def __init__(self, scene: Scene, tiling: Tiling, top: int, bottom: int) -> None:
        foreground, self._scale, self._areas = scene.foreground, tiling.scale, scene.areas
        self._pixel = np.asarray(tiling.scale) / foreground.scale
        height, self._width = foreground.mask.shape
        self._first = min(int((top + 0.5) * self._pixel[1]), height - 1)
        self._last = min(int((bottom - 0.5) * self._pixel[1]), height - 1)
        part = foreground.mask[self._first : self._last + 1]
        self._below = np.zeros((len(part), self._width + 2), np.int64)
        part.cumsum(1, out=self._below[:, 1:-1])
        self._below[:, -1] = self._below[:, -2]

    def area(self, runs: Runs) -> Values:
        """(m,) true area of what of each run is foreground."""
        row = np.minimum(((runs.row + 0.5) * self._pixel[1]).astype(np.int64), self._last) - self._first
        length = (self._integral(row, runs.stop) - self._integral(row, runs.start)) / self._pixel[0]
        start, stop = runs.start * self._scale[0], runs.stop * self._scale[0]
        pixel = self._areas.mean(start, stop, (runs.row + 0.5) * self._scale[1])
        return np.asarray(length * pixel * self._scale[0] * self._scale[1])

    def _integral(self, row: Index, x: Index) -> Values:
        """Foreground left of `x` in `row`, mask px."""
        place = np.minimum(x * self._pixel[0], self._width)
        column = place.astype(np.int64)
        step = self._below[row, column + 1] - self._below[row, column]
        return np.asarray(self._below[row, column] + step * (place - column))


def _joined(runs: Runs, pitch: int) -> Runs:
    """The pixels of all runs, each once."""
    start, stop = runs.row * pitch + runs.start, runs.row * pitch + runs.stop
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(stop[order])
    first = np.flatnonzero(np.append(True, start[1:] > reach[:-1])[: len(start)])
    end = reach[np.append(first[1:] - 1, len(reach) - 1)[: len(first)]]
    row = start[first] // pitch
    return Runs(np.zeros(len(first), np.int64), row, start[first] - row * pitch, end - row * pitch)


def _under(joined: Runs, area: Values, within: Runs, pitch: int, regions: int) -> Values:
    """(regions,) area of `joined` runs that lies in the runs of regions."""
    start, length = joined.row * pitch + joined.start, joined.stop - joined.start
    below = np.append(0.0, area.cumsum())

    def before(key: Index) -> Values:
        if not len(start):
            return np.zeros(len(key))
        last = np.maximum(np.searchsorted(start, key, "right") - 1, 0)
        share = ((key - start[last]) / length[last]).clip(0, 1)
        return np.asarray(below[last] + area[last] * share)

    row = within.row * pitch
    area_in = before(row + within.stop) - before(row + within.start)
    return np.asarray(np.bincount(within.owner, area_in, regions), np.float64)
