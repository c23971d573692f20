"""Where checkpoints lie, by name: those that ship with the package and the published ones, fetched once for a user.

Nothing here needs torch, so that planning a cohort and fetching stay light.
"""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

from gigaseg.errors import CheckpointError, one_line, unknown
from gigaseg.files import sha256_file

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_ATTEMPTS = 5
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Official:
    """A published checkpoint.

    Attributes
    ----------
    file : its file name, kept on this machine too.
    url : where it is published.
    sha256 : of the file.
    size : of the file, bytes; for people and for the progress.
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
        It is not there; for a published one the message holds the command that fetches it.
    """
    name = str(name_or_path)
    if name in OFFICIAL:
        path = cache_folder() / OFFICIAL[name].file
        if not path.is_file():
            raise CheckpointError(f"checkpoint is '{name}', not found at {path}; run: gigaseg checkpoints {name}")
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


def inventory() -> str:
    """One line a checkpoint that has a name: name, size, licence, and its file or that it is not fetched."""
    rows = [(name, path.stat().st_size, "ships with gigaseg", str(path)) for name, path in shipped().items()]
    for name, official in OFFICIAL.items():
        path = cache_folder() / official.file
        rows.append((name, official.size, official.licence, str(path) if path.is_file() else "not fetched"))
    return "".join(f"{name:10} {size / 1e6:5.0f} MB  {licence:18}  {place}\n" for name, size, licence, place in rows)


def checkpoint_sha256(name: str) -> str | None:
    """Published sha256 of checkpoint `name`, without the file; None for one that is not published."""
    return OFFICIAL[name].sha256 if name in OFFICIAL else None


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a published checkpoint, unless it is there; a download that broke off goes on where it stood.

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
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with part.open("ab") as stream:
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
    """Append to `stream` what it lacks of the file; several attempts, each going on where the last one ended."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if _append(official, stream):
                return
            reason: object = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise CheckpointError(f"{official.url}: HTTP {error.code} {one_line(error.reason)}") from error
            reason = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = error
        log.warning("%s: %s (attempt %d of %d)", official.file, one_line(reason), attempt, _ATTEMPTS)
        if attempt < _ATTEMPTS:
            time.sleep(0.1 * 4 ** (attempt - 1))
    raise CheckpointError(
        f"{official.url}: cannot be fetched ({one_line(reason)}); what came is kept and the next attempt goes on from "
        "there; or put the file there yourself"
    )


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
