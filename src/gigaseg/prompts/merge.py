"""The prompt step for a segmenter that proposes its own points: those of all shards, merged over the slide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gigaseg.config import SegmenterConfig
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.files import same_slide
from gigaseg.prompts.proposals import read_proposals
from gigaseg.prompts.proposed import MergedPoints, TileProposals, merge_points
from gigaseg.prompts.table import POINT, POSITIVE, PromptTable
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.segmenters.base import Context, Proposals, Proposer
from gigaseg.segmenters.card import Card, read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)


def merge_proposals(
    info: str | Path,
    grid: str | Path,
    out: str | Path,
    *,
    proposals: Sequence[str | Path],
    segmenter: SegmenterConfig,
    object_diameter: float | None = None,
    digest: str = "",
) -> PromptTable:
    """Merge the points that a segmenter proposed on all shards of a slide; write prompts.parquet.

    Each point is one object, which belongs to the tile in which it lies most centrally
    (`gigaseg.prompts.proposed.merge_points`). How many points were proposed and left out stands in the log and under
    ``found`` in the file's metadata.

    Parameters
    ----------
    info, grid : slide.json and grid.parquet.
    out : prompts.parquet.
    proposals : prompts/NNN.parquet of all shards, in any order.
    segmenter : the one that proposed them; it says which points are repeats of others.
    object_diameter : typical object diameter in the slide's unit, where the preset states one.

    Raises
    ------
    UserError
        The segmenter proposes no points, or a file is missing, damaged or foreign.
    """
    slide_info, kept, card = SlideInfo.read(info), Grid.read(grid), read_card(segmenter.name)
    same_slide(slide_info.slide, kept.slide, grid)
    if not card.proposes:
        raise SegmenterError(f"segmenter '{card.name}' proposes no points; accepted: prompts from a file, or none")
    found, classes = _read(proposals, kept, card)

    def merge(points: Proposals) -> npt.NDArray[np.int64]:
        wanted = segmenter.checkpoint or card.checkpoint
        context = Context(
            info=slide_info,
            tiling=kept.tiling,
            checkpoint=checkpoint_path(wanted) if wanted else None,
            object_diameter=object_diameter,
            options=card.complete(segmenter.options),
        )
        return cast(Proposer, load_segmenter(card.name, context)).merge(points)

    merged = merge_points(merge, found, (kept.row, kept.col), kept.tiling)
    table = _table(merged, kept, classes)
    metadata = {"found": merged.counts, "grid": kept.tiling.to_dict(), "segmenter": card.name}
    table.write(out, slide_info.slide, metadata, digest)
    log.info(
        "slide '%s': %d points proposed; %d beyond the slide and %d near borders of tiles that others see better are "
        "left out, %d are repeats; %d objects in %d tiles",
        slide_info.slide, *merged.counts.values(), len(np.unique(merged.owner)),
    )  # fmt: skip
    return table


def _read(paths: Sequence[str | Path], kept: Grid, card: Card) -> tuple[TileProposals, tuple[str, ...]]:
    """The points of all shards and their classes; a shard without points has no say in these."""
    parts: list[TileProposals] = []
    shards: list[int] = []
    classes = card.classes
    for path in paths:
        points, named, metadata = read_proposals(path)
        same_slide(kept.slide, metadata["slide"], path)
        if Tiling.of_file(path, metadata) != kept.tiling:
            raise FormatError(f"{path}: made for another grid; run propose again")
        if metadata["segmenter"] != card.name:
            raise FormatError(f"{path}: proposed by segmenter '{metadata['segmenter']}', expected '{card.name}'")
        if len(points) and any(map(len, parts)) and named != classes:
            raise FormatError(f"{path}: classes are {', '.join(named)}, expected {', '.join(classes)} as in the others")
        classes = named if len(points) else classes
        parts.append(points)
        shards.append(int(metadata["shard"]))
    if sorted(shards) != list(range(kept.shards)):
        told = ", ".join(map(str, sorted(shards))) or "none"
        raise FormatError(
            f"--proposals: shards {told} of slide '{kept.slide}', expected 0 .. {kept.shards - 1}, each once"
        )
    return TileProposals.concat(parts, len(classes)), classes


def _table(merged: MergedPoints, kept: Grid, classes: tuple[str, ...]) -> PromptTable:
    """One positive point an object."""
    points = merged.points
    n = len(points.xy)
    numbers: npt.NDArray[Any] = np.arange(n, dtype=np.int64)
    return PromptTable(
        tile_row=kept.row[merged.owner].astype(np.int32),
        tile_col=kept.col[merged.owner].astype(np.int32),
        object=numbers,
        kind=np.full(n, POINT, np.int8),
        xy=points.xy,
        box=np.full((n, 4), np.nan),
        label=np.full(n, POSITIVE, np.int8),
        class_index=points.class_prob.argmax(axis=1).astype(np.int32),
        score=points.score,
        feature=numbers,
        geometry=np.full(n, None, dtype=object),
        classes=classes,
        class_prob=points.class_prob,
    )
