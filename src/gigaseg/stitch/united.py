"""Objects no tile saw whole: the union of their pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.columns import class_probabilities
from gigaseg.stitch.blocks import Layout, from_wkb
from gigaseg.stitch.seam import Index


@dataclass(frozen=True)
class United:
    """k united objects.

    Attributes
    ----------
    row : (k,) rows of the slide's table of tile instances that they replace, ascending.
    geometry : (k,) polygons or multipolygons, working px.
    score : (k,) float32, mean of the members weighted by area.
    class_prob : (k, classes) float32, likewise.
    """

    row: Index
    geometry: npt.NDArray[np.object_]
    score: npt.NDArray[np.float32]
    class_prob: npt.NDArray[np.float32]


@dataclass(frozen=True)
class UniteTask:
    """Objects to unite: their rows, and the rows of their members by owner (position in `row`)."""

    row: Index
    member_row: Index
    member_owner: Index


def unite_stored(layout: Layout, task: UniteTask) -> United:
    """Unite the objects of a task, reading their members from the shards."""
    columns = ["geometry", "score"] + (["class_prob"] if len(layout.classes) > 1 else [])
    order = np.argsort(task.member_row, kind="stable")
    table = layout.take(columns, task.member_row[order])
    back = np.argsort(order, kind="stable")
    geometry, score = from_wkb(table["geometry"])[back], table["score"].to_numpy()[back]
    return unite(task, geometry, score, class_probabilities(table, layout.classes)[back])


def unite(
    task: UniteTask,
    geometry: npt.NDArray[np.object_],
    score: npt.NDArray[np.float32],
    class_prob: npt.NDArray[np.float32],
) -> United:
    """Unite the objects of a task; the other arguments are those of its members, in the task's order."""
    area = shapely.area(geometry)
    owner = task.member_owner
    total = np.bincount(owner, weights=area)
    prob = [np.bincount(owner, weights=area * column) / total for column in class_prob.T]
    return United(
        row=task.row,
        geometry=union_of(geometry, owner),
        score=(np.bincount(owner, weights=area * score) / total).astype(np.float32),
        class_prob=np.stack(prob, axis=1).astype(np.float32),
    )


def union_of(geometry: npt.NDArray[np.object_], owner: Index) -> npt.NDArray[np.object_]:
    """Union of the geometries of each owner (ascending), without the collinear vertices that seams leave behind."""
    collections = shapely.geometrycollections(geometry, indices=owner)
    united = shapely.union_all(np.asarray(collections, dtype=object)[:, None], axis=1)
    return np.asarray(shapely.simplify(united, 0), dtype=object)
