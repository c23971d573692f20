"""What PerSense takes from others: a name for the exemplar, boxes of objects with that name, a map of their density.

Arrays are in px of the picture; boxes are xmin, ymin, xmax, ymax with an exclusive maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Picture = npt.NDArray[np.uint8]
"""(h, w, 3) RGB."""

Mask = npt.NDArray[np.bool_]
"""(h, w)."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what SAM sees in it.

    Attributes
    ----------
    rgb : the picture.
    features : (C, gh, gw) float32 embedding of SAM, whose cells divide the picture evenly; None: not looked at.
    similarity : (h, w) float32 in [-1, 1], cosine between each pixel's features and the exemplar's; None: not known.
    """

    rgb: Picture
    features: Tensor | None = None
    similarity: npt.NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def decorrelated(self, features: Tensor) -> Tensor:
        """Features (C, h, w) less the mean of this scene's, and with channels that are uncorrelated in this scene."""
        import torch

        common, unmix = self._decorrelation
        return torch.einsum("dc,chw->dhw", unmix, features - common)

    @cached_property
    def _decorrelation(self) -> tuple[Tensor, Tensor]:
        """Mean of the features, (C, 1, 1), and the (C, C) that makes their channels uncorrelated.

        The mean variance is added to all: there are not many more cells than channels.
        """
        import torch

        if self.features is None:
            raise ValueError("the scene has no features")
        common = self.features.mean((1, 2), keepdim=True)
        flat = (self.features - common).flatten(1)
        covariance = flat @ flat.T / flat.shape[1]
        shrunk = covariance + covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(flat), device=flat.device)
        values, vectors = torch.linalg.eigh(shrunk)
        return common, vectors @ torch.diag(values.rsqrt()) @ vectors.T


@dataclass(frozen=True, eq=False)
class Exemplar:
    """An object that shows what to look for, in this picture or in another one.

    Attributes
    ----------
    scene : the picture in which it lies.
    box : (4,) float64, in that picture.
    score : SAM's predicted IoU of its mask; 1 for an object that a person drew.
    area : px of its mask.
    """

    scene: Scene
    box: npt.NDArray[np.float64]
    score: float = 1.0
    area: float = 0.0

    @property
    def side(self) -> float:
        """Geometric mean of the sides of its box, px."""
        return float(np.sqrt(np.prod(self.box[2:] - self.box[:2])))


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector finds, by descending score.

    Attributes
    ----------
    xyxy : (n, 4) float32.
    scores : (n,) float32 in [0, 1].
    """

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Density:
    """How densely objects lie.

    Attributes
    ----------
    map : (h, w) float32 >= 0, objects a pixel.
    count : number of objects, about the map's sum.
    """

    map: npt.NDArray[np.float32]
    count: float


class BackEnd(Protocol):
    """What every one says of itself, for the metadata of results.

    Attributes
    ----------
    name : such as "ncc" or "grounding-dino IDEA-Research/grounding-dino-tiny".
    needs_weights : whether it is a trained model.
    deterministic : whether the same input always gives the same result.
    """

    name: str
    needs_weights: bool
    deterministic: bool


class LabelExtractor(BackEnd, Protocol):
    """Names an object that was shown."""

    def label(self, rgb: Picture, mask: Mask) -> str:
        """A noun for what the mask covers."""
        ...


class Detector(BackEnd, Protocol):
    """Finds objects by a name, or by their likeness to the exemplar."""

    def learn(self, exemplars: Sequence[Exemplar]) -> None:
        """Take what the objects look like, before the first picture; one that reads has no use for it."""
        ...

    def detect(self, scene: Scene, text: str) -> Boxes:
        """Boxes of the objects that `text` names ("nucleus", "all nuclei"), all of them, however low they score."""
        ...


class DensityGenerator(BackEnd, Protocol):
    """Maps the density of objects like the exemplars."""

    def density(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Density:
        """Density of `scene`, of whose px it is; exemplars lie in it or in another picture of the same scale."""
        ...

    def lone(self, exemplars: Sequence[Exemplar]) -> float:
        """Density at the middle of an object by itself, objects a pixel; 0 where that is not known."""
        ...
