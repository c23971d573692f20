from __future__ import annotations

import gzip
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from gigaseg.errors import FormatError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.instances.table import Instances
from gigaseg.metrics import vectors
from gigaseg.metrics.polygons import PolygonStore
from gigaseg.metrics.vectors import read_batches

SQUARES = [shapely.box(10 * i, 0, 10 * i + 4 + i, 5) for i in range(5)]


def _features(**properties) -> list[dict]:
    return [
        {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(square))}
        for square in SQUARES
    ]


def _collection(features: list[dict]) -> dict:
    return {"type": "FeatureCollection", "name": "a [{ tricky } name", "features": features}


def _lines(features: list[dict]) -> str:
    return '{"type": "FeatureCollection", "features": [\n' + ",\n".join(map(json.dumps, features)) + "\n]}\n"


def _store(path: Path) -> PolygonStore:
    return PolygonStore.collect(read_batches(path)[0], str(path))


def write_instances(path: Path, geometry, classes=("nucleus",), class_index=None, *, stitched: bool = True) -> Path:
    n = len(geometry)
    Instances(
        geometry=np.array(geometry, dtype=object),
        score=np.linspace(1, 0.5, n).astype(np.float32),
        class_index=np.zeros(n, np.int32) if class_index is None else np.asarray(class_index, np.int32),
        class_prob=np.ones((n, len(classes)), np.float32),
        tile_row=np.zeros(n, np.int32),
        tile_col=np.zeros(n, np.int32),
        cut=np.zeros(n, np.uint8),
        prompt=np.full(n, -1),
        classes=tuple(classes),
        members=np.ones(n, np.int16) if stitched else None,
    ).write(path, {"slide": "s"})
    return path


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(_collection(_features())),
        json.dumps(_collection(_features()), indent=2),
        _lines(_features()),
        json.dumps(_features()),
        "\n".join(map(json.dumps, _features())),
        "\ufeff" + json.dumps(_collection(_features())),
    ],
    ids=["one line", "indented", "one feature a line", "bare list", "features alone", "byte order mark"],
)
@pytest.mark.parametrize("chunk", [100, 1 << 22])
def test_every_layout_of_geojson_gives_the_same_polygons(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(vectors, "_CHUNK", chunk)
    path = tmp_path / "truth.geojson"
    path.write_text(text, encoding="utf-8")
    assert _store(path).area.tolist() == [square.area for square in SQUARES]


@pytest.mark.parametrize(
    ("properties", "classes"),
    [
        ({"class": "tumour"}, ("tumour",)),
        ({"classification": {"name": "Immune cells", "color": [1, 2, 3]}}, ("Immune cells",)),
        ({"classification": "stroma"}, ("stroma",)),
    ],
)
def test_classes_as_gis_and_qupath_write_them(tmp_path, properties, classes):
    path = tmp_path / "truth.geojson"
    path.write_text(_lines(_features(**properties)))
    assert _store(path).classes == classes


def test_scores_from_properties_and_from_qupath_measurements(tmp_path):
    for name, properties in (("a", {"score": 0.25}), ("b", {"measurements": {"Score": 0.25}})):
        path = tmp_path / f"{name}.geojson"
        path.write_text(_lines(_features(**properties)))
        assert _store(path).score.tolist() == [0.25] * 5


def test_batches_are_small_and_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "BATCH", 2)
    path = tmp_path / "truth.geojson"
    path.write_text(_lines(_features()))
    assert [len(batch.geometry) for batch in read_batches(path)[0]] == [2, 2, 1]
    stitched = write_instances(tmp_path / "instances.parquet", SQUARES)
    assert [len(batch.geometry) for batch in read_batches(stitched)[0]] == [2, 2, 1]


def test_compressed_and_gis_files_hold_the_same_polygons(tmp_path):
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(_lines(_features()).encode()))
    frame = geopandas.GeoDataFrame({"class": ["x"] * 5, "score": np.ones(5)}, geometry=SQUARES)
    frame.to_parquet(tmp_path / "b.parquet")
    frame.to_file(tmp_path / "c.gpkg")
    for name in ("a.geojson.gz", "b.parquet", "c.gpkg"):
        assert sorted(_store(tmp_path / name).area) == sorted(square.area for square in SQUARES), name
    assert _store(tmp_path / "c.gpkg").classes == ("x",)


def test_stitched_instances_keep_scores_and_classes(tmp_path):
    store = _store(write_instances(tmp_path / "i.parquet", SQUARES, ("a", "b"), [1, 1, 0, 1, 0]))
    assert [store.classes[k] for k in store.class_index] == ["b", "b", "a", "b", "a"]
    assert store.score.tolist() == pytest.approx([1, 0.875, 0.75, 0.625, 0.5])


def test_stated_crs_is_returned_and_pixels_have_none(tmp_path):
    head = (
        '{"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},'
    )
    (tmp_path / "a.geojson").write_text(head + '"features": []}')
    (tmp_path / "b.geojson").write_text(_lines(_features(name="EPSG:3857")))
    assert read_batches(tmp_path / "a.geojson")[1] == "urn:ogc:def:crs:EPSG::3857"
    assert read_batches(tmp_path / "b.geojson")[1] is None
    assert read_batches(write_instances(tmp_path / "i.parquet", SQUARES))[1] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.geojson", _lines(_features())[:-200], "cut.geojson: broken or cut GeoJSON"),
        ("end.geojson", _lines(_features())[:-3], "end.geojson: cut GeoJSON .the list of features does not end"),
        ("other.geojson", "<xml/>", "no GeoJSON; expected a FeatureCollection"),
        ("list.geojson", '{"type": "FeatureCollection", "features": [1, 2]}', "found '1'; expected GeoJSON Features"),
        (
            "bad.geojson",
            '{"features": [{"type": "Feature", "geometry": {"type": "Polygon"}}]}',
            "geometry cannot be read",
        ),
        ("no.parquet", "PAR1", "no.parquet: cannot be read as Parquet"),
        ("no.gpkg", "x", "no.gpkg: cannot be read"),
        ("no.txt", "x", r"no.txt: expected a file of polygons \(.parquet"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(FormatError, match=message):
        _store(tmp_path / name)


def test_instances_of_a_shard_and_failure_records_are_refused(tmp_path):
    with pytest.raises(FormatError, match="holds the instances of one shard"):
        _store(write_instances(tmp_path / "shard.parquet", SQUARES, stitched=False))
    write_failure(tmp_path / "instances.parquet", "segment", "no model")
    with pytest.raises(UpstreamFailure, match="step 'segment' failed before: no model"):
        _store(tmp_path / "instances.parquet")
