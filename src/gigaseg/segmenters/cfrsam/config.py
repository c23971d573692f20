"""What a CFR-SAM model is made of, as its checkpoint's card has it. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from gigaseg.errors import CheckpointError, one_line

BACKBONES = ("light", "convnext_small")
"""Of the point learner: ours, for CPUs, and the paper's, through timm."""

KERNELS = ("dynamic", "static", "none")
"""Of the adapters: the paper's, one a pixel; depth-wise convolutions; no adapters at all."""

FUSIONS = ("sum", "gated", "average", "add", "concat", "last")
"""Of the encoder's levels: the paper's; ours; and what its Table 7 compares, of which "last" is none."""

REFINEMENTS = ("full", "mlp", "none")
"""Of masks: the paper's; an MLP in its place; none."""

BASES = ("none", "coarse")
"""What refined logits are added to: nothing, as in the paper, or the coarse mask's (ours)."""

C = TypeVar("C", bound="_Described")


@dataclass(frozen=True)
class _Described:
    """Sizes that a card holds as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def _read(cls: type[C], values: object, what: str) -> tuple[C, Callable[[str, str], None]]:
        """The configuration in a card, and what refuses one of its fields."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= names:
            raise CheckpointError(f"{what} is {one_line(values)!r}, accepted: an object of {', '.join(sorted(names))}")
        found = cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

        def refuse(name: str, accepted: str) -> None:
            raise CheckpointError(f"{what}: {name} is {one_line(getattr(found, name))!r}, accepted: {accepted}")

        for field in fields(cls):
            wanted, value = type(field.default), getattr(found, field.name)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                refuse(field.name, f"of type {wanted.__name__}")
        return found, refuse


@dataclass(frozen=True)
class PointsConfig(_Described):
    """The learner of points (stage 1).

    Attributes
    ----------
    backbone : one of `BACKBONES`.
    widths : channels of a light backbone at strides 4, 8, 16 and 32; other backbones have their own.
    channels : of the feature pyramids and heads.
    levels : finest levels of the pyramid that descriptors are sampled from, 1 to 4.
    spacing : of the anchors, px.
    classes : of the points; the background comes after them.
    dropout : in the heads.
    legacy : sampling and auxiliary mask as in the published code, whose weights were trained so; they are a few px off.
    """

    backbone: str = "light"
    widths: tuple[int, ...] = (32, 64, 128, 192)
    channels: int = 64
    levels: int = 3
    spacing: int = 8
    classes: tuple[str, ...] = ("nucleus",)
    dropout: float = 0.1
    legacy: bool = False

    @classmethod
    def from_dict(cls, values: object) -> PointsConfig:
        """The configuration that `as_dict` described; raises CheckpointError on anything else, which is in a file."""
        config, refuse = cls._read(values, "points")
        if config.backbone not in BACKBONES:
            refuse("backbone", ", ".join(BACKBONES))
        if len(config.widths) != 4 or not all(type(width) is int and 8 <= width <= 4096 for width in config.widths):
            # with 4 channels oneDNN writes past the end of a strided convolution's gradient (torch 2.13, AVX2)
            refuse("widths", "four whole numbers from 8 to 4096")
        for name, low, high in (("channels", 4, 4096), ("levels", 1, 4), ("spacing", 2, 256)):
            if not low <= getattr(config, name) <= high:
                refuse(name, f"a whole number from {low} to {high}")
        if not 0 <= config.dropout < 1:
            refuse("dropout", "0 to below 1")
        names = config.classes
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            refuse("classes", "different names, at least one")
        return config


@dataclass(frozen=True)
class CfrSamConfig(_Described):
    """What CFR-SAM adds to a SAM model (stage 2).

    Attributes
    ----------
    rank : channels of an adapter.
    kernels : of the adapters, one of `KERNELS`.
    fusion : of the encoder's levels, one of `FUSIONS`.
    refinement : of masks, one of `REFINEMENTS`.
    enhancement : whether the refinement has multi-context boundary enhancement (MCBE).
    guidance : whether it has boundary-guided feature fusion (BGFF), else a convolution.
    base : what refined logits are added to, one of `BASES`.
    unused : whether there is the head that the published code builds and never calls, as its weights hold it.
    """

    rank: int = 64
    kernels: str = "dynamic"
    fusion: str = "sum"
    refinement: str = "full"
    enhancement: bool = True
    guidance: bool = True
    base: str = "none"
    unused: bool = False

    @classmethod
    def from_dict(cls, values: object) -> CfrSamConfig:
        """The configuration that `as_dict` described; raises CheckpointError on anything else, which is in a file."""
        config, refuse = cls._read(values, "cfrsam")
        if not 1 <= config.rank <= 4096:
            refuse("rank", "a whole number from 1 to 4096")
        for name, accepted in (
            ("kernels", KERNELS), ("fusion", FUSIONS), ("refinement", REFINEMENTS), ("base", BASES),
        ):  # fmt: skip
            if getattr(config, name) not in accepted:
                refuse(name, ", ".join(accepted))
        return config
