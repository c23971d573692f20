"""Any segmenter on an image in memory: scaled, cut into tiles, put together again.

For validation while training, for benchmarks and for notebooks; slides go through the workflow. Needs numpy, Pillow and
torch alone, so that it runs where a model trains. Where tiles overlap it follows the rule of `gigaseg.stitch` (two
instances are one object when they agree inside the area that both tiles saw) on pixels instead of outlines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SegmenterError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.segmenters.base import Segmenter, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.slides.resample import resample
from gigaseg.tiles.tiling import Tile, Tiling

if TYPE_CHECKING:
    from collections.abc import Sequence

_Mask = npt.NDArray[np.bool_]
_Labels = npt.NDArray[np.int32]
_Image = npt.NDArray[np.uint8]

STEP = 128
"""Tiles of small images shrink to a multiple of this, px: every model takes it."""

AGREEMENT = 0.5
"""Least agreement of two instances that are one object, as `stitch.agreement` in config.yaml."""

LOOKS, LOOK_AGAIN = 3, 1.2
"""Most looks that `estimate_diameter` takes; a further one only when objects differ from the nominal diameter by more
than this factor. Chosen, like the weights of its median, on the training images of the 2018 Data Science Bowl."""

SCALES = (0.125, 4.0)
"""Least and greatest scale of those looks."""


def segment_image(
    segmenter: Segmenter,
    image: _Image,
    *,
    scale: float = 1.0,
    tile: int = 512,
    overlap: int = 64,
    batch: int = 4,
    step: int | None = STEP,
    lower_on_top: bool = False,
    device: str = "cpu",
) -> _Labels:
    """Segment an image of any size.

    Parameters
    ----------
    segmenter : one that yields masks and needs no prompts.
    image : (y, x, 3) uint8 RGB.
    scale : the segmenter sees the image resized by this factor, with anti-aliasing: its nominal object diameter over
        that of the image's objects, or the image's pixel size over the nominal one.
    tile, overlap : largest side of a tile, and what neighbours share, px after scaling; 0 <= overlap <= tile / 2.
        Beyond the image its mirror image goes on.
    batch : tiles at a time.
    step : tiles are only as large as their number asks for, in steps of so many px: a small image is one small tile.
        None: always `tile`, for a segmenter whose options refer to the tile.
    lower_on_top : a pixel of several instances has the one of the lowest score, as CenterSAM's published code paints.
    device : where the segmenter wants its tiles.

    Returns
    -------
    (y, x) int32, 0 background, 1..n the instances; a pixel of several has the one of the highest score. What others
    cover entirely is not there.

    Raises
    ------
    SegmenterError
        The segmenter needs prompts, or yields polygons.
    """
    import torch

    card = segmenter.card
    if card.needs_prompts or card.needs_annotations or card.outlines != "pixels":
        raise SegmenterError(
            f"segmenter '{card.name}' takes prompts or yields polygons; accepted for an image in memory: one that "
            "yields masks by itself"
        )
    height, width = image.shape[:2]
    shape = Shape2d(max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = image if shape == (height, width) else resample(image, Bounds(0, 0, width, height), shape)
    tiling = _tiling(shape, tile, overlap, step)
    last = tiling.bounds(tiling.rows - 1, tiling.cols - 1)
    beyond = (int(last.ymax) - shape.height, int(last.xmax) - shape.width)
    padded = np.pad(pixels, ((0, max(0, beyond[0])), (0, max(0, beyond[1])), (0, 0)), mode="symmetric")
    tiles = [tiling.get(row, col) for row in range(tiling.rows) for col in range(tiling.cols)]
    pieces: list[_Piece] = []
    for start in range(0, len(tiles), batch):
        some = tiles[start : start + batch]
        cut = np.stack([padded[y : y + tiling.tile, x : x + tiling.tile] for x, y in map(_corner, some)])
        images = torch.from_numpy(cut).permute(0, 3, 1, 2).to(device)
        for place, found in zip(some, segmenter.segment(TileBatch(images, some))):
            pieces += _pieces(found, place, tiling)
    labels = _painted(pieces, _objects(pieces), shape, lower_on_top)
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((height, width), shape))
    return labels[np.ix_(rows, cols)]


def estimate_diameter(segmenter: Segmenter, image: _Image, *, nominal: float | None = None, **settings: Any) -> float:
    """Typical diameter of the objects of an image, by looking: neither truth nor a pixel size is needed.

    The image is segmented as it is; while what is found differs from the diameter that the segmenter is made for, it
    is scaled accordingly and segmented again, a few times at most.

    Parameters
    ----------
    nominal : that diameter, px; None: `object_diameter` of the segmenter's card.
    settings : further options of `segment_image`, except `scale`.

    Returns
    -------
    Median over the instances of the diameter of the circle of equal area, px of `image`, in which an instance counts
    with its diameter, so that debris hardly counts; NaN when nothing is found.
    """
    wanted = nominal or segmenter.card.object_diameter
    scale, diameter = 1.0, math.nan
    for _ in range(LOOKS):
        found = _median_diameter(segment_image(segmenter, image, scale=scale, **settings))
        if math.isnan(found):
            break
        diameter = found
        fitting = min(max((wanted or found) / found, SCALES[0]), SCALES[1])
        if 1 / LOOK_AGAIN <= fitting / scale <= LOOK_AGAIN:
            break
        scale = fitting
    return diameter


def nominal_tiling(card: Card, overlap: int | None = None) -> Tiling:
    """A grid at the pixel size that `card` names: what a segmenter's context says of an image scaled to suit it.

    Parameters
    ----------
    overlap : what tiles will share, px; None: the card's.
    """
    size, unit = (1.0, "px") if card.pixel_size is None else (card.pixel_size, card.unit)
    shared = card.overlap if overlap is None else overlap
    return Tiling(card.tile, shared, card.tile, card.tile, (1.0, 1.0), (size, size), unit)


@dataclass(frozen=True)
class _Piece:
    """An instance of one tile: its cropped mask, bounds and tile in px of the scaled image.

    `margin` is its distance to the nearest border of the tile beyond which another tile sees on, 0 where it is cut.
    """

    mask: _Mask
    bounds: Bounds
    tile: Tile
    score: float
    margin: float

    def within(self, area: Bounds) -> _Mask:
        """The part of the mask in `area`."""
        x, y = int(self.bounds.xmin), int(self.bounds.ymin)
        shared = self.bounds.intersection(area)
        return self.mask[int(shared.ymin) - y : int(shared.ymax) - y, int(shared.xmin) - x : int(shared.xmax) - x]


def _median_diameter(labels: _Labels) -> float:
    """Median diameter of instances 1..n, weighted by the diameter."""
    diameter = np.sort(2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi))
    if not len(diameter):
        return math.nan
    below = diameter.cumsum()
    return float(diameter[np.searchsorted(below, below[-1] / 2)])


def _corner(tile: Tile) -> tuple[int, int]:
    return int(tile.bounds.xmin), int(tile.bounds.ymin)


def _tiling(shape: Shape2d, tile: int, overlap: int, step: int | None) -> Tiling:
    """The grid of an image; its tiles shrink as long as their number stays."""

    def of(side: int) -> Tiling:
        return Tiling(side, overlap, shape.width, shape.height, (1.0, 1.0), (1.0, 1.0), "px")

    grid = of(tile)
    if step is None:
        return grid
    sides = range(step * max(1, math.ceil(2 * overlap / step)), tile, step)
    return next((of(side) for side in sides if (of(side).rows, of(side).cols) == (grid.rows, grid.cols)), grid)


def _pieces(found: TileInstances, tile: Tile, tiling: Tiling) -> list[_Piece]:
    """What of a tile's instances lies in the image."""
    x0, y0 = _corner(tile)
    inside = Bounds(0, 0, tiling.width, tiling.height)
    # only borders beyond which another tile sees on
    inner = Bounds(
        tile.bounds.xmin if tile.col > 0 else -math.inf,
        tile.bounds.ymin if tile.row > 0 else -math.inf,
        tile.bounds.xmax if tile.col < tiling.cols - 1 else math.inf,
        tile.bounds.ymax if tile.row < tiling.rows - 1 else math.inf,
    )
    pieces = []
    for box, mask, score in zip(found.boxes.tolist(), found.masks or [], found.scores.tolist()):
        bounds = Bounds(box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
        piece = _Piece(mask.cpu().numpy().astype(bool), bounds, tile, score, 0.0)
        bounds, kept = bounds.intersection(inside), piece.within(inside)
        if kept.any():
            margin = min(
                bounds.xmin - inner.xmin, bounds.ymin - inner.ymin, inner.xmax - bounds.xmax, inner.ymax - bounds.ymax
            )
            pieces.append(_Piece(kept, bounds, tile, score, margin))
    return pieces


def _objects(pieces: Sequence[_Piece]) -> list[int]:
    """Object of each piece, named by its first piece; -1 for a piece that another tile's whole instance stands for.

    Pieces come in the order of their margin. One that agrees with a whole instance of another tile is dropped; one that
    agrees with cut ones only joins them.
    """
    if len({(piece.tile.row, piece.tile.col) for piece in pieces}) < 2:
        return list(range(len(pieces)))
    owner = np.full(len(pieces), -1)
    boxes = np.array([piece.bounds for piece in pieces])
    tiles = np.array([(piece.tile.row, piece.tile.col) for piece in pieces])
    taken = np.zeros(len(pieces), bool)
    for i in sorted(range(len(pieces)), key=lambda k: (-pieces[k].margin, -pieces[k].score, k)):
        box = boxes[i]
        near = taken & (tiles != tiles[i]).any(1) & (boxes[:, :2] < box[2:]).all(1) & (boxes[:, 2:] > box[:2]).all(1)
        same = [j for j in np.flatnonzero(near).tolist() if _agreement(pieces[i], pieces[j]) >= AGREEMENT]
        if any(pieces[j].margin > 0 for j in same):
            continue
        taken[i], owner[i] = True, i
        if same:
            members = np.isin(owner, [i, *owner[same]])
            owner[members] = owner[members].min()
    return [int(number) for number in owner]


def _agreement(one: _Piece, two: _Piece) -> float:
    """IoU inside the area that both tiles saw, or the share of a cut piece that the other one covers there."""
    seen = one.tile.bounds.intersection(two.tile.bounds)
    common = one.bounds.intersection(two.bounds)
    both = int((one.within(common) & two.within(common)).sum())
    areas = [int(piece.within(seen).sum()) for piece in (one, two)]
    covers = [both / max(1, area) for piece, area in zip((one, two), areas) if piece.margin <= 0]
    return max(both / max(1, sum(areas) - both), *covers, 0.0)


def _painted(pieces: Sequence[_Piece], owner: Sequence[int], shape: Shape2d, lower_on_top: bool) -> _Labels:
    """Label image of the objects; the higher score on top, the earlier piece among equals, or the other way round."""
    canvas = np.zeros(shape, np.int64)
    order = sorted((i for i in range(len(pieces)) if owner[i] >= 0), key=lambda i: (pieces[owner[i]].score, -owner[i]))
    for i in reversed(order) if lower_on_top else order:
        box = pieces[i].bounds
        part = canvas[int(box.ymin) : int(box.ymax), int(box.xmin) : int(box.xmax)]
        part[pieces[i].mask] = owner[i] + 1
    seen = np.zeros(len(pieces) + 1, np.int32)
    seen[canvas] = 1
    seen[0] = 0
    return np.asarray((seen.cumsum(dtype=np.int32) * seen)[canvas])
