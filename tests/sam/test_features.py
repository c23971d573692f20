"""Both metrics have known values, and a layer's features are those of the reference module."""

import pytest
import torch

from gigaseg.errors import ConfigError
from gigaseg.sam.backend import Backend
from gigaseg.sam.features import choose_layers, global_map, layer_features, local_map
from sam_models import TINY, random_model


def test_the_local_map_is_the_variance_over_channels():
    features = torch.zeros(2, 3, 4)
    features[0, 1] = torch.tensor([1.0, 1, 3, 3])
    features[1, 2] = 7.0  # one value in all channels
    assert local_map(features).tolist() == [[0, 1, 0], [0, 0, 0]]


def test_the_global_map_is_one_for_the_same_direction_and_zero_for_an_orthogonal_one():
    features = torch.zeros(2, 3, 4)
    features[..., 0] = 2.0
    features[0, 2] = torch.tensor([5.0, 0, 0, 0])
    features[1, 0] = torch.tensor([0.0, 3, 0, 0])
    features[1, 1] = torch.tensor([-1.0, 0, 0, 0])
    features[1, 2] = torch.tensor([1.0, 1, 0, 0])
    found = global_map(features, (0, 0))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1, 1], [0, -1, 0.5**0.5]]))
    several = global_map(features, torch.tensor([[0, 0], [1, 0]]))
    assert several.shape == (2, 2, 3)
    assert torch.equal(several[0], found)
    torch.testing.assert_close(several[1, 1], torch.tensor([1.0, 0, 0.5**0.5]))


def test_similarities_stay_in_their_range():
    features = torch.randn(9, 7, 33) * torch.logspace(-3, 3, 33)
    tokens = torch.cartesian_prod(torch.arange(9), torch.arange(7))
    found = global_map(features, tokens)
    assert found.abs().max() <= 1
    assert (found.reshape(63, 63).diagonal() - 1).abs().max() <= 1e-6
    torch.testing.assert_close(found.reshape(63, 63), found.reshape(63, 63).T, rtol=0, atol=1e-6)


def test_features_of_every_layer_equal_the_reference_modules():
    model = random_model(TINY)
    seen = {}
    handles = [
        block.register_forward_hook(lambda module, inputs, out, name=str(index): seen.__setitem__(name, out[0]))
        for index, block in enumerate(model.image_encoder.blocks)
    ]
    image = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (TINY.pixel_mean, TINY.pixel_std))
    with torch.inference_mode():
        pixels = (image.permute(2, 0, 1) - mean) / std
        neck = model.image_encoder(pixels[None])[0]
        patch = (model.image_encoder.patch_embed(pixels[None]) + model.image_encoder.pos_embed)[0]
    for handle in handles:
        handle.remove()
    seen |= {"patch": patch, "neck": neck.permute(1, 2, 0)}
    backend = Backend.from_model(model, TINY, {}, precision="fp32")
    names = choose_layers(TINY, ["neck", "3", "0", "2", "patch", "1"])
    found = layer_features(backend, image.numpy(), names)
    assert list(found) == ["patch", "0", "1", "2", "3", "neck"]
    for name, features in found.items():
        torch.testing.assert_close(features, seen[name], rtol=0, atol=5e-5)
        torch.testing.assert_close(local_map(features), seen[name].var(-1, correction=0), rtol=1e-4, atol=1e-5)
    assert list(layer_features(backend, image.numpy(), ["2"])) == ["2"]
    assert torch.equal(layer_features(backend, image.numpy(), ["2"])["2"], found["2"])


def test_layers_by_default_are_the_patch_embedding_the_global_blocks_and_the_neck():
    assert choose_layers(TINY) == ("patch", "1", "3", "neck")
    with pytest.raises(ConfigError, match="--layers: unknown layer '4'; accepted: patch, 0, 1, 2, 3, neck"):
        choose_layers(TINY, ["1", "4"])
