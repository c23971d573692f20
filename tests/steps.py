"""The steps of a small slide, run one by one by the command lines of the workflow."""

import shutil

import tifffile

from cohorts import ROOT, Cohort
from gigaseg.cli import main
from gigaseg.testing import synthetic_slide
from gigaseg.testing.kills import planned_jobs
from proposing import spots_slide

TILES = {"tile": 128, "overlap": 32, "tiles_per_shard": 100}
"""35 tiles of the slide of `watershed`, 12 of that of `spots`."""


def make_jobs(folder, segmenter="watershed"):
    """Name -> job, of one worker, of a cohort with slide `s`, in the order of the data; none has run."""
    shutil.copy(ROOT / "config.yaml", folder)
    cohort = Cohort(folder)
    if segmenter == "spots":
        image, _ = spots_slide((300, 420), 60, seed=8)
        tifffile.imwrite(
            folder / "s.tif", image, photometric="rgb", tile=(128, 128), resolution=(2e4, 2e4),
            resolutionunit="CENTIMETER",
        )  # fmt: skip
    else:
        synthetic_slide(folder / "s.tif", width=700, height=500, seed=5)
    preset = {"segmenter": {"name": segmenter, "device": "cpu"}, "tiles": TILES, "export": ["geojson", "gpkg"]}
    cohort.configure(presets={"nuclei": preset})
    cohort.sheet(("s", "s.tif"), header="slide\tpath")
    jobs = planned_jobs(folder, ROOT / "Snakefile", "--configfile", "mine.yaml", "--cores", "1")
    return {job.name: job for job in jobs}


def undisturbed(job, monkeypatch):
    """Run a job here, which spares the start of a process; returns sha256 of its outputs."""
    monkeypatch.chdir(job.folder)
    assert main(job.arguments) == 0
    return job.results()
