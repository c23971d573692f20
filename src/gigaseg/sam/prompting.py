"""Prompts of several images as one flat batch, and their embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PromptSets:
    """n prompt sets, each asking for one object (or one foreground) of one image.

    Attributes
    ----------
    image : (n,) int64, the image of each in the batch that was encoded; ascending.
    points : (n, k, 2) float32 x, y in input px. As SAM takes them: a point names a pixel, and the model adds half of
        one. A place (pixel corners at integers, as everywhere in gigaseg) is given less half a pixel. n and k may be 0.
    labels : (n, k) int8: 1 positive, 0 negative, -1 padding. The decoder sees padding as tokens of their own, as in the
        reference; `groups` can take it away.
    boxes : (n, 4) float32 xmin, ymin, xmax, ymax in input px, NaN rows for sets without a box; or None. Half-open edges
        as they are: the model adds half a pixel here too and so sees a box that much to the right and below, as SAM's
        users give boxes and as `small` was trained.
    masks : (n, 1, 4 h, 4 w) logits on the low-res grid of an embedding h x w; or None.
    """

    image: Tensor
    points: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Tensor | slice) -> PromptSets:
        """Some of the sets, by a slice, a boolean mask or ascending positions."""
        return PromptSets(
            self.image[index],
            self.points[index],
            self.labels[index],
            None if self.boxes is None else self.boxes[index],
            None if self.masks is None else self.masks[index],
        )

    def to(self, device: torch.device | str) -> PromptSets:
        """The same sets on another device."""
        return PromptSets(
            self.image.to(device),
            self.points.to(device),
            self.labels.to(device),
            None if self.boxes is None else self.boxes.to(device),
            None if self.masks is None else self.masks.to(device),
        )


def point_sets(image: Tensor, points: Tensor) -> PromptSets:
    """One positive point a set: `image` (n,), `points` (n, 2) x, y in input px."""
    labels = torch.ones(len(points), 1, dtype=torch.int8, device=points.device)
    return PromptSets(image, points.float()[:, None], labels)


def box_sets(image: Tensor, boxes: Tensor) -> PromptSets:
    """One box a set: `image` (n,), `boxes` (n, 4) in input px."""
    none = torch.zeros(len(boxes), 0, 2, device=boxes.device)
    return PromptSets(image, none, none[..., 0].to(torch.int8), boxes.float())


def groups(sets: PromptSets, *, drop_padding: bool = False) -> list[tuple[Tensor, PromptSets]]:
    """Split into sets that share a number of tokens, each as if it had been given alone.

    Parameters
    ----------
    drop_padding : padding is storage only: sets are split by their number of real points too (which then come in their
        given order), so that what a set yields does not depend on the others of the batch.

    Returns
    -------
    list of (positions (m,) int64 ascending, their sets), in every one of which all sets have a box or none has.
    """
    key = torch.zeros(len(sets), dtype=torch.int64, device=sets.image.device)
    if sets.boxes is not None:
        key += ~sets.boxes.isnan().any(1)
    if drop_padding:
        key += 2 * (sets.labels >= 0).sum(1)
    found = []
    for value in sorted(set(key.tolist())):
        index = torch.nonzero(key == value)[:, 0]
        part = sets if len(index) == len(sets) else sets[index]
        points, labels = part.points, part.labels
        if drop_padding and value // 2 < labels.shape[1]:
            real = (labels < 0).to(torch.int8).sort(dim=1, stable=True).indices[:, : value // 2]
            labels = labels.gather(1, real)
            points = points.gather(1, real[..., None].expand(-1, -1, 2))
        found.append((index, PromptSets(part.image, points, labels, part.boxes if value % 2 else None, part.masks)))
    return found


def concatenate(sets: Sequence[PromptSets]) -> PromptSets:
    """Sets one after another; points are padded to the largest k. Their images must ascend; masks: all have or none."""
    most = max((s.points.shape[1] for s in sets), default=0)
    points = [torch.nn.functional.pad(s.points, (0, 0, 0, most - s.points.shape[1])) for s in sets]
    labels = [torch.nn.functional.pad(s.labels, (0, most - s.labels.shape[1]), value=-1) for s in sets]
    boxes = None
    if any(s.boxes is not None for s in sets):
        none = [s.points.new_full((len(s), 4), torch.nan) for s in sets]
        boxes = torch.cat([n if s.boxes is None else s.boxes for s, n in zip(sets, none)])
    masks = torch.cat([s.masks for s in sets if s.masks is not None]) if sets and sets[0].masks is not None else None
    return PromptSets(torch.cat([s.image for s in sets]), torch.cat(points), torch.cat(labels), boxes, masks)


def embed_prompts(model: nn.Module, sets: PromptSets, input_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Embed prompts as the reference `PromptEncoder` does, for an input of any size.

    Parameters
    ----------
    model : `segment_anything.modeling.Sam`.
    sets : all of them with a box, or none (`groups`).
    input_shape : (H, W) of the input, px, by which coordinates are normalised.

    Returns
    -------
    sparse : (n, t, C) float32. t = points (+ 1 of padding when there is no box and there are points) + 2 for a box.
    dense : (n, C, h, w) for mask prompts, else the vector that stands for none, (1, C, 1, 1).

    Raises
    ------
    ValueError
        Some sets have a box and some have none.
    """
    encoder = cast(Any, model).prompt_encoder
    parts: list[Tensor] = []
    boxes = sets.boxes
    if boxes is not None:
        absent = boxes.isnan().any(1)
        if bool(absent.all()):
            boxes = None
        elif bool(absent.any()):
            raise ValueError("some prompt sets have a box and some have none; split them with groups()")
    # coordinates in half precision would be off by pixels
    with torch.autocast(sets.points.device.type, enabled=False):
        if sets.points.shape[1]:
            parts.append(_points(encoder, sets.points.float(), sets.labels, input_shape))
            if boxes is None:
                parts.append(encoder.not_a_point_embed.weight.expand(len(sets), 1, -1))
        if boxes is not None:
            corners = torch.cat([encoder.point_embeddings[2].weight, encoder.point_embeddings[3].weight])
            parts.append(_positions(encoder, boxes.float().view(-1, 2, 2), input_shape) + corners)
        sparse = torch.cat(parts, dim=1) if parts else sets.points.new_zeros(len(sets), 0, encoder.embed_dim)
    return sparse, embed_masks(model, sets.masks)


def embed_masks(model: nn.Module, masks: Tensor | None) -> Tensor:
    """Dense part of `embed_prompts`. Each cell depends on its own 4 x 4 logits alone, so windows can be cut before."""
    encoder = cast(Any, model).prompt_encoder
    if masks is None:
        return cast(Tensor, encoder.no_mask_embed.weight.view(1, -1, 1, 1))
    with torch.autocast(masks.device.type, enabled=False):
        return cast(Tensor, encoder.mask_downscaling(masks.float()))


def _points(encoder: Any, points: Tensor, labels: Tensor, input_shape: tuple[int, int]) -> Tensor:
    labels = labels[..., None]
    real = torch.where(labels == 1, encoder.point_embeddings[1].weight, encoder.point_embeddings[0].weight)
    real = real + _positions(encoder, points.nan_to_num(), input_shape)  # padding may be NaN
    return torch.where(labels == -1, encoder.not_a_point_embed.weight, real)


def _positions(encoder: Any, xy: Tensor, input_shape: tuple[int, int]) -> Tensor:
    return cast(Tensor, encoder.pe_layer.forward_with_coords(xy + 0.5, input_shape))


def grid_positions(model: nn.Module, grid: tuple[int, int]) -> Tensor:
    """Positional encoding of every cell of an embedding grid (h, w): (h w, C) float32."""
    layer = cast(Any, model).prompt_encoder.pe_layer
    with torch.autocast(layer.positional_encoding_gaussian_matrix.device.type, enabled=False):
        return cast(Tensor, layer(grid)).flatten(1).T.contiguous()
