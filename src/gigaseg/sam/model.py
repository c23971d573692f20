"""SAM models from the modules of segment-anything: building them and loading weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, one_line
from gigaseg.sam.checkpoints import fitted, read_checkpoint
from gigaseg.sam.config import SamConfig, infer_config
from gigaseg.sam.torchvision_ops import ensure_torchvision

ensure_torchvision()  # segment-anything imports torchvision

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer  # noqa: E402


def build(config: SamConfig, device: str | torch.device = "cpu") -> Sam:
    """A `segment_anything.modeling.Sam` with fresh weights, in evaluation mode.

    Parameters
    ----------
    config : sizes; the names in the state dict are the official ones.
    device : "meta" builds the shapes alone.
    """
    with torch.device(device):
        sam = Sam(
            image_encoder=ImageEncoderViT(
                img_size=config.image_size,
                patch_size=config.patch,
                embed_dim=config.embed_dim,
                depth=config.depth,
                num_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                out_chans=config.prompt_dim,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=config.window,
                global_attn_indexes=config.global_blocks,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=config.prompt_dim,
                image_embedding_size=(config.grid, config.grid),
                input_image_size=(config.image_size, config.image_size),
                mask_in_chans=config.mask_channels,
            ),
            mask_decoder=MaskDecoder(
                transformer_dim=config.prompt_dim,
                transformer=TwoWayTransformer(
                    depth=config.decoder_depth,
                    embedding_dim=config.prompt_dim,
                    num_heads=config.decoder_heads,
                    mlp_dim=config.decoder_mlp,
                ),
                iou_head_hidden_dim=config.iou_hidden,
            ),
            pixel_mean=list(config.pixel_mean),
            pixel_std=list(config.pixel_std),
        )
    return sam.to(device).eval()


def load(checkpoint: str | Path, config: SamConfig | None = None, device: str | torch.device = "cpu") -> Sam:
    """Read a checkpoint into a model, strictly: every tensor of the model and no other.

    Parameters
    ----------
    checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`); one of changes is laid over its base.
    config : sizes; None takes the ones on the checkpoint's card, else those that its tensors' shapes tell.

    Returns
    -------
    Sam
        float32, in evaluation mode.

    Raises
    ------
    CheckpointError
        The file cannot be read, or its tensors are not the ones of the configuration.
    """
    return open_checkpoint(checkpoint, config, device)[0]


def open_checkpoint(
    checkpoint: str | Path, config: SamConfig | None = None, device: str | torch.device = "cpu"
) -> tuple[Sam, SamConfig, dict[str, Any]]:
    """As `load`, with the configuration and the card (empty for files of other programs)."""
    path, state, card = read_checkpoint(checkpoint)
    try:
        if config is None:
            config = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(state)
        return from_state(state, config, device), config, card
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def from_state(state: Mapping[str, Tensor], config: SamConfig, device: str | torch.device = "cpu") -> Sam:
    """A model in float32 with exactly the tensors of `state`.

    Tensors that are float32 on `device` already become the model's own, without a copy.

    Raises
    ------
    CheckpointError
        They do not fit `config`, are no plain floating-point tensors, or hold values that are not finite in float32.
    """
    try:
        sam = build(config, "meta")
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"configuration '{config.name}' makes no model ({one_line(error)})") from error
    tensors = fitted(state, sam.state_dict(), f"configuration '{config.name}'", device)
    sam.load_state_dict(tensors, assign=True)  # nothing is initialised in vain
    for name in ("pixel_mean", "pixel_std"):  # not part of a state dict
        values = torch.tensor(getattr(config, name), dtype=torch.float32, device=device)
        sam.register_buffer(name, values.view(-1, 1, 1), persistent=False)
    return sam.eval()
