"""The instances as a label image: a pyramid of int32 whose pixels hold the number of the instance they belong to.

Level 0 is the slide at its working resolution: there the pixels are those that the segmenter drew. A further level
takes every second pixel of the one before, so that no number is made up. A pixel belongs to an instance that covers its
centre; to the later one of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from gigaseg.export.measured import MeasuredInstances
from gigaseg.measure.runs import Runs, pixel_runs
from gigaseg.measure.stream import InstanceFile
from gigaseg.measure.windows import to_working
from gigaseg.tiles.tiling import Tiling

CHUNK = 512
"""Side of what a reader decodes at once, px."""

BLOCK = 2048
"""Side of what is painted at once and of a Zarr shard, px: 16 MB."""


@dataclass(frozen=True)
class LabelPyramid:
    """The label image of a slide.

    Attributes
    ----------
    found : its instances.
    tiling : the slide at its working resolution.
    """

    found: MeasuredInstances
    tiling: Tiling

    @classmethod
    def of(cls, found: MeasuredInstances) -> LabelPyramid:
        """The label image of `found`, not painted yet; raises FormatError when their file has no grid."""
        return cls(found, Tiling.of_file(found.path, InstanceFile(found.path).metadata))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of each level, down to one chunk."""
        return pyramid_shapes(self.tiling.height, self.tiling.width)

    def write(self, group: zarr.Group) -> None:
        """Write the levels as arrays "0", "1", …; in memory is a block and the runs of the instances of its rows."""
        previous: zarr.Array[Any] | None = None
        for level, shape in enumerate(self.shapes):
            array = group.create_array(
                str(level),
                shape=shape,
                dtype="int32",
                chunks=(CHUNK, CHUNK),
                shards=(BLOCK, BLOCK),
                fill_value=0,
                dimension_names=("y", "x"),
            )
            blocks = self._painted() if previous is None else _halved(previous, shape)
            for top, left, block in blocks:
                array[top : top + block.shape[0], left : left + block.shape[1]] = block
            previous = array

    def _painted(self) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
        """Top, left and pixels of every block with an instance."""
        instances = InstanceFile(self.found.path)
        for _ in instances.scan():
            pass  # it remembers where its row groups reach
        height, width = self.tiling.height, self.tiling.width
        for top in range(0, height, BLOCK):
            bottom = min(top + BLOCK, height)
            runs = self._runs(instances, top, bottom)
            for left in range(0, width, BLOCK):
                right = min(left + BLOCK, width)
                own = runs.take((runs.stop > left) & (runs.start < right)).clipped(left, right)
                if len(own.owner):
                    block = np.zeros((bottom - top) * (right - left), np.int32)
                    # of equal places the last one counts
                    place, owner = own.pixels(left, top, right - left)
                    block[place] = owner
                    yield top, left, block.reshape(bottom - top, right - left)

    def _runs(self, instances: InstanceFile, top: int, bottom: int) -> Runs:
        """Runs of pixels in rows [top, bottom), owners being numbers of instances, ascending."""
        scale = self.tiling.scale
        exact = bool(instances.metadata.get("outlines") == "pixels")
        area = (-np.inf, (top - 1) * scale[1], np.inf, (bottom + 1) * scale[1])
        parts = [Runs(*(np.empty(0, np.int64) for _ in range(4)))]
        for row, _, _, geometry in instances.window(area):
            runs = pixel_runs(to_working(geometry, scale, exact), top, bottom, self.tiling.width)
            parts.append(Runs(row[runs.owner] + 1, runs.row, runs.start, runs.stop))
        names = ("owner", "row", "start", "stop")
        return Runs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def pyramid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the levels of a pyramid, each half the one before, rounded up, down to one chunk."""
    shapes = [(height, width)]
    while max(shapes[-1]) > CHUNK:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def _halved(array: zarr.Array[Any], shape: tuple[int, int]) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
    """Every second pixel of the blocks of a level that hold any instance."""
    for top in range(0, shape[0], BLOCK):
        for left in range(0, shape[1], BLOCK):
            rows, columns = slice(2 * top, 2 * (top + BLOCK)), slice(2 * left, 2 * (left + BLOCK))
            block = np.asarray(array[rows, columns])[::2, ::2]
            if block.any():
                yield top, left, block
