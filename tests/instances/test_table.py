"""instances.parquet is GeoParquet that other programs read, with the columns and types of the design."""

import json

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from gigaseg.errors import FormatError
from gigaseg.instances.table import Instances, join_parts, read_instances


def table(classes=("a", "b"), members=None):
    n = 3
    prob = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)[:, : len(classes)]
    return Instances(
        geometry=np.array(
            [
                shapely.box(0, 0, 2, 3),
                shapely.MultiPolygon([shapely.box(5, 5, 6, 6), shapely.box(6, 6, 7, 7)]),
                shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4)),
            ],
            dtype=object,
        ),
        score=np.array([1, 0.5, 0.25], np.float32),
        class_index=prob.argmax(axis=1).astype(np.int32),
        class_prob=prob,
        tile_row=np.arange(n, dtype=np.int32),
        tile_col=np.zeros(n, np.int32),
        cut=np.array([0, 4, 15], np.uint8),
        prompt=np.array([-1, 7, -1]),
        classes=classes,
        members=members,
    )


def test_the_columns_have_the_types_of_the_design(tmp_path):
    table(members=np.array([1, 2, 1], np.int16)).write(tmp_path / "i.parquet", {"slide": "s"})
    schema = pq.read_schema(tmp_path / "i.parquet")
    expected = {
        "geometry": pa.binary(), "score": pa.float32(), "class": pa.dictionary(pa.int32(), pa.string()),
        "class_prob": pa.list_(pa.float32()), "tile_row": pa.int32(), "tile_col": pa.int32(), "cut": pa.uint8(),
        "prompt": pa.int64(), "instance": pa.int64(), "members": pa.int16(),
    }  # fmt: skip
    assert {name: schema.field(name).type for name in expected} == expected
    assert {field.name for field in schema.field("bbox").type} == {"xmin", "ymin", "xmax", "ymax"}
    geo = json.loads(schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["crs"] is None
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]


def test_geopandas_reads_it_and_filters_by_bounding_box(tmp_path):
    table().write(tmp_path / "i.parquet", {"slide": "s"})
    frame = geopandas.read_parquet(tmp_path / "i.parquet")
    assert frame.crs is None
    assert frame["class"].tolist() == ["a", "b", "a"]
    assert frame["prompt"].isna().tolist() == [True, False, True]
    near = geopandas.read_parquet(tmp_path / "i.parquet", bbox=(6.5, 6.5, 6.8, 6.8))
    assert len(near) == 2


@pytest.mark.parametrize("classes", [("a",), ("a", "b")])
def test_what_is_written_is_read(tmp_path, classes):
    written = table(classes)
    written.write(tmp_path / "i.parquet", {"slide": "s"})
    read, metadata = read_instances(tmp_path / "i.parquet", stitched=False)
    assert metadata["slide"] == "s"
    assert read.classes == classes
    assert shapely.equals(read.geometry, written.geometry).all()
    for name in ("score", "class_index", "tile_row", "tile_col", "cut", "prompt"):
        assert getattr(read, name).tolist() == getattr(written, name).tolist()
    assert ("class_prob" in pq.read_schema(tmp_path / "i.parquet").names) == (len(classes) > 1)


def test_a_shard_is_not_taken_for_a_slide(tmp_path):
    table().write(tmp_path / "i.parquet", {"slide": "s"})
    with pytest.raises(FormatError, match=r"format is 'gigaseg/instances/1', expected 'gigaseg/stitched/1'"):
        read_instances(tmp_path / "i.parquet", stitched=True)


def test_instances_of_different_classes_are_not_mixed():
    with pytest.raises(FormatError, match=r"classes \['a'\] and \['a', 'b'\]"):
        Instances.concat([table(), table(("a",))])


def test_no_instances_are_a_table_of_no_rows(tmp_path):
    Instances.empty(("a", "b")).write(tmp_path / "i.parquet", {"slide": "s"})
    read, _ = read_instances(tmp_path / "i.parquet", stitched=False)
    assert len(read) == 0
    assert read.class_prob.shape == (0, 2)
    assert len(geopandas.read_parquet(tmp_path / "i.parquet")) == 0


@pytest.mark.parametrize("rows", [3, 4, 100])
def test_parts_join_to_the_table_that_holds_them_all(tmp_path, monkeypatch, rows):
    """Whatever a row group holds, in order; a part without rows has no say in the classes."""
    monkeypatch.setattr("gigaseg.instances.table.ROW_GROUP", rows)
    parts = [Instances.empty(("unknown",)), table(), table(), Instances.empty(("a", "b")), table()]
    paths = [tmp_path / f"{i}.parquet" for i in range(len(parts))]
    for part, path in zip(parts, paths):
        part.write(path, {"slide": "s", "part": True})
    assert join_parts(paths, tmp_path / "joined.parquet", {"slide": "s"}) == 9
    Instances.concat(parts).write(tmp_path / "whole.parquet", {"slide": "s"})
    joined, whole = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("joined", "whole"))
    assert joined.schema.equals(whole.schema, check_metadata=True)
    assert joined.equals(whole)
    assert pq.read_metadata(tmp_path / "joined.parquet").row_group(0).num_rows == min(rows, 9)


def test_parts_without_rows_join_to_an_empty_table_and_other_classes_are_told(tmp_path):
    none = Instances.empty(("a", "b"))
    for name in "01":
        none.write(tmp_path / f"{name}.parquet", {"slide": "s"})
    assert join_parts([tmp_path / "0.parquet", tmp_path / "1.parquet"], tmp_path / "o.parquet", {"slide": "s"}) == 0
    found, metadata = read_instances(tmp_path / "o.parquet", stitched=False)
    assert (len(found), found.classes, metadata["slide"]) == (0, ("a", "b"), "s")
    for name, classes in (("2", ("a", "b")), ("3", ("a", "c"))):
        table(classes).write(tmp_path / f"{name}.parquet", {"slide": "s"})
    with pytest.raises(FormatError, match=r"classes \['a', 'c'\] and \['a', 'b'\]"):
        join_parts([tmp_path / "2.parquet", tmp_path / "3.parquet"], tmp_path / "o.parquet", {"slide": "s"})
