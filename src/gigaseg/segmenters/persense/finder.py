"""PerSense at work: what an exemplar looks like, and the points of all objects like it in any picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from gigaseg.errors import SegmenterError
from gigaseg.prompts.suppression import point_nms
from gigaseg.sam.backend import Backend
from gigaseg.segmenters.persense.base import Density, DensityGenerator, Detector, Exemplar, Mask, Picture, Scene
from gigaseg.segmenters.persense.exemplars import MOST, choose, exemplars_of, refine_points
from gigaseg.segmenters.persense.guidance import Guidance
from gigaseg.segmenters.persense.idm import THRESHOLD, detect_points, grey_levels
from gigaseg.segmenters.persense.ppsm import select_points
from gigaseg.segmenters.persense.target import Target, cosine, similarity

BOX_SCORE = 0.15
"""Score that a detector's box must exceed (section 4 of the paper)."""

APART = 0.25
"""Points nearer to each other than this, in sides of an exemplar, are one."""


@dataclass(frozen=True)
class Rules:
    """How points are made.

    Attributes
    ----------
    threshold : grey level above which a density map is foreground.
    keep_parents : of `gigaseg.segmenters.persense.idm.detect_points`.
    select : leave out points that do not look like the exemplar (PPSM).
    rule : of its threshold, one of `gigaseg.segmenters.persense.ppsm.RULES`.
    exemplars : of the second pass; 0: there is none.
    keep_first, alike : of `gigaseg.segmenters.persense.exemplars.choose`.
    guidance : the decoder is steered to the target when it looks at candidates.
    apart : points nearer to each other, in sides of an exemplar, are one; 0: all stay.
    """

    threshold: int = THRESHOLD
    keep_parents: bool = False
    select: bool = True
    rule: str = "clamped"
    exemplars: int = MOST
    keep_first: bool = True
    alike: bool = True
    guidance: bool = False
    apart: float = APART


@dataclass(frozen=True)
class Levels:
    """What a picture is measured by: its own values where one is None, as published, or those of another picture.

    Attributes
    ----------
    low, high : densities that become grey levels 0 and 255.
    bound : area above which a contour is split.
    best : greatest similarity.
    count : number of objects.
    """

    low: float | None = None
    high: float | None = None
    bound: float | None = None
    best: float | None = None
    count: float | None = None


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a picture.

    Attributes
    ----------
    xy : (n, 2) x, y px.
    score : (n,) density at each, in that which counts as full, in [0, 1].
    count : of objects, as the density has it.
    levels : what they were measured by, complete.
    """

    xy: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    count: float
    levels: Levels


@dataclass(frozen=True, eq=False)
class Reference:
    """All that a slide's tiles share.

    Attributes
    ----------
    target : features of what was shown.
    exemplars : what the density is made with.
    levels : of the picture in which they lie.
    area : median of the exemplars' areas, px.
    """

    target: Target
    exemplars: tuple[Exemplar, ...]
    levels: Levels
    area: float


class Finder:
    """Looks for what was shown.

    Parameters
    ----------
    backend : SAM.
    density, detector : back ends; no detector: points may lie anywhere.
    rules : how points are made.
    text : name of the objects, for detectors that read.
    window : cells of the embedding that a candidate's masks are decoded in; None: all.
    """

    def __init__(
        self,
        backend: Backend,
        density: DensityGenerator,
        detector: Detector | None,
        rules: Rules,
        *,
        text: str = "object",
        window: int | None = None,
    ) -> None:
        self.backend, self.rules, self.text, self.window = backend, rules, text, window
        self.generator, self.detector = density, detector

    @torch.inference_mode()
    def scene(self, rgb: Picture) -> Scene:
        """A picture as SAM sees it."""
        images = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
        return Scene(rgb, self.backend.encode(images).embedding[0].float())

    def compared(self, scene: Scene, target: Target) -> Scene:
        """A scene with its similarity to a target."""
        if scene.features is None:
            raise ValueError("the scene has no features")
        cells = cosine(scene.features, target.direction)
        return replace(scene, similarity=similarity(cells, self.backend.input_shape(scene.shape), scene.shape))

    def shown(self, picture: Picture | Scene, masks: Sequence[Mask]) -> tuple[Target, list[Exemplar]]:
        """Target and exemplars of a picture in which objects were marked; the first one is the target."""
        scene = picture if isinstance(picture, Scene) else self.scene(picture)
        if scene.features is None:
            raise ValueError("the scene has no features")
        target = Target.of(scene.features, masks[0])
        scene = self.compared(scene, target)
        return target, [Exemplar(scene, box_of(mask), 1.0, float(mask.sum())) for mask in masks]

    def learn(self, picture: Picture | Scene, masks: Sequence[Mask]) -> Reference:
        """What a slide's tiles share, from one picture in which objects were marked.

        The picture is searched, and the best of what is found becomes further exemplars (the feedback); then it is
        searched again, and what it is measured by holds for all other pictures.
        """
        target, exemplars = self.shown(picture, masks)
        scene = exemplars[0].scene
        points = self._own_points(scene, exemplars)
        if self.rules.exemplars:
            exemplars = self.feedback(scene, points.xy, exemplars, target)
            points = self._own_points(scene, exemplars)
        return Reference(target, tuple(exemplars), points.levels, float(np.median([e.area for e in exemplars])))

    def _own_points(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Points:
        if self.detector is not None:
            self.detector.learn(exemplars)
        density = self.generator.density(scene, exemplars)
        full = max(_peak(density, exemplars), self.generator.lone(exemplars))
        if not full > 0:
            raise SegmenterError(
                f"density '{self.generator.name}' sees nothing in the exemplar's picture; accepted: one that does"
            )
        # what was shown is there
        count = max(density.count, float(len(exemplars)))
        return self.points(scene, exemplars, Levels(0.0, full, count=count), density)

    def feedback(
        self, scene: Scene, xy: npt.NDArray[np.float64], exemplars: Sequence[Exemplar], target: Target
    ) -> list[Exemplar]:
        """Exemplars of the second pass (section 3.4): of all points those of which SAM is surest."""
        rules = self.rules
        if scene.features is None or not len(xy):
            return list(exemplars)
        guidance = Guidance.of(scene.features, target) if rules.guidance else None
        refined = refine_points(self.backend, scene.features, xy, scene.shape, window=self.window, guidance=guidance)
        chosen = choose(refined, exemplars, rules.exemplars, keep_first=rules.keep_first, alike=rules.alike)
        further = exemplars_of(scene, refined, chosen)
        return [*exemplars, *further] if rules.keep_first or not further else further

    def points(
        self, scene: Scene, exemplars: Sequence[Exemplar], levels: Levels, density: Density | None = None
    ) -> Points:
        """Points of a scene with its similarity: density, IDM, PPSM.

        Parameters
        ----------
        density : where it is known.
        """
        rules, known = self.rules, scene.similarity
        if known is None:
            raise ValueError("the scene has no similarity")
        found = density or self.generator.density(scene, exemplars)
        low = float(found.map.min()) if levels.low is None else levels.low
        high = float(found.map.max()) if levels.high is None else levels.high
        grey = grey_levels(found.map, low, high)
        detected = detect_points(grey, threshold=rules.threshold, bound=levels.bound, keep_parents=rules.keep_parents)
        best = float(known.max()) if levels.best is None else levels.best
        count = found.count if levels.count is None else levels.count
        xy = detected.xy
        if rules.select and len(xy):
            xy = xy[select_points(xy, known, best, count, self._boxes(scene), rules.rule)]
        rows, cols = (np.clip(np.floor(xy[:, k]).astype(int), 0, scene.shape[1 - k] - 1) for k in (1, 0))
        score = grey[rows, cols] / 255
        if rules.apart > 0 and len(xy):
            radius = rules.apart * float(np.mean([exemplar.side for exemplar in exemplars]))
            kept = point_nms(xy, score.astype(np.float32), radius)
            xy, score = xy[kept], score[kept]
        bound = None if math.isnan(detected.bound) else detected.bound
        return Points(xy, score, found.count, Levels(low, high, bound, best, count))

    def _boxes(self, scene: Scene) -> npt.NDArray[np.float32] | None:
        if self.detector is None:
            return None
        from gigaseg.segmenters.persense.labels import all_of

        boxes = self.detector.detect(scene, all_of(self.text))
        return boxes.xyxy[boxes.scores > BOX_SCORE]

    def find(self, scene: Scene, reference: Reference) -> Points:
        """Points of any picture, measured as the reference is: overlapping tiles agree, empty ones have none."""
        return self.points(self.compared(scene, reference.target), reference.exemplars, reference.levels)


def box_of(mask: Mask) -> npt.NDArray[np.float64]:
    """Tight box of a mask that is not empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], np.float64)


def _peak(density: Density, exemplars: Sequence[Exemplar]) -> float:
    """Mean over the exemplars of the greatest density in their boxes; the map's where they have none."""
    found = []
    for exemplar in exemplars:
        x0, y0, x1, y1 = exemplar.box.astype(int)
        found.append(float(density.map[y0:y1, x0:x1].max(initial=0)))
    mean = float(np.mean(found))
    return mean if mean > 0 else float(density.map.max())
