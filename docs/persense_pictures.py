"""Draw the pictures of docs/persense.md: ``python docs/persense_pictures.py``, some minutes on one core.

They show the demo slide of the walk-through, so all that is on them is generated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import geopandas
import numpy as np
import tifffile
import torch
from rasterio.features import rasterize
from skimage.segmentation import find_boundaries

from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.segmenter import PerSense
from gigaseg.segmenters.whole import segment_image
from gigaseg.testing.demo import write_demo

HERE = Path(__file__).parent
SHOWN = 24
"""Number of the nucleus that is drawn, as in the walk-through."""

SCALE = 2.0
"""Nuclei of 13 px are seen at 26."""

X, Y, SIDE = 560, 120, 330
"""What is shown of the slide, px."""

DENSITIES = ("regressor", "ncc", "features")


def main() -> None:
    """Write persense-steps.jpg and persense-densities.jpg."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), side=1024, seed=1)
        slide = tifffile.imread(Path(folder) / "slide.tif")
        nuclei = geopandas.read_file(Path(folder) / "slide.geojson").geometry
    mask = rasterize([nuclei[SHOWN]], slide.shape[:2], dtype=np.uint8)
    size = (int(slide.shape[1] * SCALE), int(slide.shape[0] * SCALE))
    picture = cv2.resize(slide, size, interpolation=cv2.INTER_LINEAR)
    drawn = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool)
    loaded = open_persense()
    columns = []
    for density in DENSITIES:
        segmenter = PerSense.of(loaded, {"density": density})
        segmenter.learn(picture, [drawn])
        columns.append(panels(segmenter, picture, drawn))
    first = columns[0]
    top, bottom = np.hstack(first[:2]), np.hstack(first[2:])
    write(HERE / "persense-steps.jpg", np.vstack([top, bottom]))
    write(
        HERE / "persense-densities.jpg",
        np.vstack([np.hstack([c[2] for c in columns]), np.hstack([c[3] for c in columns])]),
    )


def panels(segmenter: PerSense, picture: np.ndarray, drawn: np.ndarray) -> list[np.ndarray]:
    """Exemplars, likeness, density with points, outlines, of the part that is shown."""
    finder, reference = segmenter._finder, segmenter.reference
    assert finder is not None
    assert reference is not None
    part = np.s_[int(Y * SCALE) : int((Y + SIDE) * SCALE), int(X * SCALE) : int((X + SIDE) * SCALE)]
    crop = np.ascontiguousarray(picture[part])
    side = max(crop.shape[:2]) // 8 * 8
    crop = np.ascontiguousarray(crop[:side, :side])
    scene = finder.compared(finder.scene(crop), reference.target)
    density = finder.generator.density(scene, reference.exemplars).map
    points = finder.find(scene, reference).xy
    exemplars = crop.copy()
    exemplars[find_boundaries(drawn[part][:side, :side])] = (255, 0, 0)
    known = scene.similarity
    assert known is not None
    marked = heat(density / max(reference.levels.high or 1, 1e-9))
    for x, y in points:
        cv2.circle(marked, (int(x), int(y)), 3, (255, 255, 255), -1)
    found = segment_image(segmenter, crop)
    outlined = crop.copy()
    outlined[find_boundaries(found)] = (0, 200, 0)
    return [exemplars, heat((known - known.min()) / (known.max() - known.min())), marked, outlined]


def heat(values: np.ndarray) -> np.ndarray:
    """A map in 0..1 as colours."""
    grey = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def write(path: Path, picture: np.ndarray) -> None:
    """A JPEG of at most 1100 px."""
    factor = min(1.0, 1100 / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
