"""Training images in memory and on disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from training import discs, sample


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples():
    return [sample(seed) for seed in range(5)]


@pytest.fixture
def folder(tmp_path):
    """The plain layout with five images; three train, two validate."""
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    rows = ["image\tmodality\tsplit"]
    for seed in range(5):
        image, labels = discs(seed)
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"s{seed}.webp", lossless=True)
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "data" / "labels" / f"s{seed}.png")
        rows.append(f"s{seed}\t{'ab'[seed % 2]}\t{'train' if seed < 3 else 'val'}")
    (tmp_path / "data" / "index.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"
