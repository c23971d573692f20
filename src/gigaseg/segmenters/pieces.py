"""Pieces of instances that the tiles of an image yield, and which of them are one object, on pixels.

The rule is that of `gigaseg.stitch`: two instances are one object when they agree inside the area that both tiles saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.segmenters.base import TileInstances
from gigaseg.tiles.tiling import Tile, Tiling

_Mask = npt.NDArray[np.bool_]

AGREEMENT = 0.5
"""Least agreement of two instances that are one object, as `stitch.agreement` in config.yaml."""


@dataclass(frozen=True)
class Piece:
    """An instance of one tile: its cropped mask, bounds and tile in px of the scaled image, (classes,) class_prob.

    `margin` is its distance to the nearest border of the tile beyond which another tile sees on, 0 where it is cut.
    """

    mask: _Mask
    bounds: Bounds
    tile: Tile
    score: float
    class_prob: npt.NDArray[np.float32]
    margin: float

    def within(self, area: Bounds) -> _Mask:
        """The part of the mask in `area`."""
        x, y = int(self.bounds.xmin), int(self.bounds.ymin)
        shared = self.bounds.intersection(area)
        return self.mask[int(shared.ymin) - y : int(shared.ymax) - y, int(shared.xmin) - x : int(shared.xmax) - x]


def pieces_of(found: TileInstances, tile: Tile, tiling: Tiling) -> list[Piece]:
    """What of a tile's instances lies in the image."""
    x0, y0 = int(tile.bounds.xmin), int(tile.bounds.ymin)
    inside = Bounds(0, 0, tiling.width, tiling.height)
    # only borders beyond which another tile sees on
    inner = Bounds(
        tile.bounds.xmin if tile.col > 0 else -math.inf,
        tile.bounds.ymin if tile.row > 0 else -math.inf,
        tile.bounds.xmax if tile.col < tiling.cols - 1 else math.inf,
        tile.bounds.ymax if tile.row < tiling.rows - 1 else math.inf,
    )
    pieces = []
    probs = found.class_prob.cpu().numpy()
    for box, mask, score, prob in zip(found.boxes.tolist(), found.masks or [], found.scores.tolist(), probs):
        bounds = Bounds(box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
        piece = Piece(mask.cpu().numpy().astype(bool), bounds, tile, score, prob, 0.0)
        bounds, kept = bounds.intersection(inside), piece.within(inside)
        if kept.any():
            margin = min(
                bounds.xmin - inner.xmin, bounds.ymin - inner.ymin, inner.xmax - bounds.xmax, inner.ymax - bounds.ymax
            )
            pieces.append(Piece(kept, bounds, tile, score, prob, margin))
    return pieces


def objects(pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    """Object of each piece, named by its first piece; -1 for a piece that another tile's whole instance stands for.

    Pieces come in the order of their margin. One that agrees with a whole instance of another tile is dropped; one that
    agrees with cut ones only joins them.
    """
    if len({(piece.tile.row, piece.tile.col) for piece in pieces}) < 2:
        return np.arange(len(pieces))
    owner = np.full(len(pieces), -1, np.int64)
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
    return owner


def _agreement(one: Piece, two: Piece) -> float:
    """IoU inside the area that both tiles saw, or the share of a cut piece that the other one covers there."""
    seen = one.tile.bounds.intersection(two.tile.bounds)
    common = one.bounds.intersection(two.bounds)
    both = int((one.within(common) & two.within(common)).sum())
    areas = [int(piece.within(seen).sum()) for piece in (one, two)]
    covers = [both / max(1, area) for piece, area in zip((one, two), areas) if piece.margin <= 0]
    return max(both / max(1, sum(areas) - both), *covers, 0.0)


def painted(
    pieces: Sequence[Piece], owner: npt.NDArray[np.int64], shape: Shape2d, lower_on_top: bool
) -> npt.NDArray[np.int64]:
    """Canvas of the objects, 1 + their number; the higher score on top, the earlier piece among equals, or reversed."""
    canvas = np.zeros(shape, np.int64)
    named = owner.tolist()
    order = sorted((i for i in range(len(pieces)) if named[i] >= 0), key=lambda i: (pieces[named[i]].score, -named[i]))
    for i in reversed(order) if lower_on_top else order:
        box = pieces[i].bounds
        part = canvas[int(box.ymin) : int(box.ymax), int(box.xmin) : int(box.xmax)]
        part[pieces[i].mask] = named[i] + 1
    return canvas
