"""`gigaseg status` beside a real run of Snakemake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cohorts import ONE_SHARD, ROOT, preset
from patient import FOLDER, Patient
from plugins import plugin


def status(cohort, *options):
    done = subprocess.run(
        [sys.executable, "-m", "gigaseg", "status", *options], cwd=cohort.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def slides(cohort):
    content = json.loads(status(cohort, "--json"))
    return content, {slide["slide"]: slide for slide in content["slides"]}


def test_a_slide_is_followed_through_a_run_until_it_is_killed(cohort, tmp_path):
    (cohort.folder / "b.tif").write_bytes(b"II*\0 cut short")
    cohort.sheet(("a", "a.tif", "", "", ""), ("b", "b.tif", "", "", ""))
    tiles = {**ONE_SHARD, "materialise": False}
    cohort.configure(presets={"nuclei": preset(segmenter={"name": "patient"}, tiles=tiles, export=[])})
    told = tmp_path / "told"
    told.mkdir()
    hold = told / "hold-2-0"  # the third of four parts
    hold.touch()
    with plugin(tmp_path / "installed", "patient", Patient):
        process = start(cohort, told)
        try:
            content, by_name = wait(cohort, process)
            at = by_name["a"]
            assert (at["step"], at["shards"], at["shards_done"], at["tiles"]) == ("segment", 1, 0, 15)
            assert 8 <= at["tiles_done"] <= 11, "two or three parts of 4 tiles are finished"
            assert time.time() - 60 < at["since"] <= time.time()
            assert at["rate"] > 0
            assert by_name["b"]["state"] == "failed"
            assert content["run"]["at_work"] is True
            assert str(process.pid) in content["run"]["holder"]
            table = status(cohort)
            assert f"a run is at work: process {process.pid} on " in table
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        content, by_name = slides(cohort)
        assert content["run"]["at_work"] is False
        assert content["counts"] == {"stopped": 1, "failed": 1}
        assert by_name["a"]["tiles_done"] >= at["tiles_done"], "nothing is lost"
        assert "was killed; the same command goes on" in status(cohort)


def test_every_slide_of_a_finished_cohort_is_done(finished):
    content, by_name = slides(finished)
    assert content["counts"] == {"done": 2}
    assert content["run"]["at_work"] is False
    assert (by_name["a"]["shards"], by_name["a"]["shards_done"]) == (2, 2)
    assert content["tiles"] == content["tiles_done"] == 30
    assert "no run is at work; the last one began " in status(finished)


def start(cohort, told):
    """Snakemake in the background, in a process group of its own."""
    tools = Path(sys.executable).parent
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--resources", "gpu=1", "--configfile", "mine.yaml", "--nocolor", "--rerun-incomplete"]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", FOLDER: str(told)}
    with (cohort.folder / "snakemake.log").open("a") as stream:
        return subprocess.Popen(command, cwd=cohort.folder, env=environment, stderr=stream, start_new_session=True)


def wait(cohort, process):
    """What is told as soon as a slide's first tiles are segmented and the other one is known to have failed."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if cohort.path(".plan.json").is_file():
            content, by_name = slides(cohort)
            assert by_name["a"]["state"] in ("waiting", "running")
            if by_name["a"]["tiles_done"] >= 8 and by_name["b"]["state"] == "failed":
                return content, by_name
        time.sleep(0.3)
    raise AssertionError((cohort.folder / "snakemake.log").read_text()[-2000:])
