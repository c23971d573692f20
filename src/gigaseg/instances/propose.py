"""The propose step: the points that a segmenter proposes on the tiles of a shard, batch by batch and resumable."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gigaseg.config import SegmenterConfig
from gigaseg.errors import SegmenterError
from gigaseg.instances.batches import Job, Parts, device_of, run_batches
from gigaseg.prompts.proposals import PROPOSALS_FORMAT, read_proposals, write_proposals
from gigaseg.prompts.proposed import TileProposals, in_slide

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Proposer, Segmenter, TileBatch

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
    workers : processes of one thread each where the CPU computes; the result is the same for any number.
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
    found = [read_proposals(part) for part in run_batches(job, _propose_batch, parts, workers)]
    classes = found[0][1]
    points = TileProposals.concat([some for some, _, _ in found], len(classes))
    write_proposals(target, points, classes, job.metadata)
    parts.remove()
    log.info("slide '%s' shard %d: %d points in %d tiles", job.info.slide, shard, len(points), len(job.chosen))
    return len(points)


def _propose_batch(job: Job, segmenter: Segmenter, batch: TileBatch, real: int, part: Path) -> None:
    """Propose points on one batch and write its part."""
    found = cast("Proposer", segmenter).propose(batch)
    classes = segmenter.card.classes
    write_proposals(part, in_slide(found[:real], batch.tiles[:real], len(classes)), classes, job.metadata)
