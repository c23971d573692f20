"""Segmenter `annotations`: polygons from a file, clipped to each tile, as if a model had found them.

It serves to bring one's own segmentation, and is the oracle of the tests: what stitching makes of it must equal the
file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely
import torch

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.base import Context, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.sidefiles import only_polygons, read_polygons
from gigaseg.tiles.tiling import Tile


class Annotations:
    """Polygons of the sheet's `annotations` file; the classes are the file's own.

    Attributes
    ----------
    card : the card, with the classes found in the file.
    """

    def __init__(self, card: Card, context: Context) -> None:
        if context.annotations is None:
            raise SegmenterError("segmenter 'annotations' needs the column 'annotations' of the sample sheet")
        self._polygons = read_polygons(context.annotations, context.info, context.tiling)
        self._tree = shapely.STRtree(self._polygons.geometry)
        self.card = replace(card, classes=self._polygons.classes)

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """The polygons of each tile, clipped to it, in the order of the file; the pixels are not looked at."""
        return [self._clip(tile) for tile in batch.tiles]

    def _clip(self, tile: Tile) -> TileInstances:
        rectangle = shapely.box(*tile.bounds)
        found = np.sort(self._tree.query(rectangle, predicate="intersects"))
        geometry = self._polygons.geometry[found]
        crossing = ~shapely.contains_properly(rectangle, geometry)
        geometry[crossing] = only_polygons(shapely.intersection(geometry[crossing], rectangle))
        left = ~shapely.is_empty(geometry)
        found, geometry = found[left], geometry[left]
        geometry = shapely.transform(geometry, lambda xy: xy - (tile.bounds.xmin, tile.bounds.ymin))
        boxes = shapely.bounds(geometry).reshape(-1, 4)
        boxes = np.column_stack([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])])
        one_hot = np.eye(len(self.card.classes), dtype=np.float32)[self._polygons.class_index[found]]
        return TileInstances(
            boxes=torch.from_numpy(boxes.astype(np.int32)),
            masks=None,
            scores=torch.ones(len(found)),
            class_prob=torch.from_numpy(one_hot),
            polygons=geometry,
        )
