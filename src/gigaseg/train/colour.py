"""Colour, blur and noise of a batch of crops: the photometric half of augmentation, ours and CenterNet's.

kornia does what it has: its operators take one factor an image, run where the tensors are, need nothing beyond torch,
and are small enough to be carried to a bare machine. Stain jitter is ours, since kornia knows no stains. Random numbers
come from the caller, so that a step's augmentation follows from its number alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gigaseg.train.config import ColourConfig

# Optical densities (rows R, G, B) of haematoxylin, eosin and the residual, unit vectors:
# Ruifrok and Johnston 2001, Anal. Quant. Cytol. Histol. 23:291, as scikit-image's rgb_from_hed states them.
_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))

# Of R, G, B in the brightness of a pixel: ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)

# Eigenvalues, and eigenvectors as columns (rows R, G, B), of the covariance of ImageNet's colours on the scale 0..1.
# CenterNet's code lists the rows as B, G, R, the order of the images that it reads.
_EIGENVALUES = (0.2141788, 0.01817699, 0.00341571)
_EIGENVECTORS = (
    (-0.56089297, 0.71832671, 0.41158938),
    (-0.5832747, 0.00994535, -0.81221408),
    (-0.58752847, -0.69563484, 0.41340352),
)


def vary(images: Tensor, rng: np.random.Generator, config: ColourConfig) -> Tensor:
    """Vary the colours of a batch.

    Parameters
    ----------
    images : (b, 3, y, x) float, 0..255.
    rng : source of all parameters; the noise itself comes from a generator seeded by it.

    Returns
    -------
    (b, 3, y, x) float, 0..255.
    """
    from kornia.enhance import adjust_gamma, adjust_saturation
    from kornia.filters import gaussian_blur2d

    b = len(images)

    def normal(sd: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(0, sd, shape)).to(images)

    def chosen(chance: float) -> Tensor:
        return torch.from_numpy(np.flatnonzero(rng.random(b) < chance)).to(images.device)

    x = images / 255
    rows = chosen(config.stretch)
    if len(rows):
        values = x[rows][:, :, ::4, ::4].flatten(1)
        ends = torch.quantile(values, values.new_tensor([0.005, 0.998]), dim=1).view(2, -1, 1, 1, 1)
        x[rows] = ((x[rows] - ends[0]) / (ends[1] - ends[0]).clamp(min=0.02)).clamp(0, 1)
    x = stain_jitter(x, normal(config.stain, b, 3).exp(), normal(config.stain / 10, b, 3))
    x = adjust_gamma(x.clamp(1e-4, 1), normal(config.gamma, b).exp())
    factors = torch.from_numpy(rng.uniform(1 - config.saturation, 1 + config.saturation, b)).to(images)
    x = adjust_saturation(x, factors)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * normal(config.gain, b, 1, 1, 1).exp() + mean
    x = x + normal(config.shift, b, 1, 1, 1) + normal(config.channel, b, 3, 1, 1)
    x = x.clamp(0, 1)
    for row in chosen(config.permute):
        x[row] = x[row][torch.from_numpy(rng.permutation(3)).to(images.device)]
    rows = chosen(config.grey)
    x[rows] = (x[rows] * x.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    rows = chosen(config.invert)
    x[rows] = 1 - x[rows]
    rows = chosen(config.blur)
    if len(rows):
        sigma = torch.from_numpy(rng.uniform(0.2, max(0.2, config.blur_sigma), len(rows))).to(images)
        x[rows] = gaussian_blur2d(x[rows], (7, 7), sigma[:, None].expand(-1, 2))
    rows = chosen(config.noise)
    source = torch.Generator(images.device).manual_seed(int(rng.integers(2**31)))
    if len(rows):
        sigma = torch.from_numpy(rng.uniform(0, config.noise_sigma, (len(rows), 1, 1, 1))).to(images)
        x[rows] += sigma * torch.randn(x[rows].shape, generator=source, device=x.device, dtype=x.dtype)
    return x.clamp(0, 1) * 255


def vary_as_centernet(
    images: Tensor,
    rng: np.random.Generator,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    lighting: float = 0.1,
) -> Tensor:
    """Vary the colours of a batch as the published code of CenterNet does (Zhou et al. 2019, after CornerNet).

    Each image is blended with black (brightness), its mean grey (contrast) and its grey image (saturation), in random
    order: f · image + (1 - f) · other, f uniform within 1 ± the given value. Both greys are those of the image as it
    came. Then one colour is added to all of its pixels, drawn along the principal components of ImageNet's colours
    (Krizhevsky et al. 2012, section 4.1).

    Parameters
    ----------
    images : (b, 3, y, x) float, 0..255.
    rng : source of all parameters.
    lighting : standard deviation of the weights of the eigenvectors times eigenvalues.

    Returns
    -------
    (b, 3, y, x) float, about 0..255: what leaves the range is not cut off, as published.
    """
    x = images / 255
    grey = (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    blends = ((brightness, torch.zeros_like(mean)), (contrast, mean), (saturation, grey))
    for i in range(len(x)):
        for k in rng.permutation(len(blends)):
            span, other = blends[k]
            factor = rng.uniform(1 - span, 1 + span)
            x[i] = factor * x[i] + (1 - factor) * other[i]
    colour = rng.normal(0, lighting, (len(x), 3)) * _EIGENVALUES @ np.transpose(_EIGENVECTORS)
    return 255 * (x + torch.from_numpy(colour).to(x)[:, :, None, None])


def stain_jitter(images: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift the stain densities of bright-background images; others come back unchanged.

    Densities s solve od = s · V for od = -log10(I) and V the unit stain vectors; the result is 10^-((s·gain + shift)·V)
    (Tellez et al. 2018, IEEE TMI 37:2126). An image counts as stained when its median brightness exceeds 0.35 and its
    mean saturation (max - min of the channels) 0.05.

    Parameters
    ----------
    images : (b, 3, y, x) float, 0..1.
    gain, shift : (b, 3), of haematoxylin, eosin and residual.
    """
    thin = images[:, :, ::4, ::4]
    bright = thin.mean(1).flatten(1).median(1).values > 0.35
    coloured = (thin.amax(1) - thin.amin(1)).flatten(1).mean(1) > 0.05
    rows = (bright & coloured).nonzero()[:, 0]
    if not len(rows):
        return images
    vectors = images.new_tensor(_HED)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    turned = torch.einsum("ij,bj,jk->bik", torch.linalg.inv(vectors), gain[rows], vectors)
    density = -images[rows].clamp(1 / 255, 1).log10()
    density = torch.einsum("bik,bihw->bkhw", turned, density) + (shift[rows] @ vectors)[:, :, None, None]
    images = images.clone()
    images[rows] = (10**-density).clamp(0, 1)
    return images
