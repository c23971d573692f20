import io
import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from gigaseg.progress import Progress, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "gigaseg.progress")
    return lambda: [message for message in caplog.messages if " of " in message]


def test_a_log_gets_one_line_a_minute_and_a_last_one(clock, lines):
    with Progress("tile", "tiles", 400, stream=io.StringIO(), clock=clock, beat=0) as progress:
        for _ in range(400):
            clock.now += 0.5
            progress.add()
    assert lines() == [
        "tile: 120 of 400 tiles (30 %), 2 tiles/s, 2 min 20 s left",
        "tile: 240 of 400 tiles (60 %), 2 tiles/s, 1 min 20 s left",
        "tile: 360 of 400 tiles (90 %), 2 tiles/s, 20.0 s left",
        "tile: 400 of 400 tiles, 2 tiles/s, in 3 min 20 s",
    ]


def test_what_an_earlier_run_did_counts_but_not_into_the_rate(clock, lines):
    with Progress("segment", "tiles", 1000, done=900, stream=io.StringIO(), clock=clock, beat=0) as progress:
        clock.now += 100
        progress.add(50)
        clock.now += 100
        progress.add(50)
    assert lines() == [
        "segment: 950 of 1,000 tiles (95 %), 0.5 tiles/s, 1 min 40 s left, 900 were there",
        "segment: 1,000 of 1,000 tiles (100 %), 0.5 tiles/s, 0.0 s left, 900 were there",
        "segment: 1,000 of 1,000 tiles, 0.5 tiles/s, in 3 min 20 s, 900 were there",
    ]


def test_time_left_is_the_callers_where_he_knows_it(clock, lines):
    with Progress("train", "steps", 10_000, stream=io.StringIO(), clock=clock, beat=0) as progress:
        clock.now += 61
        progress.at(122, left=7200.0, note="loss 0.25")
    assert lines()[0] == "train: 122 of 10,000 steps (1 %), 2 steps/s, 2 h 00 min left; loss 0.25"


def test_a_line_comes_also_when_nothing_is_finished(clock, lines):
    with Progress("segment", "tiles", 4, stream=io.StringIO(), clock=clock, beat=0.01):
        clock.now += 61
        deadline = time.monotonic() + 5
        while not lines() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lines() == ["segment: 0 of 4 tiles (0 %)"]


def test_nothing_is_shown_of_nothing_and_no_last_line_of_what_failed(lines):
    with Progress("tile", "tiles", 0, stream=io.StringIO()):
        pass
    with pytest.raises(OSError, match="disk"), Progress("tile", "tiles", 5, stream=io.StringIO()):
        raise OSError("disk")
    assert lines() == []


SCRIPT = """
import logging, sys, time
from gigaseg.progress import Progress
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
with Progress("tile", "tiles", 8) as progress:
    for i in range(8):
        time.sleep(0.25)
        progress.add()
        if i == 4:
            logging.getLogger("x").info("something else")
"""


def test_a_terminal_gets_one_line_in_place_which_makes_room_for_others():
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while some := os.read(ours, 4096):
                said += some
        except OSError:  # the terminal's other end was closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = said.decode()
    assert len(re.findall(r"\rtile: \d of 8 tiles \(\d+ %\), [\d.]+ tiles/s, [\d.]+ s left", text)) >= 4
    # what is left to be seen, as a terminal shows it: a carriage return goes back to the line's beginning
    seen = [shown(line) for line in text.replace("\r\n", "\n").split("\n")]
    assert seen[0] == "INFO something else"
    assert re.fullmatch(r"INFO tile: 8 of 8 tiles, [\d.]+ tiles/s, in [\d.]+ s", seen[1])
    assert seen[2:] == [""]


def test_a_pipe_gets_lines_only():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    first, last = done.stderr.splitlines()
    assert first == "INFO something else"
    assert last.startswith("INFO tile: 8 of 8 tiles, ")


def shown(line):
    row = []
    for part in line.split("\r"):
        row[: len(part)] = part
    return "".join(row).rstrip()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (2.34, "2.3 s"), (65, "1 min 05 s"), (3725.0, "1 h 02 min"), (400_000, "111 h 06 min")],
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text
