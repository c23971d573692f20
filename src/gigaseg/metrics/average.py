"""The mean of each figure over the reports of several runs: folds, or seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from gigaseg.errors import ConfigError, FormatError, is_machine_fault, one_line
from gigaseg.files import write_json
from gigaseg.metrics.classes import nan_mean
from gigaseg.metrics.report import REPORT_FORMAT

AVERAGE_FORMAT = "gigaseg/average/1"

_ALIKE = ("method", "layout")
"""Settings that all reports must share, where they state them."""


@dataclass(frozen=True)
class Average:
    """A figure over runs.

    Attributes
    ----------
    value : plain mean of the runs in which it is defined; NaN without one.
    sd : their sample standard deviation, n - 1; NaN of fewer than two.
    runs : how many those are.
    values : of each run; NaN where it is undefined or absent.
    """

    value: float
    sd: float
    runs: int
    values: tuple[float, ...]


def average(reports: Sequence[Path], out: Path | None = None) -> dict[str, Average]:
    """The figures of several reports (`gigaseg.metrics.report.Report`), each report counting once.

    Parameters
    ----------
    out : JSON file to write; None: none.

    Raises
    ------
    ConfigError
        There are fewer than two, one is given twice, or they are of different methods or layouts.
    FormatError
        A file is missing, damaged or no report.
    """
    paths = [Path(path) for path in reports]
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} report, expected two or more, such as those of the folds")
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise ConfigError(f"{path}: given twice, expected reports of different runs")
    read = [_read(path) for path in paths]
    for name in _ALIKE:
        stated = {one["settings"].get(name): path for path, one in zip(paths, read) if name in one["settings"]}
        if len(stated) > 1:
            (first, _), (second, path) = list(stated.items())[:2]
            raise ConfigError(f"{path}: {name} is {second}, expected {first}, as the other reports have it")
    names = dict.fromkeys(name for one in read for name in one["figures"])
    found = {name: _average([_value(path, one, name) for path, one in zip(paths, read)]) for name in names}
    if out is not None:
        figures = {name: _jsonable(figure) for name, figure in found.items()}
        write_json(out, {"format": AVERAGE_FORMAT, "reports": [str(path) for path in paths], "figures": figures})
    return found


def table(found: Mapping[str, Average]) -> str:
    """A line a figure: mean, standard deviation and the value of each run."""
    runs = max((len(figure.values) for figure in found.values()), default=0)
    rows = [["figure", "mean", "sd", *(f"run {i + 1}" for i in range(runs))]]
    rows += [[name, *map(_text, (one.value, one.sd, *one.values))] for name, one in found.items()]
    width = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(width[0]), *map(str.rjust, row[1:], width[1:])]) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in width), *lines[1:]])


def _average(values: Sequence[float]) -> Average:
    defined = np.array([value for value in values if not isnan(value)])
    deviation = float(defined.std(ddof=1)) if len(defined) > 1 else nan
    return Average(nan_mean(defined), deviation, len(defined), tuple(values))


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as a report ({one_line(error)})") from error
    kind = report.get("format") if isinstance(report, dict) else None
    if kind != REPORT_FORMAT or not all(isinstance(report.get(key), dict) for key in ("settings", "figures")):
        raise FormatError(f"{path}: is no report (format '{one_line(kind)}'), expected {REPORT_FORMAT}")
    return dict(report)


def _value(path: Path, report: Mapping[str, Any], name: str) -> float:
    """NaN where it is null or absent."""
    figure = report["figures"].get(name, {"value": None})
    value = figure.get("value") if isinstance(figure, dict) else figure
    if value is None:
        return nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{path}: figure {name} is '{one_line(value)}', expected a number")
    return float(value)


def _jsonable(figure: Average) -> dict[str, Any]:
    def of(value: Any) -> Any:
        return None if isinstance(value, float) and isnan(value) else value

    return {**{k: of(v) for k, v in asdict(figure).items()}, "values": [of(value) for value in figure.values]}


def _text(value: float) -> str:
    return "-" if isnan(value) else f"{value:.4f}"
