"""A cohort under random kills for minutes: the tables must come out as those of a clean run, byte for byte.

``python benchmarks/soak.py --minutes 20 --slides 50`` makes small slides, every fifth one faulty (cut short, missing,
empty, a text, lying metadata, ...), and runs the workflow on them in rounds. A round is once clean, in a folder of its
own, and once under fire: every few seconds a process of a step, or one of its workers, is killed with SIGKILL, now and
then Snakemake itself, and the same command is given again until it has nothing to do. Then all results of the two are
compared. Each round has another parameter of `stitch` or `measure`, over the results of the one before, so that a
stale file would be seen. What is done is kept in benchmarks/work/soak and a second call goes on with the next round;
the page is benchmarks/results/soak.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile
import yaml
from machine import processor

from gigaseg.files import sha256_file
from gigaseg.testing import synthetic_slide
from gigaseg.testing.kills import leftovers

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work" / "soak"
PAGE = ROOT / "benchmarks" / "results" / "soak.md"
SIDE = (500, 400)
COMPARED = (
    "cohort.tsv", "cohort.parquet", "cohort_measurements.tsv", "*/slide.json", "*/grid.parquet", "*/foreground.tif",
    "*/instances/*.parquet", "*/instances.parquet", "*/measurements.parquet", "*/summary.json", "*/overview.png",
    "*/export/*",
)  # fmt: skip
"""All results but report.html, which shows run times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20, help="under fire; the round that runs then is finished")
    parser.add_argument("--slides", type=int, default=50)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--pause", type=float, default=4, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.work = WORK / str(args.slides)
    prepare(args)
    kept = args.work / "rounds.json"
    rounds = json.loads(kept.read_text()) if kept.exists() else []
    while sum(done["seconds"] for done in rounds) < args.minutes * 60:
        rounds.append(play(len(rounds), args))
        kept.write_text(json.dumps(rounds))
        print(rounds[-1], flush=True)
    PAGE.write_text(page(rounds, args), encoding="utf-8")
    print(PAGE.read_text())
    if any(done["differ"] or done["left"] for done in rounds):
        sys.exit("soak.py: a run under kills left something wrong")


def prepare(args: argparse.Namespace) -> None:
    """The slides and the sheet; the same for the same number."""
    folder = args.work / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "config.yaml", args.work)
    rows = ["slide\tpath\tpreset\tannotations"]
    faults = list(FAULTS)
    for number in range(args.slides):
        path = folder / f"s{number:02d}.tif"
        if not path.with_suffix(".geojson").exists():  # written last
            synthetic_slide(path, width=SIDE[0], height=SIDE[1], seed=number)
        name, annotations = path.stem, "" if number % 3 else str(path.with_suffix(".geojson"))
        if number % 5 == 4:
            fault = faults[number // 5 % len(faults)]
            path, annotations = FAULTS[fault](path, folder / f"{fault}-{number:02d}.tif", annotations)
            name = path.stem
        rows.append(f"{name}\t{path}\t{'drawn' if annotations else 'nuclei'}\t{annotations}")
    (args.work / "slides.tsv").write_text("\n".join(rows) + "\n")


def _cut(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    bad.write_bytes(slide.read_bytes()[: slide.stat().st_size // 3])
    return bad, annotations


def _missing(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    return bad.with_name(bad.name.replace(".tif", ".svs")), annotations


def _empty(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    bad.touch()
    return bad, annotations


def _text(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    bad.write_text("this is no slide\n" * 100)
    return bad, annotations


def _lying(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    """A TIFF whose header says 0 µm a pixel."""
    tifffile.imwrite(bad, np.zeros((64, 64, 3), np.uint8), resolution=(0, 0), resolutionunit="CENTIMETER")
    return bad, annotations


def _holes(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    """The pixels of a good slide overwritten with zeros, its directory intact."""
    content = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        for start, size in zip(page.dataoffsets, page.databytecounts):
            content[start : start + size] = bytes(size)
    bad.write_bytes(content)
    return bad, annotations


def _wrong_annotations(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    side = bad.with_suffix(".geojson")
    side.write_text('{"type": "FeatureCollection", "features": [{"type": "Feature"')
    shutil.copy2(slide, bad)
    return bad, str(side)


def _folder(slide: Path, bad: Path, annotations: str) -> tuple[Path, str]:
    bad.mkdir(exist_ok=True)
    return bad, annotations


FAULTS = {
    "cut": _cut, "missing": _missing, "empty": _empty, "text": _text, "lying": _lying, "holes": _holes,
    "annotations": _wrong_annotations, "folder": _folder,
}  # fmt: skip


def command(number: int, results: str, args: argparse.Namespace) -> list[str]:
    """Snakemake's command line of a round; its parameters change from round to round."""
    preset = {
        "tiles": {"tile": 128, "overlap": 32, "tiles_per_shard": 8},
        "stitch": {"agreement": round(0.5 + 0.02 * (number % 10), 2)},
        "measure": {"neighbours_within": 50.0 + number // 2},
        "export": ["geojson", "gpkg"],
    }
    presets = {"nuclei": {**preset, "segmenter": {"name": "watershed"}}}
    presets["drawn"] = {**preset, "segmenter": {"name": "annotations"}}
    config = args.work / f"round-{number}-{results}.yaml"
    config.write_text(yaml.safe_dump({"slides": "slides.tsv", "results": results, "presets": presets}))
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", str(args.cores)]
    words += ["--resources", "gpu=1", "--configfile", config.name, "--keep-going", "--rerun-incomplete"]
    return [*words, "--quiet", "all"]


def play(number: int, args: argparse.Namespace) -> dict:
    """One round; returns what was killed, how often the command was given, and what differs at the end."""
    folder = {name: args.work / name for name in ("clean", "killed")}
    log = (args.work / "log.txt").open("a")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            command(number, name, args), cwd=args.work, env=environment, stdout=log, stderr=log, start_new_session=True
        )

    begin = time.perf_counter()
    if start("clean").wait():
        sys.exit(f"soak.py: the clean run of round {number} failed; see {args.work / 'log.txt'}")
    done = {"round": number, "clean_seconds": time.perf_counter() - begin}
    rng = random.Random(f"{args.seed} {number}")
    counts = {"steps": 0, "workers": 0, "main": 0, "runs": 0}
    begin, code = time.perf_counter(), -1
    while code:
        process = start("killed")
        counts["runs"] += 1
        # fire ceases once the round has taken three times as long as the clean run, so that it ends
        while process.poll() is None:
            time.sleep(min(rng.expovariate(1 / args.pause), 5 * args.pause))
            if time.perf_counter() - begin < 3 * done["clean_seconds"] + 30:
                shoot(process, rng, counts)
        code = process.wait()
        if counts["runs"] > 200:
            sys.exit(f"soak.py: round {number} does not end; see {args.work / 'log.txt'}")
    done |= counts | {"seconds": time.perf_counter() - begin}
    again = subprocess.run(
        [*command(number, "killed", args)[:-2], "--dry-run"], cwd=args.work, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    found = {name: results(path) for name, path in folder.items()}
    names = sorted({*found["clean"], *found["killed"]})
    done["compared"] = len(names)
    done["differ"] = [name for name in names if found["clean"].get(name) != found["killed"].get(name)]
    done["left"] = [str(path.relative_to(args.work)) for path in leftovers(folder["killed"])]
    done["nothing_to_do"] = "Nothing to be done" in again.stdout + again.stderr
    return done


def shoot(process: subprocess.Popen, rng: random.Random, counts: dict[str, int]) -> None:
    """Kill a step, with its group or alone, or a worker of one, or, once in a while, Snakemake."""
    try:
        of_steps = [one for one in psutil.Process(process.pid).children(recursive=True) if "gigaseg" in words(one)]
    except psutil.NoSuchProcess:
        return
    if rng.random() < 0.08:
        process.kill()
        counts["main"] += 1
        return
    if not of_steps:
        return
    victim = rng.choice(of_steps)
    workers = [child for child in victim.children() if "spawn_main" in words(child)] if victim.is_running() else []
    try:
        if workers and rng.random() < 0.5:
            rng.choice(workers).kill()
            counts["workers"] += 1
        else:
            victim.kill()
            counts["steps"] += 1
    except psutil.NoSuchProcess:
        return


def words(process: psutil.Process) -> str:
    """The command line of a step of gigaseg or of its worker; empty for a shell or Snakemake."""
    try:
        line = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
    text = " ".join(line)
    shown = text if line and "python" in Path(line[0]).name and "snakemake" not in text else ""
    return shown if "bin/gigaseg" in shown or "spawn_main" in shown else ""


def results(folder: Path) -> dict[str, str]:
    found = [path for pattern in COMPARED for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


def page(rounds: list[dict], args: argparse.Namespace) -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    faulty = [list(FAULTS)[number // 5 % len(FAULTS)] for number in range(4, args.slides, 5)]
    lines = [
        "# A cohort under random kills",
        "",
        f"`python benchmarks/soak.py --minutes {args.minutes:g} --slides {args.slides} --pause {args.pause:g}`",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, {args.cores} used, Python {platform.python_version()}; load "
        f"{load} at the end.",
        "",
        f"{args.slides} slides of {SIDE[0]} × {SIDE[1]} px, {len(faulty)} of them faulty "
        f"({', '.join(dict.fromkeys(faulty))}). A round is a clean run and one under fire; all results "
        "but run records, logs and report.html are compared.",
        "",
        "| round | clean, s | under kills, s | steps killed | workers | Snakemake | runs | files compared | different "
        "| left over | then nothing to do |",
        f"|{' --- |' * 11}",
    ]
    for done in rounds:
        cells = [done["round"], f"{done['clean_seconds']:.0f}", f"{done['seconds']:.0f}", done["steps"]]
        cells += [done["workers"], done["main"], done["runs"], done["compared"], len(done["differ"])]
        cells += [len(done["left"]), "yes" if done["nothing_to_do"] else "no"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    total = {key: sum(done[key] for done in rounds) for key in ("seconds", "steps", "workers", "main", "runs")}
    kills = total["steps"] + total["workers"] + total["main"]
    differ = sum(len(done["differ"]) + len(done["left"]) for done in rounds)
    lines += [
        "",
        f"{total['seconds'] / 60:.1f} minutes under fire, {kills} kills ({total['steps']} of steps, {total['workers']} "
        f"of workers, {total['main']} of Snakemake), the command given {total['runs']} times; {differ} files different "
        "or left over.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
