"""SAC with n positive and n negative points, by both rules: ``python benchmarks/sac_ablation.py --data DATA …``.

Trains each setting (n, rule, seed) from the same start and measures it on the images that validate, which is Table 5 of
the paper with n = 0 and the spread over seeds. With ``--evaluate CHECKPOINT`` nothing is trained: one checkpoint is
measured with every n and rule. A setting that is finished is kept in the work folder and not trained again, one that
was interrupted goes on. Options of the loop and of SAC are those of `gigaseg train sac`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from machine import processor
from sac_ablation_page import page

from gigaseg.devices import choose_device
from gigaseg.errors import ConfigError, UserError, one_line
from gigaseg.files import digest, sha256_file, write_json
from gigaseg.options import add_options, from_options
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.train.config import LoopConfig
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.splits import PARTS

HERE = Path(__file__).parent
FORMAT = "gigaseg/sac-ablation/1"

POINTS = (0, 1, 3, 8, 16, 64, 256)
RULES = ("centroid", "random")

VARIED = ("pairs", "rule", "start", "colour")
"""What of `SacTraining` has no option of its own here."""

UNIMPORTANT = (
    *("seed", "device", "threads", "workers", "log_every", "save_every", "validate_every"),
    *("patience", "patience_after"),
)
"""What of `LoopConfig` may differ between settings of one table."""


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(argv)
    try:
        run(args, shlex.join(["python", "benchmarks/sac_ablation.py", *argv]))
    except UserError as error:
        parser().error(one_line(error))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of the data set")
    found.add_argument("--layout", default="plain", help="as gigaseg train (default: plain)")
    found.add_argument("--split", default="own", help="as gigaseg train; its random splits are those of --split-seed")
    found.add_argument("--split-seed", type=int, default=0, help="seed of a random split (default: 0)")
    found.add_argument("--fold", type=int, help="with a file of folds, the one that validates")
    found.add_argument(
        "--part", choices=(*PARTS, "all"), default="val", help="images that are measured; all: of --data (default: val)"
    )
    found.add_argument("--sam", help="SAM checkpoint by name or file (default: the one that ships)")
    found.add_argument(
        "--start",
        help="checkpoint of gigaseg train sac, of the same sizes, from which every setting starts (default: SAM alone)",
    )
    found.add_argument("--evaluate", metavar="CHECKPOINT", help="train nothing, measure this one, by name or file")
    found.add_argument("--points", type=int, nargs="+", default=list(POINTS), metavar="N", help=f"default: {POINTS}")
    found.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="default: both")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    found.add_argument("--out", type=Path, default=HERE / "work" / "sac_ablation", help="work folder")
    found.add_argument(
        "--page", type=Path, default=HERE / "results" / "sac_ablation.md", help="page, with a JSON file beside it"
    )
    add_options(found.add_argument_group("loop"), LoopConfig, _names(LoopConfig, ("seed",)))
    add_options(found.add_argument_group("SAC"), SacTraining, _names(SacTraining, VARIED))
    return found


def _names(cls: type, without: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in cls.__dataclass_fields__ if name not in without)


def run(args: argparse.Namespace, command: str) -> None:
    """Measure all settings of one mode; the page is written after each, the other mode's section stays."""
    from gigaseg.train.data import load
    from gigaseg.train.layouts import read_layout
    from gigaseg.train.splits import split

    loop, training = from_options(LoopConfig, args), from_options(SacTraining, args)
    entries = read_layout(args.layout, args.data)
    if args.part == "all" and args.evaluate is None:
        raise ConfigError("--part is all, accepted with --evaluate: images that train cannot be measured as well")
    if args.part == "all":
        parts = {"all": entries}
    else:
        parts = split(entries, args.split, fold=args.fold, seed=args.split_seed, needed=args.part)
    measuring = load(parts[args.part], workers=2)
    data = {
        "data": args.data.name, "layout": args.layout, "split": Path(args.split).name, "fold": args.fold,
        "split_seed": args.split_seed, "part": args.part, "images": len(measuring),
        "measured": digest([sample.name for sample in measuring]),
    }  # fmt: skip
    if args.evaluate is not None:
        about, results = evaluated(args, loop, data, measuring)
        mode = "evaluation"
    else:
        about, results = trained(args, loop, training, data, load(parts["train"], workers=2), measuring)
        mode = "training"
    path = args.page.with_suffix(".json")
    kept = read_kept(path)
    rows = kept[mode]["rows"] if mode in kept and kept[mode]["about"] == about else {}
    for name, result in results:
        rows[name] = result
        kept[mode] = {"about": about, "command": command, "rows": rows}
        write_json(path, {"format": FORMAT, **kept})
        args.page.parent.mkdir(parents=True, exist_ok=True)
        args.page.write_text(page(kept), encoding="utf-8")
        print(f"{mode}, {name}: done", file=sys.stderr)
    print(page(kept))


def read_kept(path: Path) -> dict[str, Any]:
    """Sections of earlier runs."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k != "format"} if content.get("format") == FORMAT else {}


def settings(points: Sequence[int], rules: Sequence[str]) -> list[tuple[int, str]]:
    """Number of pairs and rule; without points there is no rule."""
    return [(0, "")] * (0 in points) + [(n, rule) for n in points if n for rule in rules]


def named(n: int, rule: str) -> str:
    return f"{n} {rule}".strip()


def trained(
    args: argparse.Namespace,
    loop: LoopConfig,
    training: SacTraining,
    data: Mapping[str, Any],
    samples: Sequence[Any],
    measuring: Sequence[Any],
) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """Train and measure every setting that has no result in the work folder yet."""
    from gigaseg.sam.backend import DEFAULT_CHECKPOINT

    if not samples:
        raise ConfigError(f"--split {args.split} leaves no image to train on")
    training = replace(training, start=args.start)
    about = {
        **data,
        "sam": _file(args.sam or DEFAULT_CHECKPOINT),
        "start": _file(args.start) if args.start else None,
        "loop": {k: v for k, v in asdict(loop).items() if k not in UNIMPORTANT},
        "training": {k: v for k, v in asdict(training).items() if k not in ("pairs", "rule", "start")},
        "trained": digest([sample.name for sample in samples]),
        "trained_images": len(samples),
    }
    # as JSON has it, so that what is kept compares equal
    about = json.loads(json.dumps(about))
    work = args.out / digest(about)[:12]

    def results() -> Iterator[tuple[str, dict[str, Any]]]:
        # seed by seed, so that what is there when time runs out can be compared
        for seed in args.seeds:
            for n, rule in settings(args.points, args.rules):
                setting = replace(training, pairs=n, rule=rule or RULES[0])
                name = f"{named(n, rule)} seed {seed}"
                folder = work / name.replace(" ", "-")
                yield name, _train_one(folder, setting, replace(loop, seed=seed), args.sam, samples, measuring)

    return about, results()


def _file(checkpoint: str) -> dict[str, str]:
    path = checkpoint_path(checkpoint)
    return {"name": path.name, "sha256": sha256_file(path)}


def _train_one(
    folder: Path,
    training: SacTraining,
    loop: LoopConfig,
    sam: str | None,
    samples: Sequence[Any],
    measuring: Sequence[Any],
) -> dict[str, Any]:
    """Result of a setting; it is trained, or trained to its end, when there is none."""
    from gigaseg.train.loop import run as train
    from gigaseg.train.sac.method import SacMethod

    path = folder / "result.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    # without images to validate the last weights are kept: all settings have the same budget
    progress = train(SacMethod(training, sam), loop, samples, [], folder)
    best = folder / "best.safetensors"
    result = {
        **measured(best, [(training.pairs, training.rule)], loop, measuring)[0],
        "seconds": progress.seconds / progress.step,
        "steps": progress.step,
        "sha256": sha256_file(best),
        "machine": machine(loop.device),
    }
    write_json(path, result)
    (folder / "state.pt").unlink()  # large, and of no more use
    return result


def evaluated(
    args: argparse.Namespace, loop: LoopConfig, data: Mapping[str, Any], measuring: Sequence[Any]
) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """Measure one checkpoint with every setting, and without points, with which the others are compared."""
    wanted = settings(sorted({0, *args.points}), args.rules)
    about = json.loads(json.dumps({**data, "checkpoint": _file(args.evaluate), "precision": loop.precision}))

    def results() -> Iterator[tuple[str, dict[str, Any]]]:
        found = measured(checkpoint_path(args.evaluate), wanted, loop, measuring)
        for (n, rule), result in zip(wanted, found, strict=True):
            yield named(n, rule), {**result, "machine": machine(loop.device)}

    return about, results()


def measured(
    checkpoint: Path, wanted: Sequence[tuple[int, str]], loop: LoopConfig, samples: Sequence[Any]
) -> list[dict[str, Any]]:
    """Pixels of each image by a checkpoint with each setting, seen as the training's validation sees it.

    Returns
    -------
    ``counts``: true positive, false positive, false negative pixels of each image.
    """
    import torch

    from gigaseg.metrics.pixel import PixelCounts
    from gigaseg.sam.backend import Backend
    from gigaseg.segmenters.sac.checkpoint import open_sac
    from gigaseg.segmenters.sac.segmenter import Sac
    from gigaseg.train.sac.evaluate import seen_as
    from gigaseg.train.whole import look

    if loop.threads:
        torch.set_num_threads(loop.threads)
    device = choose_device(loop.device)
    loaded = open_sac(checkpoint, device, precision=loop.precision)
    side = seen_as(loaded.card.get("training", {}))[1]
    whole = {"instances": "components", "min_diameter": 0.0, "min_contrast": 0.0}  # the mask as it is
    remembering = Remembering(loaded.backend)
    loaded = replace(loaded, backend=cast(Backend, remembering))
    segmenters = [Sac.of(loaded, {**whole, "pairs": n, "rule": rule or "trained"}) for n, rule in wanted]
    results: list[dict[str, Any]] = [{"counts": []} for _ in wanted]
    for sample in samples:
        remembering.found.clear()
        for segmenter, result in zip(segmenters, results, strict=True):
            diameter = None if side else segmenter.card.object_diameter
            found = look(segmenter, sample, diameter, side, device=device)
            counts = PixelCounts.from_masks(sample.labels, found)
            result["counts"].append([counts.tp, counts.fp, counts.fn])
    return results


class Remembering:
    """A back end that encodes the same tiles once: most of the time of a setting, which only differs in its points.

    Attributes
    ----------
    found : what was encoded, by the tiles' content.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.found: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, images: Any, **options: Any) -> Any:
        """As the back end's own."""
        key = hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()
        if key not in self.found:
            self.found[key] = self._backend.encode(images, **options)
        return self.found[key]


def machine(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if choose_device(device).startswith("cuda") else processor()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
