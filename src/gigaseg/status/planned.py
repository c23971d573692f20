"""What a run set out to do, kept in the results folder for `gigaseg status`: its slides, their steps and digests.

It is no result: hidden, written when a run begins, and read without the configuration or the sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gigaseg.errors import UserError
from gigaseg.export.formats import FORMATS
from gigaseg.files import read_json, read_metadata, write_json
from gigaseg.plan import Plan
from gigaseg.report.runs import STEPS
from gigaseg.tiles.grid import GRID_FORMAT

FILE = ".plan.json"
PLAN_FORMAT = "gigaseg/plan/1"


class StepJob(NamedTuple):
    """One job of a slide: its step, its name in ``run/`` and ``log/``, and the first of its outputs."""

    step: str
    name: str
    output: str
    shard: int | None = None


@dataclass(frozen=True)
class PlannedSlide:
    """A slide of a run.

    Attributes
    ----------
    digests : by step, as of `gigaseg.plan.SlidePlan`; empty where no plan was kept.
    shards, tiles_per_shard : how many shards, and kept tiles in each but the last; 0: not known.
    tiles : of its bounding grid; 0: not known.
    stored : whether tile stores are written.
    exports : names of its export files.
    """

    digests: dict[str, str] = field(default_factory=dict)
    shards: int = 1
    tiles_per_shard: int = 0
    tiles: int = 0
    stored: bool = False
    exports: Sequence[str] = ()

    def jobs(self) -> Iterator[StepJob]:
        """Its jobs in the order of the data."""
        numbers = [(shard, f"{shard:03d}") for shard in range(self.shards)]
        yield StepJob("inspect", "inspect", "slide.json")
        yield StepJob("grid", "grid", "grid.parquet")
        if self.stored:
            yield from (StepJob("tile", f"tile-{n}", f"tiles/{n}.zarr.zip", shard) for shard, n in numbers)
        if "propose" in self.digests:
            yield from (StepJob("propose", f"propose-{n}", f"prompts/{n}.parquet", shard) for shard, n in numbers)
        if "prompt" in self.digests:
            yield StepJob("prompt", "prompt", "prompts.parquet")
        yield from (StepJob("segment", f"segment-{n}", f"instances/{n}.parquet", shard) for shard, n in numbers)
        yield StepJob("stitch", "stitch", "instances.parquet")
        yield StepJob("measure", "measure", "summary.json")
        yield from (StepJob("export", f"export-{file}", f"export/{file}") for file in self.exports)
        yield StepJob("overview", "overview", "overview.png")


@dataclass(frozen=True)
class Planned:
    """A run.

    Attributes
    ----------
    started : when, ISO 8601; empty where no plan was kept.
    executor : Snakemake's, such as "local" or "slurm".
    slides : by name, in the sheet's order.
    bad_rows : (name, reason) of rows of the sheet that cannot be used.
    waiting : slides that may still be copied.
    """

    started: str
    executor: str
    slides: dict[str, PlannedSlide]
    bad_rows: Sequence[tuple[str, str]] = ()
    waiting: Sequence[str] = ()


def keep(plan: Plan, executor: str) -> None:
    """Write what a run set out to do into its results folder."""
    slides = {
        name: asdict(
            PlannedSlide(
                digests=slide.digests,
                shards=slide.shards,
                tiles_per_shard=slide.preset.tiles.tiles_per_shard,
                tiles=slide.tiles,
                stored=slide.stored,
                exports=[FORMATS[format].file for format in slide.preset.export],
            )
        )
        for name, slide in plan.slides.items()
    }
    content = {
        "format": PLAN_FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "executor": executor,
        "slides": slides,
        "bad_rows": [(row.slide, row.reason) for row in plan.bad_rows],
        "waiting": plan.found.waiting if plan.found else [],
    }
    write_json(Path(plan.config.results) / FILE, content)


def read_planned(results: Path) -> Planned:
    """What the last run set out to do; without its plan, what the folders of the slides tell."""
    try:
        content = read_json(results / FILE, PLAN_FORMAT)
        return Planned(
            started=str(content["started"]),
            executor=str(content["executor"]),
            slides={name: PlannedSlide(**slide) for name, slide in content["slides"].items()},
            bad_rows=[(str(name), str(reason)) for name, reason in content["bad_rows"]],
            waiting=list(content["waiting"]),
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        folders = sorted(path.parent for path in results.glob("*/run") if path.is_dir())
        return Planned("", "", {folder.name: _seen(folder) for folder in folders})


def _seen(folder: Path) -> PlannedSlide:
    """What a slide's folder tells of its jobs."""
    try:
        shards = int(read_metadata(folder / "grid.parquet", GRID_FORMAT)["shards"])
    except UserError:
        shards = 1
    known = {path.stem.partition("-")[0] for path in folder.glob("run/*.json")}
    exports = sorted(path.stem.partition("-")[2] for path in folder.glob("run/export-*.json"))
    return PlannedSlide(dict.fromkeys(known & set(STEPS), ""), shards, stored="tile" in known, exports=exports)
