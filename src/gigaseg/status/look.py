"""A look at the results folder of a cohort, which is left as it is: where each slide is.

A job is done when its run record has the digest that the run planned. One that is not is running where its process is
found on this machine, or, for a run whose jobs go elsewhere, where its log is of this run and tells of no end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gigaseg.errors import ConfigError
from gigaseg.files import read_failure
from gigaseg.instances.job import PART
from gigaseg.lease import FILE as LEASE
from gigaseg.lease import PATIENCE, read_holder
from gigaseg.report.night import last_line, tells_an_end
from gigaseg.runrecord import peek
from gigaseg.status.planned import Planned, PlannedSlide, StepJob, read_planned
from gigaseg.status.states import BROKEN, COPIED, DONE, FAILED, RUNNING, STOPPED, WAITING, Run, SlideStatus, Status

_SHOWN = re.compile(r"INFO (\S.* of .*)$")
"""A line of `gigaseg.progress` in a log."""


def status(results: Path) -> Status:
    """Look where each slide of a results folder is; nothing is written.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    if not results.is_dir():
        raise ConfigError(f"{results}: no such folder; expected the results of a run")
    planned = read_planned(results)
    look = _Look(results, planned)
    found = Status(look.run, [look.slide(name, slide) for name, slide in planned.slides.items()])
    found.slides += [SlideStatus(name, FAILED, "sheet", note=reason) for name, reason in planned.bad_rows]
    found.slides += [SlideStatus(name, COPIED, note="changed too recently") for name in planned.waiting]
    _totals(found, planned, look)
    return found


class _Look:
    """One look at a results folder."""

    def __init__(self, results: Path, planned: Planned) -> None:
        self.now = time.time()
        self.results, self.planned = results, planned
        self.run = _run(results, planned, self.now)
        self.at_work = self.run is not None and self.run.at_work
        self.begin = self.run.since if self.run else 0.0
        self.processes = _processes(results) if self.at_work else {}
        # what Snakemake itself starts runs here, where a process that is not found has ended
        self.all_here = self.run is not None and planned.executor == "local" and self.run.at_work and _is_here(results)
        self.made = 0
        """Tiles that jobs of this run have segmented."""

    def slide(self, name: str, planned: PlannedSlide) -> SlideStatus:
        """Where a slide is."""
        folder = self.results / name
        jobs = list(planned.jobs())
        found = SlideStatus(name, WAITING, shards=planned.shards)
        # most slides of a large cohort are done: their last jobs tell
        last = [job for job in jobs if job.step in ("measure", "export", "overview")]
        done = self._records(folder, planned, last)
        finished = len(done) == len(last)
        done |= self._records(folder, planned, jobs[1:2] if finished else jobs)
        found.tiles = done.get("grid", {}).get("tiles")
        if finished:
            found.shards_done, found.tiles_done = planned.shards, found.tiles or 0
            if _ended(done["measure"]) >= self.begin:
                self._count_made(peek(folder / "run" / f"segment-{n:03d}.json") for n in range(planned.shards))
        else:
            segmented = [done[job.name] for job in jobs if job.step == "segment" and job.name in done]
            found.shards_done = len(segmented)
            found.tiles_done = sum(_in_shard(planned, found.tiles, record.get("shard")) for record in segmented)
            self._count_made(segmented)
        if done:
            found.since = max(map(_ended, done.values()))
        failure = next(filter(None, (read_failure(folder / job.output) for job in jobs if job.name in done)), None)
        if failure is not None:
            found.state, (found.step, found.note), found.shards = FAILED, failure, 0
        elif finished:
            found.state = DONE
        else:
            self._unfinished(folder, planned, [job for job in jobs if job.name not in done], found)
        return found

    def _records(self, folder: Path, planned: PlannedSlide, jobs: Sequence[StepJob]) -> dict[str, dict[str, Any]]:
        """The run records of jobs that are done, by the job's name."""
        found = {job: peek(folder / "run" / f"{job.name}.json") for job in jobs}
        return {
            job.name: record
            for job, record in found.items()
            if record and record.get("digest") == (planned.digests.get(job.step) or record.get("digest"))
        }

    def _count_made(self, segmented: Iterable[Mapping[str, Any]]) -> None:
        """Count the tiles of shards that this run has segmented."""
        self.made += sum(record.get("tiles_made", 0) for record in segmented if _ended(record) >= self.begin)

    def _unfinished(self, folder: Path, planned: PlannedSlide, jobs: Sequence[StepJob], found: SlideStatus) -> None:
        """State of a slide with jobs to do."""
        found.step = jobs[0].step
        states = {job: self._job(folder, job, planned) for job in jobs}
        running = [job for job, (state, _) in states.items() if state == RUNNING]
        for job in jobs:
            if job.step == "segment":
                self._parts(folder, planned, job, states[job][1] if job in running else None, found)
        for state in (RUNNING, BROKEN, STOPPED):
            of = [job for job, (found_state, _) in states.items() if found_state == state]
            if of:
                job = of[-1] if state == RUNNING else of[0]
                found.state, found.step = state, job.step
                found.since = min(states[job][1] for job in of)
                found.note = _progress(folder, job) if state == RUNNING else _why(folder, job)
                break
        if found.rate and found.tiles is not None:
            found.left = (found.tiles - found.tiles_done) / found.rate

    def _job(self, folder: Path, job: StepJob, planned: PlannedSlide) -> tuple[str, float]:
        """State of a job that is not done, and since when."""
        if (begun := self.processes.get((folder.name, job.name))) is not None:
            return RUNNING, begun
        log = folder / "log" / f"{job.name}.log"
        try:
            changed = log.stat().st_mtime
        except OSError:
            return WAITING, 0.0
        if changed < max(self.begin - 1, _written(folder / "run" / f"{job.name}.json")):
            return WAITING, changed  # of an earlier run, which did it with another digest
        if tells_an_end(log):
            return BROKEN, changed
        if self.at_work and not self.all_here:
            return RUNNING, _first(log) or changed
        return STOPPED, changed

    def _parts(
        self, folder: Path, planned: PlannedSlide, job: StepJob, begun: float | None, found: SlideStatus
    ) -> None:
        """Add the parts of a shard that is not done."""
        digest = planned.digests.get(job.step)
        place = folder / ".parts" / job.name
        most = _in_shard(planned, found.tiles, job.shard)
        done = fresh = 0
        for path in place.glob(f"{digest or '*'}/[0-9]*.parquet"):
            tiles = max(0, min(PART, most - int(path.stem) * PART)) if most else PART
            done += tiles
            fresh += tiles if begun is not None and _written(path) >= begun else 0
        found.tiles_done += done
        self.made += fresh
        if begun is not None and fresh and self.now > begun:
            found.rate = (found.rate or 0.0) + fresh / (self.now - begun)


def _in_shard(planned: PlannedSlide, tiles: int | None, shard: int | None) -> int:
    """Kept tiles of a shard; 0 where that is not known."""
    if tiles is None or not planned.tiles_per_shard:
        return 0 if tiles is None or planned.shards > 1 else tiles
    return max(0, min(planned.tiles_per_shard, tiles - (shard or 0) * planned.tiles_per_shard))


def _run(results: Path, planned: Planned, now: float) -> Run | None:
    """The run that holds the folder, or the last one of which there is a trace."""
    started = _seconds(planned.started)
    path = results / LEASE
    holder = read_holder(path)
    if holder is None:
        return Run(False, "", started, planned.executor) if planned.started else None
    alive = holder.is_alive if holder.is_here else None
    if alive is None:  # on another machine: it touches its lease every few seconds
        alive = now - _written(path) < PATIENCE
    return Run(alive, f"process {holder.process} on {holder.host}", started or _written(path), planned.executor)


def _is_here(results: Path) -> bool:
    holder = read_holder(results / LEASE)
    return holder is not None and holder.is_here


def _processes(results: Path) -> dict[tuple[str, str], float]:
    """(slide, job) -> start of the steps that run on this machine, s since the epoch."""
    import psutil

    found: dict[tuple[str, str], float] = {}
    place = results.resolve()
    for process in psutil.process_iter(["cmdline", "cwd", "create_time"]):
        words = process.info["cmdline"] or []
        if "--run-record" in words[:-1] and process.info["cwd"] and "gigaseg" in " ".join(words[:3]):
            record = Path(process.info["cwd"], words[words.index("--run-record") + 1])
            slide = record.parent.parent
            if slide.parent.resolve() == place:
                key = slide.name, record.stem
                found[key] = min(process.info["create_time"], found.get(key, float("inf")))
    return found


def _totals(found: Status, planned: Planned, look: _Look) -> None:
    """Tiles of the cohort, and how long the rest takes."""
    slides = [(slide, planned.slides[slide.slide]) for slide in found.slides if slide.slide in planned.slides]
    known = [(slide.tiles, of.tiles) for slide, of in slides if slide.tiles is not None and of.tiles]
    share = sum(kept for kept, _ in known) / sum(all_of for _, all_of in known) if known else 1.0
    ahead = 0.0
    for slide, of in slides:
        found.tiles_done += slide.tiles_done
        found.tiles += slide.tiles or 0
        if slide.tiles is None and slide.state not in (FAILED, BROKEN):
            ahead += share * of.tiles
            found.about = True
        elif slide.state in (RUNNING, WAITING):
            ahead += (slide.tiles or 0) - slide.tiles_done
    found.tiles += round(sum(share * of.tiles for slide, of in slides if slide.tiles is None and slide.state != FAILED))
    if look.at_work and look.made and look.now > look.begin:
        found.rate = look.made / (look.now - look.begin)
        found.left = ahead / found.rate


def _progress(folder: Path, job: StepJob) -> str:
    """The last line of progress in the log of a job."""
    for line in reversed(_lines(folder / "log" / f"{job.name}.log")):
        if match := _SHOWN.search(line):
            return match[1]
    return ""


def _why(folder: Path, job: StepJob) -> str:
    return last_line(folder / "log" / f"{job.name}.log")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first(log: Path) -> float | None:
    """Time of the first line of a log that has one."""
    for line in _lines(log):
        try:
            return datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S").timestamp()
        except ValueError:
            continue
    return None


def _ended(record: Mapping[str, Any]) -> float:
    try:
        return _seconds(str(record["started"])) + float(record["seconds"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
