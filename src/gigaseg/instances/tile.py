"""From what a segmenter yields for one tile to rows of the instance table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.instances.polygons import polygons_from_labels, polygons_from_masks
from gigaseg.instances.table import Instances
from gigaseg.segmenters.base import TileInstances
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tile, Tiling


def tile_rows(
    found: TileInstances,
    tile: Tile,
    tiling: Tiling,
    classes: tuple[str, ...],
    *,
    exclusive: bool,
    counts: Counter[str] | None = None,
) -> Instances:
    """Rows of one tile, in the segmenter's order.

    Parameters
    ----------
    found : instances in tile px.
    exclusive : masks that share pixels are made disjoint: the higher score keeps them, the earlier one among equals.
        Polygons are taken as they are.
    counts : told what became of the instances, as `gigaseg.prompts.counts.FATES` has it.

    Returns
    -------
    Instances in working px, clipped to the slide; those without area are left out.
    """
    if found.polygons is not None:
        geometry = np.array(found.polygons, dtype=object)
    else:
        masks = [np.asarray(mask.cpu(), dtype=bool) for mask in found.masks or []]
        width = min(tiling.tile, tiling.width - int(tile.bounds.xmin))
        height = min(tiling.tile, tiling.height - int(tile.bounds.ymin))
        boxes = found.boxes.cpu().numpy().astype(np.int64).reshape(-1, 4)
        scores = found.scores.cpu().numpy()
        masks = [mask[: max(0, height - y), : max(0, width - x)] for mask, (x, y) in zip(masks, boxes[:, :2])]
        geometry = _outlines(masks, boxes, scores, (height, width), exclusive)
    rows = np.flatnonzero(~shapely.is_empty(geometry))
    if counts is not None:
        gone = len(geometry) - len(rows)
        empty = gone if found.polygons is not None else sum(not mask.any() for mask in masks)
        counts.update({**found.left_out, "instances": len(rows), "lost_to_others": gone - empty})
        counts["empty"] += empty
    geometry = geometry[rows]
    cut = cut_sides(geometry, tile, tiling)
    geometry = shapely.transform(geometry, lambda xy: xy + (tile.bounds.xmin, tile.bounds.ymin))
    prob = found.class_prob.cpu().numpy().astype(np.float32).reshape(-1, len(classes))[rows]
    return Instances(
        geometry=np.asarray(geometry, dtype=object),
        score=found.scores.cpu().numpy().astype(np.float32)[rows],
        class_index=prob.argmax(axis=1).astype(np.int32),
        class_prob=prob,
        tile_row=np.full(len(rows), tile.row, np.int32),
        tile_col=np.full(len(rows), tile.col, np.int32),
        cut=cut,
        prompt=np.full(len(rows), -1, np.int64) if found.prompt is None else found.prompt[rows],
        classes=classes,
    )


def _outlines(
    masks: list[npt.NDArray[np.bool_]],
    boxes: npt.NDArray[np.int64],
    scores: npt.NDArray[np.floating[Any]],
    shape: tuple[int, int],
    exclusive: bool,
) -> npt.NDArray[np.object_]:
    """Outline of each mask in an area of `shape` (height, width), in which they lie; empty where no pixel is left."""
    if not exclusive:
        return polygons_from_masks(masks, boxes[:, :2])
    labels = np.zeros(shape, np.int32)
    for i in np.lexsort((-np.arange(len(masks)), scores)):
        x, y = boxes[i, :2]
        height, width = masks[i].shape
        labels[y : y + height, x : x + width][masks[i]] = i + 1
    ids, found = polygons_from_labels(labels)
    geometry = np.full(len(masks), shapely.Polygon(), dtype=object)
    geometry[ids - 1] = found
    return geometry


def cut_sides(geometry: npt.NDArray[np.object_], tile: Tile, tiling: Tiling) -> npt.NDArray[np.uint8]:
    """Borders of the tile inside the slide that each geometry (tile px) touches, as a bit mask."""
    boxes = shapely.bounds(geometry).reshape(-1, 4)
    edge = 1e-6  # clipped vectors end on the border up to rounding
    sides = (boxes[:, 0] <= edge) * (LEFT if tile.col > 0 else 0)
    sides |= (boxes[:, 1] <= edge) * (TOP if tile.row > 0 else 0)
    sides |= (boxes[:, 2] >= tiling.tile - edge) * (RIGHT if tile.col < tiling.cols - 1 else 0)
    sides |= (boxes[:, 3] >= tiling.tile - edge) * (BOTTOM if tile.row < tiling.rows - 1 else 0)
    return np.asarray(sides, dtype=np.uint8)
