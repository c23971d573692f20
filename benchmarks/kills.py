"""Every step killed at random moments: what stands there afterwards, and whether the next run gives the same bytes.

``python benchmarks/kills.py`` makes a small slide, runs each step of the workflow undisturbed, then kills it 20 times
with SIGKILL, half of the times at a random moment of its duration, half while it writes; after every fourth kill it
runs to its end and its outputs are compared. What is done is kept in benchmarks/work/kills and not done again; the
page is benchmarks/results/kills.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import time
from pathlib import Path

import yaml
from machine import processor

from gigaseg.testing import synthetic_slide
from gigaseg.testing.kills import StepJob, kill, leftovers, planned_jobs

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work" / "kills"
PAGE = ROOT / "benchmarks" / "results" / "kills.md"
IN_A_ROW = 4
"""Kills before a step is let run to its end."""

TILES = {"tile": 128, "overlap": 32, "tiles_per_shard": 100}
SLIDES = {
    "nuclei": ((700, 500), {"segmenter": {"name": "watershed"}, "tiles": TILES, "export": ["geojson", "gpkg"]}),
    "points": ((300, 200), {"segmenter": {"name": "cfrsam"}, "export": []}),
}
"""Size in px and preset; of `points` only the steps that `nuclei` lacks, and `segment`, are killed."""

OF_POINTS = ("propose", "prompt", "segment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each step")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    jobs = prepare()
    done = {}
    for job in jobs:
        state = campaign(job, args)
        if state["kills"]:
            done[title(job)] = state
    PAGE.write_text(page(done, args), encoding="utf-8")
    print(PAGE.read_text())
    if any(wrong(state) for state in done.values()):
        sys.exit("kills.py: a kill left something wrong")


def prepare() -> list[StepJob]:
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "config.yaml", WORK)
    rows = ["slide\tpath\tpreset"]
    for name, ((width, height), _) in SLIDES.items():
        if not (WORK / f"{name}.geojson").exists():  # written last
            synthetic_slide(WORK / f"{name}.tif", width=width, height=height, seed=5)
        rows.append(f"{name}\t{name}.tif\t{name}")
    (WORK / "slides.tsv").write_text("\n".join(rows) + "\n")
    (WORK / "mine.yaml").write_text(yaml.safe_dump({"presets": {name: preset for name, (_, preset) in SLIDES.items()}}))
    return planned_jobs(WORK, ROOT / "Snakefile", "--configfile", "mine.yaml", "--cores", "2")


def title(job: StepJob) -> str:
    return f"{job.name} ({SLIDES[job.slide][1]['segmenter']['name']})" if job.name == "segment" else job.name


def campaign(job: StepJob, args: argparse.Namespace) -> dict:
    """Kill a step until it has been killed as often as wanted; returns its state, which is kept."""
    path = WORK / "state" / f"{job.slide or 'cohort'}-{job.name.replace(' ', '-')}.json"
    path.parent.mkdir(exist_ok=True)
    killed = job.slide != "points" or job.name in OF_POINTS
    state = json.loads(path.read_text()) if path.exists() else None
    wanted = {str(path) for path in job.outputs if path.parent.name != "run"}
    if state is None or state["results"] != {str(name): digest for name, digest in job.results().items()}:
        # report.html tells seconds of the run records, so that what is compared is made just before
        start = time.perf_counter()
        code, told = job.run()
        if code:
            sys.exit(f"{title(job)}: {told}")
        state = {"seconds": time.perf_counter() - start, "kills": 0, "landed": 0, "wrote": 0, "runs": 0}
        state |= {"wrong": [], "differ": [], "left": [], "codes": []}
        state["results"] = {str(name): digest for name, digest in job.results().items()}
        assert set(state["results"]) == wanted
    expected = {Path(name): digest for name, digest in state["results"].items()}
    while killed and state["kills"] < args.kills:
        rng = random.Random(f"{args.seed} {title(job)} {state['kills']}")
        for number in range(min(IN_A_ROW, args.kills - state["kills"])):
            writing = number % 2 == 1
            met = kill(job, expected, rng.uniform(0, 0.03 if writing else 0.9 * state["seconds"]), writing)
            state["kills"] += 1
            state["landed"] += met.landed
            state["wrote"] += met.landed and met.wrote
            state["wrong"] += map(str, met.wrong)
        code, _ = job.run()
        state["runs"] += 1
        state["codes"] += [code] if code else []
        found = job.results()
        state["differ"] += [str(name) for name, digest in expected.items() if found.get(name) != digest]
        state["left"] += map(str, leftovers(WORK / "results"))
        path.write_text(json.dumps(state))
        print(f"{title(job)}: {state['kills']} of {args.kills}", flush=True)
    path.write_text(json.dumps(state))
    return state


def wrong(state: dict) -> list[str]:
    return state["wrong"] + state["differ"] + state["left"] + state["codes"]


def page(done: dict[str, dict], args: argparse.Namespace) -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines = [
        "# Steps killed at random moments",
        "",
        f"`python benchmarks/kills.py --kills {args.kills} --seed {args.seed}`",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; load {load} at the end.",
        "",
        "Each step is run by the workflow's command line and its process group gets SIGKILL: half of the times at a "
        "random moment of its duration, half within 30 ms after its first temporary file appears. *Landed*: it was "
        "still at work; *writing*: it left a temporary file, which is half-written. *Half-written*: outputs under "
        f"their own name that are not those of the undisturbed run. After every {IN_A_ROW} kills it runs to its end: "
        "*same bytes* says how many of these runs made what the undisturbed one had made, *left over* what temporary "
        "files and parts were still there then.",
        "",
        "| step | seconds | kills | landed | writing | half-written | runs | same bytes | left over |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, state in done.items():
        same = state["runs"] - len(state["codes"]) - len(state["differ"])
        cells = [name, f"{state['seconds']:.1f}", state["kills"], state["landed"], state["wrote"], len(state["wrong"])]
        lines.append(f"| {' | '.join(map(str, [*cells, state['runs'], same, len(state['left'])]))} |")
    keys = ("kills", "landed", "wrote")
    total = [sum(state[key] for state in done.values()) for key in keys]
    lines += [
        "",
        f"{total[0]} kills of {len(done)} steps, {total[1]} while they worked, {total[2]} of these while they wrote; "
        f"{sum(len(wrong(state)) for state in done.values())} faults found.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
