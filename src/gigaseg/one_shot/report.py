"""Scores of a one-shot segmenter as JSON, and as a table beside the figures that PerSense's paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import fmean, median
from typing import Any

from gigaseg.files import write_json
from gigaseg.metrics.classes import nan_mean
from gigaseg.metrics.one_shot import ClassMiou, ClassTotals, class_miou
from gigaseg.one_shot.layouts import Choice

ONE_SHOT_FORMAT = "gigaseg/one-shot/1"

PAPER = {
    "persense-d": {"mIoU": "71.61 CounTR, 70.96 DSALVANet", "seconds": "2.7"},
    "coco-20i": {"mIoU": "49.0", "fold 0": "47.8", "fold 1": "49.3", "fold 2": "48.9", "fold 3": "50.1"},
    "lvis-92i": {"mIoU": "25.7"},
}
"""What the paper of PerSense has, %; Tables 1 and 3 (s an image on an RTX 4090)."""

_NOTE = "paper: other weights and another machine (SAM ViT-H, GroundingDINO, ViP-LLaVA; RTX 4090)"


@dataclass
class Cost:
    """What the images cost, each on its own; reading files is not in it.

    Attributes
    ----------
    wall, cpu : s of each image, by the clock and of all threads of the process.
    points : number of points that each was prompted with.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    points: list[int] = field(default_factory=list)

    def add(self, wall: float, cpu: float, points: int) -> None:
        """Count an image."""
        self.wall.append(wall)
        self.cpu.append(cpu)
        self.points.append(points)

    @property
    def images(self) -> int:
        """How many."""
        return len(self.wall)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Median and mean of each."""
        named: dict[str, Sequence[float]] = {"seconds_wall": self.wall, "seconds_cpu": self.cpu, "points": self.points}
        return {name: {"median": _or_nan(median, v), "mean": _or_nan(fmean, v)} for name, v in named.items()}


@dataclass(frozen=True)
class OneShotReport:
    """Scores of a one-shot segmenter on a data set.

    Attributes
    ----------
    data : the folder.
    choice : layout, and what of it was scored.
    totals : by fold (None: there are none) and class.
    skipped : episodes left out because their support mask is empty.
    cost : of the images.
    back_ends : names of the models used, by their part.
    settings, machine : checkpoint, options; processor, device.
    version : of this package.
    """

    data: str
    choice: Choice
    totals: Mapping[tuple[int | None, str], ClassTotals]
    skipped: int
    cost: Cost
    back_ends: Mapping[str, str]
    settings: Mapping[str, Any]
    machine: Mapping[str, str]
    version: str

    @property
    def folds(self) -> dict[int | None, ClassMiou]:
        """Mean over the classes of each fold."""
        numbers = dict.fromkeys(fold for fold, _ in self.totals)
        return {
            number: class_miou({name: one for (fold, name), one in self.totals.items() if fold == number})
            for number in numbers
        }

    @property
    def miou(self) -> float:
        """Mean over the folds; without folds, over the classes."""
        return nan_mean([fold.value for fold in self.folds.values()])

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object; undefined values are null."""
        return {
            "format": ONE_SHOT_FORMAT,
            "version": self.version,
            "data": self.data,
            **asdict(self.choice),
            "episodes": self.choice.pairs,
            "settings": dict(self.settings),
            "back_ends": dict(self.back_ends),
            "machine": dict(self.machine),
            "miou": _jsonable(self.miou),
            "images": self.cost.images,
            "skipped": self.skipped,
            "cost": {name: {k: _jsonable(v) for k, v in of.items()} for name, of in self.cost.to_dict().items()},
            "folds": [
                {"fold": number, "miou": _jsonable(one.value), "classes": one.classes, "skipped": one.skipped}
                for number, one in self.folds.items()
            ],
            "classes": [
                {"fold": fold, "class": name, **asdict(one), "iou": _jsonable(one.iou)}
                for (fold, name), one in self.totals.items()
            ],
        }

    def write(self, path: str | Path) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict())

    def table(self) -> str:
        """A line a figure, with the paper's beside it; of a data set without folds a line a class too."""
        paper = PAPER[self.choice.layout]
        rows = [["", "images", "here", "paper"]]
        for (fold, name), one in self.totals.items():
            if fold is None:
                rows.append([f"IoU {name}, %", str(one.images), _percent(one.iou), ""])
        for number, found in self.folds.items():
            if number is not None:
                images = sum(one.images for (fold, _), one in self.totals.items() if fold == number)
                here = _percent(found.value)
                rows.append([f"mIoU fold {number}, %", str(images), here, paper.get(f"fold {number}", "")])
        rows.append(["mIoU, %", str(self.cost.images), _percent(self.miou), paper["mIoU"]])
        cost = self.cost.to_dict()
        for name, label in (("seconds_wall", "s an image"), ("seconds_cpu", "s of CPU an image")):
            seconds = [f"{value:.2f}" for value in cost[name].values()]
            told = paper.get("seconds", "") if name == "seconds_wall" else ""
            rows.append([f"{label}, median", "", seconds[0], ""])
            rows.append([f"{label}, mean", "", seconds[1], told])
        rows.append(["points an image, mean", "", f"{cost['points']['mean']:.1f}", ""])
        return "\n".join([self._title(), "", *_lines(rows), "", _NOTE])

    def _title(self) -> str:
        classes = sum(one.classes for one in self.folds.values())
        title = f"{self.choice.layout}, {self.data}: {self.cost.images} queries of {classes} classes"
        told = [f"{self.skipped} left out, their support masks are empty"] if self.skipped else []
        whole = self.choice == Choice(self.choice.layout, seed=self.choice.seed)
        told += [] if whole else ["a part of the protocol, or another"]
        return "; ".join([title, *told])


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    width = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(width[0]), row[1].rjust(width[1]), row[2].rjust(width[2]), row[3]]).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * w for w in width), *lines[1:]]


def _percent(value: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.2f}"


def _or_nan(of: Any, values: Sequence[float]) -> float:
    return float(of(values)) if values else nan


def _jsonable(value: float) -> float | None:
    return None if isnan(value) else value
