import gzip
import json
import shutil
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.errors import UpstreamFailure
from gigaseg.instances.table import read_instances
from gigaseg.viewer.outlines import Layout, TileOutlines, parts_by_tile
from gigaseg.viewer.pack import SlideFiles, is_current, make_pack
from viewer.conftest import outlines_of


@pytest.fixture(scope="module")
def pack(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("pack") / "view.zip"
    make_pack(SlideFiles.of(cohort / "a"), out)
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_all_outlines_come_back_as_they_were_found(cohort, pack):
    found, _ = read_instances(cohort / "a" / "instances.parquet", stitched=True)
    rows = {}
    for name, data in pack.items():
        if name.startswith("outlines/"):
            outlines_of(data, rows)
    assert sorted(rows) == list(range(len(found.geometry)))
    difference = [rows[i].symmetric_difference(shape).area for i, shape in enumerate(found.geometry)]
    assert max(difference) < 1e-9


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.sampled_from([(1.0, 1.0), (2.5, 2.5), (0.6, 0.61)]), st.integers(0, 2**32 - 1))
def test_outlines_are_exact_for_masks_and_within_half_a_step_for_others(n, scale, seed):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 9000, (n, 2))
    size = rng.integers(1, rng.choice([30, 3000]), (n, 2))
    masks = shapely.box(*start.T, *(start + size).T)
    masks[::3] = shapely.difference(masks[::3], shapely.box(*(start + 1).T, *(start + 2).T)[::3])
    masks = masks[~shapely.is_empty(masks)]
    drawn = shapely.buffer(shapely.points(rng.uniform(0, 9000, (n, 2))), rng.uniform(1, 300, n))
    geometry = shapely.transform(np.concatenate([masks, drawn]), lambda xy: xy * scale)
    layout = Layout.of(shapely.bounds(geometry))
    origin, step = layout.frame(scale)
    rows = {}
    for tile, part in parts_by_tile(geometry, 0, layout.tile, origin, step):
        whole = TileOutlines()
        whole.extend(part)
        outlines_of(whole.encode(origin[tile], step[tile]), rows)
    for i, shape in enumerate(geometry):
        far = shapely.hausdorff_distance(rows[i].boundary, shape.boundary)
        near = step[layout.tile[i]]
        assert max(near / scale) <= 1 / 2
        assert far < 1e-6 if i < len(masks) else far <= np.hypot(*near) / 2 + 1e-9


def test_columns_and_rows_hold_what_the_tables_hold(cohort, pack):
    meta = json.loads(pack["meta.json"])
    measured = pq.read_table(cohort / "a" / "measurements.parquet").to_pandas()
    found = pq.read_table(cohort / "a" / "instances.parquet", columns=["class", "score", "members", "cut"]).to_pandas()
    names = [column["name"] for column in meta["columns"]]
    assert names == ["class", "score", *measured.columns.drop(["instance", "class"]), "members", "cut"]
    n = meta["instances"]
    rows = np.concatenate(
        [
            np.frombuffer(gzip.decompress(pack[f"rows/{i}.gz"])).reshape(len(names), -1)
            for i in range(-(-n // meta["rows"]))
        ],
        axis=1,
    )
    for i, column in enumerate(meta["columns"]):
        name = column["name"]
        values = np.frombuffer(gzip.decompress(pack[f"columns/{name}.gz"]), column["type"])
        truth = (found if name in found else measured)[name]
        if "categories" in column:
            words = [*column["categories"], None]
            assert [words[int(value)] for value in values] == [v if isinstance(v, str) else None for v in truth]
            assert column["counts"] == [int((truth == word).sum()) for word in column["categories"]]
        else:
            np.testing.assert_array_equal(values, truth.to_numpy())
            assert (column["min"], column["max"]) == (truth.min(), truth.max())
        np.testing.assert_array_equal(rows[i], values.astype(float))
    assert {column["name"]: column["categories"] for column in meta["columns"] if "categories" in column} == {
        "class": ["nucleus"],
        "region": ["tumour"],
    }


def test_regions_and_prompts_lie_in_level_0_px(pack):
    meta = json.loads(pack["meta.json"])
    assert [region["name"] for region in meta["regions"]] == ["tumour"]
    ring = shapely.Polygon(np.reshape(meta["regions"][0]["rings"][0], (-1, 2)))
    assert ring.equals(shapely.box(300, 200, 900, 700))
    data, scale = gzip.decompress(pack["prompts.gz"]), meta["grid"]["scale"][0]
    corners = np.frombuffer(data, "<f4", 16).reshape(4, 4).T
    np.testing.assert_allclose(
        corners[[0, 3]], np.array([[500, 400, 500, 400], [600, 300, 640, 350]]) * scale, rtol=1e-6
    )
    assert list(np.frombuffer(data, np.int8, 4, 64)) == [1, 1, 0, -1]


def test_a_pack_is_current_until_results_or_colours_change(cohort, tmp_path):
    folder = shutil.copytree(cohort / "b", tmp_path / "b")
    files, pack = SlideFiles.of(folder), tmp_path / "view.zip"
    make_pack(files, pack)
    before = pack.read_bytes()
    assert is_current(pack, files.state({}))
    assert not is_current(pack, files.state({"nucleus": "#ff0000"}))
    make_pack(files, pack)
    assert pack.read_bytes() == before
    pack.write_bytes(before[: len(before) // 2])
    assert not is_current(pack, files.state({}))
    make_pack(files, pack)
    (folder / "measurements.parquet").touch()
    assert not is_current(pack, files.state({}))


def test_a_failed_slide_has_no_pack_but_its_reason(cohort, tmp_path):
    with pytest.raises(UpstreamFailure, match="inspect"):
        make_pack(SlideFiles.of(cohort / "broken"), tmp_path / "view.zip")
    assert not list(tmp_path.iterdir())
