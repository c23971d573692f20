"""Polygons from files, batch by batch: instances.parquet, GeoParquet, GeoJSON, and what GDAL reads besides."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.errors import FormatError, one_line
from gigaseg.files import METADATA_KEY, raise_if_failed
from gigaseg.instances.table import INSTANCES_FORMAT, STITCHED_FORMAT
from gigaseg.metrics.polygons import PolygonBatch

BATCH = 20_000
"""Polygons in a batch: some 20 MB."""

PARQUET = (".parquet", ".geoparquet")
GEOJSON = (".geojson", ".json", ".geojsonl", ".geojson.gz", ".json.gz")
OTHERS = (".gpkg", ".fgb", ".shp")
SUFFIXES = PARQUET + GEOJSON + OTHERS

_CLASS_KEYS = ("classification", "class", "class_name", "label")

_CHUNK = 1 << 22
"""Characters read at once from a GeoJSON file."""


def vector_suffix(path: Path) -> str | None:
    """The suffix of a file of polygons, None for any other file."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def read_batches(path: Path) -> tuple[Iterator[PolygonBatch], str | None]:
    """Polygons of a file in batches, and the CRS it states (None: pixels).

    Raises
    ------
    FormatError : the file is missing, damaged, of another kind, or holds the instances of one shard.
    UpstreamFailure : the file is a failure record.
    """
    if not path.is_file():
        raise FormatError(f"{path}: no such file; expected polygons ({', '.join(SUFFIXES)})")
    raise_if_failed(path)
    suffix = vector_suffix(path)
    if suffix in PARQUET:
        return _parquet(path)
    if suffix in GEOJSON:
        return _geojson(path), _geojson_crs(path)
    if suffix in OTHERS:
        return _gdal(path)
    raise FormatError(f"{path}: expected a file of polygons ({', '.join(SUFFIXES)})")


def _parquet(path: Path) -> tuple[Iterator[PolygonBatch], str | None]:
    try:
        # Without pre-buffering pages are read one by one, so a single huge row group does not fill the memory.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{path}: cannot be read as Parquet ({one_line(error)})") from error
    metadata = file.schema_arrow.metadata or {}
    ours = json.loads(metadata.get(METADATA_KEY, b"{}")).get("format")
    if ours == INSTANCES_FORMAT:
        raise FormatError(f"{path}: holds the instances of one shard (working pixels); expected the stitched ones")
    geo = json.loads(metadata.get(b"geo", b"{}"))
    if ours != STITCHED_FORMAT and not geo:
        raise FormatError(f"{path}: neither instances of gigaseg nor GeoParquet; expected one of them")
    primary = geo.get("primary_column", "geometry")
    column = geo.get("columns", {}).get(primary, {"encoding": "WKB", "crs": None})
    if column.get("encoding") != "WKB":
        raise FormatError(f"{path}: geometry encoding is {column.get('encoding')}; expected WKB")
    names = [name for name in (primary, "class", "score") if name in file.schema_arrow.names]
    # GeoParquet: an absent key means longitude and latitude, null means no CRS.
    crs = column.get("crs", "OGC:CRS84")
    return _parquet_batches(path, file, primary, names), json.dumps(crs) if isinstance(crs, dict) else crs


def _parquet_batches(path: Path, file: pq.ParquetFile, primary: str, names: list[str]) -> Iterator[PolygonBatch]:
    try:
        for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
            yield _arrow_batch(batch, primary)
    except (OSError, pa.ArrowException, shapely.GEOSException) as error:
        raise FormatError(f"{path}: damaged Parquet file ({one_line(error)})") from error


def _gdal(path: Path) -> tuple[Iterator[PolygonBatch], str | None]:
    import pyogrio

    try:
        crs = pyogrio.read_info(path)["crs"]
    except pyogrio.errors.DataSourceError as error:
        raise FormatError(f"{path}: cannot be read ({one_line(error)}); expected polygons") from error

    def batches() -> Iterator[PolygonBatch]:
        with pyogrio.open_arrow(path, batch_size=BATCH, use_pyarrow=True) as (meta, reader):
            for batch in reader:
                yield _arrow_batch(batch, meta["geometry_name"] or "wkb_geometry")

    return batches(), crs


def _arrow_batch(batch: pa.RecordBatch, primary: str) -> PolygonBatch:
    def column(name: str) -> Any:
        values = batch.column(name) if name in batch.schema.names else None
        return None if values is None or values.null_count else values

    classes, score = column("class"), column("score")
    return PolygonBatch(
        geometry=np.asarray(shapely.from_wkb(batch.column(primary).to_numpy(zero_copy_only=False)), dtype=object),
        classes=None if classes is None else np.array(classes.to_pylist(), dtype=object),
        score=None if score is None else np.asarray(score, dtype=np.float64),
    )


def _geojson(path: Path) -> Iterator[PolygonBatch]:
    properties: list[dict[str, Any]] = []
    texts: list[str | None] = []
    for feature, text in _features(path):
        properties.append(feature.get("properties") or {})
        texts.append(text if feature["geometry"] else None)
        if len(texts) == BATCH:
            yield _feature_batch(path, properties, texts)
            properties, texts = [], []
    yield _feature_batch(path, properties, texts)


def _features(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The features of a GeoJSON file with their text: of a collection, a bare list, or one feature a line."""
    decoder = json.JSONDecoder()
    with _open_text(path) as stream:
        text, at, in_array = _start(path, stream)
        while True:
            at = _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
            if at == len(text):
                text, at = _read(path, stream), 0
                if not text and in_array:
                    raise FormatError(f"{path}: cut GeoJSON (the list of features does not end)")
                if not text:
                    return
                continue
            if text[at] == "]":
                return
            start = at
            try:
                feature, at = _line(text, at) or decoder.raw_decode(text, at)
            except ValueError as error:  # an incomplete feature: read on
                more = _read(path, stream)
                if not more:
                    raise FormatError(f"{path}: broken or cut GeoJSON ({one_line(error)})") from error
                text, at = text[at:] + more, 0
                continue
            if not isinstance(feature, dict) or "geometry" not in feature:
                raise FormatError(f"{path}: found {str(feature)[:40]!r}; expected GeoJSON Features")
            yield feature, text[start:at]


def _line(text: str, at: int) -> tuple[Any, int] | None:
    """The feature that fills the rest of the line and where it ends, by the faster parser; None for other layouts."""
    end = text.find("\n", at)
    if end < 0:
        return None
    line = text[at:end].rstrip(", \r")
    try:
        return orjson.loads(line), at + len(line)
    except ValueError:
        return None


_SEPARATORS = re.compile(r"[\s,\x1e]*")
_COLLECTION = re.compile(r'"features"\s*:\s*\[')


def _start(path: Path, stream: IO[str]) -> tuple[str, int, bool]:
    """The first text of the file, where its features begin in it, and whether they stand in an array."""
    text = _read(path, stream)
    found = _COLLECTION.search(text)
    if found:
        return text, found.end(), True
    at = _SEPARATORS.match(text).end()  # type: ignore[union-attr]
    if text[at : at + 1] == "[":
        return text, at + 1, True
    if text[at : at + 1] == "{":
        return text, at, False
    raise FormatError(f"{path}: no GeoJSON; expected a FeatureCollection")


def _open_text(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read(path: Path, stream: IO[str]) -> str:
    try:
        return stream.read(_CHUNK)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({one_line(error)})") from error


def _geojson_crs(path: Path) -> str | None:
    """The CRS of the old "crs" member before the features, None without one."""
    with _open_text(path) as stream:
        head = _read(path, stream)
    collection = _COLLECTION.search(head)
    found = re.search(
        r'"crs"\s*:\s*\{.*?"name"\s*:\s*"([^"]+:[^"]+)"', head[: collection.start() if collection else 0], re.S
    )
    return found.group(1) if found else None


def _feature_batch(path: Path, properties: list[dict[str, Any]], texts: list[str | None]) -> PolygonBatch:
    geometry = np.empty(len(texts), dtype=object)
    try:
        geometry[:] = shapely.from_geojson(np.array(texts, dtype=object))
    except shapely.GEOSException as error:
        raise FormatError(f"{path}: a geometry cannot be read ({one_line(error)})") from error
    return PolygonBatch(geometry, _all(properties, _class_of), _all(properties, _score_of))


def _all(properties: list[dict[str, Any]], value_of: Callable[[dict[str, Any]], Any]) -> Any:
    """The value of every feature; None when one has none."""
    values = [value_of(p) for p in properties]
    if any(value is None for value in values):
        return None
    return np.array(values, dtype=object if values and isinstance(values[0], str) else np.float64)


def _class_of(properties: dict[str, Any]) -> str | None:
    """The class as a plain property, or as QuPath writes it ({"name": ...})."""
    value = next((properties[key] for key in _CLASS_KEYS if key in properties), None)
    if isinstance(value, dict):
        value = value.get("name")
    return str(value) if value else None


def _score_of(properties: dict[str, Any]) -> float | None:
    """The score as a plain property, or as `gigaseg export` writes it for QuPath."""
    measured = properties.get("measurements")
    value = properties.get("score", measured.get("Score") if isinstance(measured, dict) else None)
    return float(value) if isinstance(value, int | float) else None
