"""DenseSAM's Table 3 on data of your own: ``python benchmarks/densesam_ablation.py --data DATA …``.

Trains SAM's mask decoder alone, then DenseSAM whole and with one part after the other taken away (local branch, global
branch, boundary head), each from the same seeds, and measures them on the images that validate: object Dice, AJI and PQ
with intervals over images, and their difference to the whole method on the same images. More rows, `--more`, are of
options that paper and code leave open. A row that is finished is kept in the work folder and not trained again, one
that was interrupted goes on. Options of the loop and of DenseSAM are those of `gigaseg train densesam`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor

from gigaseg.devices import choose_device
from gigaseg.errors import ConfigError, UserError, one_line
from gigaseg.files import digest, sha256_file, write_json
from gigaseg.metrics import bootstrap
from gigaseg.options import add_options, from_options
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.train.config import LoopConfig
from gigaseg.train.densesam.config import DenseSamTraining

HERE = Path(__file__).parent
FORMAT = "gigaseg/densesam-ablation/1"

_BARE = {"local_branch": False, "global_branch": False}

ROWS: dict[str, dict[str, Any]] = {
    "SAM decoder retrained": {
        **_BARE,
        "heads": 1,
        "trained": "decoder",
        "image_token_update": True,
        "sam_scale": 1.0,
    },
    "DenseSAM": {},
    "− local": {"local_branch": False},
    "− global": _BARE,
    "− dual head": {**_BARE, "heads": 1},
}
"""Of Table 3; parts are taken away one after the other."""

MORE: dict[str, dict[str, Any]] = {
    "DenseSAM, image tokens updated": {"image_token_update": True},
    "DenseSAM, injected at the end": {"site": "end"},
    "DenseSAM, decoder trained too": {"trained": "decoder", "sam_scale": 1.0},
}
"""Options by which paper and code differ."""

PAPER = {
    "SAM decoder retrained": (74.25, 57.56, 39.30), "DenseSAM": (84.01, 71.62, 66.12), "− local": (80.77, 66.84, 60.46),
    "− global": (74.37, 59.79, 55.75), "− dual head": (69.60, 52.43, 23.67),
}  # fmt: skip
"""Table 3, CPM17, ViT-H: Dice, AJI, PQ in %."""

FIGURES = ("object_dice", "aji", "pq")

DRAWS = 2000
"""Bootstrap draws of each interval."""

_LEFT = (
    *("heads", "local_branch", "global_branch", "trained", "image_token_update", "site", "sam_scale", "start"),
    "colour",
)
"""What of `DenseSamTraining` has no option of its own here."""

_UNIMPORTANT = (
    *("seed", "device", "threads", "workers", "log_every", "save_every", "validate_every"),
    *("patience", "patience_after"),
)


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(argv)
    try:
        run(args, shlex.join(["python", "benchmarks/densesam_ablation.py", *argv]))
    except UserError as error:
        parser().error(one_line(error))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of the data set")
    found.add_argument("--layout", default="plain", help="as gigaseg train (default: plain)")
    found.add_argument("--split", default="own", help="as gigaseg train, with seed 0 (default: own)")
    found.add_argument("--groups", nargs="+", help="images of these groups alone, such as purple (default: all)")
    found.add_argument("--sam", help="SAM checkpoint by name or file (default: the one that ships)")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    found.add_argument("--more", action="store_true", help="rows of options that paper and code leave open too")
    found.add_argument("--out", type=Path, default=HERE / "work" / "densesam_ablation", help="work folder")
    found.add_argument(
        "--page", type=Path, default=HERE / "results" / "densesam_ablation.md", help="page, with a JSON file beside it"
    )
    add_options(found.add_argument_group("loop"), LoopConfig, _names(LoopConfig, ("seed",)))
    add_options(found.add_argument_group("DenseSAM"), DenseSamTraining, _names(DenseSamTraining, _LEFT))
    return found


def _names(cls: type, without: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in cls.__dataclass_fields__ if name not in without)


def run(args: argparse.Namespace, command: str) -> None:
    """Train and measure all rows, seed by seed; the page is written after each."""
    from gigaseg.sam.backend import DEFAULT_CHECKPOINT
    from gigaseg.train.data import load
    from gigaseg.train.layouts import read_layout
    from gigaseg.train.splits import split

    loop, training = from_options(LoopConfig, args), from_options(DenseSamTraining, args)
    entries = [e for e in read_layout(args.layout, args.data) if not args.groups or e.group in args.groups]
    if not entries:
        raise ConfigError(f"--groups is {' '.join(args.groups)}, but {args.data} has no image of it")
    parts = split(entries, args.split, seed=0)
    if not parts["train"] or not parts["val"]:
        raise ConfigError(f"--split {args.split} leaves no image to train on or to measure")
    samples, measuring = load(parts["train"], workers=2), load(parts["val"], workers=2)
    sam = checkpoint_path(args.sam or DEFAULT_CHECKPOINT)
    about = {
        "data": args.data.name, "layout": args.layout, "split": Path(args.split).name,
        "groups": args.groups,
        "images": [len(samples), len(measuring)], "names": digest([s.name for s in [*samples, *measuring]]),
        "sam": {"name": sam.name, "sha256": sha256_file(sam)},
        "loop": {k: v for k, v in asdict(loop).items() if k not in _UNIMPORTANT},
        "training": {k: v for k, v in asdict(training).items() if k not in (*_LEFT, "cache")},
    }  # fmt: skip
    about = json.loads(json.dumps(about))  # as what is kept, which it is compared with
    work = args.out / digest(about)[:12]
    path = args.page.with_suffix(".json")
    rows = read_kept(path, about)
    for seed in args.seeds:
        for name, changes in {**ROWS, **(MORE if args.more else {})}.items():
            folder = work / f"{digest(name)[:8]}-{seed}"
            rows[f"{name} seed {seed}"] = _row(
                folder, replace(training, **changes), replace(loop, seed=seed), args.sam, samples, measuring
            )
            write_json(path, {"format": FORMAT, "about": about, "command": command, "rows": rows})
            args.page.parent.mkdir(parents=True, exist_ok=True)
            args.page.write_text(page(about, command, rows), encoding="utf-8")
            print(f"{name}, seed {seed}: done", file=sys.stderr)
    print(page(about, command, rows))


def read_kept(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of earlier runs of the same kind."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    same = content.get("format") == FORMAT and content["about"] == about
    return dict(content["rows"]) if same else {}


def _row(
    folder: Path,
    training: DenseSamTraining,
    loop: LoopConfig,
    sam: str | None,
    samples: Sequence[Any],
    measuring: Sequence[Any],
) -> dict[str, Any]:
    """Figures of each image; the row is trained, or trained to its end, when there is none."""
    import torch

    from gigaseg.metrics.score import score_overlap
    from gigaseg.segmenters.densesam.checkpoint import open_densesam
    from gigaseg.segmenters.densesam.segmenter import DenseSam
    from gigaseg.train.densesam.evaluate import seen_as
    from gigaseg.train.densesam.method import DenseSamMethod
    from gigaseg.train.loop import run as train
    from gigaseg.train.whole import overlap

    path = folder / "result.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    method = DenseSamMethod(training, sam)
    # without images to validate the last weights are kept: all rows have the same budget
    progress = train(method, loop, samples, [], folder)
    best = folder / "best.safetensors"
    device = choose_device(loop.device)
    loaded = open_densesam(best, device, precision=loop.precision)
    options, seen = seen_as(loaded.card["training"])
    segmenter = DenseSam.of(loaded, options)
    scores = [score_overlap(overlap(segmenter, sample, device=device, **seen), (0.5,)) for sample in measuring]
    result = {
        "images": [[score[name] for name in FIGURES] for score in scores],
        "trained": sum(p.numel() for p in method.build().parameters() if p.requires_grad),
        "steps": progress.step,
        "seconds": progress.seconds,
        "sha256": sha256_file(best),
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
    }
    write_json(path, result)
    (folder / "state.pt").unlink()  # large, and of no more use
    return result


def page(about: Mapping[str, Any], command: str, rows: Mapping[str, Any]) -> str:
    """Markdown of the rows that there are."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        by_row.setdefault(key.rpartition(" seed ")[0], []).append(row)
    steps = sorted({row["steps"] for row in rows.values()})
    lines = [
        "# DenseSAM: what its parts are worth",
        "",
        f"`{command}`",
        "",
        f"{about['sam']['name']} on {about['data']}{_of(about['groups'])}: {about['images'][0]} images train, "
        f"{about['images'][1]} are "
        "measured; "
        f"{' or '.join(map(str, steps))} steps of {about['loop']['batch'] * about['loop']['accumulate']} crops; "
        f"{', '.join(sorted({row['machine'] for row in rows.values()}))}. In %, means over images and seeds; intervals "
        "are 95 % bootstraps over images; Δ is AJI less that of the whole method, paired over images. *Paper*: Table 3 "
        "(CPM17, ViT-H, one seed).",
        "",
        "| | trained | seeds | object Dice | AJI | Δ AJI | PQ | paper: Dice / AJI / PQ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = _means(by_row["DenseSAM"]) if "DenseSAM" in by_row else None
    for name in (*ROWS, *MORE):
        if name not in by_row:
            continue
        found = _means(by_row[name])
        cells = [_with_interval(found[:, k]) for k in range(len(FIGURES))]
        change = "" if whole is None or name == "DenseSAM" else _with_interval(found[:, 1] - whole[:, 1], "+.1f")
        paper = " / ".join(f"{value:.2f}" for value in PAPER[name]) if name in PAPER else ""
        trained = f"{by_row[name][0]['trained']:,}"
        lines.append(
            f"| {name} | {trained} | {len(by_row[name])} | {cells[0]} | {cells[1]} | {change} | {cells[2]} | {paper} |"
        )
    if any(len(found) > 1 for found in by_row.values()):
        lines += ["", "AJI by seed: " + "; ".join(f"{name} {_by_seed(found)}" for name, found in by_row.items()) + "."]
    return "\n".join([*lines, ""])


def _of(groups: Sequence[str] | None) -> str:
    return f" ({', '.join(groups)})" if groups else ""


def _means(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(images, figures) in %, means over seeds."""
    return np.mean([row["images"] for row in rows], axis=0) * 100


def _by_seed(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{100 * np.nanmean([image[1] for image in row['images']]):.1f}" for row in rows)


def _with_interval(values: np.ndarray, form: str = ".1f") -> str:
    low, high = bootstrap.interval(bootstrap.mean_statistic(values), bootstrap.weights(len(values), DRAWS))
    return f"{np.nanmean(values):{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
