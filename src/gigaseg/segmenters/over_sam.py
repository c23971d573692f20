"""What segmenters over a SAM model share: opened from a checkpoint, or built on models that are there."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from gigaseg.segmenters.base import Context
from gigaseg.segmenters.card import Card, card_from

L = TypeVar("L")


class OverSam(ABC, Generic[L]):
    """A segmenter whose card, NAME.json, lies beside its module.

    The card has the options `precision`, `compile` and, where the segmenter does not choose by itself, `input_size`.

    Attributes
    ----------
    name : of the card.
    opener : loads the models as the method's own function does: checkpoint, device, input size, precision, `compile`.
    """

    name: ClassVar[str]
    opener: ClassVar[Callable[..., Any]]

    def __init__(self, card: Card, context: Context) -> None:
        options = context.options
        loaded = type(self).opener(
            context.checkpoint,
            context.device,
            options.get("input_size") or None,
            options["precision"],
            compile=options["compile"],
        )
        self._set(card, loaded, options)

    @classmethod
    def of(cls, loaded: L, options: Mapping[str, Any] | None = None) -> Self:
        """A segmenter on models that are there, such as those in training.

        Parameters
        ----------
        options : of the card; those about the loading of a checkpoint are not looked at.

        Raises
        ------
        SegmenterError
            An option is unknown, out of its limits, or does not suit the models.
        """
        module = Path(str(sys.modules[cls._home()].__file__))
        card = card_from(module.with_name(f"{cls.name}.json"))
        segmenter = cls.__new__(cls)
        segmenter._set(card, loaded, card.complete(options or {}))
        return segmenter

    @classmethod
    def _home(cls) -> str:
        """Module of the class that states the name: a variant of a segmenter may stand elsewhere."""
        return next(base.__module__ for base in cls.__mro__ if "name" in vars(base))

    @abstractmethod
    def _set(self, card: Card, loaded: L, options: Mapping[str, Any]) -> None:
        """Take models and complete options."""
