"""segment-anything's own modules, run image by image, as what the fast path must equal; and prompts to try."""

import dataclasses

import torch

from gigaseg.sam.config import CONFIGS, SamConfig
from gigaseg.sam.model import build
from gigaseg.sam.prompting import PromptSets

TINY = SamConfig(
    "tiny", 64, 8, 32, 2, 2, 4, (1,), prompt_dim=32, decoder_heads=4, decoder_mlp=64, iou_hidden=32, mask_channels=8
)


def decoder_of(name):
    """The prompt encoder and mask decoder of a configuration with an encoder that costs nothing.

    Weights are drawn so that attention is far from even and logits are large: otherwise everything equals everything.
    """
    config = TINY if name == "tiny" else CONFIGS[name]
    torch.manual_seed(1)
    model = build(dataclasses.replace(config, depth=1, embed_dim=8, heads=1, global_blocks=(0,)))
    for key, tensor in model.mask_decoder.named_parameters():
        if "q_proj" in key or "k_proj" in key:
            tensor.data *= 2
        elif tensor.ndim == 1:
            tensor.data += 0.1 * torch.randn_like(tensor)
        elif "hypernetworks" in key or "iou_prediction_head" in key:
            tensor.data *= 3
    return model


def reference(model, embedding, sets, *, multimask=False, input_shape=None):
    """Logits (n, m, 4h, 4w) and quality (n, m); every image by itself."""
    h, w = embedding.shape[2:]
    patch = model.image_encoder.patch_embed.proj.stride[0]
    prompts = model.prompt_encoder
    kept = prompts.image_embedding_size, prompts.input_image_size
    prompts.image_embedding_size, prompts.input_image_size = (h, w), input_shape or (h * patch, w * patch)
    found = []
    for image in sorted(set(sets.image.tolist())):
        some = sets[sets.image == image]
        points = (some.points, some.labels) if some.points.shape[1] else None
        sparse, dense = prompts(points, some.boxes, some.masks)
        found.append(model.mask_decoder(embedding[image : image + 1], prompts.get_dense_pe(), sparse, dense, multimask))
    prompts.image_embedding_size, prompts.input_image_size = kept
    return torch.cat([logits for logits, _ in found]), torch.cat([quality for _, quality in found])


def some_sets(kind, grid, patch, images=2, each=3, seed=0):
    """Prompt sets of a kind: points, padded, boxes, both, masks or all, at random places of inputs of `grid` cells."""
    generator = torch.Generator().manual_seed(seed)
    n = images * each
    h, w = grid
    place = torch.rand(n, 3, 2, generator=generator) * torch.tensor([w, h]) * patch
    labels = torch.tensor([1, 0, 1], dtype=torch.int8).expand(n, -1)
    if kind == "padded":
        labels = torch.where(torch.rand(n, 3, generator=generator) < 0.4, -1, labels).to(torch.int8)
    size = (0.1 + 0.3 * torch.rand(n, 2, generator=generator)) * torch.tensor([w, h]) * patch
    boxes = torch.cat([place[:, 0] * 0.6, place[:, 0] * 0.6 + size], 1) if kind in ("boxes", "both", "all") else None
    masks = 3 * torch.randn(n, 1, 4 * h, 4 * w, generator=generator) if kind in ("masks", "all") else None
    if kind == "boxes":
        place, labels = place[:, :0], labels[:, :0]
    return PromptSets(torch.arange(images).repeat_interleave(each), place, labels, boxes, masks)


KINDS = ("points", "padded", "boxes", "both", "masks", "all")
