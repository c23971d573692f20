"""Segmenter `everything`: SAM's automatic mask generator, the zero-shot baseline."""

from __future__ import annotations

from dataclasses import replace

from gigaseg.sam.automatic import generate_masks
from gigaseg.sam.backend import Backend
from gigaseg.sam.packed import PackedMasks
from gigaseg.segmenters.base import Context, TileBatch, TileInstances
from gigaseg.segmenters.card import Card


class Everything:
    """SAM on a grid of points in each tile.

    Attributes
    ----------
    card : the card as it is.
    """

    def __init__(self, card: Card, context: Context) -> None:
        options = context.options
        self.card = card
        self._backend = Backend.open(
            context.checkpoint,
            context.device,
            options["input_size"] or None,
            options["precision"],
            compile=options["compile"],
        )
        self._max_area: float = options["max_area"]
        self._settings = {
            "points_per_side": options["points_per_side"],
            "pred_iou_thresh": options["pred_iou_thresh"],
            "stability_thresh": options["stability_score_thresh"],
            "nms": options["nms"],
            "nms_thresh": options["box_nms_thresh"],
            "window": self._backend.window(options["window"]),
        }

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Masks of each tile without those that cover most of it; on a CPU tile by tile, which takes less memory."""
        step = 1 if batch.images.device.type == "cpu" else len(batch.tiles)
        shape = (batch.images.shape[2], batch.images.shape[3])
        found: list[TileInstances] = []
        for i in range(0, len(batch.tiles), step):
            encoded = self._backend.encode(batch.images[i : i + step])
            found += generate_masks(self._backend, encoded, shape, **self._settings)
        limit = self._max_area * shape[0] * shape[1]
        return [_below(instances, limit) for instances in found]


def _below(found: TileInstances, limit: float) -> TileInstances:
    """The instances of an area up to `limit`, px²."""
    masks = PackedMasks.of(found.boxes, found.masks or [], found.scores)
    small = masks.pixels() <= limit
    return replace(
        found,
        boxes=found.boxes[small],
        masks=masks[small],
        scores=found.scores[small],
        class_prob=found.class_prob[small],
    )
