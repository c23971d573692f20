"""Processes beside each other take different GPUs."""

import os
import subprocess
import sys

import pytest

from gigaseg.gpus import take_gpu

TAKE = "import logging, sys; logging.basicConfig(); from gigaseg.gpus import take_gpu\n"
TAKE += "print(take_gpu(sys.argv[1:]), take_gpu(sys.argv[1:]), flush=True); sys.stdin.read()"


@pytest.fixture
def taker():
    """Start a process that takes one of `gpus`, says which one twice, and keeps it."""
    started = []

    def start(*gpus):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", TAKE, *gpus], text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_process_has_its_own_gpu_and_the_next_one_waits_until_one_is_killed(taker):
    gpus = [f"{os.getpid()}-{name}" for name in "ab"]
    first, second = taker(*gpus), taker(*gpus)
    told = [process.stdout.readline().split() for process in (first, second)]
    assert sorted(told) == [["0", "0"], ["1", "1"]], "and keeps it when it asks again"
    third = taker(*gpus)
    assert "all 2 GPUs are taken by other processes" in third.stderr.readline()
    second.kill()  # nothing is left to be cleaned up
    assert third.stdout.readline().split() == told[1]


def test_one_gpu_alone_is_shared_as_it_always_was(taker):
    gpu = f"{os.getpid()}-alone"
    assert [taker(gpu).stdout.readline().split() for _ in range(2)] == [["0", "0"]] * 2
    assert take_gpu([gpu]) == 0


def test_a_gpu_that_one_job_sees_under_another_number_is_still_taken(taker):
    a, b, c = (f"{os.getpid()}-{name}" for name in ("x", "y", "z"))
    assert taker(a, b).stdout.readline().split()[0] == "0"
    assert taker(a, c).stdout.readline().split()[0] == "1"
    assert taker(c, b).stdout.readline().split()[0] == "1"
