"""Tiny CFR-SAM models with random weights: too small to segment anything, whole in every part."""

import torch

from gigaseg.sam.checkpoints import write_state
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.points import build_points
from gigaseg.train.card import write_checkpoint
from gigaseg.train.cfrsam.config import CfrSamTraining
from gigaseg.train.cfrsam.method import CfrSamMethod
from gigaseg.train.config import LoopConfig
from gigaseg.train.state import Progress
from sac_models import STILL
from samples import write_random_sam

POINTS = PointsConfig(widths=(8, 8, 8, 8), channels=8, levels=2, classes=("round", "square"))
SMALL = {"rank": 4, "crop": 48, "smallest": 16, "largest": 22, "objects": 3, "window": 0, "colour": STILL}


def shaken(module, seed=0, by=0.2):
    """The module with random numbers added to all its parameters and averages: zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and not name.endswith("running_var"):
                value.add_(by * torch.randn(value.shape, generator=generator))
    return module


def write_random_points(path, seed=0, **card):
    """Write a point learner that sees points in places; returns its net."""
    torch.manual_seed(seed)
    net = shaken(build_points(POINTS).eval(), seed)
    facts = {"method": "cfrsam-points", "points": POINTS.as_dict(), "classes": list(POINTS.classes), "threshold": 0.3}
    write_state(path, net.state_dict(), {**facts, **card})
    return net


def random_method(folder, points=True, **changes):
    """The method over a SAM in ``folder/sam.safetensors``, with the learner in ``folder/points.safetensors``."""
    base, learner = folder / "sam.safetensors", folder / "points.safetensors"
    if not base.exists():
        write_random_sam(base)
        write_random_points(learner)
    return CfrSamMethod(CfrSamTraining(**{**SMALL, "points": str(learner) if points else None, **changes}), str(base))


def write_random_cfrsam(folder, name="cfrsam", points=True, seed=0, about=(), **changes):
    """Write a checkpoint of both stages as `gigaseg train cfrsam` does; returns its file."""
    method = random_method(folder, points, **changes)
    torch.manual_seed(seed)
    model = method.build()
    shaken(model.cfrsam, seed)
    path = folder / f"{name}.safetensors"
    write_checkpoint(path, model.state_dict(), method, LoopConfig(), Progress(), dict(about))
    return path
