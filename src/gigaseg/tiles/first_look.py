"""Whether a tile can hold anything at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def is_blank(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether all pixels are the same."""
    return bool(np.ptp(pixels) == 0)
