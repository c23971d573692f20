"""Steps of the workflow, killed: run as the workflow runs them, and what a kill leaves behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gigaseg.errors import ConfigError
from gigaseg.files import sha256_file

_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)*)Shell command: gigaseg (.*)$", re.MULTILINE)
_LIST = re.compile(r"^ {4}(input|output): (.*)$", re.MULTILINE)
_POLL = 0.002
"""Seconds between two looks at what a step has written."""

_PATIENCE = 300
"""Seconds after which a step counts as hanging."""


@dataclass(frozen=True)
class StepJob:
    """A job of the workflow.

    Attributes
    ----------
    name : its step; of an export with the format's file.
    slide : name of the slide; empty for a job of the cohort.
    arguments : of `gigaseg`.
    outputs : the files it makes, relative to `folder`; the run record is the last one where there is one.
    folder : working directory.
    """

    name: str
    slide: str
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...]
    folder: Path

    def start(self) -> subprocess.Popen[str]:
        """Start it in a process group of its own, its old outputs removed, as Snakemake does."""
        for path in self.outputs:
            (self.folder / path).unlink(missing_ok=True)
        command = [sys.executable, "-m", "gigaseg", *self.arguments]
        return subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self) -> tuple[int, str]:
        """Run it to its end; returns the exit code and the lines on stderr."""
        process = self.start()
        return finish(process)

    def results(self) -> dict[Path, str]:
        """sha256 of the outputs that are there, run records excepted."""
        there = [path for path in self.outputs if path.parent.name != "run" and (self.folder / path).exists()]
        return {path: sha256_file(self.folder / path) for path in there}


@dataclass(frozen=True)
class Kill:
    """What a kill met and left.

    Attributes
    ----------
    landed : the step was at work.
    wrote : it was writing: a temporary file is left.
    wrong : outputs that stand there under their own name and are not what an undisturbed run makes.
    """

    landed: bool
    wrote: bool
    wrong: tuple[Path, ...]


def planned_jobs(folder: Path, snakefile: Path, *arguments: str) -> list[StepJob]:
    """The jobs that Snakemake would run in a working directory, each before those that read what it makes.

    Parameters
    ----------
    folder : working directory, with config.yaml.
    snakefile : the workflow.
    arguments : more of Snakemake's; with ``--cores 1`` every step has one worker.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--dry-run", "--printshellcmds"]
    command += ["--forceall", "--nocolor", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = _JOB.findall(done.stdout + done.stderr)
    if done.returncode or not found:
        raise ConfigError(f"{folder}: Snakemake plans no jobs\n{done.stdout}{done.stderr}")
    jobs, needed = [], {}
    for rule, facts, command_line in found:
        files = {kind: [Path(name) for name in names.split(", ")] for kind, names in _LIST.findall(facts)}
        words = shlex.split(command_line.partition(" 2> ")[0])
        outputs = sorted(files["output"], key=lambda path: path.parent.name == "run")
        slide = words[words.index("--slide") + 1] if "--slide" in words else ""
        name = f"{rule} {outputs[0].name}" if rule == "export" else rule
        jobs.append(StepJob(name, slide, tuple(words), tuple(outputs), folder))
        needed[jobs[-1]] = files.get("input", [])
    return _in_order(jobs, needed)


def _in_order(jobs: list[StepJob], needed: Mapping[StepJob, Sequence[Path]]) -> list[StepJob]:
    made_by = {path: job for job in jobs for path in job.outputs}
    ordered: dict[StepJob, None] = {}

    def add(job: StepJob) -> None:
        for path in needed[job]:
            if path in made_by:
                add(made_by[path])
        ordered[job] = None

    for job in jobs:
        add(job)
    return list(ordered)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a step; returns its exit code and the lines on stderr. One that hangs is killed: code -9."""
    try:
        told = process.communicate(timeout=_PATIENCE)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        told = process.communicate()[1] + f"\nhung for {_PATIENCE} s"
    return process.returncode, told


def kill(job: StepJob, expected: Mapping[Path, str], after: float, writing: bool = False) -> Kill:
    """Start a step and kill its whole process group with SIGKILL.

    Parameters
    ----------
    job : the step.
    expected : sha256 of its outputs, of an undisturbed run (`StepJob.results`).
    after : seconds until the kill, from the start, or from the moment it begins to write something.
    writing : that moment; a step that never gets there is not killed.
    """
    process = job.start()
    results = job.folder / job.outputs[0].parts[0]
    before = {path: path.stat().st_mtime_ns for path in leftovers(results)}
    if writing:
        while process.poll() is None and not _writes(results, before):
            time.sleep(_POLL)
    deadline = time.monotonic() + after
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wrong = tuple(path for path, digest in job.results().items() if expected.get(path) != digest)
    return Kill(process.returncode == -signal.SIGKILL, bool(_writes(results, before)), wrong)


def _writes(results: Path, before: Mapping[Path, int]) -> bool:
    try:
        return any(before.get(path) != path.stat().st_mtime_ns for path in leftovers(results))
    except FileNotFoundError:  # finished in this moment
        return False


def leftovers(results: Path) -> list[Path]:
    """Temporary files and folders, and parts of segments, in a folder of results; what is known of a cohort is none."""
    return sorted(path for path in results.rglob(".*") if path.name not in (".headers.json", ".plan.json"))
