"""From the device to the host: what a segmenter yields for the tiles of a batch, with shared pixels given away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gigaseg.instances.tile import HostInstances
from gigaseg.sam.packed import PackedMasks, label_map
from gigaseg.segmenters.base import TileInstances
from gigaseg.tiles.tiling import Tile, Tiling

T = TypeVar("T", bound=np.generic)


def to_host(
    found: Sequence[TileInstances], tiles: Sequence[Tile], tiling: Tiling, *, exclusive: bool
) -> list[HostInstances]:
    """Bring the instances of a batch's tiles to the host.

    Parameters
    ----------
    exclusive : masks that share pixels are made disjoint on their device, and one picture a tile is brought over; else
        the masks are, in one piece. Polygons are taken as they are.
    """
    return [_one(some, _inside(tile, tiling), exclusive) for some, tile in zip(found, tiles, strict=True)]


def _inside(tile: Tile, tiling: Tiling) -> tuple[int, int]:
    """Height and width of a tile's part inside the slide."""
    height = min(tiling.tile, tiling.height - int(tile.bounds.ymin))
    return height, min(tiling.tile, tiling.width - int(tile.bounds.xmin))


def _one(found: TileInstances, shape: tuple[int, int], exclusive: bool) -> HostInstances:
    host = HostInstances(
        scores=_numpy(found.scores, np.float32),
        class_prob=_numpy(found.class_prob, np.float32),
        polygons=found.polygons,
        prompt=found.prompt,
        left_out=found.left_out,
    )
    if found.polygons is not None:
        return host
    packed = PackedMasks.of(found.boxes, found.masks or [], found.scores)
    if exclusive:
        labels, pixels = label_map(packed, shape)
        empty = int((pixels == 0).sum())
        return replace(host, labels=_numpy(labels, np.int32), empty=empty)
    packed = packed.cpu()
    corners = packed.boxes[:, :2].numpy().astype(np.int64)
    crops = [mask.numpy() for mask in packed.unpack()]
    masks = [mask[: max(0, shape[0] - y), : max(0, shape[1] - x)] for mask, (x, y) in zip(crops, corners)]
    return replace(host, masks=masks, corners=corners, empty=sum(not mask.any() for mask in masks))


def _numpy(values: Tensor, dtype: type[T]) -> npt.NDArray[T]:
    return values.detach().cpu().numpy().astype(dtype)
