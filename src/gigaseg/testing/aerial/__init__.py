"""Generated aerial images of settlements with the roofs of their buildings, to train and to test with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gigaseg.errors import ConfigError, unknown
from gigaseg.testing.aerial.blocks import AERIAL_KINDS, lay_out
from gigaseg.testing.aerial.paint import Canvas, Light

__all__ = ["AERIAL_KINDS", "synthetic_aerial"]

_EIGHT = np.ones((3, 3), int)

_CHANCES = (0.24, 0.12, 0.12, 0.12, 0.09, 0.10, 0.08, 0.07, 0.06)
"""How often each of `AERIAL_KINDS` is drawn."""


def synthetic_aerial(
    shape: tuple[int, int], gsd: float = 0.3, seed: int = 0, *, kind: str | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """An invented aerial image of streets, houses, trees and fields, and the roofs in it.

    The scene is laid out in metres: the same seed and the same extent show the same buildings at every `gsd`. Look,
    light, camera and compression are drawn widely, on purpose, wider than those of any one survey.

    Parameters
    ----------
    shape : (height, width), px.
    gsd : m per pixel, 0.1 to 1.
    seed : the same arguments and seed give the same pixels.
    kind : one of `AERIAL_KINDS`; None: drawn by chance. Of "open", and some of "country" and "forest", no building.

    Returns
    -------
    (height, width, 3) uint8 RGB; and (height, width) int32 labels: 0 background, 1..n the roofs as the image shows
    them, also where a crown hides them. Houses that touch are one object; an object is 8-connected.

    Raises
    ------
    ConfigError : unknown kind, or a size or gsd that makes no sense.
    """
    from scipy import ndimage

    if min(shape) < 16 or not 0.1 <= gsd <= 1:
        raise ConfigError(
            f"aerial image of {shape[1]} x {shape[0]} px at {gsd} m/px; accepted: at least 16 px, 0.1-1 m/px"
        )
    if kind is None:
        kind = str(np.random.default_rng([seed, 100]).choice(AERIAL_KINDS, p=_CHANCES))
    if kind not in AERIAL_KINDS:
        raise ConfigError(unknown("kind of aerial scene", kind, AERIAL_KINDS))
    height, width = shape
    ground = lay_out(width * gsd, height * gsd, seed, kind)
    light = Light.draw(np.random.default_rng([seed, 101]))
    factor = 2 if gsd < 0.6 else 3
    canvas = Canvas(ground, (height * factor, width * factor), gsd / factor, np.random.default_rng([seed, 102]))
    image, roof = canvas.leaning(canvas.lit(light), light)
    inner = slice(canvas.margin, canvas.margin + height * factor), slice(canvas.margin, canvas.margin + width * factor)
    fine = image[inner].reshape(height, factor, width, factor, 3).mean((1, 3))
    covered = roof[inner].reshape(height, factor, width, factor).mean((1, 3)) >= 0.5
    labels, _ = ndimage.label(covered, _EIGHT)
    return _photographed(fine, np.random.default_rng([seed, 103])), np.asarray(labels, np.int32)


def _photographed(image: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What camera, air and file format make of an image of display RGB, 0..1."""
    from scipy.ndimage import gaussian_filter

    def soft(picture: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
        return np.asarray(gaussian_filter(picture, (sigma, sigma, 0)))

    image = soft(image, rng.choice([rng.uniform(0.25, 0.6), rng.uniform(0.5, 1.1)]))
    if rng.random() < 0.35:
        image = image + rng.uniform(0.3, 1.2) * (image - soft(image, 1.0))
    image = image * (rng.uniform(0.33, 0.52) / max(float(image.mean()), 0.05)) ** rng.uniform(0.5, 1)  # exposure
    haze = rng.uniform(0, 0.22) if rng.random() < 0.4 else 0.0
    image = image * (1 - haze) + haze * np.array([0.75, 0.8, 0.86])
    image = (image * rng.normal(1, 0.035, 3)).clip(0, None)
    image = image.clip(0, 1.3) ** rng.uniform(0.75, 1.2)
    contrast, bright = rng.uniform(0.75, 1.25), rng.normal(0, 0.05)
    image = (image - 0.45) * contrast + 0.45 + bright
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * rng.uniform(0.45, 1.1)
    if rng.random() < 0.12:
        weights = rng.dirichlet([3, 4, 2])
        image = np.repeat((image @ weights)[..., np.newaxis], 3, -1)
        noise = rng.standard_normal(image.shape[:2])[..., np.newaxis]
    else:
        noise = rng.standard_normal(image.shape)
    image = image + rng.choice([0.004, 0.01, 0.02]) * noise
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.7:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=int(rng.integers(45, 96)))
        pixels = np.asarray(Image.open(stream))
    return np.array(pixels)
