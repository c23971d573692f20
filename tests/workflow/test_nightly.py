"""A folder of slides, night after night: only what is new runs, and a dated page says what became of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cohorts import ROOT, Cohort, write_slide
from gigaseg.lease import read_holder

PRESET = {
    "segmenter": {"name": "watershed"},
    "foreground": {"method": "all"},
    "tiles": {"tile": 512, "overlap": 32, "materialise": False},
    "measure": {"intensity": False},
    "export": [],
}


@pytest.fixture
def cohort(tmp_path):
    """A working directory whose slides lie in `incoming`; each is there for long."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    (tmp_path / "incoming").mkdir()
    cohort = Cohort(tmp_path)
    cohort.configure(settle_minutes=0, report={"overview_px": 64}, presets={"nuclei": PRESET})
    return cohort


def put(cohort, name, seed):
    write_slide(cohort.folder / "slide.tif", seed, (140, 160))
    (cohort.folder / "slide.tif").replace(cohort.folder / "incoming" / name)


def night(cohort, *arguments, broken=None):
    options = ["--keep-going", "--rerun-incomplete", *arguments, "--config", "slides_dir=incoming", "--", "gate"]
    return cohort.snakemake(*options, cores=2, broken=broken)


@contextmanager
def being_copied(path, content):
    """A slide that grows all the time."""
    done = threading.Event()

    def copy():
        with path.open("wb", buffering=0) as stream:
            for i in range(len(content)):
                stream.write(content[i : i + 1])
                if done.wait(0.1):
                    break

    writer = threading.Thread(target=copy)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def record(cohort, number):
    (*_, last) = pages = sorted(cohort.path("nights").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(pages) == number
    return json.loads(last.read_text())["slides"], last.with_suffix(".html").read_text()


def states(slides):
    return {name: slide["state"] for name, slide in slides.items()}


def test_two_nights(cohort):
    put(cohort, "a.tif", 1)
    put(cohort, "b.tif", 2)
    put(cohort, "cut.tif", 3)
    whole = (cohort.folder / "incoming" / "cut.tif").read_bytes()
    (cohort.folder / "incoming" / "cut.tif").write_bytes(whole[: len(whole) // 3])

    shown = night(cohort, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "gigaseg: 3 of 3 slides are ahead: up to 3 tiles" in shown.stderr
    assert not cohort.path("slides.tsv").exists(), "a dry run writes nothing"

    first = night(cohort, broken='segment*"--slide b"')
    assert first.returncode == 1, "a slide failed, and a job of another broke"
    slides, page = record(cohort, 1)
    assert states(slides) == {"a": "ok", "b": "broken", "cut": "failed"}
    assert slides["b"]["step"] == "segment"
    assert "killed before it could say why" in page
    assert slides["cut"]["step"] == "inspect"
    assert slides["cut"]["reason"] in page.replace("&#39;", "'")
    assert "The first night." in page
    finished = cohort.path("a", "instances.parquet").stat()

    (cohort.folder / "incoming" / "cut.tif").write_bytes(whole)  # mended
    cohort.configure(settle_minutes=0.05, report={"overview_px": 64}, presets={"nuclei": PRESET})
    time.sleep(3)
    with being_copied(cohort.folder / "incoming" / "e.svs", whole):
        second = night(cohort, "--printshellcmds")
    assert second.returncode == 0, second.stderr
    assert "gigaseg: 2 of 3 slides are ahead, 1 still being copied: " in second.stderr
    assert "by 1 shards done" in second.stderr
    slides, page = record(cohort, 2)
    assert states(slides) == {"a": "ok", "b": "ok", "cut": "ok", "e": "waiting"}
    assert "its file was replaced" in page
    assert "failed, now ok" in page
    assert "broken, now ok" in page
    assert cohort.path("a", "instances.parquet").stat() == finished
    assert "--slide a " not in second.stderr, "no job of a finished slide"


def start(cohort, hold):
    """Snakemake in the background, whose first `grid` waits as long as the file `hold` is there."""
    tools = Path(sys.executable).parent
    stand_in = cohort.folder / "held" / "gigaseg"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = grid ] && touch {hold}.reached && while [ -e {hold} ]; do sleep 0.1; done\n'
        f'exec {tools}/gigaseg "$@"\n'
    )
    stand_in.chmod(0o755)
    hold.touch()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--resources", "gpu=1", "--configfile", "mine.yaml", "--nocolor"]
    command += ["--config", "slides_dir=incoming", "--", "gate"]
    path = f"{stand_in.parent}:{tools}:{os.environ['PATH']}"
    process = subprocess.Popen(
        command, cwd=cohort.folder, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 120
    while not Path(f"{hold}.reached").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_second_run_ends_at_once_and_after_a_kill_the_same_command_goes_on(cohort):
    put(cohort, "a.tif", 1)
    hold = cohort.folder / "hold"
    first = start(cohort, hold)
    second = night(cohort)
    assert second.returncode == 75
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("gigaseg: ")]
    assert f"process {first.pid} on " in line
    assert "is at work in this results folder: nothing was started" in line
    assert night(cohort, "--dry-run").returncode == 0, "looking is allowed"
    os.kill(first.pid, signal.SIGKILL)  # the main process alone: its job ends by itself
    first.wait()
    threading.Timer(10, hold.unlink).start()
    assert any((cohort.folder / ".snakemake" / "locks").iterdir()), "what it left"
    again = night(cohort)
    assert again.returncode == 0, again.stderr
    assert f"process {first.pid} on " in again.stderr
    assert "held this results folder and died; going on from what it finished" in again.stderr
    assert "waiting for jobs that it left: " in again.stderr
    assert states(record(cohort, 1)[0]) == {"a": "ok"}
    assert read_holder(cohort.path(".lease")) is None
