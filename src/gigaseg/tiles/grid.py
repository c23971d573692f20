"""The grid step, and grid.parquet: which tiles of the bounding grid are kept, and the shard of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gigaseg import __version__
from gigaseg.config import Preset
from gigaseg.errors import FormatError
from gigaseg.files import read_parquet, write_parquet
from gigaseg.runrecord import note
from gigaseg.segmenters.card import read_card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tile, Tiling
from gigaseg.tiles.working import shards_of, working_tiling

log = logging.getLogger(__name__)

GRID_FORMAT = "gigaseg/grid/1"


@dataclass(frozen=True)
class Grid:
    """The kept tiles of a slide in row-major order, with their shard.

    Attributes
    ----------
    tiling : the bounding grid.
    slide : name of the slide.
    row, col : (n,) int32, place of each kept tile.
    foreground : (n,) float32, share of the tile that is foreground, 0..1.
    shard : (n,) int32, non-decreasing: each shard is a contiguous run of kept tiles.
    shards : number of shards; some may hold no tile.
    """

    tiling: Tiling
    slide: str
    row: npt.NDArray[np.int32]
    col: npt.NDArray[np.int32]
    foreground: npt.NDArray[np.float32]
    shard: npt.NDArray[np.int32]
    shards: int

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(rows, cols) bool, true where the tile is kept."""
        kept = np.zeros((self.tiling.rows, self.tiling.cols), dtype=bool)
        kept[self.row, self.col] = True
        return kept

    def tiles(self, shard: int) -> list[Tile]:
        """The tiles of a shard, in order.

        Raises FormatError when the grid has no such shard.
        """
        if not 0 <= shard < self.shards:
            raise FormatError(f"slide '{self.slide}': shard {shard} is outside the grid's 0..{self.shards - 1}")
        mine = np.flatnonzero(self.shard == shard)
        return [self.tiling.get(int(self.row[i]), int(self.col[i])) for i in mine]

    def open_sides(self, row: npt.NDArray[np.integer[Any]], col: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Bit mask of the borders of tiles (row, col) beyond which a kept tile sees on.

        A border counts when any of the three tiles on its far side, diagonal ones included, is kept: each of them
        covers a part of the border's own strip.
        """
        padded = np.pad(self.kept, 1)
        r, c = np.asarray(row) + 1, np.asarray(col) + 1
        left = padded[r - 1, c - 1] | padded[r, c - 1] | padded[r + 1, c - 1]
        right = padded[r - 1, c + 1] | padded[r, c + 1] | padded[r + 1, c + 1]
        top = padded[r - 1, c - 1] | padded[r - 1, c] | padded[r - 1, c + 1]
        bottom = padded[r + 1, c - 1] | padded[r + 1, c] | padded[r + 1, c + 1]
        return np.asarray(left * LEFT + top * TOP + right * RIGHT + bottom * BOTTOM, dtype=np.uint8)

    def write(self, path: str | Path, digest: str = "") -> None:
        """Write grid.parquet."""
        x, y = self.col * self.tiling.stride, self.row * self.tiling.stride
        table = pa.table(
            {
                "row": pa.array(self.row, pa.int32()),
                "col": pa.array(self.col, pa.int32()),
                "x": pa.array(x, pa.int32()),
                "y": pa.array(y, pa.int32()),
                "foreground": pa.array(self.foreground, pa.float32()),
                "shard": pa.array(self.shard, pa.int32()),
            }
        )
        metadata = {
            "format": GRID_FORMAT,
            "slide": self.slide,
            "version": __version__,
            "digest": digest,
            "grid": self.tiling.to_dict(),
            "shards": self.shards,
        }
        write_parquet(path, table, metadata)

    @classmethod
    def read(cls, path: str | Path) -> Grid:
        """Read grid.parquet; raises FormatError, or UpstreamFailure for a failure record."""
        table, metadata = read_parquet(path, GRID_FORMAT)
        tiling = Tiling.of_file(path, metadata)
        try:
            found = cls(
                tiling=tiling,
                slide=str(metadata["slide"]),
                row=table["row"].to_numpy(),
                col=table["col"].to_numpy(),
                foreground=table["foreground"].to_numpy(),
                shard=table["shard"].to_numpy(),
                shards=int(metadata["shards"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: {error} is missing or wrong; expected {GRID_FORMAT}; run grid again") from error
        limits = {
            "row": (found.row, tiling.rows),
            "col": (found.col, tiling.cols),
            "shard": (found.shard, found.shards),
        }
        for name, (values, end) in limits.items():
            if len(values) and not (values.dtype.kind == "i" and 0 <= values.min() <= values.max() < end):
                raise FormatError(f"{path}: column {name} is not within 0..{end - 1}; run grid again")
        return found


def grid(
    info: str | Path,
    out: str | Path,
    foreground: str | Path,
    *,
    preset: Preset,
    side_files: Sequence[str | Path] = (),
    prompts: str | Path | None = None,
    digest: str = "",
) -> Grid:
    """Find the foreground of a slide and the tiles worth segmenting; write grid.parquet and foreground.tif.

    Parameters
    ----------
    info : slide.json.
    out, foreground : the two outputs.
    preset : working resolution, tiles and foreground rule.
    side_files : polygons of the sample sheet; tiles they touch are kept wherever they lie.
    prompts : points and polygons of the sample sheet, as far as the segmenter takes them; the same holds for them.

    Raises
    ------
    UserError
        The slide or a side file cannot be read, or the preset does not fit the slide.
    """
    import shapely

    from gigaseg.sidefiles import read_features, read_polygons
    from gigaseg.slides.registry import open_slide
    from gigaseg.tiles.foreground import find_foreground

    slide_info = SlideInfo.read(info)
    card = read_card(preset.segmenter.name)
    tiling = working_tiling(
        slide_info.width,
        slide_info.height,
        slide_info.levels,
        slide_info.pixel_size,
        slide_info.unit,
        preset,
        card,
        slide_info.slide,
    )
    touching = [read_polygons(Path(path), slide_info, tiling).geometry for path in side_files]
    if prompts is not None:
        _, geometry = read_features(Path(prompts), slide_info, tiling)
        wanted = (0, 4) if card.takes_points else (0, 3, 4, 6)  # points; points and polygons
        touching.append(geometry[np.isin(shapely.get_type_id(geometry), wanted)])
    slide = open_slide(slide_info)
    try:
        found = find_foreground(slide, preset.foreground.method)
    finally:
        slide.close()
    row, col = (axis.reshape(-1) for axis in np.indices((tiling.rows, tiling.cols)))
    x, y = col * tiling.stride, row * tiling.stride
    boxes = np.column_stack([x, y, x + tiling.tile, y + tiling.tile])
    # of a tile that reaches beyond the slide only the part on it counts
    on_slide = np.minimum(boxes, [tiling.width, tiling.height] * 2)
    share = found.fraction(on_slide * np.tile(tiling.scale, 2)).reshape(tiling.rows, tiling.cols)
    # a neighbour without any foreground has nothing of an object: a model would look at bare glass
    kept = _with_neighbours((share > 0) & (share >= preset.foreground.min_fraction)) & (share > 0)
    for geometry in touching:
        tiles, _ = shapely.STRtree(geometry).query(shapely.box(*boxes.T), predicate="intersects")
        kept.reshape(-1)[tiles] = True
    rows, cols = np.nonzero(kept)
    shards = shards_of(kept.size, preset.tiles.tiles_per_shard)
    result = Grid(
        tiling=tiling,
        slide=slide_info.slide,
        row=rows.astype(np.int32),
        col=cols.astype(np.int32),
        foreground=share[kept].astype(np.float32),
        shard=(np.arange(len(rows)) // preset.tiles.tiles_per_shard).astype(np.int32),
        shards=shards,
    )
    note(tiles=len(rows))
    found.write(foreground, digest)
    result.write(out, digest)
    log.info(
        "slide '%s': %d of %d tiles kept in %d shards, working pixel %.4g x %.4g %s",
        slide_info.slide, len(rows), kept.size, shards, *tiling.pixel_size, tiling.unit,
    )  # fmt: skip
    return result


def _with_neighbours(hit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Each tile that is hit or has a hit among its 8 neighbours."""
    padded = np.pad(hit, 1)
    rows, cols = hit.shape
    around = [padded[r : r + rows, c : c + cols] for r in range(3) for c in range(3)]
    return np.asarray(np.logical_or.reduce(around), dtype=bool)
