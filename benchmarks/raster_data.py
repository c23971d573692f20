"""A raster with footprints as images to train and to measure on: the left two thirds and the right third.

`python benchmarks/raster_data.py --raster town.tif --footprints town_buildings.geojson --out training/town` writes a
folder of the plain layout at `--pixel-size` m (on the map). A footprint that the border between both cuts is in both,
cut.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import Affine

TRAINED = 2 / 3
"""Share of the width that trains."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raster", type=Path, required=True, help="GeoTIFF, RGB or one band")
    parser.add_argument("--footprints", type=Path, required=True, help="polygons in any CRS")
    parser.add_argument("--pixel-size", type=float, default=0.3, help="of the images, map units (default: 0.3)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with rasterio.open(args.raster) as source:
        scale = source.res[0] / args.pixel_size
        shape = (round(source.height * scale), round(source.width * scale))
        bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
        pixels = source.read(bands, out_shape=(3, *shape), resampling=Resampling.average)
        transform = source.transform * Affine.scale(source.width / shape[1], source.height / shape[0])
        footprints = gpd.read_file(args.footprints).to_crs(source.crs).geometry
    if pixels.dtype != np.uint8:
        low, high = np.percentile(pixels, [0.5, 99.5])
        pixels = ((pixels - low) * (255 / max(high - low, 1e-9))).clip(0, 255).astype(np.uint8)
    burnt = [(shape_, number) for number, shape_ in enumerate(footprints, 1) if not shape_.is_empty]
    labels = rasterize(burnt, shape, transform=transform, dtype=np.uint16)
    border = round(shape[1] * TRAINED)
    rows = []
    for part in ("images", "labels"):
        (args.out / part).mkdir(parents=True, exist_ok=True)
    for name, split, columns in (("left", "train", slice(0, border)), ("right", "val", slice(border, None))):
        Image.fromarray(np.moveaxis(pixels[:, :, columns], 0, 2)).save(args.out / "images" / f"{name}.png")
        Image.fromarray(labels[:, columns]).save(args.out / "labels" / f"{name}.png")
        rows.append(f"{name}\t{split}")
    (args.out / "index.tsv").write_text("\n".join(["image\tsplit", *rows, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
