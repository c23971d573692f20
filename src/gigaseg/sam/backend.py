"""What segmenters use of SAM: a model on a device, images and prompts in tile px, packed masks back."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.devices import choose_device
from gigaseg.errors import DeviceError, SegmenterError, one_line, unknown
from gigaseg.sam.adapters import Adapter
from gigaseg.sam.config import SamConfig
from gigaseg.sam.decoder import Decoded, decode
from gigaseg.sam.detail import with_detail
from gigaseg.sam.encoder import Encoded, encode, normalise
from gigaseg.sam.local import window_sizes
from gigaseg.sam.masks import best, chosen, crop_masks
from gigaseg.sam.model import open_checkpoint
from gigaseg.sam.packed import PackedMasks, pack
from gigaseg.sam.prompting import PromptSets, groups
from gigaseg.segmenters.base import Prompts

DEFAULT_CHECKPOINT = "small-v1"
"""Name of the checkpoint that ships with the package."""

PRECISIONS = {"auto": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What `Backend.open` accepts; auto is bf16 on a GPU that computes with it, fp16 on an older one, and fp32 on a CPU,
where runs are then identical byte for byte."""

_LOGITS = 1 << 26
"""Low-res logits, and features where masks are refined, held at a time: 256 MB."""

Refine = Callable[[Decoded, Tensor], Iterable[tuple[Tensor, Decoded]]]
"""Of one mask a prompt, with features, and the image of each: positions and other masks, each prompt once. Windows may
be smaller; logits and origin are on the finer grid."""


@dataclass(frozen=True)
class Backend:
    """A SAM model ready to segment tiles; every method runs without gradients, in the backend's precision.

    Attributes
    ----------
    model : `segment_anything.modeling.Sam` on `device`.
    config : its sizes.
    card : the checkpoint's metadata; empty for published ones.
    device : where it computes.
    dtype : of matrix products.
    input_size : px that the longer side of a tile is resized to; None: the tile's, rounded up to whole patches.
    encoder : `gigaseg.sam.encoder.encode`, or its compiled form.
    scale : by which a tile is resized where there is no `input_size`; not together with one.
    """

    model: nn.Module
    config: SamConfig
    card: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    input_size: int | None = None
    encoder: Callable[..., Encoded] = encode
    scale: float = 1.0

    @classmethod
    def open(
        cls,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        input_size: int | None = None,
        precision: str = "auto",
        compile: bool = False,
    ) -> Backend:
        """Load a checkpoint.

        Parameters
        ----------
        checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`); None for the one that ships.
        device : as `gigaseg.devices.choose_device` takes it.
        precision : a key of `PRECISIONS`.
        compile : compile the encoder for the sizes that it meets, at the first tile of each; quicker on GPUs, if there
            is a C compiler. The result may differ by rounding.

        Raises
        ------
        CheckpointError
            The checkpoint is missing, damaged or of no known configuration.
        DeviceError
            The device is not there.
        SegmenterError
            `precision` is unknown, or `input_size` no positive multiple of the model's patch side.
        """
        found = open_checkpoint(checkpoint or DEFAULT_CHECKPOINT)
        return cls.from_model(*found, device, input_size, precision, compile)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        config: SamConfig,
        card: dict[str, Any],
        device: str = "cpu",
        input_size: int | None = None,
        precision: str = "auto",
        compile: bool = False,
    ) -> Backend:
        """As `open`, with a model that is there: it is moved to the device and put into evaluation mode.

        Parameters
        ----------
        model, config, card : as `gigaseg.sam.model.open_checkpoint` gives them.

        Raises
        ------
        DeviceError, SegmenterError
            As `open`.
        """
        if precision not in PRECISIONS:
            raise SegmenterError(unknown("precision", precision, PRECISIONS))
        place = torch.device(choose_device(device))
        if input_size is not None and (input_size < config.patch or input_size % config.patch):
            raise SegmenterError(
                f"input size is {input_size} px, accepted: positive multiples of {config.patch} px, the patch side of "
                f"'{config.name}'"
            )
        dtype = PRECISIONS[precision] or _best_dtype(place)
        encoder = _compiled() if compile else encode
        return cls(model.to(place).eval(), config, card, place, dtype, input_size, encoder)

    def window(self, wanted: int) -> int | None:
        """Side of the decoding window, cells: `wanted`, or None for 0, which is all of the tile.

        For -1 as the weights were trained; the published ones were trained without windows.
        """
        return (wanted if wanted >= 0 else trained_window(self.card)) or None

    def input_shape(self, tile_shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width, px, that a tile of `tile_shape` is resized to; its aspect is kept.

        Raises ValueError when no size in whole patches keeps it.
        """
        patch, longer = self.config.patch, max(tile_shape)
        size = self.input_size or math.ceil(longer * self.scale / patch - 1e-9) * patch
        height, width = (side * size / longer for side in tile_shape)
        if height % patch or width % patch:
            raise ValueError(
                f"tile {tile_shape} at an input size of {size} px is no whole number of patches of {patch} px"
            )
        return int(height), int(width)

    def encode(
        self, images: Tensor, *, hidden: bool | Collection[int] = False, adapter: Adapter | None = None
    ) -> Encoded:
        """Encode tiles (b, 3, height, width) RGB, uint8 or float 0..255, resized to the input (`resized`).

        An `adapter` is for models in training; others have theirs merged (`gigaseg.sam.adapters.Lora.merge`).
        """
        with self.running():
            pixels = normalise(self.resized(images), self.config)
            return self.encoder(cast(Any, self.model).image_encoder, pixels, hidden=hidden, adapter=adapter)

    def resized(self, images: Tensor) -> Tensor:
        """Tiles as `encode` takes them at the size of the input, with anti-aliasing: float32 0..255, on the device."""
        shape = self.input_shape((images.shape[2], images.shape[3]))
        pixels = images.to(self.device).float()
        if shape == images.shape[2:]:
            return pixels
        return F.interpolate(pixels, shape, mode="bilinear", antialias=True)

    def sets(self, prompts: Sequence[Prompts]) -> PromptSets:
        """Prompts of the tiles of a batch as flat sets, in tile px and order, on the device."""
        most = max((p.points.shape[1] for p in prompts), default=0)
        points, labels, boxes, image = [], [], [], []
        for i, p in enumerate(prompts):
            n, k = p.points.shape[:2]
            real = torch.from_numpy(p.labels)
            points.append(F.pad(torch.from_numpy(p.points).nan_to_num(), (0, 0, 0, most - k)))
            labels.append(F.pad(real, (0, most - k), value=-1))
            boxes.append(torch.full((n, 4), torch.nan) if p.boxes is None else torch.from_numpy(p.boxes))
            image.append(torch.full((n,), i))
        if not prompts:
            return PromptSets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0, 2), torch.zeros(0, 0).to(torch.int8))
        flat = PromptSets(torch.cat(image), torch.cat(points), torch.cat(labels), torch.cat(boxes))
        return flat.to(self.device)

    def decode(
        self,
        encoded: Encoded,
        sets: PromptSets,
        tile_shape: tuple[int, int],
        *,
        multimask: bool = False,
        window: int | None = None,
        features: bool = False,
    ) -> Decoded:
        """`gigaseg.sam.decoder.decode` of sets in tile px."""
        with self.running():
            scaled = self.to_input(sets, tile_shape)
            return decode(self.model, encoded, scaled, multimask=multimask, window=window, features=features)

    def masks(
        self,
        encoded: Encoded,
        sets: PromptSets,
        tile_shape: tuple[int, int],
        *,
        multimask: bool = False,
        pick: Callable[[Decoded], Decoded] = best,
        window: int | None = None,
        grow: bool = True,
        threshold: float = 0.0,
        detail: Tensor | None = None,
        refine: Refine | None = None,
        fine: int = 1,
    ) -> PackedMasks:
        """One mask a prompt set, cropped in tile px, on the device.

        A set's mask does not depend on the others: padding of points is taken away.

        Parameters
        ----------
        sets : in tile px.
        multimask : sets of a single point, which are ambiguous, take one of three masks.
        pick : which of them, with its logits, of n sets; by default that of the highest predicted IoU.
        window : local decoding with windows of so many cells; a set whose prompts need more gets one of twice the side,
            or four times, and so on. None: the whole embedding.
        grow : a set whose mask reaches an edge of its window inside the image is decoded again in the next larger one.
        threshold : of the logits.
        detail : (b, C / 8, 4 h, 4 w) features of the images for all their masks (`gigaseg.sam.detail`).
        refine, fine : makes other masks of decoded ones, on a grid finer than the low-res one by a whole factor, once
            they have their window.

        Returns
        -------
        PackedMasks
            n masks in the order of `sets`, empty ones among them.
        """
        h, w = encoded.embedding.shape[2:]
        parts, order = [], []
        with self.running():
            for index, some in groups(self.to_input(sets, tile_shape), drop_padding=True):
                several = multimask and some.boxes is None and some.masks is None and some.points.shape[1] == 1
                for at, decoded in self._windows(
                    encoded, some, pick if several else None, window, grow, threshold, detail, refine
                ):
                    grid = (4 * h * fine, 4 * w * fine)
                    parts.append(crop_masks(decoded, self.input_shape(tile_shape), tile_shape, grid, threshold))
                    order.append(index[at])
            if not parts:
                none = torch.zeros(0, device=self.device)
                return PackedMasks(none.int().view(0, 4), none.bool(), none.long(), none)
            return pack(parts)[torch.cat(order).argsort()]

    def _windows(
        self,
        encoded: Encoded,
        sets: PromptSets,
        pick: Callable[[Decoded], Decoded] | None,
        window: int | None,
        grow: bool,
        threshold: float,
        detail: Tensor | None,
        refine: Refine | None,
    ) -> Iterator[tuple[Tensor, Decoded]]:
        """Positions and decoded masks, window size by window size; each set once."""
        channels, h, w = encoded.embedding.shape[1:]
        left = torch.arange(len(sets), device=self.device)
        size = torch.zeros_like(left)
        if window is not None:
            size = window_sizes(sets, self.config.patch, (h, w), window)
        while len(left):
            small = int(size[size > 0].min()) if bool((size > 0).any()) else 0
            now = size == small
            side = min(small, h) * min(small, w) if small else h * w
            maps = (3 if pick else 1) + (channels // 8 if refine else 0)
            step = max(1, _LOGITS // (16 * side * maps))
            rest, rest_size = [left[~now]], [size[~now]]
            for positions in torch.split(left[now], step):
                some = sets[positions]
                decoded = decode(
                    self.model,
                    encoded,
                    some,
                    multimask=pick is not None,
                    window=small or None,
                    features=refine is not None,
                )
                decoded = with_detail(decoded, detail, some.image)
                decoded = pick(decoded) if pick else decoded
                if small and grow:
                    cut = reaches_edge(decoded, (4 * h, 4 * w), threshold)
                    rest.append(positions[cut])
                    larger = 2 * small if 2 * small < max(h, w) else 0
                    rest_size.append(torch.full_like(positions[cut], larger))
                    positions, decoded, some = positions[~cut], chosen(decoded, ~cut), some[~cut]
                if refine is None:
                    yield positions, decoded
                elif len(positions):
                    for rows, found in refine(decoded, some.image):
                        yield positions[rows], found
            left, size = torch.cat(rest), torch.cat(rest_size)

    def to_input(self, sets: PromptSets, tile_shape: tuple[int, int]) -> PromptSets:
        """Sets in tile px as the model takes them, in input px (`PromptSets`)."""
        sets = sets.to(self.device)
        scale = self.input_shape(tile_shape)[0] / tile_shape[0]
        points = sets.points.float() * scale - 0.5  # SAM's points name a pixel, and the model adds half of one
        return replace(sets, points=points, boxes=None if sets.boxes is None else sets.boxes.float() * scale)

    @contextmanager
    def running(self) -> Iterator[None]:
        """No gradients, and the backend's precision."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield


def trained_window(card: Mapping[str, Any]) -> int:
    """Side of the decoding windows that weights were trained with, cells, as their card has it; 0: none."""
    training = card.get("training")
    return int(training.get("window") or 0) if isinstance(training, dict) else 0


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    with torch.cuda.device(device):
        own = torch.cuda.is_bf16_supported(including_emulation=False)  # emulated it would be slower than float32
    return torch.bfloat16 if own else torch.float16


def _compiled() -> Callable[..., Encoded]:
    """`encode`, compiled for each size of input when it is first met."""
    from torch._dynamo.exc import BackendCompilerFailed

    quick = torch.compile(encode)

    def run(
        encoder: nn.Module,
        images: Tensor,
        *,
        hidden: bool | Collection[int] = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        try:
            return quick(encoder, images, hidden=hidden, adapter=adapter)
        except BackendCompilerFailed as error:
            reason = one_line(str(error).split("Set TORCH", 1)[0])[:200]
            raise DeviceError(f"the encoder cannot be compiled here ({reason}); set compile to false") from error

    return run


def reaches_edge(decoded: Decoded, low_shape: tuple[int, int], threshold: float = 0.0) -> Tensor:
    """Whether any of each prompt's masks touches an edge of its window that lies inside the image: (n,) bool."""
    on = (decoded.logits > threshold).any(1)
    rows, cols = on.shape[1:]
    x, y = decoded.origin.unbind(1)
    left, right = on[:, :, 0].any(1) & (x > 0), on[:, :, -1].any(1) & (x + cols < low_shape[1])
    top, bottom = on[:, 0].any(1) & (y > 0), on[:, -1].any(1) & (y + rows < low_shape[0])
    return left | right | top | bottom
