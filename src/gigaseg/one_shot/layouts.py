"""Data sets of one-shot segmentation by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gigaseg.errors import ConfigError, unknown
from gigaseg.one_shot.base import Episode
from gigaseg.one_shot.folds import COCO_20I, LVIS_92I, Folds, draw
from gigaseg.one_shot.persense_d import persense_d

DRAWN: dict[str, Folds] = {"coco-20i": COCO_20I, "lvis-92i": LVIS_92I}
"""Layouts of which pairs are drawn."""

LAYOUTS = ("persense-d", *DRAWN)


@dataclass(frozen=True)
class Choice:
    """Which part of a data set is scored.

    Attributes
    ----------
    layout : one of `LAYOUTS`.
    fold : only this one; None: all.
    episodes : pairs a fold; None: the protocol's.
    seed : of the pairs that are drawn.
    limit : queries of a class at most; None: all.
    as_published : leave out the queries that PerSense's release leaves out.
    """

    layout: str
    fold: int | None = None
    episodes: int | None = None
    seed: int = 0
    limit: int | None = None
    as_published: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(unknown("layout", self.layout, LAYOUTS))
        for name in ("episodes", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}, accepted: 1 or more")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}, accepted: 0 or more")
        if self.layout not in DRAWN:
            for name in ("fold", "episodes"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name} is for {' and '.join(DRAWN)}; {self.layout} has all its queries")
        elif self.as_published:
            raise ConfigError(f"--as-published is for persense-d, not for {self.layout}")

    @property
    def pairs(self) -> int | None:
        """Pairs a fold; None: none are drawn."""
        return self.episodes or (DRAWN[self.layout].episodes if self.layout in DRAWN else None)


def read_episodes(folder: Path, choice: Choice) -> Iterator[Episode]:
    """Queries of the data set in `folder`, one at a time.

    Raises
    ------
    FormatError
        The folder is not of that layout.
    ConfigError
        There is no such fold.
    """
    if choice.layout in DRAWN:
        protocol = DRAWN[choice.layout]
        found = draw(protocol, folder, fold=choice.fold, episodes=choice.episodes, seed=choice.seed)
    else:
        found = persense_d(folder, as_published=choice.as_published)
    return found if choice.limit is None else _limited(found, choice.limit)


def _limited(episodes: Iterator[Episode], limit: int) -> Iterator[Episode]:
    taken: dict[str, int] = {}
    for episode in episodes:
        taken[episode.group] = taken.get(episode.group, 0) + 1
        if taken[episode.group] <= limit:
            yield episode
