"""Full disks, memory that ends, folders that cannot be written, wrong clocks: one line, and nothing half-done."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gigaseg.cli import main
from gigaseg.errors import SlideError, machine_fault
from gigaseg.files import read_failure, scratch
from gigaseg.testing.kills import leftovers


def moved(job, folder):
    """The job with its outputs in another folder, its run record excepted."""
    places = {str(path): f"{folder}/{path.name}" for path in job.outputs if path.parent.name != "run"}
    return replace(
        job,
        arguments=tuple(places.get(word, word) for word in job.arguments),
        outputs=tuple(Path(places.get(str(path), path)) for path in job.outputs),
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tile", 256), ("segment", 24), ("stitch", 8), ("measure", 96), ("measure", 32), ("overview", 256),
        ("export instances.geojson", 64), ("export instances.gpkg", 64), ("export instances.gpkg", 140),
        ("aggregate", 16), ("report", 64),
    ],
)  # fmt: skip
def test_a_full_disk_is_one_line_and_fails_the_job_but_never_the_slide(
    steps, mounted, monkeypatch, capsys, tmp_path, name, size
):
    job, expected = steps[name]
    monkeypatch.chdir(job.folder)
    disk = mounted(tmp_path / "full", f"size={size}k")
    job = moved(job, disk)
    assert main(job.arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gigaseg {job.arguments[0]}: {disk}/")
    assert line.endswith(": No space left on device")
    kept = [path for path in disk.rglob("*") if path.is_file()]
    assert all(".parts" in path.parts for path in kept), "only finished parts stay"
    assert bool(kept) == (name == "segment")
    assert all(path.name[0] != "." for path in kept)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert main(job.arguments) == 0
    assert {path.name: digest for path, digest in job.results().items()} == {
        path.name: digest for path, digest in expected.items()
    }
    assert leftovers(disk) == []


LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
from gigaseg.cli import main

assert main([*sys.argv[1:], "--overview-px=64"]) == 0  # what is imported and started is not what is looked at
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
sys.exit(main([*sys.argv[1:], "--overview-px=8192"]))
"""


def test_memory_that_ends_is_one_line_and_fails_the_job_but_never_the_slide(steps):
    job, _ = steps["overview"]
    out = job.folder / job.outputs[0]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, *job.arguments],
        cwd=job.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(told) == 1
    assert told[0].startswith("gigaseg overview: out of memory (")
    assert read_failure(out) is None
    assert out.stat().st_size < 100_000, "the small picture is still there"
    assert leftovers(job.folder / "results") == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
            "out of memor",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out of memory"),
        (ImportError("libarrow.so: failed to map segment from shared object"), "out of memory"),
        (OSError(5, "Input/output error", "/data/s.svs"), "/data/s.svs: Input/output error"),
        (OSError(24, "Too many open files", "/data/s.svs"), "/data/s.svs: Too many open files"),
        (SlideError("s.svs: the header asks for more than can't allocate memory"), None),
        (RuntimeError("size mismatch"), None),
    ],
)
def test_words_of_libraries_are_understood(error, told):
    fault = machine_fault(error)
    assert fault is None if told is None else fault.startswith(told)


def test_what_a_fault_of_the_machine_became_on_its_way_stays_one():
    error = SlideError("s.svs: cannot be read (Input/output error)")
    error.__cause__ = OSError(5, "Input/output error")
    assert machine_fault(error) == "s.svs: cannot be read (Input/output error)"


@pytest.mark.parametrize("name", ["inspect", "stitch", "export instances.gpkg", "overview"])
def test_a_folder_that_cannot_be_written_is_one_line(steps, mounted, monkeypatch, capsys, tmp_path, name):
    job, _ = steps[name]
    monkeypatch.chdir(job.folder)
    disk = mounted(tmp_path / "readonly", "ro")
    job = moved(job, disk)
    assert main(job.arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"gigaseg {job.arguments[0]}: {disk}/{job.outputs[0].name}: Read-only file system"
    assert not any(path.exists() for path in job.outputs if path.parent.name != "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
def test_a_folder_of_another_user_is_one_line(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o001)  # pytest's folders are for its user alone
    code = (
        "import os, sys; from gigaseg import cli; from gigaseg.files import write_json\n"
        "cli.COMMANDS['gate'].__dict__['run'] = lambda args: write_json(args.cohort, {})\n"
        "cli.make_parser()  # imports what the other user may not be able to read\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(cli.main(['gate', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(private / "a.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == f"gigaseg gate: {private / 'a.json'}: Permission denied"


@pytest.mark.parametrize(("below", "words"), [("x.json", "Not a directory"), ("", "Is a directory")])
def test_a_target_that_is_in_the_way_is_one_line(steps, monkeypatch, capsys, tmp_path, below, words):
    job, _ = steps["inspect"]
    monkeypatch.chdir(job.folder)
    place = tmp_path / "place"
    if below:
        place.write_text("mine")
    else:
        place.mkdir()
    arguments = [str(place / below) if word == str(job.outputs[0]) else word for word in job.arguments]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gigaseg inspect: {place}")
    assert line.endswith(words)
    assert place.is_dir() or place.read_text() == "mine"
    assert leftovers(place) == leftovers(job.folder / "results") == []


def test_a_folder_put_aside_by_a_living_process_stays_whatever_this_clock_says(tmp_path, faked_clock):
    """Another machine's scratch folder, an hour old by the disk's clock, seen by a machine two days ahead."""
    theirs = tmp_path / ".elsewhere.1.m.parquet.scratch"
    left = tmp_path / ".elsewhere.2.m.parquet.scratch"
    for folder, hours in ((theirs, 1), (left, 30)):
        folder.mkdir()
        os.utime(folder, (time.time() - 3600 * hours,) * 2)
    code = "import sys, time; from gigaseg.files import scratch\nprint(time.time())\nwith scratch(sys.argv[1]): pass"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.parquet")],
        env={**os.environ, **faked_clock("+2d")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) > time.time() + 86400
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_a_run_under_a_clock_that_is_set_back_tells_sane_seconds(steps, faked_clock):
    import json

    job, expected = steps["stitch"]
    record = job.folder / job.outputs[-1]
    started = json.loads(record.read_text())["started"]
    done = subprocess.run(
        [sys.executable, "-m", "gigaseg", *job.arguments],
        cwd=job.folder, env={**os.environ, **faked_clock("-1d")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.returncode == 0
    told = json.loads(record.read_text())
    assert told["started"] < started
    assert 0 <= told["seconds"] < 300
    assert job.results() == expected


def test_a_process_with_the_number_of_one_that_was_killed_takes_its_place(tmp_path):
    with scratch(tmp_path / "m.parquet") as folder:
        name = folder.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "half").touch()
    with scratch(tmp_path / "m.parquet") as folder:
        assert folder.name == name
        assert list(folder.iterdir()) == []
