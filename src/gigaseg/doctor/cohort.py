"""Checks of a cohort: configuration, slides, weights, and room for the results."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gigaseg.ahead import ahead, tiles_ahead
from gigaseg.devices import check_device
from gigaseg.doctor.finding import NOTE, OK, WRONG, Finding
from gigaseg.errors import CheckpointError, DeviceError, UserError
from gigaseg.export.formats import FORMATS
from gigaseg.lease import FILE, read_holder
from gigaseg.plan import Plan, SlidePlan, make_plan
from gigaseg.sam.downloads import base_reference, checked_sha256, checkpoint_path, named_base
from gigaseg.segmenters.card import read_card

STORED = 1.9
"""Bytes of a tile store a working pixel, while its shard is segmented (benchmarks/results/whole_slide.md)."""

KEPT = 1.2
"""Bytes of results that stay a working pixel, of H&E with 2,200 nuclei a mm² and a GeoJSON (the same page)."""

_SHOWN = 5
_CLOCK = 60.0


def check_cohort(content: Mapping[str, Any], source: str) -> Iterator[Finding]:
    """All checks of a configuration and the slides that it names."""
    try:
        plan = make_plan(content, source)
    except UserError as error:
        yield from (Finding(WRONG, "config", line) for line in str(error).splitlines())
        return
    presets = ", ".join(f"{name} ({one.segmenter.name})" for name, one in plan.config.presets.items())
    yield Finding(OK, "config", f"{source}: presets {presets}")
    yield from slides(plan)
    yield from weights(plan)
    yield from devices(plan)
    yield from exports(plan)
    yield from results(Path(plan.config.results))
    yield disk(plan)
    yield Finding(OK, "ahead", ahead(plan))


def slides(plan: Plan) -> Iterator[Finding]:
    """Whether the header of every slide can be read."""
    wrong = [(row.slide, row.reason) for row in plan.bad_rows]
    wrong += [(name, reason) for name, slide in plan.slides.items() if (reason := _unreadable(slide))]
    yield from (Finding(WRONG, "slide", f"'{name}': {reason}") for name, reason in wrong[:_SHOWN])
    if len(wrong) > _SHOWN:
        yield Finding(WRONG, "slide", f"and {len(wrong) - _SHOWN} more")
    number = len(plan.slides) + len(plan.bad_rows)
    waiting = f", {len(plan.found.waiting)} wait: they may still be copied" if plan.found and plan.found.waiting else ""
    yield Finding(
        OK if len(wrong) == 0 else WRONG, "slides", f"{number - len(wrong)} of {number} can be opened{waiting}"
    )


def _unreadable(slide: SlidePlan) -> str:
    from gigaseg.slides.inspect import header

    row = slide.row
    try:
        header(row.path, unit=slide.preset.unit, reader=row.reader, pixel_size=row.pixel_size)
    except UserError as error:
        return str(error)
    files = (row.annotations, row.prompts, row.exemplar, row.regions)
    return next((f"{path}: no such file" for path in files if path is not None and not path.exists()), "")


def weights(plan: Plan) -> Iterator[Finding]:
    """Whether the model weights of each preset are there, and are what their name says."""
    chosen = [preset.segmenter for preset in plan.config.presets.values()]
    for wanted in dict.fromkeys(one.checkpoint or read_card(one.name).checkpoint for one in chosen):
        if wanted is None:
            continue
        try:
            path = checkpoint_path(wanted)
            found = f"{path} sha256 {checked_sha256(wanted, path)[:12]}"
            name = named_base(path)
            if name is not None:
                reference = base_reference(path, name)
                found += f", over {name} sha256 {checked_sha256(reference, checkpoint_path(reference))[:12]}"
        except CheckpointError as error:
            yield Finding(WRONG, "weights", str(error))
        else:
            yield Finding(OK, "weights", found)


def devices(plan: Plan) -> Iterator[Finding]:
    """Whether the device that a preset names is there; where a scheduler is, its nodes may have it."""
    for name, preset in plan.config.presets.items():
        try:
            check_device(preset.segmenter.device)
        except DeviceError as error:
            yield Finding(NOTE if shutil.which("sbatch") else WRONG, "device", f"preset {name}: {error}")


def exports(plan: Plan) -> Iterator[Finding]:
    """Whether the libraries of the export formats are installed."""
    for name, preset in plan.config.presets.items():
        for format in preset.export:
            if FORMATS[format].lacking:
                yield Finding(WRONG, "export", f"preset {name}: '{format}' needs {FORMATS[format].lacking}")


def results(folder: Path) -> Iterator[Finding]:
    """Whether the results folder can be written the way the steps do: whole files that are renamed."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    first, second = place / f".doctor-{secrets.token_hex(4)}", place / f".doctor-{secrets.token_hex(4)}"
    try:
        first.write_bytes(b"x")
        first.replace(second)
        skew = second.stat().st_mtime - time.time()
    except OSError as error:
        yield Finding(WRONG, "results", f"{folder}: nothing can be written in {place} ({error.strerror})")
        return
    finally:
        for path in (first, second):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    holder = read_holder(folder / FILE)
    if holder is not None:
        yield Finding(NOTE, "results", f"{folder}: {holder} is or was at work in it")
    else:
        yield Finding(OK, "results", f"{folder} can be written")
    if abs(skew) > _CLOCK:
        text = f"the clock of the file system is {skew:+.0f} s off; settle_minutes should be longer than that"
        yield Finding(NOTE, "clock", text)


def disk(plan: Plan) -> Finding:
    """Whether what is ahead has room."""
    tiles, about = tiles_ahead(plan)
    pixels = {name: count * _side(plan.slides[name]) ** 2 for name, count in tiles.items()}
    stored = sum(of * STORED for name, of in pixels.items() if plan.slides[name].stored)
    need = (sum(pixels.values()) * KEPT + stored) / 1e9
    folder = Path(plan.config.results).absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    text = f"{free:,.1f} GB free; what is ahead takes {about}{need:,.2f} GB, {stored / 1e9:,.2f} of them for a time"
    if free < need - stored / 1e9 and not about.startswith("up to"):
        return Finding(WRONG, "disk", text)
    return Finding(OK if free >= need else NOTE, "disk", text)


def _side(slide: SlidePlan) -> int:
    return slide.preset.tiles.tile or read_card(slide.preset.segmenter.name).tile
