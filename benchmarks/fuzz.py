"""Damaged slides through the command line: ``python benchmarks/fuzz.py --data FOLDER [--variants 200]``.

Of each format a file is damaged in so many ways (`gigaseg.testing.faults`), and each variant goes through ``gigaseg
inspect``, ``grid``, ``tile`` (which reads all of it) and ``segment``, each in a process of its own with limits of time
and memory. What is done is kept in ``benchmarks/work/fuzz.jsonl``: an interrupted campaign goes on. Variants are tried
format by format in rounds of 10, so that a table of a campaign that ends early is even.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections import Counter
from pathlib import Path

from machine import processor

HERE = Path(__file__).parent
WORK, RESULTS = HERE / "work", HERE / "results"
ROUND = 10
LIMITS = "30 s of the processor, four minutes by the clock and 2 GiB of memory beyond the libraries'"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with slides/ and raster/")
    parser.add_argument("--variants", type=int, default=200, help="of each format")
    args = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    try:
        campaign(args.data, args.variants)
    finally:
        text = report(known())
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "fuzz.md").write_text(text, encoding="utf-8")
        print(text)


def known() -> dict[tuple[str, int], dict]:
    """Outcomes of variants that were tried."""
    log = WORK / "fuzz.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return {(found["format"], found["seed"]): found for found in map(json.loads, lines)}


def campaign(data: Path, variants: int) -> None:
    from gigaseg.testing.faults import FORMATS, Trials, sample

    done = known()
    folder = WORK / "fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    trials = {}
    with (WORK / "fuzz.jsonl").open("a", encoding="utf-8") as log:
        for start in range(0, variants, ROUND):
            for name in FORMATS:
                for seed in range(start, min(start + ROUND, variants)):
                    if (name, seed) in done:
                        continue
                    if name not in trials:
                        trials[name] = Trials(sample(name, folder, data), folder / name)
                    found = trials[name].run(seed)
                    record = {"format": name, "seed": seed, **vars(found)}
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                    if not found.accepted:
                        print(record, flush=True)
    shutil.rmtree(folder)


def report(outcomes: dict[tuple[str, int], dict]) -> str:
    from gigaseg.testing.faults import FORMATS, KINDS

    rows = []
    for name in [*FORMATS, "all"]:
        mine = [found for found in outcomes.values() if name in (found["format"], "all")]
        count = Counter("changed" if f["verdict"] == "succeeded" and f["changed"] else f["verdict"] for f in mine)
        good = [count.pop(key, 0) for key in ("refused", "succeeded", "changed")]
        bad = [count.pop(key, 0) for key in ("crashed", "hung", "memory", "missing")]
        cells = [len(mine), *good, *bad, count.total()]
        rows.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    wrong = [found for found in outcomes.values() if found["verdict"] not in ("refused", "succeeded")]
    lines = [
        "# Damaged slides",
        "",
        f"`python benchmarks/fuzz.py --data FOLDER`, {processor()}, {os.cpu_count()} cores, {platform.system()}.",
        "",
        f"One file of each format, damaged in one way a variant: {', '.join(KINDS)}.",
        "Each goes through `inspect`, `grid`, `tile` (which reads every pixel of level 0) and `segment`, each a",
        f"process of its own with {LIMITS}.",
        "*refused*: exit code 2 (in the steps after `inspect` a failure record) and one line that names the file;",
        "*same*: success with the intact file's pixels; *changed*: success with other pixels, which the format has no",
        "means to notice (a flipped bit of JPEG is another JPEG); *missing*: success though a part of the picture is",
        "lost; *unclear*: anything else, such as a traceback or two lines.",
        "",
        "| format | variants | refused | same | changed | crashed | hung | memory | missing | unclear |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]
    if wrong:
        lines += ["", "What is wrong:", ""]
        lines += [f"- {w['format']} {w['seed']}: {w['verdict']} at {w['step']}: {w['detail']}" for w in wrong]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
