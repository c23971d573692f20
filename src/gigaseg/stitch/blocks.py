"""The slide in blocks: where the rows lie in the shards, and what is found at the seams of one block.

A block is a run of tile rows and the one below it, whose instances it only compares with its own. Each pair of tiles
belongs to exactly one block, so the result does not depend on how the slide is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.files import read_metadata, require_columns
from gigaseg.instances.table import INSTANCES_FORMAT, box_array
from gigaseg.prompts.counts import of_slide
from gigaseg.stitch.match import match
from gigaseg.stitch.merge import Links, Nodes
from gigaseg.stitch.seam import Index, Seam, centrality, reaches
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

SEAM_COLUMNS = ("geometry", "bbox", "score", "tile_row", "tile_col", "cut", "prompt")
"""Columns that the search for pairs needs."""


@dataclass(frozen=True)
class Layout:
    """Where each tile instance of a slide lies; row r is the r-th of all shards in order.

    Attributes
    ----------
    grid : the kept tiles.
    classes : names of the classes.
    files : the shards, in order.
    file, group : (g,) shard and number in it of each Parquet row group.
    start : (g + 1,) first row of each row group, and the number of rows.
    row_start : (tile rows + 1,) first row of each row of tiles, and the number of rows.
    """

    grid: Grid
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    file: Index
    group: Index
    start: Index
    row_start: Index

    def __len__(self) -> int:
        return int(self.start[-1])

    def read(self, columns: Sequence[str], begin: int, end: int) -> Iterator[tuple[int, pa.Table]]:
        """Rows begin..end-1, a row group at a time, each with the place of its first row."""
        for k in range(int(np.searchsorted(self.start, begin, "right")) - 1, len(self.group)):
            low, high = max(begin, int(self.start[k])), min(end, int(self.start[k + 1]))
            if low >= end:
                return
            if low < high:
                yield low, self._read_group(k, columns).slice(low - int(self.start[k]), high - low)

    def take(self, columns: Sequence[str], rows: Index) -> pa.Table:
        """The rows in `rows` (ascending), each once."""
        where = np.searchsorted(self.start, rows, "right") - 1
        tables = [
            self._read_group(int(k), columns).take(pa.array(rows[where == k] - self.start[k])) for k in np.unique(where)
        ]
        return pa.concat_tables(tables)

    def runs(self, size: int) -> list[tuple[int, int]]:
        """Runs begin..end-1 of rows that are whole row groups, as many as have up to `size` rows, at least one."""
        runs, begin = [], 0
        for k in range(1, len(self.start)):
            if k == len(self.start) - 1 or self.start[k + 1] - begin > size:
                runs.append((begin, int(self.start[k])))
                begin = int(self.start[k])
        return [(begin, end) for begin, end in runs if end > begin]

    def _read_group(self, k: int, columns: Sequence[str]) -> pa.Table:
        path = self.files[self.file[k]]
        try:
            with pq.ParquetFile(path) as opened:
                table = opened.read_row_group(int(self.group[k]), list(columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            if is_machine_fault(error):
                raise
            raise FormatError(f"{path}: damaged Parquet file ({one_line(error)})") from error
        require_columns(path, columns, table.column_names)
        return table

    @contextmanager
    def blamed(self, begin: int, end: int) -> Iterator[None]:
        """What goes wrong with outlines of rows begin..end-1 is told of their file."""
        try:
            yield
        except shapely.errors.ShapelyError as error:
            groups = np.unique(self.file[np.searchsorted(self.start, [begin, max(begin, end - 1)], "right") - 1])
            names = " to ".join(str(self.files[number]) for number in groups)
            raise FormatError(f"{names}: damaged outline ({one_line(error)}); run segment again") from error


def scan(shards: Sequence[str | Path], grid: Grid, source: str | Path) -> tuple[Layout, dict[str, Any]]:
    """Find out where the tile instances lie; returns the layout and the provenance of the first shard.

    That holds the counts of prompts of all shards together.

    Parameters
    ----------
    shards : instances/NNN.parquet of every shard, in any order.
    grid : the kept tiles, read from `source`.

    Raises
    ------
    UpstreamFailure
        A shard is a failure record.
    FormatError
        A shard is missing, given twice, partial, out of order, or of another slide, grid or list of classes.
    """
    found: dict[int, tuple[Path, dict[str, Any]]] = {}
    for path in map(Path, shards):
        metadata = read_metadata(path, INSTANCES_FORMAT)
        if metadata["slide"] != grid.slide or Tiling.of_file(path, metadata) != grid.tiling:
            raise FormatError(
                f"{path}: made for slide '{metadata['slide']}' on another grid than {source}; run segment again"
            )
        shard = int(metadata["shard"])
        if shard in found:
            raise FormatError(f"{path}: shard {shard} is given twice, also as {found[shard][0]}")
        found[shard] = path, metadata
    if sorted(found) != list(range(grid.shards)):
        raise FormatError(f"{source}: {grid.shards} shards, but {len(found)} instance tables given")
    files = tuple(found[shard][0] for shard in sorted(found))
    # a shard without instances has no say: a segmenter may learn its classes from a file that it never opened there
    filled = [shard for shard in sorted(found) if pq.read_metadata(found[shard][0]).num_rows]
    first = found[filled[0] if filled else 0][1]
    for shard in filled:
        path, metadata = found[shard]
        if metadata["classes"] != first["classes"]:
            raise FormatError(
                f"{path}: classes are {metadata['classes']}, expected {first['classes']} as in other shards"
            )
    prompts = of_slide(metadata for _, metadata in found.values())
    file, group, rows, per_row = [], [], [], np.zeros(grid.tiling.rows, np.int64)
    last = -1
    kept = grid.kept
    for number, path in enumerate(files):
        try:
            with pq.ParquetFile(path) as opened:
                for k in range(opened.num_row_groups):
                    table = opened.read_row_group(k, ["tile_row", "tile_col"])
                    row, col = table["tile_row"].to_numpy(), table["tile_col"].to_numpy()
                    last = _check_order(path, row, col, last, kept)
                    file.append(number)
                    group.append(k)
                    rows.append(len(row))
                    per_row += np.bincount(row, minlength=len(per_row))
        except (OSError, pa.ArrowException, KeyError) as error:
            if is_machine_fault(error):
                raise
            raise FormatError(f"{path}: damaged Parquet file ({one_line(error)})") from error
    return Layout(
        grid=grid,
        classes=tuple(first["classes"]),
        files=files,
        file=np.asarray(file, dtype=np.int64),
        group=np.asarray(group, dtype=np.int64),
        start=np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]),
        row_start=np.concatenate([[0], np.cumsum(per_row)]),
    ), {**first, **({"prompts": prompts} if prompts else {})}


def _check_order(
    path: Path, row: npt.NDArray[np.int32], col: npt.NDArray[np.int32], last: int, kept: npt.NDArray[np.bool_]
) -> int:
    """Number of the last tile; raises FormatError unless tiles come in order, none before `last`, all of them kept."""
    if not len(row):
        return last
    inside = (row >= 0) & (row < kept.shape[0]) & (col >= 0) & (col < kept.shape[1])
    if not inside.all() or not kept[row, col].all():
        raise FormatError(f"{path}: holds instances of tiles that the grid does not keep; run segment again")
    tile = row.astype(np.int64) * kept.shape[1] + col
    if tile[0] < last or (np.diff(tile) < 0).any():
        raise FormatError(f"{path}: rows are not in the order of tiles and shards; run segment again")
    return int(tile[-1])


def cut_into_blocks(layout: Layout, size: int) -> list[tuple[int, int]]:
    """Runs [first, last) of tile rows with about `size` tile instances each, at least one row of tiles."""
    blocks, begin = [], 0
    start = layout.row_start
    for row in range(1, len(start)):
        if row == len(start) - 1 or start[row + 1] - start[begin] > size:
            if start[row] > start[begin]:
                blocks.append((begin, row))
            begin = row
    return blocks


@dataclass(frozen=True)
class Cuts:
    """How many tile instances touch a border of their tile: one without a kept neighbour, one with."""

    left: int = 0
    kept: int = 0

    @classmethod
    def of(cls, cut: npt.NDArray[np.uint8], open_sides: npt.NDArray[np.uint8]) -> Cuts:
        """Count (n,) masks of the borders touched, given those beyond which a kept tile sees on."""
        return cls(int(((cut & ~open_sides) > 0).sum()), int(((cut & open_sides) > 0).sum()))

    def __add__(self, other: Cuts) -> Cuts:
        return Cuts(self.left + other.left, self.kept + other.kept)


@dataclass(frozen=True)
class Found:
    """What one block found.

    Attributes
    ----------
    nodes : tile instances that take part in a pair.
    links : the pairs, by row of the slide's table instead of position.
    reaching : tile instances of the block that reach into another kept tile.
    cuts : of the tile instances of the block.
    """

    nodes: Nodes
    links: Links
    reaching: int
    cuts: Cuts


def find_pairs(layout: Layout, task: tuple[int, int, float]) -> Found:
    """Pairs between the tiles of rows [first, last), and with those of row `last`; task: (first, last, agreement)."""
    first, last, agreement = task
    grid = layout.grid
    begin, middle = int(layout.row_start[first]), int(layout.row_start[last])
    end = int(layout.row_start[min(last + 1, grid.tiling.rows)])
    # of row `last`, only what reaches into the row above has its pairs here
    seam_end = (last - 1) * grid.tiling.stride + grid.tiling.tile
    parts, cuts = [], Cuts()
    for place, table in layout.read(SEAM_COLUMNS, begin, end):
        box = box_array(table["bbox"])
        row, col = table["tile_row"].to_numpy(), table["tile_col"].to_numpy()
        cut, sides = table["cut"].to_numpy(), grid.open_sides(row, col)
        own = max(middle - place, 0)
        cuts += Cuts.of(cut[:own], sides[:own])
        near = np.flatnonzero(reaches(box, row, col, grid) & ((row < last) | (box[:, 1] <= seam_end)))
        with layout.blamed(place, place + len(table)):
            geometry = from_wkb(table["geometry"].take(pa.array(near)))
        parts.append(
            Seam(
                row=place + near,
                geometry=geometry,
                box=box[near],
                tile_row=row[near].astype(np.int64),
                tile_col=col[near].astype(np.int64),
                cut=cut[near],
                open_sides=sides[near],
                score=table["score"].to_numpy()[near],
                prompt=table["prompt"].fill_null(-1).to_numpy()[near],
            )
        )
    return pairs_of(Seam.concat(parts), grid.tiling, agreement, last, cuts)


def pairs_of(seam: Seam, tiling: Tiling, agreement: float, last_row: int | None, cuts: Cuts) -> Found:
    """What `match` finds, as nodes and links."""
    pairs = match(seam, tiling, agreement, last_row)
    used = np.unique(np.concatenate([pairs.first, pairs.second, pairs.rival_first, pairs.rival_second]))
    some = seam.take(used)
    area = np.zeros(len(seam))
    rivals = np.unique(np.concatenate([pairs.rival_first, pairs.rival_second]))
    area[rivals] = shapely.area(seam.geometry[rivals])
    whole = seam.whole
    whole[pairs.doubted] = False
    nodes = Nodes(
        row=some.row,
        tile=some.tile_row * tiling.cols + some.tile_col,
        whole=whole[used],
        centrality=centrality(some, tiling),
        score=some.score,
        area=area[used],
        cut_left=some.cut & ~some.open_sides,
        cut_kept=(some.cut & some.open_sides) > 0,
    )
    links = Links(
        first=seam.row[pairs.first],
        second=seam.row[pairs.second],
        agreement=pairs.agreement,
        rival_first=seam.row[pairs.rival_first],
        rival_second=seam.row[pairs.rival_second],
        rival_common=pairs.rival_common,
    )
    own = len(seam) if last_row is None else int((seam.tile_row < last_row).sum())
    return Found(nodes, links, own, cuts)


def from_wkb(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """(n,) geometries of a column of WKB."""
    return np.asarray(shapely.from_wkb(column.to_numpy()), dtype=object).reshape(len(column))
