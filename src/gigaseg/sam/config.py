"""Configurations of the SAM model: the published sizes, and `small`, our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gigaseg.errors import CheckpointError, one_line, unknown

_SIZES = {
    "image_size": 1 << 16, "patch": 1 << 10, "embed_dim": 1 << 16, "depth": 1 << 10, "heads": 1 << 10,
    "window": 1 << 12, "prompt_dim": 1 << 16, "decoder_depth": 1 << 10, "decoder_heads": 1 << 10,
    "decoder_mlp": 1 << 20, "iou_hidden": 1 << 20, "mask_channels": 1 << 12,
}  # fmt: skip
"""Largest value read from a card, far above any model: what is larger is damaged, and would only fill the memory."""


@dataclass(frozen=True)
class SamConfig:
    """Sizes of a SAM model.

    Attributes
    ----------
    name : name of the configuration.
    image_size : side of the square input that the position tables were made for, px; inputs of other sizes and shapes
        are encoded with resized tables.
    patch : side of a patch, px.
    embed_dim, depth, heads, mlp_ratio : width, blocks, attention heads and MLP expansion of the image encoder.
    window : side of an attention window, patches.
    global_blocks : positions (from 0) of the blocks that attend over the whole image.
    prompt_dim : channels of the embedding, the prompts and the decoder.
    decoder_depth, decoder_heads, decoder_mlp : two-way blocks of the decoder, their heads and MLP width.
    iou_hidden : width of the head that predicts the mask quality.
    mask_channels : channels of the network that reads mask prompts.
    pixel_mean, pixel_std : R, G, B on the scale 0..255.
    """

    name: str
    image_size: int
    patch: int
    embed_dim: int
    depth: int
    heads: int
    window: int
    global_blocks: tuple[int, ...]
    mlp_ratio: float = 4.0
    prompt_dim: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    iou_hidden: int = 256
    mask_channels: int = 16
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def grid(self) -> int:
        """Side of the embedding at `image_size`, patches."""
        return self.image_size // self.patch

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values, for a checkpoint's card."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamConfig:
        """The configuration that `as_dict` described; raises CheckpointError on unknown, missing or wrong fields."""
        if not isinstance(values, Mapping):
            raise CheckpointError(f"configuration is {_shown(values)}, accepted: an object with the sizes of the model")
        known = {field.name: field for field in fields(cls)}
        for name in values:
            if name not in known:
                raise CheckpointError(f"configuration: {unknown('field', str(name), known)}")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        try:
            config = cls(**given)
        except TypeError as error:
            raise CheckpointError(f"configuration is incomplete ({one_line(error)})") from error
        _check(config)
        return config


def _check(config: SamConfig) -> None:
    """Raise CheckpointError unless a model can be built of these values, which come from a file."""

    def refuse(name: str, accepted: str) -> None:
        raise CheckpointError(f"configuration: {name} is {_shown(getattr(config, name))}, accepted: {accepted}")

    if not isinstance(config.name, str) or not config.name:
        refuse("name", "a text")
    for name, largest in _SIZES.items():
        if not _is_integer(getattr(config, name), 1, largest):
            refuse(name, f"an integer from 1 to {largest}")
    blocks = config.global_blocks
    if (
        not isinstance(blocks, tuple)
        or not all(_is_integer(i, 0, config.depth - 1) for i in blocks)
        or len(set(blocks)) < len(blocks)
    ):
        refuse("global_blocks", f"different integers from 0 to {config.depth - 1}")
    if not _is_number(config.mlp_ratio) or not 0 < config.mlp_ratio <= 64 or config.embed_dim * config.mlp_ratio < 1:
        refuse("mlp_ratio", "a number above 0, up to 64")
    for name in ("pixel_mean", "pixel_std"):
        values = getattr(config, name)
        if not isinstance(values, tuple) or len(values) != 3 or not all(_is_number(value) for value in values):
            refuse(name, "three finite numbers, of R, G and B")
    if min(config.pixel_std) < 1e-6:
        refuse("pixel_std", "three numbers above 0 (1e-6)")
    # what the modules of segment-anything divide by
    for name, divisor, what in (
        ("image_size", config.patch, "patch"),
        ("embed_dim", config.heads, "heads"),
        ("prompt_dim", math.lcm(8, 2 * config.decoder_heads), "8, and of twice decoder_heads"),
        ("mask_channels", 4, "4"),
    ):
        if getattr(config, name) % divisor:
            refuse(name, f"a multiple of {what}" + ("" if what == str(divisor) else f" ({divisor})"))


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e9


def _shown(value: object) -> str:
    text = one_line(repr(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= 60 else f"{text[:57]}..."


CONFIGS: dict[str, SamConfig] = {
    config.name: config
    for config in (
        SamConfig("vit_b", 1024, 16, 768, 12, 12, 14, (2, 5, 8, 11)),
        SamConfig("vit_l", 1024, 16, 1024, 24, 16, 14, (5, 11, 17, 23)),
        SamConfig("vit_h", 1024, 16, 1280, 32, 16, 14, (7, 15, 23, 31)),
        SamConfig(
            "small", 256, 8, 256, 6, 4, 8, (2, 5), prompt_dim=128, decoder_heads=8, decoder_mlp=512, iou_hidden=128
        ),
    )
}
"""By name: ViT-B, ViT-L and ViT-H as segment-anything builds them, and `small`."""


def infer_config(state: Mapping[str, Any]) -> SamConfig:
    """The configuration of `CONFIGS` that a state dict belongs to, by the shapes of its tensors.

    Parameters
    ----------
    state : tensors by their official names; only their shapes are looked at.

    Raises
    ------
    CheckpointError
        No configuration has these shapes; the message says what was found and lists the known ones.
    """
    found = {key: tuple(state[key].shape) for key in _shapes(CONFIGS["vit_b"]) if key in state}
    depth = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
    for config in CONFIGS.values():
        if depth == config.depth and all(
            tuple(state[key].shape) == shape if key in state else False for key, shape in _shapes(config).items()
        ):
            return config
    if not found:
        told = "no tensor of a SAM model"
    else:
        told = f"{depth} blocks, " + ", ".join(f"{key} {list(shape)}" for key, shape in found.items())
    raise CheckpointError(f"weights of no known configuration: found {told}; known: {', '.join(CONFIGS)}")


def _shapes(config: SamConfig) -> dict[str, tuple[int, ...]]:
    """Shapes that tell configurations apart (the number of heads shows in the width of the relative positions)."""
    head = config.embed_dim // config.heads
    shapes: dict[str, tuple[int, ...]] = {
        "image_encoder.patch_embed.proj.weight": (config.embed_dim, 3, config.patch, config.patch),
        "image_encoder.pos_embed": (1, config.grid, config.grid, config.embed_dim),
        "image_encoder.neck.0.weight": (config.prompt_dim, config.embed_dim, 1, 1),
        "mask_decoder.transformer.layers.0.mlp.lin1.weight": (config.decoder_mlp, config.prompt_dim),
    }
    for block in (config.global_blocks[0], next(i for i in range(config.depth) if i not in config.global_blocks)):
        side = config.grid if block in config.global_blocks else config.window
        shapes[f"image_encoder.blocks.{block}.attn.rel_pos_h"] = (2 * side - 1, head)
    return shapes
