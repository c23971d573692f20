"""GeoJSON split by region: a ZIP with one file for QuPath for each region of the slide, and one for what is in none."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gigaseg.export.geojson import Collection, Features
from gigaseg.export.measured import Batch, MeasuredInstances
from gigaseg.files import atomic, scratch

REGION = "region"
"""Column of measurements.parquet: the smallest region that an instance's centroid lies in."""

OUTSIDE = "outside"
"""Name of the file of the instances in no region."""

_COPIED = 1 << 20


def write_regions(found: MeasuredInstances, path: Path) -> None:
    """Write NAME.geojson for every region that holds instances, and outside.geojson.

    Each instance is in one file: that of the smallest region that its centroid lies in, as in measurements.parquet.
    Characters that file names may not have become "_".

    Parameters
    ----------
    found : the instances of a slide.
    path : target, a ZIP; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    features = Features(found)
    with scratch(path) as folder, ExitStack() as files:
        open_: dict[str, Collection] = {}
        for batch in found:
            for name, own in _split(batch):
                if name not in open_:
                    stream = files.enter_context((folder / str(len(open_))).open("wb"))
                    open_[name] = Collection(stream)
                open_[name].add(features.of(own))
        for collection in open_.values():
            collection.close()
        files.close()
        with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for region, member in sorted(_members(open_).items()):
                part = folder / str(list(open_).index(region))
                # fixed date and rights, so that the same instances give the same bytes
                entry = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
                entry.file_size = part.stat().st_size  # tells whether it needs ZIP64
                with part.open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, _COPIED)


def _split(batch: Batch) -> Iterator[tuple[str, Batch]]:
    if REGION not in batch.measurements.schema.names:  # the slide has no regions
        yield "", batch
        return
    names = batch.measurements[REGION].fill_null("").to_numpy(zero_copy_only=False).astype(str)
    for name in np.unique(names).tolist():
        yield name, _take(batch, np.flatnonzero(names == name))


def _take(batch: Batch, index: npt.NDArray[np.int64]) -> Batch:
    return Batch(
        instance=batch.instance[index],
        geometry=batch.geometry[index],
        score=batch.score[index],
        class_index=batch.class_index[index],
        tile_row=batch.tile_row[index],
        tile_col=batch.tile_col[index],
        measurements=batch.measurements.take(pa.array(index)),
    )


def _members(regions: Iterable[str]) -> dict[str, str]:
    """Region, "" being none, -> name of its file; of equal ones the later get a number."""
    taken: set[str] = set()
    found: dict[str, str] = {}
    for region in sorted(regions):
        stem = re.sub(r"[^\w .+-]", "_", region).strip(" .") or ("_" if region else OUTSIDE)
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        found[region] = f"{name}.geojson"
    return found
