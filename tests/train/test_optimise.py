"""Which optimiser takes which parameter, and what their steps look like."""

import pytest
import torch

from gigaseg.train.config import LoopConfig
from gigaseg.train.optimise import optimisers


def parameters():
    torch.manual_seed(0)
    shapes = {"matrix": (6, 4), "kernel": (3, 2, 3, 3), "table": (5, 4), "bias": (4,)}
    named = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    groups = [
        {"params": [named["matrix"], named["kernel"]]},
        {"params": [named["table"], named["bias"]], "weight_decay": 0.0, "scale": 0.5},
    ]
    return named, groups


def taken(optimiser):
    return {id(p) for group in optimiser.param_groups for p in group["params"]}


def test_muon_takes_the_matrices_that_decay_and_adamw_all_else():
    named, groups = parameters()
    adamw, muon = optimisers(groups, LoopConfig(optimiser="muon"))
    assert taken(muon) == {id(named["matrix"])}
    assert taken(adamw) == {id(named[name]) for name in ("kernel", "table", "bias")}
    assert sorted(group["scale"] for group in adamw.param_groups) == [0.5, 1.0]
    (alone,) = optimisers(groups, LoopConfig())
    assert taken(alone) == {id(p) for p in named.values()}


def test_a_step_of_muon_moves_a_matrix_along_every_direction_alike():
    named, groups = parameters()
    matrix = named["matrix"]
    before = matrix.detach().clone()
    left, _, right = torch.linalg.svd(torch.randn(6, 4), full_matrices=False)
    matrix.grad = left @ torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0])) @ right
    for optimiser in optimisers(groups, LoopConfig(optimiser="muon", decay=1e-9, rate=0.01)):
        optimiser.step()
    moved = torch.linalg.svdvals(before - matrix.detach())
    # an orthogonal update of root mean square 0.2 · rate, up to the iteration's own accuracy of about a third
    assert moved.max() < 2.5 * moved.min()
    assert (before - matrix.detach()).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.35)
