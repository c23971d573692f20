"""DenseSAM's efficient semantic injection (ESI): features of SAM's encoder as a term for the decoder's image tokens.

The local branch (paper eq. 5, deeper in the published code, which is followed here) and the global one (eq. 6) are each
shared by all features that are injected. As in the code, local terms are summed over the features, global ones averaged
and then brought to unit length; the paper shows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HIDDEN = 128
"""Width of the global branch between its two layers."""


@dataclass(frozen=True)
class Injected:
    """What the injection yields for b images of N tokens.

    Attributes
    ----------
    term : (b, N, C), added to the image tokens.
    contrast : (b, N, C) the global branch's part of it, of unit length, which the contrastive loss sees; or None.
    """

    term: Tensor
    contrast: Tensor | None


class Injection(nn.Module):
    """The two branches.

    Parameters
    ----------
    width : channels D of the encoder's features.
    channels : C, of the decoder.
    local_branch, global_branch : which there are, at least one.
    """

    def __init__(self, width: int, channels: int, *, local_branch: bool = True, global_branch: bool = True) -> None:
        super().__init__()
        if not local_branch and not global_branch:
            raise ValueError("neither branch is asked for, expected at least one")
        self.local_branch = _local(width, channels) if local_branch else None
        self.global_branch = _global(width, channels) if global_branch else None

    def forward(self, hidden: Sequence[Tensor]) -> Injected:
        """The term of features (b, h, w, D) each, one or more."""
        terms: list[Tensor] = []
        contrast = None
        if self.local_branch is not None:
            local = sum(
                (self.local_branch(x.permute(0, 3, 1, 2)) for x in hidden[1:]),
                self.local_branch(hidden[0].movedim(3, 1)),
            )
            terms.append(local.flatten(2).mT)
        if self.global_branch is not None:
            mean = torch.stack([self.global_branch(x) for x in hidden]).mean(0)
            contrast = F.normalize(mean.flatten(1, 2), dim=-1)
            terms.append(contrast)
        return Injected(sum(terms[1:], terms[0]), contrast)


def _local(width: int, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, width // 2, 1),
        nn.ReLU(),
        nn.Conv2d(width // 2, channels, 1),
    )


def _global(width: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, channels))
