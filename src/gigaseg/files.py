"""How files are written and recognised: atomic replacement, provenance, failure records.

Every output appears under its name only when it is complete. Parquet files carry their provenance as JSON under the
metadata key ``gigaseg``. A step that met a user-data error inside a cohort writes a failure record (a small JSON
object) in place of each of its outputs; whoever reads such a file gets an `UpstreamFailure`.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import platform
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg.errors import FormatError, UpstreamFailure, is_machine_fault, one_line

if TYPE_CHECKING:  # imported where tables are used: processes that only read a slide start in half the time
    import pyarrow as pa
    import pyarrow.parquet as pq

METADATA_KEY = b"gigaseg"
_RECORD_FORMAT = "gigaseg/failure/1"
_MAX_RECORD_BYTES = 65536
_IN_FOLDER = "failure.json"
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that only a file that is written can have."""

_ABANDONED = 86400
"""Seconds after which a scratch folder of another machine counts as left behind."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary name ends in the target's own suffix (writers choose formats by it) and holds machine and process id,
    so that two processes never write the same file. On an error the temporary file is removed and `path` is
    untouched; what a killed process left behind is removed by the next that writes the same target.

    Raises
    ------
    OSError
        The disk is full; with the name of the target.
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        with _naming(target, temporary):
            yield temporary
            temporary.replace(target)
    finally:
        with suppress(OSError):  # it is not there, or nothing can be removed where nothing can be written
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As `atomic`, for a folder that the block makes itself.

    What was at `path` is moved aside first and then removed; a process that is killed just then leaves nothing there.
    """
    target = Path(path)
    temporary = _temporary(target)
    before = temporary.with_name(temporary.name + ".before")
    try:
        with _naming(target, temporary):
            yield temporary
            with suppress(FileNotFoundError):
                target.replace(before)
            temporary.replace(target)
    finally:
        for left in (temporary, before):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def scratch(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` for what a step puts aside; it is removed when the block ends.

    What a killed process left behind is removed by the next that makes a folder for the same `path`: at once on the
    same machine, and after a day without a change on another one, whose processes cannot be asked.
    """
    target = Path(path).with_name(Path(path).name + ".scratch")
    folder = _temporary(target)
    folder.mkdir()
    now = folder.stat().st_mtime  # by the clock of the disk, as the others' times: machines' clocks differ and are set
    for left in target.parent.glob(f".*.*.{glob.escape(target.name)}"):
        if left != folder and _last_change(left) < now - _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    try:
        with _naming(Path(path), folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _naming(target: Path, temporary: Path) -> Iterator[None]:
    """Let the error for what cannot be written name the target: as it comes, it names the temporary file or nothing."""
    try:
        yield
    except OSError as error:
        about = str(error.filename or error)
        if str(temporary) in about or (error.filename is None and error.errno in _WRITING):
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(target)) from error
        raise


def _last_change(folder: Path) -> float:
    """Latest change of a folder and what lies in it, s since the epoch; inf when it is gone meanwhile."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return math.inf


def _temporary(target: Path) -> Path:
    """Name beside `target` that no other process uses; names of processes that ended are freed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from error
    host = platform.node().replace(".", "-") or "host"
    mine = target.with_name(f".{host}.{os.getpid()}.{target.name}")
    # with what a library put beside its file, such as the journal of a GeoPackage
    for left in target.parent.glob(f".{glob.escape(host)}.*.{glob.escape(target.name)}*"):
        # a process that ended may have had this one's number
        if left == mine or not _is_alive(left.name.split(".")[2]):
            _remove(left)
    return mine


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True  # another user's
    except (ValueError, ProcessLookupError):
        return False
    return True


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented UTF-8 JSON, atomically; NaN is refused (ValueError)."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path, format: str) -> dict[str, Any]:
    """Read a JSON object whose ``format`` is `format`.

    Raises
    ------
    UpstreamFailure
        The file is a failure record.
    FormatError
        The file is missing, no JSON, or has another ``format``.
    """
    raise_if_failed(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as JSON ({one_line(error)}); expected {format}") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != format:
        raise FormatError(f"{path}: format is {found!r}, expected '{format}'; run the step that writes it again")
    return dict(content)


def write_parquet(path: str | Path, table: pa.Table, metadata: Mapping[str, Any]) -> None:
    """Write `table` with `metadata` under the key ``gigaseg``, atomically and byte-reproducibly."""
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(with_metadata(table, metadata), temporary, compression="zstd")


@contextmanager
def parquet_writer(
    path: str | Path, schema: pa.Schema, metadata: Mapping[str, Any], plain: Sequence[str] = ()
) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a table that is written row group by row group; `path` appears when the block has ended.

    Parameters
    ----------
    schema, metadata : of the table; the metadata goes under the key ``gigaseg``.
    plain : columns to write without a dictionary (those whose values hardly repeat); of a struct, all its fields.
    """
    import pyarrow.parquet as pq

    schema = with_metadata(schema.empty_table(), metadata).schema
    leaves = [field.name for field in schema if field.name not in plain]
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=leaves) as writer,
    ):
        yield writer


def with_metadata(table: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """`table` with `metadata` as JSON under the key ``gigaseg``; other metadata stays."""
    packed = json.dumps(metadata, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: packed})


def read_parquet(path: str | Path, format: str, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table and its provenance.

    Raises
    ------
    UpstreamFailure
        The file is a failure record.
    FormatError
        The file is missing, partial, or its provenance names another ``format`` than `format`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = read_metadata(path, format)
    try:
        return pq.read_table(path, columns=columns), metadata
    except (OSError, pa.ArrowException) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: damaged Parquet file ({one_line(error)})") from error


def read_metadata(path: str | Path, format: str) -> dict[str, Any]:
    """Return the provenance of a Parquet file of ours; errors as `read_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    raise_if_failed(path)
    try:
        packed = (pq.read_schema(path).metadata or {}).get(METADATA_KEY)
    except (OSError, pa.ArrowException) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as Parquet ({one_line(error)}); expected {format}") from error
    if packed is None:
        raise FormatError(f"{path}: no gigaseg metadata; expected {format}")
    try:
        found = json.loads(packed)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its gigaseg metadata is no JSON ({one_line(error)}); run the step again") from error
    metadata = _Provenance(found if isinstance(found, dict) else {})
    metadata.path = path
    if metadata.get("format") != format:
        raise FormatError(f"{path}: format is '{metadata.get('format')}', expected '{format}'; run the step again")
    return metadata


class _Provenance(dict[str, Any]):
    """Provenance of the file `path`, which says what it lacks."""

    path: str | Path = ""

    def __missing__(self, key: str) -> Any:
        raise FormatError(f"{self.path}: its metadata has no '{key}'; run the step that writes it again")


def require_columns(path: str | Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise FormatError when the table in `path` lacks a column."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise FormatError(f"{path}: no column {', '.join(missing)}; run the step that writes it again")


def same_slide(expected: str, found: str, path: str | Path) -> None:
    """Raise FormatError when file `path` was made for another slide than `expected`."""
    if found != expected:
        raise FormatError(f"{path}: made for slide '{found}', expected '{expected}'; are the inputs of one slide?")


def write_failure(path: str | Path, step: str, reason: str) -> None:
    """Write the failure record of `step` in place of its output `path`.

    A record is a JSON object; in place of a PNG it is a picture that says the same, with the object in its text; in
    place of a Zarr store it is a folder with the object in failure.json.
    """
    record = {"format": _RECORD_FORMAT, "status": "failed", "step": step, "reason": one_line(reason)}
    if Path(path).suffix == ".png":
        _write_failure_picture(path, record)
    elif Path(path).suffix == ".zarr":
        with atomic_folder(path) as folder:
            folder.mkdir()
            write_json(folder / _IN_FOLDER, record)
    else:
        write_json(path, record)


def _write_failure_picture(path: str | Path, record: dict[str, str]) -> None:
    from PIL import Image, ImageDraw, PngImagePlugin

    lines = [f"failed at step '{record['step']}'", *textwrap.wrap(record["reason"], 80)]
    picture = Image.new("RGB", (640, 24 + 18 * len(lines)), "white")
    ImageDraw.Draw(picture).multiline_text((12, 12), "\n".join(lines), fill="black", spacing=6)
    text = PngImagePlugin.PngInfo()
    text.add_itxt(_RECORD_FORMAT, json.dumps(record))
    with atomic(path) as temporary:
        picture.save(temporary, pnginfo=text)


def read_failure(path: str | Path) -> tuple[str, str] | None:
    """Return (step, reason) when `path` is a failure record, else None; a missing file is no record."""
    target = Path(path)
    if target.is_dir():
        target /= _IN_FOLDER
    try:
        if target.stat().st_size > _MAX_RECORD_BYTES:
            return None
        raw = target.read_bytes()
    except OSError:
        return None
    if raw.startswith(b"\x89PNG") and _RECORD_FORMAT.encode() in raw:
        from PIL import Image

        with Image.open(target) as picture:
            raw = str(picture.info.get(_RECORD_FORMAT, "")).encode()
    if not raw.startswith(b"{"):
        return None
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != _RECORD_FORMAT:
        return None
    return str(content.get("step")), str(content.get("reason"))


def raise_if_failed(path: str | Path) -> None:
    """Raise `UpstreamFailure` when `path` is a failure record."""
    record = read_failure(path)
    if record is not None:
        raise UpstreamFailure(*record)


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """First 16 hexadecimal digits of the sha256 of `content` as canonical JSON."""
    packed = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(packed.encode()).hexdigest()[:16]
