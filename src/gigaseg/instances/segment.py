"""The segment step: the tiles of a shard in, its instance table out, part by part and resumable."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg.config import SegmenterConfig
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.exemplar import exemplar_files
from gigaseg.files import read_metadata, same_slide
from gigaseg.instances.classes import ClassTable
from gigaseg.instances.job import Job, Parts, device_of
from gigaseg.instances.pipeline import run_parts
from gigaseg.instances.stages import Step
from gigaseg.instances.table import INSTANCES_FORMAT, Instances, join_parts
from gigaseg.instances.tile import HostInstances, tile_rows
from gigaseg.prompts.counts import FATES, of_file, of_slide, total
from gigaseg.prompts.table import PromptTable
from gigaseg.runrecord import note
from gigaseg.segmenters.card import Card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tile, Tiling

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Segmenter, TileBatch

log = logging.getLogger(__name__)


def segment(
    info: str | Path,
    grid: str | Path,
    shard: int,
    out: str | Path,
    *,
    segmenter: SegmenterConfig,
    tiles: str | Path | None = None,
    annotations: str | Path | None = None,
    exemplar: str | Path | None = None,
    prompts: str | Path | None = None,
    object_diameter: float | None = None,
    class_names: Mapping[str, str] | None = None,
    workers: int = 1,
    digest: str = "",
) -> int:
    """Segment the tiles of a shard.

    Parameters
    ----------
    info, grid : slide.json and grid.parquet.
    shard : number of the shard.
    out : the instance table to write.
    segmenter : which one, and how.
    tiles : tile store of the shard; None: read from the slide.
    annotations : polygons for the segmenter that takes them.
    exemplar : polygons or a picture, for a segmenter that is shown what to look for.
    prompts : prompts.parquet, for a segmenter that needs prompts, which looks only at tiles that have some, or takes
        points as hints, which looks at all.
    object_diameter : typical object diameter in the slide's unit, where the preset states one.
    class_names : names of classes of the segmenter and the ones they get; those that get the same become one.
    workers : processes of one thread each where the CPU computes; where one model computes for all (a GPU, or weights
        too large to be held several times) the processes that read and write for it. The result is the same for any
        number.
    digest : of the step; unfinished work of another digest is discarded.

    Returns
    -------
    Number of instances.

    Raises
    ------
    UserError
        The segmenter is unknown, its options or side files are wrong, or an input is damaged. A CheckpointError when
        weights are missing or not the ones of their name, a DeviceError when the device is not there.
    """
    job = Job.open(
        info,
        grid,
        shard,
        segmenter,
        digest,
        tiles=Path(tiles) if tiles else None,
        annotations=Path(annotations) if annotations else None,
        exemplar=Path(exemplar) if exemplar else None,
        object_diameter=object_diameter,
        class_names=dict(class_names or {}),
    )
    card = job.card
    prompted, told = _read_prompts(prompts, card, job.info, job.grid)
    job.metadata.update({"overlaps": segmenter.overlaps or card.overlaps, "outlines": card.outlines})
    if prompted is not None:
        job.metadata["prompts"] = {**(total([]) if card.needs_prompts else {}), "file": told}
        if card.needs_prompts:
            chosen = [tile for tile in job.chosen if len(prompted.rows_of(tile.row, tile.col))]
            job = replace(job, chosen=chosen)
    target = Path(out)
    if not job.chosen:
        names = ClassTable(card.classes, job.class_names).names
        Instances.empty(names).write(target, job.metadata)
        return 0
    job = replace(job, prompts=prompted, device=device_of(job))
    shown = [*(exemplar_files(job.exemplar) if job.exemplar else []), *card.files(job.metadata["options"])]
    parts = Parts.beside(target, "segment", INSTANCES_FORMAT, job, (annotations, prompts, *shown))
    # a resumed job did only the rest
    note(tiles=len(job.chosen), tiles_made=sum(len(parts.of(part)) for part in parts.missing()), device=job.device)
    ran = run_parts(job, Step(_segment_tiles, _write_part), parts, workers)
    of_parts = [read_metadata(part, INSTANCES_FORMAT) for part in ran.files]
    metadata = job.metadata | told_by(of_parts)
    if prompted is not None:
        metadata["prompts"] = of_slide(of_parts)
    count = join_parts(ran.files, target, metadata)
    parts.remove()
    log.info("slide '%s' shard %d: %d instances in %d tiles", job.info.slide, shard, count, len(job.chosen))
    if prompted is not None and card.needs_prompts:
        _log_prompts(metadata["prompts"])
    return count


def told_by(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the metadata of some parts tell of the run: back ends, and the least size to which batches were halved."""
    back_ends = [part["back_ends"] for part in parts if "back_ends" in part]
    halved = [part["batch_halved_to"] for part in parts if "batch_halved_to" in part]
    told = {"back_ends": back_ends[-1]} if back_ends else {}
    return {**told, "batch_halved_to": min(halved)} if halved else told


def _segment_tiles(job: Job, segmenter: Segmenter, batch: TileBatch) -> list[HostInstances]:
    """What a segmenter finds on tiles, by the classes of the results."""
    from gigaseg.instances.prompts import tile_prompts
    from gigaseg.instances.transfer import to_host

    prompts = [] if job.prompts is None else [tile_prompts(job.prompts, tile) for tile in batch.tiles]
    found = segmenter.segment(replace(batch, prompts=prompts))
    classes = ClassTable(segmenter.card.classes, job.class_names)
    named = [classes.apply(instances) for instances in found]
    hosts = to_host(named, batch.tiles, job.grid.tiling, exclusive=job.metadata["overlaps"] == "exclusive")
    return [replace(host, prompts=len(p.id)) for host, p in zip(hosts, prompts)] if prompts else hosts


def _write_part(
    job: Job, tiles: Sequence[Tile], found: Sequence[HostInstances | None], told: Mapping[str, Any], part: Path
) -> None:
    """Outline the instances of some tiles."""
    names = ClassTable(told["classes"], job.class_names).names
    counts = Counter(objects=sum(host.prompts for host in found if host is not None))
    rows = [
        tile_rows(host, tile, job.grid.tiling, names, counts=counts)
        for host, tile in zip(found, tiles)
        if host is not None
    ]
    metadata = job.metadata | {key: value for key, value in told.items() if key != "classes"}
    if "objects" in metadata.get("prompts", {}):
        metadata = {**metadata, "prompts": {**metadata["prompts"], **counts}}
    Instances.concat([Instances.empty(names), *rows]).write(part, metadata)


def _read_prompts(
    path: str | Path | None, card: Card, info: SlideInfo, kept: Grid
) -> tuple[PromptTable | None, dict[str, int]]:
    """The prompts, where the segmenter needs or takes some, and what the prompt step counted."""
    if not (card.needs_prompts or (card.takes_points and path is not None)):
        return None, {}
    if path is None:
        raise SegmenterError(f"segmenter '{card.name}' needs prompts; give prompts.parquet, which `prompt` writes")
    table, metadata = PromptTable.read(path)
    same_slide(info.slide, metadata["slide"], path)
    if Tiling.of_file(path, metadata) != kept.tiling:
        raise FormatError(f"{path}: made for another grid; run prompt again")
    if metadata.get("every_tile", False) != card.takes_points:
        way = "with" if card.takes_points else "without"
        raise FormatError(f"{path}: segmenter '{card.name}' takes prompts made {way} --every-tile; run prompt again")
    if card.proposes and metadata.get("segmenter") != card.name:
        raise FormatError(f"{path}: segmenter '{card.name}' takes the points that it proposed itself; run prompt again")
    return table, of_file(metadata.get("found", {}))


def _log_prompts(counts: dict[str, Any]) -> None:
    lost = [f"{counts[name]} {what}" for name, what in FATES.items() if name not in ("objects", "instances")]
    usual = counts["instances"] + counts["faint"] + counts["repeats"]  # of points that a segmenter proposes
    level = logging.INFO if usual == counts["objects"] else logging.WARNING
    log.log(level, "%d of %d objects have an instance; %s", counts["instances"], counts["objects"], ", ".join(lost))
