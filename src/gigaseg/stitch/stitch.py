"""The stitch step: instances of all shards in, instances of the slide out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from gigaseg.errors import ConfigError
from gigaseg.files import parquet_writer, same_slide
from gigaseg.instances.table import (
    PLAIN_COLUMNS,
    ROW_GROUP,
    STITCHED_FORMAT,
    Instances,
    instances_from_arrow,
    with_geo_metadata,
)
from gigaseg.progress import Progress
from gigaseg.runner import open_runner
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.ground import Flat, Ground, ground_of
from gigaseg.stitch.blocks import Cuts, Found, cut_into_blocks, find_pairs, pairs_of, scan
from gigaseg.stitch.decisions import Decisions
from gigaseg.stitch.frontier import Frontier, gather
from gigaseg.stitch.merge import Links, Nodes, Plan, plan
from gigaseg.stitch.rows import Redraw, numbered_rows, redrawn_run, stitched_run, stitched_table
from gigaseg.stitch.seam import Seam, reaches
from gigaseg.stitch.united import unite
from gigaseg.tiles.grid import Grid

log = logging.getLogger(__name__)

BLOCK = 10_000
"""Tile instances of a block: some 10 MB of pixel outlines. The result does not depend on it."""

RUNS_AT_ONCE = 2
"""Runs of rows prepared at a time, some 50 MB each: two keep the one who writes them busy."""


@dataclass(frozen=True)
class StitchCounts:
    """What happened at the seams: numbers for the log and for summary.json.

    Attributes
    ----------
    tile_instances, instances : before and after; their difference is joined + dropped.
    matched : pairs of tile instances that agree.
    joined : tile instances that became part of another instance.
    unions : objects put together from pieces, none of which was whole.
    single : tile instances that reach into the area another kept tile saw, and nothing there agreed with them.
    conflicts : pairs of objects that contradict each other: one lies in the other, no tile drew both.
    dropped : objects that gave way to a contradicting one.
    skipped : joins left out because they would have put two whole instances of one tile together.
    cut : instances left with an edge at a tile border beyond which no tile was kept.
    unmatched : tile instances that touch a border beyond which a kept tile sees on, where nothing was joined to them.
    unconfirmed : joins along seams of tiles without overlap, where no data can confirm them.
    """

    tile_instances: int
    instances: int
    matched: int
    joined: int
    unions: int
    single: int
    conflicts: int
    dropped: int
    skipped: int
    cut: int
    unmatched: int
    unconfirmed: int


def stitch_instances(instances: Instances, grid: Grid, agreement: float = 0.5) -> tuple[Instances, StitchCounts]:
    """Join the tile instances of a slide (design.md §5) in memory.

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
    tiling, classes = grid.tiling, instances.classes
    sides = grid.open_sides(instances.tile_row, instances.tile_col)
    box = shapely.bounds(instances.geometry).reshape(-1, 4)
    near = np.flatnonzero(reaches(box, instances.tile_row, instances.tile_col, grid))
    seam = Seam(
        row=near,
        geometry=instances.geometry[near],
        box=box[near],
        tile_row=instances.tile_row[near].astype(np.int64),
        tile_col=instances.tile_col[near].astype(np.int64),
        cut=instances.cut[near],
        open_sides=sides[near],
        score=instances.score[near],
        prompt=instances.prompt[near],
    )
    found = pairs_of(seam, tiling, agreement, None, Cuts.of(instances.cut, sides))
    tally, decisions = _Tally(len(instances), tiling.overlap), Decisions(len(instances))
    tally.found(found)
    _decide(*gather([(found.nodes, found.links)]), agreement, decisions, tally)
    decided = decisions.of(0, len(instances))
    mine = decided.union.member_row
    united = None
    if len(mine):
        united = unite(decided.union, instances.geometry[mine], instances.score[mine], instances.class_prob[mine])
    table = stitched_table(instances.to_arrow(), grid, classes, decided, united)
    return instances_from_arrow(table, classes), tally.counts()


def stitch(
    shards: Sequence[str | Path],
    grid: str | Path,
    out: str | Path,
    *,
    agreement: float = 0.5,
    tolerance: float | None = None,
    simplify: float | None = None,
    info: str | Path | None = None,
    digest: str = "",
    workers: int = 1,
    scheduler: str | None = None,
    block: int = BLOCK,
) -> StitchCounts:
    """Read instances/NNN.parquet of every shard, write instances.parquet.

    Parameters
    ----------
    shards : the tables, in any order.
    grid : grid.parquet.
    out : the file to write: the same bytes for every number of workers, scheduler and block size.
    agreement : least agreement inside the shared area at which two instances are one object, in (0, 1].
    tolerance : of `gigaseg.instances.footprints.regularise`, in the unit of the grid; None: no right angles.
    simplify : of `gigaseg.instances.simplified.simplify`, likewise; None: no corner is left out.
    info : slide.json, which tells what a length is where an outline lies; None: the grid's size of a pixel counts.
    digest : of the step.
    workers, scheduler : who works on the blocks, see `gigaseg.runner.open_runner`.
    block : tile instances of a block; sets the memory of a worker.

    Raises
    ------
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or of another slide or grid.
    ConfigError
        No cluster answers, or `workers`, `scheduler`, `block` or a tolerance is not accepted, or both are given.
    """
    if block < 1:
        raise ConfigError(f"--block is {block}, accepted: a whole number >= 1")
    for name, value in (("regularise", tolerance), ("simplify", simplify)):
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} is {value:g}, accepted: a number above 0")
    if tolerance is not None and simplify is not None:
        raise ConfigError("--regularise and --simplify are both given, accepted: one of them")
    kept = Grid.read(grid)
    layout, metadata = scan(shards, kept, grid)
    tally, decisions, frontier = _Tally(len(layout), kept.tiling.overlap), Decisions(len(layout)), Frontier()
    with open_runner(workers, scheduler) as runner:
        tasks = [(first, last, agreement) for first, last in cut_into_blocks(layout, block)]
        with Progress("stitch, matching", "tile instances", len(layout)) as progress:
            for (_, last, _), found in zip(tasks, runner.map(find_pairs, layout, tasks)):
                tally.found(found)
                final = frontier.add(found.nodes, found.links, int(layout.row_start[last]))
                _decide(*final, agreement, decisions, tally)
                progress.at(int(layout.row_start[last]))
        counts = tally.counts()
        schema = with_geo_metadata(_empty(layout.classes).to_arrow()).schema
        provenance = {
            **{name: value for name, value in metadata.items() if name != "shard"},
            "format": STITCHED_FORMAT,
            "classes": list(layout.classes),
            "digest": digest,
            "stitch": asdict(counts),
            "agreement": agreement,
        }
        run = stitched_run
        if tolerance is not None or simplify is not None:
            stepped = metadata.get("outlines") == "pixels"
            run = partial(redrawn_run, Redraw(tolerance, simplify, stepped, _ground(info, kept)))
            asked = {"regularise": tolerance, "simplify": simplify}
            provenance |= {name: value for name, value in asked.items() if value is not None} | {"outlines": "vector"}
        runs = layout.runs(ROW_GROUP)
        rows = runner.map(run, layout, (decisions.of(begin, end) for begin, end in runs), RUNS_AT_ONCE)
        with (
            parquet_writer(out, schema, provenance, PLAIN_COLUMNS) as writer,
            Progress("stitch, writing", "tile instances", len(layout)) as progress,
        ):
            rows = progress.over(rows, (end - begin for begin, end in runs))
            tables = (table.cast(pa.schema(list(schema))) for table in numbered_rows(rows, ROW_GROUP))
            runner.consume(partial(writer.write_table, row_group_size=ROW_GROUP), tables)
    log.info("slide '%s': %s", kept.slide, ", ".join(f"{name} {value}" for name, value in asdict(counts).items()))
    if counts.unconfirmed:
        log.warning("tiles do not overlap: %d joins along seams cannot be confirmed", counts.unconfirmed)
    if counts.conflicts:
        log.warning("%d pairs of objects contradict each other; %d objects dropped", counts.conflicts, counts.dropped)
    if counts.unmatched and kept.tiling.overlap:
        log.warning("%d instances are cut at a seam, and nothing beyond it was joined to them", counts.unmatched)
    return counts


def _ground(info: str | Path | None, grid: Grid) -> Ground:
    if info is None:
        x, y = np.asarray(grid.tiling.pixel_size) / grid.tiling.scale
        return Flat((float(x), float(y)))
    slide = SlideInfo.read(info)
    same_slide(slide.slide, grid.slide, info)
    return ground_of(slide)


def _empty(classes: Sequence[str]) -> Instances:
    return replace(Instances.empty(classes), members=np.empty(0, np.int16))


def _decide(nodes: Nodes, links: Links, agreement: float, decisions: Decisions, tally: _Tally) -> None:
    outcome = plan(nodes, links, agreement)
    decisions.add(outcome)
    tally.decided(nodes, links, outcome)


class _Tally:
    """`StitchCounts` in the making."""

    def __init__(self, rows: int, overlap: int) -> None:
        self.overlap = overlap
        self.numbers = Counter({f.name: 0 for f in fields(StitchCounts)})
        self.numbers.update(tile_instances=rows, instances=rows)

    def found(self, found: Found) -> None:
        """Count what a block found; without what becomes of it, all is single, cut and unmatched."""
        self.numbers.update(single=found.reaching, cut=found.cuts.left, unmatched=found.cuts.kept)

    def decided(self, nodes: Nodes, links: Links, outcome: Plan) -> None:
        """Count what becomes of some objects."""
        matched = np.zeros(len(nodes.row), bool)
        matched[links.first] = matched[links.second] = True
        lost = np.isin(nodes.row, outcome.gone) | np.isin(nodes.row, outcome.lead)
        joined = len(outcome.gone) - outcome.dropped
        self.numbers.update(
            instances=-len(outcome.gone),
            matched=len(links.first),
            joined=joined,
            unions=len(outcome.united),
            single=-int(matched.sum()),
            conflicts=outcome.conflicts,
            dropped=outcome.dropped,
            skipped=outcome.skipped,
            cut=int((outcome.cut_left > 0).sum()) - int((nodes.cut_left[lost] > 0).sum()),
            unmatched=-int(nodes.cut_kept[lost].sum()),
            unconfirmed=0 if self.overlap else joined,
        )

    def counts(self) -> StitchCounts:
        """The numbers so far."""
        return StitchCounts(**self.numbers)
