"""Figures of the published protocols of instances with classes: PanNuke's, and the table of CoNSeP.

They come from what was predicted for each image, whoever predicted it; docs/metrics.md defines them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gigaseg.errors import FormatError
from gigaseg.metrics import bootstrap
from gigaseg.metrics.detection import RADIUS, Points
from gigaseg.metrics.figures import Compared, score_compared
from gigaseg.metrics.images import label_points
from gigaseg.metrics.overlap import FloatArray, IntArray, Overlap
from gigaseg.metrics.pannuke import ImageScores, score_image, summarise
from gigaseg.metrics.report import GROUPS, MEAN, POOLED, Figure
from gigaseg.train.data import Sample
from gigaseg.train.methods import Measured

DRAWS = 2000
"""Bootstrap draws of each interval."""


class Found(Protocol):
    """What was found in an image.

    Attributes
    ----------
    labels : (y, x) integer, 0 background, 1..n the instances.
    class_index : (n,) integer, the class of each.
    scores : (n,) of each.
    """

    @property
    def labels(self) -> np.ndarray: ...  # noqa: D102

    @property
    def class_index(self) -> np.ndarray: ...  # noqa: D102

    @property
    def scores(self) -> np.ndarray: ...  # noqa: D102


def protocol_figures(
    samples: Sequence[Sample],
    predictions: Sequence[Found],
    classes: Sequence[str] = (),
    *,
    radius: float = RADIUS,
    pixel_size: float = 0.25,
    draws: int = DRAWS,
) -> Measured:
    """All figures of what was predicted for these images.

    Parameters
    ----------
    samples : with classes, where these are two or more.
    predictions : one a sample.
    classes : the names that class indices refer to; fewer than two tell nothing apart.
    radius : px within which centroids are one object: 12 at 0.25 µm a pixel.
    pixel_size : µm, for areas.
    draws : bootstrap draws of each interval over images; 0: none.

    Returns
    -------
    A row an image, and the figures over all of `gigaseg.metrics.figures` (Dice, AJI, DQ, SQ, PQ, detection and, with
    classes, PQ and F1 of each); where the data set states a label image a class (`Sample.class_maps`), also
    PanNuke's: ``pannuke_bpq`` and ``pannuke_mpq`` (means over tissues, which are the groups; ``…_sd`` over these,
    ``…/TISSUE`` of each), ``pannuke_pq_CLASS`` and ``pannuke_false_positives_per_mm2``.

    Raises
    ------
    FormatError
        There are more or fewer predictions than samples, or a sample lacks classes.
    """
    if len(samples) != len(predictions):
        raise FormatError(f"{len(predictions)} predictions for {len(samples)} images, expected one an image")
    names = tuple(classes) if len(classes) > 1 else ()
    scored = score_compared(_compared(samples, predictions, names), names or None, bootstrap=draws, radius=radius)
    rows, figures = scored.per_image, dict(scored.figures)
    if any(sample.class_maps is not None for sample in samples):
        images = [_image(sample, found, names) for sample, found in zip(samples, predictions)]
        figures |= _pannuke(images, [sample.group for sample in samples], names, pixel_size, draws)
        for row, image in zip(rows, images):
            row |= {"pannuke_bpq": image.bpq} | ({"pannuke_mpq": image.mpq} if names else {})
    return Measured(rows, figures)


def _compared(samples: Sequence[Sample], predictions: Sequence[Found], names: tuple[str, ...]) -> Iterator[Compared]:
    for sample, found in zip(samples, predictions):
        overlap = Overlap.from_labels(sample.labels, found.labels)
        rows = overlap.prediction_ids - 1
        truth = Points(label_points(sample.labels, overlap.truth_ids), _truth_classes(sample, names))
        prediction = Points(
            label_points(found.labels, overlap.prediction_ids),
            np.asarray(found.class_index, np.int64)[rows] if names else None,
            np.asarray(found.scores, np.float64)[rows],
        )
        yield Compared(overlap, truth, prediction, names)


def _truth_classes(sample: Sample, names: tuple[str, ...]) -> IntArray | None:
    """(n,) int64, the class of instance 1, 2, ... n; None without classes."""
    if not names:
        return None
    if sample.classes is None:
        raise FormatError(f"{sample.name}: its objects have no classes, accepted: {', '.join(names)}")
    return np.array([names.index(name) for name in sample.classes], np.int64)


def _image(sample: Sample, found: Found, names: tuple[str, ...]) -> ImageScores:
    """PanNuke's figures of an image; an object that lies under others counts in the truth of its class alone."""
    truth = {} if sample.class_maps is None else sample.class_maps()
    maps = {}
    for c, name in enumerate(names):
        mine = np.concatenate([[False], np.asarray(found.class_index) == c])
        of_class = truth[name] if name in truth else np.zeros_like(sample.labels)
        maps[name] = (of_class, np.where(mine[found.labels], found.labels, 0))
    return score_image(sample.labels, found.labels, maps)


def _pannuke(
    images: Sequence[ImageScores], tissues: Sequence[str], names: Sequence[str], pixel_size: float, draws: int
) -> dict[str, Figure]:
    scores = summarise(images, tissues, pixel_size=pixel_size)
    resamples = bootstrap.weights(len(images), draws if len(images) > 1 else 0)
    figures = {}

    def add(name: str, value: float, over: str, values: FloatArray, statistic: bootstrap.Statistic) -> None:
        low, high = bootstrap.interval(statistic, resamples)
        figures[name] = Figure(value, over, int((~np.isnan(values)).sum()), low, high)

    of = np.array(tissues)
    for name, values, mean, deviation, each in (
        ("pannuke_bpq", scores.image_bpq, scores.bpq, scores.bpq_sd, scores.tissue_bpq),
        ("pannuke_mpq", scores.image_mpq, scores.mpq, scores.mpq_sd, scores.tissue_mpq),
    )[: 2 if names else 1]:
        own = {tissue: np.where(of == tissue, values, np.nan) for tissue in each}
        add(name, mean, GROUPS, values, _over_groups(list(own.values())))
        figures[f"{name}_sd"] = Figure(deviation, GROUPS, len(images))
        for tissue, value in each.items():
            add(f"{name}/{tissue}", value, MEAN, own[tissue], bootstrap.mean_statistic(own[tissue]))
    for name in names:
        values = np.array([image.class_pq[name] for image in images])
        add(f"pannuke_pq_{name}", scores.class_pq[name], MEAN, values, bootstrap.mean_statistic(values))
    empty = sum(image.empty_area > 0 for image in images)
    figures["pannuke_false_positives_per_mm2"] = Figure(scores.false_positives_per_mm2, POOLED, empty)
    return figures


def _over_groups(groups: Sequence[FloatArray]) -> bootstrap.Statistic:
    """The plain mean over groups of the mean of each; one of which a draw has no image is left out of it."""
    each = [bootstrap.mean_statistic(values) for values in groups]

    def statistic(resamples: FloatArray) -> FloatArray:
        means = np.stack([one(resamples) for one in each])
        count = (~np.isnan(means)).sum(0)
        result: FloatArray = np.divide(
            np.nansum(means, axis=0), count, out=np.full(len(count), np.nan), where=count > 0
        )
        return result

    return statistic
