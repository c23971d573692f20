"""From what a segmenter yields for one tile to rows of the instance table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.instances.polygons import polygons_from_labels, polygons_from_masks
from gigaseg.instances.table import Instances
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tile, Tiling


@dataclass(frozen=True)
class HostInstances:
    """n instances of a tile in the host's memory, of a form that goes to other processes.

    Attributes
    ----------
    labels : (height, width) int32 of the tile's part inside the slide, i + 1 where instance i is; for exclusive masks.
    masks, corners : n bool masks, cropped and within the slide, and (n, 2) int64 x, y of each in tile px; for masks
        that may overlap.
    polygons : (n,) shapely geometries in tile px, for segmenters that yield vectors. One of the three is there.
    scores : (n,) float32.
    class_prob : (n, classes) float32.
    prompt : (n,) int64, or None.
    empty : how many of the masks have no pixel inside the slide.
    left_out : number of prompted objects that are not among the n, by reason, `gigaseg.prompts.counts.FATES`.
    prompts : objects for which the tile was prompted.
    """

    scores: npt.NDArray[np.float32]
    class_prob: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32] | None = None
    masks: list[npt.NDArray[np.bool_]] | None = None
    corners: npt.NDArray[np.int64] | None = None
    polygons: npt.NDArray[np.object_] | None = None
    prompt: npt.NDArray[np.int64] | None = None
    empty: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    prompts: int = 0


def tile_rows(
    found: HostInstances, tile: Tile, tiling: Tiling, classes: tuple[str, ...], *, counts: Counter[str] | None = None
) -> Instances:
    """Rows of one tile, in the segmenter's order.

    Parameters
    ----------
    found : instances in tile px.
    counts : told what became of the instances, as `gigaseg.prompts.counts.FATES` has it.

    Returns
    -------
    Instances in working px, clipped to the slide; those without area are left out.
    """
    geometry = _outlines(found, (int(tile.bounds.xmin), int(tile.bounds.ymin)))
    rows = np.flatnonzero(~shapely.is_empty(geometry))
    if counts is not None:
        gone = len(geometry) - len(rows)
        empty = gone if found.polygons is not None else found.empty
        counts.update({**found.left_out, "instances": len(rows), "lost_to_others": gone - empty})
        counts["empty"] += empty
    geometry = geometry[rows]
    prob = found.class_prob.reshape(-1, len(classes))[rows]
    return Instances(
        geometry=geometry,
        score=found.scores[rows],
        class_index=prob.argmax(axis=1).astype(np.int32),
        class_prob=prob,
        tile_row=np.full(len(rows), tile.row, np.int32),
        tile_col=np.full(len(rows), tile.col, np.int32),
        cut=cut_sides(geometry, tile, tiling),
        prompt=np.full(len(rows), -1, np.int64) if found.prompt is None else found.prompt[rows],
        classes=classes,
    )


def _outlines(found: HostInstances, origin: tuple[int, int]) -> npt.NDArray[np.object_]:
    """Outline of each instance in working px, the tile's corner being at `origin`; empty where no pixel is left."""
    if found.polygons is not None:
        return np.asarray(shapely.transform(found.polygons, lambda xy: xy + origin), dtype=object)
    if found.labels is None:
        corners = np.zeros((0, 2), np.int64) if found.corners is None else found.corners
        return polygons_from_masks(found.masks or [], corners + origin)
    ids, outlines = polygons_from_labels(found.labels, origin)
    geometry = np.full(len(found.scores), shapely.Polygon(), dtype=object)
    geometry[ids - 1] = outlines
    return geometry


def cut_sides(geometry: npt.NDArray[np.object_], tile: Tile, tiling: Tiling) -> npt.NDArray[np.uint8]:
    """Borders of the tile inside the slide that each geometry (working px) touches, as a bit mask."""
    boxes = shapely.bounds(geometry).reshape(-1, 4) - np.tile((tile.bounds.xmin, tile.bounds.ymin), 2)
    edge = 1e-6  # clipped vectors end on the border up to rounding
    sides = (boxes[:, 0] <= edge) * (LEFT if tile.col > 0 else 0)
    sides |= (boxes[:, 1] <= edge) * (TOP if tile.row > 0 else 0)
    sides |= (boxes[:, 2] >= tiling.tile - edge) * (RIGHT if tile.col < tiling.cols - 1 else 0)
    sides |= (boxes[:, 3] >= tiling.tile - edge) * (BOTTOM if tile.row < tiling.rows - 1 else 0)
    return np.asarray(sides, dtype=np.uint8)
