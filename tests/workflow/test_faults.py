"""The workflow where results cannot be written, and under clocks that are wrong."""

import os
import time

import pytest

from cohorts import preset
from gigaseg.files import sha256_file


def ours(done):
    """The line of gigaseg, of a Snakemake that stopped with no word of its own."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Error in rule" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("gigaseg: ")]
    return line


def test_results_on_a_disk_that_cannot_be_written_are_one_line_of_ours(cohort, mounted):
    mounted(cohort.folder / "results", "ro")
    line = ours(cohort.snakemake())
    assert line == "gigaseg: results is 'results', where nothing can be written (Read-only file system)"


@pytest.mark.parametrize("results", ["taken", "taken/below"])
def test_results_where_a_file_is_are_one_line_of_ours(cohort, results):
    (cohort.folder / "taken").write_text("mine")
    cohort.configure(results=results, presets={"nuclei": preset()})
    line = ours(cohort.snakemake())
    assert line.endswith(f"results is '{results}', but taken is a file; expected a folder")
    assert (cohort.folder / "taken").read_text() == "mine"


def dated(cohort, days):
    """Move the times of all results."""
    for path in sorted(cohort.path().rglob("*"), reverse=True):
        state = path.stat()
        shift = int(days * 86400 * 1e9)
        os.utime(path, ns=(state.st_atime_ns + shift, state.st_mtime_ns + shift))


@pytest.mark.parametrize("days", [2, -2])
def test_results_from_the_future_or_the_past_are_not_made_again(finished, days):
    dated(finished, days)
    (finished.folder / "slides.tsv").touch()
    assert finished.planned() == {}


def test_with_a_clock_that_was_set_back_only_what_changed_runs_and_comes_out_right(finished):
    kept, table = finished.path("a", "instances.parquet"), finished.path("cohort_measurements.tsv")
    before, pooled = sha256_file(kept), table.read_bytes()
    dated(finished, 2)
    in_a_week = (time.time() + 7 * 86400,) * 2
    os.utime(finished.folder / "slides.tsv", in_a_week)
    finished.configure(presets={"nuclei": preset(measure={"quantiles": [0.25, 0.5, 0.75]})})
    done = finished.snakemake()
    assert done.returncode == 0, done.stderr
    assert "rule stitch:" not in done.stderr
    assert sha256_file(kept) == before
    assert table.read_bytes() != pooled
    assert finished.planned() == {}
