"""A checkpoint of a tiny SAM model with random weights: too small to segment anything, whole in every part."""

from dataclasses import replace

import torch

from gigaseg.sam.checkpoints import write_state
from sam_models import TINY, random_model

SIZES = replace(TINY, image_size=128)


def write_random_sam(path, quality=(0.4, 0.6)):
    """Write the checkpoint, with the sizes on its card; returns the model. Its predicted IoUs lie about `quality`."""
    model = random_model(SIZES)
    with torch.no_grad():
        last = model.mask_decoder.iou_prediction_head.layers[-1]
        last.weight *= 0.1
        last.bias.copy_(torch.linspace(*quality, len(last.bias)))
    write_state(path, model.state_dict(), {"config": SIZES.as_dict()})
    return model
