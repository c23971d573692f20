"""A run of the workflow: it holds the results folder, clears up after one that was killed, and says what is ahead.

Called by the Snakefile when it is parsed, in the main process and in every job of a cluster; only the former does more
than plan.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gigaseg.ahead import ahead
from gigaseg.cluster import wait_for_earlier_jobs
from gigaseg.config import load_config
from gigaseg.errors import ConfigError, UserError
from gigaseg.lease import Held, Holder, take
from gigaseg.plan import Plan, make_plan
from gigaseg.results import check_place, mend_times

log = logging.getLogger(__name__)

BUSY = 75
"""Exit code when another run is at work in the results folder (EX_TEMPFAIL of sysexits.h: try again later)."""

MISTAKE = 2
"""Exit code for a mistake in the configuration, the sheet or the results folder: nothing was run."""

_LOOKS_ONLY = (
    "dryrun", "unlock", "lint", "report", "dag", "rulegraph", "filegraph", "d3dag", "summary", "detailed_summary",
    "list_rules", "list_target_rules", "list_changes", "list_untracked", "list_conda_envs", "archive", "containerize",
    "print_compilation", "cleanup_metadata", "conda_create_envs_only", "conda_cleanup_envs", "generate_unit_tests",
    "unneeded_temp_files", "export_cwl", "delete_all_output", "delete_temp_output", "cleanup_shadow", "touch",
)  # fmt: skip
"""Options with which Snakemake runs no job."""


def start(content: Mapping[str, Any], workflow: Any) -> Plan:
    """Plan the cohort; in the main process of a run hold its results folder first, until the process ends.

    Prints what is ahead. On a mistake of the user, or when another run is at work there, it prints a line a mistake
    and ends the process with `MISTAKE` or `BUSY`.

    Parameters
    ----------
    content : the configuration.
    workflow : Snakemake's, which knows whether this is the process that the user started, or a job of it on a cluster.
    """
    try:
        if not workflow.is_main_process:
            return make_plan(content, "config", settled=True)
        runs, shows = _asks_for(sys.argv)
        results = Path(load_config(content, "config").results)
        if runs:
            _hold(results)
        plan = make_plan(content, "config")
        if runs and plan.found is not None:
            plan.found.save(results)
        if runs or shows:
            _say(ahead(plan))
    except Held as held:
        _say(f"{held.holder} is at work in this results folder: nothing was started")
        sys.exit(BUSY)
    except UserError as error:
        for line in str(error).splitlines():
            _say(line)
        sys.exit(MISTAKE)
    wait_for_earlier_jobs(workflow)
    return plan


def end(plan: Plan, workflow: Any) -> None:
    """Write the report of the night, when a run of the target `gate` has ended, whatever became of its jobs.

    Parameters
    ----------
    plan : the cohort.
    workflow : Snakemake's, which knows the jobs of the run and those that failed.
    """
    if not workflow.is_main_process or not any(job.rule.name == "gate" for job in workflow.dag.jobs):
        return
    from gigaseg.report.night import Expected, last_line, night

    results = Path(plan.config.results)
    broken: dict[str, tuple[str, Path | None]] = {}
    message = ""
    for job in (one for failed in workflow.scheduler.failed for one in getattr(failed, "jobs", [failed])):
        name, path = job.rule.name, next((Path(str(path)) for path in job.log), None)
        slide = dict(job.wildcards_dict or {}).get("slide")
        if slide is not None:
            broken[slide] = (name, path)
        elif name != "gate":
            message = f"{name} broke: {last_line(path)}"
    page = night(
        results,
        [Expected(name, slide.digests["inspect"], slide.digests["measure"]) for name, slide in plan.slides.items()],
        bad_rows=[(row.slide, row.reason) for row in plan.bad_rows],
        waiting=plan.found.waiting if plan.found else (),
        broken=broken,
        message=message,
    )
    _say(f"report of this run: {page}")


def _hold(results: Path) -> None:
    check_place(results)
    try:
        _, dead = take(results)
    except OSError as error:
        raise ConfigError(f"results is '{results}', where nothing can be written ({error.strerror})") from error
    mend_times(results)
    if dead is not None:
        _say(f"{dead} held this results folder and died; going on from what it finished")
        _unlock(dead)
        _wait_for_jobs(dead)


def _unlock(dead: Holder) -> None:
    """Remove the locks that a dead run of Snakemake left in this working directory."""
    if dead.directory == str(Path.cwd()):
        shutil.rmtree(Path(".snakemake", "locks"), ignore_errors=True)


def _wait_for_jobs(dead: Holder) -> None:
    """Wait for steps that a dead run left on this machine: done twice at a time they would be in each other's way."""
    import psutil

    told = False
    while dead.is_here:
        left = [
            process.pid
            for process in psutil.process_iter(["cmdline", "cwd"])
            if process.info["cwd"] == dead.directory and "--run-record" in (process.info["cmdline"] or [])
        ]
        if not left:
            return
        if not told:
            _say(f"waiting for jobs that it left: {', '.join(map(str, left))} (end them with kill)")
            told = True
        time.sleep(1)


def _asks_for(argv: Sequence[str]) -> tuple[bool, bool]:
    """Whether the command line of Snakemake asks for jobs to be run; and for them to be shown alone."""
    if "snakemake" not in (Path(argv[0]).name, Path(argv[0]).parent.name):
        return True, False  # called from Python
    from snakemake.cli import parse_args

    _, options = parse_args(list(argv[1:]))
    return not any(getattr(options, name, None) for name in _LOOKS_ONLY), bool(options.dryrun)


def _say(line: str) -> None:
    print(f"gigaseg: {line}", file=sys.stderr, flush=True)
