"""Generated aerial scenes with the roofs in them, to train a segmenter of buildings.

`python benchmarks/aerial_data.py --out training/aerial` writes a folder of the plain layout: images/NAME.png,
labels/NAME.png (uint16, 0 background, 1..n) and index.tsv. Every tenth scene validates. What is there already is kept,
so an interrupted run goes on where it stopped; index.tsv is written last, once all scenes are there.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from gigaseg.files import atomic
from gigaseg.testing import AERIAL_KINDS, synthetic_aerial

SIDES = (384, 448, 512, 576, 640)
"""px; the ground sample distance is drawn from 0.15 to 0.6 m, evenly by its logarithm."""

SHARES = (0.22, 0.12, 0.14, 0.13, 0.10, 0.10, 0.07, 0.07, 0.05)
"""How often each of `AERIAL_KINDS` is drawn."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=400, help="number of images (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same scenes (default: 1)")
    args = parser.parse_args()
    for part in ("images", "labels"):
        (args.out / part).mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(args.scenes):
        rng = np.random.default_rng([args.seed, i])
        kind = str(rng.choice(AERIAL_KINDS, p=SHARES))
        gsd, side = float(np.exp(rng.uniform(np.log(0.15), np.log(0.6)))), int(rng.choice(SIDES))
        name = f"aerial-{i:04d}"
        rows.append({"image": name, "modality": kind, "split": "val" if i % 10 == 9 else "train"})
        image_path, labels_path = (args.out / part / f"{name}.png" for part in ("images", "labels"))
        if image_path.exists():
            continue
        image, labels = synthetic_aerial((side, side), gsd, 100_000 * args.seed + i, kind=kind)
        # the image last: where it is, its labels are
        for path, pixels in ((labels_path, labels.astype(np.uint16)), (image_path, image)):
            with atomic(path) as temporary:
                Image.fromarray(pixels).save(temporary)
    with atomic(args.out / "index.tsv") as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "modality", "split"], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
