"""Score files: one label image or slide against its truth, or folders of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from gigaseg.errors import ConfigError
from gigaseg.metrics.detection import RADIUS
from gigaseg.metrics.figures import Compared, score_compared
from gigaseg.metrics.pairs import compare, find_pairs
from gigaseg.metrics.report import Report
from gigaseg.metrics.score import THRESHOLDS

logger = logging.getLogger(__name__)


def evaluate(
    prediction: Path,
    truth: Path,
    *,
    out: Path | None = None,
    bootstrap: int = 1000,
    classes: Sequence[str] | None = None,
    radius: float = RADIUS,
    thresholds: Sequence[float] = THRESHOLDS,
    connected: bool = False,
    reference: bool = False,
    slide: Path | None = None,
) -> Report:
    """Score a prediction against truth: two files, or two folders paired by the names of their files.

    Label images (PNG, TIFF, NPY, MAT) and polygons (instances.parquet, GeoParquet, GeoJSON, GPKG, FGB, SHP;
    level-0 px) may meet in any combination. A folder may also hold results, NAME/instances.parquet.

    Parameters
    ----------
    out : JSON file to write; None: none.
    bootstrap : resamples of the images for the 95 % intervals; 0: no intervals. A single image has none.
    classes : names to score, in order; needed to name the classes of files that only number them. None: all
        classes of the truth, if both sides have classes.
    radius : px within which centroids are one object.
    thresholds : IoU thresholds of F1.
    connected : give the 8-connected parts of a label ids of their own.
    reference : add the `*_reference` figures of single papers, and the share of truth objects that touch another.
    slide : slide.json, for truth in a CRS; None: the one beside the prediction.

    Raises
    ------
    ConfigError : an option is out of range.
    FormatError : files are missing, do not fit together, or cannot be read.
    UpstreamFailure : a prediction is the failure record of an earlier step.
    """
    if bootstrap < 0:
        raise ConfigError(f"bootstrap is {bootstrap}; expected 0 or more resamples")
    if not radius >= 0:
        raise ConfigError(f"radius is {radius}; expected 0 or more px")
    wrong = [t for t in thresholds if not 0 <= t < 1]
    if wrong:
        raise ConfigError(f"threshold is {wrong[0]}; expected an IoU from 0 to below 1")
    pairs = find_pairs(Path(prediction), Path(truth))

    def read() -> Iterator[Compared]:
        for pair in pairs:
            compared = compare(pair, classes, connected=connected, slide=slide)
            yield compared
            logger.info("%s: %d objects, %d found", pair.name, len(compared.truth.xy), len(compared.prediction.xy))

    scored = score_compared(
        read(), classes, bootstrap=bootstrap, radius=radius, thresholds=thresholds, reference=reference
    )
    report = Report(
        prediction=str(prediction),
        truth=str(truth),
        images=tuple(pair.name for pair in pairs),
        figures=scored.figures,
        per_image=scored.per_image,
        settings={
            "radius": radius,
            "thresholds": list(thresholds),
            "bootstrap": bootstrap,
            "classes": list(scored.classes),
            "connected": connected,
        },
    )
    if out is not None:
        report.write(out)
    return report


def score_folder(truth: Path, prediction: Path, *, bootstrap: int = 1000) -> Report:
    """`evaluate` with the truth first, as in `gigaseg.metrics.score.score_labels`."""
    return evaluate(prediction, truth, bootstrap=bootstrap)
