"""What the options of `persense` name: its back ends and rules, for slides and for pairs of pictures alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.sam.backend import Backend
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.masks import best, picked
from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.prompting import point_sets
from gigaseg.segmenters.persense.backends import detector, label_extractor
from gigaseg.segmenters.persense.base import BackEnd, DensityGenerator, Detector, LabelExtractor
from gigaseg.segmenters.persense.checkpoint import Loaded
from gigaseg.segmenters.persense.densities import density_generator
from gigaseg.segmenters.persense.finder import Finder, Rules


@dataclass(frozen=True, eq=False)
class Kit:
    """All that looks for objects, but for the object that is shown.

    Attributes
    ----------
    backend : SAM.
    labels, detector, density : back ends; no detector: points may lie anywhere.
    rules : how points are made.
    options : of the card, complete.
    window : cells of the embedding that each point sees; None: all.
    """

    backend: Backend
    labels: LabelExtractor
    detector: Detector | None
    density: DensityGenerator
    rules: Rules
    options: Mapping[str, Any]
    window: int | None

    @classmethod
    def of(cls, loaded: Loaded, options: Mapping[str, Any]) -> Kit:
        """The kit that complete options name.

        Raises
        ------
        SegmenterError
            A back end is not there, or does not suit the checkpoint.
        """
        device = str(loaded.backend.device)
        names = ("threshold", "keep_parents", "select", "rule", "exemplars", "keep_first", "guidance")
        rules = Rules(**{name: options[name] for name in names}, alike=options["rule"] == "clamped")
        return cls(
            backend=loaded.backend,
            labels=label_extractor(options["label"], options["label_model"], device),
            detector=detector(options["detector"], options["detector_model"], device),
            density=density_generator(options, loaded),
            rules=rules,
            options=options,
            window=loaded.backend.window(options["window"]),
        )

    @property
    def back_ends(self) -> dict[str, str]:
        """Names of what is used, by role."""
        named: dict[str, BackEnd | None] = {"label": self.labels, "detector": self.detector, "density": self.density}
        found = {role: "none" if one is None else one.name for role, one in named.items()}
        for role, one in named.items():
            if one is not None and not one.deterministic:
                found[role] += ", not deterministic"
        return {**found, "masks": self.backend.config.name}

    def finder(self, backend: Backend, label: str) -> Finder:
        """What looks for objects of a name, with SAM at a scale."""
        return Finder(backend, self.density, self.detector, self.rules, text=label, window=self.window)


def prompted_masks(
    backend: Backend,
    features: Tensor,
    xy: npt.NDArray[np.float64],
    shape: tuple[int, int],
    *,
    multimask: bool = True,
    window: int | None = None,
    areas: tuple[float, float] | None = None,
) -> PackedMasks:
    """A mask for each point (section 3.2: one positive point a call, no other prompt).

    Parameters
    ----------
    features : (C, gh, gw) of the picture.
    xy : (n, 2) places, px of the picture.
    shape : height and width of the picture.
    multimask : take one of three masks: the best, among those whose area fits.
    window : cells of the embedding that each point sees; None: all.
    areas : least and greatest area that fits, px; None: any, as published.

    Returns
    -------
    PackedMasks
        n masks in the order of the points, also such as do not fit.
    """
    sets = point_sets(torch.zeros(len(xy), dtype=torch.int64), torch.from_numpy(xy)).to(backend.device)
    pixel = (shape[0] / (4 * features.shape[1])) ** 2
    pick = best if areas is None else partial(fitting, pixel=pixel, areas=areas)
    return backend.masks(Encoded(features[None]), sets, shape, multimask=multimask, pick=pick, window=window)


def fitting(decoded: Decoded, *, pixel: float, areas: tuple[float, float]) -> Decoded:
    """Of each prompt's masks the one of the highest predicted IoU among those of fitting area, else among all.

    A single point is ambiguous, and SAM's best answer may be all of a cluster; how large objects are is known here.

    Parameters
    ----------
    pixel : area of a low-res pixel, px of the picture.
    areas : least and greatest area that fits, px of the picture.
    """
    found = (decoded.logits > 0).flatten(2).sum(2) * pixel
    fits = (found >= areas[0]) & (found <= areas[1])
    # predicted IoUs are about 0 to 1
    return picked(decoded, (decoded.quality + 10 * fits).argmax(1))
