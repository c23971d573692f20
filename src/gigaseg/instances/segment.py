"""The segment step: the tiles of a shard in, its instance table out, batch by batch and resumable."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg.config import SegmenterConfig
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.exemplar import exemplar_files
from gigaseg.files import same_slide
from gigaseg.instances.batches import Job, Parts, device_of, run_batches
from gigaseg.instances.classes import ClassTable
from gigaseg.instances.table import INSTANCES_FORMAT, Instances, read_instances
from gigaseg.prompts.counts import FATES, of_file, of_slide, total
from gigaseg.prompts.table import PromptTable
from gigaseg.segmenters.card import Card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

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
    workers : processes of one thread each where the CPU computes; the result is the same for any number. A model too
        large to be held several times gets one process with so many threads.
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
    found = [read_instances(part, stitched=False) for part in run_batches(job, _segment_batch, parts, workers)]
    instances = Instances.concat([rows for rows, _ in found])
    metadata = job.metadata
    if prompted is not None:
        metadata["prompts"] = of_slide(batch_metadata for _, batch_metadata in found)
    if "back_ends" in found[0][1]:
        metadata["back_ends"] = found[0][1]["back_ends"]
    instances.write(target, metadata)
    parts.remove()
    log.info("slide '%s' shard %d: %d instances in %d tiles", job.info.slide, shard, len(instances), len(job.chosen))
    if prompted is not None and card.needs_prompts:
        _log_prompts(metadata["prompts"])
    return len(instances)


def _segment_batch(job: Job, segmenter: Segmenter, batch: TileBatch, real: int, part: Path) -> None:
    """Segment one batch and write its part."""
    from gigaseg.instances.prompts import tile_prompts
    from gigaseg.instances.tile import tile_rows
    from gigaseg.segmenters.base import NO_PROMPTS

    tiles = batch.tiles[:real]
    prompts = [tile_prompts(job.prompts, tile) for tile in tiles] if job.prompts is not None else []
    padded = prompts + [NO_PROMPTS] * (len(batch.tiles) - real) if prompts else []
    found = segmenter.segment(replace(batch, prompts=padded))
    classes = ClassTable(segmenter.card.classes, job.class_names)
    if not (job.card.needs_annotations or job.card.needs_prompts_file):
        classes.check(job.card.name)
    counts = Counter(objects=sum(len(p.id) for p in prompts))
    exclusive = job.metadata["overlaps"] == "exclusive"
    rows = [
        tile_rows(classes.apply(instances), tile, job.grid.tiling, classes.names, exclusive=exclusive, counts=counts)
        for tile, instances in zip(tiles, found)
    ]
    metadata = job.metadata
    if back_ends := getattr(segmenter, "back_ends", None):
        metadata = {**metadata, "back_ends": back_ends}
    if "objects" in metadata.get("prompts", {}):
        metadata = {**metadata, "prompts": {**metadata["prompts"], **counts}}
    Instances.concat(rows).write(part, metadata)


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
    if Tiling.from_dict(metadata["grid"]) != kept.tiling:
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
