"""Bytes of image files, damaged at random: cut, flipped, blanked, with lengths that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Span = tuple[int, int]
"""First byte and number of bytes."""

_KB = 1024
_LONG_VR = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
"""Kinds of DICOM elements whose length has four bytes."""


_SIZES = ("ImageWidth", "ImageLength", "TileWidth", "TileLength", "TileByteCounts", "RowsPerStrip")
"""Tags of TIFF whose value, or the first of them, is damaged as a length."""


@dataclass
class Layout:
    """Where the parts of a file lie that tell how to read it.

    Attributes
    ----------
    entries : entries of directories, headers of chunks and segments.
    values : what the entries point to: sizes and places of tiles, tables, descriptions.
    lengths : fields that say how long or how many something is.
    """

    entries: list[Span] = field(default_factory=list)
    values: list[Span] = field(default_factory=list)
    lengths: list[Span] = field(default_factory=list)


def find_layout(content: bytes) -> Layout:
    """The layout of an intact TIFF (of any vendor), PNG, JPEG or DICOM file; an empty one for any other."""
    layout = Layout()
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _tiff(content, layout)
    elif content.startswith(b"\x89PNG"):
        _png(content, layout)
    elif content.startswith(b"\xff\xd8"):
        _jpeg(content, layout)
    elif content[128:132] == b"DICM":
        _dicom(content, layout)
    return layout


def _tiff(content: bytes, layout: Layout) -> None:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        for page in _pages(tif.pages):
            layout.lengths.append((page.offset, tif.tiff.tagnosize))
            for tag in page.tags:
                layout.entries.append((tag.offset, tif.tiff.tagsize))
                layout.lengths.append((tag.offset + 4, tif.tiff.tagsize // 2 - 2 if tif.tiff.version == 42 else 8))
                if not tag.offset <= tag.valueoffset < tag.offset + tif.tiff.tagsize:
                    layout.values.append((tag.valueoffset, tag.valuebytecount))
                if tag.name in _SIZES:
                    layout.lengths.append((tag.valueoffset, tag.valuebytecount // tag.count))


def _pages(pages: Any) -> Iterator[Any]:
    for page in pages:
        page = page.aspage()
        yield page
        if page.pages:
            yield from _pages(page.pages)


def _png(content: bytes, layout: Layout) -> None:
    at = 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        layout.lengths.append((at, 4))
        layout.entries.append((at, 8))
        if content[at + 4 : at + 8] != b"IDAT":
            layout.values.append((at + 8, length + 4))
        at += length + 12


def _jpeg(content: bytes, layout: Layout) -> None:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        (length,) = struct.unpack_from(">H", content, at + 2)
        layout.lengths.append((at + 2, 2))
        layout.entries.append((at, 4))
        layout.values.append((at + 4, length - 2))
        at += length + 2


def _dicom(content: bytes, layout: Layout) -> None:
    """Elements of the top level, explicit little endian, up to the pixels."""
    at = 132
    while at + 12 <= len(content):
        tag, kind = content[at : at + 4], content[at + 4 : at + 6]
        size, skip = ("<I", 8) if kind in _LONG_VR else ("<H", 6)
        (length,) = struct.unpack_from(size, content, at + skip)
        start = at + skip + struct.calcsize(size)
        layout.lengths.append((at + skip, struct.calcsize(size)))
        layout.entries.append((at, start - at))
        if tag == b"\xe0\x7f\x10\x00":
            return
        if length == 0xFFFFFFFF:  # ends with a delimiter
            length = content.index(b"\xfe\xff\xdd\xe0", start) + 8 - start
        layout.values.append((start, length))
        at = start + length


def damaged(content: bytes, layout: Layout, seed: int) -> tuple[bytes, str]:
    """Damage a file in one way.

    Parameters
    ----------
    content, layout : of the intact file.
    seed : chooses the kind, `KINDS` in turn, and the place.

    Returns
    -------
    The damaged bytes, and the kind of damage with its place.
    """
    kind = list(KINDS)[seed % len(KINDS)]
    changed = bytearray(content)
    place = KINDS[kind](changed, layout, np.random.default_rng(seed))
    return bytes(changed), f"{kind} at {place}"


def _cut(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    at = int(rng.integers(1, len(content)))
    del content[at:]
    return at


def _head(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    return _flip(content, (0, min(_KB, len(content))), rng)


def _tail(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    size = min(_KB, len(content))
    return _flip(content, (len(content) - size, size), rng)


def _entry(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    return _flip(content, _choose(layout.entries, content, rng), rng)


def _value(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    return _flip(content, _choose(layout.values, content, rng), rng)


def _length(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    start, size = _choose(layout.lengths, content, rng)
    content[start : start + size] = (b"\0" if rng.random() < 0.5 else b"\xff") * size
    return start


def _pixels(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    return _flip(content, (0, len(content)), rng)


def _zeros(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    start, size = _block(content, rng)
    content[start : start + size] = bytes(size)
    return start


def _swap(content: bytearray, layout: Layout, rng: np.random.Generator) -> int:
    (one, size), (other, _) = _block(content, rng), _block(content, rng)
    size = min(size, abs(other - one), len(content) - max(one, other))
    first = bytes(content[one : one + size])
    content[one : one + size] = content[other : other + size]
    content[other : other + size] = first
    return one


def _flip(content: bytearray, span: Span, rng: np.random.Generator) -> int:
    """A bit, a byte, or eight bytes in a row become others."""
    start, size = span
    at = start + int(rng.integers(size))
    if rng.random() < 0.5:
        content[at] ^= 1 << int(rng.integers(8))
    else:
        for index in range(at, min(at + int(rng.choice([1, 8])), len(content))):
            content[index] ^= int(rng.integers(1, 256))
    return at


def _choose(spans: list[Span], content: bytearray, rng: np.random.Generator) -> Span:
    possible = [span for span in spans if span[1] > 0] or [(0, min(_KB, len(content)))]
    return possible[int(rng.integers(len(possible)))]


def _block(content: bytearray, rng: np.random.Generator) -> Span:
    size = min(2 ** int(rng.integers(9, 17)), len(content) // 2)
    return int(rng.integers(len(content) - size)), size


KINDS: dict[str, Callable[[bytearray, Layout, np.random.Generator], int]] = {
    "cut": _cut,
    "length": _length,
    "entry": _entry,
    "value": _value,
    "head": _head,
    "zeros": _zeros,
    "pixels": _pixels,
    "tail": _tail,
    "swap": _swap,
}
"""Kinds of damage, in the order in which seeds choose them."""
