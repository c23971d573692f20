"""prompts.parquet: what a slide's prompts are, and the tile that each goes to.

Columns, one row a prompt, ordered by (tile_row, tile_col, object, feature):

======================  ===================================  ==========================================================
prompt                  int64                                its id: the number of the row
tile_row, tile_col      int32                                the tile that gets it
object                  int64                                the prompts of one number together yield one instance
kind                    dictionary<string>                   point, box or mask
x, y                    float64                              of a point, working px; else null
box                     struct xmin, ymin, xmax, ymax        of a box or mask, working px, clipped to the slide
label                   int8                                 of a point: 1 on the object, 0 off it; else null
class                   dictionary<string>                   of the instance it yields
score                   float32                              how sure the prompter is, 0..1; 1 for prompts from a file
feature                 int64                                number of the feature in the file, from 0
geometry                binary (WKB)                         of a mask: its outline, working px; else null
class_prob              list<float32>                        of each class; only for points that a segmenter proposed
======================  ===================================  ==========================================================

Where objects are prompted for, one tile decodes each and has all of its prompts. Points that are hints for a segmenter
that finds its objects by itself (`every_tile` in the metadata) have one row for each tile that holds them: four for a
point in the overlap of four tiles. `object` is then the number of the point in the file, and `class` says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from gigaseg import __version__
from gigaseg.columns import class_probabilities, probability_column
from gigaseg.errors import FormatError
from gigaseg.files import read_parquet, write_parquet

PROMPTS_FORMAT = "gigaseg/prompts/1"

KINDS = ("point", "box", "mask")
POINT, BOX, MASK = range(3)
"""Values of `PromptTable.kind`."""

POSITIVE, NEGATIVE, UNLABELLED = 1, 0, -1
"""Values of `PromptTable.label`."""


@dataclass(frozen=True)
class PromptTable:
    """n prompts as columns, in working px.

    Attributes
    ----------
    tile_row, tile_col : (n,) int32, the tile that gets the prompt.
    object : (n,) int64, prompts of one number yield one instance together; of hints, the number of the point.
    kind : (n,) int8, `POINT`, `BOX` or `MASK`.
    xy : (n, 2) float64, of points; NaN for the others.
    box : (n, 4) float64 xmin, ymin, xmax, ymax, of boxes and masks; NaN for points.
    label : (n,) int8, `POSITIVE` or `NEGATIVE` for points, `UNLABELLED` for the others.
    class_index : (n,) int32 into `classes`.
    score : (n,) float32 in [0, 1].
    feature : (n,) int64, number of the feature in the file.
    geometry : (n,) outlines of masks, None for the others.
    classes : names of the classes, at least one.
    class_prob : (n, classes) float32, of points that a segmenter proposed; or None.
    """

    tile_row: npt.NDArray[np.int32]
    tile_col: npt.NDArray[np.int32]
    object: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    xy: npt.NDArray[np.float64]
    box: npt.NDArray[np.float64]
    label: npt.NDArray[np.int8]
    class_index: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    feature: npt.NDArray[np.int64]
    geometry: npt.NDArray[np.object_]
    classes: tuple[str, ...]
    class_prob: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.object)

    def take(self, index: npt.NDArray[Any]) -> PromptTable:
        """The rows `index` (positions or a bool mask)."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "classes"}
        return replace(self, **{name: column[index] for name, column in columns.items() if column is not None})

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """(n, 4) xmin, ymin, xmax, ymax of each prompt."""
        points = (self.kind == POINT)[:, None]
        return np.asarray(np.where(points, np.tile(self.xy, 2), self.box))

    def rows_of(self, row: int, col: int) -> npt.NDArray[np.int64]:
        """Positions of the prompts that tile (row, col) gets; they are the prompts' ids."""
        first = np.searchsorted(self.tile_row, [row, row + 1])
        cols = self.tile_col[first[0] : first[1]]
        return np.asarray(np.arange(*(first[0] + np.searchsorted(cols, [col, col + 1]))), np.int64)

    def write(self, path: str | Path, slide: str, metadata: Mapping[str, Any], digest: str = "") -> None:
        """Write prompts.parquet with `metadata` added to its provenance."""
        point = self.kind == POINT
        sides = [pa.array(self.box[:, i], pa.float64()) for i in range(4)]
        columns = {
            "prompt": pa.array(np.arange(len(self)), pa.int64()),
            "tile_row": pa.array(self.tile_row, pa.int32()),
            "tile_col": pa.array(self.tile_col, pa.int32()),
            "object": pa.array(self.object, pa.int64()),
            "kind": pa.DictionaryArray.from_arrays(pa.array(self.kind, pa.int32()), pa.array(KINDS, pa.string())),
            "x": pa.array(self.xy[:, 0], pa.float64(), mask=~point),
            "y": pa.array(self.xy[:, 1], pa.float64(), mask=~point),
            "box": pa.StructArray.from_arrays(sides, names=["xmin", "ymin", "xmax", "ymax"], mask=pa.array(point)),
            "label": pa.array(self.label, pa.int8(), mask=~point),
            "class": pa.DictionaryArray.from_arrays(
                pa.array(self.class_index, pa.int32()), pa.array(self.classes, pa.string())
            ),
            "score": pa.array(self.score, pa.float32()),
            "feature": pa.array(self.feature, pa.int64()),
            "geometry": pa.array(shapely.to_wkb(self.geometry, byte_order=1), pa.binary()),
        }
        if self.class_prob is not None:
            columns["class_prob"] = probability_column(self.class_prob)
        provenance = {
            "format": PROMPTS_FORMAT,
            "slide": slide,
            "version": __version__,
            "digest": digest,
            "classes": list(self.classes),
        }
        write_parquet(path, pa.table(columns), {**provenance, **metadata})

    @classmethod
    def read(cls, path: str | Path) -> tuple[PromptTable, dict[str, Any]]:
        """Read prompts.parquet and its provenance; raises FormatError, or UpstreamFailure for a failure record."""
        table, metadata = read_parquet(path, PROMPTS_FORMAT)
        try:
            classes = tuple(metadata["classes"])
            boxes = table["box"].combine_chunks()
            sides = [boxes.field(name).to_numpy(zero_copy_only=False) for name in ("xmin", "ymin", "xmax", "ymax")]
            xy = np.column_stack([table[name].to_numpy() for name in ("x", "y")]).astype(np.float64)
            kind = _index(table["kind"], KINDS).astype(np.int8)
            found = cls(
                tile_row=table["tile_row"].to_numpy(),
                tile_col=table["tile_col"].to_numpy(),
                object=table["object"].to_numpy(),
                kind=kind,
                xy=xy.reshape(-1, 2),
                box=np.where((kind == POINT)[:, None], np.nan, np.column_stack(sides).reshape(-1, 4)),
                label=table["label"].fill_null(UNLABELLED).to_numpy(),
                class_index=_index(table["class"], classes),
                score=table["score"].to_numpy(),
                feature=table["feature"].to_numpy(),
                geometry=np.asarray(shapely.from_wkb(table["geometry"].to_numpy()), dtype=object).reshape(-1),
                classes=classes,
                class_prob=class_probabilities(table, classes) if "class_prob" in table.column_names else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: {error} is missing or wrong; run prompt again") from error
        return found, metadata


def _index(column: pa.ChunkedArray, names: tuple[str, ...]) -> npt.NDArray[np.int32]:
    index = pc.index_in(column.cast(pa.string()), value_set=pa.array(names, pa.string()))
    if index.null_count:
        raise ValueError(f"a value besides {', '.join(names)}")
    return np.asarray(index.to_numpy(), np.int32)
