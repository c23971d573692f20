"""A small cohort, and Snakemake run on it as a user would."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import tifffile
import yaml

ROOT = Path(__file__).parents[1]

TILES = {"tile": 128, "overlap": 32, "tiles_per_shard": 8}
"""Two shards for each slide."""

ONE_SHARD = {**TILES, "tiles_per_shard": 100}


def preset(**sections):
    """The preset of the test cohort, with sections replaced."""
    return {"segmenter": {"name": "annotations"}, "foreground": {"method": "all"}, "tiles": TILES, **sections}


@dataclass
class Cohort:
    """A working directory with config.yaml and slides.tsv."""

    folder: Path

    def configure(self, **sections):
        """Write the config laid over the shipped one; presets are merged by Snakemake key by key."""
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(sections))

    def sheet(self, *rows, header="slide\tpath\tpreset\tannotations\tgroup"):
        (self.folder / "slides.tsv").write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")

    def snakemake(self, *arguments, cores=1, broken=None):
        """Run Snakemake; returns the finished process.

        Commands that begin with the shell pattern `broken` (a step, say) fail, as on a machine with a fault.

        With a second core, `tile` starts two processes for each shard, which takes longer than the tiles do.
        """
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", str(cores)]
        command += ["--resources", "gpu=1", "--configfile", "mine.yaml", "--nocolor", *arguments]
        tools = Path(sys.executable).parent
        path = f"{tools}:{os.environ['PATH']}"
        if broken:
            stand_in = self.folder / "broken" / "gigaseg"
            stand_in.parent.mkdir(exist_ok=True)
            stand_in.write_text(f'#!/bin/sh\ncase "$*" in {broken}*) exit 1;; esac\nexec {tools}/gigaseg "$@"\n')
            stand_in.chmod(0o755)
            path = f"{stand_in.parent}:{path}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def planned(self, *arguments):
        """Rule -> number of jobs of a dry run."""
        done = self.snakemake("--dry-run", "--quiet", "rules", *arguments)
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        jobs = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
        assert jobs or "Nothing to be done" in done.stdout + done.stderr
        return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}

    def path(self, *parts):
        return self.folder.joinpath("results", *parts)


def write_slide(path, seed, size=(300, 420)):
    """A white slide with dark discs, and the discs as GeoJSON beside it."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), 240, np.uint8)
    discs = []
    for y in range(30, size[0] - 30, 60):
        for x in range(30, size[1] - 30, 60):
            disc = shapely.Point(x + rng.integers(-9, 9), y + rng.integers(-9, 9)).buffer(int(rng.integers(6, 20)))
            discs.append(disc)
    from rasterio.features import rasterize

    image[rasterize(discs, out_shape=size) > 0] = (90, 60, 140)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(128, 128), compression="jpeg",
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    features = [{"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(d))} for d in discs]
    path.with_suffix(".geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return len(discs)
