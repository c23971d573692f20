"""What identifies the state of a slide's file; light, since the workflow calls it when it is parsed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

_WORLD_FILES = (".tfw", ".tifw", ".tfwx", ".wld", ".pgw", ".pgwx", ".jgw", ".jgwx", ".prj")
_GEOREFERENCE = re.compile(rb"<(SRS|GeoTransform|GCPList)\b.*?</\1>", re.DOTALL)


def fingerprint(path: str | Path) -> str:
    """Return "size-mtime_ns" of a slide, or "missing".

    Sizes are summed and the latest time is taken over the file and those beside it that belong to it: the
    folder of a MIRAX slide (.mrxs), the other files of a DICOM folder (.dcm), the parts of a Hamamatsu VMS or
    VMU slide, and a raster's world file, projection, external mask and overviews. Of the .aux.xml beside a raster the
    georeference counts, not the statistics that programs write there when they show it.
    """
    target = Path(path)
    try:
        if not target.is_file():
            return "missing"
        states = [target.stat(), *(companion.stat() for companion in companions(target))]
    except OSError:
        return "missing"
    found = f"{sum(state.st_size for state in states)}-{max(state.st_mtime_ns for state in states)}"
    try:
        auxiliary = target.with_name(target.name + ".aux.xml").read_bytes()
    except OSError:
        return found
    georeference = b"".join(match.group(0) for match in _GEOREFERENCE.finditer(auxiliary))
    return f"{found}-{zlib.crc32(georeference):08x}" if georeference else found


def last_change(path: str | Path) -> float:
    """Seconds since the epoch at which a slide, or what belongs to it, was last written, renamed or copied; 0.0: gone.

    The time of the last change of an inode counts too: copies that preserve times set the other one back.
    """
    target = Path(path)
    try:
        states = [target.stat(), *(companion.stat() for companion in companions(target))]
    except FileNotFoundError:
        return 0.0
    return max(max(state.st_mtime, state.st_ctime) for state in states)


def companions(path: Path) -> Iterator[Path]:
    """Files beside a slide that belong to it, as `fingerprint` counts them."""
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        folder = path.with_suffix("")
        found = folder.iterdir() if folder.is_dir() else iter(())
    elif suffix == ".dcm":
        found = (other for other in path.parent.iterdir() if other.suffix.lower() == ".dcm")
    elif suffix in (".vms", ".vmu"):
        found = (other for other in path.parent.iterdir() if other.name.startswith(path.stem))
    else:
        sidecars = [path.with_suffix(world) for world in _WORLD_FILES]
        found = iter([*sidecars, path.with_name(path.name + ".ovr"), path.with_name(path.name + ".msk")])
    return (other for other in found if other != path and other.is_file())
