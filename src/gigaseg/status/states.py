"""What is known of where a cohort is, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from gigaseg.progress import duration

DONE, RUNNING, FAILED, BROKEN, STOPPED, WAITING, COPIED = (
    "done", "running", "failed", "broken", "stopped", "waiting", "being copied",
)  # fmt: skip
"""States of a slide: all its outputs are there; a job of it runs; its data are at fault; a job of it broke, which the
next run does again; a job of it was killed, and is gone on with; its turn has not come; a later run takes it in."""

STATES = RUNNING, BROKEN, STOPPED, FAILED, WAITING, COPIED, DONE


@dataclass(frozen=True)
class Run:
    """The run that holds, or held, the results folder.

    Attributes
    ----------
    at_work : whether it still is.
    holder : process and machine.
    since : when it began, s since the epoch.
    executor : Snakemake's.
    """

    at_work: bool
    holder: str
    since: float
    executor: str


@dataclass
class SlideStatus:
    """Where a slide is.

    Attributes
    ----------
    slide, state : its name and one of `STATES`.
    step : the step that it is at, that failed or that broke; empty for one that is done.
    shards, shards_done : of `segment`; 0 where no number is known.
    tiles, tiles_done : kept tiles, and those segmented; None as long as the grid is not made.
    since : when the running job began, or the last one ended; s since the epoch.
    rate : tiles segmented a second, by the jobs that run.
    left : seconds that the rest of its tiles takes at that rate.
    note : why it failed or broke; the last line of progress of a job that runs.
    """

    slide: str
    state: str
    step: str = ""
    shards: int = 0
    shards_done: int = 0
    tiles: int | None = None
    tiles_done: int = 0
    since: float | None = None
    rate: float | None = None
    left: float | None = None
    note: str = ""


@dataclass
class Status:
    """Where a cohort is.

    Attributes
    ----------
    run : None where no run is known of.
    slides : one entry a slide, in the sheet's order.
    tiles, tiles_done : kept tiles of all slides, and those segmented.
    about : whether grids are still to be made, whose tiles are estimated from the share that the others keep.
    rate, left : tiles a second since the run began, and the seconds that the rest takes at that rate.
    """

    run: Run | None
    slides: list[SlideStatus] = field(default_factory=list)
    tiles: int = 0
    tiles_done: int = 0
    about: bool = False
    rate: float | None = None
    left: float | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Slides by state, those that there are."""
        found = Counter(slide.state for slide in self.slides)
        return {state: found[state] for state in STATES if found[state]}

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON values."""
        return {"format": "gigaseg/status/1", "counts": self.counts, **asdict(self)}


HEADS = ("slide", "state", "step", "shards", "tiles", "since", "tiles/s", "left", "")


def as_text(found: Status) -> str:
    """A table, one row a slide, and the totals below it."""
    rows = [HEADS, *(_cells(slide) for slide in found.slides)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
    counts = ", ".join(f"{count:,} {state}" for state, count in found.counts.items())
    lines += ["", f"{len(found.slides):,} slides: {counts or 'none'}"]
    if found.tiles:
        told = f"segmented: {found.tiles_done:,} of {'about ' if found.about else ''}{found.tiles:,} tiles"
        if found.rate is not None and found.left is not None:
            told += f", {found.rate:.3g} tiles/s in this run, about {duration(found.left)} left"
        lines.append(told)
    lines.append(_told(found.run))
    return "\n".join(lines) + "\n"


def _cells(slide: SlideStatus) -> tuple[str, ...]:
    tiles = f"{slide.tiles_done:,}/{'?' if slide.tiles is None else f'{slide.tiles:,}'}"
    return (
        slide.slide,
        slide.state,
        slide.step,
        f"{slide.shards_done}/{slide.shards}" if slide.shards else "",
        tiles if slide.shards else "",
        _moment(slide.since),
        f"{slide.rate:.2g}" if slide.rate else "",
        duration(slide.left) if slide.left is not None else "",
        slide.note,
    )


def _told(run: Run | None) -> str:
    if run is None:
        return "no run is at work"
    if run.at_work:
        return f"a run is at work: {run.holder}, since {_moment(run.since)}"
    if run.holder:
        return f"no run is at work: {run.holder}, since {_moment(run.since)}, was killed; the same command goes on"
    return f"no run is at work; the last one began {_moment(run.since)}"


def _moment(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds).strftime("%m-%d %H:%M:%S") if seconds else ""
