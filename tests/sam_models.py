"""SAM models with random weights, for the tests of the back end."""

from dataclasses import replace

import torch

from gigaseg.sam.config import CONFIGS
from gigaseg.sam.model import build

TINY = replace(
    CONFIGS["small"], name="tiny", image_size=96, embed_dim=64, depth=4, heads=4, window=5, global_blocks=(1, 3),
    prompt_dim=32, decoder_heads=4, decoder_mlp=64, iou_hidden=32,
)  # fmt: skip
"""12 x 12 patches, which windows of 5 do not divide."""


def random_model(config, seed=0):
    """A model whose position tables, biases and norms are random too: those that start at zero would hide mistakes."""
    torch.manual_seed(seed)
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model
