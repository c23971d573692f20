"""The images that the shipped `centersam-v2` was trained on: dsb2018 and a few generated sections of tissue.

`python benchmarks/training_data.py --data dsb2018 --out training/data` writes a folder of the plain layout: every image
of dsb2018 as a link, and generated ones, which train only, with the modality "generated".
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from gigaseg.testing import synthetic_image

SECTIONS = ((0.25, 640), (0.35, 512), (0.5, 448))
"""µm a pixel and side in px, in turn."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dsb2018 in the plain layout, with index.tsv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sections", type=int, default=36, help="generated images (default: 36)")
    args = parser.parse_args()
    with (args.data / "index.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    columns = list(rows[0])
    for part in ("images", "labels"):
        (args.out / part).mkdir(parents=True, exist_ok=True)
        for path in sorted((args.data / part).iterdir()):
            link = args.out / part / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    for i in range(args.sections):
        pixel_size, side = SECTIONS[i % len(SECTIONS)]
        image, labels = synthetic_image((side, side), mpp=pixel_size, seed=1000 + i)
        name = f"generated-{i:02d}"
        Image.fromarray(image).save(args.out / "images" / f"{name}.png")
        Image.fromarray(labels.astype(np.uint16)).save(args.out / "labels" / f"{name}.png")
        rows.append({**dict.fromkeys(columns, ""), "image": name, "modality": "generated", "split": "train"})
    with (args.out / "index.tsv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
