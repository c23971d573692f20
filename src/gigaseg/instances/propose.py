"""The propose step: the points that a segmenter proposes on the tiles of a shard, part by part and resumable."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gigaseg.config import SegmenterConfig
from gigaseg.errors import SegmenterError
from gigaseg.instances.job import Job, Parts, device_of
from gigaseg.instances.pipeline import run_parts
from gigaseg.instances.stages import Step
from gigaseg.prompts.proposals import PROPOSALS_FORMAT, read_proposals, write_proposals
from gigaseg.prompts.proposed import TileProposals, in_slide

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Proposals, Proposer, Segmenter, TileBatch
    from gigaseg.tiles.tiling import Tile

log = logging.getLogger(__name__)


def propose(
    info: str | Path,
    grid: str | Path,
    shard: int,
    out: str | Path,
    *,
    segmenter: SegmenterConfig,
    tiles: str | Path | None = None,
    object_diameter: float | None = None,
    workers: int = 1,
    digest: str = "",
) -> int:
    """Let a segmenter propose points on the tiles of a shard.

    Parameters
    ----------
    info, grid : slide.json and grid.parquet.
    shard : number of the shard.
    out : the table of points to write.
    segmenter : which one, and how; one that needs prompts and finds them itself (`Card.proposes`).
    tiles : tile store of the shard; None: read from the slide.
    object_diameter : typical object diameter in the slide's unit, where the preset states one.
    workers : as of `gigaseg.instances.segment.segment`.
    digest : of the step; unfinished work of another digest is discarded.

    Returns
    -------
    Number of points.

    Raises
    ------
    UserError
        The segmenter proposes no points, its options are wrong, or an input is damaged.
    """
    job = Job.open(
        info, grid, shard, segmenter, digest, tiles=Path(tiles) if tiles else None, object_diameter=object_diameter
    )
    if not job.card.proposes:
        raise SegmenterError(f"segmenter '{job.card.name}' proposes no points; run segment without this step")
    target, classes = Path(out), job.card.classes
    if not job.chosen:
        write_proposals(target, TileProposals.concat([], len(classes)), classes, job.metadata)
        return 0
    job = replace(job, device=device_of(job))
    parts = Parts.beside(target, "propose", PROPOSALS_FORMAT, job)
    ran = run_parts(job, Step(_propose_tiles, _write_part), parts, workers)
    found = [read_proposals(part) for part in ran.files]
    classes = found[0][1]
    points = TileProposals.concat([some for some, _, _ in found], len(classes))
    write_proposals(target, points, classes, job.metadata)
    parts.remove()
    log.info("slide '%s' shard %d: %d points in %d tiles", job.info.slide, shard, len(points), len(job.chosen))
    return len(points)


def _propose_tiles(job: Job, segmenter: Segmenter, batch: TileBatch) -> list[Proposals]:
    """The points that a segmenter proposes on tiles."""
    return cast("Proposer", segmenter).propose(batch)


def _write_part(
    job: Job, tiles: Sequence[Tile], found: Sequence[Proposals | None], told: Mapping[str, Any], part: Path
) -> None:
    """Put the points of some tiles into the slide's frame."""
    classes = told["classes"]
    some = [(points, tile) for points, tile in zip(found, tiles) if points is not None]
    points = in_slide([points for points, _ in some], [tile for _, tile in some], len(classes))
    write_proposals(part, points, classes, job.metadata)
