"""Segmenter `persense` through Snakemake: one object is drawn on the slide, or shown in a picture."""

import json
import shutil

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from cohorts import ONE_SHARD, ROOT, Cohort, preset
from persense_scenes import PLACES, RADIUS, discs, write_picture


@pytest.mark.slow
def test_all_discs_from_one_that_was_drawn_or_shown(tmp_path):
    places = [*PLACES, (300, 60), (350, 130), (290, 200), (275, 260), (128, 300), (330, 330)]
    image, _ = discs(places, side=384)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", tile=(128, 128),
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    shutil.copy(ROOT / "config.yaml", tmp_path)
    x, y = places[0]
    gpd.GeoDataFrame(geometry=[shapely.Point(x, y).buffer(RADIUS)]).to_file(tmp_path / "drawn.geojson")
    small, shown = discs(PLACES[:3], side=160, seed=9)
    write_picture(tmp_path / "shown.png", small, shown == 1)
    cohort = Cohort(tmp_path)
    segmenter = {
        "name": "persense", "checkpoint": "small-v1", "device": "cpu", "options": {"label": "bead", "window": 10},
    }  # fmt: skip
    tiles = {**ONE_SHARD, "tile": 256, "overlap": 64}
    cohort.configure(presets={"beads": preset(segmenter=segmenter, tiles=tiles, working_resolution=0.5)})
    rows = [("a", "a.tif", "drawn.geojson"), ("b", "a.tif", "shown.png"), ("c", "a.tif", ""), ("d", "a.tif", "no.png")]
    cohort.sheet(*rows, header="slide\tpath\texemplar")
    wanted = [f"results/{slide}/instances.parquet" for slide in "abcd"]
    done = cohort.snakemake(*wanted)
    assert done.returncode == 0, done.stderr
    for slide in "ab":
        path = cohort.path(slide, "instances.parquet")
        outlines = gpd.read_parquet(path).geometry
        assert len(outlines) == len(places)
        centres = shapely.get_coordinates(outlines.centroid.values)
        distance = np.hypot(*(centres[:, None] - np.array(places)[None]).transpose(2, 0, 1))
        assert distance.min(1).max() < 2
        assert sorted(distance.argmin(1)) == list(range(len(places)))
        table = pq.read_table(path)
        assert set(table["class"].to_pylist()) == {"bead"}
        metadata = json.loads(table.schema.metadata[b"gigaseg"])
        assert metadata["back_ends"] == {
            "label": "static bead", "detector": "similarity", "density": "ncc", "masks": "small",
        }  # fmt: skip
    for slide, reason in (("c", "column 'exemplar'"), ("d", "no.png")):
        record = json.loads(cohort.path(slide, "instances.parquet").read_text())
        assert record["status"] == "failed"
        assert reason in record["reason"]
    assert not cohort.planned("--until", "segment")
    gpd.GeoDataFrame(geometry=[shapely.Point(130, 48).buffer(RADIUS)]).to_file(tmp_path / "drawn.geojson")
    write_picture(tmp_path / "shown.png", small, shown == 2)
    assert cohort.planned("--until", "segment")["segment"] == 2
