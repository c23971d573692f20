"""The prompts of one tile, as a segmenter takes them: one row an object, in tile px."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.prompts.proposed import in_tile
from gigaseg.prompts.table import BOX, MASK, POINT, PromptTable
from gigaseg.segmenters.base import Prompts
from gigaseg.sidefiles import only_polygons
from gigaseg.tiles.tiling import Tile


def tile_prompts(table: PromptTable, tile: Tile) -> Prompts:
    """The objects that `tile` decodes; or the points that are hints for it, each a row of its own.

    Boxes and outlines are clipped to the tile, several of one object united; points beyond the tile are left out.
    The order is that of the table, and an object's id is its first prompt.
    """
    rows = table.rows_of(tile.row, tile.col)
    mine = table.take(rows)
    origin = np.array([tile.bounds.xmin, tile.bounds.ymin])
    side = tile.bounds.width
    _, first, of = np.unique(mine.object, return_index=True, return_inverse=True)
    n = len(first)

    xy = mine.xy - origin
    dots = np.flatnonzero((mine.kind == POINT) & ((xy >= 0) & (xy < side)).all(axis=1))
    count = np.bincount(of[dots], minlength=n)
    starts = np.cumsum(count) - count
    place = np.arange(len(dots)) - starts[of[dots]]  # rows of an object follow one another
    points = np.full((n, count.max(initial=0), 2), np.nan, np.float32)
    labels = np.full(points.shape[:2], -1, np.int8)
    points[of[dots], place] = in_tile(mine.xy[dots], tile)
    labels[of[dots], place] = mine.label[dots]

    boxed = np.flatnonzero(mine.kind != POINT)
    box = (mine.box[boxed] - np.tile(origin, 2)).clip(0, side)
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (n, 1))
    np.minimum.at(boxes[:, :2], of[boxed], box[:, :2])
    np.maximum.at(boxes[:, 2:], of[boxed], box[:, 2:])
    boxes[~np.isfinite(boxes).all(axis=1)] = np.nan
    return Prompts(
        id=rows[first],
        points=points,
        labels=labels,
        boxes=boxes.astype(np.float32) if (mine.kind != POINT).any() else None,
        masks=_outlines(mine, of, n, origin, side) if (mine.kind == MASK).any() else None,
        class_index=mine.class_index[first],
        class_prob=None if mine.class_prob is None else mine.class_prob[first],
    )


def _outlines(
    mine: PromptTable, of: npt.NDArray[np.int64], n: int, origin: npt.NDArray[np.float64], side: float
) -> npt.NDArray[np.object_]:
    """Outline of each object in tile px, clipped to the tile; None where it has none or a box stands beside it."""
    found = np.full(n, None, dtype=object)
    window = shapely.box(0, 0, side, side)
    with_box = set(of[mine.kind == BOX].tolist())
    masked = np.flatnonzero(mine.kind == MASK)
    for i in np.unique(of[masked]):
        if i not in with_box:
            outline = shapely.union_all(mine.geometry[masked[of[masked] == i]])
            outline = shapely.transform(outline, lambda xy: xy - origin)
            clipped = only_polygons(np.array([shapely.intersection(outline, window)], dtype=object))[0]
            found[i] = clipped if not clipped.is_empty else None
    return found
