"""What the browser needs of a slide's instances, made once: a ZIP of small files, each gzip where its name says so.

==========================  =====================================================================================
meta.json                   what there is: tiles, columns with range and unit, classes with colours, grid, regions
centres.gz                  float32 x of all instances, then y, then radius of the circle of equal area; level-0 px
columns/NAME.gz             a column of all instances: its own type, or uint16 places among ``categories``
rows/N.gz                   `ROWS` instances from row N × `ROWS` on, all columns: float64, column after column
outlines/COLUMN_ROW.gz      outlines of a tile (`gigaseg.viewer.outlines`)
prompts.gz                  float32 xmin, ymin, xmax, ymax of all prompts (a point twice), then int8 labels; level-0 px
==========================  =====================================================================================

It is no result: it can be deleted at any time, and is made again when what it was made of has changed.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from gigaseg import __version__
from gigaseg.export.measured import MeasuredInstances
from gigaseg.files import atomic, digest, read_parquet
from gigaseg.instances.table import STITCHED_FORMAT, box_array
from gigaseg.prompts.table import PromptTable
from gigaseg.tiles.grid import Grid
from gigaseg.viewer.archive import Writer
from gigaseg.viewer.columns import OWN, ROWS, Rows, row_values, write_columns
from gigaseg.viewer.outlines import Layout, TileOutlines, parts_by_tile

log = logging.getLogger(__name__)

PACK_FORMAT = "gigaseg/view/2"


@dataclass(frozen=True)
class SlideFiles:
    """The results of a slide that the viewer reads; `prompts` and `regions` need not be there."""

    info: Path
    grid: Path
    instances: Path
    measurements: Path
    prompts: Path
    regions: Path

    @classmethod
    def of(cls, folder: Path) -> SlideFiles:
        """Those in ``results/SLIDE``."""
        tables = (f"{name}.parquet" for name in ("grid", "instances", "measurements", "prompts"))
        return cls(*(folder / name for name in ("slide.json", *tables, "regions.gpkg")))

    def state(self, class_colors: Mapping[str, str]) -> dict[str, Any]:
        """Tells whether a pack was made of what is there now: sizes and times of the files, colours, version."""
        found: dict[str, Any] = {"version": __version__, "colors": dict(class_colors)}
        for path in (self.info, self.grid, self.instances, self.measurements, self.prompts, self.regions):
            if path.exists():
                status = path.stat()
                found[path.name] = [status.st_size, status.st_mtime_ns]
        return found


def is_current(pack: Path, state: Mapping[str, Any]) -> bool:
    """Whether `pack` is there, whole, and made of files in this state."""
    try:
        with zipfile.ZipFile(pack) as archive:
            meta = json.loads(archive.read("meta.json"))
            return bool(meta.get("format") == PACK_FORMAT and meta.get("state") == state)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False


def make_pack(
    files: SlideFiles,
    out: Path,
    *,
    class_colors: Mapping[str, str] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Pack the instances of a slide for the viewer; memory is that of a band of tiles, and of one column.

    Parameters
    ----------
    files : the results of the slide.
    out : the ZIP; replaced when complete.
    class_colors : colour of each class, #rrggbb, that does not get the palette's.
    progress : told the share that is done, 0..1.

    Raises
    ------
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or foreign, or they are not of one slide.
    """
    state = files.state(class_colors or {})
    found = MeasuredInstances(files.instances, files.measurements, files.info, class_colors)
    grid = Grid.read(files.grid)
    table, _ = read_parquet(files.instances, STITCHED_FORMAT, ["bbox", "class", "score", *OWN])
    layout = Layout.of(box_array(table["bbox"]))
    with atomic(out) as temporary, Writer(temporary) as archive:
        columns = write_columns(found, table, files.measurements, archive)
        tiles = _write_instances(found, layout, grid, table, columns, archive, progress)
        meta = {
            "format": PACK_FORMAT,
            "state": state,
            "version": digest(state),
            "slide": found.info.slide,
            "instances": found.count,
            "rows": ROWS,
            "side": layout.side,
            "tiles": tiles,
            "columns": columns,
            "grid": _grid(grid),
            "prompts": _prompts(files.prompts, grid, archive),
            "regions": _regions(files, found, grid),
        }
        archive.write("meta.json", json.dumps(meta, ensure_ascii=False, allow_nan=False).encode())
    progress(1.0)
    log.info("slide '%s': packed %d instances for the viewer in %s", found.info.slide, found.count, out)


def _write_instances(
    found: MeasuredInstances,
    layout: Layout,
    grid: Grid,
    table: pa.Table,
    columns: list[dict[str, Any]],
    archive: Writer,
    progress: Callable[[float], None],
) -> list[list[Any]]:
    """Write outlines, rows and centres; returns [column, row, instances, xmin, ymin, xmax, ymax] of each tile."""
    origin, step = layout.frame(grid.tiling.scale)
    boxes = box_array(table["bbox"])
    centres = np.empty((3, found.count), np.float32)
    centres[:2] = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    own = {name: table[name].to_numpy() for name in OWN}
    last = np.zeros(len(layout.rows), np.int64)
    np.maximum.at(last, layout.tile, np.arange(found.count))
    held: dict[int, TileOutlines] = {}
    first = 0
    pending = Rows(archive)
    for batch in found:
        end = first + len(batch)
        centres[2, first:end] = np.sqrt(shapely.area(batch.geometry) / np.pi)
        pending.add(row_values(batch, columns, {name: values[first:end] for name, values in own.items()}))
        for tile, part in parts_by_tile(batch.geometry, first, layout.tile[first:end], origin, step):
            held.setdefault(tile, TileOutlines()).extend(part)
        for tile in [tile for tile in held if last[tile] < end]:
            whole = held.pop(tile)
            name = f"outlines/{layout.columns[tile]}_{layout.rows[tile]}.gz"
            archive.later(name, lambda whole=whole, o=origin[tile], s=step[tile]: whole.encode(o, s))  # type: ignore[misc]
        first = end
        progress(0.95 * end / max(found.count, 1))
    pending.flush()
    archive.compress("centres.gz", centres.astype("<f4").tobytes())
    counts = np.bincount(layout.tile, minlength=len(layout.rows))
    places = zip(layout.columns.tolist(), layout.rows.tolist(), counts.tolist(), layout.bounds.tolist())
    return [[column, row, count, *bounds] for column, row, count, bounds in places]


def _grid(grid: Grid) -> dict[str, Any]:
    tiling = grid.tiling
    kept = np.zeros((tiling.rows, tiling.cols), np.uint8)
    kept[grid.row, grid.col] = 1
    return {
        "tile": tiling.tile,
        "overlap": tiling.overlap,
        "scale": list(tiling.scale),
        "rows": tiling.rows,
        "cols": tiling.cols,
        "kept": ["".join(map(str, row)) for row in kept],
    }


def _prompts(path: Path, grid: Grid, archive: Writer) -> int:
    """Write prompts.gz; returns the number of prompts."""
    if not path.exists():
        return 0
    prompts, _ = PromptTable.read(path)
    extent = prompts.extent * np.tile(np.asarray(grid.tiling.scale), 2)
    data = extent.T.astype("<f4").tobytes() + prompts.label.astype(np.int8).tobytes()
    archive.compress("prompts.gz", data)
    return len(prompts)


def _regions(files: SlideFiles, found: MeasuredInstances, grid: Grid) -> list[dict[str, Any]]:
    if not files.regions.exists():
        return []
    from gigaseg.measure.regions import Regions

    regions = Regions.read(files.regions, found.info, grid.tiling)
    return [{"name": name, "rings": _rings(shape)} for name, shape in zip(regions.names, regions.geometry)]


def _rings(shape: shapely.Geometry) -> list[list[float]]:
    """x, y, x, y, … of each ring of a polygon or multipolygon, level-0 px."""
    parts = shapely.get_rings(shapely.get_parts(shape))
    return [np.round(shapely.get_coordinates(ring), 2).reshape(-1).tolist() for ring in parts]
