"""How far a piece of work is: count, rate and time left; one line, or a line a minute in a log.

On a terminal the line is rewritten in place. Elsewhere it is logged once a minute, also when nothing was finished
since, so that a log tells that its job lives and yet stays small; what ends within the minute has its last line only.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

MINUTE = 60.0
"""Seconds between two lines of a log."""

_REDRAW = 0.2
"""Seconds between two states of the line on a terminal."""


class Progress:
    """Counts work that is done, and shows it while the block runs.

    Parameters
    ----------
    what : names the work, "segment".
    unit : what is counted, in the plural.
    total : how many there are; with none nothing is shown.
    done : how many an earlier run has done: they count, but not into the rate.
    stream : where to show it (default: sys.stderr); a terminal gets the line in place.
    clock : seconds that only go forward.
    beat : seconds between two looks at the clock by a thread, for work that finishes seldom; 0: no thread.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int,
        *,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        beat: float = 1.0,
    ) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._before = self._done = done
        self._stream = stream if stream is not None else sys.stderr
        self._clock, self._beat = clock, beat
        self._left: float | None = None
        self._note = ""
        self._in_place = total > 0 and self._stream.isatty()
        self._drawn = 0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._begin = self._shown = clock()

    def __enter__(self) -> Progress:
        if self._in_place:
            # a line that others log takes the place of this one, which is then drawn below it
            self._handlers = [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is self._stream]
            for handler in self._handlers:
                handler.addFilter(self._make_room)
        if self._beat and self._total:
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if self._in_place:
            with self._lock:
                self._clear()
            for handler in self._handlers:
                handler.removeFilter(self._make_room)
        if kind is None and self._total:
            log.info("%s", self.line(ended=True))

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.at(self._done + count)

    def at(self, done: int, *, left: float | None = None, note: str | None = None) -> None:
        """So many are done.

        Parameters
        ----------
        left : seconds that the rest takes, where the caller knows better than the rate does.
        note : what else to tell; None: what was told before.
        """
        self._done, self._left = done, left
        if note is not None:
            self._note = note
        self.tick()

    def over(self, results: Iterable[T], counts: Iterable[int]) -> Iterator[T]:
        """Hand on results; each stands for so many."""
        for result, count in zip(results, counts):
            yield result
            self.add(count)

    def tick(self) -> None:
        """Show how far it is, when it is time to."""
        with self._lock:
            now = self._clock()
            if now - self._shown < (_REDRAW if self._in_place else MINUTE) or not self._total or self._over.is_set():
                return
            self._shown = now
            if self._in_place:
                self._draw(self.line())
            else:
                log.info("%s", self.line())

    def line(self, *, ended: bool = False) -> str:
        """The line, such as ``segment: 120 of 400 tiles (30 %), 2.1 tiles/s, 2 min 13 s left``."""
        seconds = self._clock() - self._begin
        fresh = self._done - self._before
        rate = fresh / seconds if seconds > 0 else 0.0
        words = [f"{self._what}: {self._done:,} of {self._total:,} {self._unit}"]
        if not ended:
            words[0] += f" ({100 * self._done // self._total} %)"
        if rate:
            words.append(f"{rate:,.0f} {self._unit}/s" if rate >= 100 else f"{rate:.2g} {self._unit}/s")
        if ended:
            words.append(f"in {duration(seconds)}")
        elif self._left is not None or rate:
            left = self._left if self._left is not None else (self._total - self._done) / rate
            words.append(f"{duration(left)} left")
        if self._before:
            words.append(f"{self._before:,} were there")
        return "; ".join([", ".join(words), *([self._note] if self._note else [])])

    def _watch(self) -> None:
        while not self._over.wait(self._beat):
            self.tick()

    def _draw(self, text: str) -> None:
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            width = 80
        text = text[: width - 1]
        self._write("\r" + text.ljust(self._drawn))
        self._drawn = len(text)

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def _make_room(self, record: logging.LogRecord) -> bool:
        with self._lock:
            self._clear()
        return True

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a terminal that was closed is no reason to stop
            self._in_place = False


def duration(seconds: float) -> str:
    """A time in its largest two units.

    >>> duration(3725.0), duration(65), duration(2.34)
    ('1 h 02 min', '1 min 05 s', '2.3 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600):,} h {int(seconds % 3600 // 60):02d} min"
