"""Model weights in the workflow: a target that fetches them, and what happens while they are missing."""

import pytest

from cohorts import preset


@pytest.fixture
def everything(cohort, monkeypatch):
    """Slides a and b by `everything` with the published ViT-B, which is not on this machine."""
    monkeypatch.setenv("GIGASEG_CHECKPOINTS", str(cohort.folder / "cache"))
    cohort.configure(presets={"nuclei": preset(segmenter={"name": "everything", "checkpoint": "vit_b"})})
    cohort.sheet(("a", "a.tif"), header="slide\tpath")
    return cohort


@pytest.mark.slow
def test_missing_weights_stop_the_job_with_the_command_and_become_no_record(everything):
    done = everything.snakemake("--keep-going")
    assert done.returncode == 1
    assert "run: gigaseg checkpoints vit_b" in everything.path("a", "log", "segment-000.log").read_text()
    assert not everything.path("a", "instances", "000.parquet").exists()
    assert "segment" in everything.planned(), "it runs again"


@pytest.mark.slow
def test_the_target_checkpoints_finds_what_the_presets_name_and_is_not_part_of_a_run(everything):
    file = everything.folder / "cache" / "sam_vit_b_01ec64.pth"
    file.parent.mkdir()
    file.write_bytes(b"stands in for the download")
    assert "checkpoints" not in everything.planned()
    done = everything.snakemake("checkpoints")
    assert done.returncode == 0, done.stderr
    assert everything.path("log", "checkpoints.log").read_text() == f"{file}\n"
