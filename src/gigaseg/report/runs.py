"""What the steps of a cohort cost, from their run records."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigaseg.errors import UserError
from gigaseg.files import read_json, read_metadata
from gigaseg.runrecord import RUN_FORMAT
from gigaseg.tiles.grid import GRID_FORMAT

log = logging.getLogger(__name__)

STEPS = ("inspect", "grid", "tile", "propose", "prompt", "segment", "stitch", "measure", "export", "overview")
"""Steps of a slide, in the order of the data."""


def find_records(folder: Path) -> list[Path]:
    """The run records of a slide's folder, sorted; those of shards that its grid no longer has are left out."""
    try:
        shards = int(read_metadata(folder / "grid.parquet", GRID_FORMAT)["shards"])
    except UserError:
        shards = 1
    found = sorted(folder.glob("run/*.json"))
    return [path for path in found if not (number := path.stem.rpartition("-")[2]).isdigit() or int(number) < shards]


@dataclass(frozen=True)
class StepCost:
    """All jobs of a step together.

    Attributes
    ----------
    step, jobs : its name and number of jobs.
    seconds, cpu_seconds : wall and processor time of all jobs.
    median_seconds, longest_seconds : of a job; `longest` is the slide that took the longest.
    peak_memory_mb : of the largest job.
    """

    step: str
    jobs: int
    seconds: float
    cpu_seconds: float
    median_seconds: float
    longest_seconds: float
    longest: str
    peak_memory_mb: float


@dataclass(frozen=True)
class Costs:
    """Costs by step and by slide, and where and with what they arose.

    Attributes
    ----------
    steps : one entry a step, in the order of the data.
    seconds, peak_memory_mb : wall time and largest memory by slide, all steps.
    by_slide_and_step : wall time of all jobs of a step of a slide, and the memory of the largest.
    machines : number of jobs by machine.
    devices : devices that `segment` ran on.
    versions : versions of gigaseg.
    unread : records that could not be read.
    """

    steps: list[StepCost]
    seconds: dict[str, float]
    peak_memory_mb: dict[str, float]
    by_slide_and_step: dict[tuple[str, str], tuple[float, float]]
    machines: dict[str, int]
    devices: list[str]
    versions: list[str]
    unread: int


def read_costs(paths: Sequence[Path]) -> Costs:
    """Sum up run records; a damaged one is logged and counted, it does not cost the report."""
    records: list[dict[str, Any]] = []
    unread = 0
    for path in paths:
        try:
            record = read_json(path, RUN_FORMAT)
            record |= {key: float(record[key]) for key in ("seconds", "cpu_seconds", "peak_memory_mb")}
            record |= {key: str(record[key]) for key in ("step", "slide", "machine", "cores", "version")}
        except (UserError, KeyError, TypeError, ValueError) as error:
            log.warning("run record %s is left out: %s", path, error)
            unread += 1
            continue
        records.append(record)
    by_step, by_slide = _grouped(records, "step"), _grouped(records, "slide")
    machines = _grouped(records, "machine")
    jobs = defaultdict(list)
    for record in records:
        jobs[record["slide"], record["step"]].append(record)
    return Costs(
        steps=[_step(name, by_step[name]) for name in sorted(by_step, key=_place)],
        seconds={slide: sum(r["seconds"] for r in group) for slide, group in by_slide.items()},
        peak_memory_mb={slide: max(r["peak_memory_mb"] for r in group) for slide, group in by_slide.items()},
        by_slide_and_step={
            key: (sum(r["seconds"] for r in group), max(r["peak_memory_mb"] for r in group))
            for key, group in jobs.items()
        },
        devices=sorted({str(r["device"]) for r in records if "device" in r}),
        machines={f"{name} ({machines[name][0]['cores']} cores)": len(machines[name]) for name in sorted(machines)},
        versions=sorted({r["version"] for r in records}),
        unread=unread,
    )


def _grouped(records: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups = defaultdict(list)
    for record in records:
        groups[record[key]].append(record)
    return groups


def _place(step: str) -> tuple[int, str]:
    return (STEPS.index(step) if step in STEPS else len(STEPS), step)


def _step(name: str, records: list[dict[str, Any]]) -> StepCost:
    longest = max(records, key=lambda record: record["seconds"])
    return StepCost(
        step=name,
        jobs=len(records),
        seconds=sum(record["seconds"] for record in records),
        cpu_seconds=sum(record["cpu_seconds"] for record in records),
        median_seconds=statistics.median(record["seconds"] for record in records),
        longest_seconds=longest["seconds"],
        longest=longest["slide"],
        peak_memory_mb=max(record["peak_memory_mb"] for record in records),
    )
