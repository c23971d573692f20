"""Steps killed while they work: nothing half-written, and the next run gives what an undisturbed one gives."""

import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from datetime import datetime

import psutil
import pytest

from gigaseg.runrecord import RUN_FORMAT
from gigaseg.testing.kills import finish, kill, leftovers
from steps import make_jobs, undisturbed

WATERSHED = (
    "inspect", "grid", "tile", "segment", "stitch", "measure", "export instances.geojson", "export instances.gpkg",
    "overview", "aggregate", "report",
)  # fmt: skip
START = 0.8
"""Seconds, of which a step takes more from its start to its end."""


def one_kill_each(jobs, names, rng, monkeypatch):
    """Run all jobs in turn, and those of `names` once more, killed, and once more; returns the kills that landed."""
    landed = []
    last = max(list(jobs).index(name) for name in names)
    for name, job in list(jobs.items())[: last + 1]:
        expected = undisturbed(job, monkeypatch)
        if name not in names:
            continue
        # half of them while they write, which takes a small part of their time
        writing = rng.random() < 0.5
        done = kill(job, expected, rng.uniform(0, 0.03 if writing else START), writing)
        assert done.wrong == (), f"{name}: half-written under its own name"
        landed += [name] * done.landed
        again = time.time()
        code, told = job.run()
        assert code == 0, told
        assert job.results() == expected, name
        assert leftovers(job.folder / "results") == [], name
        for path in job.outputs:
            if path.parent.name == "run":
                record = json.loads((job.folder / path).read_text())
                assert record["format"] == RUN_FORMAT
                assert record["digest"] == job.arguments[job.arguments.index("--digest") + 1]
                assert datetime.fromisoformat(record["started"]).timestamp() > again - 1, "of the last run"
    return landed


@pytest.mark.slow
def test_every_step_that_was_killed_runs_again_to_the_same_bytes(tmp_path, monkeypatch):
    landed = one_kill_each(make_jobs(tmp_path), WATERSHED, random.Random(1), monkeypatch)
    assert len(landed) > len(WATERSHED) / 2, "the others had ended before"


@pytest.mark.slow
def test_steps_of_a_segmenter_that_proposes_run_again_to_the_same_bytes(tmp_path, monkeypatch, spots):
    one_kill_each(make_jobs(tmp_path, "spots"), ("propose", "prompt"), random.Random(2), monkeypatch)


def children(process):
    """The worker processes of a step, without the one that tidies up after them."""
    try:
        found = psutil.Process(process.pid).children()
        return [child for child in found if any("spawn_main" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
    return found


def with_workers(job):
    at = job.arguments.index("--workers") + 1
    return replace(job, arguments=(*job.arguments[:at], "2", *job.arguments[at + 1 :]))


@pytest.mark.parametrize("name", ["tile", "segment"])
def test_a_killed_worker_fails_the_step_in_one_line(steps, name):
    job, expected = steps[name]
    process = with_workers(job).start()
    wait_for(lambda: children(process))[0].kill()
    code, told = finish(process)
    assert code == 1
    assert f"gigaseg {name}: a worker process was killed" in told.splitlines()[-1]
    assert "Traceback" not in told
    assert job.results() == {}
    assert job.run()[0] == 0
    assert job.results() == expected
    assert leftovers(job.folder / "results") == []


def test_workers_end_when_only_the_step_itself_is_killed(steps):
    process = with_workers(steps["tile"][0]).start()
    workers = wait_for(lambda: children(process))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_segment_goes_on_from_its_finished_parts(steps):
    job, expected = steps["segment"]
    folder = job.folder / "results" / "s" / ".parts" / "segment-000"
    process = job.start()
    wait_for(lambda: len(list(folder.glob("*/[0-9]*.parquet"))) >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {path: path.stat().st_ino for path in folder.glob("*/[0-9]*.parquet")}
    assert len(kept) >= 3
    assert job.results() == {}
    process = job.start()
    wait_for(lambda: len(list(folder.glob("*/[0-9]*.parquet"))) > len(kept) or process.poll() is not None)
    now = {path: path.stat().st_ino for path in kept if path.exists()}
    code, told = finish(process)
    assert now in (kept, {}), "not made again"
    assert code == 0, told
    assert f"going on after {len(kept)} of 9 parts" in told
    assert re.search(r"segment: \d+ of \d+ tiles.* were there", told)
    assert job.results() == expected
    assert leftovers(job.folder / "results") == []
