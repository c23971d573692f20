"""What a nucleus costs in CFR-SAM's refinement, as published and with what is saved; and whether masks stay the same.

``python benchmarks/cfrsam_cost.py`` times ViT-B's refinement (random weights cost the same) on an image of 256 px:

published   every prompt goes through the whole module at 256 x 256, images' parts included, each convolution over the
            concatenation, deformable ones sampling before they multiply
shared      what depends on the image once an image
weighted    deformable convolutions multiply before they sample
local       in a square of 96 px around the coarse mask

With ``--data DSB2018`` it also decodes the objects of the validation images by a checkpoint, from their middles, once
in whole decoding windows and once in squares, and tells how alike the masks are (gate: mean IoU at least 0.99).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import processor
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gigaseg.sam.config import CONFIGS
from gigaseg.sam.encoder import normalise
from gigaseg.sam.prompting import point_sets
from gigaseg.segmenters.cfrsam.checkpoint import open_adapted
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.deform import TAPS, Deformable, deform
from gigaseg.segmenters.cfrsam.model import Added, Refiner, encode_images
from gigaseg.segmenters.cfrsam.refine import Refinement, _up
from gigaseg.train.crops import affine, crop
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.whole import spread

RESULTS = Path(__file__).parent / "results"
SIDE, PROMPTS = 256, 8
GATE = 0.99


def sample_first(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
    """`deform` in the order of its definition: sample all channels at each tap, then multiply."""
    n, channels, h, w = x.shape
    eye = torch.eye(channels, device=x.device).view(channels, channels, 1, 1)
    total = x.new_zeros(n, weight.shape[0], h, w)
    for tap in range(TAPS):
        one = torch.zeros(channels, channels, 3, 3, device=x.device)
        one[:, :, tap // 3, tap % 3] = eye[:, :, 0, 0]
        place = torch.arange(h, device=x.device).view(1, h, 1) + tap // 3 - 1 + offsets[:, 2 * tap]
        across = torch.arange(w, device=x.device).view(1, 1, w) + tap % 3 - 1 + offsets[:, 2 * tap + 1]
        grid = torch.stack([(2 * across + 1) / w - 1, (2 * place + 1) / h - 1], -1)
        seen = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False) * modulation[:, tap, None]
        total = total + F.conv2d(seen, weight[:, :, tap // 3, tap % 3][:, :, None, None])
    return total


def deformed(layer: Deformable, x: Tensor, rule: Callable[..., Tensor]) -> Tensor:
    told = layer.offsets(x)
    return F.relu(layer.norm(rule(x, told[:, : 2 * TAPS], told[:, 2 * TAPS :].sigmoid(), layer.weight)))


def published(net: Refinement, features: Tensor, pixels: Tensor, embedding: Tensor) -> Tensor:
    """The module as the paper draws it, all of it for each prompt."""
    n = len(features)
    x = embedding.expand(n, -1, -1, -1)
    for layer in net.from_embedding:
        x = layer(_up(x))
    x = net.fuse(torch.cat([features, x], 1))
    for layer in net.ups:
        x = layer(_up(x))
    detail = net.enhance(net.image(pixels.expand(n, -1, -1, -1)))
    first, second = x.chunk(2, 1)
    a = F.relu(net.squeeze(torch.cat([detail, first], 1)))
    b = deformed(net.deform, torch.cat([detail, second], 1), sample_first)
    joined = net.join(torch.cat([attend(part) for attend, part in zip(net.attend, (a, b))], 1))
    net.boundary(joined)
    moved = net.widen(deformed(net.follow, net.narrow(joined.sigmoid() * x), sample_first))
    return net.mask(x + moved)[:, 0]


def timed(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Best seconds of some calls, and multiply-accumulates of one."""
    with FlopCounterMode(display=False) as counter:
        call()
    best = float("inf")
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best, counter.get_total_flops() / 2


def costs(device: torch.device, prompts: int, repeats: int) -> list[tuple[str, float, float]]:
    """Way, seconds and multiply-accumulates a nucleus."""
    import gigaseg.segmenters.cfrsam.deform as module

    torch.manual_seed(0)
    sam = CONFIGS["vit_b"]
    net = Added(CfrSamConfig(), sam).to(device).eval().refine
    assert net is not None
    c, low = sam.prompt_dim // 8, SIDE // 4
    pixels, embedding = (
        torch.randn(1, 3, SIDE, SIDE, device=device),
        torch.randn(1, sam.prompt_dim, low // 4, low // 4, device=device),
    )
    features = torch.randn(prompts, c, low, low, device=device)
    image = torch.zeros(prompts, dtype=torch.int64, device=device)
    origin = torch.zeros(prompts, 2, dtype=torch.int64, device=device)
    part, side = features[:, :, :24, :24].contiguous(), 24 * net.fine
    found = []
    with torch.inference_mode():
        for layer in (net.deform, net.follow):  # so that something is deformed
            layer.offsets.bias.copy_(torch.randn(3 * TAPS, device=device))
        whole = published(net, features[:1], pixels, embedding)
        same = net(features[:1], net.images(pixels, embedding), image[:1], origin[:1]).masks
        assert torch.allclose(whole, same, atol=2e-3), float((whole - same).abs().max())
        seconds, work = timed(lambda: published(net, features, pixels, embedding), device, repeats)
        found.append((f"published, {SIDE} px", seconds / prompts, work / prompts))
        own = deform
        for name, rule, seen in (
            (f"shared, {SIDE} px", sample_first, features),
            (f"shared and weighted, {SIDE} px", own, features),
            (f"shared, weighted and local, {side} px", own, part),
        ):
            module.deform = rule
            seconds, work = timed(
                lambda seen=seen: net(seen, net.images(pixels, embedding), image, origin), device, repeats
            )
            found.append((name, seconds / prompts, work / prompts))
        module.deform = own
    return found


def gate(data: Path, checkpoint: str, device: torch.device, most: int) -> list[tuple[str, float, float, float, int]]:
    """Way; mean IoU with the masks of whole windows, its 1st percentile, nuclei a second, and their number."""
    adapted = open_adapted(checkpoint, str(device), precision="fp32")
    backend, added = adapted.backend, adapted.added
    window = backend.window(-1)
    entries = [entry for entry in read_layout("plain", data) if entry.split == "val"]
    alike: dict[int, list[float]] = {0: [], -1: []}
    spent = dict.fromkeys(alike, 0.0)
    for sample in load(list(spread(entries, most))):
        if not sample.diameter > 0:
            continue
        height, width = sample.labels.shape
        matrix = affine(26.0 / sample.diameter, 0.0, False, (width / 2, height / 2), 512)
        item = crop(sample, matrix, 512, np.random.default_rng(0))
        if not len(item.ids):
            continue
        image = torch.zeros(len(item.ids), dtype=torch.int64, device=device)
        sets = point_sets(image, item.centres.to(device))
        found = {}
        with backend.running():
            pixels = normalise(item.image[None].to(device), backend.config)
            seen = encode_images(backend.model, added, pixels)
            assert seen.maps is not None, "the checkpoint refines nothing"
            for local in alike:
                start = time.perf_counter()
                masks = backend.masks(
                    seen.encoded, sets, (512, 512), window=window, fine=added.fine,
                    refine=Refiner(added, seen.maps, local),
                )  # fmt: skip
                spent[local] += time.perf_counter() - start
                found[local] = painted(masks.cpu().unpack(), masks.boxes.cpu().tolist())
        for local, maps in found.items():
            for one, other in zip(found[0], maps):
                both, either = (one & other).sum(), (one | other).sum()
                alike[local].append(float(both / either) if either else 1.0)
    names = {0: "whole decoding windows", -1: "squares"}
    return [
        (names[k], float(np.mean(v)), float(np.percentile(v, 1)), len(v) / spent[k], len(v)) for k, v in alike.items()
    ]


def painted(masks: list[Tensor], boxes: list[list[int]]) -> list[np.ndarray]:
    maps = []
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        whole = np.zeros((512, 512), bool)
        whole[y0:y1, x0:x1] = mask.numpy()
        maps.append(whole)
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="dsb2018 in the plain layout")
    parser.add_argument("--checkpoint", default="cfrsam-v1")
    parser.add_argument("--images", type=int, default=0, help="of these at most so many, evenly spread; 0: all")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    lines = [
        "# CFR-SAM: what a nucleus costs", "",
        f"{processor()}; `{shlex.join(['python', 'benchmarks/cfrsam_cost.py', *sys.argv[1:]])}`, one thread, fp32.", "",
        f"Refinement of ViT-B on an image of {SIDE} px with {args.prompts} nuclei, the images' parts included; best of "
        f"{args.repeats}.", "",
        "| way | nuclei a second | ms a nucleus | GMACs a nucleus (convolutions) | speed, times the published |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    rows = costs(device, args.prompts, args.repeats)
    for name, seconds, work in rows:
        lines.append(
            f"| {name} | {1 / seconds:.1f} | {1e3 * seconds:.0f} | {work / 1e9:.2f} | {rows[0][1] / seconds:.1f} |"
        )
    if args.data:
        some = f"{args.images} of the" if args.images else "the"
        lines += [
            "", f"`{args.checkpoint}` on {some} validation images of dsb2018, objects 26 px wide, a point in each "
            f"object's middle: the masks beside those refined in whole decoding windows. Gate: mean IoU {GATE}.", "",
            "| refined in | mean IoU | 1st percentile | nuclei a second, decoding included | nuclei |",
            "| --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for name, mean, low, pace, number in gate(args.data, args.checkpoint, device, args.images):
            lines.append(f"| {name} | {mean:.4f} | {low:.4f} | {pace:.1f} | {number} |")
            if mean < GATE:
                lines.append(f"\n**The gate is missed: {mean:.4f}.**")
    name = "cfrsam_cost.md" if device.type == "cpu" else "cfrsam_cost_cuda.md"
    (RESULTS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
