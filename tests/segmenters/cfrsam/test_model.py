"""The second stage as a whole: parameter counts of the paper, and masks that do not depend on how they are computed."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cfrsam_models import shaken
from gigaseg.errors import CheckpointError
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.decoder import Decoded, decode
from gigaseg.sam.encoder import encode
from gigaseg.sam.model import build
from gigaseg.sam.prompting import embed_prompts, point_sets
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.model import Added, Refiner, around, coarse, encode_images, reach, refined
from gigaseg.segmenters.cfrsam.refine import Refinement
from sam_models import TINY, random_model

DECODER = 4_058_340
"""Parameters of the mask decoder of every published SAM; all of it trains."""


def size(module):
    return sum(p.numel() for p in module.parameters())


def added(name="vit_b", **changes):
    with torch.device("meta"):
        return Added(CfrSamConfig(**changes), CONFIGS[name])


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("vit_b", {"unused": True}, 8_280_491),  # 8.3 M in the paper
        ("vit_b", {}, 8_275_834),
        ("vit_b", {"unused": True, "rank": 16}, 5_556_011),  # 5.6
        ("vit_b", {"unused": True, "rank": 32}, 6_451_883),  # 6.5
        ("vit_b", {"unused": True, "rank": 128}, 12_085_163),  # 12.1
        ("vit_b", {"unused": True, "kernels": "none"}, 4_578_275),  # 4.6
        ("vit_b", {"unused": True, "kernels": "static"}, 7_263_203),  # 7.3
        ("vit_b", {"unused": True, "fusion": "last"}, 8_016_299),  # 8.0
        ("vit_b", {"unused": True, "fusion": "add"}, 8_016_299),
        ("vit_b", {"unused": True, "fusion": "average"}, 8_016_299),
        ("vit_b", {"unused": True, "fusion": "concat"}, 8_278_443),  # 8.3
        ("vit_b", {"refinement": "none"}, 8_024_748),  # 8.0
        ("vit_b", {"refinement": "mlp"}, 8_302_381),  # 8.3
        ("vit_h", {"unused": True}, 18_808_995),  # 19.1 in the paper, which nobody has explained
    ],
)
def test_as_many_parameters_train_as_in_the_paper(name, changes, count):
    assert size(added(name, **changes)) + DECODER == count


def test_the_decoder_is_counted_whole():
    assert size(build(CONFIGS["vit_b"], "meta").mask_decoder) == DECODER


def test_parts_are_as_large_as_the_published_ones():
    stage = added(unused=True)
    net = stage.refine
    counts = {
        "adapters": 24 * 154_259, "fusion": 264_192, "from embedding": 166_080, "image": 928, "enhancement": 4_384,
        "fuse and up": 37_056, "guidance": 20_721, "boundary": 593, "refinement": 7_387, "mask": 13_937,
        "unused": 4_657,
    }  # fmt: skip
    parts = {
        "adapters": [stage.mala], "fusion": [stage.fusion], "from embedding": [net.from_embedding],
        "image": [net.image], "enhancement": [net.enhance], "fuse and up": [net.fuse, net.ups],
        "guidance": [net.squeeze, net.deform, net.attend, net.join], "boundary": [net.boundary],
        "refinement": [net.narrow, net.follow, net.widen], "mask": [net.mask], "unused": [net.unused],
    }  # fmt: skip
    assert {name: sum(map(size, some)) for name, some in parts.items()} == counts
    assert sum(counts.values()) == size(stage)


def test_an_encoder_too_shallow_for_four_levels_is_told():
    with pytest.raises(CheckpointError, match="a SAM of 2 blocks, accepted with fused levels: at least 4"):
        Added(CfrSamConfig(rank=4), replace(TINY, depth=2, global_blocks=(1,)))
    Added(CfrSamConfig(rank=4, fusion="last"), replace(TINY, depth=2, global_blocks=(1,)))


@pytest.fixture(scope="module")
def sam():
    return random_model(TINY).eval()


def stage_of(seed=0, **changes):
    torch.manual_seed(seed)
    return shaken(Added(CfrSamConfig(rank=4, **changes), TINY), seed).eval()


@pytest.fixture(scope="module")
def stage():
    return stage_of()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def prompts(n, seed=0, images=2):
    places = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([64.0, 96.0])
    return point_sets(torch.arange(n) * images // max(n, 1), places)


def masks_of(sam, stage, pixels, sets, window=None, **options):
    """Refined masks of all prompts in their order, as `Refiner` gives them piece by piece."""
    with torch.no_grad():
        seen = encode_images(sam, stage, pixels)
        decoded = decode(sam, seen.encoded, sets, window=window, features=True)
        pieces = list(Refiner(stage, seen.maps, **options)(decoded, sets.image))
    return decoded, pieces


def joined(pieces):
    order = torch.cat([at for at, _ in pieces])
    assert sorted(order.tolist()) == list(range(len(order)))
    return torch.cat([part.logits for _, part in pieces])[order.argsort()]


def test_what_is_fused_are_levels_through_sam_s_own_neck(sam, pixels):
    """With adapters that add nothing and no fusion it is SAM's embedding; with "add" the sum of four."""
    with torch.no_grad():
        bare = Added(CfrSamConfig(rank=4, fusion="last"), TINY).eval()
        plain = encode(sam.image_encoder, pixels).embedding
        torch.testing.assert_close(encode_images(sam, bare, pixels).encoded.embedding, plain, rtol=1e-5, atol=1e-5)
        whole = encode_images(sam, Added(CfrSamConfig(kernels="none", fusion="add"), TINY).eval(), pixels)
        rest = whole.encoded.embedding - plain
        hidden = encode(sam.image_encoder, pixels, hidden=(0, 1, 2)).hidden[1:]
        expected = sum(sam.image_encoder.neck(x.permute(0, 3, 1, 2)) for x in hidden)
        torch.testing.assert_close(rest, expected, rtol=1e-4, atol=1e-4)


def test_one_point_makes_seven_tokens(sam):
    sparse, _ = embed_prompts(sam, prompts(8), (96, 64))
    decoder = sam.mask_decoder
    assert sparse.shape == (8, 2, TINY.prompt_dim)
    assert len(decoder.iou_token.weight) + len(decoder.mask_tokens.weight) + sparse.shape[1] == 7


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("local", [0, 32])
def test_masks_do_not_depend_on_how_many_are_refined_at_a_time(sam, stage, pixels, window, local):
    sets = prompts(9)
    found = {}
    for chunk in (1, 7, 9, None):
        _, pieces = masks_of(sam, stage, pixels, sets, window, local=local, chunk=chunk)
        assert max(len(at) for at, _ in pieces) <= (chunk or 9)
        found[chunk] = {int(i): part.logits[k] for at, part in pieces for k, i in enumerate(at)}
        assert sorted(found[chunk]) == list(range(9))
    for chunk in (1, 7, None):
        for i in range(9):
            torch.testing.assert_close(found[chunk][i], found[9][i], rtol=1e-4, atol=1e-4)


def test_images_of_a_batch_are_refined_as_if_alone(sam, stage, pixels):
    """Three prompts on one image and one on the other."""
    sets = replace(prompts(4), image=torch.tensor([0, 0, 0, 1]))
    together = joined(masks_of(sam, stage, pixels, sets)[1])
    first = joined(masks_of(sam, stage, pixels[:1], sets[torch.arange(3)])[1])
    second = replace(sets[torch.tensor([3])], image=torch.tensor([0]))
    torch.testing.assert_close(together[:3], first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[3:], joined(masks_of(sam, stage, pixels[1:], second)[1]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[2], together[3], atol=1e-2)


def test_no_prompts_give_no_masks(sam, stage, pixels):
    for local in (0, 32):
        _, pieces = masks_of(sam, stage, pixels, prompts(0), local=local)
        assert pieces == []


def test_masks_are_at_the_input_s_resolution_in_their_windows(sam, stage, pixels):
    sets = prompts(5)
    decoded, pieces = masks_of(sam, stage, pixels, sets, 4)
    (found,) = [part for _, part in pieces]
    assert stage.fine == 2
    assert decoded.logits.shape == (5, 1, 16, 16)
    assert found.logits.shape == (5, 1, 32, 32)
    assert torch.equal(found.origin, 2 * decoded.origin)
    assert torch.equal(found.quality, decoded.quality)
    assert found.features is None


@torch.no_grad()
def test_a_window_is_refined_with_its_own_part_of_the_image(sam, stage, pixels):
    """A change of the image far outside a window leaves its mask; one inside does not."""
    sets = prompts(1, images=1)
    seen = encode_images(sam, stage, pixels[:1])
    decoded = decode(sam, seen.encoded, sets, window=4, features=True)
    x, y = (2 * decoded.origin[0]).tolist()
    start = refined(stage, decoded, seen.maps, sets.image)[0].logits
    for (row, col), changed in (((y + 16, x + 16), True), (((y + 60) % 96, x + 16), False)):
        detail = seen.maps.detail.clone()
        detail[:, :, row, col] += 5
        other = refined(stage, decoded, replace(seen.maps, detail=detail), sets.image)[0].logits
        inside = y <= row < y + 32 and x <= col < x + 32
        assert inside is changed
        assert torch.equal(other, start) is not changed


def test_with_the_coarse_mask_as_base_it_begins_as_sam_s(sam, pixels):
    stage = stage_of(base="coarse")
    with torch.no_grad():
        for p in stage.refine.mask[-1].parameters():
            p.zero_()
    decoded, pieces = masks_of(sam, stage, pixels, prompts(5))
    assert torch.equal(joined(pieces), coarse(decoded.logits, 2))
    expected = F.interpolate(decoded.logits, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(coarse(decoded.logits, 2), expected)


def test_without_a_refinement_there_is_nothing_to_refine_with(sam, pixels):
    stage = stage_of(refinement="none")
    assert stage.fine == 1
    with torch.no_grad():
        seen = encode_images(sam, stage, pixels)
        assert seen.maps is None
        with pytest.raises(ValueError, match="nothing refines"):
            refined(stage, decode(sam, seen.encoded, prompts(2)), seen.maps, torch.zeros(2, dtype=torch.int64))


@torch.no_grad()
def test_in_a_square_around_it_a_mask_is_the_one_of_its_whole_window():
    """Up to `reach` px inside, which its convolutions do not reach beyond; what does not fit is refined whole."""
    stage = stage_of()
    net: Refinement = stage.refine
    net.mask[-1].bias.fill_(-100)  # no mask reaches the edge of its square, which would be refined in a larger one
    generator = torch.Generator().manual_seed(0)
    side = 128
    pixels = torch.randn(1, 3, side, side, generator=generator)
    maps = net.images(pixels, torch.randn(1, 32, side // 8, side // 8, generator=generator))
    logits = torch.full((3, 1, side // 2, side // 2), -3.0)
    logits[0, 0, 30:34, 26:32] = 3  # small, in the middle
    logits[1, 0, 2:60, 20:30] = 3  # too long
    logits[2, 0, :3, 60:] = 3  # small, in a corner
    features = torch.randn(3, 4, side // 2, side // 2, generator=generator)
    image = torch.zeros(3, dtype=torch.int64)
    decoded = Decoded(logits, torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1), features)
    whole = joined(list(Refiner(stage, maps, 0)(decoded, image)))
    pieces = {int(i): (part, k) for at, part in Refiner(stage, maps, 80)(decoded, image) for k, i in enumerate(at)}
    assert sorted(pieces) == [0, 1, 2]
    assert [tuple(pieces[i][0].logits.shape[2:]) for i in range(3)] == [(80, 80), (128, 128), (80, 80)]
    for i, (part, k) in pieces.items():
        x, y = part.origin[k].tolist()
        rows, cols = part.logits.shape[2:]
        margin = reach(stage.fine)
        y0, x0 = (0 if start == 0 else margin for start in (y, x))
        y1, x1 = (n if start + n == side else n - margin for start, n in ((y, rows), (x, cols)))
        assert x1 > x0 + 16
        assert y1 > y0 + 16
        expected = whole[i, 0, y + y0 : y + y1, x + x0 : x + x1]
        torch.testing.assert_close(part.logits[k, 0, y0:y1, x0:x1], expected, rtol=1e-4, atol=1e-4)
    assert pieces[2][0].origin[pieces[2][1]].tolist() == [48, 0]


def test_squares_hold_masks_and_margins():
    logits = torch.full((5, 20, 30), -1.0)
    logits[0, 8:12, 10:14] = 1  # in the middle
    logits[1, :3, 27:] = 1  # in a corner, where no margin is needed
    logits[2, 5:7, 4:20] = 1  # 16 wide
    logits[3, 4:10, 11:19] = 1  # 8 wide
    start, fits = around(logits, (10, 12), 2)
    assert start.tolist() == [[6, 5], [18, 0], [6, 1], [9, 2], [9, 5]]
    assert fits.tolist() == [True, True, False, True, True]
    assert around(logits, (10, 12), 3)[1].tolist() == [True, True, False, False, True]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_square_that_fits_holds_what_is_positive_with_its_margin(data):
    size = data.draw(st.tuples(st.integers(4, 24), st.integers(4, 24)))
    shape = tuple(data.draw(st.integers(2, n)) for n in size)
    margin = data.draw(st.integers(0, 4))
    logits = torch.full((1, *size), -1.0)
    for _ in range(data.draw(st.integers(0, 3))):
        logits[0, data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))] = 1
    start, fits = around(logits, shape, margin)
    mirrored, same = around(logits.flip(2), shape, margin)
    for axis in range(2):
        k = 1 - axis
        first, room = int(start[0, k]), size[axis] - shape[axis]
        assert 0 <= first <= room
        on = torch.nonzero(logits[0] > 0)[:, axis]
        if len(on) and fits:
            assert first == 0 or int(on.min()) - first >= margin
            assert first == room or first + shape[axis] - 1 - int(on.max()) >= margin
    # to the next px the mirror image has the mirrored square
    assert abs(int(mirrored[0, 0]) - (size[1] - shape[1] - int(start[0, 0]))) <= 1
    assert int(mirrored[0, 1]) == int(start[0, 1])
    spans = [torch.nonzero(logits[0] > 0)[:, axis] for axis in range(2)]
    if all(len(on) and int(on.max() - on.min()) + 2 + 2 * margin <= n for on, n in zip(spans, shape)):
        assert bool(fits)
        assert bool(same)
