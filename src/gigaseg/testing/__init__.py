"""Slides and label images whose instances are known: for tests, benchmarks and the demo."""

from gigaseg.testing.aerial import AERIAL_KINDS, synthetic_aerial
from gigaseg.testing.array_slide import ArraySlide
from gigaseg.testing.labels import LABEL_KINDS, label_image
from gigaseg.testing.slides import Truth, synthetic_image, synthetic_slide

__all__ = [
    "AERIAL_KINDS",
    "LABEL_KINDS",
    "ArraySlide",
    "Truth",
    "label_image",
    "synthetic_aerial",
    "synthetic_image",
    "synthetic_slide",
]
