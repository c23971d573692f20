"""How well CFR-SAM segments whole images, and how well its masks fit where the objects' middles are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import normalise
from gigaseg.sam.prompting import point_sets
from gigaseg.segmenters.cfrsam.checkpoint import Adapted, open_cfrsam
from gigaseg.segmenters.cfrsam.model import coarse, encode_images, refined
from gigaseg.segmenters.cfrsam.segmenter import CfrSam
from gigaseg.segmenters.whole import segment_objects
from gigaseg.train.batches import collate
from gigaseg.train.cfrsam.config import CfrSamTraining
from gigaseg.train.cfrsam.protocol import protocol_figures
from gigaseg.train.crops import affine, crop
from gigaseg.train.data import Sample
from gigaseg.train.losses import mask_iou
from gigaseg.train.methods import Measured
from gigaseg.train.whole import scale_of
from gigaseg.train.windows import targets


def middles_iou(adapted: Adapted, samples: Sequence[Sample], training: CfrSamTraining) -> dict[str, float]:
    """Mean IoU of masks from one point in each object's middle.

    Of each sample it sees a crop about its middle, at the middle of the training's object scales.

    Returns
    -------
    ``iou`` of the final and ``coarse_iou`` of SAM's own masks, means over the objects of all crops; ``iou/GROUP``;
    ``images``; ``score``, the first of them.
    """
    rows = [(sample.group, *both) for sample in samples for both in sample_ious(adapted, sample, training)]
    found = {"iou": _mean([row[1] for row in rows]), "coarse_iou": _mean([row[2] for row in rows])}
    for group in sorted({row[0] for row in rows} - {""}):
        found[f"iou/{group}"] = _mean([row[1] for row in rows if row[0] == group])
    return {**found, "images": float(len(samples)), "score": found["iou"]}


def sample_ious(adapted: Adapted, sample: Sample, training: CfrSamTraining) -> list[tuple[float, float]]:
    """IoU of the final and of SAM's own mask of each object, as `middles_iou` sees one sample; none without objects.

    Parameters
    ----------
    training : with a window that is not -1, as `CfrSamMethod.training` has it.
    """
    backend, added = adapted.backend, adapted.added
    stride = backend.config.patch // 4
    rng = np.random.default_rng(0)
    height, width = sample.labels.shape
    middle = math.sqrt(training.smallest * training.largest)
    scale = middle / sample.diameter if sample.diameter > 0 else 1.0
    item = crop(sample, affine(scale, 0.0, False, (width / 2, height / 2), training.crop), training.crop, rng)
    if not len(item.ids):
        return []
    batch = collate([item], training.objects, rng).to(backend.device)
    with backend.running():
        seen = encode_images(backend.model, added, normalise(batch.images, backend.config))
        sets = point_sets(batch.image, batch.centres - 0.5)
        decoded = decode(
            backend.model, seen.encoded, sets, window=training.window or None, features=seen.maps is not None
        )
        truth = targets(batch, decoded.origin, tuple(decoded.logits.shape[-2:]), stride).float()
        rough = mask_iou(coarse(decoded.logits, stride)[:, 0], truth)
        fine = rough
        if seen.maps is not None:
            fine = mask_iou(refined(added, decoded, seen.maps, batch.image)[0].logits[:, 0], truth)
    return list(zip(fine.tolist(), rough.tolist()))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def checkpoint_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> Measured:
    """Figures of the published protocols, of images seen as the training's validation sees them.

    They are scaled to the segmenter's nominal object diameter, as the truth has it, or with ``native`` on the card as
    they are.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged, has no point learner, or its base is not there.
    """
    loaded = open_cfrsam(checkpoint, device, precision=precision)
    training = loaded.card.get("training", {})
    native = bool(training.get("native"))
    options = {name: training[name] for name in ("radius", "use_mask") if name in training}
    segmenter = CfrSam.of(loaded, {**options, **({"min_contrast": 0.0} if native else {})})
    found = []
    for sample in samples:
        scale = 1.0 if native else scale_of(sample, segmenter.card.object_diameter)
        found.append(segment_objects(segmenter, sample.image, scale=scale, device=device))
    told = all(sample.classes is not None for sample in samples)
    return protocol_figures(samples, found, segmenter.card.classes if told else ())
