"""Segmenter `persense`: one object is shown, and all that look like it are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.errors import SegmenterError
from gigaseg.exemplar import Shown, read_exemplar
from gigaseg.sam.backend import Backend
from gigaseg.sam.packed import to_instances
from gigaseg.sam.prompting import box_sets
from gigaseg.sam.suppression import mask_nms
from gigaseg.segmenters.base import Context, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.contrast import standing_out
from gigaseg.segmenters.over_sam import OverSam
from gigaseg.segmenters.persense.base import Mask, Picture, Scene
from gigaseg.segmenters.persense.checkpoint import Loaded, open_persense
from gigaseg.segmenters.persense.finder import Finder, Points, Reference, box_of
from gigaseg.segmenters.persense.kit import Kit, prompted_masks
from gigaseg.tiles.tiling import Tile

REGION = 512
"""Largest side, tile px, of the picture around an exemplar that is learnt from."""

AS_IT_IS = 1.1
"""Objects whose size differs from the wanted one by less than this factor are not scaled."""

LEAST_FILL = 0.3
"""Share of a box that SAM's mask of it must cover; else the box stands for the object."""

MOST_SCALE = 4.0
"""Greatest enlargement or reduction of a tile."""


class PerSense(OverSam[Loaded]):
    """Density peaks as point prompts.

    Attributes
    ----------
    card : the card; the class is the object's label.
    back_ends : names of what was used for label, detector, density and masks.
    reference : what all tiles are measured by; None before `learn`.
    record : a list to which the points of each tile are added; None: they are not kept.
    """

    name = "persense"
    opener = staticmethod(open_persense)

    def __init__(self, card: Card, context: Context) -> None:
        super().__init__(card, context)
        if context.exemplar is None:
            raise SegmenterError("segmenter 'persense' needs the column 'exemplar' of the sample sheet")
        side = min(REGION, context.tiling.tile)
        self.show(read_exemplar(context.exemplar, context.info, context.tiling, side))

    def _set(self, card: Card, loaded: Loaded, options: Mapping[str, Any]) -> None:
        self._kit, self._options = Kit.of(loaded, options), options
        self.back_ends = self._kit.back_ends
        self.card = card
        self.reference: Reference | None = None
        self.record: list[tuple[Tile, Points]] | None = None
        self._finder: Finder | None = None

    def show(self, shown: Shown) -> None:
        """Learn from a picture with marked objects; one drawn as a box gets its mask from SAM."""
        masks = list(shown.masks)
        if any(shown.boxed):
            seen = self._seen(masks[0])
            for i in np.flatnonzero(shown.boxed):
                masks[i] = self._inside(seen, shown.rgb, masks[i])
        self.learn(shown.rgb, masks)

    def learn(self, picture: Picture, masks: Sequence[Mask]) -> None:
        """Learn from a picture (h, w, 3) and the masks (h, w) of objects in it, the most telling one first.

        Raises
        ------
        SegmenterError
            A mask is empty or of another size than the picture.
        """
        for mask in masks:
            if mask.shape != picture.shape[:2] or not mask.any():
                raise SegmenterError(f"the exemplar's mask is empty or not of the picture's size {picture.shape[:2]}")
        label = self._kit.labels.label(picture, masks[0])
        self.card = replace(self.card, classes=(label,))
        _, picture, masks = _around(picture, masks)
        self._finder = self._kit.finder(self._seen(masks[0]), label)
        self.reference = self._finder.learn(picture, masks)

    def _seen(self, mask: Mask) -> Backend:
        """SAM at the scale at which an object has the wanted size."""
        wanted, diameter = self._options["diameter"], float(np.sqrt(4 * mask.sum() / np.pi))
        scale = 1.0 if wanted == 0 else wanted / diameter
        scale = min(max(scale, 1 / MOST_SCALE), MOST_SCALE)
        if 1 / AS_IT_IS <= scale <= AS_IT_IS:
            scale = 1.0
        return replace(self._kit.backend, scale=scale)

    def _inside(self, backend: Backend, rgb: Picture, box: Mask) -> Mask:
        """SAM's mask of what a box holds; the box where that is hardly anything."""
        bounds = box_of(box)
        corner, picture, (placed,) = _around(rgb, [box])
        encoded = backend.encode(_images(picture))
        sets = box_sets(torch.zeros(1, dtype=torch.int64), torch.from_numpy(box_of(placed))[None])
        masks = backend.masks(encoded, sets.to(backend.device), placed.shape, window=self._kit.window).cpu()
        found = np.zeros_like(box)
        x, y = (int(masks.boxes[0, k]) + corner[k] for k in (0, 1))
        crop = masks.unpack()[0].numpy()[: max(0, box.shape[0] - y), : max(0, box.shape[1] - x)]
        found[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        found &= _grown(bounds, box.shape)
        return found if found.sum() >= LEAST_FILL * box.sum() else box

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile; on a CPU tile by tile, which takes less memory."""
        found: list[TileInstances] = []
        for tile, image, features, points in self._seen_tiles(batch):
            if self.record is not None:
                self.record.append((tile, points))
            found.append(self._instances(points, features, image, cast(Reference, self.reference)))
        return found

    def _seen_tiles(self, batch: TileBatch) -> Iterator[tuple[Tile, Tensor, Tensor, Points]]:
        """Each tile, its pixels, SAM's features of it and the points that prompt it."""
        if self._finder is None or self.reference is None:
            raise SegmenterError("segmenter 'persense' was shown no exemplar; call learn() first")
        step = 1
        if batch.images.device.type != "cpu":  # enlarged tiles take their memory
            step = max(1, int(len(batch.tiles) / max(1.0, self._finder.backend.scale**2)))
        for start in range(0, len(batch.tiles), step):
            images = batch.images[start : start + step]
            embedding = self._finder.backend.encode(images).embedding.float()
            for tile, image, features in zip(batch.tiles[start : start + step], images, embedding):
                scene = Scene(image.permute(1, 2, 0).cpu().numpy(), features)
                yield tile, image, features, self._finder.find(scene, self.reference)

    def _instances(self, points: Points, features: Tensor, image: Tensor, reference: Reference) -> TileInstances:
        options, backend = self._options, cast(Finder, self._finder).backend
        shape = (image.shape[1], image.shape[2])
        low, high = options["min_area"] * reference.area, options["max_area"] * reference.area
        masks = prompted_masks(
            backend,
            features,
            points.xy,
            shape,
            multimask=options["multimask"],
            window=self._kit.window,
            areas=(low, high),
        )
        pixels = masks.pixels()
        good = (masks.area > 0) & (masks.scores.clamp(0, 1) >= options["min_quality"])
        good &= (pixels >= low) & (pixels <= high)
        kept = masks[torch.nonzero(good)[:, 0]]
        stay = mask_nms(kept, torch.zeros(len(kept), dtype=torch.int64, device=kept.boxes.device), options["nms"])
        found = to_instances(kept[stay].compact(), torch.zeros(len(stay), dtype=torch.int64), 1)[0]
        return standing_out(found, image, options["min_contrast"])


def _images(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


def _around(picture: Picture, masks: Sequence[Mask]) -> tuple[tuple[int, int], Picture, list[Mask]]:
    """A square of the picture around the first object, with the masks of those that lie wholly in it.

    Its side is up to `REGION`, more where the object asks for it; a smaller picture is mirrored to a square.

    Returns
    -------
    x and y of its corner, the square, the masks in it.
    """
    x0, y0, x1, y1 = box_of(masks[0])
    height, width = masks[0].shape
    side = min(max(REGION, int(1.5 * max(x1 - x0, y1 - y0))), max(height, width))
    x, y = (
        min(max(0, round((low + high - side) / 2)), max(0, total - side))
        for low, high, total in ((x0, x1, width), (y0, y1, height))
    )
    inside = [m for m in masks if not (m.sum() - m[y : y + side, x : x + side].sum())]
    beyond = ((0, max(0, side - height)), (0, max(0, side - width)))
    square = np.pad(picture[y : y + side, x : x + side], (*beyond, (0, 0)), mode="symmetric")
    return (x, y), square, [np.pad(m[y : y + side, x : x + side], beyond) for m in inside]


def _grown(bounds: npt.NDArray[np.float64], shape: tuple[int, ...]) -> Mask:
    """A box grown by a tenth of its sides, as a mask."""
    reach = 0.1 * (bounds[2:] - bounds[:2])
    x0, y0 = np.maximum(0, np.floor(bounds[:2] - reach)).astype(int)
    x1, y1 = np.ceil(bounds[2:] + reach).astype(int)
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask
