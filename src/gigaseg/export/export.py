"""The `export` step: the instances of a slide in the format of another program."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from gigaseg.errors import ConfigError, DeviceError, unknown
from gigaseg.export.formats import FORMATS
from gigaseg.export.measured import MeasuredInstances

log = logging.getLogger(__name__)


def export(
    instances: Path,
    measurements: Path,
    info: Path,
    format: str,
    out: Path,
    *,
    class_colors: Mapping[str, str] | None = None,
) -> None:
    """Write the instances of a slide with their measurements; memory does not grow with their number.

    Parameters
    ----------
    instances, measurements, info : instances.parquet, measurements.parquet and slide.json of one slide.
    format : name in `gigaseg.export.formats.FORMATS`.
    out : the file or folder; replaced when complete.
    class_colors : colour of each class, #rrggbb, that does not get one of gigaseg's own; for formats with colours.

    Raises
    ------
    ConfigError
        The format is unknown, or a colour is no colour.
    DeviceError
        The format needs a library that is not installed.
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or foreign, or the measurements are of other instances.
    """
    if format not in FORMATS:
        raise ConfigError(f"export: {unknown('format', format, FORMATS)}")
    lacking = FORMATS[format].lacking
    if lacking:
        raise DeviceError(f"export format '{format}' needs {lacking}")
    found = MeasuredInstances(Path(instances), Path(measurements), Path(info), class_colors)
    FORMATS[format].write(found, Path(out))
    log.info("slide '%s': wrote %d instances to %s", found.info.slide, found.count, out)
