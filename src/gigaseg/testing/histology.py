"""An invented section of tissue: glands, fibrous stroma, lymphocytes, and the outline of every nucleus.

Two stages, so that a slide of any size needs little memory. `Section` lays the tissue out once: smooth fields
on a coarse grid and a list of nuclei, all in µm. `gigaseg.testing.paint` then renders any rectangle of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

PITCH_UM = 4.0
"""Grid spacing of the coarse fields, µm: glands and the rim of the tissue are smooth at this scale."""

WALL_UM = 24.0
"""Height of the epithelium between the border of a gland and its lumen, µm."""

OUTLINE_POINTS = 28


@dataclass(frozen=True)
class Nuclei:
    """n nuclei as columns, ordered by y.

    Attributes
    ----------
    outline : (n, OUTLINE_POINTS, 2) float32, x and y in µm from the section's top-left corner.
    chromatin : (n,) float32, haematoxylin concentration, about 1.
    coarse : (n,) float32, 0..1, how much the chromatin is clumped towards a dark rim and nucleoli.
    """

    outline: npt.NDArray[np.float32]
    chromatin: npt.NDArray[np.float32]
    coarse: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.outline)


class Section:
    """The layout of a section of tissue.

    Parameters
    ----------
    width_um, height_um : size, µm; about half of it is tissue.
    seed : the same size and seed give the same section.
    nuclei : keep a random choice of at most so many; None: as many as there are.

    Attributes
    ----------
    tissue, depth, lymph : fields on the grid of `PITCH_UM`: tissue where > 0; µm inside a gland's border
        (negative in stroma); lymphocytes where > 0.
    warp_x, warp_y : displacement of the fibres on that grid, µm.
    eosin, haematoxylin : slow variation of the stains on that grid, about 1.
    nuclei : the nuclei.
    """

    def __init__(self, width_um: float, height_um: float, seed: int, nuclei: int | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        self._shape = max(2, math.ceil(height_um / PITCH_UM)), max(2, math.ceil(width_um / PITCH_UM))
        self._size = np.array([width_um, height_um])
        self.tissue = self._outline()
        self.warp_x, self.warp_y = (self._noise(period) * amplitude for period, amplitude in ((260, 45), (220, 55)))
        self.lymph = self._noise(300) + 0.3 * self._noise(60) - 1.25
        self.eosin = 1 + 0.10 * self._noise(500)
        self.haematoxylin = 1 + 0.08 * self._noise(400)
        self._glands = self._scatter_glands()
        self.depth = self._gland_depth()
        self.nuclei = self._grow(nuclei)

    def _noise(self, period_um: float) -> Field:
        """Smooth noise, mean 0 and standard deviation about 1, that turns about every `period_um`."""
        import cv2

        height, width = self._shape
        step = max(period_um / PITCH_UM, 1)
        size = math.ceil(height / step) + 4, math.ceil(width / step) + 4
        coarse = self._rng.standard_normal(size, np.float32)
        offset = self._rng.uniform(1, 2, 2)
        matrix = np.array([[1 / step, 0, offset[0]], [0, 1 / step, offset[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        # bicubic interpolation of white noise keeps about 0.8 of its standard deviation
        return np.asarray(cv2.warpAffine(coarse, matrix, (width, height), flags=flags) / 0.8, np.float32)

    def _outline(self) -> Field:
        height, width = self._shape
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        falloff = 0.9 - np.sqrt((x / 0.95) ** 2 + (y / 0.95) ** 2) ** 2.5
        side = float(self._size.max())
        wobble = 0.28 * self._noise(side / 4) + 0.10 * self._noise(side / 12) + 0.025 * self._noise(40)
        return np.asarray(falloff + wobble, np.float32)

    def _at(self, field: npt.NDArray[np.floating[Any]], xy: npt.NDArray[Any]) -> Field:
        """Values of `field` at points in µm (nearest grid point)."""
        index = np.clip((xy / PITCH_UM).astype(int), 0, np.array(self._shape)[::-1] - 1)
        return np.asarray(field[index[:, 1], index[:, 0]])

    def _uniform(self, per_mm2: float) -> npt.NDArray[np.float64]:
        count = self._rng.poisson(per_mm2 * float(np.prod(self._size)) * 1e-6)
        return self._rng.uniform(0, self._size, (count, 2))

    def _scatter_glands(self) -> npt.NDArray[np.float64]:
        """(n, 7): x, y, radius, then amplitude and phase of the second and third harmonic of the border."""
        xy = self._uniform(900)
        xy = xy[(self._at(self._noise(900) + 0.9, xy) > 0) & (self._at(self.tissue, xy) > 0.12)]
        radius = self._rng.gamma(12, 4.2, len(xy)).clip(26, 100)
        kept = _apart(xy, 1.1 * radius)
        shape = [self._rng.uniform(0, high, len(kept)) for high in (0.14, 2 * math.pi, 0.08, 2 * math.pi)]
        return np.column_stack([xy[kept], radius[kept], *shape])

    def _gland_depth(self) -> Field:
        depth = np.full(self._shape, -1e3, np.float32)
        for gland in self._glands:
            reach = 1.3 * gland[2]
            x0, y0 = (max(0, int(value)) for value in (gland[:2] - reach) / PITCH_UM)
            x1, y1 = (max(0, int(value) + 1) for value in (gland[:2] + reach) / PITCH_UM)
            part = depth[y0:y1, x0:x1]
            y, x = np.mgrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] * PITCH_UM + PITCH_UM / 2
            dx, dy = x - gland[0], y - gland[1]
            inside = _radius(gland, np.arctan2(dy, dx)) - np.hypot(dx, dy)
            np.maximum(part, np.minimum(inside, 0.5 * WALL_UM) if _is_solid(gland) else inside, out=part)
        return depth

    def _grow(self, limit: int | None) -> Nuclei:
        rng = self._rng
        kinds = [self._epithelial(), self._lymphocytes(), self._fibroblasts()]
        rank = np.concatenate([np.full(len(kind), index) for index, kind in enumerate(kinds)])
        columns = np.concatenate(kinds)
        within = self._at(self.tissue, columns[:, :2]) > 0.02
        columns, rank = columns[within], rank[within]
        kept = _apart(columns[:, :2], 0.86 * np.sqrt(columns[:, 2] * columns[:, 3]))
        columns, rank = columns[kept], rank[kept]
        if limit is not None and len(columns) > limit:
            chosen = np.sort(rng.choice(len(columns), limit, replace=False))
            columns, rank = columns[chosen], rank[chosen]
        order = np.argsort(columns[:, 1], kind="stable")
        columns, rank = columns[order], rank[order]
        chromatin = np.array([0.95, 1.55, 1.2])[rank] * rng.lognormal(0, 0.16, len(rank))
        coarse = np.array([0.8, 0.25, 0.4])[rank] * rng.uniform(0.5, 1.2, len(rank))
        return Nuclei(self._outlines(columns), chromatin.astype(np.float32), coarse.astype(np.float32))

    def _epithelial(self) -> npt.NDArray[np.float64]:
        """(n, 5): x, y, long and short half axis in µm, angle of the long axis."""
        rng, rows = self._rng, []
        for gland in self._glands:
            solid = _is_solid(gland)
            layers = np.arange(7, gland[2], 8.5) if solid else [7.5, 15.0][: 1 + int(rng.random() < 0.6)]
            for depth in layers:
                count = round(2 * math.pi * (gland[2] - depth) / 7.0 * rng.uniform(0.75, 1))
                angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * math.pi / max(count, 1)
                reach = _radius(gland, angle) - depth - rng.normal(0, 1.2, count)
                x, y = gland[0] + reach * np.cos(angle), gland[1] + reach * np.sin(angle)
                tilt = rng.uniform(0, math.pi, count) if solid else angle + rng.normal(0, 0.2, count)
                size = rng.lognormal(0, 0.1, count)
                rows.append(np.column_stack([x, y, 4.5 * size, rng.uniform(2.8, 3.5, count) * size, tilt]))
        return np.concatenate(rows) if rows else np.empty((0, 5))

    def _lymphocytes(self) -> npt.NDArray[np.float64]:
        xy = np.concatenate([self._uniform(14000), self._uniform(150)])
        crowded = np.arange(len(xy)) < len(xy) * 14000 / 14150
        xy = xy[(self._at(self.depth, xy) < -4) & (~crowded | (self._at(self.lymph, xy) > 0))]
        radius = self._rng.uniform(2.7, 3.4, len(xy))
        ratio = self._rng.uniform(0.85, 1, len(xy))
        return np.column_stack([xy, radius, radius * ratio, self._rng.uniform(0, math.pi, len(xy))])

    def _fibroblasts(self) -> npt.NDArray[np.float64]:
        xy = self._uniform(1500)
        xy = xy[self._at(self.depth, xy) < -4]
        along = np.gradient(self.warp_y / PITCH_UM)
        # fibres run along y + warp_y = constant
        tilt = np.arctan2(-self._at(along[1], xy), 1 + self._at(along[0], xy)) + self._rng.normal(0, 0.2, len(xy))
        count = len(xy)
        long, short = self._rng.uniform(4.2, 6.2, count), self._rng.uniform(1.5, 2.4, count)
        return np.column_stack([xy, long, short, tilt])

    def _outlines(self, columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        x, y, long, short, tilt = (column[:, np.newaxis] for column in columns.T)
        angle = np.linspace(0, 2 * math.pi, OUTLINE_POINTS, endpoint=False)[np.newaxis]
        bumps = np.ones((len(columns), OUTLINE_POINTS))
        for harmonic, amplitude in ((2, 0.05), (3, 0.06), (4, 0.035), (5, 0.02)):
            phase = self._rng.uniform(0, 2 * math.pi, (len(columns), 1))
            bumps += self._rng.normal(0, amplitude, (len(columns), 1)) * np.cos(harmonic * angle + phase)
        u, v = long * bumps * np.cos(angle), short * bumps * np.sin(angle)
        v += self._rng.normal(0, 0.12, (len(columns), 1)) * (u**2 / long - long / 2)  # some are beans
        outline = [x + u * np.cos(tilt) - v * np.sin(tilt), y + u * np.sin(tilt) + v * np.cos(tilt)]
        return np.stack(outline, -1).astype(np.float32)


def _is_solid(gland: npt.NDArray[np.float64]) -> bool:
    """Whether a gland is too small to have a lumen."""
    return bool(gland[2] < 1.6 * WALL_UM)


def _radius(gland: npt.NDArray[np.float64], angle: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Distance of a gland's border from its centre, µm, in direction `angle`."""
    _, _, radius, second, phase2, third, phase3 = gland
    waves = second * np.cos(2 * angle + phase2) + third * np.cos(3 * angle + phase3)
    return np.asarray(radius * (1 + waves))


def _apart(xy: npt.NDArray[Any], radius: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Indices of points, first come first kept, whose discs of the given radii do not overlap."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(xy), bool)
    if len(xy) > 1:
        pairs = cKDTree(xy).query_pairs(2 * float(radius.max()), output_type="ndarray")
        close = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T) < radius[pairs[:, 0]] + radius[pairs[:, 1]]
        pairs = np.sort(pairs[close], axis=1)
        for first, second in pairs[np.lexsort(pairs.T[::-1])].tolist():
            if kept[first]:
                kept[second] = False
    return np.flatnonzero(kept)
