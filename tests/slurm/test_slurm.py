"""A cohort on a real SLURM of this machine, through the shipped profile, with everything going wrong at once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from cohorts import ROOT, TILES, Cohort, preset, write_slide
from one_slurm import missing, slurm
from patient import FOLDER, Patient
from plugins import plugin

PROFILE = ROOT / "workflow" / "profiles" / "slurm"

QUICK = "--slurm-init-seconds-before-status-checks 1 --seconds-between-status-checks 1 --set-threads segment=1 stitch=1"
QUICK += " measure=1 --nocolor"
"""What suits a tiny cohort and an idle cluster."""


@pytest.fixture
def cluster(tmp_path):
    """A SLURM of this test's own, which every process that is started finds."""
    if why := missing():
        pytest.skip(why)
    with slurm(tmp_path / "slurm") as variables, pytest.MonkeyPatch.context() as patch:
        variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def cohort(tmp_path):
    """A slide whose rows of tiles are three shards, of two parts each."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    shutil.copy(ROOT / "config.yaml", folder)
    write_slide(folder / "a.tif", 1)
    cohort = Cohort(folder)
    tiles = {**TILES, "tiles_per_shard": 5, "materialise": False}
    cohort.configure(presets={"nuclei": preset(segmenter={"name": "patient"}, tiles=tiles)})
    cohort.sheet(("a", "a.tif"), header="slide\tpath")
    with plugin(tmp_path / "installed", "patient", Patient):
        yield cohort


class Run:
    """Snakemake's main process on the cluster, as a user starts it."""

    def __init__(self, cohort, name, *options):
        self.log = cohort.folder / f"{name}.log"
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", "mine.yaml"]
        command += ["--workflow-profile", PROFILE, *QUICK.split(), *options]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(command, cwd=cohort.folder, stdout=stream, stderr=stream)

    def said(self):
        return self.log.read_text()


@pytest.fixture
def start(cluster, cohort):
    """Start a main process, by the name of its log and further options."""
    runs = []

    def begin(name, *options):
        runs.append(Run(cohort, name, *options))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


def squeue(what, *options):
    done = subprocess.run(["squeue", "-h", "-o", what, *options], capture_output=True, text=True, check=True)
    return done.stdout.split()


def until(condition, run, seconds=400):
    """Wait for `condition` while a run goes on."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < end, run.said()
        time.sleep(0.2)
    return found


def results(folder):
    """Bytes of every result that two runs have in common."""
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "report.html")
    names = {str(path.relative_to(folder)): path for path in kept}
    parts = {name: Path(name).parts for name in names}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith(".") and not {"run", "log"} & set(parts[name])
    }


@pytest.mark.slow
def test_a_cohort_through_kill_preemption_and_the_end_of_the_main_process(cohort, start, tmp_path, monkeypatch):
    told = tmp_path / "told"
    told.mkdir()
    monkeypatch.setenv(FOLDER, str(told))

    def order(what, row, there=True):
        """Orders are for the last tile of a row, which is the second part of a shard."""
        path = told / f"{what}-{row}-4"
        path.touch() if there else path.unlink()

    def starts(row):
        """What each run of a shard told when it came there."""
        path = told / f"{row}-4.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(row):
        return cohort.path("a", "log", f"segment-00{row}.log").read_text()

    for row in range(3):
        order("hold", row)
    first = start("first")
    until(lambda: sum(bool(starts(row)) for row in range(3)) == 2, first)
    resumed, held, killed = sorted(range(3), key=lambda row: not starts(row))
    assert sorted(squeue("%T", "-p", "gpu")) == ["PENDING", "RUNNING", "RUNNING"], "a job a GPU"
    assert {starts(row)[0]["CUDA_VISIBLE_DEVICES"] for row in (resumed, held)} == {"0", "1"}

    order("kill", killed)
    order("hold", killed, there=False)
    preempt = ["sbatch", "--wait", "-p", "urgent", "--gpus=2", "--mem=9", "-o", "/dev/null", "--wrap=true"]
    subprocess.run(preempt, check=True, capture_output=True)
    for job in squeue("%i", "-p", "gpu", "-t", "PD"):  # SLURM lets preempted jobs rest for two minutes
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    order("hold", resumed, there=False)
    until(lambda: [len(starts(row)) for row in range(3)] == [2, 2, 2], first)
    assert all("going on after 1 of 2 parts" in log(row) for row in range(3))
    asked = [squeue("%m", "-t", "all", "-j", start["SLURM_JOB_ID"]) for start in starts(killed)]
    assert asked == [["8000M"], ["16000M"]]

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    left = set(squeue("%i"))
    assert left
    second = start("second")
    until(lambda: "of an earlier run" in second.said(), second)
    assert set(squeue("%i")) <= left, "nothing is submitted while they run"
    order("hold", held, there=False)
    assert second.process.wait(400) == 0, second.said()

    assert [len(starts(row)) for row in range(3)] == [2, 2, 2], "nothing is done twice"
    jobs = {row: {start["SLURM_JOB_ID"] for start in starts(row)} for row in range(3)}
    assert (len(jobs[resumed]), len(jobs[held]), len(jobs[killed])) == (1, 1, 2), "what is preempted stays one job"
    assert {len(path.read_text().splitlines()) for path in told.glob("*-0.jsonl")} == {1}, "finished parts stay so"
    assert cohort.path("report.html").exists()

    here = cohort.snakemake("--config", "results=here", cores=2)
    assert here.returncode == 0, here.stderr
    assert results(cohort.path()) == results(cohort.folder / "here")


def test_a_run_of_any_kind_waits_for_what_it_says_how_to_end_and_a_dry_run_does_not(cohort, start, tmp_path):
    def submit(name, folder):
        command = ["sbatch", "--parsable", "--mem=9", "-o", "/dev/null", "--wrap=sleep 600", "-J", name]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    name = f"mine_{uuid.uuid4()}"
    left = submit(name, cohort.folder)
    submit(name, tmp_path)
    submit("another job", cohort.folder)
    assert "inspect" in cohort.planned()
    run = start("local", "--executor", "local", "--cores", "1", "results/a/slide.json")
    line = until(lambda: re.search(r"waiting for jobs of an earlier run: (.*); to end them: (.*)", run.said()), run)
    assert line[1] == left
    assert not cohort.path("a", "slide.json").exists()
    assert subprocess.run(line[2].split(), check=False).returncode == 0
    assert run.process.wait(100) == 0, run.said()
    assert cohort.path("a", "slide.json").exists()


def test_a_cluster_that_does_not_say_what_is_left_stops_a_run_with_one_line(cohort, tmp_path, monkeypatch):
    squeue = tmp_path / "down" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    done = cohort.snakemake("--executor", "slurm", "--jobs", "1")
    assert done.returncode == 1
    line = (
        "squeue does not say whether jobs of an earlier run are left: squeue: error: Unable to contact slurm controller"
    )
    assert line in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
