"""Checks of the machine: packages, readers, formats, GPU, memory, scheduler."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gigaseg import __version__
from gigaseg.doctor.finding import NOTE, OK, WRONG, Finding
from gigaseg.errors import one_line
from gigaseg.slides.registry import READERS

LARGEST_JOB_MB = 8000
"""Memory that the largest job of the workflow asks for (rule `segment`)."""

_CODECS = ("JPEG8", "JPEG2K", "LZW", "DEFLATE", "ZSTD", "WEBP", "LERC")
_RASTERS = ("GTiff", "COG", "JP2OpenJPEG")
_VECTORS = ("GPKG", "GeoJSON", "FlatGeobuf")
_TEMPORARY_MB = 1000
_OPEN_FILES = 1024


def check_machine() -> Iterator[Finding]:
    """All checks that need no configuration."""
    yield Finding(OK, "gigaseg", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield packages()
    yield from readers()
    yield formats()
    yield from gpus()
    yield memory()
    yield limits()
    yield scheduler()


def packages() -> Finding:
    """Whether every package that gigaseg needs is installed in an accepted version."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("gigaseg") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found == "none" or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, accepted: {one.specifier}")
    if wrong:
        return Finding(WRONG, "packages", "; ".join(wrong))
    return Finding(OK, "packages", f"all {len(wanted)} that gigaseg needs")


def readers() -> Iterator[Finding]:
    """Whether the library of each reader of slides can be loaded."""
    versions = []
    for name in READERS:
        try:
            importlib.import_module(f"gigaseg.slides.{name}_reader")
            library = importlib.import_module("PIL" if name == "pillow" else name)
        except (ImportError, OSError) as error:
            yield Finding(WRONG, "reader", f"{name} cannot be loaded ({one_line(error)})")
            continue
        inside = {"openslide": "__library_version__", "rasterio": "__gdal_version__"}.get(name)
        versions.append(f"{name} {library.__version__}" + (f" ({getattr(library, inside)})" if inside else ""))
    if versions:
        yield Finding(OK, "readers", ", ".join(versions))


def formats() -> Finding:
    """Whether the codecs of slides and the drivers of rasters and exports are there."""
    import imagecodecs
    import pyogrio
    import rasterio

    with rasterio.Env() as environment:
        drivers = environment.drivers()
    lacking = [name for name in _CODECS if not getattr(imagecodecs, name).available]
    lacking += [name for name in _RASTERS if name not in drivers]
    lacking += [name for name in _VECTORS if "w" not in pyogrio.list_drivers().get(name, "")]
    if lacking:
        return Finding(WRONG, "formats", f"without {', '.join(lacking)}; install the versions of requirements.lock")
    return Finding(OK, "formats", ", ".join([*_CODECS, *_RASTERS, *_VECTORS]))


def gpus() -> Iterator[Finding]:
    """What torch computes on."""
    import torch

    if not torch.cuda.is_available():
        why = "torch is built for CPUs" if torch.version.cuda is None else "no GPU or no driver is seen"
        yield Finding(NOTE, "GPU", f"none: models run on {os.cpu_count()} CPU cores ({why}, torch {torch.__version__})")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        text = f"cuda:{number} {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield Finding(OK if free > total / 2 else NOTE, "GPU", text)


def memory() -> Finding:
    """Whether the largest job has room."""
    import psutil

    free = min(psutil.virtual_memory().available, _group_limit()) / 2**20
    text = f"{free / 1024:.1f} GiB free; the largest job asks for {LARGEST_JOB_MB / 1024:.1f} GiB"
    return Finding(OK if free >= LARGEST_JOB_MB else NOTE, "memory", text)


def _group_limit() -> int:
    """Memory that the control group of this process may use, bytes."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return sys.maxsize


def limits() -> Finding:
    """Temporary space and open files."""
    import resource

    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e6
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{free / 1000:.1f} GB free in {folder}, {files} open files a process"
    enough = free >= _TEMPORARY_MB and files >= _OPEN_FILES
    return Finding(OK if enough else NOTE, "temporary", text if enough else f"{text}; accepted: 1 GB, {_OPEN_FILES}")


def scheduler() -> Finding:
    """Whether a cluster's scheduler answers."""
    if shutil.which("sbatch") is None:
        other = next((name for name in ("bsub", "qsub", "kubectl") if shutil.which(name)), None)
        told = f"{other} is here, see docs/cluster.md" if other else "none: jobs run on this machine"
        return Finding(NOTE if other else OK, "scheduler", told)
    done = _ask("sinfo", "--noheader", "--format=%P %a %D %G")
    if isinstance(done, str):
        return Finding(WRONG, "scheduler", f"SLURM does not answer: sinfo: {done}")
    partitions = "; ".join(one_line(line) for line in done.stdout.splitlines())
    accounts = _ask("sacct", "--noheader", "--allocations")
    if isinstance(accounts, str):
        text = f"SLURM, partitions {partitions}; no accounting: keep the profile's slurm-status-command: squeue"
        return Finding(NOTE, "scheduler", text)
    return Finding(OK, "scheduler", f"SLURM, partitions {partitions}")


def _ask(*command: str) -> subprocess.CompletedProcess[str] | str:
    """What a command answers, or why it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return one_line(error)
    return done if done.returncode == 0 else one_line(done.stderr or f"exit code {done.returncode}")[:200]
