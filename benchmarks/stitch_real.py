"""Real nuclei through the whole path: a label image of 8,192² px comes back identical, whatever the tiles.

The label images of monuseg, laid side by side and separated into connected objects, become polygons; these go as a
side file through grid, segment (segmenter `annotations`) and stitch, and are painted again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import shapely
import tifffile

SIDE = 8192
SETTINGS = [(128, 1), (128, 64), (256, 1), (256, 7), (256, 128), (512, 2), (512, 64), (1024, 1), (1024, 64), (2048, 16)]
"""Tile and overlap, working px."""


def label_image(folder: Path) -> np.ndarray:
    """(8192, 8192) int32 label image of connected objects, from the label images in `folder`."""
    from PIL import Image
    from skimage.measure import label

    images = [np.asarray(Image.open(path)).astype(np.int32) for path in sorted(folder.glob("*.png"))]
    canvas = np.zeros((SIDE, SIDE), np.int32)
    step = images[0].shape[0]
    for place, corner in enumerate(np.ndindex(-(-SIDE // step), -(-SIDE // step))):
        y, x = corner[0] * step, corner[1] * step
        piece = images[place % len(images)][: SIDE - y, : SIDE - x]
        canvas[y : y + step, x : x + step] = np.where(piece > 0, piece + 10_000 * place, 0)
    return label(canvas, connectivity=2).astype(np.int32)


def comes_back(folder: Path) -> list[tuple[int, int, int, int, bool]]:
    """Tile, overlap, instances, tile instances and whether the image came back, for every setting."""
    from rasterio.features import rasterize

    from gigaseg.config import ForegroundConfig, Preset, SegmenterConfig, TilesConfig
    from gigaseg.instances.polygons import polygons_from_labels
    from gigaseg.instances.segment import segment
    from gigaseg.instances.table import read_instances
    from gigaseg.slides.inspect import inspect
    from gigaseg.stitch.stitch import stitch
    from gigaseg.tiles.grid import grid

    labels = label_image(folder)
    results = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        white = np.full((SIDE, SIDE, 3), 255, np.uint8)
        tifffile.imwrite(work / "white.tif", white, photometric="rgb", tile=(512, 512), compression="zlib")
        inspect(work / "white.tif", slide="white", pixel_size="px").write(work / "slide.json")
        _, geometry = polygons_from_labels(labels)
        features = [
            f'{{"type": "Feature", "properties": {{}}, "geometry": {text}}}' for text in shapely.to_geojson(geometry)
        ]
        (work / "truth.geojson").write_text(f'{{"type": "FeatureCollection", "features": [{", ".join(features)}]}}')
        json.loads((work / "truth.geojson").read_text())
        oracle = SegmenterConfig(name="annotations", overlaps="keep")
        for tile, overlap in SETTINGS:
            preset = Preset(
                segmenter=oracle,
                foreground=ForegroundConfig(method="all"),
                tiles=TilesConfig(tile=tile, overlap=overlap, tiles_per_shard=2000),
            )
            kept = grid(work / "slide.json", work / "grid.parquet", work / "foreground.tif", preset=preset)
            shards = [work / str(tile) / f"instances/{k:03d}.parquet" for k in range(kept.shards)]
            for k, shard in enumerate(shards):
                annotations = work / "truth.geojson"
                segment(
                    work / "slide.json",
                    work / "grid.parquet",
                    k,
                    shard,
                    segmenter=oracle,
                    annotations=annotations,
                    digest=f"{tile}-{overlap}",
                )
            counts = stitch(shards, work / "grid.parquet", work / "out.parquet")
            found, _ = read_instances(work / "out.parquet", stitched=True)
            painted = rasterize(zip(found.geometry, range(1, len(found) + 1)), out_shape=labels.shape, dtype=np.int32)
            same = (
                len(found) == labels.max()
                and shapely.area(found.geometry).sum() == (labels > 0).sum()
                and bool(((painted > 0) == (labels > 0)).all())
                and len(np.unique(painted.astype(np.int64) * (labels.max() + 1) + labels)) == len(found) + 1
            )
            results.append((tile, overlap, len(found), counts.tile_instances, same))
            print(*results[-1], flush=True)
    return results


if __name__ == "__main__":
    import sys

    comes_back(Path(sys.argv[1]))
