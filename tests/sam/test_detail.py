"""Detail reaches every mask of its image, at the place it belongs to and through the mask's own token."""

import pytest
import torch

from gigaseg.sam.backend import Backend
from gigaseg.sam.decoder import Decoded, decode
from gigaseg.sam.detail import with_detail
from gigaseg.sam.encoder import encode
from gigaseg.sam.masks import best
from gigaseg.sam.prompting import box_sets
from sam_models import TINY, random_model


def decoded_of(tokens, origin, side):
    n, m, _ = tokens.shape
    return Decoded(torch.ones(n, m, side, side), torch.tensor(origin), torch.zeros(n, m), tokens=tokens)


def test_each_mask_gets_its_tokens_product_with_the_detail_of_its_image_and_window():
    detail = torch.zeros(2, 3, 4, 6)
    detail[1, :, 2, 5] = torch.tensor([1.0, 2.0, 3.0])  # image 1, row 2, column 5
    tokens = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 2], [1, 1, 1]]])
    found = with_detail(decoded_of(tokens, [[4, 2], [3, 1]], 2), detail, torch.tensor([1, 1])).logits
    expected = torch.ones(2, 2, 2, 2)
    expected[0, :, 0, 1] += torch.tensor([1.0, 2.0])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1]), "column 5 lies beyond the window of columns 3 and 4"
    other = with_detail(decoded_of(tokens, [[4, 2], [4, 1]], 2), detail, torch.tensor([0, 1])).logits
    assert torch.equal(other[0], torch.ones(2, 2, 2)), "image 0 has none"
    assert other[1, :, 1, 1].tolist() == [7.0, 7.0]


def test_without_detail_or_prompts_nothing_changes():
    decoded = decoded_of(torch.ones(1, 1, 3), [[0, 0]], 2)
    assert with_detail(decoded, None, torch.tensor([0])) is decoded
    none = decoded_of(torch.ones(0, 1, 3), torch.zeros(0, 2).long().tolist(), 2)
    assert len(with_detail(none, torch.ones(1, 3, 4, 4), torch.zeros(0).long()).logits) == 0


def test_features_added_before_the_product_are_the_same_as_detail_after_it():
    model = random_model(TINY)
    images = torch.randn(1, 3, 96, 96)
    sets = box_sets(torch.tensor([0, 0]), torch.tensor([[8.0, 8, 40, 40], [50, 30, 90, 80]]))
    with torch.no_grad():
        decoded = decode(model, encode(model.image_encoder, images), sets, features=True)
        detail = torch.randn(1, 4, 48, 48)
        both = torch.einsum("nmc,nchw->nmhw", decoded.tokens, decoded.features + detail)
        found = with_detail(decoded, detail, sets.image).logits
    torch.testing.assert_close(found, both, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 6])
def test_strong_detail_overrules_sam_within_its_window(window):
    model = random_model(TINY)
    backend = Backend.from_model(model, TINY, {}, "cpu", precision="fp32")
    images = torch.randint(0, 256, (1, 3, 96, 96)).to(torch.uint8)
    sets = box_sets(torch.zeros(1, dtype=torch.int64), torch.tensor([[36.0, 36, 60, 60]]))
    encoded = backend.encode(images)
    token = backend.decode(encoded, sets, (96, 96), window=window).tokens[0, 0]
    detail = torch.zeros(1, 4, 48, 48)
    detail[0, :, :, :24] = 1e4 * token[:, None, None]  # x < 48
    detail[0, :, :, 24:] = -1e4 * token[:, None, None]
    masks = backend.masks(encoded, sets, (96, 96), window=window, grow=False, detail=detail)
    (x0, y0, x1, y1), (mask,) = masks.boxes[0].tolist(), masks.unpack()
    assert x1 == 48
    assert bool(mask.all())
    assert (x0, y0, y1) == ((0, 0, 96) if window is None else (24, 24, 72)), "6 cells of 8 px about (48, 48)"


def test_the_best_of_several_masks_keeps_its_token():
    tokens = torch.arange(12.0).view(2, 3, 2)
    decoded = Decoded(torch.zeros(2, 3, 4, 4), torch.zeros(2, 2).long(), torch.tensor([[0.1, 0.9, 0], [0.3, 0, 0.2]]))
    assert best(decoded).tokens is None
    found = best(Decoded(decoded.logits, decoded.origin, decoded.quality, tokens=tokens))
    assert found.tokens.tolist() == [[[2.0, 3.0]], [[6.0, 7.0]]]
