"""The stitch step: instances of all shards in, instances of the slide out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from gigaseg.errors import FormatError
from gigaseg.instances.table import Instances, read_instances
from gigaseg.stitch.match import match
from gigaseg.stitch.merge import join, represent
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StitchCounts:
    """What happened at the seams: numbers for the log and for summary.json.

    Attributes
    ----------
    tile_instances, instances : before and after.
    joined : tile instances that became part of another instance.
    unions : objects put together from pieces, none of which was whole.
    skipped : joins left out because they would have put two whole instances of one tile together.
    cut : instances left with an edge at a tile border beyond which no tile was kept.
    unconfirmed : joins along seams of tiles without overlap, where no data can confirm them.
    """

    tile_instances: int
    instances: int
    joined: int
    unions: int
    skipped: int
    cut: int
    unconfirmed: int


def stitch_instances(instances: Instances, grid: Grid, agreement: float = 0.5) -> tuple[Instances, StitchCounts]:
    """Join the tile instances of a slide (design.md §5).

    Parameters
    ----------
    instances : tile instances of all shards, in any order of tiles, working px.
    grid : the kept tiles.
    agreement : least agreement inside the shared area at which two instances are one object, in (0, 1].

    Returns
    -------
    Instances in level-0 px ordered by the place of their representative, and the counts.
    """
    instances = instances.take(np.lexsort((instances.tile_col, instances.tile_row)))
    tiling = grid.tiling
    open_sides = grid.open_sides(instances.tile_row, instances.tile_col)
    # a border without a kept neighbour counts too: beyond it the object may run on and come back through another tile
    whole = instances.cut == 0
    edges = match(instances, whole, tiling, agreement)
    groups = join(edges, whole, instances.tile_row.astype(np.int64) * tiling.cols + instances.tile_col)
    result = represent(instances, groups, whole, open_sides, tiling)
    some_whole = np.zeros(groups.count, bool)
    some_whole[groups.group[whole]] = True
    counts = StitchCounts(
        tile_instances=len(instances),
        instances=len(result),
        joined=len(instances) - len(result),
        unions=int(((np.bincount(groups.group, minlength=groups.count) > 1) & ~some_whole).sum()),
        skipped=groups.skipped,
        cut=int((result.cut > 0).sum()),
        unconfirmed=0 if tiling.overlap else len(instances) - len(result),
    )
    return to_level0(result, tiling.scale), counts


def to_level0(instances: Instances, scale: tuple[float, float]) -> Instances:
    """The same instances with geometry in level-0 px."""
    coordinates = shapely.get_coordinates(instances.geometry) * np.asarray(scale)
    shapely.set_coordinates(instances.geometry, coordinates)
    return instances


def stitch(
    shards: Sequence[str | Path],
    grid: str | Path,
    out: str | Path,
    *,
    agreement: float = 0.5,
    digest: str = "",
) -> StitchCounts:
    """Read instances/NNN.parquet of every shard, write instances.parquet.

    Raises
    ------
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or of another slide or grid.
    """
    kept = Grid.read(grid)
    parts, metadata = [], None
    for path in shards:
        part, found = read_instances(path, stitched=False)
        if found["slide"] != kept.slide or Tiling.from_dict(found["grid"]) != kept.tiling:
            raise FormatError(
                f"{path}: made for slide '{found['slide']}' on another grid than {grid}; run segment again"
            )
        parts.append(part)
        metadata = metadata or found
    if metadata is None or len(parts) != kept.shards:
        raise FormatError(f"{grid}: {kept.shards} shards, but {len(parts)} instance tables given")
    result, counts = stitch_instances(Instances.concat(parts), kept, agreement)
    result.write(out, {**metadata, "digest": digest, "stitch": counts.__dict__, "agreement": agreement})
    log.info("slide '%s': %s", kept.slide, ", ".join(f"{name} {value}" for name, value in counts.__dict__.items()))
    if counts.unconfirmed:
        log.warning("tiles do not overlap: %d joins along seams cannot be confirmed", counts.unconfirmed)
    return counts
