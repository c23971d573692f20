"""Make ``import torchvision`` work where its compiled operators cannot load.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its operator library fails to load, and the import of
the package stops at the first operator it describes (``operator torchvision::nms does not exist``). Declaring the two
schemas it needs before the import is enough; `nms`, the one operator that segment-anything calls, gets an
implementation in torch. Nothing is changed where the real operators load.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def ensure_torchvision() -> bool:
    """Prepare the import of torchvision; call it first. Returns whether the stand-in was needed.

    Raises ModuleNotFoundError when torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not installed")
    if _has_operators(Path(spec.submodule_search_locations[0])):
        return False
    _declare()
    import torchvision.extension

    # torchvision.ops asks this before each call
    torchvision.extension._has_ops = lambda: True
    return True


def _has_operators(package: Path) -> bool:
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    for library in package.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:  # libtorch_cuda.so is not there
            return False
    return hasattr(torch.ops.torchvision, "nms")


@cache  # a Library takes its operators along when it is collected
def _declare() -> Any:
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define("nms" + _SCHEMA)
    library.define("qnms" + _SCHEMA)
    library.impl("nms", nms, "CompositeExplicitAutograd")
    return library


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression with the meaning of torchvision's operator.

    Parameters
    ----------
    dets : (n, 4) boxes xmin, ymin, xmax, ymax.
    scores : (n,).
    iou_threshold : a box whose IoU with a kept one of higher score is greater is dropped.

    Returns
    -------
    (k,) int64 positions of the kept boxes, by descending score.
    """
    order = scores.sort(descending=True, stable=True).indices
    boxes = dets[order].float() if dets.dtype in (torch.float16, torch.bfloat16) else dets[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    keep: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        keep.append(i)
        rest = boxes[i + 1 :]
        size = (torch.minimum(boxes[i, 2:], rest[:, 2:]) - torch.maximum(boxes[i, :2], rest[:, :2])).clamp(min=0)
        common = size[:, 0] * size[:, 1]
        alive[i + 1 :] &= common / (area[i] + area[i + 1 :] - common) <= iou_threshold
    return order[torch.tensor(keep, dtype=torch.int64, device=order.device)]
