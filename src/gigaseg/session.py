"""A run of the workflow: it holds the results folder, clears up after one that was killed, and tells of the night.

`start` is called by the Snakefile when it is parsed, in the main process and in every job on a cluster; only the former
does more than plan. `end` is called when a run has ended.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from gigaseg.ahead import ahead
from gigaseg.cluster import wait_for_earlier_jobs
from gigaseg.errors import ConfigError, UserError
from gigaseg.lease import Held, Holder, Lease, take
from gigaseg.plan import Plan, make_plan
from gigaseg.report.runs import STEPS
from gigaseg.results import mend_times
from gigaseg.status.planned import keep

BUSY = 75
"""Exit code when another run is at work in the results folder (EX_TEMPFAIL of sysexits.h: try again later)."""

MISTAKE = 2
"""Exit code for a mistake in the configuration, the sheet or the results folder: nothing was run."""


def start(content: Mapping[str, Any], workflow: Any) -> Plan:
    """Plan the cohort; before the first job of a run, hold its results folder until the run ends.

    A run says what is ahead, and so does a dry run, which holds nothing. On a mistake of the user, or when another run
    is at work in the folder, a line a mistake is printed and the process ends with `MISTAKE` or `BUSY`.

    Parameters
    ----------
    content : the configuration.
    workflow : Snakemake's, as rule files see it.
    """
    main = workflow.is_main_process
    try:
        plan = make_plan(content, "config", settled=not main)
    except UserError as error:
        _stop(error)
    if main:
        execute = workflow.execute

        def execute_held(*args: Any, **kwargs: Any) -> Any:
            executor = kwargs["executor_plugin"]
            held: AbstractContextManager[object] = nullcontext()
            if not executor.common_settings.dryrun_exec:
                held = closing(_begin(plan, Path(workflow.workdir_init), executor.name))
            with held:
                _say(ahead(plan))
                return execute(*args, **kwargs)

        # called for runs and dry runs alone; Snakemake's own hook (onstart) comes when it has decided what to run
        workflow.execute = execute_held
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

    slides: dict[str, tuple[str, Path | None]] = {}
    message = ""
    for step, slide, log in _broken(workflow):
        if slide is not None:
            slides.setdefault(slide, (step, log))
        elif not message and step != "gate":
            message = f"{step} broke: {last_line(log)}"
    try:
        page = night(
            Path(plan.config.results),
            [Expected(name, slide.digests["inspect"], slide.digests["measure"]) for name, slide in plan.slides.items()],
            bad_rows=[(row.slide, row.reason) for row in plan.bad_rows],
            waiting=plan.found.waiting if plan.found else (),
            broken=slides,
            message=message,
        )
    except OSError as error:  # the run itself has ended well or told why not
        _say(f"the report of this run cannot be written: {error}")
    else:
        _say(f"report of this run: {page}")


def _broken(workflow: Any) -> Iterator[tuple[str, str | None, Path | None]]:
    """Step, slide and log of jobs that broke, the earlier steps first; of a group those that made no output."""
    jobs = [job for failed in workflow.scheduler.failed for job in getattr(failed, "jobs", [failed])]
    order = {name: place for place, name in enumerate(STEPS)}
    for job in sorted(jobs, key=lambda job: order.get(job.rule.name, len(order))):
        if not job.output or not all(Path(str(path)).exists() for path in job.output):
            log = next((Path(str(path)) for path in job.log), None)
            yield job.rule.name, dict(job.wildcards_dict or {}).get("slide"), log


def _begin(plan: Plan, directory: Path, executor: str) -> Lease:
    """Hold the results folder, and wait until all that an earlier run left there or on the cluster has ended."""
    results = Path(plan.config.results)
    try:
        lease, dead = take(results)
    except Held as held:
        _say(f"{held.holder} is at work in this results folder: nothing was started")
        sys.exit(BUSY)
    except OSError as error:
        _stop(ConfigError(f"results is '{results}', where nothing can be written ({error.strerror})"))
    if dead is not None:
        _say(f"{dead} held this results folder and died; going on from what it finished")
        if dead.directory == str(directory):
            shutil.rmtree(directory / ".snakemake" / "locks", ignore_errors=True)
    wait_for_earlier_jobs(directory, must_know=executor == "slurm")
    if dead is not None:
        _wait_for_jobs(dead, f"{plan.config.results}/")
    mend_times(results)
    keep(plan, executor)
    if plan.found is not None:
        plan.found.save(results)
    return lease


def _wait_for_jobs(dead: Holder, results: str) -> None:
    """Wait for steps that a dead run left on this machine: done twice at a time they would be in each other's way."""
    import psutil

    told = False
    while dead.is_here:
        left = [
            process.pid
            for process in psutil.process_iter(["cmdline", "cwd"])
            if process.info["cwd"] == dead.directory and _is_step(process.info["cmdline"] or [], results)
        ]
        if not left:
            return
        if not told:
            _say(f"waiting for jobs that it left: {', '.join(map(str, left))} (end them with kill)")
            told = True
        time.sleep(1)


def _is_step(command: list[str], results: str) -> bool:
    """Whether a command line is a step of gigaseg that works on a results folder."""
    return any(Path(word).name == "gigaseg" for word in command[:3]) and any(
        word.startswith(results) for word in command
    )


def _stop(error: UserError) -> NoReturn:
    for line in str(error).splitlines():
        _say(line)
    sys.exit(MISTAKE)


def _say(line: str) -> None:
    print(f"gigaseg: {line}", file=sys.stderr, flush=True)
