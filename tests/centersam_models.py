"""A CenterSAM whose detector finds what is painted: its weights are set by hand.

A painted pixel, the first of a grid cell, names an object whose centre lies in the middle of that cell: red is the
score, green and blue are the width and height of its box. SAM has random weights, or has seen some discs.
"""

import torch
from torch.nn import functional as F

from gigaseg.sam.checkpoints import read_state, write_delta, write_state
from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import build
from gigaseg.sam.prompting import box_sets
from gigaseg.segmenters.centersam.detector import STRIDE, DetectorConfig, build_detector
from samples import SIZES, write_random_sam

PAINTED = DetectorConfig(
    classes=("nucleus",), embedding=SIZES.prompt_dim, patch=SIZES.patch, width=8,
    pixel_mean=(0.0, 0.0, 0.0), pixel_std=(255.0, 255.0, 255.0),
)  # fmt: skip

_SLOPE, _BIAS, _LONGEST = 16.0, -8.0, 256.0


def painted_detector(config=PAINTED):
    """Every convolution passes the middle of its window on, or nothing; the heat of further classes is 0.1."""
    detector = build_detector(config).eval()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if parameter.ndim > 1 or name.endswith("bias"):
                parameter.zero_()
        for name, module in detector.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)
            elif isinstance(module, torch.nn.Conv2d) and name in ("fine.0.0", "image.0.0"):
                for i in range(3):
                    module.weight[i, i, 1, 1] = 1
        for name, channel, rows in (("heat", 0, [0]), ("size", 1, [0, 1])):
            first, last = getattr(detector.heads, name)[0], detector.heads.last(name)
            for row in rows:
                first.weight[row, channel + row, 1, 1] = 1
                last.weight[row, row] = _SLOPE if name == "heat" else _LONGEST / STRIDE
        detector.heads.last("heat").bias.fill_(-2.19)
        detector.heads.last("heat").bias[0] = _BIAS
        detector.heads.last("offset").bias.fill_(0.5)
    return detector


def write_painted(path, base, *, threshold=0.3, config=PAINTED, changed=None, detector=None, **card):
    """Write a checkpoint of the painted detector over SAM checkpoint `base`, which is written too if it is missing."""
    if not base.is_file():
        write_random_sam(base)
    state = {**read_state(base)[0], **(changed or {})}
    state |= {f"detector.{k}": v for k, v in (detector or painted_detector(config)).state_dict().items()}
    card = {"method": "centersam", "detector": config.as_dict(), "threshold": threshold, **card}
    write_delta(path, state, base, card)
    return path


def score_of(red):
    """Score of an object painted with this red, 0..255."""
    return 1 / (1 + 2.718281828459045 ** -(_SLOPE * red / 255 + _BIAS))


def paint(side, objects, ground=None):
    """A tile (3, side, side) uint8 with objects of (column, row, red, width, height): the cell, and the box in px.

    `ground` is what the other pixels show; the first pixel of each cell, which alone the detector sees, stays black.
    """
    tile = torch.zeros(3, side, side, dtype=torch.uint8) if ground is None else ground.clone()
    tile[:, ::STRIDE, ::STRIDE] = 0
    for column, row, red, width, height in objects:
        tile[:, STRIDE * row, STRIDE * column] = torch.tensor([red, width, height], dtype=torch.uint8)
    return tile


def box_of(column, row, width, height):
    """The box, in px, of an object painted with width and height 0..255: of 256 px at 255."""
    w, h = (_LONGEST * value / 255 for value in (width, height))
    x, y = STRIDE * (column + 0.5), STRIDE * (row + 0.5)
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def discs(side, objects):
    """The ellipses that fill the boxes of painted objects, (n, side, side) bool."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    found = torch.zeros(len(objects), side, side, dtype=torch.bool)
    for i, (column, row, _, width, height) in enumerate(objects):
        x0, y0, x1, y1 = box_of(column, row, width, height)
        found[i] = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1
    return found


def scene(side, objects):
    """A tile with painted objects and what they name: light ellipses on a dark ground."""
    ground = 30 + 170 * discs(side, objects).any(0).to(torch.uint8)
    return paint(side, objects, ground.expand(3, -1, -1))


def write_learnt_sam(path, steps=180):
    """Write a tiny SAM that outlines the ellipse in its box, after some seconds of training on scenes of 64 px."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    model = build(SIZES).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)

    def objects():
        """One in each quarter."""
        spans = ((2, 6), (2, 6), (100, 256), (12, 26), (12, 26))
        drawn = [[int(torch.randint(*span, (1,), generator=rng)) for span in spans] for _ in range(4)]
        return [(c + 8 * (i % 2), r + 8 * (i // 2), red, w, h) for i, (c, r, red, w, h) in enumerate(drawn)]

    for _ in range(steps):
        several = [objects(), objects()]
        images = torch.stack([scene(64, some) for some in several])
        boxes = torch.tensor([box_of(c, r, w, h) for some in several for c, r, _, w, h in some])
        truth = F.avg_pool2d(torch.cat([discs(64, some) for some in several]).float()[:, None], 2)
        sets = box_sets(torch.arange(2).repeat_interleave(4), boxes)
        logits = decode(model, encode(model.image_encoder, normalise(images, SIZES)), sets).logits
        p = logits.sigmoid()
        dice = 2 * (p * truth).sum((1, 2, 3)) / (p + truth).sum((1, 2, 3))
        loss = F.binary_cross_entropy_with_logits(logits, truth) + 1 - dice.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    write_state(path, model.state_dict(), {"config": SIZES.as_dict()})
    return model.eval()
