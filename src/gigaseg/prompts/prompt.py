"""The prompt step: a slide's prompts from a file, each given to the one tile that decodes it, or to all as a hint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.errors import SegmenterError
from gigaseg.files import same_slide
from gigaseg.prompts.owner import centrality, holders, owners
from gigaseg.prompts.read import read_points, read_prompts
from gigaseg.prompts.table import POINT, POSITIVE, UNLABELLED, PromptTable
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.grid import Grid

log = logging.getLogger(__name__)

EXAMPLES = 5
"""How many of the prompts that are reported are named with their place."""


def prompt(
    info: str | Path,
    grid: str | Path,
    foreground: str | Path,
    out: str | Path,
    *,
    prompts: str | Path | None,
    polygons_as: str = "box",
    every_tile: bool = False,
    digest: str = "",
) -> PromptTable:
    """Read the prompts of a slide and give them to its tiles; write prompts.parquet.

    An object belongs to the tile in which its positive points and boxes lie most centrally (`gigaseg.prompts.owner`).
    Prompts off the slide or in no kept tile are left out; objects outside the foreground and objects larger than a
    tile are decoded. All four are counted in the log and under ``found`` in the file's metadata, the first ones with
    their places in level-0 px.

    With `every_tile` they are hints for a segmenter that finds its objects by itself (`Card.takes_points`): each
    point stands for itself and goes to all kept tiles that hold it, since each of them is segmented without the
    others. Other features are left out.

    Parameters
    ----------
    info, grid, foreground : slide.json, grid.parquet, foreground.tif.
    out : prompts.parquet.
    prompts : the file of points, boxes and polygons.
    polygons_as : what a polygon becomes, one of `gigaseg.prompts.read.POLYGONS_AS`.
    every_tile : take points alone, and give each to every tile that holds it.

    Raises
    ------
    UserError
        There is no such file, or it cannot be used (see `read_prompts`).
    """
    slide_info, kept = SlideInfo.read(info), Grid.read(grid)
    same_slide(slide_info.slide, kept.slide, grid)
    if prompts is None:
        raise SegmenterError(
            f"slide '{slide_info.slide}': its segmenter needs the column 'prompts' of the sample sheet; none is given"
        )
    if every_tile:
        table, report = _every_tile(Path(prompts), slide_info, kept)
    else:
        table, report = _one_tile(Path(prompts), slide_info, kept, Foreground.read(foreground), polygons_as)
    metadata = {"found": report, "grid": kept.tiling.to_dict(), **({"every_tile": True} if every_tile else {})}
    table.write(out, slide_info.slide, metadata, digest)
    return table


def _every_tile(path: Path, info: SlideInfo, kept: Grid) -> tuple[PromptTable, dict[str, Any]]:
    """One row for each tile that holds a point, and the report."""
    read = read_points(path, info, kept.tiling)
    point, tile = holders(shapely.points(read.table.xy), (kept.row, kept.col), kept.tiling)
    held = np.isin(np.arange(len(read.table)), point)
    report: dict[str, Any] = {
        **read.counts,
        "off_slide": _told(read.off_slide * kept.tiling.scale),
        "off_tiles": _told(read.table.xy[~held] * kept.tiling.scale),
    }
    table = replace(read.table.take(point), tile_row=kept.row[tile], tile_col=kept.col[tile])
    table = table.take(np.lexsort((table.object, table.tile_col, table.tile_row)))
    log.info(
        "%s: %d positive and %d negative points, hints for %d tiles",
        path, report["positive"], report["negative"], len(np.unique(tile)),
    )  # fmt: skip
    if report["other_features"]:
        log.warning("%s: %d features of other kinds than points are left out", path, report["other_features"])
    if not len(read.table):
        log.warning("%s: holds no point; the slide is segmented without hints", path)
    _warn(path, report, "off_slide", "points lie off the slide and are left out")
    _warn(path, report, "off_tiles", "points lie in no kept tile and are left out")
    return table, report


def _one_tile(
    path: Path, info: SlideInfo, kept: Grid, mask: Foreground, polygons_as: str
) -> tuple[PromptTable, dict[str, Any]]:
    """One row for each prompt in the tile that owns its object, and the report."""
    tiling = kept.tiling
    read = read_prompts(path, info, tiling, polygons_as)
    table = read.table
    extent = _extents(table)
    parts = np.flatnonzero(table.label != 0)
    geometry = np.where(
        table.kind == POINT, shapely.points(np.nan_to_num(table.xy)), shapely.box(*np.nan_to_num(table.box).T)
    )
    positions = np.unique(table.object, return_inverse=True)[1]
    owner = owners(extent, geometry[parts], positions[parts], (kept.row, kept.col), tiling)
    centre = (extent[:, :2] + extent[:, 2:]) / 2 * tiling.scale
    held = owner >= 0
    crossing = held.copy()
    crossing[held] = centrality(extent[held], kept.row[owner[held]], kept.col[owner[held]], tiling)[:, 0] < 0
    outside = held & (mask.fraction(np.column_stack([centre, centre + 1])) < 0.5)
    report: dict[str, Any] = {
        "objects": int(held.sum()),
        **read.counts,
        "off_slide": _told(read.off_slide * tiling.scale),
        "off_tiles": _told(centre[~held]),
        "off_foreground": _told(centre[outside]),
        "larger_than_tile": _told(centre[crossing]),
    }
    rows = held[positions]
    table = replace(
        table,
        tile_row=np.where(rows, kept.row[owner[positions]] if len(kept.row) else -1, -1).astype(np.int32),
        tile_col=np.where(rows, kept.col[owner[positions]] if len(kept.row) else -1, -1).astype(np.int32),
    ).take(rows)
    table = table.take(np.lexsort((table.feature, table.object, table.tile_col, table.tile_row)))
    _log(path, table, report)
    return table, report


def _extents(table: PromptTable) -> npt.NDArray[np.float64]:
    """(m, 4) bounds of the positive prompts of each object."""
    positive = np.flatnonzero((table.label == POSITIVE) | (table.label == UNLABELLED))
    positive = positive[np.argsort(table.object[positive], kind="stable")]
    _, start = np.unique(table.object[positive], return_index=True)
    extent = table.extent[positive]
    return np.column_stack([np.minimum.reduceat(extent[:, :2], start), np.maximum.reduceat(extent[:, 2:], start)])


def _told(places: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Number of the prompts that lie at `places` (level-0 px), and the first of them."""
    return {"count": len(places), "first": np.round(places[:EXAMPLES], 1).tolist()}


def _log(path: Path, table: PromptTable, report: dict[str, Any]) -> None:
    log.info(
        "%s: %d prompts of %d objects in %d tiles; %d features of other kinds, %d polygons repaired, %d without area, "
        "%d negative points joined the nearest object",
        path, len(table), report["objects"], len(np.unique(np.stack([table.tile_row, table.tile_col]), axis=1).T),
        report["other_features"], report["repaired"], report["without_area"], report["negatives_to_nearest"],
    )  # fmt: skip
    _warn(path, report, "off_slide", "prompts lie off the slide and are left out")
    _warn(path, report, "off_tiles", "objects lie in no kept tile and are left out")
    _warn(path, report, "off_foreground", "objects lie outside the foreground (they are segmented all the same)")
    _warn(path, report, "larger_than_tile", "objects are larger than their tile and will be cut off at its border")


def _warn(path: Path, report: dict[str, Any], key: str, what: str) -> None:
    told = report[key]
    if told["count"]:
        first = "; ".join(f"{x:g}, {y:g}" for x, y in told["first"])
        log.warning("%s: %d %s; level-0 px of the first: %s", path, told["count"], what, first)
