"""The PanNuke protocol: bPQ, mPQ and per-class PQ over tissues and folds (Gamper et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import FormatError, unknown
from gigaseg.metrics.classes import group_means, mean_of_groups, nan_mean
from gigaseg.metrics.instance import panoptic_quality
from gigaseg.metrics.overlap import FloatArray, Overlap

CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""The classes in the order of the channels; a sixth channel holds the background."""

FOLDS = ((1, 2, 3), (2, 1, 3), (3, 2, 1))
"""(train, validation, test) fold of the three runs whose mean is reported."""

CLASS_MAPS = ("channels", "merged")
"""How an image becomes one label image a class: its raw channels, or the merged map (a pixel counts once)."""


@dataclass(frozen=True)
class PanNukeScores:
    """Figures of one fold.

    Attributes
    ----------
    bpq, mpq : mean over the tissues of the binary PQ and of the mean PQ over classes.
    bpq_sd, mpq_sd : their sample standard deviation (n - 1) over the tissues.
    tissue_bpq, tissue_mpq : mean over the images of each tissue.
    class_pq : mean over all images of each class's PQ, without weighting tissues.
    image_bpq, image_mpq : (n,) of each image; NaN where it has no truth.
    false_positives : predictions on images without truth, which PQ does not see.
    false_positives_per_mm2 : the same per mm² of those images; NaN when there is none.
    """

    bpq: float
    mpq: float
    bpq_sd: float
    mpq_sd: float
    tissue_bpq: dict[str, float]
    tissue_mpq: dict[str, float]
    class_pq: dict[str, float]
    image_bpq: FloatArray
    image_mpq: FloatArray
    false_positives: int
    false_positives_per_mm2: float


def merge_channels(image: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Merge the class channels of one image; later channels overwrite earlier ones.

    Parameters
    ----------
    image : (y, x, channel) label images, the five classes first; further channels (background) are ignored.

    Returns
    -------
    instances : (y, x) int32, 0 = background; ids of different channels stay apart.
    types : (y, x) uint8, 0 = background, 1..5 the classes.
    """
    instances = np.zeros(image.shape[:2], np.int32)
    types = np.zeros(image.shape[:2], np.uint8)
    offset = 0
    for channel in range(len(CLASSES)):
        ids = image[..., channel].astype(np.int64)
        inside = ids > 0
        instances[inside] = ids[inside] + offset
        types[inside] = channel + 1
        offset += int(ids.max(initial=0))
    return instances, types


def score_pannuke(
    truth: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    tissues: Sequence[str],
    *,
    class_maps: str = "channels",
    pixel_size: float = 0.25,
) -> PanNukeScores:
    """Score one fold.

    Parameters
    ----------
    truth, prediction : (image, y, x, channel), channels as in `merge_channels`; may be memory-mapped.
    tissues : the tissue of each image.
    class_maps : "channels" as the official code does, or "merged" as CellViT and CFR-SAM do; they differ only
        where the channels of an image overlap.
    pixel_size : µm.

    Raises
    ------
    FormatError : shapes or lengths do not fit, or `class_maps` is unknown.
    """
    if class_maps not in CLASS_MAPS:
        raise FormatError(unknown("class_maps", class_maps, CLASS_MAPS))
    if truth.ndim != 4 or truth.shape[-1] < len(CLASSES):
        raise FormatError(f"truth has shape {truth.shape}; expected (images, y, x, at least {len(CLASSES)} channels)")
    if prediction.shape[:3] != truth.shape[:3] or prediction.shape[-1] < len(CLASSES):
        raise FormatError(f"prediction has shape {prediction.shape}; expected {truth.shape} like the truth")
    if len(tissues) != len(truth):
        raise FormatError(f"{len(tissues)} tissues for {len(truth)} images; expected one an image")
    binary, classes = np.full(len(truth), np.nan), np.full((len(truth), len(CLASSES)), np.nan)
    false_positives, empty = 0, 0
    for i in range(len(truth)):
        t, t_type = merge_channels(truth[i])
        p, p_type = merge_channels(prediction[i])
        overlap = Overlap.from_labels(t, p)
        if not len(overlap.truth_ids):
            empty += 1
            false_positives += len(overlap.prediction_ids)
            continue
        binary[i] = panoptic_quality(overlap).pq
        for c in range(len(CLASSES)):
            if class_maps == "channels":
                t_class, p_class = _labels(truth[i, ..., c]), _labels(prediction[i, ..., c])
            else:
                t_class, p_class = t * (t_type == c + 1), p * (p_type == c + 1)
            mine = Overlap.from_labels(t_class, p_class)
            if len(mine.truth_ids):
                classes[i, c] = panoptic_quality(mine).pq
    image_mpq = np.array([nan_mean(row) for row in classes])
    tissue_bpq, tissue_mpq = group_means(binary.tolist(), tissues), group_means(image_mpq.tolist(), tissues)
    (bpq, bpq_sd), (mpq, mpq_sd) = mean_of_groups(tissue_bpq), mean_of_groups(tissue_mpq)
    area_mm2 = empty * truth.shape[1] * truth.shape[2] * (pixel_size / 1000) ** 2
    return PanNukeScores(
        bpq=bpq,
        mpq=mpq,
        bpq_sd=bpq_sd,
        mpq_sd=mpq_sd,
        tissue_bpq=tissue_bpq,
        tissue_mpq=tissue_mpq,
        class_pq={name: nan_mean(classes[:, c]) for c, name in enumerate(CLASSES)},
        image_bpq=binary,
        image_mpq=image_mpq,
        false_positives=false_positives,
        false_positives_per_mm2=false_positives / area_mm2 if empty else float("nan"),
    )


def _labels(channel: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A channel as integers (the published arrays are of floats)."""
    return channel.astype(np.int64)
