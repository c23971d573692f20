"""Accuracy of every method on every data set: ``python benchmarks/accuracy.py [--rows NAME ...]``.

Images are segmented in memory (`gigaseg.segmenters.whole`) and scored by `gigaseg evaluate`; with ``--workflow`` those
of MoNuSeg also go through Snakemake, tiles and `stitch`. Figures are kept in a JSON file beside the page, so that one
row can be run again without the others. docs/accuracy.md says what each figure means.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_data import DSB2018, MONUSEG, MONUSEG_HELD_OUT, PARTS, SETS, Picture, some, truth_folder
from accuracy_methods import METHODS, Method, Runner, seen_by
from accuracy_workflow import run_workflow
from machine import processor

from gigaseg import __version__
from gigaseg.devices import choose_device
from gigaseg.errors import UserError, one_line
from gigaseg.files import write_json
from gigaseg.metrics.evaluate import evaluate
from gigaseg.metrics.report import Report
from gigaseg.sam.downloads import checkpoint_path

HERE = Path(__file__).parent
FORMAT = "gigaseg/accuracy/2"
FIGURES = {
    "pixel_dice": "pixel Dice",
    "pixel_iou": "pixel IoU",
    "pixel_dice_pooled": "pooled pixel F1",
    "f1_50": "F1 at 0.5",
    "aji": "AJI",
    "pq": "PQ",
}
"""What is shown of `gigaseg evaluate`: means over the images, but for the pooled one, of all their pixels together."""


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if not any((args.data / name).is_dir() for name in args.sets):
        parser().error(f"--data is '{args.data}', which holds none of the folders {', '.join(args.sets)}")
    if args.workflow and "monuseg" not in args.sets:
        parser().error("--workflow needs the set monuseg")
    quick = args.limit is not None
    work = args.work / f"limit-{args.limit}" if quick else args.work
    out = args.out or (work / "accuracy.md" if quick else HERE / "results" / "accuracy.md")
    kept = read_kept(out.with_suffix(".json"))
    left_out = {}
    for name in args.rows:
        try:
            for row in run_row(METHODS[name], args, work, kept.get(name, {})):
                kept[name] = row
                write_json(out.with_suffix(".json"), {"format": FORMAT, "rows": kept})
        except UserError as error:
            left_out[name] = one_line(error)
            print(f"{name} is left out: {left_out[name]}", file=sys.stderr)
    text = page(kept, left_out, quick)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data")
    found.add_argument("--data", type=Path, default=default, help="folder with dsb2018, monuseg, consep")
    found.add_argument(
        "--rows", nargs="*", choices=METHODS, default=list(METHODS), metavar="ROW", help=", ".join(METHODS)
    )
    found.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="data sets (default: all)")
    found.add_argument("--sam", help="checkpoint, name or file, of the rows with SAM alone (default: small-v1)")
    found.add_argument("--centersam", help="checkpoint of centersam (default: centersam-v2)")
    found.add_argument("--centersam-monuseg", help="the same, trained on 24 images of monuseg (docs/centersam.md)")
    found.add_argument("--sac", help="checkpoint of sac (default: sac-v1)")
    found.add_argument("--sac-monuseg", help="the same, trained on 24 images of monuseg (docs/sac.md)")
    found.add_argument("--densesam", help="checkpoint of densesam (default: densesam-v1)")
    found.add_argument("--densesam-monuseg", help="the same, trained on 24 images of monuseg (docs/densesam.md)")
    found.add_argument("--cfrsam", help="checkpoint of cfrsam (default: cfrsam-v1)")
    found.add_argument("--cfrsam-monuseg", help="the same, trained on 24 images of monuseg (docs/cfrsam.md)")
    found.add_argument("--persense", help="checkpoint of persense (default: persense-v1)")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    found.add_argument("--workflow", action="store_true", help="also run monuseg through Snakemake")
    found.add_argument("--cores", type=int, default=2, help="cores for Snakemake (default: 2)")
    found.add_argument(
        "--limit", type=int, help="images a set at most, for a quick trial; its page goes to the work folder"
    )
    found.add_argument("--work", type=Path, default=HERE / "work" / "accuracy", help="folder of predictions")
    found.add_argument("--out", type=Path, help="page to write (default: benchmarks/results/accuracy.md)")
    return found


def read_kept(path: Path) -> dict[str, Any]:
    """Rows of earlier runs."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["rows"] if content.get("format") == FORMAT else {}


def run_row(method: Method, args: argparse.Namespace, work: Path, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a method on the data sets and give the row after each.

    Figures of other sets are kept when nothing about the method has changed.
    """
    import torch

    card = method.card
    device = choose_device(args.device) if card.needs_gpu else "cpu"
    torch.set_num_threads(1)
    given = getattr(args, method.weights) if method.weights else None
    wanted = given or method.checkpoint
    checkpoint = checkpoint_path(wanted) if wanted else None
    seen = seen_by(checkpoint)
    about = {
        "segmenter": f"{card.name}, revision {card.revision}",
        "checkpoint": "none" if checkpoint is None else checkpoint.stem,
        "sha256": "" if checkpoint is None else hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "trained_on": f"tuned on {method.tuned_on}" if method.tuned_on else str(seen),
        "settings": method.words(),
        "options": card.complete(method.options),
    }
    same = all(before.get(key) == value for key, value in about.items())
    runner = Runner(method, checkpoint, device)
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else processor()
    unit = "s by the clock" if device.startswith("cuda") else "CPU s of one thread"
    versions = f"gigaseg {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    row = {
        **about,
        "parts": dict(before["parts"]) if same else {},
        "workflow": before.get("workflow") if same else None,
    }
    folder = work / method.name.replace(" ", "")
    for name in args.sets:
        if not (args.data / name).is_dir():
            print(f"{name} is left out: no folder {name} in --data", file=sys.stderr)
            continue
        pictures = some(SETS[name](args.data, seen), args.limit)
        if not pictures:
            print(f"{name} is left out: the weights have seen it ({seen})", file=sys.stderr)
            continue
        seconds = predict(runner, pictures, folder / name)
        for part in PARTS:
            mine = [picture for picture in pictures if part in picture.parts]
            if mine:
                report = evaluate(folder / name, truth_folder(pictures, part, work))
                row["parts"][part] = {
                    **shown(report),
                    "seconds": statistics.median(seconds[picture.name] for picture in mine),
                    "run": f"{machine}; {versions}; time in {unit}, the machine shared with other work",
                }
        yield row
        if args.workflow and name == "monuseg":
            row["workflow"] = through_workflow(method, checkpoint, device, pictures, folder, work, args.cores)
            yield row


def predict(runner: Runner, pictures: list[Picture], folder: Path) -> dict[str, float]:
    """Write a label image of each picture; returns seconds a picture."""
    from PIL import Image

    clock = time.perf_counter if runner.device.startswith("cuda") else time.process_time
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    seconds = {}
    for i, picture in enumerate(pictures, 1):
        image = picture.pixels()
        runner.build(picture.kind)  # loading the weights is not counted
        start = clock()
        labels = runner(picture, image)
        seconds[picture.name] = clock() - start
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{picture.name}.png")
        print(f"\r{folder.parent.name} {folder.name} {i}/{len(pictures)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seconds


def shown(report: Report) -> dict[str, Any]:
    """The figures of the page: value, low, high."""
    figures = {name: report.figures[name] for name in FIGURES if name in report.figures}  # of one image none is pooled
    return {
        "images": len(report.images),
        "objects": report.figures["truth_objects"].value,
        "found": report.figures["predicted_objects"].value,
        "figures": {
            name: [None if math.isnan(value) else value for value in (f.value, f.low, f.high)]
            for name, f in figures.items()
        },
    }


def through_workflow(
    method: Method,
    checkpoint: Path | None,
    device: str,
    pictures: list[Picture],
    folder: Path,
    work: Path,
    cores: int,
) -> dict[str, Any]:
    """Figures of the same images through Snakemake, and how they agree with those in memory."""
    part = MONUSEG if any(MONUSEG in picture.parts for picture in pictures) else MONUSEG_HELD_OUT
    results = run_workflow(method, checkpoint, device, pictures, folder / "workflow", cores)
    against_truth = evaluate(results, truth_folder(pictures, part, work))
    against_memory = evaluate(results, folder / "monuseg")
    agreement = {name: against_memory.figures[name].value for name in ("pixel_dice", "f1_50", "pq")}
    return {"part": part, **shown(against_truth), "agreement": agreement}


def page(kept: dict[str, Any], left_out: dict[str, str], quick: bool) -> str:
    """Markdown."""
    rows = {name: kept[name] for name in METHODS if name in kept}
    lines = [
        "# Accuracy: methods × data sets",
        "",
        "`python benchmarks/accuracy.py --workflow`" + (", **a quick trial on some of the images**." * quick),
        "",
        "Means over the images with 95 % bootstrap intervals (*pooled*: of all pixels together); what the figures "
        "and rows are: [docs/accuracy.md](../../docs/accuracy.md). *paper*: as printed, from other images and weights.",
        "",
        "| method | weights | trained on | how it is run |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        weights = f"`{row['checkpoint']}`, sha256 {row['sha256'][:12]}" if row["sha256"] else "none"
        lines.append(f"| {name} | {weights} | {row['trained_on']} | {row['settings']} |")
    lines += [f"\n`{name}` is left out: {reason}" for name, reason in left_out.items() if name not in rows]
    lines += [f"\n`{name}` was not run again: {reason}" for name, reason in left_out.items() if name in rows]
    for part in PARTS:
        mine = {name: row for name, row in rows.items() if part in row["parts"]}
        if mine:
            lines += ["", *part_table(part, mine)]
    through = {name: row for name, row in rows.items() if row["workflow"]}
    if through:
        lines += ["", *workflow_table(through)]
    lines += ["", "## Machines", ""]
    for name, row in rows.items():
        runs: dict[str, list[str]] = {}
        for part, cell in row["parts"].items():
            runs.setdefault(cell["run"], []).append(part)
        lines += [
            f"- {name}, {'all sets' if len(runs) == 1 else ', '.join(parts)}: {run}" for run, parts in runs.items()
        ]
    return "\n".join([*lines, ""])


def part_table(part: str, rows: dict[str, Any]) -> list[str]:
    some_row = next(iter(rows.values()))["parts"][part]
    lines = [
        f"## {part}",
        "",
        f"{some_row['images']} image{'s' * (some_row['images'] != 1)}, {some_row['objects']:,.0f} objects."
        + (" Out of distribution for weights trained on dsb2018." * (not part.startswith(DSB2018))),
        "",
        "| method | " + " | ".join(FIGURES.values()) + " | found | s an image (median) |",
        "| --- |" + " --- |" * (len(FIGURES) + 2),
    ]
    for name, row in rows.items():
        cell = row["parts"][part]
        figures = " | ".join(with_interval(cell["figures"].get(figure, [None])) for figure in FIGURES)
        lines.append(f"| {name} | {figures} | {cell['found']:,.0f} | {cell['seconds']:.3g} |")
        method = METHODS[name]
        if part in method.paper:
            printed = method.paper[part]
            figures = " | ".join(f"*{printed[figure]:.4f}*" if figure in printed else "–" for figure in FIGURES)
            lines.append(f"| *paper ({method.paper_model})* | {figures} | – | – |")
    return lines


def workflow_table(rows: dict[str, Any]) -> list[str]:
    """The same images in memory and through the workflow."""
    lines = [
        "## monuseg through the workflow",
        "",
        "Written as TIFFs with their pixel size, then `snakemake` up to `stitch`; *agreement* scores its instances "
        "against those found in memory (1 = the same).",
        "",
        "| method | path | " + " | ".join(FIGURES.values()) + " | agreement: pixel Dice | F1 at 0.5 | PQ |",
        "| --- | --- |" + " --- |" * (len(FIGURES) + 3),
    ]
    for name, row in rows.items():
        through = row["workflow"]
        for path, cell, agreement in (
            ("workflow", through, [f"{value:.3f}" for value in through["agreement"].values()]),
            ("memory", row["parts"][through["part"]], ["", "", ""]),
        ):
            figures = " | ".join(with_interval(cell["figures"].get(figure, [None])) for figure in FIGURES)
            lines.append(f"| {name} | {path} | {figures} | {' | '.join(agreement)} |")
    return lines


def with_interval(figure: list[float | None]) -> str:
    if figure[0] is None:
        return "–"
    value, low, high = figure
    return f"{value:.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})")


if __name__ == "__main__":
    logging.getLogger("gigaseg.metrics").setLevel(logging.ERROR)  # parts of a set leave predictions over
    main()
