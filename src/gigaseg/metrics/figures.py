"""The figures of images whose objects are known, as means, pooled figures and totals with intervals."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

import numpy as np

from gigaseg.metrics import bootstrap as resampling
from gigaseg.metrics.classes import class_pixels, class_pq, nan_mean
from gigaseg.metrics.detection import MAX_HUNGARIAN, RADIUS, Points, greedy_counts, paired_counts
from gigaseg.metrics.instance import match_counts
from gigaseg.metrics.overlap import FloatArray, Overlap
from gigaseg.metrics.pixel import PixelCounts
from gigaseg.metrics.reference import (
    aji_centersam_reference,
    aji_densesam_reference,
    dsc_reference,
    seg_reference,
)
from gigaseg.metrics.report import MEAN, POOLED, TOTAL, Figure
from gigaseg.metrics.score import THRESHOLDS, score_overlap

logger = logging.getLogger(__name__)

_TOTALS = ("truth_objects", "predicted_objects")
_NO_TRUTH_NO_PQ = ("pq", "dq", "sq")


@dataclass(frozen=True)
class Compared:
    """An image, ready to be scored.

    Attributes
    ----------
    overlap : of the objects.
    truth, prediction : the objects as points, in the order of the overlap; classes index `classes`.
    classes : names wanted, or all names of both sides; empty when not both sides have classes.
    touching : number of truth objects that touch another (`gigaseg.metrics.images.touching_ids`); None where both sides
        are polygons.
    """

    overlap: Overlap
    truth: Points
    prediction: Points
    classes: tuple[str, ...]
    touching: int | None = None


@dataclass(frozen=True)
class Scored:
    """Figures of several images.

    Attributes
    ----------
    figures : by name (docs/metrics.md).
    per_image : the figures of each image.
    classes : that were scored.
    """

    figures: dict[str, Figure]
    per_image: list[dict[str, float]]
    classes: tuple[str, ...]


def score_compared(
    compared: Iterable[Compared],
    classes: Sequence[str] | None = None,
    *,
    bootstrap: int = 1000,
    radius: float = RADIUS,
    thresholds: Sequence[float] = THRESHOLDS,
    reference: bool = False,
) -> Scored:
    """Figures of images whose objects are known; parameters as `gigaseg.metrics.evaluate.evaluate`.

    One image is held at a time.
    """
    images = [_score(one, radius, thresholds, reference) for one in compared]
    names = _classes_of(images, classes)
    per_image = [{**image.scores, **_class_columns(image, names)} for image in images]
    return Scored(_figures(images, names, bootstrap), per_image, names)


@dataclass(frozen=True)
class _Image:
    """Scores of one image, and the counts that pooled figures are made of."""

    scores: dict[str, float]
    sums: dict[str, float]
    class_pq: dict[str, float] | None
    true_classes: frozenset[str] = field(default_factory=frozenset)
    predicted_classes: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Ratio:
    """A pooled figure: the mean of quotients of weighted sums; terms without a denominator are left out."""

    terms: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]

    def __call__(self, sums: Mapping[str, FloatArray]) -> FloatArray:
        values = []
        for above, below in self.terms:
            top = sum((sums[k] * w for k, w in above.items()), np.zeros(1))
            bottom = sum((sums[k] * w for k, w in below.items()), np.zeros(1))
            values.append(np.divide(top, bottom, out=np.full(np.shape(bottom), nan), where=bottom > 0))
        stacked = np.stack(values)
        count = (~np.isnan(stacked)).sum(0)
        total = np.nansum(stacked, axis=0)
        result: FloatArray = np.divide(total, count, out=np.full(total.shape, nan), where=count > 0)
        return result


def _score(compared: Compared, radius: float, thresholds: Sequence[float], reference: bool) -> _Image:
    overlap, truth, prediction, classes = compared.overlap, compared.truth, compared.prediction, compared.classes
    scores = score_overlap(overlap, thresholds)
    if not len(overlap.truth_ids):
        scores.update(dict.fromkeys(_NO_TRUTH_NO_PQ, nan))
    if reference:
        scores["dsc_reference"] = dsc_reference(overlap)
        scores["seg_reference"] = seg_reference(overlap)
        scores["aji_centersam_reference"] = aji_centersam_reference(overlap)
        scores["aji_densesam_reference"] = aji_densesam_reference(overlap)
        scores["truth_touching"] = nan
        if compared.touching is not None and len(overlap.truth_ids):
            scores["truth_touching"] = compared.touching / len(overlap.truth_ids)
    pixels, half = PixelCounts.from_overlap(overlap), match_counts(overlap)
    sums = {"px_tp": pixels.tp, "px_fp": pixels.fp, "px_fn": pixels.fn, "px_tn": pixels.tn}
    sums |= {"tp": half.tp, "fp": half.fp, "fn": half.fn, "iou": half.iou}
    if compared.touching is not None:
        sums |= {"touching": float(compared.touching), "objects": float(len(overlap.truth_ids))}
    empty = not len(overlap.truth_ids)
    sums |= {"empty": float(empty), "empty_fp": float(len(overlap.prediction_ids)) if empty else 0.0}
    n = len(classes)
    # A full Hungarian of a whole slide does not fit into memory.
    fits = max(len(truth.xy), len(prediction.xy)) <= MAX_HUNGARIAN
    for protocol in ("hungarian", "gated") if fits else ("gated",):
        detection, each = paired_counts(truth, prediction, n, radius, gated=protocol == "gated")
        sums |= {f"{protocol}_tp": detection.tp, f"{protocol}_fp": detection.fp, f"{protocol}_fn": detection.fn}
        for name, c in zip(classes, each):
            sums |= {f"{protocol}_{k}:{name}": getattr(c, k) for k in ("tp", "fp", "fn", "fp_d", "fn_d")}
    detection, apart = greedy_counts(truth, prediction, n, radius)
    sums |= {"greedy_tp": detection.tp, "greedy_fp": detection.fp, "greedy_fn": detection.fn}
    for name, single in zip(classes, apart):
        sums |= {f"greedy_tp:{name}": single.tp, f"greedy_fp:{name}": single.fp, f"greedy_fn:{name}": single.fn}
    if truth.class_index is None or prediction.class_index is None or not n:
        empty_sides = not len(truth.xy) and not len(prediction.xy)
        return _Image(scores, sums, {} if empty_sides else None)
    for name, area in class_pixels(overlap, truth.class_index, prediction.class_index, classes).items():
        sums |= {f"px_tp:{name}": area.tp, f"px_fp:{name}": area.fp, f"px_fn:{name}": area.fn}
    return _Image(
        scores,
        sums,
        class_pq(overlap, truth.class_index, prediction.class_index, classes),
        frozenset(classes[k] for k in np.unique(truth.class_index) if k >= 0),
        frozenset(classes[k] for k in np.unique(prediction.class_index) if k >= 0),
    )


def _classes_of(images: Sequence[_Image], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The classes that the report shows: those wanted, else those of the truth if the prediction knows any."""
    if wanted:
        return tuple(wanted)
    without = sum(image.class_pq is None for image in images)
    if without:
        if without < len(images):
            logger.warning("%d of %d images lack classes; classes are not scored", without, len(images))
        return ()
    truth: set[str] = set().union(*(image.true_classes for image in images))
    found: set[str] = set().union(*(image.predicted_classes for image in images))
    if truth and found and not truth & found:
        logger.warning(
            "truth (%s) and prediction (%s) share no class; classes are not scored", _some(truth), _some(found)
        )
        return ()
    # A single class says nothing that the figures without classes do not say.
    return tuple(sorted(truth)) if len(truth | found) > 1 else ()


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5])


def _class_columns(image: _Image, names: Sequence[str]) -> dict[str, float]:
    if not names:
        return {}
    each = {f"pq_{name}": (image.class_pq or {}).get(name, nan) for name in names}
    return {"mpq": nan_mean(list(each.values())), **each}


def _figures(images: Sequence[_Image], names: Sequence[str], draws: int) -> dict[str, Figure]:
    n = len(images)
    resamples = resampling.weights(n, draws if n > 1 else 0)
    figures: dict[str, Figure] = {}

    def add_mean(name: str, values: FloatArray) -> None:
        low, high = resampling.interval(resampling.mean_statistic(values), resamples)
        figures[name] = Figure(nan_mean(values), MEAN, int((~np.isnan(values)).sum()), low, high)

    def add_pooled(name: str, ratio: _Ratio) -> None:
        keys = {k for above, below in ratio.terms for k in (*above, *below)}
        values = {k: np.array([image.sums.get(k, 0.0) for image in images], dtype=np.float64) for k in keys}
        low, high = resampling.interval(lambda w: ratio({k: w @ v for k, v in values.items()}), resamples)
        total = ratio({k: v.sum(keepdims=True) for k, v in values.items()})
        figures[name] = Figure(float(total[0]), POOLED, n, low, high)

    for name in images[0].scores:
        values = np.array([image.scores[name] for image in images], dtype=np.float64)
        if name in _TOTALS:
            figures[name] = Figure(float(values.sum()), TOTAL, n)
        else:
            add_mean(name, values)
    if names:
        columns = [_class_columns(image, names) for image in images]
        for name in columns[0]:
            add_mean(name, np.array([column[name] for column in columns]))
    if n > 1:
        for name, ratio in _POOLED.items():
            add_pooled(name, ratio)
        if "truth_touching" in images[0].scores:
            add_pooled("truth_touching_pooled", _share(("touching", "objects")))
    if names:
        for name in names:
            add_pooled(f"iou_{name}", _class_iou([name]))
        add_pooled("miou", _class_iou(names))
    # One protocol for all images: the published one, unless an image is too large for it.
    paired = "hungarian" if all("hungarian_tp" in image.sums for image in images) else "gated"
    for protocol in (paired, "greedy"):
        for name, ratio in _detection(protocol).items():
            add_pooled(name, ratio)
        for name in names:
            for figure, ratio in _class_ratios(protocol, name).items():
                add_pooled(f"classification_{figure}_{protocol}_{name}", ratio)
    empty = [image.sums["empty_fp"] for image in images if image.sums["empty"]]
    if empty:
        figures["false_positives_without_truth"] = Figure(float(sum(empty)), TOTAL, len(empty))
    return figures


def _share(*terms: tuple[str, str]) -> _Ratio:
    """Quotients written as weighted sums, e.g. ("2 tp", "2 tp + fp + fn")."""
    return _Ratio([(_weights(above), _weights(below)) for above, below in terms])


def _weights(text: str) -> dict[str, float]:
    parts = [part.split() for part in text.split(" + ")]
    return {part[-1]: float(part[0]) if len(part) > 1 else 1.0 for part in parts}


_POOLED = {
    "pixel_dice_pooled": _share(("2 px_tp", "2 px_tp + px_fp + px_fn")),
    "pixel_iou_pooled": _share(("px_tp", "px_tp + px_fp + px_fn")),
    "pixel_precision_pooled": _share(("px_tp", "px_tp + px_fp")),
    "pixel_recall_pooled": _share(("px_tp", "px_tp + px_fn")),
    "pixel_dice_two_class_pooled": _share(
        ("2 px_tp", "2 px_tp + px_fp + px_fn"), ("2 px_tn", "2 px_tn + px_fp + px_fn")
    ),
    "pixel_iou_two_class_pooled": _share(("px_tp", "px_tp + px_fp + px_fn"), ("px_tn", "px_tn + px_fp + px_fn")),
    "pq_pooled": _share(("2 iou", "2 tp + fp + fn")),
    "f1_50_pooled": _share(("2 tp", "2 tp + fp + fn")),
}


def _detection(p: str) -> dict[str, _Ratio]:
    return {
        f"detection_f1_{p}": _share((f"2 {p}_tp", f"2 {p}_tp + {p}_fp + {p}_fn")),
        f"detection_precision_{p}": _share((f"{p}_tp", f"{p}_tp + {p}_fp")),
        f"detection_recall_{p}": _share((f"{p}_tp", f"{p}_tp + {p}_fn")),
    }


def _class_ratios(p: str, name: str) -> dict[str, _Ratio]:
    """F1, precision and recall of a class; in the paired protocols a wrong class counts twice on either side."""
    wrong, missed = (
        ({"fp": 1.0}, {"fn": 1.0}) if p == "greedy" else ({"fp": 2.0, "fp_d": 1.0}, {"fn": 2.0, "fn_d": 1.0})
    )

    def over(above: float, below: Mapping[str, float]) -> _Ratio:
        return _Ratio([({f"{p}_tp:{name}": above}, {f"{p}_{k}:{name}": w for k, w in {"tp": above, **below}.items()})])

    return {"f1": over(2, {**wrong, **missed}), "precision": over(1, wrong), "recall": over(1, missed)}


def _class_iou(names: Sequence[str]) -> _Ratio:
    return _Ratio([({f"px_tp:{n}": 1}, {f"px_{k}:{n}": 1 for k in ("tp", "fp", "fn")}) for n in names])
