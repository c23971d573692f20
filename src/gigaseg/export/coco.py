"""COCO JSON: one image, the slide at level 0, and an annotation an instance; for training and detection tools.

An instance without holes is a list of polygons. COCO's polygons have no holes, so one with holes is a mask as run
lengths: the pixels of level 0 whose centre it covers, column by column. pycocotools counts pixels in 32 bits, so it
reads such masks of slides up to 4.29 gigapixels only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import shapely

from gigaseg.export.measured import Batch, MeasuredInstances
from gigaseg.files import atomic
from gigaseg.measure.runs import pixel_runs

DECIMALS = 2
"""Decimals of a coordinate, level-0 px."""


def write_coco(found: MeasuredInstances, path: Path) -> None:
    """Write images, categories and annotations, an annotation a line, in bounded memory.

    Ids are the instance's number, and the class's place among the classes from 1 on. Areas are px² of the outline;
    boxes are x, y, width, height. "score" is there besides, measurements are not.

    Parameters
    ----------
    found : the instances of a slide.
    path : target; replaced when complete.

    Raises
    ------
    FormatError : as `MeasuredInstances`.
    """
    info = found.info
    image = {"id": 1, "file_name": Path(info.path).name, "width": info.width, "height": info.height}
    categories = [
        {"id": i, "name": name, "supercategory": "", "color": list(color)}
        for i, (name, color) in enumerate(zip(found.classes, found.colors, strict=True), 1)
    ]
    head = {"info": {"description": f"instances of slide {info.slide}"}, "images": [image], "categories": categories}
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "annotations": [')
        separator = b"\n"
        for batch in found:
            stream.write(separator + b",\n".join(_annotations(batch, info.width, info.height)))
            separator = b",\n"
        stream.write(b"\n]}\n")


def _annotations(batch: Batch, width: int, height: int) -> Iterator[bytes]:
    bounds = shapely.bounds(batch.geometry).reshape(-1, 4)
    boxes = np.column_stack([bounds[:, :2], bounds[:, 2:] - bounds[:, :2]]).round(DECIMALS).tolist()
    area = shapely.area(batch.geometry).round(DECIMALS).tolist()
    segmentation = _segmentation(batch.geometry, width, height)
    for i, instance in enumerate(batch.instance.tolist()):
        yield orjson.dumps(
            {
                "id": instance,
                "image_id": 1,
                "category_id": int(batch.class_index[i]) + 1,
                "segmentation": segmentation[i],
                "area": area[i],
                "bbox": boxes[i],
                "iscrowd": 0,
                "score": batch.score[i],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )


def _segmentation(geometry: npt.NDArray[np.object_], width: int, height: int) -> list[Any]:
    """Polygons x, y, x, y, … of each instance without holes, run lengths of each with holes."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    holed = np.zeros(len(geometry), bool)
    holed[owner[shapely.get_num_interior_rings(parts) > 0]] = True
    found: list[Any] = [[] for _ in range(len(geometry))]
    for part, index in zip(parts[~holed[owner]], owner[~holed[owner]].tolist(), strict=True):
        # the last corner is the first one again
        found[index].append(shapely.get_coordinates(part)[:-1].round(DECIMALS).ravel())
    with_holes = np.flatnonzero(holed)
    for index, counts in zip(with_holes.tolist(), _run_lengths(geometry[with_holes], width, height), strict=True):
        found[index] = {"size": [height, width], "counts": counts}
    return found


def _run_lengths(geometry: npt.NDArray[np.object_], width: int, height: int) -> Iterator[npt.NDArray[np.int64]]:
    """Lengths of the runs off, on, off, … over the image, column by column."""
    # columns are the rows of the picture mirrored at its diagonal
    runs = pixel_runs(shapely.transform(geometry, lambda xy: xy[:, ::-1]), 0, width, height)
    first = np.searchsorted(runs.owner, np.arange(len(geometry) + 1))
    for begin, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        column = runs.row[begin:end] * height
        edges = np.column_stack([column + runs.start[begin:end], column + runs.stop[begin:end]]).ravel()
        # a run that ends where the next column's begins is one with it
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
        yield np.diff(np.concatenate([[0], edges, [width * height]]))
