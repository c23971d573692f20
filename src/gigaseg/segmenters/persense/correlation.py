"""Density maps without training: correlation with the exemplars, on pixels or on SAM's features.

Each place where a picture looks like an exemplar becomes a Gaussian of mass 1, so that a map's sum is its count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import Density, Exemplar, Picture, Scene

SCALES = (0.8, 1.0, 1.25)
"""Sizes in which an exemplar is looked for."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussians in sides of an exemplar: neighbours that touch keep peaks of their own."""

MARGIN = 0.1
"""Surroundings of an exemplar that its template takes in on each side, in sides."""

WINDOW = 0.6
"""Side of the window in which a peak is the greatest, in sides of an exemplar."""

GRID = 3
"""Points along a side of an exemplar at which features are compared."""

SMOOTH = 0.15
"""Standard deviation by which cosines are smoothed, in sides of an exemplar."""

CONTRAST = 0.25
"""Least deviation of grey levels in a place, in that of the template: correlation knows no amplitude, and noise on an
empty ground would look like anything."""


LEAST = 0.3
"""Likeness from which on a place counts as an object."""


FLAT = 1.0
"""Deviation of grey levels below which an exemplar shows nothing to look for."""


class NccDensity:
    """Zero-mean normalised cross-correlation of grey levels.

    Parameters
    ----------
    least : correlation that a peak must exceed; more exemplars need a higher one, as the best of more templates counts.
    """

    name = "ncc"
    needs_weights = False
    deterministic = True

    def __init__(self, least: float = 0.6) -> None:
        self._least = least

    def density(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Density:
        """A Gaussian for each peak of the correlation with the exemplars, turned, mirrored and scaled."""
        best = np.full(scene.shape, -1, np.float32)
        grey = _grey(scene.rgb)
        for exemplar in exemplars:
            for template in templates(exemplar):
                np.maximum(best, correlate(grey, template), out=best)
        return gaussians(best, exemplars, self._least)

    def lone(self, exemplars: Sequence[Exemplar]) -> float:
        """Middle of a Gaussian."""
        return _middle(exemplars)


class FeatureDensity:
    """A Gaussian for each peak of `likeness`.

    Parameters
    ----------
    least : likeness that a peak must exceed.
    """

    name = "sam features"
    needs_weights = False
    deterministic = True

    def __init__(self, least: float = LEAST) -> None:
        self._least = least

    def density(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Density:
        """Density of what looks like the exemplars to SAM."""
        return gaussians(likeness(scene, exemplars), exemplars, self._least)

    def lone(self, exemplars: Sequence[Exemplar]) -> float:
        """Middle of a Gaussian."""
        return _middle(exemplars)


@torch.inference_mode()
def likeness(scene: Scene, exemplars: Sequence[Exemplar]) -> npt.NDArray[np.float32]:
    """Cosine between SAM's features on a grid over an exemplar and those on the same grid anywhere else, (h, w).

    Features are decorrelated first, by mean and covariance of the exemplars' picture (Hariharan et al. 2012, eq. 4, for
    gradients): SAM's have most of their length in common. On 46 training images of the 2018 Data Science Bowl the F1 of
    points at its peaks is 0.80 so, 0.69 with the mean taken off alone. Of all exemplars, turned and mirrored, the best.
    """
    known = exemplars[0].scene.features
    if scene.features is None or known is None:
        raise SegmenterError("likeness needs SAM's features of the picture and of the exemplar's")
    there = exemplars[0].scene.decorrelated(known)
    here = exemplars[0].scene.decorrelated(scene.features)
    best = np.full(scene.shape, -1, np.float32)
    for exemplar in exemplars:
        np.maximum(best, _cosines(here, there, scene.shape, exemplar), out=best)
    side = float(np.mean([exemplar.side for exemplar in exemplars]))
    # cells leave ripples
    smooth = cv2.GaussianBlur(best, (0, 0), max(0.5, SMOOTH * side), borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth, np.float32)


def _cosines(features: Tensor, known: Tensor, shape: tuple[int, int], exemplar: Exemplar) -> npt.NDArray[np.float32]:
    """Greatest cosine over the eight turned and mirrored grids, at the size of the picture."""
    box = torch.from_numpy(exemplar.box).float()
    steps = (torch.arange(GRID) + 0.5) / GRID - 0.5
    size = box[2:] - box[:2]
    offsets = torch.stack(torch.meshgrid(steps * size[1], steps * size[0], indexing="ij"), -1).flip(-1)  # x, y
    vectors = _sampled(known, (box[:2] + box[2:]) / 2 + offsets, exemplar.scene.shape)  # (C, g, g)
    rows, cols = features.shape[1:]
    height, width = shape
    y, x = ((torch.arange(n) + 0.5) * side / n for n, side in ((rows, height), (cols, width)))
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flip(-1)
    # what lies on the grid around each cell: (C, g g, rows, cols)
    around = torch.stack([_sampled(features, places + offset, shape) for offset in offsets.flatten(0, 1)], 1)
    norm = around.square().sum((0, 1)).sqrt().clamp(min=1e-6) * vectors.norm().clamp(min=1e-6)
    turned = torch.stack([one.flatten(1) for one in _symmetries(vectors)])  # (8, C, g g)
    best = torch.einsum("cghw,scg->shw", around, turned).amax(0) / norm
    resized = F.interpolate(best[None, None], shape, mode="bicubic", align_corners=False)[0, 0]
    return np.asarray(resized.cpu(), np.float32)


def templates(exemplar: Exemplar) -> Iterator[npt.NDArray[np.float32]]:
    """An exemplar's grey levels with a margin, turned and mirrored in eight ways, in each of `SCALES`."""
    grey = _grey(exemplar.scene.rgb)
    height, width = grey.shape
    x0, y0, x1, y1 = exemplar.box
    reach = MARGIN * exemplar.side
    left, top = max(0, int(x0 - reach)), max(0, int(y0 - reach))
    crop = grey[top : min(height, int(np.ceil(y1 + reach))), left : min(width, int(np.ceil(x1 + reach)))]
    for scale in SCALES:
        size = tuple(max(3, round(side * scale)) for side in (crop.shape[1], crop.shape[0]))
        resized = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        for turns in range(4):
            turned = np.rot90(resized, turns)
            yield np.ascontiguousarray(turned, np.float32)
            yield np.ascontiguousarray(turned[:, ::-1], np.float32)


def correlate(grey: npt.NDArray[np.float32], template: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Normalised cross-correlation with the template's middle at each pixel, (h, w); -1 where there is no contrast.

    That is everywhere where the template has none itself.

    Beyond the border the picture is mirrored.
    """
    if template.std() < FLAT:
        return np.full(grey.shape, -1, np.float32)
    th, tw = template.shape
    top, left = th // 2, tw // 2
    padded = cv2.copyMakeBorder(grey, top, th - 1 - top, left, tw - 1 - left, cv2.BORDER_REFLECT_101)
    found = np.asarray(cv2.matchTemplate(padded, template, cv2.TM_CCOEFF_NORMED), np.float32)
    mean = cv2.blur(padded, (tw, th))
    spread = cv2.blur(padded * padded, (tw, th)) - mean * mean
    inside = spread[top : top + found.shape[0], left : left + found.shape[1]]
    found[inside < (CONTRAST * template.std()) ** 2] = -1
    return found


def _deviation(side: float) -> float:
    """Standard deviation of an object's Gaussian, px; one below 0.7 does not outlive IDM's erosion."""
    return max(SIGMA * side, 0.75)


def _middle(exemplars: Sequence[Exemplar]) -> float:
    side = float(np.mean([exemplar.side for exemplar in exemplars]))
    return 1 / (math.tau * _deviation(side) ** 2)


def gaussians(values: npt.NDArray[np.float32], exemplars: Sequence[Exemplar], least: float) -> Density:
    """A Gaussian of mass 1 at each peak above `least`, as wide as suits the exemplars."""
    side = float(np.mean([exemplar.side for exemplar in exemplars]))
    xy = peaks(values, WINDOW * side, least)
    return Density(scattered(xy, values.shape, _deviation(side)), float(len(xy)))


def peaks(values: npt.NDArray[np.float32], window: float, least: float = -np.inf) -> npt.NDArray[np.float64]:
    """Places of the local maxima of a map: (n, 2) x, y, pixel corners at integers, row by row.

    Parameters
    ----------
    values : (h, w).
    window : side of the square in which a peak is the greatest, px; a plateau counts once, in its middle.
    least : what a peak must exceed.
    """
    side = max(3, 2 * int(window / 2) + 1)
    highest = cv2.dilate(values, np.ones((side, side), np.uint8))
    top = ((values == highest) & (values > least)).astype(np.uint8)
    count, _, _, centres = cv2.connectedComponentsWithStats(top, connectivity=8)
    return np.asarray(centres[1:count], np.float64).reshape(-1, 2) + 0.5


def scattered(xy: npt.NDArray[np.float64], shape: tuple[int, ...], sigma: float) -> npt.NDArray[np.float32]:
    """Gaussians of mass 1 at places x, y: (h, w); mass beyond the border is mirrored back."""
    height, width = shape[:2]
    ones = np.zeros((height, width), np.float32)
    cols, rows = (np.clip(np.floor(xy[:, k]).astype(int), 0, n - 1) for k, n in ((0, width), (1, height)))
    np.add.at(ones, (rows, cols), 1)
    sigma = max(sigma, 0.5)
    size = 2 * int(np.ceil(4 * sigma)) + 1
    return np.asarray(cv2.GaussianBlur(ones, (size, size), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def _grey(rgb: Picture) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def _sampled(features: Tensor, xy: Tensor, shape: tuple[int, int]) -> Tensor:
    """Features (C, gh, gw) at places (…, 2) of a picture, (C, …); beyond its border those at the border."""
    height, width = shape
    grid = xy.to(features.device) / torch.tensor([width, height], device=features.device) * 2 - 1
    return F.grid_sample(
        features[None], grid[None].to(features.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def _symmetries(vectors: Tensor) -> Iterator[Tensor]:
    """(C, g, g) turned and mirrored in eight ways."""
    for turns in range(4):
        turned = torch.rot90(vectors, turns, (1, 2))
        yield turned
        yield turned.flip(2)
