"""Small copies of the three data sets, with their truths."""

import pytest

from gigaseg.testing.one_shot import write_coco_20i, write_lvis_92i, write_persense_d

WRITERS = {"persense-d": write_persense_d, "coco-20i": write_coco_20i, "lvis-92i": write_lvis_92i}


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """By layout: folder and truth. Not to be changed."""
    folder = tmp_path_factory.mktemp("one-shot")
    return {name: (folder / name, write(folder / name)) for name, write in WRITERS.items()}
