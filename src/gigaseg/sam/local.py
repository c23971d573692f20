"""Windows of local decoding: the part of the embedding that each prompt sees."""

from __future__ import annotations

import torch
from torch import Tensor

from gigaseg.sam.prompting import PromptSets

MARGIN = 1.0
"""Cells that a window keeps free on each side of a prompt's box: masks reach beyond jittered boxes, and the bilinear
resize at the box's edge needs its neighbour."""


def centres(sets: PromptSets, patch: int, grid: tuple[int, int]) -> Tensor:
    """Where each prompt's window is centred, (n, 2) x, y in embedding cells.

    The centre of its box; else the mean of its positive points, else of all its points; else the centroid of its mask
    prompt where that is positive; else the grid's centre.
    """
    size = torch.tensor([grid[1], grid[0]], dtype=torch.float32, device=sets.points.device)
    middle = (size / 2).expand(len(sets), 2)
    if sets.masks is not None:
        inside = (sets.masks[:, 0] > 0).float()
        y = torch.arange(inside.shape[1], device=inside.device) + 0.5
        x = torch.arange(inside.shape[2], device=inside.device) + 0.5
        area = inside.sum((1, 2))
        centroid = torch.stack([inside.sum(1) @ x, inside.sum(2) @ y], 1) / (4 * area.clamp(min=1))[:, None]
        middle = torch.where(area[:, None] > 0, centroid, middle)
    for chosen in (sets.labels >= 0, sets.labels == 1):
        number = chosen.sum(1, keepdim=True)
        mean = (sets.points.nan_to_num() * chosen[..., None]).sum(1) / number.clamp(min=1)
        middle = torch.where(number > 0, (mean + 0.5) / patch, middle)
    if sets.boxes is not None:
        box = (sets.boxes[:, :2] + sets.boxes[:, 2:] + 1) / (2 * patch)
        middle = torch.where(box.isnan(), middle, box)
    return middle


def window_origins(sets: PromptSets, patch: int, grid: tuple[int, int], window: int) -> Tensor:
    """First cell of each prompt's window, (n, 2) int64 x, y.

    Parameters
    ----------
    window : side in embedding cells. The window is shifted to stay inside the grid; a grid narrower than it is covered
        whole along that axis.

    Raises ValueError when `window` is less than 1.
    """
    if window < 1:
        raise ValueError(f"window is {window}, accepted: a whole number of cells >= 1")
    room = torch.tensor([max(0, grid[1] - window), max(0, grid[0] - window)], device=sets.points.device)
    origin = torch.round(centres(sets, patch, grid) - window / 2).long()
    return torch.minimum(origin.clamp(min=0), room)


def window_sizes(sets: PromptSets, patch: int, grid: tuple[int, int], window: int) -> Tensor:
    """Side of the window that each prompt needs, (n,) int64: `window`, twice, four times it, …; 0 for the whole grid.

    The smallest that holds the prompt's box and `MARGIN`, all its points, and what is positive of its mask prompt.

    Raises ValueError when `window` is less than 1.
    """
    if window < 1:
        raise ValueError(f"window is {window}, accepted: a whole number of cells >= 1")
    need = torch.zeros(len(sets), device=sets.points.device)
    middle = centres(sets, patch, grid)
    if sets.boxes is not None:
        sides = (sets.boxes[:, 2:] - sets.boxes[:, :2]) / patch + 2 * MARGIN
        need = torch.maximum(need, sides.amax(1).nan_to_num())
    if sets.points.shape[1]:
        reach = ((sets.points.nan_to_num() + 0.5) / patch - middle[:, None]).abs().amax(2)
        # windows start at whole cells, up to half a cell from where their centre would have them
        need = torch.maximum(need, ((2 * reach + 1) * (sets.labels >= 0)).amax(1))
    if sets.masks is not None:
        inside = sets.masks[:, 0] > 0
        for axis, across in ((0, 1), (1, 2)):
            line = inside.any(across)
            cells = (torch.arange(line.shape[1], device=line.device) + 0.5) / 4
            reach = ((cells - middle[:, axis, None]).abs() * line).amax(1)
            need = torch.maximum(need, 2 * reach + 2 * MARGIN)
    size = torch.full((len(sets),), window, dtype=torch.int64, device=need.device)
    while True:
        small = (size < need) & (size < max(grid))
        if not bool(small.any()):
            break
        size = torch.where(small, 2 * size, size)
    return torch.where(size >= max(grid), 0, size)


def window_cells(origin: Tensor, shape: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Flat positions in the grid of each window's cells, (n, rows * columns) int64, row by row.

    Parameters
    ----------
    origin : (n, 2) x, y.
    shape, grid : (rows, columns) of the window and of the grid.
    """
    y = torch.arange(shape[0], device=origin.device)
    x = torch.arange(shape[1], device=origin.device)
    cell = y[:, None] * grid[1] + x
    return (origin[:, 1] * grid[1] + origin[:, 0])[:, None] + cell.flatten()


def cut_masks(masks: Tensor, origin: Tensor, size: tuple[int, int]) -> Tensor:
    """Windows of mask prompts: (n, 1, H, W) to (n, 1, *size), from `origin` (n, 2) x, y in the same px."""
    cells = window_cells(origin, size, (masks.shape[2], masks.shape[3]))
    return masks.flatten(1).gather(1, cells).view(len(masks), 1, *size)
