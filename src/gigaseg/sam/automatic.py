"""Automatic mask generation: a grid of points on every image, filtered as segment-anything filters them."""

from __future__ import annotations

import torch

from gigaseg.sam import suppression
from gigaseg.sam.backend import Backend
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.masks import chosen, crop_masks, every, stability
from gigaseg.sam.packed import PackedMasks, pack, to_instances
from gigaseg.sam.prompting import PromptSets, point_sets
from gigaseg.segmenters.base import TileInstances

_LOGITS = 1 << 26
"""Low-res logits held at a time: 256 MB."""


def grid_points(images: int, per_side: int, tile_shape: tuple[int, int]) -> PromptSets:
    """`per_side` x `per_side` evenly spaced points on each of some images, row by row, in tile px."""
    along = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side
    y, x = torch.meshgrid(along * tile_shape[0], along * tile_shape[1], indexing="ij")
    points = torch.stack([x, y], -1).view(-1, 2).float()
    return point_sets(torch.arange(images).repeat_interleave(len(points)), points.repeat(images, 1))


def generate_masks(
    backend: Backend,
    encoded: Encoded,
    tile_shape: tuple[int, int],
    *,
    points_per_side: int = 32,
    pred_iou_thresh: float = 0.88,
    stability_thresh: float = 0.95,
    nms: str = "box",
    nms_thresh: float = 0.7,
    window: int | None = None,
) -> list[TileInstances]:
    """Masks of everything on each image of a batch.

    As `SamAutomaticMaskGenerator` without crops: three masks a point, those kept whose predicted IoU exceeds
    `pred_iou_thresh` and whose stability score reaches `stability_thresh`, then non-maximum suppression by the IoU of
    their boxes. Its defaults.

    Parameters
    ----------
    encoded : of the images, by `backend`.
    tile_shape : (height, width) of an image, px.
    nms, nms_thresh : of two masks whose boxes ("box") or which themselves ("mask") have a greater IoU the one of lower
        score is dropped.
    window : local decoding, cells; masks that reach the edge of a window are cut there. None: the whole embedding.

    Returns
    -------
    list of TileInstances
        One an image; the score is the predicted IoU.
    """
    b, _, h, w = encoded.embedding.shape
    sets = grid_points(b, points_per_side, tile_shape)
    cells = h * w if window is None else min(window, h) * min(window, w)
    step = max(1, _LOGITS // (48 * cells))
    parts: list[PackedMasks] = []
    image = []
    with backend.running():
        for start in range(0, len(sets), step):
            some = sets[slice(start, start + step)]
            decoded = every(backend.decode(encoded, some, tile_shape, multimask=True, window=window))
            shapes = backend.input_shape(tile_shape), tile_shape, (4 * h, 4 * w)
            good = stable(decoded, pred_iou_thresh, stability_thresh, *shapes)
            parts.append(crop_masks(chosen(decoded, good), *shapes))
            image.append(some.image.to(good.device).repeat_interleave(3)[good])
        masks, of = pack(parts), torch.cat(image)
        kept = (suppression.mask_nms if nms == "mask" else suppression.box_nms)(masks, of, nms_thresh)
        return to_instances(masks[kept].compact(), of[kept], b)


def stable(
    decoded: Decoded,
    pred_iou_thresh: float,
    stability_thresh: float,
    input_shape: tuple[int, int],
    tile_shape: tuple[int, int],
    low_shape: tuple[int, int],
) -> torch.Tensor:
    """Positions of the masks that pass both thresholds, ascending; shapes as `crop_masks` takes them."""
    likely = torch.nonzero(decoded.quality[:, 0] > pred_iou_thresh)[:, 0]
    return likely[stability(chosen(decoded, likely), input_shape, tile_shape, low_shape) >= stability_thresh]
