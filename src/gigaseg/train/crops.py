"""Crops of a fixed size at a chosen object scale: the geometric half of augmentation.

One affine map per crop (scale, rotation, reflection, place), applied by `torch.nn.functional.grid_sample`: bilinear for
the image, nearest for the labels, after averaging down where the map shrinks (else thin objects alias away).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.errors import FormatError
from gigaseg.train.data import Sample


@dataclass(frozen=True)
class Crop:
    """A crop and its objects.

    Attributes
    ----------
    image : (3, s, s) float32, 0..255.
    labels : (s, s) int32, 0 is background; ids need not be consecutive.
    ids : (n,) int32, ids of the objects, ascending.
    area : (n,) int64, px.
    boxes : (n, 4) float32, tight, half-open: xmin, ymin, xmax, ymax in crop px.
    centres : (n, 2) float32, x, y of the innermost pixel's centre (largest distance to anything
        else; of several the one nearest to the centroid).
    inside : (n, 2) float32, x, y of the centre of a random pixel of the object.
    classes : (n,) int64, index of the object's class.
    """

    image: Tensor
    labels: Tensor
    ids: Tensor
    area: Tensor
    boxes: Tensor
    centres: Tensor
    inside: Tensor
    classes: Tensor

    def __getitem__(self, rows: Tensor) -> Crop:
        """The same crop with some of the objects listed, by a boolean mask or ascending positions."""
        names = ("ids", "area", "boxes", "centres", "inside", "classes")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def affine(scale: float, angle: float, flip: bool, centre: tuple[float, float], size: int) -> np.ndarray:
    """Map from crop px to image px as a (2, 3) matrix: x_image = M · (x_crop, 1).

    The crop's middle (size / 2, size / 2) lands on `centre` (x, y); one crop px is 1 / `scale` image px; `angle` in
    radians turns the image clockwise on the screen by -angle; `flip` mirrors x before that.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    return np.column_stack([turn, np.asarray(centre) - turn @ np.full(2, size / 2)])


def whole_affine(shape: tuple[int, int], side: int) -> np.ndarray:
    """The map of CenterNet's letterbox, from px of a square to image px: the image fills it and lies in its middle.

    Parameters
    ----------
    shape : height and width of the image, px.
    side : of the square, px (or cells of the detector's grid on it).

    Returns
    -------
    (2, 3), without rotation: pixel corners are at integers in both frames.
    """
    height, width = shape
    return affine(side / max(shape), 0.0, False, (width / 2, height / 2), side)


def sample_affine(image: np.ndarray, matrix: np.ndarray, size: int, *, fill: np.ndarray, nearest: bool) -> Tensor:
    """Resample an image through `matrix`.

    Parameters
    ----------
    image : (y, x, c) uint8 or (y, x) int32 with `nearest`.
    matrix : (2, 3), crop px to image px, as `affine` makes.
    size : side of the crop, px.
    fill : (c,) value outside the image.

    Returns
    -------
    (c, size, size) float32.
    """
    array = image if image.ndim == 3 else image[..., None]
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], dtype=float)
    shrink = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    pool = 1 if nearest else max(1, round(shrink))
    margin = 2 * pool
    low = np.maximum(np.floor(corners.min(axis=1)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(corners.max(axis=1)).astype(int) + margin, array.shape[1::-1])
    high = low + (high - low) // pool * pool
    outside = torch.from_numpy(np.ascontiguousarray(fill, dtype=np.float32)).view(-1, 1, 1)
    if (high <= low).any():
        return outside.expand(-1, size, size).clone()
    part = torch.from_numpy(array[low[1] : high[1], low[0] : high[0]].copy())
    part = part.permute(2, 0, 1).float() - outside  # so that zeros beyond the border mean the fill
    part = part[None] if pool == 1 else F.avg_pool2d(part[None], pool)
    width, height = (high - low).tolist()
    # crop px -> normalised coordinates of the window, -1..1 from corner to corner
    to_window = np.array([[2 / width, 0, -1 - 2 * low[0] / width], [0, 2 / height, -1 - 2 * low[1] / height]])
    full = to_window @ np.vstack([matrix, [0, 0, 1]])
    half = np.array([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1]])
    theta = torch.from_numpy(full @ half).float()[None]
    grid = F.affine_grid(theta, [1, part.shape[1], size, size], align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(part, grid, mode=mode, padding_mode="zeros", align_corners=False)[0] + outside


def crop(
    sample: Sample,
    matrix: np.ndarray,
    size: int,
    rng: np.random.Generator,
    min_area: int = 12,
    classes: Sequence[str] = (),
) -> Crop:
    """Cut one crop through `matrix`.

    Parameters
    ----------
    matrix : (2, 3), crop px to image px, as `affine` makes.
    size : side of the crop, px.
    rng : draws the inside points.
    min_area : px; objects of which the crop shows less stay in its labels, but are not listed.
    classes : the names that classes of objects are indices of; fewer than two: all objects have class 0.

    Raises FormatError when there are several, but the sample's objects have none.
    """
    image = sample_affine(sample.image, matrix, size, fill=sample.background, nearest=False)
    labels = sample_affine(sample.labels, matrix, size, fill=np.zeros(1), nearest=True)[0].to(torch.int32)
    found = objects_of(labels.numpy(), min_area, rng)
    indices = torch.zeros(len(found[0]), dtype=torch.int64)
    if len(classes) > 1:
        if sample.classes is None:
            raise FormatError(f"{sample.name}: its objects have no classes, accepted: {', '.join(classes)}")
        indices = torch.tensor([classes.index(sample.classes[i - 1]) for i in found[0].tolist()], dtype=torch.int64)
    return Crop(image, labels, *found, indices)


def objects_of(
    labels: np.ndarray, min_area: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The objects of a label image, (y, x) int32: ids, area, boxes, centres and inside, as `Crop` has them.

    Those of less than `min_area` px are left out.
    """
    from scipy.ndimage import distance_transform_edt

    size = labels.shape[1]
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    ids, start = np.unique(flat[order], return_index=True)
    area = np.diff(np.append(start, len(flat)))
    keep = (ids > 0) & (area >= min_area)
    if not keep.any():
        empty = torch.zeros(0)
        return empty.to(torch.int32), empty.long(), empty.view(0, 4), empty.view(0, 2), empty.view(0, 2)
    y, x = np.divmod(order, size)
    inside = np.ones(labels.shape, dtype=bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    inside[:, 1:] &= ~across
    inside[:, :-1] &= ~across
    inside[1:] &= ~down
    inside[:-1] &= ~down
    depth = distance_transform_edt(inside).ravel()[order]
    # of equally deep pixels the one nearest to the centroid
    for place in (x, y):
        depth -= 1e-5 * (place - np.repeat(np.add.reduceat(place, start) / area, area)) ** 2
    # ascending (object, depth): the last of an object's run is its innermost pixel
    run = np.repeat(np.arange(len(ids)), area)
    deepest = np.lexsort((depth, run))[start + area - 1]
    chosen = start + (rng.random(len(ids)) * area).astype(np.int64)
    boxes = np.column_stack(
        [
            np.minimum.reduceat(x, start),
            np.minimum.reduceat(y, start),
            np.maximum.reduceat(x, start) + 1,
            np.maximum.reduceat(y, start) + 1,
        ]
    )
    centres = np.column_stack([x[deepest], y[deepest]]) + 0.5
    inside_points = np.column_stack([x[chosen], y[chosen]]) + 0.5
    return (
        torch.from_numpy(ids[keep].astype(np.int32)),
        torch.from_numpy(area[keep]),
        torch.from_numpy(boxes[keep].astype(np.float32)),
        torch.from_numpy(centres[keep].astype(np.float32)),
        torch.from_numpy(inside_points[keep].astype(np.float32)),
    )


def random_crop(
    sample: Sample, size: int, rng: np.random.Generator, diameters: tuple[float, float], rotate: bool = True
) -> Crop:
    """A crop around a random instance (or a random place of an empty image), turned, mirrored and rescaled.

    The scale makes the image's median object diameter log-uniform in `diameters` (px of the crop), but never so small
    that the image covers less than 0.7 of the crop's side, nor beyond a factor of 8. Half of the turns are multiples
    of 90°, which do not blur.
    """
    return crop(sample, random_affine(sample, size, rng, diameters, rotate), size, rng)


def random_affine(
    sample: Sample, size: int, rng: np.random.Generator, diameters: tuple[float, float], rotate: bool = True
) -> np.ndarray:
    """The map of `random_crop`, from crop px to image px."""
    scale = math.exp(rng.uniform(math.log(diameters[0]), math.log(diameters[1])))
    scale = min(scale / sample.diameter, 8.0) if sample.diameter > 0 else 1.0
    scale = max(scale, 0.7 * size / max(sample.labels.shape))
    angle = math.tau * rng.random() if rotate and rng.random() < 0.5 else math.pi / 2 * rng.integers(4)
    height, width = sample.labels.shape
    centre = rng.random(2) * (width, height)
    if sample.diameter > 0 and rng.random() < 0.8:
        y, x = np.divmod(rng.choice(np.flatnonzero(sample.labels)), width)
        centre = np.array([x, y]) + rng.uniform(-0.4, 0.4, 2) * size / scale
    # keep the crop over the image as far as it fits
    half = size / scale / 2
    limits = ((half, width - half), (half, height - half))
    centre = np.array(
        [np.clip(c, low, high) if low <= high else (low + high) / 2 for c, (low, high) in zip(centre, limits)]
    )
    return affine(scale, angle, bool(rng.random() < 0.5), (centre[0], centre[1]), size)
