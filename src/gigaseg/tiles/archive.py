"""A ZIP archive of stored (uncompressed) members, appended by one writer and read by position.

`zipfile` computes each member's CRC-32 while it writes, in the one process that writes. Here the processes
that made the bytes have done that already, so only the headers remain to be written; `zipfile` reads them back.
Timestamps and attributes are fixed, so equal members give equal archives.

Source: PKWARE, .ZIP File Format Specification 6.3.10, sections 4.3.7 (local header), 4.3.12 (central
directory), 4.3.14-16 (ends of the directory) and 4.5.3 (ZIP64 extra field).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from imagecodecs import deflate_crc32

from gigaseg.errors import FormatError, one_line

_DATE, _TIME = 1 << 5 | 1, 0  # 1980-01-01 00:00, the earliest a ZIP can say
_VERSION, _VERSION_ZIP64 = 20, 45
_UNIX, _MODE = 3 << 8, 0o100644 << 16
_MAX_32 = 0xFFFFFFFF
_LOCAL = struct.Struct("<4s5H3L2H")

_WRITE_BEHIND = 32 * 2**20
"""After so many bytes the system is told that it may write them out and forget them. A store is read much later and
once, so its pages only displace the slide's; taking ever new pages cost 2 s of CPU a GB on a virtual machine, where
this takes 0.7 s."""


class ArchiveWriter:
    """Appends members to an open binary file that stands at its beginning."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._directory: list[bytes] = []
        self._offset = self._behind = 0

    def add(self, name: str, content: bytes | memoryview, crc: int) -> None:
        """Append a member.

        Parameters
        ----------
        name : its path in the archive, ASCII.
        content : its bytes (C-contiguous), less than 4 GiB.
        crc : their CRC-32.
        """
        size, encoded = memoryview(content).nbytes, name.encode("ascii")
        if size >= _MAX_32:
            raise ValueError(f"member {name} has {size} bytes; a member of a ZIP archive has less than {_MAX_32}")
        facts = (0, 0, _TIME, _DATE, crc, size, size, len(encoded))
        header = _LOCAL.pack(b"PK\3\4", _VERSION, *facts, 0) + encoded
        extra, offset, version = b"", self._offset, _VERSION
        if offset >= _MAX_32:
            extra, offset, version = struct.pack("<2HQ", 1, 8, offset), _MAX_32, _VERSION_ZIP64
        entry = struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", _UNIX | version, version, *facts, len(extra), 0, 0, 0, _MODE, offset
        )
        self._directory.append(entry + encoded + extra)
        self._stream.write(header)
        self._stream.write(content)
        self._offset += len(header) + size
        if self._offset - self._behind >= _WRITE_BEHIND:
            self._write_behind()

    def _write_behind(self) -> None:
        # pages are forgotten only once they are on the disk, so each is named twice: to write it, and to forget it
        start = max(0, self._behind - _WRITE_BEHIND)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._stream.fileno(), start, self._offset - start, os.POSIX_FADV_DONTNEED)
        self._behind = self._offset

    def close(self) -> None:
        """Write the directory; without it the archive is recognised as partial."""
        directory = b"".join(self._directory)
        count, size, offset = len(self._directory), len(directory), self._offset
        self._stream.write(directory)
        if count >= 0xFFFF or offset + size >= _MAX_32:
            end = offset + size
            sizes = (0, 0, count, count, size, offset)
            self._stream.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, _UNIX | _VERSION_ZIP64, _VERSION_ZIP64, *sizes))
            self._stream.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
            count, size, offset = min(count, 0xFFFF), min(size, _MAX_32), min(offset, _MAX_32)
        self._stream.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0))


def crc32(content: Any) -> int:
    """CRC-32 of a buffer: libdeflate's, six times as fast as zlib's."""
    return int(deflate_crc32(content))


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int
    crc: int
    stored: bool


class ArchiveReader:
    """Reads stored members by position, each without touching the others.

    Nothing is allocated but what is asked for: a member must be stored, so its size is bounded by the file's.

    Raises
    ------
    FormatError
        The file is missing, no ZIP archive, or a partial one.
    """

    def __init__(self, path: str | Path, expected: str) -> None:
        self._path, self._expected = Path(path), expected
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise FormatError(f"{path}: cannot be opened ({one_line(error.strerror)}); expected {expected}") from error
        try:
            with zipfile.ZipFile(self._file) as archive:
                members = {info.filename: _member(info) for info in archive.infolist()}
        except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError) as error:
            self._file.close()
            raise FormatError(f"{path}: no complete ZIP archive ({one_line(error)}); expected {expected}") from error
        self._members: Mapping[str, _Member] = members

    def check(self, name: str, size: int | None = None, limit: int | None = None) -> int:
        """Return the size of a member.

        Raises FormatError when it is missing or compressed, has not `size` bytes, or has more than `limit`.
        """
        member = self._members.get(name)
        if member is None:
            raise self._wrong(f"has no member {name}")
        if not member.stored:
            raise self._wrong(f"member {name} is compressed, not stored")
        if size is not None and member.size != size:
            raise self._wrong(f"member {name} declares {member.size} bytes, not {size}")
        if limit is not None and member.size > limit:
            raise self._wrong(f"member {name} declares {member.size} bytes, more than {limit}")
        return member.size

    def read_into(self, name: str, buffer: npt.NDArray[np.uint8]) -> None:
        """Fill `buffer`, C-contiguous and of the member's size, and check it against the CRC-32.

        Raises FormatError when the member is not there, of another size, or damaged.
        """
        self.check(name, size=buffer.nbytes)
        member, descriptor = self._members[name], self._file.fileno()
        header = os.pread(descriptor, _LOCAL.size, member.offset)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise self._wrong(f"member {name} is damaged: no header")
        fields = _LOCAL.unpack(header)
        start = member.offset + _LOCAL.size + fields[-2] + fields[-1]
        view, done = buffer.reshape(-1).data, 0
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], start + done)
            if count == 0:
                raise self._wrong(f"member {name} is cut short at byte {done}")
            done += count
        if crc32(view) != member.crc:
            raise self._wrong(f"member {name} is damaged: wrong CRC-32")

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a member of at most `limit` bytes; errors as `read_into`."""
        buffer = np.empty(self.check(name, limit=limit), np.uint8)
        self.read_into(name, buffer)
        return buffer.tobytes()

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _wrong(self, found: str) -> FormatError:
        return FormatError(f"{self._path}: {found}; expected {self._expected}; run tile again")


def _member(info: zipfile.ZipInfo) -> _Member:
    plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    stored = plain and info.compress_size == info.file_size and info.header_offset >= 0
    return _Member(info.header_offset, info.file_size, info.CRC, stored)
