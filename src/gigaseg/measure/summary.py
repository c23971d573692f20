"""A slide, its classes and its regions in numbers: counts, densities, ratios, quantiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.measure.spatial import AREA_OF_DENSITY
from gigaseg.slides.base import SlideInfo

Distribution = dict[str, float | None]

Members = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Pairs (instance, region)."""


@dataclass(frozen=True)
class SlideNumbers:
    """All instances of a slide in columns.

    Attributes
    ----------
    names, read : columns of measurements, and what gives one of them, (n,), NaN where it has no value.
    class_index, classes : (n,) into the names of the classes.
    mean_score : None for no instance.
    foreground : (1 + regions,) area that densities refer to, of the slide and of each region, square units of length.
    covered : (1 + regions, 1 + classes) what of it lies under instances: of all classes, then of each.
    cut : instances cut where no tile was kept.
    unmatched : instances cut at a seam to which nothing beyond it was joined.
    prompts : what became of the slide's prompts (`gigaseg.prompts.counts`); empty without.
    """

    names: tuple[str, ...]
    read: Callable[[str], npt.NDArray[Any]]
    class_index: npt.NDArray[np.int32]
    classes: tuple[str, ...]
    mean_score: float | None
    foreground: npt.NDArray[np.float64]
    covered: npt.NDArray[np.float64]
    cut: int
    unmatched: int = 0
    prompts: Mapping[str, Any] = field(default_factory=dict)


def summarise(
    found: SlideNumbers,
    info: SlideInfo,
    quantiles: tuple[float, ...],
    regions: Sequence[str] | None,
    members: Members | None,
) -> dict[str, Any]:
    """Numbers of a slide, of its classes and of its regions (their names) with the `members` they have; flags."""
    k, names = len(found.classes), regions or ()
    instance, region = members or (np.empty(0, np.int64),) * 2
    label = found.class_index[instance]
    several = k > 1
    # groups: classes, regions, classes of regions
    whose = [found.class_index.astype(np.int64) if several else np.empty(0, np.int64), k + region]
    who = [np.arange(len(found.class_index)) if several else np.empty(0, np.int64), instance]
    if several:
        whose.append(k + len(names) + region * k + label)
        who.append(instance)
    number = k + len(names) * (1 + k)
    whole, parts = distributions(found.read, found.names, quantiles, np.concatenate(who), np.concatenate(whose), number)
    by_class = np.bincount(found.class_index, minlength=k)
    content = counts(by_class, found.classes, found.foreground[0], found.covered[0], info.unit)
    content["mean_score"] = found.mean_score
    content["measurements"] = whole
    _classes(content, parts[:k], found.classes)
    area = content[f"foreground_{AREA_OF_DENSITY[info.unit][0]}"]
    content["flags"] = _flags(content["instances"], area, found.cut, found.unmatched, info)
    content["flags"] += _prompt_flags(found.prompts)
    if regions is not None:
        by_region = np.bincount(region * k + label, minlength=len(names) * k).reshape(-1, k)
        content["regions"] = {}
        for i, name in enumerate(names):
            inside = counts(by_region[i], found.classes, found.foreground[1 + i], found.covered[1 + i], info.unit)
            inside["measurements"] = parts[k + i]
            first = k + len(names) + i * k
            _classes(inside, parts[first : first + k], found.classes)
            content["regions"][name] = inside
    return content


def _classes(content: dict[str, Any], parts: Sequence[dict[str, Distribution]], classes: Sequence[str]) -> None:
    """Give each class of a slide or a region its distributions, where there are several classes."""
    if len(classes) > 1:
        for label, part in zip(classes, parts):
            content["classes"][label]["measurements"] = part


def _flags(n: int, area: float, cut: int, unmatched: int, info: SlideInfo) -> list[str]:
    flags = []
    if n == 0:
        flags.append("no instances")
    if area == 0:
        flags.append("no foreground")
    if cut > 0.01 * n:
        flags.append("more than 1 % of the instances are cut at the border of the foreground")
    if unmatched > 0.01 * n:
        flags.append("more than 1 % of the instances are cut at a seam without a counterpart")
    if info.pixel_size_source == "objective":
        flags.append("pixel size is derived from the objective power")
    return flags


def _prompt_flags(prompts: Mapping[str, Any]) -> list[str]:
    flags = []
    lost = prompts.get("objects", 0) - prompts.get("instances", 0)
    if lost:
        flags.append(f"{lost} of {prompts['objects']} prompted objects have no instance")
    read = prompts.get("file", {})
    out = read.get("off_slide", 0) + read.get("off_tiles", 0)
    if out:
        flags.append(f"{out} prompts lie off the slide or in no tile")
    return flags


def counts(
    number: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
    area: float,
    covered: npt.NDArray[np.float64],
    unit: str,
) -> dict[str, Any]:
    """Number of instances, density, coverage, and all of it by class; ratios of classes where there are several.

    Parameters
    ----------
    number : (classes,) of the instances counted.
    area : that densities refer to, square units of length.
    covered : (1 + classes,) what of it lies under instances: of all classes, then of each.
    unit : of length: um, m or px.
    """
    per, units = AREA_OF_DENSITY[unit]
    found, n = number.tolist(), int(number.sum())
    size = float(area) / units

    def over_area(count: int, under: float) -> dict[str, float | None]:
        share = _over(float(under), float(area))
        return {
            f"density_per_{per}": _over(count, size),
            "coverage": share,
            f"covered_{unit}2_per_{per}": None if share is None else share * units,
        }

    result: dict[str, Any] = {"instances": n, f"foreground_{per}": size, **over_area(n, covered[0])}
    result["classes"] = {
        label: {"instances": count, "fraction": _over(count, n), **over_area(count, under)}
        for label, count, under in zip(classes, found, covered[1:])
    }
    if len(classes) > 1:
        result["ratios"] = {
            f"{classes[i]}/{classes[j]}": _over(found[i], found[j]) for i, j in combinations(range(len(classes)), 2)
        }
    return result


def _over(a: float, b: float) -> float | None:
    return a / b if b > 0 else None


def distributions(
    read: Callable[[str], npt.NDArray[Any]],
    columns: Sequence[str],
    quantiles: tuple[float, ...],
    instance: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    number: int,
) -> tuple[dict[str, Distribution], list[dict[str, Distribution]]]:
    """Mean, standard deviation and quantiles of measurements, of all instances and of groups; a column in memory.

    Parameters
    ----------
    read : gives the (n,) values of a column, NaN where there is none.
    columns : names of the columns.
    quantiles : 0..1, linearly interpolated.
    instance, group : pairs of an instance and a group that it belongs to, 0 .. `number` - 1.

    Returns
    -------
    By column, and for each group by column.
    """
    whole: dict[str, Distribution] = {}
    parts: list[dict[str, Distribution]] = [{} for _ in range(number)]
    for column in columns:
        values = np.asarray(read(column), np.float64)
        whole[column] = distribution(values, np.zeros(len(values), np.int64), 1, quantiles)[0]
        for part, found in zip(parts, distribution(values[instance], group, number, quantiles)):
            part[column] = found
    return whole, parts


def distribution(
    values: npt.NDArray[np.float64], group: npt.NDArray[np.int64], number: int, quantiles: tuple[float, ...]
) -> list[Distribution]:
    """Mean, standard deviation (n - 1) and quantiles of the values of each group that are numbers.

    None where there are too few.
    """
    finite = np.isfinite(values)
    values, group = values[finite], group[finite]
    order = np.lexsort((values, group)) if number > 1 else np.argsort(values, kind="stable")
    values, group = values[order], group[order]
    count = np.bincount(group, minlength=number)
    first = count.cumsum() - count
    some = np.flatnonzero(count)
    mean, spread, found = np.full(number, np.nan), np.full(number, np.nan), np.full((len(quantiles), number), np.nan)
    if len(some):
        mean[some] = np.add.reduceat(values, first[some]) / count[some]
        squares = np.add.reduceat((values - mean[group]) ** 2, first[some])
        several = count[some] > 1
        spread[some[several]] = np.sqrt(squares[several] / (count[some[several]] - 1))
        for row, q in zip(found, quantiles):
            place = q * (count[some] - 1)
            low = np.floor(place).astype(np.int64)
            below = values[first[some] + low]
            above = values[first[some] + np.minimum(low + 1, count[some] - 1)]
            row[some] = below + (above - below) * (place - low)
    names = ["mean", "sd", *(f"q{q * 100:g}" for q in quantiles)]
    table = np.vstack([mean, spread, found]).T.tolist()
    return [dict(zip(names, (None if value != value else value for value in row))) for row in table]
