"""Features of a frozen encoder on disk."""

import pytest
import torch

from gigaseg.sam.encoder import encode
from gigaseg.train.densesam.cache import FeatureCache
from sam_models import TINY, random_model


@pytest.fixture
def images():
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counted():
    """An encoder, and how many images it has seen."""
    model = random_model(TINY)
    seen = []

    def run(some):
        seen.append(len(some))
        with torch.no_grad():
            return encode(model.image_encoder, some, hidden=True)

    return run, seen


def test_what_is_read_is_bit_for_bit_what_was_computed(images, counted, tmp_path):
    run, seen = counted
    cache = FeatureCache(tmp_path / "cache", "w", (0, 1))
    first = cache.encode(images, run)
    assert sum(seen) == 3
    again = cache.encode(images.flip(0), run)
    assert sum(seen) == 3  # nothing was computed again
    direct = run(images)
    assert torch.equal(again.embedding.flip(0), first.embedding)
    assert torch.allclose(first.embedding, direct.embedding, atol=1e-5)
    for one, two, three in zip(first.hidden, again.hidden, direct.hidden):
        assert torch.equal(one, two.flip(0))
        assert torch.allclose(one, three, atol=1e-5)


def test_views_weights_layers_and_precision_are_told_apart(images, counted, tmp_path):
    run, seen = counted
    folder = tmp_path / "cache"
    FeatureCache(folder, "w", (1,)).encode(images[:1], run)
    for cache, view in (
        (FeatureCache(folder, "w", (1,)), images[:1].flip(3)),
        (FeatureCache(folder, "w", (1,)), images[:1].transpose(2, 3)),
        (FeatureCache(folder, "v", (1,)), images[:1]),
        (FeatureCache(folder, "w", (0, 1)), images[:1]),
        (FeatureCache(folder, "w", (1,)), images[:1] * (1 + 1e-6)),
    ):
        before = sum(seen)
        cache.encode(view.contiguous(), run)
        assert sum(seen) == before + 1
    before = sum(seen)
    with torch.autocast("cpu", torch.bfloat16):
        FeatureCache(folder, "w", (1,)).encode(images[:1], run)
    assert sum(seen) == before + 1


def test_a_damaged_file_is_computed_again(images, counted, tmp_path):
    run, seen = counted
    cache = FeatureCache(tmp_path, "w", (1,))
    expected = cache.encode(images[:1], run)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cache.encode(images[:1], run).embedding, expected.embedding)
    assert sum(seen) == 2


def test_layers_that_are_not_kept_are_not_there(images, counted, tmp_path):
    found = FeatureCache(tmp_path, "w", (1,)).encode(images, counted[0])
    assert [tuple(x.shape) for x in found.hidden] == [(0,), (3, 6, 6, 64)]
    assert FeatureCache(tmp_path, "w", ()).encode(images, counted[0]).hidden == ()
