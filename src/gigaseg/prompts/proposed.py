"""Points that a segmenter proposes tile by tile: merged over a slide or an image, each given to one tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gigaseg.prompts.owner import point_owners, seen_better
from gigaseg.segmenters.base import Prompts, Proposals
from gigaseg.tiles.tiling import Tile, Tiling


@dataclass(frozen=True)
class TileProposals:
    """n points of several tiles, in working px, each with the tile that found it.

    Attributes
    ----------
    tile_row, tile_col : (n,) int32.
    points : place in working px, score, class_prob.
    """

    tile_row: npt.NDArray[np.int32]
    tile_col: npt.NDArray[np.int32]
    points: Proposals

    def __len__(self) -> int:
        return len(self.tile_row)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> TileProposals:
        """The rows `index` (positions or a bool mask)."""
        points = Proposals(self.points.xy[index], self.points.score[index], self.points.class_prob[index])
        return TileProposals(self.tile_row[index], self.tile_col[index], points)

    @classmethod
    def concat(cls, parts: Iterable[TileProposals], classes: int) -> TileProposals:
        """Several as one, in order; `classes`: their number, for the case that there is no point."""
        none = Proposals(np.empty((0, 2)), np.empty(0, np.float32), np.empty((0, classes), np.float32))
        some = [cls(np.empty(0, np.int32), np.empty(0, np.int32), none), *(part for part in parts if len(part))]
        points = Proposals(
            xy=np.concatenate([part.points.xy for part in some]),
            score=np.concatenate([part.points.score for part in some]),
            class_prob=np.concatenate([part.points.class_prob for part in some]),
        )
        rows, cols = ([getattr(part, name) for part in some] for name in ("tile_row", "tile_col"))
        return cls(np.concatenate(rows), np.concatenate(cols), points)


@dataclass(frozen=True)
class MergedPoints:
    """The points of a slide or an image, one an object.

    Attributes
    ----------
    points : (n,) in working px, ordered by owner, then as they were found.
    owner : (n,) int64 position among the kept tiles of the one that decodes it.
    counts : how many points were "proposed", left out as "beyond_slide" (or the kept tiles) or "near_border",
        "suppressed" as repeats of others; the rest are the "objects".
    """

    points: Proposals
    owner: npt.NDArray[np.int64]
    counts: dict[str, int]


def in_slide(found: Sequence[Proposals], tiles: Sequence[Tile], classes: int) -> TileProposals:
    """Points of tiles in tile px as points in working px."""
    parts = []
    for tile, one in zip(tiles, found, strict=True):
        n = len(one.xy)
        points = Proposals(
            np.asarray(one.xy, np.float64).reshape(n, 2) + (tile.bounds.xmin, tile.bounds.ymin),
            np.asarray(one.score, np.float32),
            np.asarray(one.class_prob, np.float32).reshape(n, classes),
        )
        parts.append(TileProposals(np.full(n, tile.row, np.int32), np.full(n, tile.col, np.int32), points))
    return TileProposals.concat(parts, classes)


def merge_points(
    merge: Callable[[Proposals], npt.NDArray[np.int64]],
    found: TileProposals,
    tiles: Sequence[npt.NDArray[np.int32]],
    tiling: Tiling,
) -> MergedPoints:
    """One point an object, of the points of all tiles.

    Points off the slide are left out, and those near a border beyond which another tile sees them better
    (`gigaseg.prompts.owner.seen_better`). Of the others the segmenter says which stay, and each of these goes to the
    tile in which it lies most centrally.

    Parameters
    ----------
    merge : that of the segmenter (`gigaseg.segmenters.base.Proposer`); called once, not at all without points.
    found : the points of all tiles, in any order.
    tiles : row and col of the k kept tiles, in the grid's order.
    tiling : the grid.
    """
    ordered = found.take(np.lexsort((found.tile_col, found.tile_row)))  # stable: of a tile as they were found
    xy = ordered.points.xy
    inside = ((xy >= 0) & (xy < (tiling.width, tiling.height))).all(axis=1)
    near = inside & seen_better(xy, (ordered.tile_row, ordered.tile_col), tiles, tiling)
    owner = point_owners(xy, tiles, tiling)
    usable = inside & ~near & (owner >= 0)
    candidates, owner = ordered.take(usable), owner[usable]
    kept = merge(candidates.points) if len(candidates) else np.empty(0, np.int64)
    merged, owner = candidates.take(kept), owner[kept]
    order = np.argsort(owner, kind="stable")
    counts = {
        "proposed": len(found),
        "beyond_slide": len(found) - int(near.sum()) - len(candidates),
        "near_border": int(near.sum()),
        "suppressed": len(candidates) - len(merged),
        "objects": len(merged),
    }
    return MergedPoints(merged.take(order).points, owner[order], counts)


def point_prompts(merged: MergedPoints, number: int, tile: Tile) -> Prompts:
    """What tile `number` of the kept ones decodes, in tile px."""
    first, end = np.searchsorted(merged.owner, [number, number + 1]).tolist()
    mine = slice(first, end)
    prob = merged.points.class_prob[mine]
    return Prompts(
        id=np.arange(first, end, dtype=np.int64),
        points=in_tile(merged.points.xy[mine], tile)[:, None],
        labels=np.ones((end - first, 1), np.int8),
        class_index=prob.argmax(axis=1).astype(np.int32),
        class_prob=prob,
    )


def in_tile(xy: npt.NDArray[np.float64], tile: Tile) -> npt.NDArray[np.float32]:
    """Points of a tile from working px to tile px; as float32 a point just before the tile's end must not lie on it."""
    local = xy - (tile.bounds.xmin, tile.bounds.ymin)
    end = np.nextafter(np.float32(tile.bounds.width), np.float32(0))
    return np.asarray(np.minimum(local, end), np.float32)
