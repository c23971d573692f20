"""What the ablations of methods share: rows trained one after the other, kept, measured and written as a page.

An ablation is a table (`Ablation`) and `main`. Each row is the method with some of its options changed, trained from
each seed with the same budget and measured on the images that validate. A row that is finished is kept in the work
folder and not trained again, one that was interrupted goes on. Options of the loop and of the method are those of
`gigaseg train`.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor

from gigaseg.devices import choose_device
from gigaseg.errors import ConfigError, UserError, one_line, unknown
from gigaseg.files import digest, sha256_file, write_json
from gigaseg.metrics import bootstrap
from gigaseg.options import add_options, from_options
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.train.config import LoopConfig

HERE = Path(__file__).parent

DRAWS = 2000
"""Bootstrap draws of each interval."""

_UNIMPORTANT = (
    *("seed", "device", "threads", "workers", "log_every", "save_every", "validate_every"),
    *("patience", "patience_after"),
)
"""What of `LoopConfig` may differ between rows of one table."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ablation:
    """One method's table.

    Attributes
    ----------
    name : of the method in names of files.
    method : as people write it.
    title : of the page.
    about : what `--help` tells.
    whole : the row that the others are compared with.
    rows : of the paper's table, by their names: options of the training that they change.
    more : rows that `--more` adds.
    paper : what the paper has for a row, as `paper_figures` names it.
    paper_words : where it has that, and from what.
    figures : of an image, a share 0..1: headings of the table's columns, left out where no image has one.
    compared : those with a column of differences to the whole method; the last one is also given seed by seed.
    training : dataclass of the method's options.
    left : its keys that have no option here.
    apart : its keys that do not tell rows of one table from others, or that `facts` tells in another way.
    build : the method of a training and a SAM.
    measure : `figures` of each sample, NaN where one is undefined: of a checkpoint, its method, the device, the
        precision and the samples.
    facts : what else of the training decides whether kept rows are of this table.
    notes : paragraphs below the table, of what `main` knows about the run and its rows.
    """

    name: str
    method: str
    title: str
    about: str
    whole: str
    rows: Mapping[str, Mapping[str, Any]]
    more: Mapping[str, Mapping[str, Any]]
    paper: Mapping[str, str]
    paper_figures: str
    paper_words: str
    figures: Sequence[str]
    compared: Sequence[str]
    training: type
    left: Sequence[str]
    apart: Sequence[str]
    build: Callable[[Any, str | None], Any]
    measure: Callable[[Path, Any, str, str, Sequence[Any]], list[list[float]]]
    facts: Callable[[Any], dict[str, Any]] = lambda training: {}
    notes: Callable[[Mapping[str, Any], Mapping[str, Row]], Sequence[str]] = lambda about, rows: ()

    @property
    def format(self) -> str:
        """Of the JSON file beside the page."""
        return f"gigaseg/{self.name}-ablation/1"


def main(ablation: Ablation, argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser(ablation).parse_args(argv)
    try:
        run(ablation, args, shlex.join(["python", f"benchmarks/{ablation.name}_ablation.py", *argv]))
    except UserError as error:
        parser(ablation).error(one_line(error))


def parser(ablation: Ablation) -> argparse.ArgumentParser:
    name = f"{ablation.name}_ablation"
    found = argparse.ArgumentParser(description=ablation.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of the data set")
    found.add_argument("--layout", default="plain", help="as gigaseg train (default: plain)")
    found.add_argument("--split", default="own", help="as gigaseg train, with seed 0 (default: own)")
    found.add_argument("--groups", nargs="+", help="images of these groups alone, such as purple (default: all)")
    found.add_argument("--sam", help="SAM checkpoint by name or file (default: the one that ships)")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    found.add_argument("--more", action="store_true", help="rows of options that paper and code leave open too")
    found.add_argument("--rows", nargs="+", metavar="ROW", help="these rows alone, by their names (default: all)")
    found.add_argument("--out", type=Path, default=HERE / "work" / name, help="work folder")
    found.add_argument(
        "--page", type=Path, default=HERE / "results" / f"{name}.md", help="page, with a JSON file beside it"
    )
    add_options(found.add_argument_group("loop"), LoopConfig, _names(LoopConfig, ("seed",)))
    add_options(found.add_argument_group(ablation.method), ablation.training, _names(ablation.training, ablation.left))
    return found


def _names(cls: Any, without: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in cls.__dataclass_fields__ if name not in without)


def chosen(ablation: Ablation, names: Sequence[str] | None, more: bool) -> dict[str, Mapping[str, Any]]:
    """Rows by their names, in the table's order; raises ConfigError where there is none of a name."""
    every = {**ablation.rows, **ablation.more}
    for name in names or ():
        if name not in every:
            raise ConfigError(unknown("row", name, every))
    if names:
        return {name: changes for name, changes in every.items() if name in names}
    return every if more else dict(ablation.rows)


def settings(ablation: Ablation, loop: LoopConfig, training: Any) -> dict[str, Any]:
    """What of the options makes a table another one, as JSON has it."""
    found = {
        "loop": {k: v for k, v in asdict(loop).items() if k not in _UNIMPORTANT},
        "training": {k: v for k, v in asdict(training).items() if k not in (*ablation.left, *ablation.apart)},
        **ablation.facts(training),
    }
    return dict(json.loads(json.dumps(found)))


def run(ablation: Ablation, args: argparse.Namespace, command: str) -> None:
    """Train and measure all rows, seed by seed; the page is written after each."""
    from gigaseg.sam.backend import DEFAULT_CHECKPOINT
    from gigaseg.train.data import load
    from gigaseg.train.layouts import read_layout
    from gigaseg.train.splits import split

    loop, training = from_options(LoopConfig, args), from_options(ablation.training, args)
    table = chosen(ablation, args.rows, args.more)
    options = settings(ablation, loop, training)
    entries = [e for e in read_layout(args.layout, args.data) if not args.groups or e.group in args.groups]
    if not entries:
        raise ConfigError(f"--groups is {' '.join(args.groups)}, but {args.data} has no image of it")
    parts = split(entries, args.split, seed=0)
    if not parts["train"] or not parts["val"]:
        raise ConfigError(f"--split {args.split} leaves no image to train on or to measure")
    sam = checkpoint_path(args.sam or DEFAULT_CHECKPOINT)
    samples, measuring = load(parts["train"], workers=2), load(parts["val"], workers=2)
    about = {
        "data": args.data.name, "layout": args.layout, "split": Path(args.split).name,
        "groups": args.groups,
        "images": [len(samples), len(measuring)], "names": digest([s.name for s in [*samples, *measuring]]),
        "sam": {"name": sam.name, "sha256": sha256_file(sam)},
        **options,
    }  # fmt: skip
    work = args.out / digest(about)[:12]
    path = args.page.with_suffix(".json")
    rows = read_kept(ablation, path, about)
    for seed in args.seeds:
        for name, changes in table.items():
            folder = work / f"{digest(name)[:8]}-{seed}"
            rows[f"{name} seed {seed}"] = _row(
                ablation, folder, replace(training, **changes), replace(loop, seed=seed), args.sam, samples, measuring
            )
            args.page.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"format": ablation.format, "about": about, "command": command, "rows": rows})
            args.page.write_text(page(ablation, about, command, rows), encoding="utf-8")
            print(f"{name}, seed {seed}: done", file=sys.stderr)
    print(page(ablation, about, command, rows))


def read_kept(ablation: Ablation, path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of earlier runs of the same kind."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    same = content.get("format") == ablation.format and content["about"] == about
    return dict(content["rows"]) if same else {}


def _row(
    ablation: Ablation,
    folder: Path,
    training: Any,
    loop: LoopConfig,
    sam: str | None,
    samples: Sequence[Any],
    measuring: Sequence[Any],
) -> dict[str, Any]:
    """Figures of each image; the row is trained, or trained to its end, when there is none."""
    import torch

    from gigaseg.train.loop import run as train

    path = folder / "result.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    method = ablation.build(training, sam)
    # without images to validate the last weights are kept: all rows have the same budget
    progress = train(method, loop, samples, [], folder)
    best = folder / "best.safetensors"
    device = choose_device(loop.device)
    figures = ablation.measure(best, method, device, loop.precision, measuring)
    result = {
        "images": [[None if math.isnan(value) else value for value in image] for image in figures],
        "trained": sum(p.numel() for p in method.build().parameters() if p.requires_grad),
        "steps": progress.step,
        "seconds": progress.seconds,
        "sha256": sha256_file(best),
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
    }
    write_json(path, result)
    (folder / "state.pt").unlink()  # large, and of no more use
    return result


def page(ablation: Ablation, about: Mapping[str, Any], command: str, rows: Mapping[str, Row]) -> str:
    """Markdown of the rows that there are."""
    by_row: dict[str, list[Row]] = {}
    for key, row in rows.items():
        by_row.setdefault(key.rpartition(" seed ")[0], []).append(row)
    means = {name: _means(found) for name, found in by_row.items()}
    known = [~np.isnan(found).all(axis=0) for found in means.values()]
    shown = [k for k in range(len(ablation.figures)) if any(some[k] for some in known)]
    compared = [k for k in shown if ablation.figures[k] in ablation.compared]
    steps = sorted({row["steps"] for row in rows.values()})
    change = f"{ablation.figures[compared[0]]} less that" if len(compared) == 1 else "a figure less that"
    heads = ["trained", "seeds"]
    for k in shown:
        heads += [ablation.figures[k], *([f"Δ {ablation.figures[k]}"] if k in compared else [])]
    lines = [
        f"# {ablation.title}",
        "",
        f"`{command}`",
        "",
        f"{about['sam']['name']} on {about['data']}{_of(about['groups'])}: {about['images'][0]} images train, "
        f"{about['images'][1]} are "
        "measured; "
        f"{' or '.join(map(str, steps))} steps of {about['loop']['batch'] * about['loop']['accumulate']} crops; "
        f"{', '.join(sorted({row['machine'] for row in rows.values()}))}. In %, means over images and seeds; intervals "
        f"are 95 % bootstraps over images; Δ is {change} of the whole method, paired over images. *Paper*: "
        f"{ablation.paper_words}.",
        "",
        f"| | {' | '.join([*heads, f'paper: {ablation.paper_figures}'])} |",
        "|" + "---|" * (len(heads) + 2),
    ]
    for name in (*ablation.rows, *ablation.more):
        if name not in by_row:
            continue
        cells = [name, f"{by_row[name][0]['trained']:,}", str(len(by_row[name]))]
        for k in shown:
            cells.append(_with_interval(means[name][:, k]))
            if k in compared:
                lone = name == ablation.whole or ablation.whole not in means
                cells.append("" if lone else _with_interval(means[name][:, k] - means[ablation.whole][:, k], "+.1f"))
        lines.append(f"| {' | '.join([*cells, ablation.paper.get(name, '')])} |")
    if compared and any(len(found) > 1 for found in by_row.values()):
        seeds = "; ".join(f"{name} {_by_seed(found, compared[-1])}" for name, found in by_row.items())
        lines += ["", f"{ablation.figures[compared[-1]]} by seed: {seeds}."]
    for note in ablation.notes(about, rows):
        lines += ["", note]
    return "\n".join([*lines, ""])


def _of(groups: Sequence[str] | None) -> str:
    return f" ({', '.join(groups)})" if groups else ""


def _means(rows: Sequence[Row]) -> np.ndarray:
    """(images, figures) in %, means over seeds."""
    return np.mean([np.array(row["images"], float) for row in rows], axis=0) * 100


def _by_seed(rows: Sequence[Row], figure: int) -> str:
    return ", ".join(f"{100 * np.nanmean(np.array(row['images'], float)[:, figure]):.1f}" for row in rows)


def _with_interval(values: np.ndarray, form: str = ".1f") -> str:
    if np.isnan(values).all():
        return ""
    low, high = bootstrap.interval(bootstrap.mean_statistic(values), bootstrap.weights(len(values), DRAWS))
    return f"{np.nanmean(values):{form}} ({low:{form}} to {high:{form}})"
