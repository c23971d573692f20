"""SAM models from the modules of segment-anything: building them and loading weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, one_line
from gigaseg.sam.checkpoints import checkpoint_path, read_delta, read_state
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
    path = checkpoint_path(checkpoint)
    state, card = read_state(path)
    if "base" in card:
        state, card = read_delta(path)
    try:
        if config is None:
            config = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(state)
        return from_state(state, config, device)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def from_state(state: Mapping[str, Tensor], config: SamConfig, device: str | torch.device = "cpu") -> Sam:
    """A model in float32 with exactly the tensors of `state`; raises CheckpointError when they do not fit `config`.

    Tensors that are float32 on `device` already become the model's own, without a copy.
    """
    sam = build(config, "meta")
    tensors = {name: tensor.to(device, torch.float32) for name, tensor in state.items()}
    _check(sam.state_dict(), tensors, config)
    sam.load_state_dict(tensors, assign=True)  # nothing is initialised in vain
    for name in ("pixel_mean", "pixel_std"):  # not part of a state dict
        sam.register_buffer(name, torch.tensor(getattr(config, name), device=device).view(-1, 1, 1), persistent=False)
    return sam.eval()


def _check(expected: Mapping[str, Any], found: Mapping[str, Tensor], config: SamConfig) -> None:
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not part of it" for name in found if name not in expected]
    wrong += [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(one_line(f"does not fit configuration '{config.name}': {'; '.join(wrong[:3])}{more}"))
