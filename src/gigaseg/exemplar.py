"""The sheet's column `exemplar`: objects that show a one-shot segmenter what to look for. Free of heavy imports.

Either polygons on the slide itself (drawn in QuPath or a GIS), or a picture of its own with a mask beside it, which
several slides may share.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg.errors import FormatError, is_machine_fault, one_line

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import shapely
    from PIL import Image

    from gigaseg.slides.base import SlideInfo
    from gigaseg.tiles.tiling import Tiling

VECTORS = (".geojson", ".json", ".gpkg", ".parquet", ".shp", ".gz")
"""Endings of files of polygons; all others are pictures."""

MOST_SHOWN = 8
"""Most objects that serve as exemplars: each costs time in every tile."""

MOST_PX = 4096
"""Largest side of a picture: it shows an object, not a slide."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture in which objects are marked.

    Attributes
    ----------
    rgb : (h, w, 3) uint8, at the working resolution.
    masks : (h, w) bool of each object, at least one; the first is what counts most.
    boxed : for each whether it was drawn as a box, so that its mask says where it is and not what it is.
    """

    rgb: npt.NDArray[np.uint8]
    masks: list[npt.NDArray[np.bool_]]
    boxed: list[bool]


def is_picture(path: Path) -> bool:
    """Whether an exemplar is a picture with a mask beside it."""
    return path.suffix.lower() not in VECTORS


def mask_beside(path: Path) -> Path:
    """The mask of a picture: NAME_mask.png beside NAME.png, NAME.jpg, NAME.tif."""
    return path.with_name(f"{path.stem}_mask.png")


def exemplar_files(path: Path) -> list[Path]:
    """All files of an exemplar."""
    return [path, mask_beside(path)] if is_picture(path) else [path]


def read_exemplar(path: Path, info: SlideInfo, tiling: Tiling, side: int) -> Shown:
    """Read an exemplar.

    Polygons: the slide around the first one, in a square of `side` working px that lies on the slide as far as it can;
    of the others those that lie wholly in it. A picture: as it is, its pixels taken for working pixels.

    Raises
    ------
    FormatError
        A file is missing or unreadable; there is no polygon on the slide, or it does not fit the square; the mask has
        another size, or is empty.
    """
    if is_picture(path):
        return _read_picture(path)
    return _read_polygons(path, info, tiling, side)


def _read_polygons(path: Path, info: SlideInfo, tiling: Tiling, side: int) -> Shown:
    import numpy as np
    from rasterio.features import rasterize

    from gigaseg.geometry import Bounds, Shape2d
    from gigaseg.sidefiles import read_polygons
    from gigaseg.slides.registry import open_slide

    polygons = read_polygons(path, info, tiling).geometry
    x0, y0, x1, y1 = polygons[0].bounds
    if max(x1 - x0, y1 - y0) > 0.9 * side:
        raise FormatError(
            f"{path}: its first polygon is {x1 - x0:.0f} x {y1 - y0:.0f} working px, accepted: up to {0.9 * side:.0f} "
            "px; set object_diameter of the preset so that objects are seen smaller"
        )
    x, y = (
        min(max(0, round((low + high - side) / 2)), max(0, total - side))
        for low, high, total in ((x0, x1, tiling.width), (y0, y1, tiling.height))
    )
    slide = open_slide(info)
    try:
        native = slide.read(Bounds(x, y, x + side, y + side).scaled(*tiling.scale), Shape2d(side, side))
    finally:
        slide.close()
    masks: list[npt.NDArray[np.bool_]] = []
    boxed: list[bool] = []
    for polygon in polygons:
        a, b, c, d = polygon.bounds
        if a >= x and b >= y and c <= x + side and d <= y + side and len(masks) < MOST_SHOWN:
            mask = rasterize([polygon], (side, side), transform=_shift(x, y), dtype=np.uint8).astype(bool)
            if not mask.any() and not masks:
                raise FormatError(f"{path}: its first polygon covers no working pixel; expected one around an object")
            if mask.any():
                masks.append(mask)
                boxed.append(is_box(polygon))
    if len(polygons) > len(masks):
        log.info("%s: %d of %d polygons serve as exemplars", path, len(masks), len(polygons))
    return Shown(slide.info.rendering.rgb(native), masks, boxed)


def is_box(polygon: shapely.Geometry) -> bool:
    """Whether a polygon is a rectangle along the axes."""
    import shapely

    return bool(shapely.area(polygon) > 0.999 * shapely.area(shapely.envelope(polygon)))


def _shift(x: float, y: float) -> Any:
    from rasterio.transform import from_origin

    # rows go down, as the slide's
    return from_origin(x, y, 1, -1)


def _read_picture(path: Path) -> Shown:
    import numpy as np

    rgb = _open(path, "a picture of 8 bits a channel").convert("RGB")
    beside = mask_beside(path)
    mask = _open(beside, f"the mask of {path.name}: 0 is background, each other value an object")
    # of colours or transparency only the brightness counts
    labels = np.asarray(mask if mask.mode in ("1", "L", "P") else mask.convert("RGB").convert("L")).astype(np.uint8)
    if mask.size != rgb.size:
        found, wanted = (" x ".join(str(n) for n in size) for size in (mask.size, rgb.size))
        raise FormatError(f"{beside}: is {found} px, accepted: {wanted}, as {path.name}")
    # white is a mask, whose rim may be soft; less is numbers
    values = np.unique(labels[labels > 0])
    masks = [labels >= 128] if 255 in values else [labels == value for value in values[:MOST_SHOWN]]
    if mask.mode == "1":
        masks = [labels > 0] if len(values) else []
    if not masks:
        raise FormatError(f"{beside}: marks nothing; accepted: a mask whose object is not 0")
    return Shown(np.asarray(rgb), masks, [False] * len(masks))


def _open(path: Path, what: str) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if max(image.size) > MOST_PX:
                raise FormatError(
                    f"{path}: is {image.size[0]} x {image.size[1]} px, accepted: up to {MOST_PX} px a side"
                )
            if image.mode.startswith(("I", "F")):
                raise FormatError(f"{path}: has more than 8 bits a channel; expected {what}")
            image.load()
            return image.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read ({one_line(error)}); expected {what}") from error
