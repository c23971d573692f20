"""What a SAC model is made of, as its checkpoint's card has it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gigaseg.errors import CheckpointError, one_line

RULES = ("centroid", "random")
"""How points are picked: the paper's O and R."""

NORMS = ("batch", "group")


@dataclass(frozen=True)
class SacConfig:
    """Sizes of what SAC adds to a SAM model, and how many points it was trained with.

    Attributes
    ----------
    rank, alpha : of LoRA; its products are scaled by alpha / rank, None: by 1. Rank 0: no LoRA.
    width, norm : of the U-Net.
    reduction : the U-Net sees the image smaller by this factor.
    detail : planes of detail for the masks; 0: none, as published.
    pairs, rule : points that it was trained with.
    classes : the one class of its instances.
    """

    rank: int
    alpha: float | None = None
    width: int = 32
    norm: str = "batch"
    reduction: int = 2
    detail: int = 0
    pairs: int = 1
    rule: str = "centroid"
    classes: tuple[str, ...] = ("nucleus",)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: object) -> SacConfig:
        """The configuration that `as_dict` described; raises CheckpointError on anything else, which is in a file."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= names or "rank" not in values:
            raise CheckpointError(f"sac is {one_line(values)!r}, accepted: an object of {', '.join(sorted(names))}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        config = cls(**given)
        limits = {"rank": (0, 1 << 14), "width": (1, 1 << 12), "reduction": (1, 16), "detail": (0, 1 << 12),
                  "pairs": (0, 1 << 12)}  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(config, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise CheckpointError(f"sac: {name} is {one_line(value)!r}, accepted: an integer from {low} to {high}")
        alpha = config.alpha
        if alpha is not None and (not isinstance(alpha, int | float) or not 0 < alpha <= 1e6):
            raise CheckpointError(f"sac: alpha is {one_line(alpha)!r}, accepted: a number above 0, or null")
        for name, accepted in (("norm", NORMS), ("rule", RULES)):
            if getattr(config, name) not in accepted:
                found = one_line(getattr(config, name))
                raise CheckpointError(f"sac: {name} is {found!r}, accepted: {', '.join(accepted)}")
        classes = config.classes
        if not isinstance(classes, tuple) or len(classes) != 1 or not isinstance(classes[0], str):
            raise CheckpointError(f"sac: classes is {one_line(config.classes)!r}, accepted: one name")
        return config

    def check_fit(self, patch: int) -> None:
        """Raise CheckpointError when the U-Net's map and SAM's patches (px) do not share their borders."""
        if patch % self.reduction:
            raise CheckpointError(f"sac: reduction is {self.reduction}, accepted: divisors of SAM's patch, {patch} px")
