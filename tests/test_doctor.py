"""The doctor: one line a check, and an exit code that a script can use."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import yaml

from cohorts import ROOT
from gigaseg.ahead import ahead
from gigaseg.cli import main
from gigaseg.doctor.machine import LARGEST_JOB_MB
from gigaseg.lease import take
from gigaseg.plan import make_plan

LEVELS = {"ok", "note", "WRONG"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with one slide, and no scheduler on the path."""
    tifffile.imwrite(
        tmp_path / "s.tif", np.zeros((800, 1000, 3), np.uint8), photometric="rgb", tile=(256, 256),
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    (tmp_path / "slides.tsv").write_text("slide\tpath\ns\ts.tif\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"presets": {"nuclei": {}}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def doctor(capsys, *arguments):
    code = main(["doctor", *map(str, arguments)])
    said = capsys.readouterr()
    lines = [(line[:5].strip(), line[7:19].strip(), line[21:]) for line in said.out.splitlines()]
    assert all(level in LEVELS for level, _, _ in lines), said.out
    return code, lines, said.err


def of(lines, what):
    return [(level, text) for level, name, text in lines if name == what]


def test_a_machine_and_a_cohort_that_are_well(folder, capsys):
    code, lines, _ = doctor(capsys)
    assert code == 0
    assert [name for _, name, _ in lines] == [
        "gigaseg", "packages", "readers", "formats", "GPU", "memory", "temporary", "scheduler", "config", "slides",
        "weights", "results", "disk", "ahead",
    ]  # fmt: skip
    assert of(lines, "scheduler") == [("ok", "none: jobs run on this machine")]
    assert of(lines, "slides") == [("ok", "1 of 1 can be opened")]
    ((level, weights),) = of(lines, "weights")
    assert level == "ok"
    assert "centersam-v2.safetensors sha256 " in weights
    assert ", over small-v1 sha256 " in weights
    assert "up to 12 tiles" in of(lines, "ahead")[0][1]
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "results", "s.tif", "slides.tsv"]
    assert [path.name for path in (folder / "results").iterdir()] == [".headers.json"]


def test_everything_that_is_wrong_is_told_at_once_and_the_exit_code_says_so(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    (folder / "slides.tsv").write_text("slide\tpath\tannotations\ns\ts.tif\tnone.geojson\nt\tnone.tif\n../u\ts.tif\t\n")
    shutil.copy(folder / "s.tif", folder / "v.tif")
    preset = {"segmenter": {"name": "prompted", "checkpoint": "vit_b", "device": "cuda:7"}, "export": ["spatialdata"]}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"presets": {"nuclei": preset}}))
    code, lines, said = doctor(capsys, "config.yaml", "mine.yaml")
    assert code == 2
    wrong = [f"{name}: {text}" for level, name, text in lines if level == "WRONG"]
    for words in (
        "slide: '../u (line 4)': slides.tsv line 4: slide is '../u'",
        "slide: 's': none.geojson: no such file",
        "slide: 't': none.tif: no such file",
        "slides: 0 of 3 can be opened",
        "weights: checkpoint is 'vit_b', not found",
        "device: preset nuclei: device is 'cuda:7'",
        "export: preset nuclei: 'spatialdata' needs spatialdata, which is not installed; run: pip install",
    ):
        assert any(line.startswith(words) for line in wrong), (words, wrong)
    assert said.endswith(f"gigaseg doctor: {len(wrong)} of {len(lines)} checks found something wrong\n")


def test_a_wrong_configuration_is_told_after_the_machine(folder, capsys):
    (folder / "config.yaml").write_text("presets: {nuclei: {tiles: {tile: big}}}\n")
    code, lines, _ = doctor(capsys)
    assert code == 2
    assert lines[-1][:2] == ("WRONG", "config")
    assert lines[-1][2].startswith("config.yaml: presets.nuclei.tiles.tile is 'big', accepted: a whole number")
    (folder / "config.yaml").write_text("a: [")
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("gigaseg doctor: config.yaml: cannot be read as YAML")


def test_a_results_folder_where_nothing_can_be_written_is_told(folder, capsys):
    (folder / "results").write_text("a file")
    code, lines, _ = doctor(capsys)
    assert code == 2
    assert lines[-1] == ("WRONG", "config", "results is 'results', but results is a file; expected a folder")


def test_results_on_a_disk_that_cannot_be_written_are_told(folder, capsys, mounted, monkeypatch):
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    mounted(folder / "results", "ro")
    code, lines, _ = doctor(capsys)
    assert code == 2
    assert of(lines, "results") == [("WRONG", "results: nothing can be written in results (Read-only file system)")]


def test_a_run_at_work_is_told(folder, capsys):
    held, _ = take(folder / "results")
    code, lines, _ = doctor(capsys)
    held.close()
    assert code == 0
    ((level, text),) = of(lines, "results")
    assert level == "note"
    assert "is or was at work in it" in text


def test_a_disk_that_is_too_small_for_what_is_ahead_is_told(folder, capsys, mounted, monkeypatch):
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    mounted(folder / "results", "size=1m")
    run = folder / "results" / "s" / "run"
    run.mkdir(parents=True)
    grid = {"digest": make_plan({"presets": {"nuclei": {}}}).slides["s"].digests["grid"], "tiles": 12}
    (run / "grid.json").write_text(json.dumps(grid))
    code, lines, _ = doctor(capsys)
    ((level, text),) = of(lines, "disk")
    assert (code, level) == (2, "WRONG"), lines
    assert "what is ahead takes 0.01 GB" in text


def test_a_folder_of_slides_stands_for_the_sheet(folder, capsys):
    (folder / "in").mkdir()
    (folder / "s.tif").rename(folder / "in" / "s.tif")
    _, lines, _ = doctor(capsys, "--slides-dir", "in")
    assert of(lines, "slides") == [("ok", "0 of 0 can be opened, 1 wait: they may still be copied")]


def test_a_scheduler_that_does_not_answer_is_told(folder, capsys):
    (folder / "bin").mkdir()
    for name in ("sbatch", "sinfo"):
        (folder / "bin" / name).write_text("#!/bin/sh\necho 'cannot reach it' >&2\nexit 1\n")
        (folder / "bin" / name).chmod(0o755)
    code, lines, _ = doctor(capsys)
    assert code == 2
    assert of(lines, "scheduler") == [("WRONG", "SLURM does not answer: sinfo: cannot reach it")]


def test_what_is_done_is_not_ahead_and_gives_the_hours(folder):
    """From run records: a shard that took 20 s for its 4 tiles leaves 2 tiles of 5 s."""
    config = {"presets": {"nuclei": {"tiles": {"tiles_per_shard": 4}}}}
    plan = make_plan(config)
    assert ahead(plan).startswith("1 of 1 slides are ahead: up to 12 tiles, 0.48 CPU minutes of segment (as measured")
    slide = plan.slides["s"]
    run = folder / "results" / "s" / "run"
    run.mkdir(parents=True)
    (run / "grid.json").write_text(json.dumps({"digest": slide.digests["grid"], "tiles": 6}))
    record = {"digest": slide.digests["segment"], "tiles": 4, "tiles_made": 4, "seconds": 20.0, "device": "cpu"}
    (run / "segment-000.json").write_text(json.dumps(record))
    assert ahead(make_plan(config)) == (
        "1 of 1 slides are ahead: 2 tiles, 0.17 CPU minutes of segment (by 1 shards done)"
    )
    (run / "segment-000.json").write_text(json.dumps({**record, "digest": "another"}))
    assert ": 6 tiles" in ahead(make_plan(config))
    (run / "segment-000.json").write_text(json.dumps({**record, "device": "cuda:0"}))
    assert "GPU minutes" in ahead(make_plan(config))
    for step in ("measure", "overview"):
        (run / f"{step}.json").write_text(json.dumps({"digest": slide.digests[step]}))
    assert ahead(make_plan(config)) == "0 of 1 slides are ahead"


def test_the_largest_job_that_the_doctor_knows_is_that_of_the_rules():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    asked = [int(number) for number in re.findall(r"mem_mb=growing\((\d+)\)", rules)]
    assert max(asked) == LARGEST_JOB_MB


def test_the_command_works_by_itself(folder):
    done = subprocess.run(
        [sys.executable, "-m", "gigaseg", "doctor", "none.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "gigaseg doctor: none.yaml: cannot be read as YAML ([Errno 2] No such file or directory: 'none.yaml')\n"
    )
