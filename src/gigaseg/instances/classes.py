"""The class table of a preset: what a segmenter's classes are called in the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gigaseg.errors import SegmenterError, unknown
from gigaseg.segmenters.base import TileInstances


@dataclass(frozen=True)
class ClassTable:
    """Classes of a segmenter and the names they get; those of the same name are one class.

    Attributes
    ----------
    classes : of the segmenter.
    given : name of each class that does not keep its own.
    """

    classes: tuple[str, ...]
    given: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Classes of the results, in the order in which the segmenter's first name them."""
        return tuple(dict.fromkeys(self.given.get(name, name) for name in self.classes))

    def check(self, segmenter: str) -> None:
        """Raise SegmenterError for a name that is no class of the segmenter."""
        for name in self.given:
            if name not in self.classes:
                raise SegmenterError(f"segmenter '{segmenter}': {unknown('class', name, self.classes)} (key classes)")

    def apply(self, found: TileInstances) -> TileInstances:
        """The same instances with the probabilities of `names`: those of classes that became one add up."""
        if self.names == self.classes:
            return found
        adds = np.zeros((len(self.classes), len(self.names)), np.float32)
        adds[range(len(self.classes)), [self.names.index(self.given.get(name, name)) for name in self.classes]] = 1
        return replace(found, class_prob=found.class_prob @ found.class_prob.new_tensor(adds))
