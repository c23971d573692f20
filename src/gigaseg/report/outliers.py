"""Slides that differ from the others of their preset, by a robust rule.

A slide is an outlier in a measure when its modified z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers,
1993) is beyond `LIMIT`: 0.6745 times its distance from the median of the slides, over the median of these distances
(MAD). Densities and sizes are compared by their logarithm, since twice as many is as odd as half as many.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 3.5
"""Modified z-score beyond which a slide is an outlier, as Iglewicz and Hoaglin recommend."""

LEAST = 8
"""Slides of a preset with a value, at least: of fewer the median says little."""

NARROW = 0.01
"""Least MAD, for shares and for logarithms (1 %): slides that are alike but for a few instances have no outliers."""

_STAINS = ("haematoxylin_od_mean", "eosin_od_mean", "dab_od_mean")


@dataclass(frozen=True)
class Measure:
    """What slides are compared by.

    Attributes
    ----------
    name : of the measure, a column name.
    values : by slide.
    logarithm : whether the logarithms are compared.
    """

    name: str
    values: Mapping[str, float]
    logarithm: bool


@dataclass(frozen=True)
class Outlier:
    """A slide that differs in a measure from the others of its preset.

    Attributes
    ----------
    slide, preset, measure : which one, among which, in what.
    value, median : its own, and the one of the slides.
    z : modified z-score, negative below the median.
    """

    slide: str
    preset: str
    measure: str
    value: float
    median: float
    z: float


def find_outliers(summaries: Sequence[Mapping[str, Any]], presets: Mapping[str, str]) -> list[Outlier]:
    """The outliers of a cohort, the oddest first; none of presets with fewer than `LEAST` slides.

    Parameters
    ----------
    summaries : of the slides that are done; with ``slide_area``, in the unit of their foreground, where it is known.
    presets : preset by slide.
    """
    by_preset = defaultdict(list)
    for summary in summaries:
        by_preset[presets.get(str(summary["slide"]), "")].append(summary)
    found = [
        outlier
        for preset, some in by_preset.items()
        for measure in measures(some)
        for outlier in _outliers(measure, preset)
    ]
    return sorted(found, key=lambda outlier: (-abs(outlier.z), outlier.slide, outlier.measure))


def measures(summaries: Sequence[Mapping[str, Any]]) -> Iterator[Measure]:
    """What the slides of a preset are compared by."""
    values: dict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    for summary in summaries:
        for name, logarithm, value in _values(summary):
            if value is not None and math.isfinite(value):
                values[name, logarithm][str(summary["slide"])] = float(value)
    yield from (Measure(name, of, logarithm) for (name, logarithm), of in values.items())


def _values(summary: Mapping[str, Any]) -> Iterator[tuple[str, bool, float | None]]:
    """(measure, whether its logarithm counts, value) of a slide."""
    instances = summary.get("instances") or 0
    for name, value in summary.items():
        if name.startswith("density_"):
            yield name, True, value
        if name.startswith("foreground_") and summary.get("slide_area"):
            yield "foreground_share", False, value / summary["slide_area"]
    measured = summary.get("measurements", {})
    for name, found in measured.items():
        if name.startswith("area_"):
            yield f"{name}_median", True, found.get("q50")
    for name in ("eccentricity", *_STAINS):
        if name in measured:
            yield f"{name}_median", False, measured[name].get("q50")
    classes = summary.get("classes", {})
    if len(classes) > 1:
        for label, found in classes.items():
            yield f"fraction_{label}", False, found.get("fraction")
    if instances and "unmatched" in summary.get("seams", {}):
        yield "unmatched_at_seams_share", False, summary["seams"]["unmatched"] / instances


def _outliers(measure: Measure, preset: str) -> Iterator[Outlier]:
    if measure.logarithm:
        scaled = {slide: math.log(value) for slide, value in measure.values.items() if value > 0}
    else:
        scaled = dict(measure.values)
    if len(scaled) < LEAST:
        return
    middle = statistics.median(scaled.values())
    spread = max(statistics.median(abs(value - middle) for value in scaled.values()), NARROW)
    for slide, value in scaled.items():
        z = 0.6745 * (value - middle) / spread
        if abs(z) > LIMIT:
            median = math.exp(middle) if measure.logarithm else middle
            yield Outlier(slide, preset, measure.name, measure.values[slide], median, z)
    # a slide without any has no logarithm, and differs from slides with some
    for slide, value in measure.values.items():
        if slide not in scaled:
            yield Outlier(slide, preset, measure.name, value, math.exp(middle), -math.inf)
