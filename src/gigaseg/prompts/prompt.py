"""The prompt step: a slide's prompts from a file, each given to the one tile that decodes it."""

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
from gigaseg.prompts.owner import centrality, owners
from gigaseg.prompts.read import read_prompts
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
    digest: str = "",
) -> PromptTable:
    """Read the prompts of a slide and give each object to one tile; write prompts.parquet.

    An object belongs to the tile in which its positive points and boxes lie most centrally (`gigaseg.prompts.owner`).
    Prompts off the slide or in no kept tile are left out; objects outside the foreground and objects larger than a
    tile are decoded. All four are counted in the log and under ``found`` in the file's metadata, the first ones with
    their places in level-0 px.

    Parameters
    ----------
    info, grid, foreground : slide.json, grid.parquet, foreground.tif.
    out : prompts.parquet.
    prompts : the file of points, boxes and polygons.
    polygons_as : what a polygon becomes, one of `gigaseg.prompts.read.POLYGONS_AS`.

    Raises
    ------
    UserError
        There is no such file, or it cannot be used (see `read_prompts`).
    """
    slide_info, kept, mask = SlideInfo.read(info), Grid.read(grid), Foreground.read(foreground)
    same_slide(slide_info.slide, kept.slide, grid)
    if prompts is None:
        raise SegmenterError(
            f"slide '{slide_info.slide}': its segmenter needs the column 'prompts' of the sample sheet; none is given"
        )
    tiling = kept.tiling
    read = read_prompts(Path(prompts), slide_info, tiling, polygons_as)
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
    table.write(out, slide_info.slide, {"found": report, "grid": tiling.to_dict()}, digest)
    _log(Path(prompts), table, report)
    return table


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
    for key, what in (
        ("off_slide", "prompts lie off the slide and are left out"),
        ("off_tiles", "objects lie in no kept tile and are left out"),
        ("off_foreground", "objects lie outside the foreground (they are segmented all the same)"),
        ("larger_than_tile", "objects are larger than their tile and will be cut off at its border"),
    ):
        told = report[key]
        if told["count"]:
            first = "; ".join(f"{x:g}, {y:g}" for x, y in told["first"])
            log.warning("%s: %d %s; level-0 px of the first: %s", path, told["count"], what, first)
