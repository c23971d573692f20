"""GeoJSON as QuPath reads and writes it: one Feature an instance, a detection with class and measurements.

Coordinates are pixels of level 0, y down: QuPath's frame, so nothing needs a transform. Of a slide whose scanned area
is a part of level 0 (MIRAX), QuPath shows that part alone, and its corner is QuPath's origin: coordinates are counted
from there. They are rounded to 0.01 px, which is QuPath's own precision; an outline that rounding would make invalid
keeps all its digits. Measurements have the seven digits of float32; the full values are in measurements.parquet.
Fields as QuPath since version 0.4 writes them (its class QuPathTypeAdapters).
"""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import shapely

from gigaseg.export.measured import Batch, MeasuredInstances
from gigaseg.export.names import display_name
from gigaseg.files import atomic

DECIMALS = 2
"""Decimals of a coordinate, level-0 px."""

_NAMESPACE = uuid.UUID("6a1f0c52-94d1-5f0e-9c0b-8f3f5d0d7e11")
_WHOLE = re.compile(r"\.0(?=[],])")


def write_geojson(found: MeasuredInstances, path: Path, *, compress: bool = False) -> None:
    """Write the instances as a FeatureCollection, one Feature a line, in bounded memory.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.
    compress : gzip it.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    with atomic(path) as temporary, temporary.open("wb") as raw:
        if compress:
            # no file name and no time in the header: the same instances give the same bytes
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as stream:
                _write(found, stream)
        else:
            _write(found, raw)


def instance_id(slide: str, instance: int) -> str:
    """The UUID of an instance, the same in every run (QuPath replaces other ids by random ones)."""
    return str(uuid.uuid5(_NAMESPACE, f"{slide}/{instance}"))


class Features:
    """The Features of a slide's instances, as text."""

    def __init__(self, found: MeasuredInstances) -> None:
        self._slide = found.info.slide
        self._origin = found.info.bounds[:2] if found.info.bounds else (0, 0)
        self._classes = [_json({"name": name, "color": color}) for name, color in zip(found.classes, found.colors)]

    def of(self, batch: Batch) -> Iterator[str]:
        """A Feature an instance, each without a line break."""
        geometry = _geometry(batch.geometry, self._origin)
        measurements = _measurements(batch)
        for i, instance in enumerate(batch.instance.tolist()):
            yield (
                f'{{"type":"Feature","id":"{instance_id(self._slide, instance)}","geometry":{geometry[i]},'
                f'"properties":{{"objectType":"detection","classification":{self._classes[batch.class_index[i]]},'
                f'"measurements":{measurements[i]}}}}}'
            )


class Collection:
    """A FeatureCollection that is written to `stream`, one Feature a line."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self._separator = b"\n"
        stream.write(b'{"type":"FeatureCollection","features":[')

    def add(self, features: Iterable[str]) -> None:
        """Write some Features, at least one."""
        self._stream.write(self._separator + ",\n".join(features).encode())
        self._separator = b",\n"

    def close(self) -> None:
        """Write its end; the stream stays open."""
        self._stream.write(b"\n]}\n")


def _write(found: MeasuredInstances, stream: IO[bytes] | gzip.GzipFile) -> None:
    features, collection = Features(found), Collection(stream)
    for batch in found:
        collection.add(features.of(batch))
    collection.close()


def _geometry(geometry: npt.NDArray[np.object_], origin: tuple[int, int]) -> list[str]:
    """GeoJSON of each geometry, counted from `origin`, rounded, whole numbers without a decimal point."""
    if any(origin):
        geometry = np.asarray(shapely.transform(geometry, lambda xy: xy - origin), dtype=object)
    rounded = shapely.transform(geometry, lambda xy: np.round(xy, DECIMALS))
    broken = ~shapely.is_valid(rounded)
    rounded[broken] = geometry[broken]
    return [_WHOLE.sub("", text) for text in shapely.to_geojson(rounded)]


def _measurements(batch: Batch) -> list[str]:
    """One JSON object an instance; values that are not finite are left out, QuPath shows them as missing."""
    names = ["Instance", "Score"]
    columns: list[list[Any]] = [batch.instance.tolist(), _numbers(pa.array(batch.score))]
    for field, column in zip(batch.measurements.schema, batch.measurements.columns, strict=True):
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            names.append(display_name(field.name))
            columns.append(_numbers(column))
    rows = zip(*columns, strict=True)
    return [
        orjson.dumps(
            {name: value for name, value in zip(names, row, strict=True) if value is not None},
            option=orjson.OPT_SERIALIZE_NUMPY,
        ).decode()
        for row in rows
    ]


def _numbers(column: pa.Array) -> list[Any]:
    """Values as JSON numbers: integers as they are, others as float32; None where missing or not finite."""
    if pa.types.is_integer(column.type):
        return list(column.to_pylist())
    values = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    return [value if ok else None for value, ok in zip(values, finite, strict=True)]


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
