"""Any segmenter on an image in memory: scaled, cut into tiles, put together again.

For validation while training, for benchmarks and for notebooks; slides go through the workflow. Needs numpy, Pillow and
torch alone, so that it runs where a model trains. Where tiles overlap it follows the rule of `gigaseg.stitch` on pixels
instead of outlines (`gigaseg.segmenters.pieces`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SegmenterError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.prompts.proposed import in_slide, merge_points, point_prompts
from gigaseg.segmenters.base import Prompts, Proposals, Proposer, Segmenter, TileBatch
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.pieces import Piece, objects, painted, pieces_of
from gigaseg.slides.resample import resample
from gigaseg.tiles.tiling import Tile, Tiling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_Labels = npt.NDArray[np.int32]
_Image = npt.NDArray[np.uint8]

STEP = 128
"""Tiles of small images shrink to a multiple of this, px: every model takes it."""

LOOKS, LOOK_AGAIN = 3, 1.2
"""Most looks that `estimate_diameter` takes; a further one only when objects differ from the nominal diameter by more
than this factor. Chosen, like the weights of its median, on the training images of the 2018 Data Science Bowl."""

SCALES = (0.125, 4.0)
"""Least and greatest scale of those looks."""


@dataclass(frozen=True)
class Found:
    """The n instances of an image.

    Attributes
    ----------
    labels : (y, x) int32, 0 background, 1..n the instances.
    class_index : (n,) int32 into the segmenter's classes.
    scores : (n,) float32 in [0, 1].
    """

    labels: _Labels
    class_index: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


def segment_image(segmenter: Segmenter, image: _Image, **settings: Any) -> _Labels:
    """Segment an image of any size.

    Parameters
    ----------
    settings : further options of `segment_objects`.

    Returns
    -------
    (y, x) int32, 0 background, 1..n the instances.
    """
    return segment_objects(segmenter, image, **settings).labels


def segment_objects(
    segmenter: Segmenter,
    image: _Image,
    *,
    scale: float = 1.0,
    tile: int = 512,
    overlap: int = 64,
    batch: int = 4,
    step: int | None = STEP,
    lower_on_top: bool = False,
    device: str = "cpu",
) -> Found:
    """Segment an image of any size; the instances with classes and scores.

    A segmenter that proposes its own prompts does so on all tiles first; the points are merged over the image, and each
    is decoded in the tile in which it lies most centrally, as in the workflow.

    Parameters
    ----------
    segmenter : one that yields masks by itself.
    image : (y, x, 3) uint8 RGB.
    scale : the segmenter sees the image resized by this factor, with anti-aliasing: its nominal object diameter over
        that of the image's objects, or the image's pixel size over the nominal one.
    tile, overlap : largest side of a tile, and what neighbours share, px after scaling; 0 <= overlap <= tile / 2.
        Beyond the image its mirror image goes on.
    batch : tiles at a time.
    step : tiles are only as large as their number asks for, in steps of so many px: a small image is one small tile.
        None: always `tile`, for a segmenter whose options refer to the tile.
    lower_on_top : a pixel of several instances has the one of the lowest score, as CenterSAM's published code paints.
    device : where the segmenter wants its tiles.

    Returns
    -------
    A pixel of several instances has the one of the highest score; what others cover entirely is not there. Class and
    score of an instance put together from cut pieces are weighted by their areas.

    Raises
    ------
    SegmenterError
        The segmenter needs prompts or annotations from a file, or yields polygons.
    """
    card = segmenter.card
    if (card.needs_prompts and not card.proposes) or card.needs_annotations or card.outlines != "pixels":
        raise SegmenterError(
            f"segmenter '{card.name}' takes prompts or yields polygons; accepted for an image in memory: one that "
            "yields masks by itself"
        )
    height, width = image.shape[:2]
    shape = Shape2d(max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = image if shape == (height, width) else resample(image, Bounds(0, 0, width, height), shape)
    tiling = _tiling(shape, tile, overlap, step)
    batches = _Batches(pixels, tiling, batch, device)
    tiles = [tiling.get(row, col) for row in range(tiling.rows) for col in range(tiling.cols)]
    prompts = _propose(cast(Proposer, segmenter), tiles, batches) if card.proposes else {}
    pieces: list[Piece] = []
    for some in batches.of([place for place in tiles if not card.proposes or len(prompts[place].id)], prompts):
        for place, found in zip(some.tiles, segmenter.segment(some)):
            pieces += pieces_of(found, place, tiling)
    owner = objects(pieces)
    canvas = painted(pieces, owner, shape, lower_on_top)
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((height, width), shape))
    seen, labels = np.unique(canvas[np.ix_(rows, cols)], return_inverse=True)
    if not len(seen) or seen[0] != 0:  # no background
        seen, labels = np.r_[0, seen], labels + 1
    order = np.argsort(owner, kind="stable").tolist()
    ends = np.searchsorted(owner[order], [seen[1:] - 1, seen[1:]]).T.tolist()
    members = [[pieces[i] for i in order[first:end]] for first, end in ends]
    weights = [[int(piece.mask.sum()) for piece in some] for some in members]
    probs = [np.average([piece.class_prob for piece in m], axis=0, weights=w) for m, w in zip(members, weights)]
    scores = [np.average([piece.score for piece in m], weights=w) for m, w in zip(members, weights)]
    return Found(
        labels=labels.reshape(height, width).astype(np.int32),
        class_index=np.array([prob.argmax() for prob in probs], np.int32),
        scores=np.array(scores, np.float32),
    )


def estimate_diameter(segmenter: Segmenter, image: _Image, *, nominal: float | None = None, **settings: Any) -> float:
    """Typical diameter of the objects of an image, by looking: neither truth nor a pixel size is needed.

    The image is segmented as it is; while what is found differs from the diameter that the segmenter is made for, it
    is scaled accordingly and segmented again, a few times at most.

    Parameters
    ----------
    nominal : that diameter, px; None: `object_diameter` of the segmenter's card.
    settings : further options of `segment_objects`, except `scale`.

    Returns
    -------
    Median over the instances of the diameter of the circle of equal area, px of `image`, in which an instance counts
    with its diameter, so that debris hardly counts; NaN when nothing is found.
    """
    wanted = nominal or segmenter.card.object_diameter
    scale, diameter = 1.0, math.nan
    for _ in range(LOOKS):
        found = _median_diameter(segment_image(segmenter, image, scale=scale, **settings))
        if math.isnan(found):
            break
        diameter = found
        fitting = min(max((wanted or found) / found, SCALES[0]), SCALES[1])
        if 1 / LOOK_AGAIN <= fitting / scale <= LOOK_AGAIN:
            break
        scale = fitting
    return diameter


def nominal_tiling(card: Card, overlap: int | None = None) -> Tiling:
    """A grid at the pixel size that `card` names: what a segmenter's context says of an image scaled to suit it.

    Parameters
    ----------
    overlap : what tiles will share, px; None: the card's.
    """
    size, unit = (1.0, "px") if card.pixel_size is None else (card.pixel_size, card.unit)
    shared = card.overlap if overlap is None else overlap
    return Tiling(card.tile, shared, card.tile, card.tile, (1.0, 1.0), (size, size), unit)


class _Batches:
    """Batches of tiles of an image, cut from it when asked for."""

    def __init__(self, pixels: _Image, tiling: Tiling, size: int, device: str) -> None:
        last = tiling.bounds(tiling.rows - 1, tiling.cols - 1)
        beyond = (int(last.ymax) - tiling.height, int(last.xmax) - tiling.width)
        self._padded = np.pad(pixels, ((0, max(0, beyond[0])), (0, max(0, beyond[1])), (0, 0)), mode="symmetric")
        self.tiling, self._size, self._device = tiling, size, device

    def of(self, tiles: Sequence[Tile], prompts: Mapping[Tile, Prompts]) -> Iterator[TileBatch]:
        """The tiles in batches, with the prompts of each where there are some."""
        import torch

        side = self.tiling.tile
        for start in range(0, len(tiles), self._size):
            some = list(tiles[start : start + self._size])
            cut = np.stack([self._padded[y : y + side, x : x + side] for x, y in map(_corner, some)])
            images = torch.from_numpy(cut).permute(0, 3, 1, 2).to(self._device)
            yield TileBatch(images, some, [prompts[tile] for tile in some if tile in prompts])


def _propose(segmenter: Proposer, tiles: Sequence[Tile], batches: _Batches) -> dict[Tile, Prompts]:
    """The prompts of each tile, from the points that the segmenter proposes on all of them."""
    found: list[Proposals] = []
    for some in batches.of(tiles, {}):
        found += segmenter.propose(some)
    places = [np.array([getattr(tile, name) for tile in tiles], np.int32) for name in ("row", "col")]
    points = in_slide(found, tiles, len(segmenter.card.classes))
    merged = merge_points(segmenter.merge, points, places, batches.tiling)
    return {tile: point_prompts(merged, i, tile) for i, tile in enumerate(tiles)}


def _median_diameter(labels: _Labels) -> float:
    """Median diameter of instances 1..n, weighted by the diameter."""
    diameter = np.sort(2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi))
    if not len(diameter):
        return math.nan
    below = diameter.cumsum()
    return float(diameter[np.searchsorted(below, below[-1] / 2)])


def _corner(tile: Tile) -> tuple[int, int]:
    return int(tile.bounds.xmin), int(tile.bounds.ymin)


def _tiling(shape: Shape2d, tile: int, overlap: int, step: int | None) -> Tiling:
    """The grid of an image; its tiles shrink as long as their number stays."""

    def of(side: int) -> Tiling:
        return Tiling(side, overlap, shape.width, shape.height, (1.0, 1.0), (1.0, 1.0), "px")

    grid = of(tile)
    if step is None:
        return grid
    sides = range(step * max(1, math.ceil(2 * overlap / step)), tile, step)
    return next((of(side) for side in sides if (of(side).rows, of(side).cols) == (grid.rows, grid.cols)), grid)
