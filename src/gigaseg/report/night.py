"""The report of a night: what is new, what failed and why, what changed since the last one; a dated page a run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from gigaseg import __version__
from gigaseg.errors import FormatError, one_line
from gigaseg.files import atomic, read_failure, read_json, write_json
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.report.page import page
from gigaseg.report.tables import number, table
from gigaseg.runrecord import peek

log = logging.getLogger(__name__)

NIGHT_FORMAT = "gigaseg/night/1"

_ERROR = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b.*")
"""The line that ends a traceback."""

OK, FAILED, BROKEN, UNFINISHED, WAITING = "ok", "failed", "broken", "unfinished", "waiting"
"""States of a slide: done; its data are at fault; a job of it broke; a job before or the run's end stopped it; it was
still being copied."""


class Expected(NamedTuple):
    """What a slide of the plan should have: the digests of its file and of its measurements."""

    slide: str
    inspect: str
    measure: str


@dataclass(frozen=True)
class State:
    """A slide after a night.

    Attributes
    ----------
    state : one of the states above.
    step, reason : where and why it is not ok; empty for one that is.
    instances : their number, for one that is ok.
    inspect, measure : digests of its file and of its measurements.
    """

    state: str
    step: str = ""
    reason: str = ""
    instances: int | None = None
    inspect: str = ""
    measure: str = ""


def night(
    results: Path,
    expected: Iterable[Expected],
    *,
    bad_rows: Iterable[tuple[str, str]] = (),
    waiting: Iterable[str] = (),
    broken: Mapping[str, tuple[str, Path | None]] | None = None,
    today: date | None = None,
    message: str = "",
) -> Path:
    """Write ``nights/DATE.html`` and its record ``DATE.json`` into the results folder; a second run that day is DATE-2.

    Parameters
    ----------
    results : the results folder.
    expected : the slides of the plan.
    bad_rows : (name, reason) of rows of the sheet that could not be used.
    waiting : slides that were still being copied.
    broken : slide -> (step, log) of jobs that broke.
    today : date of the report (default: by this machine's clock).
    message : something that concerns the whole night, shown first.

    Returns
    -------
    The page.
    """
    states = {name: State(FAILED, "sheet", reason) for name, reason in bad_rows}
    for slide in expected:
        states[slide.slide] = _state(results, slide, (broken or {}).get(slide.slide))
    folder = results / "nights"
    before, last = _last(folder)
    for name in waiting:
        known = before.get(name, State(WAITING))
        reason = "changed too recently: it may still be copied"
        states[name] = replace(known, state=WAITING, step="", reason=reason)  # what it was counts for the night after
    target = _free(folder, (today or date.today()).isoformat())
    sections, counts = _compare(states, before)
    text = page(
        "night.html.j2",
        title=f"gigaseg, night of {target.stem}",
        tiles=[(number(count), label) for label, count in counts.items()],
        message=message,
        sections=sections,
        since=f"Compared with {last}." if last else "The first night.",
        version=__version__,
    )
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    # last of all: the next night compares with what was told
    slides = {name: asdict(state) for name, state in states.items()}
    write_json(target.with_suffix(".json"), {"format": NIGHT_FORMAT, "version": __version__, "slides": slides})
    log.info("%s: %s", target, ", ".join(f"{count} {label}" for label, count in counts.items()))
    return target


def _state(results: Path, slide: Expected, broken: tuple[str, Path | None] | None) -> State:
    def state(name: str, step: str = "", reason: str = "", instances: int | None = None) -> State:
        return State(name, step, reason, instances, slide.inspect, slide.measure)

    if broken is not None:
        step, path = broken
        return state(BROKEN, step, last_line(path))
    path = results / slide.slide / "summary.json"
    failure = read_failure(path)
    if failure is not None:
        # a failure record does not say for which state of the slide it was written; its run record does
        if peek(results / slide.slide / "run" / "measure.json").get("digest") != slide.measure:
            return state(UNFINISHED, reason="its turn did not come; the next run does it")
        return state(FAILED, *failure)
    try:
        summary = read_json(path, SUMMARY_FORMAT)
    except FormatError:
        return state(UNFINISHED, reason="its turn did not come; the next run does it")
    if summary.get("digest") != slide.measure:
        return state(UNFINISHED, reason="what is there is older than its file or the configuration")
    return state(OK, instances=int(summary["instances"]))


def last_line(path: Path | None) -> str:
    """What a job died of, by its log: the last line of its step, else the end of a traceback, else its last line."""
    lines = _lines(path)
    rest = [line for line in lines if line.strip() and " INFO " not in line]
    told = [*rest[-1:], *_ends(lines)]
    return one_line(told[-1])[:400] if told else "killed before it could say why (out of memory, or by hand)"


def tells_an_end(path: Path) -> bool:
    """Whether the log of a job says what it died of."""
    return bool(_ends(_lines(path)))


def _lines(path: Path | None) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path else []
    except OSError:
        return []


def _ends(lines: list[str]) -> list[str]:
    """The end of a traceback and the last line of the step itself, which says it best."""
    own = [line for line in lines if line.startswith("gigaseg ")]
    ends = [line for line in lines if _ERROR.match(line)]
    return [*ends[-1:], *own[-1:]]


def _last(folder: Path) -> tuple[dict[str, State], str]:
    """The states after the last night, and its name; a damaged record is passed over."""
    for path in sorted(folder.glob("*.json"), key=_order, reverse=True):
        try:
            content = read_json(path, NIGHT_FORMAT)
            return {name: State(**state) for name, state in content["slides"].items()}, path.stem
        except (FormatError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is passed over: %s", path, one_line(error))
    return {}, ""


def _order(path: Path) -> tuple[str, int]:
    day, again = path.stem[:10], path.stem[11:]
    return day, int(again) if again.isdigit() else 1


def _free(folder: Path, day: str) -> Path:
    again = 1
    while (target := folder / f"{day}{f'-{again}' if again > 1 else ''}.html").with_suffix(".json").exists():
        again += 1
    return target


def _compare(states: Mapping[str, State], before: Mapping[str, State]) -> tuple[list[Any], dict[str, int]]:
    """Sections (id, heading, table) and the figures at the head."""
    new = {
        name: state
        for name, state in states.items()
        if state.state != WAITING and (name not in before or not before[name].inspect)
    }
    failed = {name: state for name, state in states.items() if state.state in (FAILED, BROKEN, UNFINISHED)}
    changed = {
        name: words
        for name, state in states.items()
        if name in before and name not in new and (words := _change(before[name], state))
    }
    gone = [name for name in before if name not in states]
    heads = ["slide", "state", "step", "reason", "instances"]
    sections = [
        ("failed", "Not done", table("With the step and the reason", _rows(failed), heads)),
        ("new", "New", table("Slides that were not there before", _rows(new), heads)),
        ("changed", "Changed", table("Since the night before", _told(changed, "change"), ["slide", "change"])),
        ("waiting", "Waiting", table("Taken in by a later night", _rows(_of(states, WAITING)), ["slide", "reason"])),
        ("gone", "Gone", table("No longer in the cohort; their results are kept", _told(dict.fromkeys(gone, "")),
                               ["slide"])),
    ]  # fmt: skip
    counts = {
        "slides": len(states),
        "done": len(_of(states, OK)),
        "new": len(new),
        "changed": len(changed),
        "not done": len(failed),
        "waiting": len(_of(states, WAITING)),
    }
    return sections, counts


def _of(states: Mapping[str, State], wanted: str) -> dict[str, State]:
    return {name: state for name, state in states.items() if state.state == wanted}


def _change(before: State, now: State) -> str:
    words = []
    if before.state != now.state:
        words.append(f"{before.state}, now {now.state}")
    elif (before.step, before.reason) != (now.step, now.reason):
        words.append("fails for another reason")
    if before.inspect and now.inspect and before.inspect != now.inspect:
        words.append("its file was replaced")
    elif before.measure and now.measure and before.measure != now.measure:
        words.append("configuration or side files changed")
    if None not in (before.instances, now.instances) and before.instances != now.instances:
        words.append(f"{before.instances:,} instances, now {now.instances:,}")
    return "; ".join(words)


def _rows(states: Mapping[str, State]) -> list[dict[str, str]]:
    return [
        {"slide": name, **{key: "" if value is None else str(value) for key, value in asdict(state).items()}}
        for name, state in states.items()
    ]


def _told(words: Mapping[str, str], column: str = "change") -> list[dict[str, str]]:
    return [{"slide": name, column: text} for name, text in words.items()]
