"""Files of annotations, prompts and regions as people and programs write them: used after repair, or one line."""

import json

import numpy as np
import pytest

from gigaseg.testing import synthetic_slide
from gigaseg.testing.faults import attempt

SQUARE = [[10, 10], [60, 10], [60, 60], [10, 60], [10, 10]]


def feature(kind, coordinates, **properties):
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}


GOOD = feature("Polygon", [SQUARE])


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def nested(depth):
    """A square in so many collections, as text: what writes JSON does not go so deep."""
    text = collection({"type": "Feature", "properties": {}, "geometry": None})
    start, end = '{"type": "GeometryCollection", "geometries": [', "]}"
    return text.replace("null", start * depth + json.dumps(GOOD["geometry"]) + end * depth)


def circle(vertices):
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    ring = np.column_stack([200 + 90 * np.cos(angle), 150 + 90 * np.sin(angle)]).round(6).tolist()
    return [[*ring, ring[0]]]


def star(points):
    """A line that crosses itself at every turn."""
    angle = np.arange(points) * (np.pi - np.pi / points)
    ring = np.column_stack([200 + 90 * np.cos(angle), 150 + 90 * np.sin(angle)]).tolist()
    return [[*ring, ring[0]]]


def squares(count):
    side = int(np.sqrt(count)) + 1
    places = np.arange(count)
    x, y = places % side * (380 / side), places // side * (280 / side)
    return [feature("Polygon", [[[a, b], [a + 1, b], [a + 1, b + 1], [a, b + 1], [a, b]]]) for a, b in zip(x, y)]


USED = {
    "self-crossing": collection(feature("Polygon", [[[10, 10], [60, 60], [60, 10], [10, 60], [10, 10]]])),
    "star": collection(feature("Polygon", star(21))),
    "empty beside a good one": collection(feature("Polygon", []), GOOD),
    "null beside a good one": collection({"type": "Feature", "properties": {}, "geometry": None}, GOOD),
    "three dimensions": collection(feature("Polygon", [[[*xy, 7.5] for xy in SQUARE]])),
    "unclosed": collection(feature("Polygon", [SQUARE[:-1]])),
    "repeated points": collection(feature("Polygon", [[xy for xy in SQUARE for _ in range(3)]])),
    "hole outside its shell": collection(feature("Polygon", [SQUARE, [[99, 99], [120, 99], [120, 120], [99, 99]]])),
    "points beside a polygon": collection(feature("Point", [5, 5]), GOOD),
    "far off beside a good one": collection(feature("Polygon", [[[-9e9, 0], [-8e9, 0], [-8e9, -9], [-9e9, 0]]]), GOOD),
    "a million corners": collection(feature("Polygon", circle(10**6))),
    "100,000 features": collection(*squares(10**5)),
    "bare array": json.dumps([GOOD]),
    "byte order mark": "\ufeff" + collection(GOOD),
    "odd classes": collection(
        feature("Polygon", [SQUARE], classification={"name": None}),
        feature("Polygon", [SQUARE], classification=[1, {}]),
        feature("Polygon", [SQUARE], classification="\u0000\n{"),
    ),
}  # fmt: skip

REFUSED = {
    "points only": collection(feature("Point", [5, 5]), feature("MultiPoint", [[6, 6]])),
    "lines only": collection(feature("LineString", SQUARE)),
    "no features": collection(),
    "all empty": collection(feature("Polygon", [])),
    "all null": collection({"type": "Feature", "properties": {}, "geometry": None}),
    "without area": collection(feature("Polygon", [[[1, 1], [2, 2], [3, 3], [1, 1]]])),
    "NaN": collection(feature("Polygon", [[[10, float("nan")], [60, 10], [60, 60], [10, 10]]])),
    "infinite": collection(feature("Polygon", [[[10, float("inf")], [60, 10], [60, 60], [10, 10]]])),
    "too far": collection(feature("Polygon", [[[10, 1e300], [60, 10], [60, 60], [10, 10]]])),
    "text for numbers": collection(feature("Polygon", [[["a", "b"], [60, 10], [60, 60], [10, 10]]])),
    "off the slide": collection(feature("Polygon", [[[5000, 5000], [5010, 5000], [5010, 5010], [5000, 5000]]])),
    "deep nesting": nested(10_000),
    "deep brackets": "[" * 1_000_000,
    "deep objects": '{"a":' * 100_000,
    "no JSON": "slide,x,y\n1,2,3\n",
    "half a JSON": collection(GOOD)[:-20],
    "another JSON": json.dumps({"hello": [1, 2, 3]}),
    "a number": "17",
    "UTF-16": collection(GOOD).encode("utf-16"),
    "Latin-1": collection(feature("Polygon", [SQUARE], name="Gewebe µ")).replace("\\u00b5", "µ").encode("latin-1"),
    "bytes of a picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "nothing": b"",
}
EITHER = {"Latin-1", "UTF-16", "NaN", "infinite"}
"""What one version of a library reads and another refuses; both are told apart from wrong success below."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("side")
    synthetic_slide(folder / "s.tif", width=400, height=300, seed=2)
    for words in (
        ["inspect", "s.tif", "--slide=s", "--out=s.json"],
        ["grid", "s.json", "--out=g.parquet", "--foreground=f.tif", "--method=all", "--tile=256"],
        ["segment", "s.json", "g.parquet", "--segmenter=watershed", "--out=000.parquet"],
        ["stitch", "000.parquet", "--grid=g.parquet", "--out=i.parquet"],
    ):
        assert attempt(words, folder=folder).code == 0
    return folder


def annotated(folder, path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    words = ["segment", "s.json", "g.parquet", f"--annotations={path}", "--segmenter=annotations"]
    return attempt([*words, f"--out={path.with_suffix('.parquet')}"], folder=folder, memory=3 * 2**30)


@pytest.mark.parametrize("name", USED)
def test_what_can_be_repaired_is_used(folder, tmp_path, name):
    from gigaseg.instances.table import read_instances

    path = tmp_path / "side.geojson"
    done = annotated(folder, path, USED[name])
    assert done.verdict(path) == "succeeded", done
    assert len(read_instances(path.with_suffix(".parquet"), stitched=False)[0]) >= 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_one_line(folder, tmp_path, name):
    path = tmp_path / "side.geojson"
    done = annotated(folder, path, REFUSED[name])
    assert done.verdict(path) in (("refused", "succeeded") if name in EITHER else ("refused",)), done
    assert len(done.errors) < 2
    assert all(len(line) < 1000 for line in done.errors)


@pytest.mark.parametrize("name", ["deep brackets", "NaN", "no JSON", "UTF-16", "all null", "another JSON"])
def test_prompts_and_regions_too(folder, tmp_path, name):
    path = tmp_path / "side.geojson"
    content = REFUSED[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for words in (
        ["prompt", "s.json", "g.parquet", "--foreground=f.tif", f"--prompts={path}", f"--out={tmp_path / 'p.parquet'}"],
        ["grid", "s.json", f"--prompts={path}", "--foreground=x.tif", f"--out={tmp_path / 'g.parquet'}"],
        ["measure", "i.parquet", "--info=s.json", "--foreground=f.tif", f"--regions={path}"]
        + [f"--out={tmp_path / 'm.parquet'}", f"--summary={tmp_path / 'm.json'}"],
    ):
        done = attempt(words, folder=folder)
        assert done.verdict(path) in ("refused", "succeeded"), done
