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
import signal
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
        return cls(platform.node(), process, _kernel(), _born(process) or 0, now, str(Path.cwd()), secrets.token_hex(8))

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, under the kernel of this process, which can be asked about it."""
        return self.kernel != "" and self.kernel == _kernel()

    @property
    def is_alive(self) -> bool | None:
        """Whether it runs, for one that is here; None where the kernel does not tell of other users' processes."""
        born = _born(self.process)
        if born is not None:
            return born == self.born
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's
            return None
        return None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


UNKNOWN = Holder("an unknown machine", 0, "", 0, "an unknown time", "", "unknown")
"""The holder of a lease that cannot be read."""


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
    """A results folder that this process holds until `close` or its end; made by `take`."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._path = folder / FILE
        self._holder = holder
        self._ended = threading.Event()
        threading.Thread(target=self._touch, name="lease", daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        """Let others have the folder."""
        atexit.unregister(self.close)
        if not self._ended.is_set():
            self._ended.set()
            with suppress(OSError):
                if read_holder(self._path) == self._holder:
                    self._path.unlink()

    def _touch(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # a file server that is away for a while
                if read_holder(self._path) == self._holder:
                    os.utime(self._path)
                else:
                    self._ended.set()
                    log.error("another run took this results folder while this one stood still: ending")
                    os.kill(os.getpid(), signal.SIGTERM)


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
        The folder cannot be made, read or written.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    holder = Holder.this()
    own = place / f"{FILE}.{holder.key}"
    try:
        own.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        before = _acquire(place / FILE, own)
    finally:
        own.unlink(missing_ok=True)
    for left in place.glob(f"{FILE}.*"):
        dead = read_holder(left)
        if dead is not None and dead.is_here and dead.is_alive is False:
            left.unlink(missing_ok=True)
    return Lease(place, holder), before


def read_holder(path: Path) -> Holder | None:
    """Who holds a lease; None where there is none, `UNKNOWN` where what is there was cut short by a full disk."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return UNKNOWN


def _acquire(path: Path, own: Path) -> Holder | None:
    """Make `path` a copy of `own` when no living holder has it; returns the dead one that had it, if any did.

    To follow a dead holder one must first acquire the right to, a file of its name, so that only one does; the file
    of the dead is replaced and never missing.
    """
    while not _linked(own, path):
        found = read_holder(path)
        if found is None:
            continue
        if _lives(path, found):
            raise Held(found)
        right = path.with_name(f"{FILE}.after-{found.key}")
        _acquire(right, own)
        try:
            if read_holder(path) == found:
                copy = own.with_name(own.name + ".copy")
                copy.write_bytes(own.read_bytes())
                copy.replace(path)
                return found
        finally:
            right.unlink()
    return None


def _linked(own: Path, path: Path) -> bool:
    try:
        os.link(own, path)
    except FileExistsError:
        with suppress(FileNotFoundError):
            return path.samefile(own)  # made by us: a file server's answer was lost
        return False
    except OSError:  # no hard links there (some FUSE file systems): made anew instead, which is as exclusive
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(own.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _lives(path: Path, holder: Holder) -> bool:
    if holder.is_here and holder.is_alive is not None:
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


def _born(process: int) -> int | None:
    """When a process began, in ticks since the system did; -1 for one that has ended; None where it is not told."""
    try:
        # the name of the program, in brackets, may hold anything
        rest = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return -1 if rest[0] in (b"Z", b"X") else int(rest[19])
