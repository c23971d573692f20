"""Segmenter `prompted`: SAM's masks of the objects that prompts from a file name, each in the tile that owns it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.sam.backend import Backend
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.packed import PackedMasks, pack, to_instances
from gigaseg.sam.prompting import PromptSets
from gigaseg.segmenters.base import Context, Prompts, TileBatch, TileInstances
from gigaseg.segmenters.card import Card

MASK_LOGIT = 8.0
"""Logit of a mask prompt inside its outline, its negative outside: about what SAM's own masks, which it was trained to
refine, have there."""

_CHUNK = 256
"""Mask prompts held at a time: 64 MB for an input of 1024 px."""


class Prompted:
    """SAM on the prompts of a file.

    Attributes
    ----------
    card : the card, with the classes of the prompts.
    """

    def __init__(self, card: Card, context: Context) -> None:
        options = context.options
        self.card = replace(card, classes=context.classes or card.classes)
        self._backend = Backend.open(
            context.checkpoint,
            context.device,
            options["input_size"] or None,
            options["precision"],
            compile=options["compile"],
        )
        self._multimask: bool = options["multimask"]
        self._min_score: float = options["min_score"]
        self._window = self._backend.window(options["window"])

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """One instance an object of each tile; those with an empty mask or a low score are left out.

        On a CPU tiles are encoded one by one: that is as fast as together, and takes less memory.
        """
        step = 1 if batch.images.device.type == "cpu" else len(batch.tiles)
        found: list[TileInstances] = []
        for i in range(0, len(batch.tiles), step):
            found += self._run(batch.images[i : i + step], batch.prompts[i : i + step])
        return found

    def _run(self, images: Tensor, prompts: list[Prompts]) -> list[TileInstances]:
        classes = len(self.card.classes)
        ids = np.concatenate([p.id for p in prompts])
        of_class = np.concatenate([np.zeros_like(p.id) if p.class_index is None else p.class_index for p in prompts])
        image = torch.from_numpy(np.repeat(np.arange(len(prompts)), [len(p.id) for p in prompts]))
        if len(ids) == 0:
            return to_instances(_no_masks(), image, len(prompts), torch.zeros(0, classes))
        masks = self._masks(self._backend.encode(images), prompts, (images.shape[2], images.shape[3])).cpu()
        # a predicted IoU can leave [0, 1], a score cannot
        filled, sure = masks.area > 0, masks.scores.clamp(0, 1) >= self._min_score
        kept = torch.nonzero(filled & sure)[:, 0]
        prob = F.one_hot(torch.from_numpy(of_class)[kept].long(), classes).float()
        found = to_instances(masks[kept], image[kept], len(prompts), prob)
        origin = [ids[kept[image[kept] == i].numpy()] for i in range(len(prompts))]
        lost = [
            {"empty": int((~filled)[image == i].sum()), "below_min_score": int((filled & ~sure)[image == i].sum())}
            for i in range(len(prompts))
        ]
        return [
            replace(instances, prompt=prompt, left_out=reasons)
            for instances, prompt, reasons in zip(found, origin, lost)
        ]

    def _masks(self, encoded: Encoded, prompts: list[Prompts], tile_shape: tuple[int, int]) -> PackedMasks:
        """One mask an object, in their order; those with an outline are decoded apart, some at a time."""
        sets = self._backend.sets(prompts)
        outlines = np.concatenate([np.full(len(p.id), None) if p.masks is None else p.masks for p in prompts])
        outlined = np.array([outline is not None for outline in outlines])
        parts, order = [], []
        plain = torch.from_numpy(np.flatnonzero(~outlined))
        if len(plain):
            parts.append(self._decode(encoded, sets[plain], tile_shape))
            order.append(plain)
        low = (4 * encoded.embedding.shape[2], 4 * encoded.embedding.shape[3])
        for start in range(0, int(outlined.sum()), _CHUNK):
            at = np.flatnonzero(outlined)[start : start + _CHUNK]
            logits = mask_prompts(outlines[at], tile_shape, low).to(self._backend.device)
            some = replace(sets[torch.from_numpy(at)], masks=logits)
            parts.append(self._decode(encoded, some, tile_shape))
            order.append(torch.from_numpy(at))
        return pack(parts)[torch.cat(order).argsort()]

    def _decode(self, encoded: Encoded, sets: PromptSets, tile_shape: tuple[int, int]) -> PackedMasks:
        return self._backend.masks(encoded, sets, tile_shape, multimask=self._multimask, window=self._window)


def mask_prompts(outlines: npt.NDArray[np.object_], tile_shape: tuple[int, int], low: tuple[int, int]) -> Tensor:
    """Outlines as SAM takes mask prompts.

    Parameters
    ----------
    outlines : (n,) polygons in tile px.
    tile_shape, low : (height, width) of the tile and of the low-res grid that the decoder works on.

    Returns
    -------
    (n, 1, *low) float32 logits: `MASK_LOGIT` inside, its negative outside, between them by the share of each low-res
    pixel that lies inside (sampled at 4 x 4 places).
    """
    import shapely
    from rasterio.features import rasterize

    fine = (4 * low[0], 4 * low[1])
    scale = np.array([fine[1] / tile_shape[1], fine[0] / tile_shape[0]])
    share = torch.empty(len(outlines), 1, *low)
    for i, outline in enumerate(shapely.transform(outlines, lambda xy: xy * scale)):
        inside = rasterize([outline], out_shape=fine, dtype=np.uint8)
        share[i] = F.avg_pool2d(torch.from_numpy(inside).float()[None], 4)
    return (2 * share - 1) * MASK_LOGIT


def _no_masks() -> PackedMasks:
    none = torch.zeros(0)
    return PackedMasks(none.int().view(0, 4), none.bool(), none.long(), none)
