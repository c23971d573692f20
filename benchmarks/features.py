"""How well each layer of a SAM's encoder tells nuclei apart: ``python benchmarks/features.py [--data FOLDER]``.

Runs `gigaseg analyse-features IMAGE --labels LABELS --layers patch 0 1 ... neck` on images of every group of dsb2018,
evenly drawn, and averages its figures over the images. The input's long side is the image's own, in whole windows of
64 px and at most 512. The images lie in the folder that GIGASEG_DATA names (else ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from gigaseg.report.features import analyse_features
from gigaseg.sam.features import choose_layers
from gigaseg.sam.model import open_checkpoint

HERE = Path(__file__).parent
EACH = 8
"""Images of each group and part; fewer where there are fewer."""

WINDOW_PX = 64
LONGEST_PX = 512
FIGURES = ("auc_global", "auc_local", "auc_local_edge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018")
    parser.add_argument("--checkpoint", default="small-v1")
    args = parser.parse_args()
    folder = args.data / "dsb2018"
    layers = choose_layers(
        config := open_checkpoint(args.checkpoint)[1], ["patch", *map(str, range(config.depth)), "neck"]
    )
    index = pd.read_csv(folder / "index.tsv", sep="\t")
    found: dict[tuple[str, str], dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for (part, group), images in index.groupby(["split", "modality"]):
        for name in images.image.iloc[np.linspace(0, len(images) - 1, min(EACH, len(images))).round().astype(int)]:
            for row in figures(folder, name, args.checkpoint, layers):
                found[part, group][row["layer"]].append(np.array([float(row[key]) for key in FIGURES]))
    lines = [f"# Layers of {args.checkpoint}", "", *table(found, layers)]
    (HERE / "results" / "features.md").write_text("\n".join(lines) + "\n")


def figures(folder: Path, name: str, checkpoint: str, layers: tuple[str, ...]) -> list[dict[str, str]]:
    (image,) = (folder / "images").glob(f"{name}.*")
    with Image.open(image) as picture:
        longest = max(picture.size)
    size = min(LONGEST_PX, round(longest / WINDOW_PX) * WINDOW_PX)
    with tempfile.TemporaryDirectory() as out:
        text = analyse_features(
            image, Path(out), checkpoint=checkpoint, layers=layers, size=size, labels=folder / "labels" / f"{name}.png"
        )
    heading, *rows = (line.split("\t") for line in text.splitlines())
    return [dict(zip(heading, row)) for row in rows]


def table(found: dict[tuple[str, str], dict[str, list[np.ndarray]]], layers: tuple[str, ...]) -> list[str]:
    groups = list(found)
    lines = []
    for place, figure in enumerate(FIGURES):
        lines += ["", f"{figure}, mean over the images:", ""]
        counts = (f"{part} {group} ({len(found[part, group][layers[0]])})" for part, group in groups)
        lines += ["| layer | " + " | ".join(counts) + " |", "|---" * (len(groups) + 1) + "|"]
        for layer in layers:
            means = (f"{np.nanmean([row[place] for row in found[key][layer]]):.3f}" for key in groups)
            lines.append(f"| {layer} | " + " | ".join(means) + " |")
    return lines[1:]


if __name__ == "__main__":
    main()
