"""The weight-free baseline for nuclei: signal, local threshold, markers, watershed.

Every step looks at a neighbourhood of a few object diameters and at limits that are fixed for the slide, never at
the tile as a whole, so that two tiles agree where they overlap and an empty tile yields nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.base import Context, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.regions import crops
from gigaseg.slides.base import BRIGHTFIELD, FLUORESCENCE, RASTER

_Image = npt.NDArray[np.floating[Any]]
_Labels = npt.NDArray[np.int32]

STAINS = {"haematoxylin": (1.8780, -0.0659, -0.6019), "any": (1.0, 0.0, 0.0)}
"""Weights of the optical densities of red, green, blue. Haematoxylin beside eosin and DAB: first column of the inverse
of the stain matrix of Ruifrok and Johnston (Anal Quant Cytol Histol 23, 2001). Any: red, which eosin hardly absorbs."""

_DENSITY = -np.log10((np.maximum(np.arange(256, dtype=np.float32), 15) + 1) / 256)
"""Optical density of each uint8 value; below 15 lies the sensor's noise, and black is no stain."""

WINDOW = 0.85
"""Radius, in diameters, of each of the two box filters of a local mean: a nucleus must see its surroundings."""

ITERATIONS = 2
"""Steps of the local threshold; later ones change it little."""

SMOOTHING = 0.02
"""Standard deviation, in diameters, of the Gaussian before the threshold: against noise."""

HOLE = 0.6
"""A hole smaller than this share of a typical nucleus is filled: pale chromatin."""

BLOB, BLOB_RANGE = 0.28, 0.06
"""Scale of the blob filter in diameters, and the response (in signal) that counts in full."""


class Shape(NamedTuple):
    """How masks become nuclei, tuned for each kind of image on the training images of the 2018 Data Science Bowl.

    Attributes
    ----------
    level : where between its surroundings (0) and its middle (1) a nucleus ends.
    opening : radius of the opening that cuts threads, in diameters.
    rounding : standard deviation of the Gaussian over the distance to the rim, in diameters.
    blob : weight of the blob filter beside the distance (in radii): chromatin makes stained nuclei distinct,
        fluorescent ones differ in brightness too much.
    """

    level: float
    opening: float
    rounding: float
    blob: float


STAINED, FLUORESCENT = Shape(0.5, 0.06, 0.06, 0.3), Shape(0.45, 0.06, 0.06, 0.0)


@dataclass(frozen=True)
class Settings:
    """What `find_nuclei` needs beside the pixels; signal is optical density (log10), or brightness 0..1.

    Attributes
    ----------
    stain : weights of the optical densities of red, green, blue; None: fluorescence, bright objects on dark.
    diameter, smallest, largest : typical, least and greatest diameter of a nucleus, px.
    contrast, floor : signal by which a nucleus exceeds its surroundings, and that it has at least.
    spacing : radius in diameters within which only one marker lies.
    solidity : least area over that of the convex hull.
    shape : see `Shape`.
    """

    stain: tuple[float, float, float] | None
    diameter: float
    smallest: float
    largest: float
    contrast: float
    floor: float
    spacing: float
    solidity: float
    shape: Shape


class Watershed:
    """The segmenter `watershed` (see its card for the options)."""

    card: Card

    def __init__(self, card: Card, context: Context) -> None:
        self.card = card
        self._settings = settings(card, context)
        self._see_whole = context.tiling.overlap >= self._settings.largest

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile; an object that the tile's border cuts stays."""
        return [self._tile(image) for image in batch.images.permute(0, 2, 3, 1).cpu().numpy()]

    def _tile(self, image: npt.NDArray[np.uint8]) -> TileInstances:
        import torch

        labels, scores = find_nuclei(image, self._settings, whole=self._see_whole)
        boxes, masks = crops(labels)
        n = len(boxes)
        return TileInstances(
            boxes=torch.from_numpy(boxes),
            masks=masks,
            scores=torch.from_numpy(scores),
            class_prob=torch.ones((n, 1), dtype=torch.float32),
        )


def settings(card: Card, context: Context) -> Settings:
    """Options of the card in µm as pixels of the tiles.

    Raises
    ------
    SegmenterError
        The slide is a raster, or the options contradict each other.
    """
    if context.info.kind == RASTER:
        raise SegmenterError(
            f"segmenter 'watershed' finds nuclei; slide '{context.info.slide}' is a raster; "
            f"accepted: {BRIGHTFIELD}, {FLUORESCENCE}"
        )
    options = card.complete(context.options)
    low, typical, high = (options[f"{name}diameter_um"] for name in ("min_", "", "max_"))
    if context.object_diameter is not None:  # stands for diameter_um, and the limits go with it
        low, typical, high = (value * context.object_diameter / typical for value in (low, typical, high))
    if not 0 < low < typical < high:
        raise SegmenterError(
            f"segmenter 'watershed': min_diameter_um {low}, diameter_um {typical}, max_diameter_um {high}; "
            "accepted: 0 < min < typical < max"
        )
    tiling = context.tiling
    if tiling.unit == "um":
        scale = 1 / math.sqrt(tiling.pixel_size[0] * tiling.pixel_size[1])
    else:
        # without a pixel size a nucleus has the size that the card names
        scale = float(card.object_diameter or typical) / float(card.options["diameter_um"].default)
    fluorescence = context.info.kind == FLUORESCENCE
    kind = "fluorescence" if fluorescence else "stain"
    return Settings(
        stain=None if fluorescence else STAINS[options["stain"]],
        diameter=typical * scale,
        smallest=low * scale,
        largest=high * scale,
        contrast=options[f"{kind}_contrast"],
        floor=options[f"{kind}_floor"],
        spacing=options["spacing"],
        solidity=options["min_solidity"],
        shape=FLUORESCENT if fluorescence else STAINED,
    )


def find_nuclei(
    image: npt.NDArray[np.uint8], settings: Settings, *, whole: bool = True
) -> tuple[_Labels, npt.NDArray[np.float32]]:
    """Segment the nuclei of one image.

    Parameters
    ----------
    image : (h, w, 3) uint8 RGB.
    settings : see `Settings`.
    whole : objects at the image's border must reach the least size as well, because another tile sees them whole.

    Returns
    -------
    labels : (h, w) int32, 0 background, 1..n.
    scores : (n,) float32 in [0, 1]: solidity times c / (c + 2 `contrast`), with c the mean signal above what
        surrounds the nucleus.
    """
    signal = _signal(image, settings)
    mask, background = _mask(signal, settings)
    labels = _split(mask, signal, settings)
    return _select(labels, signal, background, settings, whole)


def _signal(image: npt.NDArray[np.uint8], settings: Settings) -> _Image:
    """(h, w) float32, high in nuclei: brightness 0..1, or optical density of the nuclear stain (0 to about 1.5)."""
    if settings.stain is None:
        return np.asarray(image.max(axis=2), np.float32) / 255
    red, green, blue = (
        _DENSITY[image[..., channel]] * np.float32(weight) for channel, weight in enumerate(settings.stain)
    )
    return np.asarray(red + green + blue)


def _mask(signal: _Image, settings: Settings) -> tuple[npt.NDArray[np.bool_], _Image]:
    """Where there are nuclei, and the local signal of what is none.

    The threshold is found by iterating between the means of both classes (Ridler and Calvard, IEEE Trans. SMC 8,
    1978; there halfway, here at `Shape.level`), at each pixel from its neighbourhood.
    """
    import cv2

    diameter = settings.diameter
    smooth = cv2.GaussianBlur(signal, (0, 0), max(SMOOTHING * diameter, 0.4))
    mean = _local_mean(smooth, diameter)
    above = (smooth > mean).astype(np.float32)
    background = threshold = mean
    for _ in range(ITERATIONS):
        share = _local_mean(above, diameter)
        total = _local_mean(above * smooth, diameter)
        # a hundredth of the neighbourhood counts to both classes: a class that is absent has the mean
        objects = (total + 0.01 * mean) / (share + 0.01)
        background = (mean - total + 0.01 * mean) / (1.01 - share)
        threshold = background + np.float32(settings.shape.level) * (objects - background)
        above = (smooth > threshold).astype(np.float32)
    threshold = np.maximum(np.maximum(threshold, background + settings.contrast), settings.floor)
    mask = (smooth > threshold).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(settings.shape.opening * diameter))
    # small holes are pale chromatin
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < HOLE * _disc_area(diameter)
    return (mask > 0) | small[labels], np.asarray(background, np.float32)


def _split(mask: npt.NDArray[np.bool_], signal: _Image, settings: Settings) -> _Labels:
    """Watershed of `mask` from markers, (h, w) int32.

    Markers are the local maxima of the distance to the rim in radii plus, for stains, a difference of Gaussians of the
    signal (the usual approximation of LoG), so that both shape and darkness tell nuclei apart.
    """
    import cv2
    from skimage.segmentation import watershed

    diameter = settings.diameter
    # beyond the tile the object goes on
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    distance = np.minimum(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], 2 * diameter)
    rounded = cv2.GaussianBlur(distance, (0, 0), max(settings.shape.rounding * diameter, 0.5))
    relief = np.asarray(rounded / (diameter / 2), np.float32)
    if settings.shape.blob:
        narrow, wide = (cv2.GaussianBlur(signal, (0, 0), BLOB * k * diameter) for k in (1.0, 1.6))
        relief += np.float32(settings.shape.blob) * ((narrow - wide) / BLOB_RANGE).clip(-1, 1)
    relief[~mask] = -9
    summit = mask & (relief >= cv2.dilate(relief, _disc(settings.spacing * diameter)))
    _, markers = cv2.connectedComponents(summit.astype(np.uint8), connectivity=8)
    # integer levels make the flooding fast and independent of rounding
    levels = np.round(relief * -32).astype(np.int16)
    return np.asarray(watershed(levels, markers, mask=mask), np.int32)  # type: ignore[no-untyped-call]


def _select(
    labels: _Labels, signal: _Image, background: _Image, settings: Settings, whole: bool
) -> tuple[_Labels, npt.NDArray[np.float32]]:
    """Drop what is too small, too large or too ragged; number and score the rest."""
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    least = np.full(count, _disc_area(settings.smallest))
    if not whole:
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        least[rim] /= 4
    number, kept = _renumber((area >= least) & (area <= _disc_area(settings.largest)))
    labels, area = number[labels], area[kept]
    solidity = _solidity(labels, area)
    number, kept = _renumber(np.concatenate([[False], solidity >= settings.solidity]))
    labels, area, solidity = number[labels], area[kept - 1], solidity[kept - 1]
    excess = np.bincount(labels.ravel(), weights=(signal - background).ravel(), minlength=len(kept) + 1)[1:]
    contrast = (excess / area).clip(0)
    score = contrast / (contrast + 2 * settings.contrast) * solidity
    return labels, score.clip(0, 1).astype(np.float32)


def _renumber(chosen: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """New number of each label (0 for those not chosen and the background), and the chosen labels in order."""
    chosen[0] = False
    kept = np.flatnonzero(chosen)
    number = np.zeros(len(chosen), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number, kept


def _solidity(labels: _Labels, area: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Area of each label over that of its convex hull, (n,)."""
    import cv2
    from scipy import ndimage

    hull = np.ones_like(area)
    for index, box in enumerate(ndimage.find_objects(labels)):
        part = (labels[box] == index + 1).astype(np.uint8)
        outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = cv2.convexHull(np.concatenate(outlines))
        # the contour runs through pixel centres: half a pixel is missing all around
        hull[index] = cv2.contourArea(points) + cv2.arcLength(points, True) / 2 + 1
    return np.minimum(area / hull, 1)


def _local_mean(values: npt.NDArray[Any], diameter: float) -> _Image:
    """Mean with weights that fall linearly to 0 at `2 * WINDOW` diameters (two box filters)."""
    import cv2

    side = 2 * round(WINDOW * diameter) + 1
    return np.asarray(cv2.blur(cv2.blur(values, (side, side)), (side, side)), np.float32)


def _disc(radius: float) -> npt.NDArray[np.uint8]:
    import cv2

    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _disc_area(diameter: float) -> float:
    return math.pi / 4 * diameter**2
