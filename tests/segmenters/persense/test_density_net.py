"""The density regressor's map: its size, its unit, and how far it looks."""

import pytest
import torch

from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DensityNet
from gigaseg.train.persense.targets import density_targets


def all_positive(config):
    """A regressor whose weights are above zero, so that no path of it is blocked."""
    torch.manual_seed(0)
    net = DensityNet(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    return net


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_its_map_has_a_value_a_cell(reduction):
    net = all_positive(DensityConfig(4, 2, reduction=reduction))
    with torch.no_grad():
        found = net(torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8))
    assert net.multiple == 4 * reduction
    assert found.shape == (2, 32 // reduction, 48 // reduction)
    assert (found > 0).all()
    assert not torch.equal(found[0], found[1])


def test_nothing_is_below_zero_but_in_training_where_it_has_a_gradient():
    net = all_positive(DensityConfig(4, 2))
    torch.nn.init.constant_(net.unet.head.bias, -1000.0)
    images = torch.rand(1, 3, 32, 32) * 255
    assert not net(images).any()
    found = net.train()(images)
    assert (found < 0).all()
    found.sum().backward()
    assert float(net.unet.head.bias.grad) > 0


def test_other_sides_than_multiples_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        DensityNet(DensityConfig(4, 2))(torch.zeros(1, 3, 36, 32))


@pytest.mark.parametrize(("reduction", "sigma"), [(1, 2.0), (2, 2.5), (2, 6.0)])
def test_its_unit_is_the_peak_of_a_lone_object(reduction, sigma):
    config = DensityConfig(4, 1, reduction=reduction, sigma=sigma)
    middle = torch.tensor([[20.5, 20.5]])
    alone = density_targets(middle, torch.zeros(1, dtype=torch.int64), (1, 41, 41), sigma / reduction)
    assert DensityNet(config).unit == pytest.approx(float(alone.max()), rel=0.03)


@pytest.mark.parametrize(("levels", "reduction"), [(1, 1), (2, 2), (3, 1), (4, 1)])
def test_beyond_its_reach_nothing_matters(levels, reduction):
    net = all_positive(DensityConfig(2, levels, "batch", reduction))
    images = torch.full((1, 3, 2 * net.multiple, 4 * net.reach), 130.0)
    farthest = 0
    for edge in range(2 * net.reach, 2 * net.reach + net.multiple, reduction):
        other = images.clone()
        other[..., edge:] = 255
        with torch.no_grad():
            changed = (net(images) != net(other))[0].any(0).nonzero()[:, 0] * reduction
        farthest = max(farthest, edge - int(changed.min()))
    assert farthest == (7 * 2**levels - 5) * reduction <= net.reach
