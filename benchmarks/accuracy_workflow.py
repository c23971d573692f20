"""The column of `accuracy.py` that goes through the workflow: tiles, segment, stitch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from accuracy_data import Picture
from accuracy_methods import Method

from gigaseg.errors import UserError

ROOT = Path(__file__).parents[1]


def run_workflow(
    method: Method, checkpoint: Path | None, device: str, pictures: list[Picture], folder: Path, cores: int
) -> Path:
    """Write the images as TIFFs with their pixel size, and run Snakemake up to `stitch`.

    Returns
    -------
    The folder of results: NAME/instances.parquet of each image.
    """
    import tifffile

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = ["slide\tpath"]
    for picture in pictures:
        assert picture.pixel_size is not None
        tifffile.imwrite(
            folder / f"{picture.name}.tif",
            picture.pixels(),
            photometric="rgb",
            tile=(256, 256),
            resolution=(1e4 / picture.pixel_size,) * 2,
            resolutionunit="CENTIMETER",
        )
        rows.append(f"{picture.name}\t{picture.name}.tif")
    (folder / "slides.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    segmenter = {
        "name": method.segmenter,
        "checkpoint": str(checkpoint.resolve()) if checkpoint else None,
        "device": device,
        "batch_size": 4,
        "options": dict(method.options),
    }
    preset = {
        "working_resolution": method.nominal[1],
        "segmenter": segmenter,
        "tiles": {"tile": method.tile, "overlap": method.overlap},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"presets": {"nuclei": preset}}), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", str(cores)]
    command += ["--resources", "gpu=1", "--configfile", "config.yaml", "--quiet", "all", "--"]
    command += [f"results/{picture.name}/instances.parquet" for picture in pictures]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        raise UserError(f"snakemake failed in {folder}, see its logs there; figures in memory are kept")
    return folder / "results"
