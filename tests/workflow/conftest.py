"""A cohort of two slides."""

import shutil

import pytest

from cohorts import ROOT, Cohort, preset, write_slide


def make_cohort(folder):
    shutil.copy(ROOT / "config.yaml", folder)
    cohort = Cohort(folder)
    write_slide(folder / "a.tif", 1)
    write_slide(folder / "b.tif", 2)
    cohort.configure(presets={"nuclei": preset()})
    cohort.sheet(("a", "a.tif", "", "a.geojson", "x"), ("b", "b.tif", "", "b.geojson", "y"))
    return cohort


@pytest.fixture
def cohort(tmp_path):
    """Slides a and b under the segmenter `annotations`, tiles of 128 px in two shards."""
    return make_cohort(tmp_path)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory):
    cohort = make_cohort(tmp_path_factory.mktemp("finished"))
    done = cohort.snakemake(cores=2)
    assert done.returncode == 0, done.stderr
    return cohort


@pytest.fixture
def finished(finished_once, tmp_path):
    """A copy of the cohort after a complete run."""
    shutil.copytree(finished_once.folder, tmp_path / "copy")
    return Cohort(tmp_path / "copy")
