"""Exit codes, one-line messages and failure records of the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from gigaseg import __version__
from gigaseg.cli import main
from gigaseg.commands import COMMANDS
from gigaseg.files import read_failure


def test_every_command_has_help_of_its_own():
    for name in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0


def test_a_users_mistake_is_one_line_on_stderr_and_exit_code_2(tmp_path, capsys):
    code = main(["inspect", str(tmp_path / "none.svs"), "--out", str(tmp_path / "slide.json")])
    captured = capsys.readouterr()
    assert code == 2
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("gigaseg inspect: ")
    assert "none.svs" in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_a_traceback_and_exit_code_1(tmp_path):
    code = (
        "import sys, gigaseg.cli as cli; from gigaseg.commands import COMMANDS;"
        "COMMANDS['gate'].__dict__['run'] = lambda args: 1 / 0; sys.exit(cli.main(['gate', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_failure_record_stands_in_for_every_output_and_is_passed_on(tmp_path):
    path = {name: str(tmp_path / name) for name in ("slide.json", "grid.parquet", "fg.tif", "i.parquet", "run.json")}
    assert main(["inspect", str(tmp_path / "none.svs"), "--out", path["slide.json"], "--record-failure"]) == 0
    step, reason = read_failure(path["slide.json"])
    assert step == "inspect"
    assert "none.svs" in reason
    arguments = ["grid", path["slide.json"], "--out", path["grid.parquet"], "--foreground", path["fg.tif"]]
    assert main([*arguments, "--record-failure", "--run-record", path["run.json"]]) == 0
    assert read_failure(path["grid.parquet"]) == read_failure(path["fg.tif"]) == (step, reason)
    assert json.loads((tmp_path / "run.json").read_text())["step"] == "grid"
    arguments = ["stitch", "--grid", path["grid.parquet"], "--out", path["i.parquet"], path["i.parquet"]]
    assert main([*arguments, "--record-failure"]) == 0
    assert read_failure(path["i.parquet"]) == (step, reason)


def test_by_hand_an_earlier_failure_is_told_with_its_step(tmp_path, capsys):
    main(["inspect", str(tmp_path / "none.svs"), "--out", str(tmp_path / "s.json"), "--record-failure"])
    capsys.readouterr()
    code = main(["grid", str(tmp_path / "s.json"), "--out", str(tmp_path / "g"), "--foreground", str(tmp_path / "f")])
    assert code == 2
    assert "step 'inspect' failed before" in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_one_line_and_no_failure_record(tmp_path, capsys):
    tifffile.imwrite(
        tmp_path / "s.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    (tmp_path / "file").touch()
    target = str(tmp_path / "file" / "slide.json")
    assert main(["inspect", str(tmp_path / "s.tif"), "--out", target, "--record-failure"]) == 2
    assert "gigaseg inspect: " in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "file").read_bytes() == b""


def test_a_path_that_begins_with_a_dash_is_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "--out", "slide.json", "--", "-x.svs"]) == 2
    assert "-x.svs" in capsys.readouterr().err


def test_wrong_values_of_options_name_the_option(tmp_path, capsys):
    arguments = ["grid", "s.json", "--out", "g", "--foreground", "f", "--tile", "big", "--min-fraction", "7"]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("gigaseg grid: --tile is 'big', accepted: a whole number")


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"gigaseg {__version__}"
