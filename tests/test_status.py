import json
import os
import time
from pathlib import Path

import pytest

from gigaseg.errors import ConfigError
from gigaseg.files import write_failure, write_json
from gigaseg.lease import Holder, take
from gigaseg.status.look import status
from gigaseg.status.planned import FILE, PLAN_FORMAT
from gigaseg.status.states import as_text

STEPS = ("inspect", "grid", "segment", "stitch", "measure", "overview")
BEGAN = 1_600_000_000


def plan(results, *slides, executor="local", shards=1, tiles_per_shard=100):
    digests = {step: f"digest of {step}" for step in STEPS}
    planned = {"digests": digests, "shards": shards, "tiles_per_shard": tiles_per_shard, "tiles": 200}
    content = {"format": PLAN_FORMAT, "started": "2020-09-13T12:26:40+00:00", "executor": executor}
    content |= {"slides": dict.fromkeys(slides, planned), "bad_rows": [["z", "no path"]], "waiting": ["y"]}
    write_json(results / FILE, content)


def record(folder, job, ended=0.0, digest=None, **facts):
    """The run record of a job that ended so many seconds after the run began."""
    step = job.partition("-")[0]
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(BEGAN + ended - 1))
    content = {"step": step, "digest": digest or f"digest of {step}", "started": started, "seconds": 1.0}
    write_json(folder / "run" / f"{job}.json", content | facts)


def log(folder, job, text, at):
    path = folder / "log" / f"{job}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def only(results):
    return {slide.slide: slide for slide in status(results).slides}


def test_a_job_that_broke_is_told_by_what_its_log_ends_with(tmp_path):
    plan(tmp_path, "a", "b", "c")
    for name in "abc":
        record(tmp_path / name, "inspect")
        record(tmp_path / name, "grid", 10.0, tiles=150)
    log(tmp_path / "a", "segment-000", "Traceback:\n  File\nRuntimeError: the device is lost\n", BEGAN + 60)
    log(tmp_path / "b", "segment-000", "2020-09-13 12:28:00,000 INFO slide\n", BEGAN + 60)
    log(tmp_path / "c", "segment-000", "an earlier run's\n", BEGAN - 60)
    found = only(tmp_path)
    assert {name: (found[name].state, found[name].step) for name in "abc"} == {
        "a": ("broken", "segment"),
        "b": ("stopped", "segment"),
        "c": ("waiting", "segment"),
    }
    assert found["a"].note == "RuntimeError: the device is lost"
    assert (found["z"].state, found["z"].note) == ("failed", "no path")
    assert found["y"].state == "being copied"


def test_results_of_another_digest_are_still_to_be_made(tmp_path):
    plan(tmp_path, "a")
    for job in ("inspect", "grid", "segment-000", "stitch", "measure", "overview"):
        record(tmp_path / "a", job, tiles=100)
    assert only(tmp_path)["a"].state == "done"
    for job in ("stitch", "measure", "overview"):
        record(tmp_path / "a", job, digest="another")
    found = only(tmp_path)["a"]
    assert (found.state, found.step, found.shards_done, found.tiles_done) == ("waiting", "stitch", 1, 100)


def test_shards_parts_and_rate_of_a_job_on_another_machine(tmp_path):
    """A run at work elsewhere, by its fresh lease: its jobs are known by their logs."""
    plan(tmp_path, "a", executor="slurm", shards=3)
    holder = Holder("node1", 42, "another kernel", 1, "then", "/there", "key")
    (tmp_path / ".lease").write_text(json.dumps(vars(holder)))
    folder = tmp_path / "a"
    now = time.time()
    record(folder, "inspect")
    record(folder, "grid", tiles=250)
    record(folder, "segment-000", shard=0, tiles_made=100)
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - 100))
    shown = f"{begun},000 INFO segment: 8 of 100 tiles (8 %), 0.5 tiles/s, 3 min 04 s left\n"
    log(folder, "segment-001", shown, now - 20)
    parts = folder / ".parts" / "segment-001" / "digest of segment"
    parts.mkdir(parents=True)
    for number in range(10):
        (parts / f"{number:04d}.parquet").touch()
    (parts / ".host.1.0010.parquet").touch()
    found = status(tmp_path)
    slide = found.slides[0]
    assert found.run is not None
    assert (found.run.at_work, found.run.holder) == (True, "process 42 on node1")
    assert (slide.state, slide.step, slide.shards_done, slide.shards) == ("running", "segment", 1, 3)
    assert (slide.tiles_done, slide.tiles) == (140, 250)
    assert slide.rate == pytest.approx(0.4, rel=0.05)
    assert slide.left == pytest.approx(275, rel=0.05)
    assert slide.note == "segment: 8 of 100 tiles (8 %), 0.5 tiles/s, 3 min 04 s left"
    os.utime(tmp_path / ".lease", (now - 600, now - 600))
    assert status(tmp_path).slides[0].state == "stopped"


def test_a_failed_slide_is_known_before_its_last_step(tmp_path):
    plan(tmp_path, "a")
    record(tmp_path / "a", "inspect")
    write_failure(tmp_path / "a" / "slide.json", "inspect", "cut short")
    lease, _ = take(tmp_path)
    try:
        [slide, *_] = status(tmp_path).slides
    finally:
        lease.close()
    assert (slide.state, slide.step, slide.note) == ("failed", "inspect", "cut short")


def test_without_a_plan_the_folders_tell(tmp_path):
    for job in ("inspect", "grid", "segment-000", "stitch", "measure", "overview"):
        record(tmp_path / "a", job, tiles=12)
    record(tmp_path / "b", "inspect")
    found = status(tmp_path)
    assert [(slide.slide, slide.state) for slide in found.slides] == [("a", "done"), ("b", "waiting")]
    assert found.run is None
    assert as_text(found).endswith("no run is at work\n")


def test_nothing_is_written_and_a_missing_folder_is_told(tmp_path):
    plan(tmp_path, "a", "b")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    lines = as_text(status(tmp_path)).splitlines()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert lines[0].split() == ["slide", "state", "step", "shards", "tiles", "since", "tiles/s", "left"]
    assert lines[1].split() == ["a", "waiting", "inspect", "0/1", "0/?"]
    with pytest.raises(ConfigError, match="no such folder; expected the results of a run"):
        status(Path(tmp_path, "none"))
