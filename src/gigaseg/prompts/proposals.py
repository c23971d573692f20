"""prompts/NNN.parquet: the points that a segmenter proposes on the tiles of a shard.

Columns, one row a point, ordered by (tile_row, tile_col), then as the segmenter found them: tile_row, tile_col (int32),
x, y (float64, working px), score (float32), class_prob (list<float32>, one of each class in the metadata).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gigaseg.columns import class_probabilities, probability_column
from gigaseg.errors import FormatError
from gigaseg.files import read_parquet, write_parquet
from gigaseg.prompts.proposed import TileProposals
from gigaseg.segmenters.base import Proposals

PROPOSALS_FORMAT = "gigaseg/proposals/1"


def write_proposals(
    path: str | Path, found: TileProposals, classes: tuple[str, ...], metadata: Mapping[str, Any]
) -> None:
    """Write the points of some tiles with the names of their classes."""
    points = found.points
    columns = {
        "tile_row": pa.array(found.tile_row, pa.int32()),
        "tile_col": pa.array(found.tile_col, pa.int32()),
        "x": pa.array(points.xy[:, 0], pa.float64()),
        "y": pa.array(points.xy[:, 1], pa.float64()),
        "score": pa.array(points.score, pa.float32()),
        "class_prob": probability_column(points.class_prob),
    }
    write_parquet(path, pa.table(columns), {"format": PROPOSALS_FORMAT, **metadata, "classes": list(classes)})


def read_proposals(path: str | Path) -> tuple[TileProposals, tuple[str, ...], dict[str, Any]]:
    """Points, classes and provenance; raises FormatError, or UpstreamFailure for a failure record."""
    table, metadata = read_parquet(path, PROPOSALS_FORMAT)
    try:
        classes = tuple(metadata["classes"])
        points = Proposals(
            xy=np.column_stack([table[name].to_numpy() for name in ("x", "y")]).reshape(-1, 2),
            score=table["score"].to_numpy(),
            class_prob=class_probabilities(table, classes),
        )
        found = TileProposals(table["tile_row"].to_numpy(), table["tile_col"].to_numpy(), points)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error} is missing or wrong; run propose again") from error
    return found, classes, metadata
