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
    own = everything.folder / "own.pth"
    own.write_bytes(b"a file of the user's own")
    everything.configure(presets={"nuclei": preset(segmenter={"name": "everything", "checkpoint": "own.pth"})})
    assert "checkpoints" not in everything.planned()
    done = everything.snakemake("checkpoints")
    assert done.returncode == 0, done.stderr
    assert everything.path("log", "checkpoints.log").read_text() == "own.pth\n"


@pytest.mark.slow
def test_another_file_under_a_published_name_is_fetched_anew_and_never_used(everything, monkeypatch):
    file = everything.folder / "cache" / "sam_vit_b_01ec64.pth"
    file.parent.mkdir()
    file.write_bytes(b"26 bytes that are no model")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # as on a machine without a network
    done = everything.snakemake("checkpoints")
    assert done.returncode == 1
    log = everything.path("log", "checkpoints.log").read_text()
    assert f"{file} is not the published checkpoint 'vit_b'; fetching that" in log
    assert "cannot be fetched" in log.splitlines()[-1]
    assert everything.snakemake("--keep-going").returncode == 1
    told = everything.path("a", "log", "segment-000.log").read_text()
    assert "is another file: 26 bytes, expected 375042383; run: gigaseg checkpoints vit_b" in told
    assert not everything.path("a", "instances", "000.parquet").exists()
