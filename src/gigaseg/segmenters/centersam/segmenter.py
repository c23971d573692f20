"""Segmenter `centersam`: a detector finds the objects of each tile, and SAM outlines what lies in their boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.errors import SegmenterError
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.packed import to_instances
from gigaseg.sam.prompting import box_sets
from gigaseg.sam.suppression import mask_nms
from gigaseg.segmenters.base import TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.centersam.checkpoint import Loaded, open_centersam
from gigaseg.segmenters.centersam.detector import Maps
from gigaseg.segmenters.centersam.peaks import Peaks, decode
from gigaseg.segmenters.contrast import contrast
from gigaseg.segmenters.over_sam import OverSam


class CenterSam(OverSam[Loaded]):
    """CenterNet's peaks as box prompts.

    Attributes
    ----------
    card : the card, with the classes of the checkpoint.
    threshold : least score of an object. Objects of a run with a lower one that exceed it are those of a run with it:
        what scores less takes nothing away from what scores more.
    """

    name = "centersam"
    opener = staticmethod(open_centersam)

    def _set(self, card: Card, loaded: Loaded, options: Mapping[str, Any]) -> None:
        self.card = replace(card, classes=loaded.detector.config.classes)
        self.threshold: float = options["threshold"] or loaded.threshold
        self._backend = loaded.backend
        self._detector = loaded.detector
        self._detector_size: int = options["detector_size"]
        if self._detector_size and self._detector.uses_embedding:
            raise SegmenterError(
                f"segmenter 'centersam': option 'detector_size' is {self._detector_size}, accepted with this "
                f"checkpoint: 0, since its '{self._detector.config.kind}' detector sits on SAM's embedding"
            )
        self._top: int = options["top"]
        self._clahe: bool = options["clahe"]
        self._nms: float = options["nms"]
        self._min_quality: float = options["min_quality"]
        self._min_contrast: float = options["min_contrast"]
        self._window = self._backend.window(options["window"])

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile by descending score; on a CPU tile by tile, which takes less memory."""
        step = 1 if batch.images.device.type == "cpu" else len(batch.tiles)
        found: list[TileInstances] = []
        for i in range(0, len(batch.tiles), step):
            found += self._run(batch.images[i : i + step])
        return found

    def _run(self, images: Tensor) -> list[TileInstances]:
        if self._clahe:
            from gigaseg.segmenters.centersam.clahe import clahe

            images = clahe(images)
        shape = (images.shape[2], images.shape[3])
        pixels = self._backend.resized(images)
        encoded = self._backend.encode(pixels)
        with self._backend.running():
            seen = self._seen(images, pixels)
            maps = self._maps(seen, encoded)
            peaks = _within(decode(maps, self._top, self.threshold), (seen.shape[2], seen.shape[3]), shape)
            sets = box_sets(peaks.image, peaks.boxes)
            masks = self._backend.masks(encoded, sets, shape, window=self._window, detail=maps.detail)
            good = (masks.area > 0) & (masks.scores.clamp(0, 1) >= self._min_quality)
            masks = replace(masks, scores=peaks.scores)[good]
            image, shares = peaks.image[good], peaks.shares[good]
            if self._min_contrast > 0:
                clear = contrast(masks, images.to(image.device), image) >= self._min_contrast
                masks, image, shares = masks[clear], image[clear], shares[clear]
            kept = mask_nms(masks, image, self._nms)
            return to_instances(masks[kept].compact(), image[kept], len(images), shares[kept])

    def _seen(self, images: Tensor, pixels: Tensor) -> Tensor:
        """Tiles at the size at which the detector sees them, of `images` and of `pixels`, which SAM sees."""
        if not self._detector_size:
            return pixels
        sides = images.shape[2:]
        shape = [max(1, round(side * self._detector_size / max(sides))) for side in sides]
        return F.interpolate(images.to(pixels.device).float(), shape, mode="bilinear", antialias=True)

    def _maps(self, seen: Tensor, encoded: Encoded) -> Maps:
        """Maps of tiles (b, 3, H, W) at the detector's size, which are filled up to the sides that it takes."""
        multiple = self._detector.multiple
        down, right = (-side % multiple for side in seen.shape[2:])
        images = F.pad(self._detector.normalise(seen), (0, right, 0, down))  # with the mean colour
        stacks: list[Maps] = self._detector(images, encoded.embedding if self._detector.uses_embedding else None)
        return stacks[-1]


def _within(peaks: Peaks, seen_shape: tuple[int, int], tile_shape: tuple[int, int]) -> Peaks:
    """The peaks with their boxes in tile px and clipped to the tile, without those narrower than a pixel.

    Parameters
    ----------
    seen_shape, tile_shape : height and width of the tile as the detector saw it, and its own.
    """
    (h, w), (height, width) = seen_shape, tile_shape
    scale = peaks.boxes.new_tensor([width / w, height / h, width / w, height / h])
    low = peaks.boxes.new_zeros(4)
    high = peaks.boxes.new_tensor([width, height, width, height])
    peaks = replace(peaks, boxes=torch.minimum(torch.maximum(peaks.boxes * scale, low), high))
    return peaks[((peaks.boxes[:, 2:] - peaks.boxes[:, :2]) >= 1).all(1)]
