"""How large objects are in the crops of both stages."""

from __future__ import annotations

from typing import Protocol

from gigaseg.train.data import Sample


class Scales(Protocol):
    """What of a training decides it."""

    @property
    def smallest(self) -> float: ...  # noqa: D102

    @property
    def largest(self) -> float: ...  # noqa: D102

    @property
    def native(self) -> bool: ...  # noqa: D102


def diameters(training: Scales, sample: Sample) -> tuple[float, float]:
    """Least and greatest median object diameter of a crop, px: the sample's own where it is seen as it is."""
    if training.native and sample.diameter > 0:
        return sample.diameter, sample.diameter
    return training.smallest, training.largest
