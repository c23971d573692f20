"""CFR-SAM's Table 7 on data of your own: ``python benchmarks/cfrsam_ablation.py --data DATA --points POINTS …``.

Trains SAM's mask decoder alone, then CFR-SAM's second stage whole and with one part taken away or put in another's
place (adapters, fusion of levels, refinement and its parts, loss of boundaries), each from the same seeds, and measures
them on the images that validate: IoU of masks from one point in each object's middle, and, with `--points`, object
Dice, AJI and PQ of whole images, which the same points prompt in all rows. Each with intervals over images, and IoU
and AJI with the difference to the whole method on the same images. More rows, `--more`, are of other ranks and numbers
of prompted objects, as in the paper, and of our own variants. A row that is finished is kept in the work folder and not
trained again, one that was interrupted goes on. Options of the loop and of CFR-SAM are those of `gigaseg train cfrsam`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ablation
import numpy as np

from gigaseg.files import sha256_file
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.train.cfrsam.config import CfrSamTraining

ROWS: dict[str, dict[str, Any]] = {
    "head only": {"kernels": "none", "fusion": "last", "refinement": "none"},
    "CFR-SAM": {},
    "w/o MALA": {"kernels": "none"},
    "static kernels": {"kernels": "static"},
    "w/o HMFM": {"fusion": "last"},
    "add": {"fusion": "add"},
    "concat": {"fusion": "concat"},
    "average": {"fusion": "average"},
    "w/o BGMR": {"refinement": "none"},
    "MLP for BGMR": {"refinement": "mlp"},
    "w/o MCBE": {"enhancement": False},
    "w/o BGFF": {"guidance": False},
    "w/o boundary loss": {"boundary": 0.0},
}
"""Of Table 7: SAM's decoder alone, the whole, and what is taken away or put in the place of a part."""

MORE: dict[str, dict[str, Any]] = {
    **{f"rank {n}": {"rank": n} for n in (16, 32, 128)},
    **{f"{n} objects": {"objects": n} for n in (20, 30, 35)},
    "gated fusion (ours)": {"fusion": "gated"},
    "added to the coarse mask (ours)": {"base": "coarse"},
}
"""Ranks and numbers of prompted objects that the paper compares, and options that it does not have."""

PAPER = {
    "head only": (4.1, 0.4848, 0.6645), "CFR-SAM": (8.3, 0.5046, 0.6912), "w/o MALA": (4.6, 0.4980, 0.6824),
    "static kernels": (7.3, 0.5033, 0.6895), "w/o HMFM": (8.0, 0.5037, 0.6899), "add": (8.0, 0.5039, 0.6898),
    "concat": (8.3, 0.5040, 0.6906), "average": (8.0, 0.5041, 0.6902), "w/o BGMR": (8.0, 0.4990, 0.6829),
    "MLP for BGMR": (8.3, 0.5023, 0.6886), "w/o MCBE": (8.3, 0.5037, 0.6900), "w/o BGFF": (8.3, 0.5032, 0.6890),
    "w/o boundary loss": (8.3, 0.5033, 0.6891), "rank 16": (5.6, 0.5033, 0.6892), "rank 32": (6.5, 0.5031, 0.6889),
    "rank 128": (12.1, 0.5043, 0.6911), "20 objects": (8.3, 0.5043, 0.6908), "30 objects": (8.3, 0.5046, 0.6910),
    "35 objects": (8.3, 0.5045, 0.6906),
}  # fmt: skip
"""Millions of trained parameters, mPQ, bPQ on PanNuke with ViT-B, rank 64 and 25 objects."""

FIGURES = {"iou": "IoU from middles", "object_dice": "object Dice", "aji": "AJI", "pq": "PQ"}

MEASURED = 25
"""Objects of an image, at most, of which the IoU from middles is."""

_LEFT = (
    *("kernels", "fusion", "refinement", "enhancement", "guidance", "base"),
    *("start", "classes", "validated", "colour"),
)
"""What of `CfrSamTraining` has no option of its own here."""


def build(training: CfrSamTraining, sam: str | None) -> Any:
    from gigaseg.train.cfrsam.method import CfrSamMethod

    return CfrSamMethod(training, sam)


def measure(checkpoint: Path, method: Any, device: str, precision: str, samples: Sequence[Any]) -> list[list[float]]:
    """`FIGURES` of each sample; all but the first are NaN without a point learner."""
    from gigaseg.metrics.score import score_overlap
    from gigaseg.segmenters.cfrsam.checkpoint import open_adapted, open_cfrsam
    from gigaseg.segmenters.cfrsam.segmenter import CfrSam
    from gigaseg.train.cfrsam.evaluate import sample_ious
    from gigaseg.train.whole import overlap

    segmenter = None
    if method.training.points:
        segmenter = CfrSam.of(open_cfrsam(checkpoint, device, precision=precision))
    adapted = segmenter.loaded.adapted if segmenter else open_adapted(checkpoint, device, precision=precision)
    same = replace(method.training, objects=MEASURED)  # the same objects for all rows
    figures = []
    for sample in samples:
        ious = [fine for fine, _ in sample_ious(adapted, sample, same)]
        row = {"iou": float(np.mean(ious))} if ious else {}
        if segmenter:
            row |= score_overlap(overlap(segmenter, sample, None, device), (0.5,))
        figures.append([row.get(name, float("nan")) for name in FIGURES])
    return figures


def facts(training: CfrSamTraining) -> dict[str, Any]:
    """Which point learner it is."""
    if training.points is None:
        return {"points": None}
    path = checkpoint_path(training.points)
    return {"points": {"name": path.name, "sha256": sha256_file(path)}}


def notes(about: Mapping[str, Any], rows: Mapping[str, ablation.Row]) -> list[str]:
    """What the figures are of, and what they do not tell."""
    names = {key.rpartition(" seed ")[0] for key in rows}
    seeds = {key.rpartition(" seed ")[2] for key in rows}
    points = about["points"]
    whole = (
        f"The other figures are of whole images, prompted in all rows by the points of {points['name']} (sha256 "
        f"{points['sha256'][:12]}), which also prompt while training (`--told {about['training']['told']:g}`)."
        if points
        else "There is no point learner (`--points`): whole images are not measured, and points in training are the "
        "objects' middles and random ones."
    )
    found = [
        f"*IoU from middles*: of masks from one point in the middle of each object, at most {MEASURED} objects of a "
        f"crop of {about['training']['crop']} px about the image's middle, means over images. {whole}",
        "*Trained* is without the decoder's three other masks, which get no gradient here; the paper counts them.",
        "Of the paper's table there are no rows for full fine-tuning of SAM (93.7 M trained, mPQ 49.40, bPQ 67.54), "
        "which is no mode of this method's training, and for a larger static adapter, whose size it does not state; "
        "prompts by boxes (48.04, 66.12) are left out too.",
        "The paper's figures are of 200 epochs of PanNuke; its parts are mostly worth 0.1 to 0.9 points of bPQ, and it "
        "states standard deviations of 0.03 to 0.20 points between five runs. Intervals here are over images"
        f"{', of one seed' if len(seeds) == 1 else ''}, and hold nothing of what another seed or a longer training "
        "would change: one of Δ that holds 0 tells no row from the whole method, and one that does not tells it for "
        "this budget and these seeds alone.",
    ]
    if any(name.endswith(" objects") for name in names):
        found.append("Numbers of objects only matter in crops that have more objects than the least of them.")
    return found


ABLATION = ablation.Ablation(
    name="cfrsam",
    method="CFR-SAM",
    title="CFR-SAM: what the parts of its second stage are worth",
    about=__doc__,
    whole="CFR-SAM",
    rows=ROWS,
    more=MORE,
    paper={name: f"{100 * mpq:.2f} / {100 * bpq:.2f} / {m} M" for name, (m, mpq, bpq) in PAPER.items()},
    paper_figures="mPQ / bPQ / trained",
    paper_words="Table 7 and those of rank and objects (PanNuke, ViT-B, one fold)",
    figures=tuple(FIGURES.values()),
    compared=("IoU from middles", "AJI"),
    training=CfrSamTraining,
    left=_LEFT,
    apart=("points",),
    build=build,
    measure=measure,
    facts=facts,
    notes=notes,
)


def main(argv: Sequence[str] | None = None) -> None:
    ablation.main(ABLATION, argv)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
