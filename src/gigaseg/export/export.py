"""The `export` step: the instances of a slide in the formats of other programs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from gigaseg.errors import ConfigError, unknown
from gigaseg.export.formats import FORMATS
from gigaseg.export.measured import MeasuredInstances

logger = logging.getLogger(__name__)


def export(instances: Path, measurements: Path, info: Path, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write the instances of a slide in each of `formats`; memory does not grow with their number.

    Parameters
    ----------
    instances, measurements, info : instances.parquet, measurements.parquet and slide.json of one slide.
    formats : names in `gigaseg.export.formats.FORMATS`.
    folder : where the files go, made when missing.

    Returns
    -------
    Paths of the files, in the order of `formats`.

    Raises
    ------
    ConfigError
        A format is unknown.
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or foreign, or the measurements are of other instances.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"export: {unknown('format', name, FORMATS)}")
    found = MeasuredInstances(Path(instances), Path(measurements), Path(info))
    written = []
    for name in formats:
        target = Path(folder) / FORMATS[name].file
        FORMATS[name].write(found, target)
        logger.info("wrote %s: %d instances, %.1f MB", target, found.count, target.stat().st_size / 1e6)
        written.append(target)
    return written
