"""Checkpoints of PerSense: with a regressor, of SAM alone, and those that are refused."""

import numpy as np
import pytest
import torch

from gigaseg.errors import CheckpointError
from gigaseg.sam.checkpoints import read_state, write_delta, write_state
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DENSITY, DensityNet
from gigaseg.segmenters.persense.regressed import RegressedDensity
from gigaseg.testing import synthetic_image
from samples import SIZES, write_random_sam

CONFIG = DensityConfig(4, 2)


@pytest.fixture
def sam(tmp_path):
    write_random_sam(tmp_path / "sam.safetensors")
    return tmp_path / "sam.safetensors"


def write(path, sam, config=CONFIG, net=None, **card):
    """A checkpoint over a SAM; returns the regressor."""
    torch.manual_seed(0)
    net = net or DensityNet(config)
    state = {**read_state(sam)[0], **{DENSITY + name: value for name, value in net.state_dict().items()}}
    write_delta(path, state, sam, {"method": "persense", "persense": config.as_dict(), **card})
    return net.eval()


def test_a_regressor_comes_back_beside_its_sam(sam, tmp_path):
    net = write(tmp_path / "both.safetensors", sam, name="mine")
    loaded = open_persense(tmp_path / "both.safetensors")
    assert loaded.config == CONFIG
    assert not loaded.density.training
    images = torch.rand(1, 3, 32, 32) * 255
    with torch.no_grad():
        assert torch.equal(loaded.density(images), net(images))
    assert loaded.backend.config == SIZES
    for name, tensor in read_state(sam)[0].items():
        assert torch.equal(loaded.backend.model.state_dict()[name], tensor)
    assert RegressedDensity.of(loaded).name == "density regressor mine"


def test_sam_alone_is_accepted_and_has_no_regressor(sam):
    loaded = open_persense(sam)
    assert (loaded.density, loaded.config) == (None, None)
    assert loaded.backend.config == SIZES
    with pytest.raises(ValueError, match="one of SAM alone; expected one with a density regressor"):
        RegressedDensity.of(loaded)
    assert open_persense("small-v1").density is None


@pytest.mark.parametrize("name", ["sac-v1", "centersam-v2", "densesam-v1", "cfrsam-v1"])
def test_weights_of_other_methods_are_refused(name):
    method = name.partition("-")[0]
    with pytest.raises(CheckpointError, match=rf"weights of method '{method}', expected those that `gigaseg train pe"):
        open_persense(name)


def test_damage_is_told_with_the_file(sam, tmp_path):
    path = tmp_path / "both.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        open_persense(path)
    write(path, sam, persense={"width": "wide"})
    with pytest.raises(CheckpointError, match=r"both\.safetensors: persense: width is 'wide', accepted"):
        open_persense(path)
    write(path, sam, net=DensityNet(DensityConfig(8, 2)))
    with pytest.raises(CheckpointError, match=r"both\.safetensors: does not fit the density regressor"):
        open_persense(path)
    write_state(path, read_state(sam)[0], {"config": SIZES.as_dict(), "persense": CONFIG.as_dict()})
    with pytest.raises(CheckpointError, match=r"does not fit the density regressor: .* is missing"):
        open_persense(path)
    write(path, sam)
    sam.unlink()
    with pytest.raises(CheckpointError, match="its base"):
        open_persense(path)


@pytest.mark.parametrize(("kind", "error"), [("fluorescence", 0.15), ("brightfield", 0.3)])
def test_what_ships_counts_generated_nuclei(kind, error):
    image, labels = synthetic_image((384, 384), mpp=0.4, seed=5, kind=kind)
    if kind == "fluorescence":
        image = np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    loaded = open_persense()
    assert loaded.card["name"] == "persense-v1"
    scene = Scene(np.ascontiguousarray(image))
    numbers, area = np.unique(labels, return_counts=True)
    middle = numbers[1:][np.argsort(area[1:])[len(area) // 2]]
    y, x = np.nonzero(labels == middle)
    box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float64)
    found = RegressedDensity.of(loaded).density(scene, [Exemplar(scene, box, area=float(len(x)))])
    assert found.count == pytest.approx(len(numbers) - 1, rel=error)
    assert found.map.shape == labels.shape
    assert found.map[labels > 0].sum() > 0.8 * found.count
