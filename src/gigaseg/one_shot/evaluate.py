"""Scores of a one-shot segmenter on a data set; one episode is held at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gigaseg import __version__
from gigaseg.errors import FormatError
from gigaseg.metrics.one_shot import ClassTotals
from gigaseg.one_shot.base import Episode, Mask, OneShotSegmenter, Picture, Shown
from gigaseg.one_shot.layouts import Choice, read_episodes
from gigaseg.one_shot.report import Cost, OneShotReport

logger = logging.getLogger(__name__)

_TOLD_EVERY = 60.0
"""Seconds between two lines of progress."""


def one_shot(
    folder: Path,
    choice: Choice,
    open_segmenter: Callable[[], OneShotSegmenter],
    *,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Mapping[str, str] | None = None,
) -> OneShotReport:
    """Score a segmenter on a data set.

    Parameters
    ----------
    folder : of the data set, as published.
    choice : layout, and what of it.
    open_segmenter : gives the segmenter; called when the data set is found to be whole.
    out : JSON file to write; None: none.
    settings, machine : what the report tells of the segmenter (its checkpoint, its options) and of where it ran.

    Raises
    ------
    FormatError
        The folder is not of that layout, a file is damaged, or no query can be scored.
    ConfigError
        There is no such fold.
    """
    episodes = read_episodes(folder, choice)
    segmenter = open_segmenter()
    totals, cost, skipped = score(episodes, segmenter)
    if not any(one.images for one in totals.values()):
        raise FormatError(f"{folder}: no query can be scored ({skipped} of empty support masks, {len(totals)} classes)")
    report = OneShotReport(
        data=str(folder),
        choice=choice,
        totals=totals,
        skipped=skipped,
        cost=cost,
        back_ends=dict(segmenter.back_ends),
        settings=dict(settings or {}),
        machine=dict(machine or {}),
        version=__version__,
    )
    if out is not None:
        report.write(out)
    return report


def score(
    episodes: Iterable[Episode], segmenter: OneShotSegmenter
) -> tuple[dict[tuple[int | None, str], ClassTotals], Cost, int]:
    """Totals by fold and class, what it cost, and how many episodes are left out for an empty support mask."""
    totals: dict[tuple[int | None, str], ClassTotals] = {}
    cost = Cost()
    skipped = 0
    shown: Shown | None = None
    support: tuple[Picture, Mask] | None = None
    told = time.perf_counter()
    for episode in episodes:
        if support is None or episode.support is not shown:
            shown, support = episode.support, episode.support.read()
        total = totals.setdefault((episode.fold, episode.group), ClassTotals())
        if not support[1].any():
            logger.warning("%s: the support mask is empty; left out", episode.name)
            skipped += 1
            continue
        rgb, truth = episode.query.read()
        wall, cpu = time.perf_counter(), time.process_time()
        found = segmenter.foreground(*support, rgb)
        cost.add(time.perf_counter() - wall, time.process_time() - cpu, segmenter.last_points)
        if found.shape != truth.shape or found.dtype != np.bool_:
            raise ValueError(f"foreground gave {found.dtype} {found.shape}, expected bool {truth.shape}")
        total.add(found, truth)
        if time.perf_counter() - told > _TOLD_EVERY:
            told = time.perf_counter()
            logger.info("%d queries, %.2f s each", cost.images, sum(cost.wall) / cost.images)
    return totals, cost, skipped
