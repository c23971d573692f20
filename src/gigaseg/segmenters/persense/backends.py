"""The back ends by the texts that options hold; a model is loaded when it is chosen, its package not before."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from gigaseg.errors import SegmenterError, unknown
from gigaseg.segmenters.persense.base import Detector, LabelExtractor

LABELS = ("clip:WORD,WORD,...", "vip-llava", "any other text")
"""What `label_extractor` accepts."""

DETECTORS = ("similarity", "centersam", "grounding-dino", "none")
"""What `detector` accepts."""


def label_extractor(name: str, model: str = "", device: str = "cpu") -> LabelExtractor:
    """What names the exemplar.

    Parameters
    ----------
    name : one of `LABELS`; a text is the label itself.
    model : a folder or a name on the Hugging Face hub; "": the one that the back end is made for.
    device : as `gigaseg.devices.choose_device` takes it.

    Raises
    ------
    DeviceError
        The device is not there.
    SegmenterError
        The text is blank or "clip" has no words; a package or a model is not there.
    """
    from gigaseg.segmenters.persense import labels

    kind, colon, words = name.strip().partition(":")
    if kind == "vip-llava" and not colon:
        return labels.VipLlavaLabel(model or labels.VIP_LLAVA_MODEL, device)
    if kind == "clip" and colon:
        return labels.ClipLabel(model or labels.CLIP_MODEL, words.split(","), device)
    if kind in ("clip", "vip-llava") or not name.strip():
        raise SegmenterError(f"label is '{name}', accepted: {', '.join(LABELS)}")
    return labels.StaticLabel(name)


def detector(
    name: str, model: str = "", device: str = "cpu", threshold: float = 0.0, diameter: float = 0.0
) -> Detector | None:
    """What finds objects of a name.

    Parameters
    ----------
    name : one of `DETECTORS`; None is returned for "none".
    model : as `label_extractor`; for "centersam" a checkpoint.
    device : as `label_extractor`.
    threshold : score in 0..1 that a box must exceed; 0: the back end's own. Not for "similarity".
    diameter : of a typical object, px of the pictures, for "centersam"; 0: they are taken as they are.

    Raises
    ------
    CheckpointError, DeviceError
        CenterSAM's checkpoint, or the device, is not there.
    SegmenterError
        The name is unknown; a package or a model is not there.
    """
    if name == "none":
        return None
    if name == "similarity":
        similarity = import_module("gigaseg.segmenters.persense.similarity")
        return cast(Detector, similarity.SimilarityDetector())
    if name not in DETECTORS:
        raise SegmenterError(unknown("detector", name, DETECTORS))
    from gigaseg.segmenters.centersam.checkpoint import DEFAULT_CHECKPOINT
    from gigaseg.segmenters.persense import detectors

    if name == "centersam":
        return detectors.CenterNetDetector(model or DEFAULT_CHECKPOINT, device, threshold, diameter)
    return detectors.GroundingDino(
        model or detectors.GROUNDING_DINO_MODEL, device, threshold or detectors.GROUNDING_DINO_THRESHOLD
    )
