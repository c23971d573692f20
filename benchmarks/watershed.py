"""Accuracy of the segmenter `watershed`: ``python benchmarks/watershed.py [--data FOLDER]``.

Each image is segmented whole, with the rendering that `gigaseg inspect` chooses for it. Nothing is tuned on the images
shown here: the parameters come from the training part of dsb2018 and from synthetic images of other seeds. The images
lie in the folder that GIGASEG_DATA names (else ../shared/data); without them only the synthetic slide is measured.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import processor

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.metrics.instance import Counts, aji, match_counts, panoptic_quality
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pixel import PixelCounts
from gigaseg.segmenters.base import Context
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.watershed import find_nuclei, settings
from gigaseg.slides.inspect import inspect
from gigaseg.slides.registry import open_slide
from gigaseg.testing import synthetic_slide
from gigaseg.tiles.tiling import Tiling

HERE = Path(__file__).parent
NOMINAL_PX = 24
"""Diameter given for dsb2018, px: its images have no pixel size, and nuclei of 10 to 50 px."""

Sample = tuple[Path, np.ndarray, float | str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018 and monuseg")
    data = parser.parse_args().data
    rows = []
    if (data / "dsb2018").is_dir():
        for modality in ("fluorescence", "purple", "brightfield", None):
            name = f"dsb2018 val, {modality or 'all'}"
            rows.append(measure(name, bowl(data / "dsb2018", modality), diameter_um=NOMINAL_PX / 2))
        rows.append(measure("monuseg, 40x", monuseg(data / "monuseg")))
    with tempfile.TemporaryDirectory() as folder:
        truth = synthetic_slide(Path(folder) / "demo.tif")
        rows.append(measure("synthetic slide, 4096²", iter([(truth.slide, truth.read_labels(), 0.5)])))
    text = report(rows)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "watershed.md").write_text(text, encoding="utf-8")
    print(text)


def bowl(folder: Path, modality: str | None) -> Iterator[Sample]:
    """Validation images of dsb2018: file, labels, pixel size."""
    from PIL import Image

    with (folder / "index.tsv").open() as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if row["split"] == "val" and modality in (None, row["modality"]):
                labels = Image.open(folder / "labels" / f"{row['image']}.png")
                yield folder / "images" / f"{row['image']}.webp", np.asarray(labels).astype(np.int32), "px"


def monuseg(folder: Path) -> Iterator[Sample]:
    """All images of the training set of MoNuSeg, 0.25 µm/px; none of them was used for training or tuning."""
    from PIL import Image

    for path in sorted((folder / "images").iterdir()):
        yield path, np.asarray(Image.open(folder / "labels" / f"{path.stem}.png")).astype(np.int32), 0.25


def measure(name: str, samples: Iterator[Sample], **options: float) -> dict[str, float | str]:
    """Figures of one set: means over its images; F1 pooled over all objects."""
    card = read_card("watershed")
    if options:  # without a pixel size the three diameters grow together
        grown = options["diameter_um"] / card.options["diameter_um"].default
        for key in ("min_diameter_um", "max_diameter_um"):
            options[key] = grown * float(card.options[key].default)
    dice, ajis, pqs, counts, seconds, pixels, images = [], [], [], Counts(0, 0, 0), 0.0, 0, 0
    for path, truth, pixel_size in samples:
        info = inspect(path, slide="benchmark", pixel_size=pixel_size)
        # like the workflow: tiles come at the card's pixel size
        shrink = 1.0 if info.unit == "px" else card.pixel_size / info.pixel_size[0]
        height, width = round(info.height / shrink), round(info.width / shrink)
        slide = open_slide(info)
        image = info.rendering.rgb(slide.read(Bounds(0, 0, info.width, info.height), Shape2d(height, width)))
        slide.close()
        size = 1.0 if info.unit == "px" else card.pixel_size
        tiling = Tiling(card.tile, card.overlap, width, height, (shrink, shrink), (size, size), info.unit)
        start = time.perf_counter()
        found, _ = find_nuclei(image, settings(card, Context(info, tiling, options=options)))
        seconds += time.perf_counter() - start
        pixels += found.size
        images += 1
        rows, cols = (
            np.minimum((np.arange(n) + 0.5) / shrink, m - 1).astype(int) for n, m in zip(truth.shape, found.shape)
        )
        overlap = Overlap.from_labels(truth, found[np.ix_(rows, cols)])
        dice.append(PixelCounts.from_overlap(overlap).dice)
        ajis.append(aji(overlap))
        pqs.append(panoptic_quality(overlap).pq)
        counts += match_counts(overlap)
    return {
        "set": name,
        "images": images,
        "nuclei": counts.tp + counts.fn,
        "found": counts.tp + counts.fp,
        "Dice": float(np.nanmean(dice)),
        "AJI": float(np.nanmean(ajis)),
        "PQ": float(np.nanmean(pqs)),
        "F1 at 0.5": counts.f1,
        "s per 1024²": seconds / pixels * 1024**2,
    }


def report(rows: list[dict[str, float | str]]) -> str:
    """Markdown page."""
    head = list(rows[0])
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        cells = [
            f"{v:.3f}" if isinstance(v, float) and v != int(v) else str(v).removesuffix(".0") for v in row.values()
        ]
        lines.append(" | ".join(cells))
    table = "\n".join(f"| {line} |" for line in lines)
    return (
        "# Accuracy of the weight-free baseline `watershed`\n\n"
        "`python benchmarks/watershed.py`: pixel Dice, AJI and PQ are means over the images, F1 at IoU 0.5 is pooled. "
        "Whole images, card defaults; "
        f"dsb2018 has no pixel size and gets the nominal diameter of {NOMINAL_PX} px, monuseg is read at 0.5 µm/px.\n\n"
        f"{table}\n\n"
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; shared with other work.\n"
    )


if __name__ == "__main__":
    main()
