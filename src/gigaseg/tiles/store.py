"""The tile step: the tiles of a shard in one file, for `segment` to read.

``tiles/NNN.zarr.zip`` is a Zarr v3 group in a ZIP archive: array ``image`` (n, tile, tile, 3) uint8, one tile
a chunk, in the order of grid.parquet; the group's attribute ``gigaseg`` says what it was made from.

Chunks are raw. With zstd level 1 the same tiles take 0.24-0.40 of the size on slides with much bare glass and rim
(lz4 0.26-0.54), but 0.73-0.84 on tissue (lz4 0.98-1.0), at 570-1700 MB per CPU-second where reading takes 330: a fifth
to a half more time for a file that lives until `segment` has read it; raw tiles are read at 3 GB/s.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg import __version__
from gigaseg.errors import FormatError, one_line
from gigaseg.files import atomic, raise_if_failed, same_slide
from gigaseg.progress import Progress
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.archive import ArchiveReader, ArchiveWriter, crc32
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.pool import read_tiles
from gigaseg.tiles.source import SlideTiles
from gigaseg.tiles.tiling import Tile, Tiling

TILES_FORMAT = "gigaseg/tiles/1"

_GROUP, _ARRAY = "zarr.json", "image/zarr.json"
_MAX_METADATA = 64 * 2**20

log = logging.getLogger(__name__)


def tile(info: str | Path, grid: str | Path, shard: int, out: str | Path, *, workers: int = 1, digest: str = "") -> int:
    """Write the tile store of a shard.

    Parameters
    ----------
    info, grid : slide.json and grid.parquet.
    shard : number of the shard; one without tiles gives an empty store.
    out : the file to write; the same bytes for any number of workers.
    workers : processes that read the slide; 1: this one.
    digest : of the step, for the file's provenance.

    Returns
    -------
    Number of tiles.

    Raises
    ------
    FormatError
        An input is damaged, the two are of different slides, or the grid has no such shard.
    UpstreamFailure
        An input is a failure record.
    SlideError
        The slide is missing, has changed, or cannot be decoded.
    """
    slide, kept = SlideInfo.read(info), Grid.read(grid)
    same_slide(slide.slide, kept.slide, grid)
    tiles = kept.tiles(shard)
    provenance = {
        "format": TILES_FORMAT,
        "slide": slide.slide,
        "shard": shard,
        "digest": digest,
        "version": __version__,
        "grid": kept.tiling.to_dict(),
        "row": [tile.row for tile in tiles],
        "col": [tile.col for tile in tiles],
    }
    opener = partial(SlideTiles, slide, kept.tiling)
    with Progress("tile", "tiles", len(tiles)) as progress:
        pixels = progress.over(read_tiles(opener, kept.tiling, tiles, workers, _checksum), repeat(1))
        write_tiles(out, provenance, kept.tiling.tile, pixels)
    log.info("slide '%s' shard %d: %d tiles", slide.slide, shard, len(tiles))
    return len(tiles)


def _checksum(pixels: npt.NDArray[np.uint8]) -> int:
    return crc32(pixels.data)


def write_tiles(
    out: str | Path, provenance: Mapping[str, Any], tile: int, pixels: Iterable[tuple[npt.NDArray[np.uint8], int]]
) -> None:
    """Write a tile store, atomically.

    Parameters
    ----------
    out : the file to write.
    provenance : the group's attribute ``gigaseg``, with the place of each tile in ``row`` and ``col``.
    tile : side of a tile, px.
    pixels : (tile, tile, 3) uint8 RGB of each tile and its CRC-32, in that order; taken and written one by one.
    """
    with atomic(out) as temporary, temporary.open("wb") as stream:
        archive = ArchiveWriter(stream)
        for name, content in (_GROUP, _group(provenance)), (_ARRAY, _array(len(provenance["row"]), tile)):
            packed = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
            archive.add(name, packed, crc32(packed))
        for index, (chunk, crc) in enumerate(pixels):
            archive.add(_chunk(index), chunk.data, crc)
        archive.close()


class StoredTiles:
    """A tile store, open for reading; a `gigaseg.tiles.source.TileSource`.

    Attributes
    ----------
    slide, shard, tiling : what it was made from.

    Raises
    ------
    FormatError
        The file is missing, partial, no tile store of ours, or not of the size that its grid says.
    UpstreamFailure
        It is a failure record.
    """

    def __init__(self, path: str | Path) -> None:
        raise_if_failed(path)
        self._path = Path(path)
        self._archive = ArchiveReader(path, TILES_FORMAT)
        try:
            self._open()
        except BaseException:
            self._archive.close()
            raise

    def _open(self) -> None:
        group = self._json(_GROUP)
        attributes = group.get("attributes")
        content = attributes.get("gigaseg") if isinstance(attributes, dict) else None
        found = content.get("format") if isinstance(content, dict) else None
        if content is None or found != TILES_FORMAT:
            raise self._wrong(f"format is {found!r}")
        try:
            self.slide, self.shard = str(content["slide"]), int(content["shard"])
            self.tiling = Tiling.from_dict(content["grid"])
            if not isinstance(self.tiling.tile, int) or self.tiling.tile < 1:
                raise ValueError(f"tile {self.tiling.tile!r}")
            places = [(int(row), int(col)) for row, col in zip(content["row"], content["col"], strict=True)]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._wrong(f"attribute gigaseg: {one_line(error)} is missing or wrong") from error
        size = self.tiling.tile**2 * 3
        if self._json(_ARRAY) != _array(len(places), self.tiling.tile):
            raise self._wrong(f"array image is not uint8 of shape ({len(places)}, tile, tile, 3), one raw tile a chunk")
        # declared sizes are checked here, so that a partial store stops before a model is loaded
        for index in range(len(places)):
            self._archive.check(_chunk(index), size=size)
        self._index = {place: index for index, place in enumerate(places)}

    def read(self, tile: Tile) -> npt.NDArray[np.uint8]:
        """(tile, tile, 3) uint8 RGB of a tile.

        Raises FormatError when the store does not hold the tile, or it is damaged.
        """
        index = self._index.get((tile.row, tile.col))
        if index is None:
            raise self._wrong(f"holds no tile of row {tile.row}, column {tile.col}")
        pixels = np.empty((self.tiling.tile, self.tiling.tile, 3), np.uint8)
        self._archive.read_into(_chunk(index), pixels)
        return pixels

    def close(self) -> None:
        """Release the file."""
        self._archive.close()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._archive.read(name, _MAX_METADATA))
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"{name} is no JSON ({one_line(error)})") from error
        if not isinstance(content, dict):
            raise self._wrong(f"{name} is no JSON object")
        return content

    def _wrong(self, found: str) -> FormatError:
        return FormatError(f"{self._path}: {found}; expected {TILES_FORMAT}; run tile again")


def _chunk(index: int) -> str:
    return f"image/c/{index}/0/0/0"


def _group(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {"gigaseg": dict(provenance)}}


def _array(count: int, tile: int) -> dict[str, Any]:
    """Zarr v3 metadata of the array, as https://zarr-specs.readthedocs.io/en/latest/v3/core has it."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [count, tile, tile, 3],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, tile, tile, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "dimension_names": ["tile", "y", "x", "rgb"],
        "attributes": {},
    }
