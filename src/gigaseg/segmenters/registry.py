"""Segmenters by name: the entry points of group ``gigaseg.segmenters``, loaded when asked for."""

from __future__ import annotations

from typing import cast

from gigaseg.errors import SegmenterError, one_line
from gigaseg.segmenters.base import Context, Segmenter
from gigaseg.segmenters.card import entry_point, read_card


def load_segmenter(name: str, context: Context) -> Segmenter:
    """Build segmenter `name` for a slide.

    Raises
    ------
    SegmenterError
        The name is unknown (the message lists what exists), the module cannot be imported, or the context lacks what
        the card demands.
    """
    card = read_card(name)
    if card.needs_annotations and context.annotations is None:
        raise SegmenterError(f"segmenter '{name}' needs the column 'annotations' of the sample sheet; none is given")
    if card.needs_exemplar and context.exemplar is None:
        raise SegmenterError(f"segmenter '{name}' needs the column 'exemplar' of the sample sheet; none is given")
    try:
        factory = entry_point(name).load()
    except ImportError as error:
        raise SegmenterError(f"segmenter '{name}' cannot be imported ({one_line(error)})") from error
    return cast(Segmenter, factory(card, context))
