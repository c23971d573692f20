"""Columns of lists that several tables have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def class_probabilities(table: pa.Table, classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """(n, classes) probabilities; ones where the table has no column of them, with at most one class."""
    if len(classes) < 2:
        return np.ones((len(table), len(classes)), np.float32)
    lists = table["class_prob"]
    flat = [chunk.flatten().to_numpy() for chunk in lists.chunks]
    values = np.concatenate(flat) if flat else np.empty(0)
    return values.astype(np.float32).reshape(len(table), len(classes))


def probability_column(prob: npt.NDArray[np.float32]) -> pa.ListArray:
    """Inverse of `class_probabilities`, for more than one class."""
    flat = pa.array(prob.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, prob.shape[1]).cast(pa.list_(pa.float32()))
