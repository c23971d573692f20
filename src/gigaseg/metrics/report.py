"""The result of an evaluation: figures with intervals, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from gigaseg.files import write_json

REPORT_FORMAT = "gigaseg/scores/1"

MEAN, POOLED, TOTAL, GROUPS = "mean", "pooled", "total", "groups"
"""How a figure comes from several images: mean of theirs, ratio of summed counts, sum, or mean over groups of means."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes
    ----------
    value : NaN where it is undefined.
    over : "mean", "pooled", "total" or "groups".
    images : number of images in which it is defined (mean, groups), or of all (pooled, total).
    low, high : bootstrap interval over images; NaN without one.
    """

    value: float
    over: str
    images: int
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Report:
    """Scores of a prediction.

    Attributes
    ----------
    prediction, truth : the files or folders compared.
    images : names of the images, in order.
    figures : by name (docs/metrics.md).
    per_image : the figures of each image, in the order of `images`.
    settings : radius, thresholds, bootstrap draws and the like.
    """

    prediction: str
    truth: str
    images: tuple[str, ...]
    figures: Mapping[str, Figure]
    per_image: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object; undefined values are null."""
        return {
            "format": REPORT_FORMAT,
            "prediction": self.prediction,
            "truth": self.truth,
            "settings": dict(self.settings),
            "figures": {name: _defined(asdict(figure)) for name, figure in self.figures.items()},
            "per_image": [{"image": name, **_defined(scores)} for name, scores in zip(self.images, self.per_image)],
        }

    def write(self, path: str | Path) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict())

    def table(self) -> str:
        """A plain text table: figure, value, interval if there is one, how it was formed and over how many images."""
        with_interval = any(not isnan(f.low) for f in self.figures.values())
        head = ["figure", "value", *(["95 % interval"] if with_interval else []), "over", "images"]
        rows = [head]
        for name, figure in self.figures.items():
            interval = "" if isnan(figure.low) else f"{_text(figure.low)} .. {_text(figure.high)}"
            cells = [name, _text(figure.value, whole=figure.over == TOTAL)]
            rows.append([*cells, *([interval] if with_interval else []), figure.over, str(figure.images)])
        width = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = ["  ".join(_aligned(row, width)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * w for w in width))
        title = f"{self.prediction} against {self.truth}, {len(self.images)} image{'s' * (len(self.images) != 1)}"
        return "\n".join([title, "", *lines])


def _aligned(row: Sequence[str], width: Sequence[int]) -> list[str]:
    """Cells of a row: names to the left, numbers to the right."""
    return [cell.rjust(w) if k in (1, len(row) - 1) else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, width))]


def _text(value: float, *, whole: bool = False) -> str:
    if isnan(value):
        return "-"
    return f"{value:.0f}" if whole else f"{value:.4f}"


def _defined(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and isnan(v) else v for name, v in values.items()}
