"""One run at a time in a results folder: also after a crash, a reboot, on another machine, with any clock."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from gigaseg import lease
from gigaseg.lease import FILE, Held, Holder, read_holder, take

HOLD = "import sys, time; from gigaseg.lease import take; take(sys.argv[1]); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def foreign(folder, **changes):
    """A lease of a holder on another machine."""
    holder = replace(Holder.this(), host="elsewhere", kernel="another", **changes)
    (folder / FILE).write_text(json.dumps(holder.__dict__))
    return holder


def test_a_folder_is_held_by_one_process_until_it_lets_go(tmp_path):
    held, before = take(tmp_path / "new" / "results")
    assert before is None
    with pytest.raises(Held) as caught:
        take(tmp_path / "new" / "results")
    assert caught.value.holder.process == os.getpid()
    held.close()
    held.close()
    assert list((tmp_path / "new" / "results").iterdir()) == []


def test_who_comes_second_is_told_who_is_at_work(tmp_path, other):
    with pytest.raises(Held, match=f"process {other.pid} on .*, since 20"):
        take(tmp_path)


def test_a_killed_holder_is_followed_at_once(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    begin = time.monotonic()
    held, before = take(tmp_path)
    assert time.monotonic() - begin < 5
    assert before.process == other.pid
    held.close()


def test_a_process_number_that_is_used_again_is_not_the_holder(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(replace(Holder.this(), born=1).__dict__))
    held, before = take(tmp_path)
    assert before.process == os.getpid()
    held.close()


@pytest.mark.parametrize("age", [-86400, 0, 86400], ids=["tomorrow", "now", "yesterday"])
def test_a_holder_on_another_machine_is_dead_when_it_touches_nothing_whatever_the_clock_says(
    tmp_path, monkeypatch, age
):
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    holder = foreign(tmp_path)
    then = time.time() - age
    os.utime(tmp_path / FILE, (then, then))
    held, before = take(tmp_path)
    assert before == holder
    held.close()


def test_a_holder_on_another_machine_lives_as_long_as_it_touches(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 20)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    foreign(tmp_path)
    code = "import os, sys, time\nfor _ in range(100): os.utime(sys.argv[1]); time.sleep(0.1)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / FILE]) as far:
        with pytest.raises(Held, match="on elsewhere"):
            take(tmp_path)
        far.kill()


def test_a_held_folder_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    held, _ = take(tmp_path)
    os.utime(tmp_path / FILE, (1, 1))
    end = time.monotonic() + 10
    while (tmp_path / FILE).stat().st_mtime == 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / FILE).stat().st_mtime != 1
    held.close()


def test_a_lease_that_a_full_disk_cut_short_is_followed_when_nothing_touches_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    (tmp_path / FILE).write_text('{"host": "a')
    held, before = take(tmp_path)
    assert before == lease.UNKNOWN
    held.close()


def test_a_run_that_stood_still_until_another_took_its_folder_ends(tmp_path):
    code = (
        "import signal, sys, time; from gigaseg import lease; lease.BEAT = 0.1\n"
        "lease.take(sys.argv[1]); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGSTOP)
    foreign(tmp_path)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "another run took this results folder while this one stood still" in said
    assert read_holder(tmp_path / FILE).host == "elsewhere", "the other's lease is left alone"


def test_who_dies_while_it_follows_a_dead_one_is_followed_in_turn(tmp_path):
    dead = replace(Holder.this(), born=1, key="first")
    (tmp_path / FILE).write_text(json.dumps(dead.__dict__))
    (tmp_path / f"{FILE}.after-first").write_text(json.dumps(replace(dead, key="second").__dict__))
    held, before = take(tmp_path)
    assert before == dead
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    held.close()


def test_a_file_system_without_hard_links_serves_as_well(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lease.os, "link", link)
    (tmp_path / FILE).write_text(json.dumps(replace(Holder.this(), born=1).__dict__))
    held, before = take(tmp_path)
    assert before.born == 1
    with pytest.raises(Held):
        take(tmp_path)
    held.close()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_follow_a_dead_one_at_the_same_time_one_gets_the_folder(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(replace(Holder.this(), born=1).__dict__))
    code = (
        "import sys, time; from pathlib import Path; from gigaseg.lease import take, Held\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "try: take(sys.argv[1])\nexcept Held: print('second')\nelse: print('first', flush=True); sys.stdin.read()"
    )
    go = tmp_path / "go"
    command = [sys.executable, "-c", code, str(tmp_path / "."), str(go)]
    several = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    time.sleep(1)
    go.touch()
    said = sorted(process.stdout.readline().strip() for process in several)
    for process in several:
        process.communicate("")
    assert said == ["first", *["second"] * 5]
    assert [path.name for path in tmp_path.iterdir()] == ["go"], "it let go when it ended"
