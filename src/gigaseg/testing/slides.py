"""Synthetic slides on disk, with the truth beside them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import ConfigError, unknown
from gigaseg.files import atomic
from gigaseg.slides.base import BRIGHTFIELD, FLUORESCENCE

TILE = 256
"""Side of the TIFF's own tiles, px."""

REDUCTION = 4
"""Each level of the pyramid is so many times smaller than the one before, as scanners do."""

_BLOCK = 1024
"""Side of what is rendered at once, px; a strip of so many rows across the slide lies in memory."""

_Strips = Iterator[npt.NDArray[Any]]


@dataclass(frozen=True)
class Truth:
    """What a synthetic slide shows.

    Attributes
    ----------
    slide : the slide's file.
    labels : label image of level 0, TIFF, (height, width) uint32, 0 background, 1..count.
    outlines : GeoJSON of the nuclei as QuPath reads it, level-0 px, in label order, before overlaps are cut.
    count : number of nuclei.
    """

    slide: Path
    labels: Path
    outlines: Path
    count: int

    def read_labels(self) -> npt.NDArray[np.uint32]:
        """The label image, (height, width)."""
        import tifffile

        return np.asarray(tifffile.imread(self.labels))


def synthetic_slide(
    path: str | Path,
    *,
    width: int = 4096,
    height: int = 4096,
    mpp: float = 0.5,
    nuclei: int | None = None,
    seed: int = 0,
    kind: str = BRIGHTFIELD,
) -> Truth:
    """Write an invented slide: an irregular piece of glandular tissue on bare glass.

    Nuclei are 4-12 µm long (epithelial, lymphocytes in clusters, spindle-shaped), many touch. Time and file
    size are linear in the area; a strip of 1024 rows is in memory, a temporary file holds the second level.

    Parameters
    ----------
    path : target, ``NAME.tif``; ``NAME.labels.tif`` and ``NAME.geojson`` are written beside it.
    width, height : size of level 0, px.
    mpp : µm per level-0 pixel, 0.1 to 2.
    nuclei : at most so many; None: as many as the tissue has (about 3,000 per mm²).
    seed : the same arguments and seed give the same pixels.
    kind : "brightfield": H&E, RGB, JPEG-tiled pyramid; "fluorescence": a nuclear stain, one channel, uint16,
        deflate-tiled pyramid.

    Raises
    ------
    ConfigError : unknown kind, or a size or mpp that makes no sense.
    """
    from gigaseg.testing.histology import Section
    from gigaseg.testing.paint import Painter

    if kind not in (BRIGHTFIELD, FLUORESCENCE):
        raise ConfigError(unknown("kind of synthetic slide", kind, (BRIGHTFIELD, FLUORESCENCE)))
    if min(width, height) < 64 or not 0.1 <= mpp <= 2:
        raise ConfigError(
            f"synthetic slide of {width} x {height} px at {mpp} µm/px; accepted: at least 64 px, 0.1-2 µm/px"
        )
    target = Path(path)
    truth = Truth(target, target.with_suffix(".labels.tif"), target.with_suffix(".geojson"), 0)
    section = Section(width * mpp, height * mpp, seed, nuclei)
    painter = Painter(section, mpp, seed)
    render = painter.brightfield if kind == BRIGHTFIELD else painter.fluorescence
    _write_pyramid(truth.slide, lambda: _strips(render, width, height), (height, width), mpp, kind)
    _write_labels(truth.labels, _strips(painter.labels, width, height), (height, width))
    _write_outlines(truth.outlines, section.nuclei.outline / mpp, (width, height))
    return Truth(truth.slide, truth.labels, truth.outlines, len(section.nuclei))


def synthetic_image(
    shape: tuple[int, int], *, mpp: float = 0.5, seed: int = 0, kind: str = BRIGHTFIELD
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint32]]:
    """The pixels and the labels of a small synthetic slide, in memory; parameters as `synthetic_slide`.

    Returns
    -------
    (height, width, 3) uint8 or, for fluorescence, (height, width) uint16; and (height, width) uint32 labels.
    """
    from gigaseg.testing.histology import Section
    from gigaseg.testing.paint import Painter

    height, width = shape
    painter = Painter(Section(width * mpp, height * mpp, seed), mpp, seed)
    render = painter.brightfield if kind == BRIGHTFIELD else painter.fluorescence
    return render(0, 0, width, height), painter.labels(0, 0, width, height)


def _strips(render: Callable[[int, int, int, int], npt.NDArray[Any]], width: int, height: int) -> _Strips:
    for y in range(0, height, _BLOCK):
        rows = min(_BLOCK, height - y)
        yield np.hstack([render(x, y, min(_BLOCK, width - x), rows) for x in range(0, width, _BLOCK)])


def _tiles(strips: _Strips) -> _Strips:
    """Cut strips, each a multiple of `TILE` rows but the last, into row-major tiles, rims repeated."""
    for strip in strips:
        height, width = strip.shape[:2]
        margin = [(0, -height % TILE), (0, -width % TILE), (0, 0)][: strip.ndim]
        padded = np.pad(strip, margin, mode="edge")
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                yield np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])


def _write_pyramid(path: Path, strips: Callable[[], _Strips], shape: tuple[int, int], mpp: float, kind: str) -> None:
    import tifffile

    channels = (3,) if kind == BRIGHTFIELD else ()
    dtype = np.dtype(np.uint8 if kind == BRIGHTFIELD else np.uint16)
    options: dict[str, Any] = {"tile": (TILE, TILE), "resolutionunit": "CENTIMETER", "maxworkers": 1}
    if kind == BRIGHTFIELD:
        options |= {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 90}}
    else:
        options |= {"photometric": "minisblack", "compression": "zlib", "predictor": True}
    with atomic(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as tiff:
        level, scale = strips(), 1
        while True:
            smaller = shape[0] // REDUCTION, shape[1] // REDUCTION
            with tempfile.TemporaryFile() as file:
                has_next = max(shape) > 2 * TILE and min(smaller) > 0
                store = np.memmap(file, dtype, "w+", shape=(*smaller, *channels)) if has_next else None
                tiff.write(
                    _tiles(_reduced_into(store, level)),
                    shape=(*shape, *channels),
                    dtype=dtype,
                    resolution=(1e4 / (mpp * scale), 1e4 / (mpp * scale)),
                    subfiletype=int(scale > 1),
                    metadata=None,
                    **options,
                )
                if store is None:
                    return
                # the memory map outlives the name of its file
                level, shape, scale = _rows_of(store), smaller, scale * REDUCTION


def _reduced_into(store: npt.NDArray[Any] | None, strips: _Strips) -> _Strips:
    """Pass the strips on while their reduced image is put into `store`."""
    row = 0
    for strip in strips:
        if store is not None:
            height, width = (size // REDUCTION for size in strip.shape[:2])
            part = strip[: height * REDUCTION, : width * REDUCTION]
            blocks = part.reshape(height, REDUCTION, width, REDUCTION, *strip.shape[2:])
            store[row : row + height] = np.rint(blocks.mean((1, 3), dtype=np.float32))
            row += height
        yield strip


def _rows_of(image: npt.NDArray[Any]) -> _Strips:
    for y in range(0, len(image), _BLOCK):
        yield np.asarray(image[y : y + _BLOCK])


def _write_labels(path: Path, strips: _Strips, shape: tuple[int, int]) -> None:
    import tifffile

    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary, _tiles(strips), shape=shape, dtype=np.uint32, tile=(TILE, TILE), compression="zlib",
            photometric="minisblack", metadata=None, bigtiff=True, maxworkers=1,
        )  # fmt: skip


def _write_outlines(path: Path, outlines: npt.NDArray[Any], size: tuple[int, int]) -> None:
    properties = {"objectType": "detection", "classification": {"name": "nucleus", "color": [80, 120, 230]}}
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for index, outline in enumerate(outlines.clip(0, size).round(2).astype(float)):
            ring = [[round(x, 2), round(y, 2)] for x, y in (*outline, outline[0])]
            geometry = {"type": "Polygon", "coordinates": [ring]}
            feature = {"type": "Feature", "id": index + 1, "geometry": geometry, "properties": properties}
            stream.write(("\n" if index == 0 else ",\n") + json.dumps(feature))
        stream.write("\n]}\n")
