"""PerSense's density by a regressor: the picture is scaled until the exemplars have the size that the net knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.segmenters.persense.base import Density, Exemplar, Picture, Scene
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DensityNet
from gigaseg.slides.resample import resample

if TYPE_CHECKING:
    from gigaseg.segmenters.persense.checkpoint import Loaded

SCALES = (0.125, 4.0)
"""Least and greatest factor by which a picture is scaled."""

CALIBRATION = 2.0
"""Greatest factor of a calibration: an exemplar of less mass was not seen, one of more has neighbours in its box."""

TILE = 1536
"""Side of what the net sees at once, px; larger pictures are seen in tiles, which bounds the memory."""


class RegressedDensity:
    """A density generator; it needs of the exemplars only their size.

    Parameters
    ----------
    net : in evaluation mode.
    config : its sizes.
    name : of the weights.
    dtype : of its convolutions; float32 on a CPU.
    calibrated : divide by the mean mass in the boxes of the scene's own exemplars, as CounTR does.
    tile : side of what the net sees at once, px. With batch norm, the tiles' seams do not show.
    """

    needs_weights = True
    deterministic = True

    def __init__(
        self,
        net: DensityNet,
        config: DensityConfig,
        name: str = "of no name",
        dtype: torch.dtype = torch.float32,
        *,
        calibrated: bool = False,
        tile: int = TILE,
    ) -> None:
        self.name = f"density regressor {name}"
        self.net, self.config, self.dtype, self.calibrated = net, config, dtype, calibrated
        self.tile = max(tile // net.multiple * net.multiple, 2 * net.reach + net.multiple)

    @classmethod
    def of(cls, loaded: Loaded, *, calibrated: bool = False) -> RegressedDensity:
        """Of a checkpoint that has one; raises ValueError for SAM alone."""
        if loaded.density is None or loaded.config is None:
            raise ValueError("the checkpoint is one of SAM alone; expected one with a density regressor")
        name = str(loaded.card.get("name", "of no name"))
        return cls(loaded.density, loaded.config, name, loaded.backend.dtype, calibrated=calibrated)

    def density(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Density:
        """As `DensityGenerator.density`; raises ValueError without an exemplar."""
        if not exemplars:
            raise ValueError("no exemplar; expected at least one, whose size tells the scale")
        found = self.at(scene.rgb, self._factor(exemplars))
        mine = [e.box for e in exemplars if e.scene is scene] if self.calibrated else []
        if not mine:
            return found
        mass = float(np.clip(np.mean([_mass(found.map, box) for box in mine]), 1 / CALIBRATION, CALIBRATION))
        return Density(found.map / np.float32(mass), found.count / mass)

    def at(self, rgb: Picture, factor: float) -> Density:
        """Density of a picture that is scaled by a factor, within `SCALES`, for the net to see it."""
        height, width = rgb.shape[:2]
        factor = min(max(factor, SCALES[0]), SCALES[1])
        seen = Shape2d(*(max(1, round(side * factor)) for side in (height, width)))
        whole = Bounds(0, 0, width, height)
        small = rgb if seen == (height, width) else resample(rgb, whole, seen)
        cells, r = self._cells(np.ascontiguousarray(small)), self.net.reduction
        count = float(cells.sum(dtype=np.float64))
        back = resample(cells[..., None], Bounds(0, 0, seen.width / r, seen.height / r), Shape2d(height, width))[..., 0]
        # interpolation keeps the mass up to a factor, and to what happens at the borders
        back *= np.float32(count / max(float(back.sum(dtype=np.float64)), 1e-30))
        return Density(back, count)

    def _factor(self, exemplars: Sequence[Exemplar]) -> float:
        """What a picture is scaled by."""
        diameter = np.mean([math.sqrt(4 * e.area / math.pi) if e.area > 0 else e.side for e in exemplars])
        return self.config.diameter / max(float(diameter), 1e-6)

    def lone(self, exemplars: Sequence[Exemplar]) -> float:
        """Density at the middle of a Gaussian that the net was trained on."""
        return self.lone_at(self._factor(exemplars))

    def lone_at(self, factor: float) -> float:
        """The same in a picture that is scaled by a factor."""
        return min(max(factor, SCALES[0]), SCALES[1]) ** 2 / (math.tau * self.config.sigma**2)

    def _cells(self, rgb: Picture) -> npt.NDArray[np.float32]:
        """Objects a cell (h, w) of a picture in the net's scale."""
        r, margin = self.net.reduction, self.net.reach
        height, width = (-(-side // r) for side in rgb.shape[:2])
        found = np.empty((height, width), np.float32)
        for y0, y1, top, bottom in _spans(rgb.shape[0], self.tile, margin):
            for x0, x1, left, right in _spans(rgb.shape[1], self.tile, margin):
                part = self._run(rgb[y0:y1, x0:x1])
                own = part[(top - y0) // r : -(-(bottom - y0) // r), (left - x0) // r : -(-(right - x0) // r)]
                found[top // r : -(-bottom // r), left // r : -(-right // r)] = own
        return found

    def _run(self, rgb: Picture) -> npt.NDArray[np.float32]:
        height, width = rgb.shape[:2]
        r = self.net.reduction
        device = next(self.net.parameters()).device
        images = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].to(device).float()
        down, right = (-side % self.net.multiple for side in (height, width))
        with torch.inference_mode(), torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            maps = self.net(F.pad(images, (0, right, 0, down), mode="replicate"))
        return np.asarray((maps[0, : -(-height // r), : -(-width // r)].float() * self.net.unit).cpu().numpy())


def _spans(side: int, tile: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Begin and end of tiles along a side, and of the part that is theirs; begins are multiples of the net's cells."""
    if side <= tile:
        return [(0, side, 0, side)]
    step = tile - 2 * margin
    spans = []
    for begin in range(0, side - 2 * margin, step):
        end = min(begin + tile, side)
        spans.append((begin, end, begin + margin if begin else 0, end - margin if end < side else side))
    return spans


def _mass(density: npt.NDArray[np.float32], box: npt.NDArray[np.float64]) -> float:
    """Mass in a box, whose borders are rounded to whole px, one at least."""
    x0, y0 = (int(v) for v in np.floor(box[:2]))
    x1, y1 = (int(v) for v in np.ceil(box[2:]))
    return float(density[max(y0, 0) : max(y1, y0 + 1), max(x0, 0) : max(x1, x0 + 1)].sum(dtype=np.float64))
