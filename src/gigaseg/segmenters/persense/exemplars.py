"""Exemplars from points: SAM asked several times over, and which of its answers serve to look for more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.sam.backend import Backend
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.local import window_cells
from gigaseg.sam.masks import best, crop_masks
from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.prompting import PromptSets, point_sets
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.guidance import Guidance, guided_masks

MOST = 4
"""Exemplars of the second pass (Table 2c)."""

LIKE = (0.5, 2.0)
"""Areas of further exemplars, in that of the first one. SAM is surest of large objects, and exemplars of another size
look for objects of another size: with 0.25 to 4 the points' F1 on 26 images of dsb2018 val is lower by 0.005."""

SAME = 0.7
"""IoU of two boxes above which they show the same object."""

_OUTSIDE = 10.0
"""Logit of the background where nothing was decoded."""

_GUIDED = 1 << 17
"""Cells of all points refined at a time with guidance, which sees the whole embedding: 128 MB with 256 channels."""

_CHUNK = 64
"""Points refined at a time: their mask prompts are whole planes."""


@dataclass(frozen=True, eq=False)
class Refined:
    """What SAM sees at n points.

    Attributes
    ----------
    boxes : (n, 4) float64, tight; zeros for an empty mask.
    scores : (n,) predicted IoU.
    areas : (n,) px of the masks.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]


@torch.inference_mode()
def refine_points(
    backend: Backend,
    features: Tensor,
    xy: npt.NDArray[np.float64],
    shape: tuple[int, int],
    *,
    window: int | None = None,
    guidance: Guidance | None = None,
    third: bool = False,
    final_box: bool = False,
) -> Refined:
    """The cascade of PerSAM: a point, the point with the mask it gave, and both with the box of the second mask.

    Of each call's three masks the one of the highest predicted IoU goes on.

    Parameters
    ----------
    features : (C, gh, gw) of the picture.
    xy : (n, 2) places, px of the picture.
    shape : height and width of the picture.
    window : cells of the embedding that each point sees around it; None: all. With guidance the first call sees all.
    guidance : of the first call; None: none.
    third : make the third call; its score is taken, and the box of the second call, as in the published code.
    final_box : take the box of the third call's mask, as in the paper.
    """
    chunk = _CHUNK if guidance is None else max(1, _GUIDED // (features.shape[1] * features.shape[2]))
    found = [
        _refine(backend, features, some, shape, window, guidance, third or final_box, final_box)
        for some in np.split(xy, range(chunk, len(xy), chunk))
        if len(some)
    ]
    return Refined(
        np.concatenate([np.empty((0, 4)), *(one.boxes for one in found)]),
        np.concatenate([np.empty(0), *(one.scores for one in found)]),
        np.concatenate([np.empty(0), *(one.areas for one in found)]),
    )


def _refine(
    backend: Backend,
    features: Tensor,
    xy: npt.NDArray[np.float64],
    shape: tuple[int, int],
    window: int | None,
    guidance: Guidance | None,
    third: bool,
    final_box: bool,
) -> Refined:
    encoded = Encoded(features[None])
    low = (4 * features.shape[1], 4 * features.shape[2])

    def ask(sets: PromptSets) -> Decoded:
        return best(backend.decode(encoded, sets, shape, multimask=True, window=window))

    def masks_of(decoded: Decoded) -> PackedMasks:
        return crop_masks(decoded, backend.input_shape(shape), shape, low)

    sets = point_sets(torch.zeros(len(xy), dtype=torch.int64), torch.from_numpy(xy)).to(backend.device)
    if guidance is None:
        first = ask(sets)
    else:
        first = best(guided_masks(backend.model, features, backend.to_input(sets, shape), guidance))
    sets = replace(sets, masks=_whole(first, low))
    masks = masks_of(ask(sets))
    scores = masks.scores
    if third:
        boxes = masks.boxes.float()
        boxes[masks.area == 0] = torch.nan  # an empty mask has no box to ask with
        again = masks_of(ask(replace(sets, boxes=boxes)))
        scores = again.scores
        masks = again if final_box else masks
    found = (values.cpu().numpy().astype(np.float64) for values in (masks.boxes, scores, masks.pixels()))
    return Refined(*found)


def _whole(decoded: Decoded, low: tuple[int, int]) -> Tensor:
    """Logits of windows on the whole low-res grid, (n, 1, *low): background outside."""
    n, _, rows, cols = decoded.logits.shape
    if (rows, cols) == low:
        return decoded.logits
    whole = decoded.logits.new_full((n, low[0] * low[1]), -_OUTSIDE)
    at = window_cells(decoded.origin, (rows, cols), low)
    return whole.scatter_(1, at, decoded.logits.flatten(1)).view(n, 1, *low)


def choose(
    refined: Refined,
    shown: Sequence[Exemplar] = (),
    most: int = MOST,
    *,
    keep_first: bool = True,
    alike: bool = True,
) -> list[int]:
    """Which candidates become exemplars of the second pass, by descending score, the earlier one among equals.

    Parameters
    ----------
    refined : of the first pass's points.
    shown : the exemplars of the first pass.
    most : number of exemplars, those shown among them where they are kept.
    keep_first : these stay in any case, as in the published code; in the paper all are chosen by score.
    alike : ours: leave out empty masks, those whose area, or the area of whose box, is far from that of the first one
        shown (`LIKE`), and repeats.
    """
    taken = [exemplar.box for exemplar in shown] if keep_first else []
    chosen: list[int] = []
    for i in np.argsort(-refined.scores, kind="stable").tolist():
        if len(taken) >= most:
            break
        if alike:
            if refined.areas[i] <= 0 or _box_iou(refined.boxes[i], taken) > SAME:
                continue
            if shown and not _alike(refined.areas[i], refined.boxes[i], shown[0]):
                continue
        taken.append(refined.boxes[i])
        chosen.append(i)
    return chosen


def exemplars_of(scene: Scene, refined: Refined, chosen: Iterable[int]) -> list[Exemplar]:
    """The chosen candidates as exemplars."""
    return [
        Exemplar(scene, refined.boxes[i], float(refined.scores[i]), float(refined.areas[i]))
        for i in chosen
        if refined.areas[i] > 0
    ]


def _alike(area: float, box: npt.NDArray[np.float64], first: Exemplar) -> bool:
    """Whether a candidate is about as large as the first exemplar; a mask of scattered specks has too large a box."""
    ratios = [float(np.prod(box[2:] - box[:2]) / np.prod(first.box[2:] - first.box[:2]))]
    ratios += [area / first.area] if first.area > 0 else []
    return all(LIKE[0] <= ratio <= LIKE[1] for ratio in ratios)


def _box_iou(box: npt.NDArray[np.float64], others: list[npt.NDArray[np.float64]]) -> float:
    """Greatest IoU with one of the others."""
    if not others:
        return 0.0
    many = np.array(others)
    sides = np.minimum(box[2:], many[:, 2:]) - np.maximum(box[:2], many[:, :2])
    common = np.prod(np.clip(sides, 0, None), axis=1)
    areas = np.prod(many[:, 2:] - many[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return float((common / np.maximum(areas - common, 1e-9)).max())
