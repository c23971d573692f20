"""Nuclei of dsb2018 in two classes, small and large, for training methods that tell classes apart on open data.

`python benchmarks/two_classes.py --data dsb2018 --out training/two_classes` writes a folder of the plain layout: links
to images and label images, index.tsv with the split that dsb2018 states, and classes.tsv.

A nucleus is large when its diameter (of the circle of equal area) is more than `--factor` times its image's median.
Training and evaluation scale an image to a median diameter, so with `--smallest 26 --largest 26` the class of a nucleus
is its size in a crop, `--factor` x 26 px, whatever the image. Images are left out

* whose crops of `--crop` px could not be scaled so (they would show too little of the image, see
  `gigaseg.train.crops.random_affine`), or that have too few nuclei for a median;
* where less than `--least` of the nuclei are of one class;
* where more than `--near` of them are within 5 % of the limit, which neither a model nor an annotator can tell.

Classes are those of whole nuclei: one that the border of a crop cuts may look smaller than its class says.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gigaseg.train.data import read_labels
from gigaseg.train.layouts import read_layout, read_tsv

NAMES = ("small", "large")
FEWEST = 10
"""Nuclei of an image, at least."""

DOUBT = 0.05
"""Part of the limit on either side of which a class is in doubt."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder, and print how many nuclei of each class each part has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dsb2018 in the plain layout, with index.tsv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--modality", default="fluorescence", help="of the images, or all (default: fluorescence)")
    parser.add_argument("--factor", type=float, default=1.15, help="of the median diameter (default: 1.15)")
    parser.add_argument("--diameter", type=float, default=26, help="median of a crop, px (default: 26)")
    parser.add_argument("--crop", type=int, default=256, help="side of a crop, px (default: 256)")
    parser.add_argument("--least", type=float, default=0.15, help="share of either class (default: 0.15)")
    parser.add_argument("--near", type=float, default=0.2, help="share of nuclei in doubt (default: 0.2)")
    args = parser.parse_args(arguments)
    if args.out.resolve() == args.data.resolve():
        parser.error("--out is the folder of --data, accepted: another one")
    index = read_tsv(args.data / "index.tsv", ("image", "modality", "split"))
    rows = {row["image"]: row for row in index if args.modality in ("all", row["modality"])}
    if not rows:
        found = ", ".join(sorted({row["modality"] for row in index}))
        parser.error(f"--modality is {args.modality}, accepted: all, {found}")
    kept, table, count, reasons = [], [], Counter(), Counter()
    for entry in read_layout("plain", args.data):
        if entry.name not in rows:
            continue
        path = next((args.data / "labels").glob(f"{entry.name}.*"))
        labels = read_labels(path)
        ids, area = np.unique(labels, return_counts=True)
        diameter = 2 * np.sqrt(area[ids > 0] / np.pi)
        why = left_out(diameter, max(labels.shape), args)
        reasons[why] += 1
        if why:
            continue
        kept.append((entry.image, path, rows[entry.name]))
        large = diameter > args.factor * np.median(diameter)
        for number, is_large in zip(ids[ids > 0].tolist(), large.tolist()):
            table.append((entry.name, number, NAMES[is_large]))
            count[rows[entry.name]["split"], NAMES[is_large]] += 1
    if not kept:
        parser.error(f"no image is left: {dict(reasons)}")
    write(args.out, kept, table)
    print(f"{len(kept)} of {len(rows)} images: " + tell(Counter(row["split"] for *_, row in kept)))
    for part in sorted({part for part, _ in count}):
        print(f"{part}: " + tell({name: count[part, name] for name in NAMES}) + " nuclei")
    print("left out: " + (tell({why: n for why, n in reasons.items() if why}) or "none"))


def left_out(diameter: np.ndarray, side: int, args: argparse.Namespace) -> str:
    """Why an image is left out; empty where it is not.

    Parameters
    ----------
    diameter : (n,) of its nuclei, px.
    side : the longer one of the image, px.
    """
    if len(diameter) < FEWEST:
        return f"fewer than {FEWEST} nuclei"
    scale = args.diameter / np.median(diameter)
    if not 0.7 * args.crop / side <= scale <= 8:
        return "no crop at that scale"
    relative = diameter / np.median(diameter) / args.factor
    share = float((relative > 1).mean())
    if not args.least <= share <= 1 - args.least:
        return "sizes too alike"
    return "too many in doubt" if float((np.abs(relative - 1) < DOUBT).mean()) > args.near else ""


def write(out: Path, kept: Sequence[tuple[Path, Path, dict[str, str]]], table: Sequence[tuple[str, int, str]]) -> None:
    """The folder, anew: links that are there already are removed."""
    for part, paths in (("images", [image for image, *_ in kept]), ("labels", [labels for _, labels, _ in kept])):
        (out / part).mkdir(parents=True, exist_ok=True)
        for old in (out / part).iterdir():
            if old.is_symlink():
                old.unlink()
        for path in paths:
            (out / part / path.name).symlink_to(path.resolve())
    for name, head, lines in (
        ("index.tsv", ["image", "modality", "split"], [[r["image"], r["modality"], r["split"]] for *_, r in kept]),
        ("classes.tsv", ["image", "instance", "class"], table),
    ):
        with (out / name).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
            writer.writerow(head)
            writer.writerows(lines)


def tell(counts: dict[str, int]) -> str:
    """As 3 small, 4 large."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


if __name__ == "__main__":
    main()
