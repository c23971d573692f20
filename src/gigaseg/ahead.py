"""What a run has ahead of it: slides, tiles and hours, from the run records of what is done; read without numpy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigaseg.plan import Plan, SlidePlan
from gigaseg.runrecord import peek

MEASURED = {"centersam": 2.4, "watershed": 0.37}
"""Core-seconds a tile on a CPU, for cohorts of which nothing is done yet (results/{shortcuts,whole_slide}.md)."""


@dataclass
class _Preset:
    """What is known of a preset: tiles ahead, and seconds and tiles of the segment jobs that are done."""

    tiles: float = 0.0
    seconds: float = 0.0
    done: int = 0
    shards: int = 0
    on_gpu: bool = False

    def hours(self, segmenter: str) -> float | None:
        """Hours of segment jobs that are ahead; None where nothing tells."""
        a_tile = self.seconds / self.done if self.done else MEASURED.get(segmenter)
        return None if a_tile is None else self.tiles * a_tile / 3600


def ahead(plan: Plan) -> str:
    """One line: how many slides and tiles are ahead, and how many hours of `segment` on a GPU, or without one.

    Tiles are counted where a slide's grid is made, and else estimated from the size of the slide and the share that
    the other slides keep. Hours come from the seconds a tile that the jobs done so far took with the same
    configuration; of a cohort without any from what was measured on a CPU (`MEASURED`).
    """
    records = _read(plan)
    todo, about = _tiles_ahead(plan, records)
    presets: dict[str, _Preset] = defaultdict(_Preset)
    for name, slide in plan.slides.items():
        known, jobs = presets[slide.row.preset], records[name].shards
        known.seconds += sum(job["seconds"] for job in jobs)
        known.done += sum(job["tiles_made"] for job in jobs)
        known.shards += len(jobs)
        known.on_gpu |= any(str(job.get("device")) != "cpu" for job in jobs)
        known.tiles += todo.get(name, 0)
    waiting = f", {len(plan.found.waiting)} still being copied" if plan.found and plan.found.waiting else ""
    said = f"{len(todo)} of {len(plan.slides)} slides are ahead{waiting}"
    tiles = sum(todo.values())
    return f"{said}: {about}{tiles:,.0f} tiles, {_hours(plan, presets)}" if tiles else said


def tiles_ahead(plan: Plan) -> tuple[dict[str, float], str]:
    """Tiles to segment of each slide that is not done, and how sure that is: "", "about " or "up to "."""
    return _tiles_ahead(plan, _read(plan))


@dataclass(frozen=True)
class _Records:
    """What the run records of a slide tell of the present configuration.

    Attributes
    ----------
    is_done : whether the slide is measured and drawn, or failed.
    kept : number of kept tiles; None where the grid is still to be made.
    shards : records of the shards that are segmented.
    """

    is_done: bool
    kept: int | None
    shards: list[dict[str, Any]]


def _read(plan: Plan) -> dict[str, _Records]:
    return {name: _records(Path(plan.config.results, name, "run"), slide) for name, slide in plan.slides.items()}


def _records(folder: Path, slide: SlidePlan) -> _Records:
    def current(step: str, file: str) -> dict[str, Any]:
        record = peek(folder / f"{file}.json")
        return record if record.get("digest") == slide.digests[step] else {}

    shards = (current("segment", f"segment-{shard:03d}") for shard in range(slide.shards))
    return _Records(
        is_done=all(current(step, step) for step in ("measure", "overview")),
        kept=current("grid", "grid").get("tiles"),
        shards=[record for record in shards if "tiles_made" in record],
    )


def _tiles_ahead(plan: Plan, records: dict[str, _Records]) -> tuple[dict[str, float], str]:
    shares = [of.kept / plan.slides[name].tiles for name, of in records.items() if of.kept]
    share = statistics.median(shares) if shares else 1.0
    todo: dict[str, float] = {}
    for name, of in records.items():
        if not of.is_done:
            kept = plan.slides[name].tiles * share if of.kept is None else of.kept
            todo[name] = max(0, kept - sum(job["tiles"] for job in of.shards))
    guessed = any(records[name].kept is None for name in todo)
    return todo, "" if not guessed else "about " if shares else "up to "


def _hours(plan: Plan, presets: dict[str, _Preset]) -> str:
    found = {name: known for name, known in presets.items() if known.tiles}
    hours = {name: known.hours(plan.config.presets[name].segmenter.name) for name, known in found.items()}
    without = [name for name, value in hours.items() if value is None]
    total = sum(value for value in hours.values() if value is not None)
    shards = sum(known.shards for known in found.values())
    source = f"by {shards} shards done" if shards else "as measured on one core; a GPU takes less"
    on_gpu = any(known.on_gpu for known in found.values())
    if len(without) == len(found):
        return "hours are known once a shard is done"
    rest = f"; not known for preset {', '.join(without)}" if without else ""
    return f"{_time(total, 'GPU' if on_gpu else 'CPU')} of segment ({source}{rest})"


def _time(hours: float, what: str) -> str:
    minutes = 60 * hours
    return f"{minutes:.2g} {what} minutes" if minutes < 60 else f"{hours:,.1f} {what} hours"
