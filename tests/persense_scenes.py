"""Pictures whose objects PerSense is to find when it is shown one of them."""

import numpy as np
from PIL import Image

SIDE = 256
RADIUS = 13
"""Px: an exemplar of this size is seen as it is."""

PLACES = [(40, 40), (130, 48), (60, 130), (200, 110), (140, 170), (210, 35), (35, 215), (205, 210)]


def discs(places=PLACES, side=SIDE, radius=RADIUS, seed=0, ground=25, shade=170):
    """Image (side, side, 3) uint8 of soft bright discs about x, y on a dark ground, and its label image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] + 0.5
    image, labels = np.full((side, side), float(ground)), np.zeros((side, side), np.int32)
    for number, (cx, cy) in enumerate(places, 1):
        depth = radius - np.hypot(x - cx, y - cy)
        image = np.maximum(image, ground + (shade - ground) * np.clip(depth / 3 + 0.5, 0, 1))
        labels[depth > 0] = number
    image += rng.normal(0, 3, image.shape)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), labels


def write_picture(path, image, mask):
    """An exemplar of the sheet: picture and NAME_mask.png."""
    Image.fromarray(image).save(path)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path.with_name(f"{path.stem}_mask.png"))
