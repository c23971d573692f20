"""`gigaseg train METHOD … --evaluate PART`: the best weights of a run on a part of its split, or on another folder."""

from __future__ import annotations

import csv
import io
import logging
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gigaseg.devices import choose_device
from gigaseg.errors import CheckpointError, ConfigError, one_line, unknown
from gigaseg.files import atomic, sha256_file
from gigaseg.metrics import bootstrap
from gigaseg.metrics.classes import nan_mean
from gigaseg.metrics.report import MEAN, Figure, Report
from gigaseg.sam.checkpoints import read_state
from gigaseg.train.config import LoopConfig
from gigaseg.train.data import Sample, load
from gigaseg.train.layouts import read_layout
from gigaseg.train.methods import METHODS, Measured
from gigaseg.train.splits import PARTS, split

log = logging.getLogger(__name__)

DRAWS = 2000
"""Bootstrap draws of each interval."""


def evaluate_part(args: Namespace, config: LoopConfig) -> None:
    """Measure ``best.safetensors`` of the folder ``--out`` on a part of the data, which ``all`` takes as a whole.

    Writes ``PART.tsv``, a row an image, and ``PART.json`` (`gigaseg.metrics.report.Report`): means over images with
    bootstrap intervals, and what else the method tells of all images. What the checkpoint's card states, such as
    threshold and classes, is not asked of the options.

    Raises
    ------
    ConfigError
        No such part, it has no image, or the seed is not the training's, so that its random split would be another.
    CheckpointError
        The checkpoint is missing, damaged or another method's.
    FormatError
        The data set is wrong.
    """
    part, path = args.evaluate, args.out / "best.safetensors"
    if part not in (*PARTS, "all"):
        raise ConfigError(f"--evaluate: {unknown('part', part, (*PARTS, 'all'))}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train first, by the same line without --evaluate")
    card = read_state(path)[1]
    if card.get("method") != args.method:
        raise CheckpointError(f"{path}: weights of method '{one_line(card.get('method'))}', expected '{args.method}'")
    if card.get("seed") != config.seed:
        raise ConfigError(f"--seed is {config.seed}, accepted: {card.get('seed')}, with which {path} was trained")
    entries = read_layout(args.layout, args.data)
    if part != "all":
        entries = split(entries, args.split, fold=args.fold, seed=config.seed, needed=part)[part]
    samples = load(entries, workers=2, classes=card.get("classes", ()))
    log.info("%s: %d images are evaluated", args.data, len(samples))
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    measured = METHODS[args.method].evaluate(path, samples, choose_device(config.device), config.precision)
    if not isinstance(measured, Measured):
        measured = Measured(measured, {})
    rows = measured.rows
    settings = {
        **{name: getattr(args, name) for name in ("method", "layout", "fold")},
        "part": part,
        "split": None if part == "all" else Path(args.split).name,
        "seed": config.seed,
        "threshold": card.get("threshold"),
        "precision": config.precision,
        "checkpoint_sha256": sha256_file(path),
        "draws": DRAWS,
    }
    names = tuple(sample.name for sample in samples)
    report = Report(str(path), str(args.data), names, _figures(rows) | measured.figures, rows, settings)
    report.write(args.out / f"{part}.json")
    _write_rows(args.out / f"{part}.tsv", samples, rows)
    for name, figure in report.figures.items():
        interval = "" if math.isnan(figure.low) else f" ({figure.low:.4f} to {figure.high:.4f})"
        log.info("%s %.4f%s", name, figure.value, interval)


def _figures(rows: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Mean over the images where it is defined, and its interval, of each figure."""
    resamples = bootstrap.weights(len(rows), DRAWS)
    found = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], dtype=np.float64)
        low, high = bootstrap.interval(bootstrap.mean_statistic(values), resamples)
        found[name] = Figure(nan_mean(values), MEAN, int((~np.isnan(values)).sum()), low, high)
    return found


def _write_rows(path: Path, samples: Sequence[Sample], rows: Sequence[Mapping[str, float]]) -> None:
    """A row an image: its name, its group, its figures; undefined ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["image", "group", *rows[0]])
    for sample, row in zip(samples, rows, strict=True):
        figures: list[Any] = ["" if math.isnan(value) else repr(float(value)) for value in row.values()]
        writer.writerow([sample.name, sample.group, *figures])
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
