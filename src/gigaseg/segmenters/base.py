"""The interface between the segment step and a segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from gigaseg.segmenters.card import Card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import Tile, Tiling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Context:
    """What a segmenter knows of the slide before it sees a tile.

    Attributes
    ----------
    info, tiling : the slide, and its grid at the working resolution (`tiling.pixel_size` in `tiling.unit`).
    device : where the model and its tiles live, as torch names it ("cpu", "cuda:0").
    annotations : file of polygons named in the sample sheet, or None.
    exemplar : what shows a one-shot segmenter what to look for (`gigaseg.exemplar`), or None.
    checkpoint : file of the model weights, or None for a weight-free segmenter.
    classes : classes of the slide's prompts, for a segmenter whose instances have their prompt's class.
    object_diameter : typical object diameter in `tiling.unit` that the preset states, or None.
    options : the segmenter's own options, complete (defaults filled in from its card) and of the card's types.
    """

    info: SlideInfo
    tiling: Tiling
    device: str = "cpu"
    annotations: Path | None = None
    exemplar: Path | None = None
    checkpoint: Path | None = None
    classes: tuple[str, ...] = ()
    object_diameter: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompts:
    """Prompts of one tile in tile px: n objects, each to be decoded once, in this tile.

    For a segmenter that takes points as hints (`Card.takes_points`): n points, each a row with k = 1, which other tiles
    that hold it get too.

    Attributes
    ----------
    id : (n,) int64 row of prompts.parquet, the first of each object.
    points : (n, k, 2) float32 x, y; NaN where a prompt has fewer than k points.
    labels : (n, k) int8: 1 positive, 0 negative, -1 none.
    boxes : (n, 4) float32, NaN rows for prompts without a box; or None.
    masks : n shapely polygons or multipolygons, None for prompts without an outline; or None.
    class_index : (n,) int32 into the classes of the slide's prompts; or None.
    class_prob : (n, classes) float32 probability of each of those classes, for points that a segmenter proposed; or
        None.
    """

    id: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.float32] | None = None
    masks: npt.NDArray[np.object_] | None = None
    class_index: npt.NDArray[np.int32] | None = None
    class_prob: npt.NDArray[np.float32] | None = None


NO_PROMPTS = Prompts(np.empty(0, np.int64), np.empty((0, 0, 2), np.float32), np.empty((0, 0), np.int8))
"""The prompts of a tile that has none."""


@dataclass(frozen=True)
class TileBatch:
    """What a segmenter gets: b tiles of one slide.

    Attributes
    ----------
    images : (b, 3, tile, tile) uint8 RGB on the model's device.
    tiles : place of each tile.
    prompts : prompts of each tile; empty where the slide has none, so for promptless segmenters.
    """

    images: Tensor
    tiles: list[Tile]
    prompts: list[Prompts] = field(default_factory=list)


class Masks(Protocol):
    """Masks one after another: a list, or `gigaseg.sam.packed.PackedMasks`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class TileInstances:
    """What one tile yields; masks may overlap. Tensors stay on the device where they were made.

    Attributes
    ----------
    boxes : (n, 4) int32 xmin, ymin, xmax, ymax in tile px, half-open.
    masks : n bool masks cropped to their boxes; or None when `polygons` is given.
    polygons : n shapely polygons or multipolygons in tile px, for segmenters that start from vectors.
    scores : (n,) float32 in [0, 1].
    class_prob : (n, classes) float32, rows sum to 1.
    prompt : (n,) int64 id of the prompt that each instance comes from (`Prompts.id`), or None without prompts.
    left_out : number of prompted objects without an instance, by reason: "empty", "below_min_score".
    """

    boxes: Tensor
    masks: Masks | None
    scores: Tensor
    class_prob: Tensor
    polygons: npt.NDArray[np.object_] | None = None
    prompt: npt.NDArray[np.int64] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposals:
    """Points that a segmenter proposes as prompts, one an object, of one tile or of a whole slide.

    Attributes
    ----------
    xy : (n, 2) float64 x, y in tile px or working px.
    score : (n,) float32 in [0, 1].
    class_prob : (n, classes) float32, rows sum to 1.
    """

    xy: npt.NDArray[np.float64]
    score: npt.NDArray[np.float32]
    class_prob: npt.NDArray[np.float32]


class Segmenter(Protocol):
    """Finds the instances of each tile of a batch. Built as ``SegmenterClass(card, context)``.

    One that works with exchangeable parts names those it used in an attribute `back_ends`, name by role, which goes
    into the metadata of its instances.
    """

    card: Card

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile of `batch`, in its order; the same tile gives the same instances in any batch."""
        ...


class Proposer(Segmenter, Protocol):
    """A segmenter that finds its own prompts (`Card.proposes`): first the points of all tiles, then the objects."""

    def propose(self, batch: TileBatch) -> list[Proposals]:
        """Points of each tile of `batch`, in its order, in tile px; the same tile gives the same in any batch."""
        ...

    def merge(self, proposals: Proposals) -> npt.NDArray[np.int64]:
        """Which points of a slide stay, of those of all its tiles, in working px: (k,) positions, ascending."""
        ...
