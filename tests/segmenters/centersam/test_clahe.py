"""CLAHE brings out what is faint, without changing colours."""

import cv2
import numpy as np
import torch

from gigaseg.segmenters.centersam.clahe import clahe


def faint(seed=0):
    """A grey image of low contrast, (1, 3, 64, 64) uint8."""
    rng = np.random.default_rng(seed)
    grey = 100 + 8 * np.sin(np.arange(64) / 5)[:, None] + rng.normal(0, 2, (64, 64))
    return torch.from_numpy(grey.round().astype(np.uint8)).expand(1, 3, 64, 64).clone()


def test_grey_images_are_equalised_directly_with_the_papers_clip_and_tiles():
    image = faint()
    found = clahe(image)
    expected = cv2.createCLAHE(clipLimit=2, tileGridSize=(8, 8)).apply(image[0, 0].numpy())
    assert found.dtype == torch.uint8
    assert found.shape == image.shape
    for channel in range(3):
        assert np.array_equal(found[0, channel].numpy(), expected)
    assert found.float().std() > 1.5 * image.float().std()


def test_a_histogram_is_cut_at_twice_its_mean_height():
    """In a tile of 8 x 8 px the mean height is 64 / 256: of a constant image 1 px stays, 63 go to all bins alike."""
    constant = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    assert clahe(constant).unique().tolist() != [255], "without a cut it would be white"
    assert abs(int(clahe(constant).unique()) - 90) < 16


def test_of_colour_images_the_lightness_alone_changes():
    rng = np.random.default_rng(0)
    light = 110 + 10 * np.sin(np.arange(64) / 4)[:, None] + rng.normal(0, 1, (64, 64))
    lab = np.stack([light, np.full((64, 64), 150), np.full((64, 64), 110)], -1).round().astype(np.uint8)
    image = torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).permute(2, 0, 1)[None].contiguous()
    after = cv2.cvtColor(clahe(image)[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB).astype(int)
    before = cv2.cvtColor(image[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB).astype(int)
    assert np.abs(after - before)[..., 1:].max() <= 3, "up to rounding to 8 bits, twice"
    assert after[..., 0].std() > 1.3 * before[..., 0].std()


def test_images_of_a_batch_do_not_see_each_other():
    images = torch.cat([faint(0), faint(1) + 40])
    assert torch.equal(clahe(images)[1:], clahe(images[1:]))
    assert clahe(images[:0]).shape == (0, 3, 64, 64)
