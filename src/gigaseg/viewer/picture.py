"""The picture of a slide as a deep zoom, each tile rendered from the slide's own file when it is asked for."""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.report.thumbnail import thumbnail
from gigaseg.slides.base import Slide, SlideInfo
from gigaseg.slides.pyramid import best_level
from gigaseg.slides.registry import open_slide

TILE = 512
"""Side of a tile, px."""

_QUALITY = 85
_OPEN = 4
"""Slides that a thread keeps open, and thumbnails that are kept."""

_LONGEST_REDUCTION = 8
"""A tile is read from a level up to so many times finer; what is coarser comes from one thumbnail."""

_THUMBNAIL = 8192
"""Most px of a thumbnail's longer side: 200 MB."""


class Pictures:
    """Tiles of slides; every thread reads through files that it opened itself."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._thumbnails: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()
        self._making: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def tile(self, info: SlideInfo, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG.

        Parameters
        ----------
        info : the slide.
        level : 0 is one pixel for the whole slide; each further one doubles both sides, up to `max_level`.
        column, row : of the tile, `TILE` px each way, less at the slide's right and lower end.

        Raises
        ------
        KeyError : there is no such tile.
        SlideError : the slide's file is missing, has changed, or cannot be decoded.
        """
        if not 0 <= level <= max_level(info):
            raise KeyError(level)
        step = 2 ** (max_level(info) - level)
        width = min(TILE, math.ceil(info.width / step) - column * TILE)
        height = min(TILE, math.ceil(info.height / step) - row * TILE)
        if column < 0 or row < 0 or width < 1 or height < 1:
            raise KeyError((column, row))
        left, top = column * TILE * step, row * TILE * step
        bounds = Bounds(left, top, left + width * step, top + height * step)
        slide = self._slide(info)
        finest = info.levels[best_level(info.levels, step, step)]
        if step > _LONGEST_REDUCTION * max(finest.downsample_x, finest.downsample_y):
            pixels = self._from_thumbnail(slide, bounds, Shape2d(height, width))
        else:
            pixels = info.rendering.rgb(slide.read(bounds, Shape2d(height, width)))
        return jpeg(pixels)

    def close(self) -> None:
        """Forget the thumbnails; the files are closed with their threads."""
        self._thumbnails.clear()

    def _slide(self, info: SlideInfo) -> Slide:
        opened: OrderedDict[str, Slide] = self._local.__dict__.setdefault("opened", OrderedDict())
        key = f"{info.path}\n{info.fingerprint}\n{info.rendering}"
        if key not in opened:
            opened[key] = open_slide(info)
            if len(opened) > _OPEN:
                opened.popitem(last=False)[1].close()
        opened.move_to_end(key)
        return opened[key]

    def _from_thumbnail(self, slide: Slide, bounds: Bounds, shape: Shape2d) -> npt.NDArray[np.uint8]:
        """Part of a picture of the whole slide, made once: a slide without a pyramid is read in full for it."""
        info = slide.info
        key = f"{info.path}\n{info.fingerprint}\n{info.rendering}"
        with self._lock:
            making = self._making[key]
        with making:  # other slides need not wait for this one
            whole = self._thumbnails.get(key)
            if whole is None:
                coarsest = max(info.levels, key=lambda level: level.downsample_x)
                # as fine as the finest tile that is made of it
                wanted = math.ceil(max(coarsest.width, coarsest.height) / _LONGEST_REDUCTION)
                whole = thumbnail(slide, min(max(wanted, TILE), _THUMBNAIL))
                with self._lock:
                    self._thumbnails[key] = whole
                    if len(self._thumbnails) > _OPEN:
                        self._thumbnails.popitem(last=False)
        scale_x, scale_y = whole.shape[1] / info.width, whole.shape[0] / info.height
        box = (bounds.xmin * scale_x, bounds.ymin * scale_y, bounds.xmax * scale_x, bounds.ymax * scale_y)
        box = (box[0], box[1], min(box[2], whole.shape[1]), min(box[3], whole.shape[0]))
        part = Image.fromarray(whole).resize((shape[1], shape[0]), Image.Resampling.BOX, box)
        return np.asarray(part)


def max_level(info: SlideInfo) -> int:
    """The level that shows the slide's own pixels."""
    return math.ceil(math.log2(max(info.width, info.height, 2)))


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(y, x, 3) uint8 as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def is_there(info: SlideInfo) -> str | None:
    """Why the slide has no picture, in one line; None when it has one."""
    from gigaseg.errors import SlideError, one_line

    path = Path(info.path)
    if not path.exists():
        return f"{path}: no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}")
    try:
        open_slide(info).close()
    except SlideError as error:
        return one_line(error)
    return None
