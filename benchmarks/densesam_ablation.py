"""DenseSAM's Table 3 on data of your own: ``python benchmarks/densesam_ablation.py --data DATA …``.

Trains SAM's mask decoder alone, then DenseSAM whole and with one part after the other taken away (local branch, global
branch, boundary head), each from the same seeds, and measures them on the images that validate: object Dice, AJI and PQ
with intervals over images, and their difference to the whole method on the same images. More rows, `--more`, are of
options that paper and code leave open. A row that is finished is kept in the work folder and not trained again, one
that was interrupted goes on. Options of the loop and of DenseSAM are those of `gigaseg train densesam`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ablation

from gigaseg.train.densesam.config import DenseSamTraining

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

FIGURES = {"object_dice": "object Dice", "aji": "AJI", "pq": "PQ"}

_LEFT = (
    *("heads", "local_branch", "global_branch", "trained", "image_token_update", "site", "sam_scale", "start"),
    "colour",
)
"""What of `DenseSamTraining` has no option of its own here."""


def build(training: DenseSamTraining, sam: str | None) -> Any:
    from gigaseg.train.densesam.method import DenseSamMethod

    return DenseSamMethod(training, sam)


def measure(checkpoint: Path, method: Any, device: str, precision: str, samples: Sequence[Any]) -> list[list[float]]:
    """`FIGURES` of each sample."""
    from gigaseg.metrics.score import score_overlap
    from gigaseg.segmenters.densesam.checkpoint import open_densesam
    from gigaseg.segmenters.densesam.segmenter import DenseSam
    from gigaseg.train.densesam.evaluate import seen_as
    from gigaseg.train.whole import overlap

    loaded = open_densesam(checkpoint, device, precision=precision)
    options, seen = seen_as(loaded.card["training"])
    segmenter = DenseSam.of(loaded, options)
    scores = [score_overlap(overlap(segmenter, sample, device=device, **seen), (0.5,)) for sample in samples]
    return [[score[name] for name in FIGURES] for score in scores]


ABLATION = ablation.Ablation(
    name="densesam",
    method="DenseSAM",
    title="DenseSAM: what its parts are worth",
    about=__doc__,
    whole="DenseSAM",
    rows=ROWS,
    more=MORE,
    paper={name: " / ".join(f"{value:.2f}" for value in values) for name, values in PAPER.items()},
    paper_figures="Dice / AJI / PQ",
    paper_words="Table 3 (CPM17, ViT-H, one seed)",
    figures=tuple(FIGURES.values()),
    compared=("AJI",),
    training=DenseSamTraining,
    left=_LEFT,
    apart=("cache",),
    build=build,
    measure=measure,
)


def main(argv: Sequence[str] | None = None) -> None:
    ablation.main(ABLATION, argv)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
