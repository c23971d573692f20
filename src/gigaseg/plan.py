"""The plan of a cohort, made when the workflow is parsed: slides, shards, options and digests of every step.

A step's digest covers its own config section, the sheet fields it reads, the content of side files, the checkpoint, the
step's revision and the upstream digests. It stands in the rule's params and in the output's metadata, so that nothing
stale survives a change, and nothing runs again for a change it does not depend on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gigaseg.config import Config, Preset, load_config
from gigaseg.errors import UserError
from gigaseg.incoming import SHEET, Found, find_slides
from gigaseg.options import prompt_options, step_options, to_options
from gigaseg.results import check_place
from gigaseg.segmenters.card import Card, read_card
from gigaseg.sheet import BadRow, Row, read_sheet

log = logging.getLogger(__name__)

REVISIONS = {
    "inspect": 2, "grid": 2, "tile": 1, "propose": 2, "prompt": 2, "segment": 3, "stitch": 1, "measure": 4,
    "regions": 1, "export": 2, "overview": 2, "aggregate": 3, "report": 2, "viewer": 1,
}  # fmt: skip
"""Raised by one when a step's results change for the same input."""


@dataclass(frozen=True)
class SlidePlan:
    """One slide of the cohort.

    Attributes
    ----------
    row : its row of the sheet.
    preset : its preset.
    tiles : number of tiles of the bounding grid, of which those with foreground are kept; 1 for a slide that cannot
        be opened.
    shards : number of shards, from the bounding grid.
    digests : by step; of `regions` only where the row has some, of `prompt` only where the segmenter needs prompts, or
        takes points and the row has some; of `propose` only where the segmenter finds its prompts itself.
    options : command-line options by step.
    """

    row: Row
    preset: Preset
    tiles: int
    shards: int
    digests: dict[str, str]
    options: dict[str, list[str]]

    @property
    def prompted(self) -> bool:
        """Whether the step `prompt` gives its tiles their prompts."""
        return "prompt" in self.digests

    @property
    def proposes(self) -> bool:
        """Whether these prompts are those that the segmenter proposes in the step `propose`."""
        return "propose" in self.digests

    @property
    def stored(self) -> bool:
        """Whether tile stores are written: not where only the tiles with prompts are looked at."""
        return self.preset.tiles.materialise and not read_card(self.preset.segmenter.name).needs_prompts_file


@dataclass(frozen=True)
class Plan:
    """The cohort.

    Attributes
    ----------
    config : its configuration.
    sheet : the sample sheet; with `slides_dir` the one in the results folder, made of what was found.
    slides : its valid slides by name, in the sheet's order.
    bad_rows : rows of the sheet that cannot be used.
    digests : of the steps of the cohort.
    found : what `slides_dir` holds; None for a cohort with a sheet.
    """

    config: Config
    sheet: Path
    slides: dict[str, SlidePlan]
    bad_rows: list[BadRow]
    digests: dict[str, str]
    found: Found | None = None

    @property
    def checkpoints(self) -> list[str]:
        """Model weights that the presets name, by themselves or by their segmenter's card; each once, sorted.

        Published ones over which a checkpoint of changes was trained are among them.
        """
        from gigaseg.sam.downloads import checkpoint_sha256, named_base

        chosen = [preset.segmenter for preset in self.config.presets.values()]
        named = {segmenter.checkpoint or read_card(segmenter.name).checkpoint for segmenter in chosen}
        bases = {named_base(name) for name in named if name}
        return sorted({name for name in named if name} | {name for name in bases if name and checkpoint_sha256(name)})


def make_plan(content: Mapping[str, Any], source: str = "config.yaml", *, settled: bool = False) -> Plan:
    """Plan a cohort from its configuration.

    Parameters
    ----------
    content, source : the configuration, and its name in messages.
    settled : `slides_dir` is not looked into again, since the run that this job belongs to has done so: its slides
        are those of the sheet in the results folder.

    Raises
    ------
    ConfigError, SheetError
        The configuration or the sheet as a whole is wrong; wrong rows become `bad_rows`.
    """
    from gigaseg.files import digest

    config = load_config(content, source)
    results = Path(config.results)
    check_place(results)
    sheet, found = Path(config.slides), None
    if config.slides_dir is not None:
        sheet = results / SHEET
    if config.slides_dir is not None and not settled:
        found = find_slides(Path(config.slides_dir), results, config.settle_minutes, next(iter(config.presets)))
        rows, bad_rows = found.rows, list[BadRow]()
    else:
        rows, bad_rows = read_sheet(sheet, list(config.presets))
    cache = _Cache(results / ".headers.json")
    slides = {row.slide: _plan_slide(row, config, cache) for row in rows}
    cache.save()
    cohort = [slide.digests["measure"] for slide in slides.values()]
    labels = [(s.row.slide, s.row.preset, s.row.group) for s in slides.values()]
    aggregate = digest([REVISIONS["aggregate"], cohort, labels, [asdict(bad) for bad in bad_rows]])
    pictures = [slide.digests["overview"] for slide in slides.values()]
    colors = [slide.preset.class_colors for slide in slides.values()]
    digests = {
        "aggregate": aggregate,
        "report": digest([REVISIONS["report"], aggregate, pictures, config.report.title, config.report.viewer]),
        "viewer": digest([REVISIONS["viewer"], cohort, pictures, colors]),
    }
    return Plan(config, sheet, slides, bad_rows, digests, found)


def _plan_slide(row: Row, config: Config, cache: _Cache) -> SlidePlan:
    preset = config.presets[row.preset]
    card = read_card(preset.segmenter.name)
    options = step_options(preset, config.report)
    if row.pixel_size:
        options["inspect"].append(f"--pixel-size={row.pixel_size}")
    if row.reader != "auto":
        options["inspect"].append(f"--reader={row.reader}")
    if row.channels:
        options["inspect"].append(f"--channels={row.channels}")
    if row.annotations:
        options["grid"].append(f"--side-file={row.annotations}")
        options["segment"].append(f"--annotations={row.annotations}")
    if card.needs_exemplar and row.exemplar:
        options["segment"].append(f"--exemplar={row.exemplar}")
    if not card.proposes:
        del options["propose"]
    if card.proposes or _is_from_file(row, card):
        options["prompt"] = prompt_options(card, preset)
        if row.prompts and not card.proposes:
            options["grid"].append(f"--prompts={row.prompts}")
            options["prompt"].append(f"--prompts={row.prompts}")
    if row.regions:
        options["measure"].append(f"--regions={row.regions}")
        options["regions"] = [f"--regions={row.regions}", *to_options(preset.measure, ("region_name",))]
    from gigaseg.tiles.working import shards_of

    tiles = cache.tiles(row, preset, card)
    return SlidePlan(
        row=row,
        preset=preset,
        tiles=tiles,
        shards=shards_of(tiles, preset.tiles.tiles_per_shard),
        digests=_digests(row, preset, card, config, cache),
        options=options,
    )


def _is_from_file(row: Row, card: Card) -> bool:
    """Whether the sheet's column `prompts` is read."""
    return card.needs_prompts_file or (card.takes_points and row.prompts is not None)


def _digests(row: Row, preset: Preset, card: Card, config: Config, cache: _Cache) -> dict[str, str]:
    from gigaseg.files import digest

    annotations = cache.sha256(row.annotations)
    checkpoint = _checkpoint(preset.segmenter.checkpoint or card.checkpoint, cache)
    from_file = _is_from_file(row, card)
    prompts = cache.sha256(row.prompts) if from_file else None
    segmenter = {
        **asdict(preset.segmenter),
        "options": card.complete(preset.segmenter.options),
        "overlaps": preset.segmenter.overlaps or card.overlaps,
        "device": None,
        "checkpoint": None,  # its content counts, below
    }
    tiles = {key: value for key, value in asdict(preset.tiles).items() if key != "materialise"}
    nominal = [card.tile, card.overlap, card.pixel_size, card.unit, card.object_diameter]
    report = asdict(config.report)
    # what is not given counts as if there were no such key
    colors = [preset.class_colors] if preset.class_colors else []
    own: dict[str, Any] = {
        "inspect": [
            cache.fingerprint(row),
            row.slide,
            str(row.path),
            row.reader,
            row.channels,
            row.pixel_size,
            preset.unit,
        ],
        "grid": [
            asdict(preset.foreground),
            tiles,
            nominal,
            preset.working_resolution,
            preset.object_diameter,
            annotations,
            prompts,
            *(["points only"] if from_file and card.takes_points else []),
        ],
        "tile": [],
        "propose": [
            {**segmenter, "overlaps": None},
            card.revision,
            list(card.classes),
            checkpoint,
            REVISIONS["tile"],
        ],
        "prompt": [prompt_options(card, preset)],
        # tile stores are temporary: what they hold counts here
        "segment": [
            segmenter,
            card.revision,
            list(card.classes),
            annotations,
            checkpoint,
            REVISIONS["tile"],
            *([preset.class_names] if preset.class_names else []),
            *_exemplar(row, card, cache),
            *(cache.sha256(path) for path in card.files(segmenter["options"])),
        ],
        # what is off counts as if there were no such key
        "stitch": [
            {key: value for key, value in asdict(preset.stitch).items() if value is not None},
            *(["as long as on the ground there"] if preset.stitch.regularise or preset.stitch.simplify else []),
        ],
        "measure": [asdict(preset.measure), cache.sha256(row.regions)],
        "regions": [],
        "export": colors,
        "overview": [
            report["overview_px"],
            [value for key, value in report.items() if key.endswith("_color")],
            *colors,
        ],
    }
    before_segment = (
        {"propose": "grid", "prompt": "propose"} if card.proposes else {"prompt": "grid"} if from_file else {}
    )
    upstream = {
        "inspect": None, "grid": "inspect", "tile": "grid", **before_segment,
        "segment": "prompt" if before_segment else "grid", "stitch": "segment", "measure": "stitch",
        **({"regions": "measure"} if row.regions else {}), "export": "measure", "overview": "stitch",
    }  # fmt: skip
    digests: dict[str, str] = {}
    for step, before in upstream.items():
        digests[step] = digest([step, REVISIONS[step], own[step], digests[before] if before else None])
    return digests


def _exemplar(row: Row, card: Card, cache: _Cache) -> list[str | None]:
    """The sha256 of each file of the exemplar; none where the segmenter takes none."""
    from gigaseg.exemplar import exemplar_files

    if not (card.needs_exemplar and row.exemplar):
        return []
    return [cache.sha256(path) for path in exemplar_files(row.exemplar)]


def _checkpoint(wanted: str | None, cache: _Cache) -> str | None:
    """The sha256 of a checkpoint given as a file or by name; None for none."""
    from gigaseg.sam.downloads import checkpoint_path, checkpoint_sha256

    if wanted is None:
        return None
    # a published one is known before it is fetched
    return checkpoint_sha256(wanted) or cache.sha256(checkpoint_path(wanted))


class _Cache:
    """Headers of slides and hashes of side files, kept in the results folder by each file's state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}
        self._used: dict[str, Any] = {}

    def fingerprint(self, row: Row) -> str:
        """State of the slide's file."""
        from gigaseg.slides.fingerprint import fingerprint

        return fingerprint(row.path)

    def tiles(self, row: Row, preset: Preset, card: Card) -> int:
        """Tiles of the bounding grid; 1 when the slide cannot be opened (its inspect job will say why)."""
        from gigaseg.files import digest

        state = [
            self.fingerprint(row),
            str(row.path),
            row.reader,
            row.pixel_size,
            asdict(preset),
            card.revision,
            card.tile,
        ]
        key = "tiles " + digest(state)
        found = self._known.get(key)
        if found is None:
            try:
                found = _count_tiles(row, preset, card)
            except UserError as error:
                log.debug("slide '%s': %s", row.slide, error)
                return 1
        self._used[key] = found
        return int(found)

    def sha256(self, path: Path | None) -> str | None:
        """Hash of a side file's content; "missing" when there is none."""
        from gigaseg.files import sha256_file
        from gigaseg.slides.fingerprint import fingerprint

        if path is None:
            return None
        state = fingerprint(path)
        key = f"sha256 {path} {state}"
        if key not in self._used:
            try:
                self._used[key] = self._known.get(key) or sha256_file(path)
            except OSError:
                return "missing"
        return str(self._used[key])

    def save(self) -> None:
        """Write what this plan used, when that is new; a folder that cannot be written is no error."""
        from gigaseg.files import write_json

        if self._used != self._known:
            try:
                write_json(self._path, self._used)
            except OSError as error:
                log.debug("headers are not cached: %s", error)


def _count_tiles(row: Row, preset: Preset, card: Card) -> int:
    from gigaseg.slides.inspect import header
    from gigaseg.tiles.working import working_tiling

    found = header(row.path, unit=preset.unit, reader=row.reader, pixel_size=row.pixel_size)
    tiling = working_tiling(
        found.width, found.height, found.levels, found.pixel_size, found.unit, preset, card, row.slide
    )
    return tiling.rows * tiling.cols
