"""A small brightfield slide: glass with one piece of tissue."""

import numpy as np
import tifffile

from gigaseg.slides.inspect import inspect


def write_glass(folder, x, y):
    """s.tif, 1000 x 600 px of 1 µm, with tissue at `x` and `y` (first, last + 1), and its slide.json; the folder."""
    image = np.full((600, 1000, 3), 245, np.uint8)
    image[slice(*y), slice(*x)] = (200, 90, 160)
    tifffile.imwrite(
        folder / "s.tif", image, photometric="rgb", tile=(128, 128), resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    inspect(folder / "s.tif", slide="s").write(folder / "slide.json")
    return folder
