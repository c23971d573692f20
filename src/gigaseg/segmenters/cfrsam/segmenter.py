"""Segmenter `cfrsam`: points of all objects first, then a mask for each from a SAM adapted to nuclei."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.prompts.suppression import point_nms
from gigaseg.sam.encoder import normalise
from gigaseg.sam.packed import PackedMasks, pack, to_instances
from gigaseg.sam.suppression import mask_nms
from gigaseg.segmenters.base import Prompts, Proposals, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.cfrsam.checkpoint import Loaded, open_cfrsam
from gigaseg.segmenters.cfrsam.model import Refiner, encode_images
from gigaseg.segmenters.cfrsam.points import propose_points
from gigaseg.segmenters.cfrsam.windows import Window, windows_of
from gigaseg.segmenters.contrast import contrast
from gigaseg.segmenters.over_sam import OverSam


class CfrSam(OverSam[Loaded]):
    """Points from a learner of its own (`propose`, `merge`), each decoded once (`segment`).

    Attributes
    ----------
    card : the card, with the classes of the checkpoint.
    loaded : the models.
    """

    name = "cfrsam"
    opener = staticmethod(open_cfrsam)

    def _set(self, card: Card, loaded: Loaded, options: Mapping[str, Any]) -> None:
        self.card = replace(card, classes=loaded.points.config.classes)
        self.loaded = loaded
        self.threshold: float = loaded.points.threshold if options["threshold"] < 0 else options["threshold"]
        self._radius: float = options["radius"]
        self._use_mask: bool = options["use_mask"]
        self._nms: float = options["nms"]
        self._min_quality: float = options["min_quality"]
        self._min_contrast: float = options["min_contrast"]
        self._local: int = options["local"]
        self._options = options

    def propose(self, batch: TileBatch) -> list[Proposals]:
        """Points of each tile; on a CPU tile by tile, which takes less memory."""
        points = self.loaded.points
        found: list[Proposals] = []
        for images in torch.split(batch.images, _step(batch.images, len(batch.tiles))):
            with points.running():
                found += propose_points(
                    points.net, images, threshold=self.threshold, radius=self._radius, use_mask=self._use_mask
                )
        return found

    def merge(self, proposals: Proposals) -> npt.NDArray[np.int64]:
        """The points of which no likelier one lies within the radius."""
        return point_nms(proposals.xy, proposals.score, self._radius)

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """One instance a point, without those that repeat others; on a CPU window by window."""
        shape = (batch.images.shape[2], batch.images.shape[3])
        side = self._window_side()
        windows = [
            window
            for i, prompts in enumerate(batch.prompts)
            if len(prompts.id)
            for window in windows_of(i, shape, prompts.points[:, 0], side)
        ]
        step = _step(batch.images, len(batch.tiles))
        parts: list[list[PackedMasks]] = [[] for _ in batch.tiles]
        order: list[list[npt.NDArray[np.int64]]] = [[] for _ in batch.tiles]
        for start in range(0, len(windows), step):
            some = windows[start : start + step]
            for window, masks in zip(some, self._masks(batch, some, side or max(shape))):
                parts[window.tile].append(masks)
                order[window.tile].append(window.prompts)
        none = self._no_instances()
        return [
            self._instances(pack(mine), np.concatenate(at), batch.prompts[i], batch.images[i]) if mine else none
            for i, (mine, at) in enumerate(zip(parts, order))
        ]

    def _window_side(self) -> int:
        """Side of the second stage's windows, px; 0: all of a tile."""
        wanted: int = self._options["crop"]
        if wanted >= 0:
            return wanted
        training = self.loaded.card.get("training")
        known = training if isinstance(training, dict) else {}
        # decoded in windows of the embedding, objects do not depend on the image's size
        return 0 if known.get("window") else int(known.get("crop") or 0)

    def _masks(self, batch: TileBatch, windows: Sequence[Window], side: int) -> list[PackedMasks]:
        """Masks of each window's prompts in their order, in tile px."""
        backend, added = self.loaded.adapted.backend, self.loaded.adapted.added
        images = torch.stack([batch.images[w.tile, :, w.y : w.y + side, w.x : w.x + side] for w in windows])
        shape = (images.shape[2], images.shape[3])
        prompts = [_in_window(batch.prompts[w.tile], w) for w in windows]
        with backend.running():
            pixels = normalise(backend.resized(images), backend.config)
            seen = encode_images(backend.model, added, pixels, encoder=backend.encoder)
            refine = None if seen.maps is None else Refiner(added, seen.maps, self._local)
            found = backend.masks(
                seen.encoded,
                backend.sets(prompts),
                shape,
                window=backend.window(self._options["window"]),
                refine=refine,
                fine=added.fine,
            )
        ends = np.cumsum([len(w.prompts) for w in windows])
        return [
            _moved(found[torch.arange(int(end) - len(w.prompts), int(end), device=found.boxes.device)], w)
            for w, end in zip(windows, ends)
        ]

    def _instances(
        self, masks: PackedMasks, at: npt.NDArray[np.int64], prompts: Prompts, image: Tensor
    ) -> TileInstances:
        """What of a tile's masks stays; `at` names the prompt of each."""
        order = torch.from_numpy(np.argsort(at, kind="stable")).to(masks.boxes.device)
        masks = masks[order]
        filled = masks.area > 0
        good = filled & (masks.scores.clamp(0, 1) >= self._min_quality)
        kept = torch.nonzero(good)[:, 0]
        first = torch.zeros_like(kept)
        if self._min_contrast > 0:
            clear = contrast(masks[kept], image[None].to(masks.boxes.device), first) >= self._min_contrast
            kept = kept[clear]
        faint = int(good.sum()) - len(kept)
        stay = mask_nms(masks[kept], torch.zeros_like(kept), self._nms)
        repeats = len(kept) - len(stay)
        rows = kept[stay].cpu().numpy()
        prob = np.ones((len(at), 1), np.float32) if prompts.class_prob is None else prompts.class_prob
        found = to_instances(
            masks[kept[stay]].compact(), torch.zeros(len(rows), dtype=torch.int64), 1, torch.from_numpy(prob[rows])
        )[0]
        lost = {
            "empty": int((~filled).sum()),
            "below_min_score": int((filled & ~good).sum()),
            "faint": faint,
            "repeats": repeats,
        }
        return replace(found, prompt=prompts.id[rows], left_out=lost)

    def _no_instances(self) -> TileInstances:
        none = torch.zeros(0)
        masks = PackedMasks(none.int().view(0, 4), none.bool(), none.long(), none)
        found = to_instances(masks, none.long(), 1, torch.zeros(0, len(self.card.classes)))[0]
        return replace(found, prompt=np.empty(0, np.int64))


def _step(images: Tensor, tiles: int) -> int:
    return 1 if images.device.type == "cpu" else max(1, tiles)


def _in_window(prompts: Prompts, window: Window) -> Prompts:
    at = window.prompts
    corner = np.array([window.x, window.y], np.float32)
    return Prompts(prompts.id[at], prompts.points[at] - corner, prompts.labels[at])


def _moved(masks: PackedMasks, window: Window) -> PackedMasks:
    """Masks of a window in tile px; empty ones stay where they are."""
    corner = masks.boxes.new_tensor([window.x, window.y, window.x, window.y])
    return replace(masks, boxes=masks.boxes + corner * (masks.area > 0)[:, None])
