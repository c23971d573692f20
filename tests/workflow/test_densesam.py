"""Segmenter `densesam` through Snakemake: both variants, with weights that have learnt bright discs."""

import shutil

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from cohorts import ONE_SHARD, ROOT, Cohort, preset
from densesam_models import write_learnt_densesam
from sac_models import scene


@pytest.mark.slow
def test_nuclei_by_two_heads_and_regular_buildings_by_one(tmp_path):
    centres = [(40, 40), (128, 60), (210, 45), (60, 150), (128, 140), (200, 200), (50, 215)]  # some on seams
    image, labels = scene(centres, side=256)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", tile=(128, 128),
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    shutil.copy(ROOT / "config.yaml", tmp_path)
    cohort, presets = Cohort(tmp_path), {}
    for name, changes, stitch in (
        ("nuclei", {}, {}),
        ("roofs", {"heads": 1, "classes": ("building",)}, {"regularise": 2.0}),
    ):
        (tmp_path / name).mkdir()
        weights = write_learnt_densesam(tmp_path / name, **changes)
        segmenter = {"name": "densesam", "checkpoint": str(weights), "device": "cpu"}
        presets[name] = preset(segmenter=segmenter, tiles=ONE_SHARD, working_resolution=0.5, stitch=stitch)
    cohort.configure(presets=presets)
    cohort.sheet(("a", "a.tif", "nuclei"), ("b", "a.tif", "roofs"), header="slide\tpath\tpreset")
    done = cohort.snakemake("results/a/instances.parquet", "results/b/instances.parquet")
    assert done.returncode == 0, done.stderr
    area = np.bincount(labels.ravel())[1:].mean()
    vertices = {}
    for slide, kind in (("a", "nucleus"), ("b", "building")):
        path = cohort.path(slide, "instances.parquet")
        outlines = gpd.read_parquet(path).geometry
        assert len(outlines) == len(centres)
        assert set(pq.read_table(path)["class"].to_pylist()) == {kind}
        assert 0.7 < outlines.area.mean() / area < 1.4
        vertices[slide] = shapely.get_num_coordinates(outlines.values).sum()
    assert vertices["b"] < 0.7 * vertices["a"]  # no staircase of pixels is left
