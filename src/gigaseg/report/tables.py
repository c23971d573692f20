"""Tables of the report: cells that are read as text and sorted as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gigaseg import progress
from gigaseg.export.names import display_name

TEXTS = frozenset({"slide", "region", "preset", "group", "segmenter", "unit", "step", "reason", "flags"})
"""Columns that hold words, also where a word looks like a number (a slide called 007)."""


class Cell(NamedTuple):
    """What a cell shows, and the number it is sorted by (None: by its text).

    Attributes
    ----------
    link : place in the page that the text leads to.
    heat : 0..1, how strongly it is coloured.
    """

    text: str
    value: float | None = None
    link: str = ""
    heat: float = 0.0


@dataclass(frozen=True)
class Table:
    """A table: a caption, the heads of its columns, and its rows."""

    caption: str
    heads: list[str]
    rows: list[list[Cell]]


def table(caption: str, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> Table:
    """The columns of rows of texts that hold anything; the first one stays always."""
    used = [name for i, name in enumerate(columns) if i == 0 or any(row.get(name) for row in rows)]
    heads = [display_name(name, "²") for name in used]
    return Table(caption, heads, [[_shown(name, row.get(name) or "") for name in used] for row in rows])


def _shown(column: str, text: str) -> Cell:
    return Cell(text) if column in TEXTS else cell(text)


def cell(text: str) -> Cell:
    """A text as a cell; one that reads as a finite number is shown with four digits or as a whole number."""
    try:
        value = float(text)
    except ValueError:
        return Cell(text)
    if not math.isfinite(value):
        return Cell(text)
    return Cell(number(value), value)


def number(value: float) -> str:
    """Four digits; whole numbers, and the whole part of large ones, in full.

    >>> number(12345.6), number(0.012345), number(7.0)
    ('12,346', '0.01235', '7')
    """
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> Cell:
    """A time in its largest two units."""
    return Cell(progress.duration(seconds), seconds)


def memory(megabytes: float) -> Cell:
    """A size in MB or GB.

    >>> memory(512.4).text, memory(2048).text
    ('512 MB', '2.0 GB')
    """
    return Cell(f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB", megabytes)
