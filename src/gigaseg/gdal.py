"""What all that is written by GDAL needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyogrio

_DATE = "OGR_CURRENT_DATE"
_EPOCH = "1970-01-01T00:00:00.000Z"


@contextmanager
def fixed_date() -> Iterator[None]:
    """GDAL stamps its files with a fixed date instead of now: the same content gives the same bytes."""
    before = pyogrio.get_gdal_config_option(_DATE)
    pyogrio.set_gdal_config_options({_DATE: _EPOCH})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({_DATE: before})
