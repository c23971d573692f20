"""Fusion of the encoder's levels."""

import pytest
import torch

from cfrsam_models import shaken
from gigaseg.sam.config import CONFIGS
from gigaseg.segmenters.cfrsam.config import FUSIONS
from gigaseg.segmenters.cfrsam.fusion import Fusion, level_blocks

LEVELS = list(torch.randn(4, 2, 6, 5, 7, generator=torch.Generator().manual_seed(0)))


def test_levels_lie_at_quarters_of_the_depth():
    assert level_blocks(12) == (2, 5, 8, 11)
    assert level_blocks(32) == (7, 15, 23, 31)
    for depth in range(4, 40):
        blocks = level_blocks(depth)
        assert len(set(blocks)) == 4
        assert blocks[-1] == depth - 1
    assert level_blocks(CONFIGS["small"].depth) == (1, 2, 4, 5)


@torch.no_grad()
def test_with_convolutions_of_zero_each_level_is_amplified_by_one_and_a_half():
    fusion = Fusion(6).eval()
    for gate in fusion.gates:
        gate[0].weight.zero_()
    torch.testing.assert_close(fusion(LEVELS), 1.5 * sum(LEVELS))


@torch.no_grad()
def test_gates_amplify_each_channel_by_one_and_a_half_to_two():
    fusion = shaken(Fusion(6), by=1.0).eval()
    zero = [torch.zeros_like(LEVELS[0])] * 3
    for k in range(4):
        found = fusion([*zero[:k], LEVELS[k], *zero[k:]])
        factor = found / LEVELS[k]
        assert factor.min() >= 1.5 - 1e-4
        assert factor.max() < 2
        assert factor.flatten(2).std(2).max() < 1e-3, "one factor an image and channel"
        assert factor.mean((2, 3)).std() > 0.01


@torch.no_grad()
def test_what_the_paper_compares_with():
    whole = sum(LEVELS)
    torch.testing.assert_close(Fusion(6, "add")(LEVELS), whole)
    torch.testing.assert_close(Fusion(6, "average")(LEVELS), whole / 4)
    assert torch.equal(Fusion(6, "last")(LEVELS), LEVELS[-1])
    concat = Fusion(6, "concat")
    torch.testing.assert_close(concat(LEVELS), concat.join(torch.cat(LEVELS, 1)))


@torch.no_grad()
def test_gated_is_sam_s_embedding_at_first_and_the_sum_at_most():
    gated, plain = Fusion(6, "gated").eval(), Fusion(6, "sum").eval()
    assert torch.equal(gated(LEVELS), LEVELS[-1])
    plain.load_state_dict({name: t for name, t in gated.state_dict().items() if name != "scale"})
    gated.scale.fill_(1.0)
    torch.testing.assert_close(gated(LEVELS), LEVELS[-1] + plain(LEVELS))


@pytest.mark.parametrize("kind", FUSIONS)
def test_images_do_not_depend_on_each_other(kind):
    fusion = shaken(Fusion(6, kind)).eval()
    with torch.no_grad():
        together = fusion(LEVELS)
        alone = torch.cat([fusion([level[i : i + 1] for level in LEVELS]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
