"""torchvision imports and its nms works, with and without its compiled operators."""

import subprocess
import sys

import pytest
import torch

from gigaseg.sam.torchvision_ops import ensure_torchvision, nms

BOXES = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 10, 5]], dtype=torch.float32)
SCORES = torch.tensor([0.5, 0.9, 0.4, 0.8])


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.1, [1, 2]), (0.5, [1, 2]), (0.7, [1, 3, 2]), (0.8, [1, 3, 0, 2]), (1.0, [1, 3, 0, 2])]
)
def test_nms_drops_boxes_whose_overlap_is_greater_than_the_threshold(threshold, kept):
    # IoU with box 1: 0.8 for box 0, 0.625 for box 3
    assert nms(BOXES, SCORES, threshold).tolist() == kept


def test_nms_of_no_boxes_is_empty():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_nms_takes_half_precision():
    assert nms(BOXES.bfloat16(), SCORES.bfloat16(), 0.5).tolist() == [1, 2]


def test_segment_anything_imports_and_torchvision_uses_an_nms_that_works():
    ensure_torchvision()
    import segment_anything  # noqa: F401
    from torchvision.ops import batched_nms

    kept = batched_nms(BOXES, SCORES, torch.tensor([0, 0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 3, 2]


def test_torchvision_imports_in_a_fresh_process_after_it_is_made_ready():
    code = (
        "from gigaseg.sam.torchvision_ops import ensure_torchvision as e; needed = e(); assert e() is needed;"
        "import torchvision; print(needed)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("True", "False")


def test_nothing_is_changed_where_the_real_operators_are_loaded():
    """A process that has torchvision::nms already keeps it."""
    code = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda dets, scores, t: torch.tensor([42]), "CompositeExplicitAutograd")
from gigaseg.sam.torchvision_ops import ensure_torchvision
assert ensure_torchvision() is False
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "42"
