"""Small training images that the tests make."""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits

from gigaseg.train.batches import collate
from gigaseg.train.crops import random_crop
from gigaseg.train.data import Sample


def discs(seed, side=96, count=6, radius=9):
    """An image of bright discs on dark ground with its label image; discs may touch, later ones lie on top."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number in range(1, count + 1):
        cy, cx = rng.uniform(radius, side - radius, 2)
        labels[(x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 < radius**2] = number
    image = np.full((side, side, 3), 20, np.uint8)
    image[labels > 0] = (40, 180, 90)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), labels


def sample(seed, **keys):
    image, labels = discs(seed, **keys)
    area = np.bincount(labels.ravel())[1:]
    diameter = float(np.median(2 * np.sqrt(area[area > 0] / np.pi)))
    return Sample(f"s{seed}", "ab"[seed % 2], image, labels, diameter, np.array([20, 20, 20], np.uint8))


class Foreground:
    """The least method: one convolution that predicts the foreground; nothing about it is random."""

    name = "foreground"
    base = None
    drops = ()

    def __init__(self, crop=32, scores=None):
        self.crop = crop
        self.scores = list(scores or [])

    def build(self):
        return torch.nn.Conv2d(3, 1, 3, padding=1)

    def groups(self, model):
        return [{"params": [model.weight]}, {"params": [model.bias], "scale": 0.5, "weight_decay": 0.0}]

    def prepare(self, sample, rng):
        return random_crop(sample, self.crop, rng, (10, 14))

    def collate(self, items, rng):
        return collate(items, 4, rng)

    def losses(self, model, batch, rng):
        logits = model(batch.images / 255)[:, 0]
        return {"loss": binary_cross_entropy_with_logits(logits, (batch.labels > 0).float())}

    def validate(self, model, samples):
        return {"score": self.scores.pop(0) if self.scores else float(model.weight.detach().abs().sum())}

    def exported(self, values):
        return dict(values)

    def card(self):
        return {"crop": self.crop}


def write_discs(folder, splits=("train", "val", "val")):
    """Write a data set of the plain layout: an image of three discs, s0 and so on, for each of the splits."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for seed in range(len(splits)):
        image, labels = discs(seed, side=64, count=3)
        Image.fromarray(image).save(folder / "images" / f"s{seed}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / "labels" / f"s{seed}.png")
    rows = [f"s{seed}\t{split}\n" for seed, split in enumerate(splits)]
    (folder / "index.tsv").write_text("".join(["image\tsplit\n", *rows]))
