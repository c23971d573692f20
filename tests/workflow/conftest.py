"""A cohort of two slides."""

import shutil

import pytest

from cohorts import ROOT, Cohort, write_slide


@pytest.fixture
def cohort(tmp_path):
    """Slides a and b under the segmenter `annotations`, tiles of 128 px in several shards."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    found = Cohort(tmp_path)
    write_slide(tmp_path / "a.tif", 1)
    write_slide(tmp_path / "b.tif", 2)
    tiles = {"tile": 128, "overlap": 32, "tiles_per_shard": 5}
    found.configure(
        presets={
            "nuclei": {
                "segmenter": {"name": "annotations"},
                "foreground": {"method": "all"},
                "tiles": tiles,
                "working_resolution": None,
            }
        }
    )
    found.sheet(("a", "a.tif", "", "a.geojson", "x"), ("b", "b.tif", "", "b.geojson", "y"))
    return found
