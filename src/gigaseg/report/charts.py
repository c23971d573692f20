"""Distributions as drawings (SVG) in the page: a row a slide, a panel a class, one axis for all panels of a measure.

They are drawn from the quantiles in summary.json and cohort_measurements.tsv; no instance is read again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gigaseg.export.names import display_name

MAIN = ("density_", "fraction", "area_", "eccentricity", "haematoxylin_od_mean", "eosin_od_mean", "dab_od_mean")
"""Beginnings of the measurements that are shown first, in order; the others are folded away."""

MOST_ROWS = 20_000
"""Rows of all drawings together; where there were more, only `MAIN` is drawn: the page is to be opened, too."""

WIDTH = 340
_NAME_EM, _ROW, _LEAST_ROW, _NAMED_ROW, _TALLEST = 6.2, 16.0, 1.5, 9.0, 900.0
_AXIS = 30.0

Quantiles = Mapping[str, float]
"""Of a row, by name as in summary.json ("q50"); a row with nothing but "value" is a point."""


@dataclass(frozen=True)
class Row:
    """A row of a panel: its name, what is drawn, whether it is an outlier, and whether it stands for all slides."""

    name: str
    quantiles: Quantiles
    outlier: bool = False
    pooled: bool = False


@dataclass(frozen=True)
class Panel:
    """A drawing, in px: its title (the class; empty for all), what it shows in words, and what is in it.

    Attributes
    ----------
    height, bottom, left : of the drawing, and where its rows end and begin.
    names : (y, name, whether it is an outlier), where there is room for them.
    ticks : (x, value) of the axis.
    marks : (class, SVG path): lines, bars and ticks of all rows of a kind in one path.
    reference : x of the median of the slides' medians; None for a slide alone.
    """

    title: str
    label: str
    height: float
    bottom: float
    left: float
    names: list[tuple[float, str, bool]]
    ticks: list[tuple[float, str]]
    marks: list[tuple[str, str]]
    reference: float | None


@dataclass(frozen=True)
class Figure:
    """A measurement: its name with the unit, what the marks are, and a panel a class."""

    name: str
    marks: str
    panels: list[Panel] = field(default_factory=list)
    main: bool = True


def figures(
    summaries: Sequence[Mapping[str, Any]], pooled: Sequence[Mapping[str, str]], outliers: Iterable[tuple[str, str]]
) -> list[Figure]:
    """Drawings of all measurements of a cohort, those of `MAIN` first.

    Parameters
    ----------
    summaries : of the slides that are done.
    pooled : rows of cohort_measurements.tsv: all instances of a preset and group together.
    outliers : (slide, measure) of `gigaseg.report.outliers`.
    """
    odd = {(slide, measure.removesuffix("_median")) for slide, measure in outliers}
    found: dict[str, dict[str, list[Row]]] = {}
    for row in pooled:
        if not row.get("region"):
            name = " ".join(filter(None, ("all", row.get("group") or row.get("preset"))))
            known = {key: float(value) for key, value in row.items() if _is_quantile(key) and value}
            if known:
                panel = found.setdefault(row["measurement"], {}).setdefault(row.get("class", ""), [])
                panel.append(Row(name, known, pooled=True))
    for summary in summaries:
        slide, classes = str(summary["slide"]), summary.get("classes", {})
        for label, part in [("", summary), *(classes.items() if len(classes) > 1 else [])]:
            for measure, quantiles in _of(part, label):
                is_odd = (slide, f"{measure}_{label}" if measure == "fraction" else measure) in odd
                panel = found.setdefault(measure, {}).setdefault(label, [])
                panel.append(Row(slide, quantiles, is_odd and (not label or measure == "fraction")))
    order = sorted(found, key=_place)
    if sum(len(rows) for panels in found.values() for rows in panels.values()) > MOST_ROWS:
        order = [name for name in order if _place(name) < len(MAIN)]
    return [drawn for name in order if (drawn := _figure(name, found[name])).panels]


def _of(part: Mapping[str, Any], label: str) -> Iterable[tuple[str, Quantiles]]:
    """What a slide or a class of it has of each measurement: points, then quantiles."""
    for name, value in part.items():
        if name.startswith("density_") and value is not None:
            yield name, {"value": float(value)}
    if label and part.get("fraction") is not None:
        yield "fraction", {"value": float(part["fraction"])}
    for name, known in part.get("measurements", {}).items():
        quantiles = {key: float(value) for key, value in known.items() if _is_quantile(key) and value is not None}
        if quantiles:
            yield name, quantiles


def _is_quantile(name: str) -> bool:
    return name[:1] == "q" and name[1:].replace(".", "", 1).isdigit()


def _place(name: str) -> int:
    return next((place for place, begin in enumerate(MAIN) if name.startswith(begin)), len(MAIN))


def _figure(name: str, panels: Mapping[str, Sequence[Row]]) -> Figure:
    # only what every row has can be compared
    common = set.intersection(*({*row.quantiles} for rows in panels.values() for row in rows))
    steps = sorted((float(key[1:]), key) for key in common if _is_quantile(key))
    if not common:
        return Figure(name, "")
    values = [row.quantiles[key] for rows in panels.values() for row in rows for key in common]
    is_point = common == {"value"}
    low, high = (min(0.0, *values), max(values)) if is_point else (min(values, default=0.0), max(values, default=1.0))
    axis = _Axis.around(low, high)
    title = display_name(name, "²") if name != "fraction" else "Share of the instances"
    drawn = [_panel(title, label, rows, axis, steps) for label, rows in panels.items()]
    return Figure(title, _marks(steps, is_point), drawn, main=_place(name) < len(MAIN))


def _marks(steps: Sequence[tuple[float, str]], is_point: bool) -> str:
    """What is drawn, in words."""
    if is_point:
        return "Dot: the slide's value."
    line, box = _ranges(steps)
    words = ["Tick: the median" if "q50" in {key for _, key in steps} else "Tick: the middle quantile"]
    words += [f"bar: {box[0]:g} to {box[1]:g} %"] if box else []
    words += [f"line: {line[0]:g} to {line[1]:g} %"] if line else []
    return ", ".join(words) + " of its instances."


def _ranges(steps: Sequence[tuple[float, str]]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Per cents of the line and of the bar: the outermost quantiles, and the ones nearest to a quarter and three."""
    below = [at for at, _ in steps if at < 50]
    above = [at for at, _ in steps if at > 50]
    if not below or not above:
        return None, None
    box = (min(below, key=lambda at: abs(at - 25)), min(above, key=lambda at: abs(at - 75)))
    line = (below[0], above[-1])
    return (line if line != box else None), box


@dataclass(frozen=True)
class _Axis:
    """From a value to its place, 0..1; with ticks at round values."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, low: float, high: float) -> _Axis:
        """An axis for values from `low` to `high`."""
        most = max(abs(low), abs(high))
        # values that differ by their last digits alone are one value
        span = high - low if high - low > 1e-6 * most else most or 1.0
        step = 10.0 ** math.floor(math.log10(span / 3))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        return cls(first * step, last * step, tuple(k * step for k in range(first, last + 1)))

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        """A tick's value, with no more digits than its step needs."""
        digits = max(0, -math.floor(math.log10((self.ticks[1] - self.ticks[0]) * 1.0000001)))
        return f"{value:,.{digits}f}"


def _panel(name: str, label: str, rows: Sequence[Row], axis: _Axis, steps: Sequence[tuple[float, str]]) -> Panel:
    own = sorted((row for row in rows if not row.pooled), key=lambda row: _middle(row, steps))
    size = min(_ROW, max(_LEAST_ROW, _TALLEST / max(1, len(rows))))
    named = size >= _NAMED_ROW
    if named:  # in the order of the slides; where names have no room, by their medians
        own = [row for row in rows if not row.pooled]
    ordered = [*(row for row in rows if row.pooled), *own]
    left = 12 + min(130.0, _NAME_EM * max(len(_short(row.name)) for row in ordered)) if named else 8.0
    right = WIDTH - 24
    line, box = _ranges(steps)
    marks: dict[tuple[str, str], list[str]] = defaultdict(list)
    names = []
    for place, row in enumerate(ordered):
        y = 4 + (place + 0.5) * size
        kind = "pooled" if row.pooled else "odd" if row.outlier else "plain"
        at = {key: f"{left + (right - left) * axis(value):.1f}" for key, value in row.quantiles.items()}
        high = min(0.62 * size, 9.0)
        if line:
            marks["line", kind].append(f"M{at[_key(line[0])]} {y:.1f}H{at[_key(line[1])]}")
        if box:
            top = f"{y - high / 2:.1f}"
            marks["bar", kind].append(f"M{at[_key(box[0])]} {top}V{y + high / 2:.1f}H{at[_key(box[1])]}V{top}Z")
        middle = at.get("value") or at.get("q50") or (at[steps[len(steps) // 2][1]] if steps else None)
        if middle is not None:
            half = high / 2 + 1
            if "value" in at:
                marks["dot", kind].append(f"M{middle} {y:.1f}h0")
            else:
                marks["tick", kind].append(f"M{middle} {y - half:.1f}V{y + half:.1f}")
        if named:
            names.append((y, ("▲ " if row.outlier else "") + _short(row.name), row.outlier))
    height = 8 + size * len(ordered)
    middles = sorted(_middle(row, steps) for row in own)
    reference = (middles[(len(middles) - 1) // 2] + middles[len(middles) // 2]) / 2 if len(middles) > 1 else None
    return Panel(
        title=label,
        label=f"{name}{f' of {label}' if label else ''}: distribution in {len(own)} slides",
        height=height + _AXIS,
        bottom=height,
        left=left,
        names=names,
        ticks=[(left + (right - left) * axis(tick), axis.text(tick)) for tick in axis.ticks],
        marks=[
            (f"{mark} {kind}", "".join(marks[mark, kind]))
            for mark in ("line", "bar", "tick", "dot")
            for kind in ("plain", "pooled", "odd")
            if (mark, kind) in marks
        ],
        reference=None if reference is None else left + (right - left) * axis(reference),
    )


def _key(per_cent: float) -> str:
    return f"q{per_cent:g}"


def _middle(row: Row, steps: Sequence[tuple[float, str]]) -> float:
    for key in ("value", "q50", *(key for _, key in steps[len(steps) // 2 :])):
        if key in row.quantiles:
            return row.quantiles[key]
    return 0.0


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
