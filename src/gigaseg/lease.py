"""Who is at work in a results folder: one run at a time, also over a network file system and after a crash.

A run holds ``.lease`` in the results folder, a small file that is linked into place (which either succeeds or fails on
every file system) and touched every few seconds. No lock of the operating system is taken and no clock is compared:
whether its holder lives is asked of the kernel where both run on the same one, and elsewhere by watching whether the
file is touched.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

FILE = ".lease"
BEAT = 5.0
"""Seconds between two touches."""

PATIENCE = 60.0
"""Seconds without a touch after which the holder on another machine counts as dead; file servers may tell of a touch
only after some 30 s."""


@dataclass(frozen=True)
class Holder:
    """The run that holds a results folder.

    Attributes
    ----------
    host, process : where it runs.
    kernel : the running system and its process space, within which process numbers mean the same; empty if unknown.
    born : when the process began, in ticks since the system did; a number that is used again differs in it.
    since : when it took the folder, as the user's clock shows it.
    directory : its working directory.
    key : told apart from any other by this.
    """

    host: str
    process: int
    kernel: str
    born: int
    since: str
    directory: str
    key: str

    @classmethod
    def this(cls) -> Holder:
        """The one of the process that asks."""
        process = os.getpid()
        now = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        return cls(platform.node(), process, _kernel(), _born(process), now, str(Path.cwd()), secrets.token_hex(8))

    @property
    def is_here(self) -> bool:
        """Whether this process can ask the kernel about it."""
        return self.kernel != "" and self.kernel == _kernel()

    @property
    def is_alive(self) -> bool:
        """Whether it runs; only for one that is here."""
        return _born(self.process) == self.born

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


class Held(Exception):
    """Another run is at work in the folder.

    Attributes
    ----------
    holder : which one.
    """

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


class Lease:
    """A results folder that this process holds until `release` or its end; made by `take`."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._path = folder / FILE
        self._holder = holder
        self._ended = threading.Event()
        threading.Thread(target=self._touch, name="lease", daemon=True).start()
        atexit.register(self.release)

    def release(self) -> None:
        """Let others have the folder."""
        atexit.unregister(self.release)
        if not self._ended.is_set():
            self._ended.set()
            if read_holder(self._path) == self._holder:
                self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # a file server that is away for a while
                os.utime(self._path)


def take(folder: str | Path) -> tuple[Lease, Holder | None]:
    """Hold a results folder, which is made where it is missing.

    Returns
    -------
    The lease, and the holder before that died without letting it go, if there was one.

    Raises
    ------
    Held
        Another run is at work there.
    OSError
        The folder cannot be made or written.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    holder, before = Holder.this(), None
    own = place / f"{FILE}.{holder.key}"
    own.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    try:
        while not _linked(own, place / FILE):
            found = read_holder(place / FILE)
            if found is not None and _lives(place / FILE, found):
                raise Held(found)
            if _removed(place / FILE, found, own):
                before = found
    finally:
        own.unlink(missing_ok=True)
    return Lease(place, holder), before


def read_holder(path: Path) -> Holder | None:
    """Who holds a lease; None where there is none, or what is there was cut short by a full disk."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _linked(own: Path, path: Path) -> bool:
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links there (some FUSE file systems): made anew instead, which is as exclusive
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(own.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _removed(path: Path, dead: Holder | None, own: Path) -> bool:
    """Remove a dead holder's lease; False when somebody else was faster and the lease is another's by now."""
    aside = own.with_name(own.name + ".dead")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    found = read_holder(aside)
    if found != dead:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink()
    return found == dead


def _lives(path: Path, holder: Holder) -> bool:
    if holder.is_here:
        return holder.is_alive
    log.warning("%s held this folder last; watching for %g s whether it lives", holder, PATIENCE)
    first, end = _touched(path), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, BEAT))
        if read_holder(path) != holder:
            return False  # it has let go; somebody else may be there now
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> int | None:
    try:
        with path.open("rb") as stream:  # opening asks a file server for the present state
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return None


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot} {space}"
    except OSError:
        return ""


def _born(process: int) -> int:
    try:
        # the name of the program, in brackets, may hold anything
        rest = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return -1
    return -1 if rest[0] in (b"Z", b"X") else int(rest[19])
