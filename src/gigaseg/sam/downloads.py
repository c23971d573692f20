"""Where checkpoints lie, by name: those that ship with the package and the published ones, fetched once for a user.

Nothing here needs torch, so that planning a cohort and fetching stay light.
"""

from __future__ import annotations

import email.utils
import fcntl
import http.client
import json
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from gigaseg.errors import CheckpointError, one_line, unknown
from gigaseg.files import sha256_file

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_ATTEMPTS = 5
"""Attempts one after another that bring nothing new."""
_TIMEOUT_S = 60
_LONGEST_WAIT_S = 120
"""A server that asks for more patience is not waited for."""
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
"""Refusals that may pass, as all of a server's own errors may."""
_LARGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself accepts."""


@dataclass(frozen=True)
class Official:
    """A published checkpoint.

    Attributes
    ----------
    file : its file name, kept on this machine too.
    url : where it is published.
    sha256 : of the file.
    size : of the file, bytes.
    licence : of the weights.
    """

    file: str
    url: str
    sha256: str
    size: int
    licence: str


def _sam(file: str, sha256: str, size: int) -> Official:
    return Official(file, f"https://dl.fbaipublicfiles.com/segment_anything/{file}", sha256, size, "Apache-2.0")


OFFICIAL: dict[str, Official] = {
    "vit_b": _sam(
        "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375_042_383
    ),
    "vit_l": _sam(
        "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1_249_524_607
    ),
    "vit_h": _sam(
        "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2_564_550_879
    ),
}
"""The checkpoints of Segment Anything (Kirillov et al. 2023), by the name of their configuration."""


def shipped() -> dict[str, Path]:
    """The checkpoints inside the package, by name."""
    folder = Path(__file__).parents[1] / "checkpoints"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def cache_folder() -> Path:
    """Folder of fetched checkpoints: $GIGASEG_CHECKPOINTS, else the platform's place for a user's caches."""
    chosen = os.environ.get("GIGASEG_CHECKPOINTS")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gigaseg" / "checkpoints"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigaseg" / "checkpoints"


def checkpoint_path(name_or_path: str | Path) -> Path:
    """The file of a checkpoint: one that ships, a published one that has been fetched, or a file.

    Raises
    ------
    CheckpointError
        It is not there; for a published one, whose size must be right too, the message holds the command that fetches
        it. The content is looked at where it is read (`checked_sha256`).
    """
    name = str(name_or_path)
    if name in OFFICIAL:
        path = cache_folder() / OFFICIAL[name].file
        if not path.is_file():
            raise CheckpointError(f"checkpoint is '{name}', not found at {path}; run: gigaseg checkpoints {name}")
        found, expected = path.stat().st_size, OFFICIAL[name].size
        if found != expected:
            raise CheckpointError(_another(name, path, f"{found} bytes", f"{expected}"))
        return path
    inside = shipped()
    if name in inside:
        return inside[name]
    if Path(name).is_file():
        return Path(name)
    if Path(name).suffix or len(Path(name).parts) != 1:
        names = ", ".join([*inside, *OFFICIAL])
        raise CheckpointError(f"checkpoint is '{name}', no such file; accepted: a file, or one of {names}")
    raise CheckpointError(f"{unknown('checkpoint', name, [*inside, *OFFICIAL])}; or a file")


def _another(name: str, path: Path, found: str, expected: str) -> str:
    return (
        f"checkpoint is '{name}', but {path} is another file: {found}, expected {expected}; "
        f"run: gigaseg checkpoints {name}"
    )


def checked_sha256(name_or_path: str | Path, path: Path) -> str:
    """The sha256 of `path`, the file of a checkpoint.

    Raises
    ------
    CheckpointError
        `name_or_path` is a published checkpoint, and the file another one.
    """
    found, expected = sha256_file(path), checkpoint_sha256(str(name_or_path))
    if expected not in (None, found):
        raise CheckpointError(_another(str(name_or_path), path, f"sha256 {found}", str(expected)))
    return found


def base_reference(delta: Path, name: str) -> str | Path:
    """What `checkpoint_path` takes for the base that a checkpoint of changes names: a name, or a file.

    A relative path is seen from the folder of `delta`, so that both can be moved together.
    """
    return name if name in OFFICIAL or name in shipped() else delta.parent / name


def header_card(path: str | Path) -> dict[str, Any]:
    """The card in the header of a safetensors checkpoint, without its weights; empty for any other file."""
    try:
        with Path(path).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= _LARGEST_HEADER else {}
        card = json.loads(header["__metadata__"]["gigaseg"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def named_base(path: str | Path) -> str | None:
    """Name of the base in the card of a checkpoint of changes; None for any other file. Only the header is read."""
    try:
        return str(header_card(path)["base"]["name"])
    except (LookupError, TypeError):
        return None


def inventory() -> str:
    """One line a checkpoint that has a name: name, size, licence, and its file or that it is not fetched."""
    rows = [(name, path.stat().st_size, "ships with gigaseg", str(path)) for name, path in shipped().items()]
    for name, official in OFFICIAL.items():
        path = cache_folder() / official.file
        place = "not fetched"
        if path.is_file():
            place = str(path) if path.stat().st_size == official.size else f"another file: {path}"
        rows.append((name, official.size, official.licence, place))
    return "".join(f"{name:10} {size / 1e6:5.0f} MB  {licence:18}  {place}\n" for name, size, licence, place in rows)


def checkpoint_sha256(name: str) -> str | None:
    """Published sha256 of checkpoint `name`, without the file; None for one that is not published."""
    return OFFICIAL[name].sha256 if name in OFFICIAL else None


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a published checkpoint, unless it is there; a download that broke off goes on where it stood.

    Another file under its name is replaced, once the right one is here.

    Parameters
    ----------
    name : of `OFFICIAL`.
    folder : where to keep it; None for `cache_folder`.

    Returns
    -------
    Path
        The file, whose sha256 was found right before it got its name.

    Raises
    ------
    CheckpointError
        No such name, the server cannot be reached, or what it sends is another file.
    """
    if name not in OFFICIAL:
        raise CheckpointError(unknown("checkpoint", name, OFFICIAL))
    official = OFFICIAL[name]
    target = Path(folder or cache_folder()) / official.file
    if target.is_file():
        if target.stat().st_size == official.size and sha256_file(target) == official.sha256:
            return target
        log.warning("%s is not the published checkpoint '%s'; fetching that", target, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with part.open("ab") as stream:
        with suppress(OSError):  # a network file system may have no locks; then the sha256 tells who was in the way
            fcntl.flock(stream, fcntl.LOCK_EX)  # another process may be at it
        if not part.is_file():  # the other one has finished with it
            return fetch(name, folder)
        log.info("%s: %s MB from %s", name, official.size // 10**6, official.url)
        _download(official, stream)
        stream.flush()
        found = sha256_file(part)
        if found != official.sha256:
            part.unlink()
            raise CheckpointError(
                f"{official.url}: sha256 is {found}, expected {official.sha256}; what came was removed, fetch it again"
            )
        part.replace(target)
    return target


def _download(official: Official, stream: IO[bytes]) -> None:
    """Append to `stream` what it lacks of the file; attempts go on where the last one ended, as long as they help."""
    most, failures = stream.seek(0, os.SEEK_END), 0
    while True:
        wait = 0.0
        try:
            if _append(official, stream):
                return
            reason: object = "the connection ended early"
        except urllib.error.HTTPError as error:
            wait = _retry_after(error.headers.get("Retry-After"))
            if (error.code < 500 and error.code not in _PASSING) or wait > _LONGEST_WAIT_S:
                later = f"; the server asks to wait {wait:.0f} s" if wait else ""
                raise CheckpointError(f"{official.url}: HTTP {error.code} {one_line(error.reason)}{later}") from error
            reason = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = error
        have = stream.seek(0, os.SEEK_END)
        failures = 1 if have > most else failures + 1
        most = max(most, have)
        log.warning("%s: %s (attempt %d of %d)", official.file, one_line(reason), failures, _ATTEMPTS)
        if failures >= _ATTEMPTS:
            raise CheckpointError(
                f"{official.url}: cannot be fetched ({one_line(reason)}); what came is kept and the next attempt goes "
                "on from there; or put the file there yourself"
            )
        time.sleep(max(wait, 0.1 * 4 ** (failures - 1)))


def _retry_after(value: str | None) -> float:
    """Seconds that a server asks to wait: a number, or a date (RFC 9110, 10.2.3); 0 for nothing that can be read."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _append(official: Official, stream: IO[bytes]) -> bool:
    """One request; returns whether the file is complete as far as the server tells."""
    have = stream.seek(0, os.SEEK_END)
    request = urllib.request.Request(official.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # nothing is left to send
            return True
        raise
    with response:
        if have and response.status != HTTPStatus.PARTIAL_CONTENT:  # the server sends the whole file
            stream.truncate(0)
            have = 0
        length, received = response.headers.get("Content-Length"), 0
        while chunk := response.read(_CHUNK):
            stream.write(chunk)
            before, received = have + received, received + len(chunk)
            if before * 10 // official.size < (have + received) * 10 // official.size:
                log.info("%s: %d of %d MB", official.file, (have + received) // 10**6, official.size // 10**6)
    return length is None or received == int(length)
