"""A segmenter that tells where it runs, and waits or dies at a tile when it is told to; installed for a test alone."""

import json
import os
import signal
import time
from importlib.resources import files
from pathlib import Path

from gigaseg.segmenters.watershed import Watershed

CARD = {**json.loads((files("gigaseg.segmenters") / "watershed.json").read_text()), "name": "patient"}

FOLDER = "GIGASEG_TEST_PATIENT"
"""The variable that names the folder of what it is told and tells."""

TELLS = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")


class Patient(Watershed):
    """The watershed, tile by tile: ``kill-ROW-COL`` ends it once, ``hold-ROW-COL`` holds it as long as it is there."""

    def segment(self, batch):
        folder = Path(os.environ[FOLDER]) if FOLDER in os.environ else None
        for tile in batch.tiles if folder else ():
            spot = f"{tile.row}-{tile.col}"
            told = {name: os.environ.get(name) for name in TELLS}
            with (folder / f"{spot}.jsonl").open("a") as stream:
                stream.write(json.dumps(told) + "\n")
            if (folder / f"kill-{spot}").exists():
                (folder / f"kill-{spot}").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            while (folder / f"hold-{spot}").exists():
                time.sleep(0.1)
        return super().segment(batch)
