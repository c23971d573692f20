"""What the detectors have in common: their configuration, their input and their output.

A detector says where objects lie: a heatmap a class that peaks at their centres, and the size of the box and the exact
centre at each peak (Zhou et al. 2019, arXiv:1904.07850). Its grid has a cell for every `STRIDE` px of the input: cell
(x, y) begins at input px (4 x, 4 y), and a centre c of the input lies at c / 4 of the grid, in cell floor(c / 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from torch import Tensor, nn

from gigaseg.errors import CheckpointError, one_line, unknown
from gigaseg.sam.encoder import normalise

STRIDE = 4
"""Input px of a cell of the detector's grid."""

KINDS = ("light", "resnet18", "hourglass")

_LARGEST = 1 << 13
"""Largest width read from a card, far above any model: what is larger is damaged, and would only fill the memory."""


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a detector.

    Attributes
    ----------
    kind : "light", on the embedding of a SAM encoder; "resnet18" or "hourglass", on the image alone.
    classes : names of the classes, one heatmap each.
    embedding, patch : channels of that embedding, and px of one of its cells, a multiple of 8 (light).
    width : channels (light), an even number.
    detail : channels of the branch for `Maps.detail` (light); 0: none.
    dims, counts : channels and residuals of each level of an hourglass from the outermost in; each level has half the
        resolution of the one before.
    stacks : hourglasses one after another.
    pixel_mean, pixel_std : of the images that the detector takes: R, G, B on the scale 0..255. SAM's by default.
    """

    kind: str = "light"
    classes: tuple[str, ...] = ("nucleus",)
    embedding: int = 128
    patch: int = 8
    width: int = 64
    detail: int = 0
    dims: tuple[int, ...] = (256, 256, 384, 384, 384, 512)
    counts: tuple[int, ...] = (2, 2, 2, 2, 2, 4)
    stacks: int = 2
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values, for a checkpoint's card."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """The configuration that `as_dict` described, defaults for what is missing.

        Raises
        ------
        CheckpointError
            An unknown field, or a value that no detector can be built of.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"detector is {_shown(values)}, accepted: an object with its sizes")
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise CheckpointError(f"detector: {unknown('field', str(name), known)}")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        config = cls(**given)
        _check(config)
        return config


def _check(config: DetectorConfig) -> None:
    def demand(name: str, good: bool, accepted: str) -> None:
        if not good:
            raise CheckpointError(f"detector: {name} is {_shown(getattr(config, name))}, accepted: {accepted}")

    demand("kind", config.kind in KINDS, ", ".join(KINDS))
    names = config.classes
    good = isinstance(names, tuple) and 0 < len(names) <= _LARGEST and all(isinstance(n, str) and n for n in names)
    demand("classes", good and len(set(names)) == len(names), "different texts, at least one")
    for name, step in (("embedding", 1), ("patch", STRIDE), ("width", 2)):
        value = getattr(config, name)
        demand(name, _is_integer(value) and value % step == 0, f"a multiple of {step} from {step} to {_LARGEST}")
    demand("detail", config.detail == 0 or _is_integer(config.detail), f"an integer from 0 to {_LARGEST}")
    if config.kind == "light":
        demand("patch", config.patch % 8 == 0, "a multiple of 8 px with a 'light' detector")
    demand("stacks", _is_integer(config.stacks) and config.stacks <= 16, "an integer from 1 to 16")
    for name in ("dims", "counts"):
        value = getattr(config, name)
        good = isinstance(value, tuple) and 2 <= len(value) <= 10 and all(_is_integer(item) for item in value)
        demand(name, good, f"2 to 10 integers from 1 to {_LARGEST}, one a level")
    demand("dims", config.dims[0] % 2 == 0, "an even number first")
    demand("counts", len(config.counts) == len(config.dims), f"{len(config.dims)} integers, as many as dims")
    for name in ("pixel_mean", "pixel_std"):
        value = getattr(config, name)
        demand(name, isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value)), "three numbers")
    demand("pixel_std", min(config.pixel_std) >= 1e-6, "three numbers above 0 (1e-6)")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    text = one_line(repr(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Maps:
    """What a detector says of b images, on its grid of h x w cells.

    Attributes
    ----------
    heat : (b, classes, h, w) float32 logits of a centre.
    size : (b, 2, h, w) float32, width and height of the box in cells.
    offset : (b, 2, h, w) float32, x and y of the centre in its cell.
    detail : (b, embedding / 8, H, W) float32 features on the grid of SAM's low-res masks, a quarter of a patch a place,
        for all masks of the image (`gigaseg.sam.detail`); None: the detector has none.
    foreground : (b, H, W) float32 logits of being of any object, which help the detail to be trained; as it.
    """

    heat: Tensor
    size: Tensor
    offset: Tensor
    detail: Tensor | None = None
    foreground: Tensor | None = None


class Detector(nn.Module):
    """A detector of any kind.

    Attributes
    ----------
    config : its sizes.
    uses_embedding : whether `forward` needs the embedding of a SAM encoder.
    multiple : px, of which the sides of an input must be multiples.
    """

    uses_embedding: bool = False
    multiple: int = STRIDE

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config

    def normalise(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W) on the scale 0..255 as the detector takes them, by its own mean and deviation."""
        return normalise(images, cast(Any, self.config))

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Maps]:
        """Maps of each stack; the last ones are the result, the others are there to be trained.

        Parameters
        ----------
        images : (b, 3, H, W) normalised by the detector's own mean and deviation (`normalise`).
        embedding : (b, C, H / patch, W / patch) of the same images, when `uses_embedding`.

        Raises
        ------
        ValueError
            H or W is no multiple of `multiple`, or the embedding is missing or of another size.
        """
        raise NotImplementedError

    def check_sides(self, images: Tensor) -> None:
        """Raise ValueError unless the sides of `images` are multiples of `multiple`."""
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise ValueError(
                f"images are {height} x {width} px, accepted by a '{self.config.kind}' detector: multiples of "
                f"{self.multiple} px"
            )


def build_detector(config: DetectorConfig) -> Detector:
    """A detector with fresh weights; under ``torch.device("meta")`` its shapes alone."""
    if config.kind == "hourglass":
        from gigaseg.segmenters.centersam.hourglass import Hourglass

        return Hourglass(config)
    if config.kind == "resnet18":
        from gigaseg.segmenters.centersam.resnet import ResNet18

        return ResNet18(config)
    from gigaseg.segmenters.centersam.light import Light

    return Light(config)
