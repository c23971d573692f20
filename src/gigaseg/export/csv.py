"""CSV: number, class, score and measurements, without outlines; for spreadsheets and R."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow.csv import CSVWriter, WriteOptions

from gigaseg.export.measured import MeasuredInstances
from gigaseg.export.vector import columns, rows
from gigaseg.files import atomic


def write_csv(found: MeasuredInstances, path: Path) -> None:
    """Write a line an instance below a line of names; UTF-8, a comma between values, nothing for a missing one.

    Centroids, in level-0 px, are among the measurements.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    schema = pa.schema(columns(found))
    options = WriteOptions(quoting_style="needed")
    with atomic(path) as temporary, CSVWriter(temporary, schema, write_options=options) as writer:
        for batch in found:
            writer.write_batch(pa.RecordBatch.from_arrays(rows(found, batch), schema=schema))
