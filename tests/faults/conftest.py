"""Steps that have run once, to be run again under faults."""

import shutil
from dataclasses import replace

import pytest

from steps import make_jobs, undisturbed


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory):
    jobs = make_jobs(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        return jobs, {name: undisturbed(job, patch) for name, job in jobs.items()}


@pytest.fixture
def steps(finished_once, tmp_path):
    """Name -> (job, sha256 of its outputs) of a slide under `watershed`, all of whose steps have run."""
    jobs, expected = finished_once
    folder = tmp_path / "cohort"
    shutil.copytree(next(iter(jobs.values())).folder, folder)
    return {name: (replace(job, folder=folder), expected[name]) for name, job in jobs.items()}
