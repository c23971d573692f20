"""Known values of DenseSAM's losses and targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gigaseg.train.densesam.losses import at_points, contrastive, point_losses, sample_points
from gigaseg.train.densesam.targets import token_labels


def dense(features, labels, temperature=0.1):
    """The loss written out, token by token."""
    products = features @ features.T / temperature
    total = 0.0
    for i in range(len(features)):
        others = [j for j in range(len(features)) if j != i and labels[j] == labels[i]]
        if others:
            total = total + torch.logsumexp(products[i], 0) - products[i, others].mean()
    return total / len(features)


def test_tokens_of_two_classes_at_right_angles():
    features = F.one_hot(torch.tensor([0] * 4 + [1] * 4)).float()
    found = contrastive(features, features.argmax(1))
    assert float(found) == pytest.approx(math.log(4) + math.log(1 + math.exp(-10)), abs=1e-5)
    assert float(found) == pytest.approx(1.38634, abs=1e-5)


def test_tokens_that_are_all_the_same():
    features = F.normalize(torch.ones(8, 3), dim=1)
    assert float(contrastive(features, torch.arange(8) % 2)) == pytest.approx(math.log(8), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000), st.integers(1, 50), st.floats(0, 1))
def test_in_chunks_the_loss_and_its_gradient_are_those_written_out(m, seed, rows, share):
    rng = np.random.default_rng(seed)
    raw = torch.from_numpy(rng.normal(size=(m, 5))).float()
    labels = torch.from_numpy(rng.random(m) < share)
    found, expected = [], []
    for function, into in ((dense, expected), (lambda z, y: contrastive(z, y, rows=rows), found)):
        leaf = raw.clone().requires_grad_()
        loss = function(F.normalize(leaf, dim=1), labels)
        into.append(torch.as_tensor(loss).detach())
        if torch.is_tensor(loss) and loss.requires_grad:
            loss.backward()
        into.append(torch.zeros_like(raw) if leaf.grad is None else leaf.grad)
    assert torch.allclose(found[0], expected[0].float(), atol=1e-6, rtol=1e-6)
    assert torch.allclose(found[1], expected[1], atol=1e-5)


def test_a_token_alone_in_its_class_counts_as_nothing():
    features = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 0, 0, 0, 1])
    assert float(contrastive(features, labels)) == pytest.approx(float(dense(features, labels)), abs=1e-6)


def test_memory_of_the_contrastive_loss_grows_with_the_tokens_not_their_square():
    """8,192 tokens: their products alone would be 256 MB, and the gradient needs several of them."""
    import subprocess
    import sys

    code = (
        "import resource, torch\n"
        "from gigaseg.train.densesam.losses import contrastive\n"
        "torch.set_num_threads(1)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def run(m):\n"
        "    z = torch.nn.functional.normalize(torch.randn(m, 8), dim=1).requires_grad_()\n"
        "    contrastive(z, torch.arange(m) % 2).backward()\n"
        "run(512); before = peak(); run(8192); print((peak() - before) // 1024)"
    )
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 128


def test_perfect_logits_have_no_dice_loss_and_zeros_a_cross_entropy_of_ln_2():
    truth = torch.zeros(2, 32, 32)
    truth[:, :16] = 1
    cross, dice_loss = point_losses((truth - 0.5) * 1000, truth, 0)
    assert float(dice_loss) == pytest.approx(0, abs=1e-4)
    assert float(cross) == pytest.approx(0, abs=1e-4)
    for points in (0, 500):
        assert float(point_losses(torch.zeros(2, 32, 32), truth, points)[0]) == pytest.approx(math.log(2), abs=1e-6)


def test_points_are_mostly_where_the_logits_are_near_zero():
    torch.manual_seed(0)
    logits = torch.full((1, 64, 64), 8.0)
    logits[:, :, 28:36] = 0.01  # an eighth of the map
    points = sample_points(logits, 400)
    assert points.shape == (1, 400, 2)
    assert ((points >= 0) & (points <= 1)).all()
    near = (points[0, :, 0] - 0.5).abs() < 4.5 / 64
    # of 1,200 candidates about 150 lie there; they fill half of the 300 unsure ones, and 12 of the other 100
    assert 0.35 < float(near.float().mean()) < 0.5


def test_values_at_points_are_bilinear_with_pixel_corners_at_integers():
    ramp = torch.arange(8.0).expand(1, 4, 8)
    points = torch.tensor([[[0.5 / 8, 0.5], [4.0 / 8, 0.2], [7.5 / 8, 0.9]]])
    assert at_points(ramp, points)[0].tolist() == pytest.approx([0, 3.5, 7])


def test_token_labels_take_the_pixel_in_the_middle():
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 4:8, 8:12] = True
    found = token_labels(mask, (4, 4))[0]
    assert found.nonzero().tolist() == [[1, 2]]
