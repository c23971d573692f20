"""Training images in memory and on disk, and a tiny SAM that segments some of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from gigaseg.sam.config import SamConfig
from gigaseg.train.config import ColourConfig, LoopConfig, PromptConfig, SamTraining
from gigaseg.train.data import Sample
from gigaseg.train.loop import run
from gigaseg.train.sam import SamMethod
from training import discs, sample

TINY = SamConfig("tiny", 64, 8, 48, 2, 2, 4, (1,), 2.0, 32, decoder_heads=2, decoder_mlp=64, iou_hidden=16)


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


def apart(seed, grid=2, pitch=56, radius=9):
    """Discs so far apart that a decoding window holds one alone: a SAM learns to outline them in seconds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: grid * pitch, : grid * pitch] + 0.5
    labels = np.zeros(y.shape, np.int32)
    for k in range(grid**2):
        cx, cy = np.array(divmod(k, grid)) * pitch + pitch / 2 + rng.uniform(-4, 4, 2)
        if k == 0 or rng.random() < 0.8:
            labels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = k + 1
    image = np.where(labels[..., None] > 0, (40, 180, 90), 20) + rng.normal(0, 4, (*y.shape, 3))
    background = np.array([20, 20, 20], np.uint8)
    return Sample(f"s{seed}", "ab"[seed % 2], image.clip(0, 255).astype(np.uint8), labels, 2.0 * radius, background)


@pytest.fixture(scope="session")
def still():
    """No augmentation of colours."""
    chances = ("stain", "stretch", "gain", "shift", "channel", "gamma", "saturation", "invert", "grey", "permute")
    return ColourConfig(**dict.fromkeys((*chances, "blur", "noise"), 0.0))


@pytest.fixture(scope="session")
def discs_apart():
    return [apart(seed) for seed in range(12)], [apart(100 + seed) for seed in range(4)]


@pytest.fixture(scope="session")
def loop():
    return LoopConfig(
        steps=120, batch=2, rate=6e-3, warmup=10, beta2=0.95, ema=0.95, precision="fp32", device="cpu", threads=1,
        workers=0, log_every=1, save_every=1000, validate_every=1000,
    )  # fmt: skip


@pytest.fixture(scope="session")
def sam(tmp_path_factory, discs_apart, still, loop):
    """A checkpoint of a tiny SAM, trained with exact boxes."""
    before = torch.get_num_threads()
    out = tmp_path_factory.mktemp("sam")
    training = SamTraining(
        crop=64, objects=10, smallest=16, largest=22, corrected=0, multimask=0, window=6, full=0, frequencies=2,
        prompts=PromptConfig(box=0, exact_box=1, centre=0), colour=still,
    )  # fmt: skip
    run(SamMethod(TINY, training), loop, discs_apart[0], [], out)
    torch.set_num_threads(before)
    return out / "best.safetensors"
