"""DenseSAM's losses: cross entropy and Dice at sampled points, and the contrastive loss of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

OVERSAMPLED, UNSURE = 3, 0.75
"""Candidates a point, and the share of points that are the least sure ones of them; as in PointRend (Kirillov et al.
2020, section 3.2) and in the published code."""

TEMPERATURE = 0.1

_ROWS = 1 << 22
"""Products of tokens held at a time: 16 MB."""


@torch.no_grad()
def sample_points(logits: Tensor, points: int) -> Tensor:
    """Where losses are taken: mostly where the logits are near 0, the rest anywhere.

    Parameters
    ----------
    logits : (n, y, x).
    points : of each map. Random numbers are torch's.

    Returns
    -------
    (n, points, 2) float32 x, y in 0..1.
    """
    n = len(logits)
    sure = int(UNSURE * points)
    candidates = torch.rand(n, OVERSAMPLED * points, 2, device=logits.device)
    least = at_points(logits.float(), candidates).abs().topk(sure, dim=1, largest=False).indices
    chosen = candidates.gather(1, least[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(n, points - sure, 2, device=logits.device)], 1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps (n, y, x) at points (n, p, 2) x, y in 0..1, bilinear: (n, p)."""
    places = 2 * points[:, None] - 1
    return F.grid_sample(maps[:, None], places, mode="bilinear", padding_mode="border", align_corners=False)[:, 0, 0]


def point_losses(logits: Tensor, targets: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and Dice loss, each a mean over maps.

    Dice: 1 - (2 Σpt + 1) / (Σp + Σt + 1) over a map's points.

    Parameters
    ----------
    logits, targets : (n, y, x); targets 0..1. At points between pixels they are soft.
    points : sampled of each map (`sample_points`); 0: all pixels.
    """
    if points:
        places = sample_points(logits, points)
        logits, targets = at_points(logits.float(), places), at_points(targets.float(), places)
    else:
        logits, targets = logits.float().flatten(1), targets.float().flatten(1)
    cross = F.binary_cross_entropy_with_logits(logits, targets)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * targets).sum(1) + 1) / (p.sum(1) + targets.sum(1) + 1)
    return cross, dice.mean()


def contrastive(features: Tensor, labels: Tensor, temperature: float = TEMPERATURE, rows: int | None = None) -> Tensor:
    """Supervised contrastive loss over all tokens of a batch, with memory linear in the tokens.

    L_i = log Σ_j exp(z_i·z_j / T) - 1/|P_i| Σ_{p in P_i} z_i·z_p / T (Khosla et al. 2020, eq. 2), where P_i are the
    others of the token's class. j runs over all tokens, i among them, as in DenseSAM's published code; Khosla et al.
    leave i out. The second sum needs the sum of each class alone; only the first one needs the products, which are made
    in chunks of rows, and again for the gradient. A token alone in its class counts as 0.

    Parameters
    ----------
    features : (m, c) of unit length.
    labels : (m,) bool or whole numbers from 0 on.
    rows : tokens of a chunk; None: as many as fit.

    Returns
    -------
    Mean over the tokens.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _contrastive(features.float(), labels.long(), temperature, rows or max(1, _ROWS // len(features)))


def _contrastive(z: Tensor, own: Tensor, temperature: float, rows: int) -> Tensor:
    member = F.one_hot(own).to(z.dtype)
    sums, count = member.mT @ z, member.sum(0)[own]
    together = (z * (sums[own] - z)).sum(1) / ((count - 1).clamp(min=1) * temperature)
    against: Tensor = _LogSums.apply(z, temperature, rows)  # type: ignore[no-untyped-call]
    return torch.mean((against - together) * (count > 1))


class _LogSums(torch.autograd.Function):
    """log Σ_j exp(z_i·z_j / T) of each row of z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, rows: int) -> Tensor:
        found = torch.cat([torch.logsumexp(products, 1) for _, products in _products(z, temperature, rows)])
        ctx.save_for_backward(z, found)
        ctx.temperature, ctx.rows = temperature, rows
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        z, sums = ctx.saved_tensors
        # products are symmetric: row i has its own share exp(s_ij - sum_i), and that of row j in it, exp(s_ij - sum_j)
        top = sums.max()
        weight = gradient * (top - sums).exp()
        found = torch.empty_like(z)
        for at, products in _products(z, ctx.temperature, ctx.rows):
            shares = products.sub_(top).exp_().mul_(weight[at, None] + weight)
            found[at] = shares @ z
        return found / ctx.temperature, None, None


def _products(z: Tensor, temperature: float, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their products with all rows, over T."""
    for start in range(0, len(z), rows):
        at = slice(start, start + rows)
        yield at, (z[at] @ z.mT).div_(temperature)
