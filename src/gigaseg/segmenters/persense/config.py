"""What the density regressor is made of, as its checkpoint's card has it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gigaseg.errors import CheckpointError, one_line

NORMS = ("batch", "group")


@dataclass(frozen=True)
class DensityConfig:
    """Sizes of the regressor, and at which scale it sees objects.

    Attributes
    ----------
    width, levels, norm : of its U-Net.
    reduction : side of its cells, px, each of which it sees whole.
    diameter : px that an object is to have when the net sees it.
    sigma : of the gaussian that stands for an object, in those px.
    classes : the one class of its objects.
    """

    width: int = 16
    levels: int = 4
    norm: str = "group"
    reduction: int = 2
    diameter: float = 20.0
    sigma: float = 2.5
    classes: tuple[str, ...] = ("nucleus",)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: object) -> DensityConfig:
        """The configuration that `as_dict` described; raises CheckpointError on anything else, which is in a file."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= names:
            wanted = ", ".join(sorted(names))
            raise CheckpointError(f"persense is {one_line(values)!r}, accepted: an object of {wanted}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        config = cls(**given)
        for name, low, high in (("width", 1, 1 << 12), ("levels", 1, 8), ("reduction", 1, 16)):
            value = getattr(config, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                found = one_line(value)
                raise CheckpointError(f"persense: {name} is {found!r}, accepted: an integer from {low} to {high}")
        for name, high in (("diameter", 1024), ("sigma", 128)):
            value = getattr(config, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0.5 <= value <= high:
                found = one_line(value)
                raise CheckpointError(f"persense: {name} is {found!r}, accepted: a number from 0.5 to {high}")
        if config.norm not in NORMS:
            raise CheckpointError(f"persense: norm is {one_line(config.norm)!r}, accepted: {', '.join(NORMS)}")
        classes = config.classes
        if not isinstance(classes, tuple) or len(classes) != 1 or not isinstance(classes[0], str):
            raise CheckpointError(f"persense: classes is {one_line(classes)!r}, accepted: one name")
        return config
