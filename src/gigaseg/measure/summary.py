"""A slide, its classes and its regions in numbers: counts, densities, ratios, quantiles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gigaseg.measure.regions import Regions
from gigaseg.measure.spatial import AREA_OF_DENSITY
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.foreground import Foreground

Distribution = dict[str, float | None]

Key = TypeVar("Key", bound=Hashable)

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
    cut : instances cut where no tile was kept.
    unmatched : instances cut at a seam to which nothing beyond it was joined.
    prompts : what became of the slide's prompts (`gigaseg.prompts.counts`); empty without.
    """

    names: tuple[str, ...]
    read: Callable[[str], npt.NDArray[Any]]
    class_index: npt.NDArray[np.int32]
    classes: tuple[str, ...]
    mean_score: float | None
    cut: int
    unmatched: int = 0
    prompts: Mapping[str, Any] = field(default_factory=dict)


def summarise(
    found: SlideNumbers,
    info: SlideInfo,
    foreground: Foreground,
    quantiles: tuple[float, ...],
    regions: Regions | None,
    members: Members | None,
) -> dict[str, Any]:
    """Numbers of a slide, of its classes and of its regions with the `members` they have; quality flags."""
    unit, per = AREA_OF_DENSITY[info.unit]
    one = info.pixel_size[0] * info.pixel_size[1] / per
    subsets: dict[tuple[Any, int], npt.NDArray[np.int64]] = {}
    if len(found.classes) > 1:
        subsets = {("class", i): np.flatnonzero(found.class_index == i) for i in range(len(found.classes))}
    if regions is not None and members is not None:
        subsets |= {("region", i): members[0][members[1] == i] for i in range(len(regions.names))}
        if len(found.classes) > 1:
            subsets |= {
                (i, j): index[found.class_index[index] == j]
                for i in range(len(regions.names))
                for j in range(len(found.classes))
                for index in [subsets["region", i]]
            }
    whole, parts = distributions(found.read, found.names, quantiles, subsets)
    content = counts(found.class_index, found.classes, foreground.area_px() * one, unit)
    content["mean_score"] = found.mean_score
    content["measurements"] = whole
    _classes(content, parts, "class", found.classes)
    content["flags"] = _flags(content["instances"], content[f"foreground_{unit}"], found.cut, found.unmatched, info)
    content["flags"] += _prompt_flags(found.prompts)
    if regions is not None:
        content["regions"] = {}
        for i, (name, area) in enumerate(zip(regions.names, regions.areas_px(foreground))):
            inside = counts(found.class_index[subsets["region", i]], found.classes, float(area) * one, unit)
            inside["measurements"] = parts["region", i]
            _classes(inside, parts, i, found.classes)
            content["regions"][name] = inside
    return content


def _classes(
    content: dict[str, Any], parts: Mapping[tuple[Any, int], dict[str, Distribution]], of: Any, classes: Sequence[str]
) -> None:
    """Give each class of a slide or a region its distributions, where there are several classes."""
    for j, label in enumerate(classes):
        if (of, j) in parts:
            content["classes"][label]["measurements"] = parts[of, j]


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
    class_index: npt.NDArray[np.integer[Any]], classes: Sequence[str], area: float, area_name: str
) -> dict[str, Any]:
    """Number of instances, their density over `area`, and both by class; ratios of classes where there are several.

    Parameters
    ----------
    class_index : (n,) of the instances counted, into `classes`.
    area, area_name : what densities refer to, in the unit its name says ("mm2", "km2", "megapixel").
    """
    n = len(class_index)
    found = np.bincount(class_index, minlength=len(classes)).tolist()
    density = f"density_per_{area_name}"
    result: dict[str, Any] = {
        "instances": n,
        f"foreground_{area_name}": area,
        density: _over(n, area),
        "classes": {
            label: {"instances": count, "fraction": _over(count, n), density: _over(count, area)}
            for label, count in zip(classes, found)
        },
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
    subsets: Mapping[Key, npt.NDArray[np.int64]],
) -> tuple[dict[str, Distribution], dict[Key, dict[str, Distribution]]]:
    """Mean, standard deviation and quantiles of measurements, of all instances and of subsets; a column in memory.

    Parameters
    ----------
    read : gives the (n,) values of a column, NaN where there is none.
    columns : names of the columns.
    quantiles : 0..1, linearly interpolated.
    subsets : indices of the instances of each subset.

    Returns
    -------
    By column, and by subset and column.
    """
    whole: dict[str, Distribution] = {}
    parts: dict[Key, dict[str, Distribution]] = {name: {} for name in subsets}
    for column in columns:
        values = np.asarray(read(column), np.float64)
        whole[column] = distribution(values, quantiles)
        for name, index in subsets.items():
            parts[name][column] = distribution(values[index], quantiles)
    return whole, parts


def distribution(values: npt.NDArray[np.float64], quantiles: tuple[float, ...]) -> Distribution:
    """Mean, standard deviation (n - 1) and quantiles of the values that are numbers; None where there are too few."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {"mean": None, "sd": None, **{f"q{q * 100:g}": None for q in quantiles}}
    found = np.quantile(values, quantiles)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(values.mean()),
        "sd": spread,
        **{f"q{q * 100:g}": float(v) for q, v in zip(quantiles, found)},
    }
