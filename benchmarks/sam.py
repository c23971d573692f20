"""Speed of the SAM back end beside segment-anything's modules: ``python benchmarks/sam.py [--device cuda]``.

One run measures both. On a CPU the figures are CPU seconds (user and system) of one thread, which other work on the
machine disturbs less than the clock; on a GPU seconds by the clock between synchronisations, and the share of the
matrix rate that the same card reaches in a plain product of 8192 x 8192; operations are counted on segment-anything's
modules. Weights are random unless --checkpoint is given, which also measures what bf16 and local decoding change in the
masks (dsb2018 val in --data or GIGASEG_DATA). Local decoding end to end is measured there only, since masks of random
weights fill their windows, and those are decoded again in larger ones.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import processor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gigaseg.sam.backend import Backend
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import Encoded, encode
from gigaseg.sam.model import build
from gigaseg.sam.prompting import box_sets, point_sets

HERE = Path(__file__).parent
WINDOWS = (8, 12, 16, 24)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Machine:
    """Where and how to measure."""

    def __init__(self, device: str, quick: bool) -> None:
        self.device, self.quick = torch.device(device), quick
        self.gpu = self.device.type == "cuda"

    def seconds(self, work, repeats: int = 3) -> float:
        """Least of some runs, after one to warm up on a GPU."""
        if self.gpu:
            work()
        best = float("inf")
        for _ in range(1 if self.quick else repeats):
            start = self.clock()
            work()
            best = min(best, self.clock() - start)
        return best

    def clock(self) -> float:
        """Now, s."""
        if self.gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def precision(self, name: str):
        """Autocast to a precision of `PRECISIONS`."""
        if name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[name])

    def matrix_rate(self, name: str) -> float:
        """FLOP/s of a plain product."""
        side = 8192 if self.gpu else 2048
        a, b = (torch.randn(side, side, device=self.device, dtype=PRECISIONS[name]) for _ in range(2))
        torch.mm(a, b)
        return 2 * side**3 / self.seconds(lambda: torch.mm(a, b), 5)

    def model(self, name: str):
        """With random weights, always the same."""
        torch.manual_seed(0)
        return build(CONFIGS[name], self.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="one repeat, few prompts: shows that it works")
    parser.add_argument("--checkpoint", help="name or file: also compare its masks in bf16 and in windows, dsb2018 val")
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018")
    parser.add_argument("--images", type=int, default=10_000, help="of dsb2018 val at most (default: all)")
    parser.add_argument("--only-masks", action="store_true", help="leave out the figures of speed")
    parser.add_argument("--out", type=Path, help="page to write (benchmarks/results/sam.md, or sam_cuda.md)")
    options = parser.parse_args()
    machine = Machine(options.device, options.quick)
    if not machine.gpu:
        torch.set_num_threads(1)
    sections = []
    if not options.only_masks:
        with torch.inference_mode():
            sections.append(("Encoder", encoders(machine)))
            sections.append(("Decoder, ms a prompt", decoders(machine)))
            sections.append(("End to end: tile in, cropped masks out", end_to_end(machine)))
    if options.checkpoint:
        kept = objects_of(options, Backend.open(options.checkpoint).config.patch)
        sections.append(("Masks in half precision beside fp32, dsb2018 val", half_precision(options, kept)))
        sections.append(("Local decoding beside full decoding, dsb2018 val", local_decoding(machine, options, kept)))
    text = page(machine, sections)
    target = options.out or HERE / "results" / ("sam_cuda.md" if machine.gpu else "sam.md")
    target.write_text(text, encoding="utf-8")
    print(text)


def encoders(machine: Machine) -> list[dict]:
    cases = [("small", 256, 4), ("small", 512, 1), ("vit_b", 1024, 1)]
    if machine.gpu:
        cases = [("small", 256, 64), ("small", 512, 16), ("vit_b", 1024, 8), ("vit_h", 1024, 4)]
    elif machine.quick:
        cases[-1] = ("vit_b", 512, 1)
    rows = []
    for name, side, batch in cases:
        encoder = machine.model(name).image_encoder
        images = torch.randn(batch, 3, side, side, device=machine.device)
        flops = operations(name, side)
        own_size = side == CONFIGS[name].image_size
        for precision in PRECISIONS:
            with machine.precision(precision):
                ours = machine.seconds(lambda: encode(encoder, images)) / batch  # noqa: B023
                theirs = machine.seconds(lambda: encoder(images)) / batch if own_size else float("nan")  # noqa: B023
            rate = machine.matrix_rate(precision)
            rows.append(
                {
                    "model": name,
                    "input": f"{side}²",
                    "precision": precision,
                    "reference s/image": theirs,
                    "ours s/image": ours,
                    "times faster": theirs / ours,
                    "GFLOP/image": flops / 1e9,
                    "share of matrix rate": f"{flops / ours / rate:.0%} of {rate / 1e12:.2f} TFLOP/s",
                }
            )
    return rows


def operations(name: str, side: int) -> int:
    """Floating-point operations of the encoder for one image, attention with them; nothing is computed."""
    encoder = build(replace(CONFIGS[name], image_size=side), "meta").image_encoder
    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops()


def decoders(machine: Machine) -> list[dict]:
    rows = []
    for name, grid in (("vit_b", 64), ("vit_b", 32), ("small", 64), ("small", 32)):
        model = machine.model(name)
        config = CONFIGS[name]
        n = 16 if machine.quick else 128
        few = n if machine.gpu else max(4, n // 8)  # of the slow reference
        torch.manual_seed(1)
        encoded = Encoded(torch.randn(1, config.prompt_dim, grid, grid, device=machine.device))
        places = torch.rand(n, 2, device=machine.device) * grid * config.patch
        sets = point_sets(torch.zeros(n, dtype=torch.int64, device=machine.device), places)
        for precision in PRECISIONS:
            with machine.precision(precision):
                row = {"decoder of": name, "grid": f"{grid} x {grid}", "precision": precision}
                slow = machine.seconds(lambda: reference(model, encoded, sets[:few]))  # noqa: B023
                row["reference"] = 1e3 * slow / few
                row["ours"] = 1e3 * machine.seconds(lambda: decode(model, encoded, sets)) / n  # noqa: B023
                row["times faster"] = row["reference"] / row["ours"]
                for w in WINDOWS:
                    local = machine.seconds(lambda: decode(model, encoded, sets, window=w))  # noqa: B023
                    row[f"window {w}"] = 1e3 * local / n
                row["window 16, times faster"] = row["reference"] / row["window 16"]
            rows.append(row)
    return rows


def reference(model, encoded: Encoded, sets, multimask: bool = False):
    """segment-anything's prompt encoder and mask decoder, for an embedding of any size."""
    prompts = model.prompt_encoder
    kept = prompts.image_embedding_size, prompts.input_image_size
    h, w = encoded.embedding.shape[2:]
    patch = model.image_encoder.patch_embed.proj.stride[0]
    prompts.image_embedding_size, prompts.input_image_size = (h, w), (h * patch, w * patch)
    try:
        points = (sets.points, sets.labels) if sets.points.shape[1] else None
        sparse, dense = prompts(points, sets.boxes, None)
        return model.mask_decoder(encoded.embedding, prompts.get_dense_pe(), sparse, dense, multimask)
    finally:
        prompts.image_embedding_size, prompts.input_image_size = kept


def end_to_end(machine: Machine) -> list[dict]:
    """A tile of uint8 pixels to masks; the reference upsamples each mask to the tile, as its predictor does."""
    rows = []
    for name, side, n in (("vit_b", 1024, 64), ("small", 256, 64)):
        if machine.quick and name == "vit_b":
            n = 8
        backend = Backend(machine.model(name), CONFIGS[name], {}, machine.device, torch.float32)
        image = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, device=machine.device)
        places = torch.rand(n, 2, device=machine.device) * side
        sets = point_sets(torch.zeros(n, dtype=torch.int64, device=machine.device), places)

        def theirs():
            model = backend.model  # noqa: B023
            embedding = model.image_encoder(model.preprocess(image))  # noqa: B023
            logits, _ = reference(model, Encoded(embedding), sets)  # noqa: B023
            return (F.interpolate(logits, (side, side), mode="bilinear") > 0).cpu()  # noqa: B023

        for precision, dtype in PRECISIONS.items():
            own = Backend(backend.model, backend.config, {}, machine.device, dtype)

            def ours(own=own):
                return own.masks(own.encode(image), sets, (side, side)).cpu()  # noqa: B023

            with machine.precision(precision):
                slow = machine.seconds(theirs, 1)
            fast = machine.seconds(ours)
            rows.append(
                {
                    "model": name,
                    "tile": f"{side}²",
                    "prompts": n,
                    "precision": precision,
                    "reference s": slow,
                    "ours s": fast,
                    "times faster": slow / fast,
                }
            )
    return rows


@dataclass(frozen=True)
class Scene:
    """A tile (1, 3, side, side) uint8, its objects (n, pixels) bool, and what prompts for them."""

    tile: torch.Tensor
    truth: np.ndarray
    prompts: dict

    @property
    def side(self) -> int:
        """Of the tile, px."""
        return self.tile.shape[2]


def objects_of(options, patch: int) -> list[Scene]:
    """Images of dsb2018 val with their objects."""
    from PIL import Image

    folder = options.data / "dsb2018"
    with (folder / "index.tsv").open() as stream:
        images = [row["image"] for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "val"]
    found = []
    for image in images[:: 8 if options.quick else 1][: options.images]:
        pixels = np.asarray(Image.open(folder / "images" / f"{image}.webp").convert("RGB"))
        labels = np.asarray(Image.open(folder / "labels" / f"{image}.png")).astype(np.int32)
        side = min(pixels.shape[0], pixels.shape[1]) // patch * patch
        tile = torch.from_numpy(pixels[:side, :side].copy()).permute(2, 0, 1)[None]
        truth, places, boxes = prompts_of(labels[:side, :side])
        none = torch.zeros(len(truth), dtype=torch.int64)
        if len(truth):
            prompts = {"centre point": point_sets(none, places), "exact box": box_sets(none, boxes)}
            found.append(Scene(tile, truth, prompts))
    return found


def half_precision(options, scenes: list[Scene]) -> list[dict]:
    """Masks in bf16 (and fp16 on a GPU): IoU with those in fp32, and of both with the annotation."""
    halves = ("bf16", "fp16") if options.device.startswith("cuda") else ("bf16",)
    backends = {name: Backend.open(options.checkpoint, options.device, precision=name) for name in ("fp32", *halves)}
    found = {}
    for scene in scenes:
        for kind, sets in scene.prompts.items():
            area = {}
            for name, backend in backends.items():
                masks = backend.masks(backend.encode(scene.tile), sets, (scene.side, scene.side))
                area[name] = painted(masks.cpu(), scene.side)
            for name in halves:
                entry = found.setdefault((kind, name), [[], [], []])
                entry[0].append(iou(area[name], area["fp32"]))
                entry[1].append(iou(area[name], scene.truth))
                entry[2].append(iou(area["fp32"], scene.truth))
    return [
        {
            "prompt": kind,
            "precision": name,
            "objects": len(np.concatenate(entry[0])),
            **likeness("fp32", entry[0]),
            "IoU with annotation": mean(entry[1]),
            "of fp32": mean(entry[2]),
        }
        for (kind, name), entry in found.items()
    ]


def mean(parts: list[np.ndarray]) -> float:
    return float(np.concatenate(parts).mean())


def likeness(other: str, parts: list[np.ndarray]) -> dict:
    return {
        f"IoU with {other}": mean(parts),
        "share with IoU >= 0.99": mean([part >= 0.99 for part in parts]),
        "share with IoU >= 0.95": mean([part >= 0.95 for part in parts]),
    }


def local_decoding(machine: Machine, options, scenes: list[Scene]) -> list[dict]:
    """Masks by window, as `prompted` makes them: IoU with full decoding, and of both with the annotation."""
    backend = Backend.open(options.checkpoint, options.device)
    found = {}
    for scene in scenes:
        encoded = backend.encode(scene.tile)
        for kind, sets in scene.prompts.items():
            full = None
            for window in (None, *WINDOWS):
                start = machine.clock()
                masks = backend.masks(encoded, sets, (scene.side, scene.side), window=window).cpu()
                seconds = machine.clock() - start
                area = painted(masks, scene.side)
                full = area if window is None else full
                entry = found.setdefault((kind, window), [[], [], 0.0, 0])
                entry[0].append(iou(area, full))
                entry[1].append(iou(area, scene.truth))
                entry[2] += seconds
                entry[3] += len(scene.truth)
    slow = {kind: entry[2] / entry[3] for (kind, window), entry in found.items() if window is None}
    return [
        {
            "prompt": kind,
            "window": "full" if window is None else f"{window} cells = {window * backend.config.patch} px",
            "objects": entry[3],
            **likeness("full decoding", entry[0]),
            "IoU with annotation": mean(entry[1]),
            "ms a prompt": 1e3 * entry[2] / entry[3],
            "times faster": slow[kind] / (entry[2] / entry[3]),
        }
        for (kind, window), entry in found.items()
    ]


def prompts_of(labels: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Objects (n, pixels) bool, a place deep inside each (n, 2), and their boxes (n, 4) half-open."""
    from scipy import ndimage

    truth, places, boxes = [], [], []
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        y, x = np.nonzero(mask)
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        places.append(np.add(np.unravel_index(depth.argmax(), depth.shape)[::-1], 0.5))  # the pixel's centre
        boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
        truth.append(mask.ravel())
    as_tensor = [torch.tensor(np.array(a, dtype=np.float32).reshape(-1, k)) for a, k in ((places, 2), (boxes, 4))]
    return np.array(truth), *as_tensor


def painted(masks, side: int) -> np.ndarray:
    area = np.zeros((len(masks), side, side), bool)
    for i, (mask, box) in enumerate(zip(masks.unpack(), masks.boxes.tolist())):
        area[i, box[1] : box[3], box[0] : box[2]] = mask.numpy()
    return area.reshape(len(masks), -1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    union = (a | b).sum(1)
    return np.where(union > 0, (a & b).sum(1) / np.maximum(union, 1), 1.0)


def page(machine: Machine, sections: list[tuple[str, list[dict]]]) -> str:
    """Markdown."""
    unit = "seconds by the clock" if machine.gpu else "CPU seconds of one thread"
    lines = [
        "# Speed of the SAM back end beside segment-anything",
        "",
        f"`python benchmarks/sam.py {' '.join(sys.argv[1:])}`".replace(" `", "`")
        + f": {unit}, the least of some runs. "
        "nan: the reference takes no input of this size.",
    ]
    for title, rows in sections:
        lines += [
            "",
            f"## {title}",
            "",
            "| " + " | ".join(rows[0]) + " |",
            "| " + " | ".join("---" for _ in rows[0]) + " |",
        ]
        for row in rows:
            cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
            lines.append("| " + " | ".join(cells) + " |")
    name = torch.cuda.get_device_name() if machine.gpu else processor()
    return "\n".join(
        [*lines, "", f"Machine: {name}; torch {torch.__version__}, Python {platform.python_version()}.", ""]
    )


if __name__ == "__main__":
    main()
