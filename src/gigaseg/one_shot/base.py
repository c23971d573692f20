"""What is shown and sought, and what seeks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from gigaseg.errors import FormatError, is_machine_fault, one_line

Picture = npt.NDArray[np.uint8]
"""(h, w, 3) RGB."""

Mask = npt.NDArray[np.bool_]
"""(h, w)."""


class OneShotSegmenter(Protocol):
    """Finds what a support image shows.

    Attributes
    ----------
    back_ends : names of the models that it uses, by their part.
    last_points : number of points that the last image was prompted with.
    """

    @property
    def back_ends(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def last_points(self) -> int: ...  # noqa: D102

    def foreground(self, support_rgb: Picture, support_mask: Mask, query_rgb: Picture) -> Mask:
        """Pixels of the query that are of the kind which the mask covers in the support image.

        Consecutive queries of a support are given the same two arrays.
        """
        ...


@dataclass(frozen=True, eq=False)
class Shown:
    """An image and where a class is in it, not read yet.

    Attributes
    ----------
    image : its file.
    read_mask : reads the mask for the image's shape (h, w).
    upright : turn the image as its EXIF orientation says.
    """

    image: Path
    read_mask: Callable[[tuple[int, int]], Mask] = field(repr=False)
    upright: bool = False

    def read(self) -> tuple[Picture, Mask]:
        """The image and its mask.

        Raises
        ------
        FormatError
            A file is missing or damaged, or their sizes differ.
        """
        rgb = read_picture(self.image, upright=self.upright)
        return rgb, self.read_mask(rgb.shape[:2])


@dataclass(frozen=True, eq=False)
class Episode:
    """A query and what shows its class.

    Attributes
    ----------
    name : such as "coins/01" or "fold 2, 17".
    group : the class.
    fold : that the class belongs to; None: there are no folds.
    support : what shows the class; one object for all consecutive queries of a support.
    query : with the truth.
    """

    name: str
    group: str
    fold: int | None
    support: Shown
    query: Shown


def read_picture(path: Path, *, upright: bool = False) -> Picture:
    """An image file as 8-bit RGB; raises FormatError when it is missing or damaged."""
    return np.asarray(_open(path, "an image", upright).convert("RGB"), dtype=np.uint8)


def read_mask_file(path: Path, shape: tuple[int, int]) -> Mask:
    """A mask from an image file: foreground where a channel is not 0.

    Raises
    ------
    FormatError
        The file is missing, damaged or of another size than `shape` (h, w).
    """
    picture = _open(path, "a mask", False)
    # a palette's numbers say nothing of its colours, and an alpha channel nothing of the class
    kept = picture if picture.mode in ("1", "L", "RGB") or picture.mode.startswith("I") else picture.convert("RGB")
    values = np.asarray(kept)
    if values.shape[:2] != shape:
        found, wanted = (f"{width} × {height} px" for height, width in (values.shape[:2], shape))
        raise FormatError(f"{path}: mask is {found}, expected {wanted}, as its image is")
    return np.asarray(values != 0) if values.ndim == 2 else np.asarray((values != 0).any(2))


def _open(path: Path, what: str, upright: bool) -> Image.Image:
    try:
        with Image.open(path) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened) if upright else opened.copy()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as {what} ({one_line(error)})") from error
