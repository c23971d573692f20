"""A slide, its classes and its regions in numbers: counts, densities, ratios, quantiles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Distribution = dict[str, float | None]

Key = TypeVar("Key", bound=Hashable)


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
    read: Callable[[str], npt.NDArray[np.float64]],
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
        values = read(column)
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
