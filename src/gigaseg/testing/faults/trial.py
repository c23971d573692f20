"""A damaged file through the steps that read a slide, and whether what came out can be trusted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gigaseg.errors import UserError
from gigaseg.files import read_failure
from gigaseg.slides.base import SlideInfo
from gigaseg.testing.faults.attempt import attempt
from gigaseg.testing.faults.damage import damaged, find_layout
from gigaseg.testing.faults.samples import Sample
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.store import StoredTiles

_ALL = ["--method=all", "--tile=512", "--overlap=0"]
"""Options of `grid`: all of the slide is read."""

_RECORD = "--record-failure"


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file.

    Attributes
    ----------
    verdict : "refused" with one clear line, "succeeded", or what is wrong (`Attempt.verdict`; "missing": success,
        though a part of the picture was lost).
    step : the last step that ran.
    changed : whether all steps succeeded with other pixels than the intact file's.
    detail : the damage, and what the step said.
    """

    verdict: str
    step: str
    changed: bool
    detail: str

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.verdict in ("refused", "succeeded")


class Trials:
    """Trials of one file.

    Parameters
    ----------
    intact : the file, which is read once to know its pixels.
    folder : where variants and outputs are written.
    """

    def __init__(self, intact: Sample, folder: Path) -> None:
        path = intact.path
        self._folder = folder
        self._suffix = ".ome.tif" if path.name.endswith(".ome.tif") else path.suffix
        self._side_file = str(intact.annotations or path)
        self._segmenter = "watershed" if intact.annotations is None else "annotations"
        self._unit = "um" if intact.annotations is None else "m"
        self._content = path.read_bytes()
        self._layout = find_layout(self._content)
        self._reference = folder / "intact"
        outcome = self._run(self._reference, self._content, "intact", keep=True)
        if outcome.verdict != "succeeded" or outcome.changed:
            raise ValueError(f"{path}: the intact file gives {outcome}")

    def run(self, seed: int) -> Outcome:
        """Damage the file as `seed` says, and let the steps read it."""
        content, what = damaged(self._content, self._layout, seed)
        if content == self._content:
            what += " (nothing changed)"
        return self._run(self._folder / f"variant-{seed}", content, what)

    def _run(self, folder: Path, content: bytes, what: str, keep: bool = False) -> Outcome:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        slide = folder / f"slide{self._suffix}"
        slide.write_bytes(content)
        try:
            return self._steps(folder, slide, what)
        finally:
            if not keep:
                shutil.rmtree(folder)

    def _steps(self, folder: Path, slide: Path, what: str) -> Outcome:
        info, grid, one, store = (folder / name for name in ("s.json", "g.parquet", "one.parquet", "t.zarr.zip"))
        segmenter = f"--segmenter={self._segmenter}"
        polygons = [f"--annotations={self._side_file}"] if self._segmenter == "annotations" else []
        commands: list[tuple[str, list[str], Path]] = [
            ("inspect", [str(slide), f"--unit={self._unit}", "--pixel-size=px", "--slide=s"], info),
            ("grid", [str(info), f"--foreground={folder / 'f.tif'}", segmenter, *_ALL, _RECORD], grid),
            ("tile", [str(info), str(grid), _RECORD], store),
            ("segment", [str(info), str(one), segmenter, *polygons, _RECORD], folder / "i.parquet"),
        ]
        for step, words, out in commands:
            if step == "segment":
                _first_tile(grid, one)
            done = attempt([step, *words, f"--out={out}"])
            verdict = done.verdict(slide)
            said = "; ".join([what, *done.errors[-3:]])[:400]
            if verdict != "succeeded":
                return Outcome(verdict, step, False, said)
            failure = read_failure(out)
            if failure is not None:
                clear = str(slide) in failure[1] or self._side_file in failure[1]
                return Outcome("refused" if clear else "unclear", step, False, f"{what}; {failure[1]}"[:400])
        return self._judge(info, grid, store, what)

    def _judge(self, info: Path, grid: Path, store: Path, what: str) -> Outcome:
        """Compare the pixels that were read with the intact file's."""
        try:
            found, intact = SlideInfo.read(info), SlideInfo.read(self._reference / "s.json")
            tiles = Grid.read(grid).tiles(0)
            now, before = StoredTiles(store), StoredTiles(self._reference / "t.zarr.zip")
        except UserError as error:
            return Outcome("invalid", "tile", False, f"{what}; {error}")
        if (found.width, found.height) != (intact.width, intact.height):
            return Outcome("succeeded", "segment", True, f"{what}; {found.width} x {found.height} px")
        try:
            changed = lost = 0
            for tile in tiles:
                new, old = now.read(tile), before.read(tile)
                if not np.array_equal(new, old):
                    changed += 1
                    lost += _blank(new) - _blank(old) > 0
        finally:
            now.close()
            before.close()
        said = f"{what}; {changed} of {len(tiles)} tiles changed, {lost} with blank parts; reader {found.reader}"
        # what a cut file no longer holds cannot have been read; the tables of a JPEG are values, too, and a wrong one
        # gives a wrong picture
        wrong = changed and (what.startswith("cut") or (lost and what.startswith(("length", "entry"))))
        return Outcome("missing" if wrong else "succeeded", "segment", changed > 0, said)


def _first_tile(grid: Path, out: Path) -> None:
    """A grid whose shard 0 is one tile: what `segment` takes its time for has nothing to do with damage."""
    whole = Grid.read(grid)
    shard = np.arange(len(whole.row), dtype=np.int32)
    replace(whole, shard=shard, shards=max(1, len(shard))).write(out)


def _blank(tile: npt.NDArray[np.uint8]) -> int:
    """Number of 32 px squares of one colour in a tile of 512 px."""
    squares = tile.reshape(16, 32, 16, 32, 3)
    return int((squares.max((1, 3)) == squares.min((1, 3))).all(-1).sum())
