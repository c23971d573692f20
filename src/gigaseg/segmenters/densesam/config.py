"""What a DenseSAM model is made of, as its checkpoint's card has it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gigaseg.errors import CheckpointError, one_line

SITES = ("before", "after", "end")
"""Where the injected term joins the image tokens: before each block of the decoder, after each, or once at the end."""

IOU_TOKENS = ("sam", "random")


@dataclass(frozen=True)
class DenseSamConfig:
    """What DenseSAM adds to a SAM model.

    Attributes
    ----------
    heads : 2: object and boundary; 1: object alone, the semantic variant.
    local_branch, global_branch : parts of the semantic injection; neither: none is injected.
    inner_idx : features of the encoder that are injected: 0 the patch embedding, 1.. the global-attention blocks.
    site : where, of `SITES`.
    image_token_update : whether image tokens take in what they attend to, as in SAM; the published code leaves it out.
    iou_token : SAM's, or a random one, as in the published code; it stands beside the mask token.
    classes : the one class of its instances.
    """

    heads: int = 2
    local_branch: bool = True
    global_branch: bool = True
    inner_idx: tuple[int, ...] = (1,)
    site: str = "before"
    image_token_update: bool = False
    iou_token: str = "sam"
    classes: tuple[str, ...] = ("nucleus",)

    @property
    def injects(self) -> bool:
        """Whether there is a term to inject."""
        return self.local_branch or self.global_branch

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: object) -> DenseSamConfig:
        """The configuration that `as_dict` described; raises CheckpointError on anything else, which is in a file."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= names or "heads" not in values:
            found = one_line(values)
            raise CheckpointError(f"densesam is {found!r}, accepted: an object of {', '.join(sorted(names))}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        config = cls(**given)

        def refuse(name: str, accepted: str) -> None:
            raise CheckpointError(f"densesam: {name} is {one_line(getattr(config, name))!r}, accepted: {accepted}")

        if config.heads not in (1, 2) or isinstance(config.heads, bool):
            refuse("heads", "1 or 2")
        for name in ("local_branch", "global_branch", "image_token_update"):
            if not isinstance(getattr(config, name), bool):
                refuse(name, "true or false")
        for name, accepted in (("site", SITES), ("iou_token", IOU_TOKENS)):
            if getattr(config, name) not in accepted:
                refuse(name, ", ".join(accepted))
        layers = config.inner_idx
        if (
            not isinstance(layers, tuple)
            or not layers
            or len(set(layers)) < len(layers)
            or not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 1 << 10 for i in layers)
        ):
            refuse("inner_idx", "different whole numbers from 0 on")
        classes = config.classes
        if not isinstance(classes, tuple) or len(classes) != 1 or not isinstance(classes[0], str):
            refuse("classes", "one name")
        return config

    def check_fit(self, global_blocks: int) -> None:
        """Raise CheckpointError when the encoder, with so many global-attention blocks, has no such feature."""
        if max(self.inner_idx) > global_blocks:
            raise CheckpointError(
                f"densesam: inner_idx is {list(self.inner_idx)}, accepted with this SAM: 0 to {global_blocks}"
            )
