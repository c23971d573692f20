"""The PanNuke protocol: bPQ, mPQ and per-class PQ over tissues and folds (Gamper et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
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
class ImageScores:
    """Figures of one image; those of an image without truth are NaN.

    Attributes
    ----------
    bpq : PQ of all classes as one.
    class_pq : PQ of each class; NaN where the image has no truth of it, whatever is predicted.
    false_positives, empty_area : predictions and px² of an image without truth; 0 of one with truth.
    """

    bpq: float
    class_pq: dict[str, float]
    false_positives: int
    empty_area: float

    @property
    def mpq(self) -> float:
        """Mean PQ over the classes that occur in the truth."""
        return nan_mean(list(self.class_pq.values()))


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
    images = []
    for t, p in zip(truth, prediction):
        (t_all, t_type), (p_all, p_type) = merge_channels(t), merge_channels(p)
        maps = {
            name: (_labels(t[..., c]), _labels(p[..., c]))
            if class_maps == "channels"
            else (t_all * (t_type == c + 1), p_all * (p_type == c + 1))
            for c, name in enumerate(CLASSES)
        }
        images.append(score_image(t_all, p_all, maps))
    return summarise(images, tissues, pixel_size=pixel_size)


def score_image(
    truth: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    classes: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
) -> ImageScores:
    """Score one image.

    Parameters
    ----------
    truth, prediction : (y, x) label images of all classes.
    classes : the same two of each class alone.
    """
    overlap = Overlap.from_labels(truth, prediction)
    if not len(overlap.truth_ids):
        return ImageScores(nan, dict.fromkeys(classes, nan), len(overlap.prediction_ids), float(truth.size))
    each = {}
    for name, (t, p) in classes.items():
        mine = Overlap.from_labels(t, p)
        each[name] = panoptic_quality(mine).pq if len(mine.truth_ids) else nan
    return ImageScores(panoptic_quality(overlap).pq, each, 0, 0.0)


def summarise(images: Sequence[ImageScores], tissues: Sequence[str], *, pixel_size: float = 0.25) -> PanNukeScores:
    """Means over images and tissues.

    Parameters
    ----------
    tissues : the tissue of each image.
    pixel_size : µm.
    """
    binary = np.array([image.bpq for image in images])
    image_mpq = np.array([image.mpq for image in images])
    names = images[0].class_pq if images else {}
    tissue_bpq, tissue_mpq = group_means(binary.tolist(), tissues), group_means(image_mpq.tolist(), tissues)
    (bpq, bpq_sd), (mpq, mpq_sd) = mean_of_groups(tissue_bpq), mean_of_groups(tissue_mpq)
    false_positives = sum(image.false_positives for image in images)
    area_mm2 = sum(image.empty_area for image in images) * (pixel_size / 1000) ** 2
    return PanNukeScores(
        bpq=bpq,
        mpq=mpq,
        bpq_sd=bpq_sd,
        mpq_sd=mpq_sd,
        tissue_bpq=tissue_bpq,
        tissue_mpq=tissue_mpq,
        class_pq={name: nan_mean([image.class_pq[name] for image in images]) for name in names},
        image_bpq=binary,
        image_mpq=image_mpq,
        false_positives=false_positives,
        false_positives_per_mm2=false_positives / area_mm2 if area_mm2 else nan,
    )


def _labels(channel: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A channel as integers (the published arrays are of floats)."""
    return channel.astype(np.int64)
