"""A tiny DenseSAM that has learnt to see bright discs, after some seconds of training."""

from gigaseg.sam.checkpoints import read_state
from gigaseg.train.config import LoopConfig
from gigaseg.train.densesam.config import DenseSamTraining
from gigaseg.train.densesam.method import DenseSamMethod
from gigaseg.train.loop import run
from sac_models import STILL, disc_samples
from samples import write_random_sam


def write_learnt_densesam(folder, steps=80, **changes):
    """Train it, with a SAM that has learnt nothing; returns the file of its checkpoint."""
    base = folder / "sam.safetensors"
    write_random_sam(base)
    training = DenseSamTraining(**{"crop": 96, "smallest": 22, "largest": 30, "inner_idx": (0, 1), "colour": STILL,
                                   "points": 2000, "trained": "all", "sam_scale": 1.0, **changes})  # fmt: skip
    loop = LoopConfig(
        steps=steps, batch=4, rate=1e-2, warmup=5, beta2=0.95, ema=0.9, decay=0.0, precision="fp32", device="cpu",
        threads=1, workers=0, log_every=1000, save_every=1000, validate_every=1000,
    )  # fmt: skip
    run(DenseSamMethod(training, str(base)), loop, list(disc_samples(16)), [], folder)
    path = folder / "best.safetensors"
    assert read_state(path)[1]["step"] == steps
    return path
