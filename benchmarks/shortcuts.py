"""What could make `centersam` cheaper on a CPU, and what it does to the masks: ``python benchmarks/shortcuts.py``.

One run measures all of it, trick by trick in turn, in CPU seconds (user and system) of one thread, the least of some
runs. Masks are compared on dsb2018 val, where each image is scaled by the median diameter of its annotation, the same
for all tricks. --before names a folder with the package's source of an earlier commit, whose encoder is measured beside
today's: ``git archive 5338502~ src | tar -x -C FOLDER``, then ``--before FOLDER/src``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import importlib.util
import os
import platform
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exemplars import diameter_of, median_object
from machine import processor
from PIL import Image
from torch import nn

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.metrics.instance import aji, f1
from gigaseg.metrics.overlap import Overlap
from gigaseg.sam.checkpoints import read_checkpoint
from gigaseg.sam.encoder import Encoded, absolute_positions, encode, relative_positions
from gigaseg.segmenters.base import TileBatch
from gigaseg.segmenters.centersam.checkpoint import (
    DEFAULT_CHECKPOINT,
    PREFIX,
    Loaded,
    detector_from_state,
    open_centersam,
)
from gigaseg.segmenters.centersam.detector import DetectorConfig
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.segmenters.whole import SCALES, segment_image
from gigaseg.slides.inspect import inspect
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.first_look import is_blank

HERE = Path(__file__).parent
SLIDE = "CMU-1-Small-Region.svs"
CORNER = (600, 600)
"""Level-0 px of the tile of tissue on that slide."""

TILE = 512
SIDES = (256, 384, 512, 768)
SAME = 0.98
"""IoU from which a mask counts as kept."""


DECISIONS = {
    "plain": "the default",
    "encoder before": "replaced",
    "int8": "not kept: at the limit, and one mask in seven falls below it",
    "ONNX": "not kept: a dependency, and a model for each size of tile; int8 there is the best candidate",
    "decoding without windows": "windows stay: other masks, trained so, and much less time",
    "detector as trained": "fused, channels last: kept as the default",
}
"""By the beginning of a trick's name."""


@dataclass
class Trick:
    """A way to run the segmenter.

    Attributes
    ----------
    segmenter : that runs so.
    onnx : the encoder, where it is one.
    seconds : CPU s of the tile of tissue, and of each image.
    ious, scores : of each instance of the plain path its best IoU; of each image AJI and F1.
    """

    segmenter: CenterSam
    onnx: Onnx | None = None
    seconds: float = float("inf")
    images: list[float] | None = None
    ious: list[float] | None = None
    scores: list[tuple[float, float]] | None = None

    def clock(self) -> float:
        """CPU s of this process, without the making of ONNX sessions."""
        return time.process_time() - (self.onnx.prepared if self.onnx else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018 and slides")
    parser.add_argument("--before", type=Path, help="source folder of an earlier commit")
    parser.add_argument("--images", type=int, default=67, help="of dsb2018 val, evenly drawn")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, on the tile alone: takes minutes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of torch about its own quantisation and export
    loaded = open_centersam()
    tile = tile_of(args.data / "slides" / SLIDE, TILE)
    with tempfile.TemporaryDirectory() as work:
        found = tricks(loaded, args.before, Path(work))
        measure(found, tile, args.repeats)
        compare(found, args.data / "dsb2018", args.images)
    print(*table(found), sep="\n", flush=True)
    text = [
        "# Shortcuts of `centersam` on a CPU",
        "",
        f"`python {shlex.join(['benchmarks/shortcuts.py', *sys.argv[1:]])}`: CPU seconds (user and system) of one "
        f"thread; a tile of {TILE} px of tissue at 0.3 µm/px ({SLIDE}), the least of {args.repeats} runs; images of "
        f"dsb2018 val ({args.images} of 67), one run each, at a scale that the annotation tells. IoU: of each instance "
        f"of the plain path with its best counterpart.",
        "",
        *table(found),
        "",
        "## Parts of a tile, and tiles that need less",
        "",
        *parts(found["plain"].segmenter, loaded, tile, args.repeats),
        "",
        "## Sides of tiles",
        "",
        *sides(found["plain"].segmenter, args.data / "slides" / SLIDE, args.repeats),
        "",
        "## Half precision and compilation",
        "",
        *slow(loaded, tile, args),
        "",
        "## First look",
        "",
        *first_look(found["plain"].segmenter, args.data),
        "",
        "## Tiles without foreground",
        "",
        *background(found["plain"].segmenter, args.data / "slides" / SLIDE),
        "",
        f"Machine: {processor()}, {torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, "
        f"Python {platform.python_version()}.",
        "",
    ]
    (HERE / "results" / "shortcuts.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


def tile_of(path: Path, side: int) -> torch.Tensor:
    """Tissue at 0.3 µm/px: (1, 3, side, side) uint8."""
    slide = open_slide(inspect(path, slide=path.stem))
    try:
        level0 = side * 0.3 / slide.info.pixel_size[0]
        x, y = CORNER
        pixels = slide.info.rendering.rgb(slide.read(Bounds(x, y, x + level0, y + level0), Shape2d(side, side)))
    finally:
        slide.close()
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def tricks(loaded: Loaded, before: Path | None, work: Path) -> dict[str, Trick]:
    """Everything that is compared by its masks."""

    def over(encoder: Callable[..., Encoded], model: Any = None) -> CenterSam:
        backend = replace(loaded.backend, encoder=encoder, model=model or loaded.backend.model)
        return CenterSam.of(replace(loaded, backend=backend))

    found = {"plain": Trick(CenterSam.of(loaded))}
    if before:
        found["encoder before"] = Trick(over(earlier(before)))
    for engine in ("fbgemm", "onednn"):  # "x86" is one of the two, by the processor
        if engine in torch.backends.quantized.supported_engines:
            found[f"int8 linear layers, {engine}"] = Trick(over(encode, quantised(loaded, engine)))
    for name, encoder in (("fp32", Onnx(work, int8=False)), ("int8", Onnx(work, int8=True))):
        found[f"ONNX Runtime, {name}"] = Trick(over(encoder), encoder)
    found["decoding without windows"] = Trick(CenterSam.of(loaded, {"window": 0}))
    _, state, card = read_checkpoint(DEFAULT_CHECKPOINT)
    state = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    apart = detector_from_state(state, DetectorConfig.from_dict(card["detector"]))
    found["detector as trained"] = Trick(CenterSam.of(replace(loaded, detector=apart)))
    return found


def earlier(source: Path) -> Callable[..., Encoded]:
    """`encode` of another commit."""
    spec = importlib.util.spec_from_file_location("encoder_before", source / "gigaseg" / "sam" / "encoder.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.encode


def quantised(loaded: Loaded, engine: str) -> nn.Module:
    """The model with int8 weights in the encoder's linear layers, and inputs quantised as they come."""
    torch.backends.quantized.engine = engine
    model = copy.deepcopy(loaded.backend.model)
    model.image_encoder = torch.ao.quantization.quantize_dynamic(model.image_encoder, {nn.Linear}, torch.qint8)
    return model


class Onnx:
    """The encoder in ONNX Runtime, with a session for each size that it meets."""

    def __init__(self, work: Path, int8: bool) -> None:
        self._work, self._int8 = work, int8
        self._sessions: dict[tuple[int, ...], Any] = {}
        self.prepared = 0.0  # CPU s of making sessions

    def __call__(self, encoder: nn.Module, images: torch.Tensor, **_: Any) -> Encoded:
        """As `encode`."""
        if images.shape not in self._sessions:
            start = time.process_time()
            self._sessions[images.shape] = self._session(encoder, images)
            self.prepared += time.process_time() - start
        session = self._sessions[images.shape]
        return Encoded(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))

    def _session(self, encoder: nn.Module, images: torch.Tensor) -> Any:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        class Embedding(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = fitted(encoder, images.shape)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return encode(self.encoder, x).embedding

        path = self._work / f"{self._int8}-{'-'.join(map(str, images.shape))}.onnx"
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(
                Embedding(), (images.clone(),), path, input_names=["images"], opset_version=18, dynamo=False
            )
        if self._int8:
            plain, path = path, path.with_suffix(".int8.onnx")
            quantize_dynamic(plain, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fitted(encoder: nn.Module, shape: torch.Size) -> nn.Module:
    """The encoder with position tables of images of a shape, since the exporter wants them constant."""
    found = copy.deepcopy(encoder)
    patch = found.patch_embed.proj.weight.shape[-1]
    grid = shape[2] // patch, shape[3] // patch
    found.pos_embed = nn.Parameter(absolute_positions(encoder.pos_embed, grid))
    for block in found.blocks:
        if not block.window_size:
            for name, side in zip(("rel_pos_h", "rel_pos_w"), grid):
                pairs = relative_positions(getattr(block.attn, name), side)
                setattr(block.attn, name, nn.Parameter(torch.cat([pairs[0].flip(0), pairs[1:, 0]])))
    return found


def cpu(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def least(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least CPU s of each, in turns, so that what else goes on disturbs all of them alike; after one to warm up."""
    for run in work.values():
        run()
    runs = [{name: cpu(run) for name, run in work.items()} for _ in range(repeats)]
    return {name: min(run[name] for run in runs) for name in work}


def batch(images: torch.Tensor) -> TileBatch:
    return TileBatch(images, [None] * len(images))


def measure(found: dict[str, Trick], tile: torch.Tensor, repeats: int) -> None:
    work = {name: functools.partial(trick.segmenter.segment, batch(tile)) for name, trick in found.items()}
    for name, seconds in least(work, repeats).items():
        found[name].seconds = seconds


def compare(found: dict[str, Trick], folder: Path, limit: int) -> None:
    """Masks of every trick on dsb2018 val."""
    with (folder / "index.tsv").open(encoding="utf-8") as stream:
        names = [row["image"] for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "val"]
    files = {path.stem: path for path in (folder / "images").iterdir()}
    for trick in found.values():
        trick.images, trick.ious, trick.scores = [], [], []
    for at in np.linspace(0, len(names) - 1, min(limit, len(names))).round().astype(int):
        image = np.asarray(Image.open(files[names[at]]).convert("RGB"))
        truth = np.asarray(Image.open(folder / "labels" / f"{names[at]}.png")).astype(np.int32)
        wanted = found["plain"].segmenter.card.object_diameter
        scale = min(max(wanted / diameter_of(median_object(truth)), SCALES[0]), SCALES[1])
        plain = None
        for trick in found.values():
            start = trick.clock()
            labels = segment_image(trick.segmenter, image, scale=scale)
            trick.images.append(trick.clock() - start)
            plain = labels if plain is None else plain
            trick.ious += best(plain, labels)
            overlap = Overlap.from_labels(truth, labels)
            trick.scores.append((aji(overlap), f1(overlap)))


def best(plain: np.ndarray, other: np.ndarray) -> list[float]:
    """IoU of each instance of `plain` with its best counterpart in `other`; 0 without one."""
    overlap = Overlap.from_labels(plain, other)
    iou = np.zeros(len(overlap.truth_ids))
    np.maximum.at(iou, overlap.truth, overlap.iou)
    return iou.tolist()


def table(found: dict[str, Trick]) -> list[str]:
    plain = found["plain"]
    lines = [
        f"| trick | s a tile | times faster | s an image | times faster | mean IoU | IoU >= {SAME} | AJI | F1 | |",
        "|---" * 10 + "|",
    ]
    for name, trick in found.items():
        image = np.mean(trick.images)
        score = np.nanmean(trick.scores, axis=0)
        ious = np.array(trick.ious)
        lines.append(
            f"| {name} | {trick.seconds:.2f} | {plain.seconds / trick.seconds:.2f} | {image:.2f} | "
            f"{np.mean(plain.images) / image:.2f} | {ious.mean():.4f} | {(ious >= SAME).mean():.1%} | "
            f"{score[0]:.4f} | {score[1]:.4f} | {next(v for k, v in DECISIONS.items() if name.startswith(k))} |"
        )
    return lines


def parts(segmenter: CenterSam, loaded: Loaded, tile: torch.Tensor, repeats: int) -> list[str]:
    blank = torch.full_like(tile, 240)
    pixels = blank[0].permute(1, 2, 0).contiguous().numpy()
    two = torch.cat([tile, tile.flip(3)])
    found = least(
        {
            "tissue, all": lambda: segmenter.segment(batch(tile)),
            "tissue, encoder": lambda: loaded.backend.encode(tile),
            "blank tile, encoder and detector, no prompt": lambda: segmenter.segment(batch(blank)),
            "blank tile, first look": lambda: is_blank(pixels),
            "two tiles, encoder, one after the other": lambda: [loaded.backend.encode(part[None]) for part in two],
            "two tiles, encoder, one batch": lambda: loaded.backend.encode(two),
        },
        repeats,
    )
    return ["| work | s |", "|---|---|", *(f"| {name} | {seconds:.4f} |" for name, seconds in found.items())]


def sides(segmenter: CenterSam, path: Path, repeats: int) -> list[str]:
    overlap = segmenter.card.overlap
    tiles = {side: tile_of(path, side) for side in SIDES}
    found = least({str(side): functools.partial(segmenter.segment, batch(t)) for side, t in tiles.items()}, repeats)
    lines = [f"| side, px | s a tile | s a million px of slide, overlap {overlap} px |", "|---|---|---|"]
    for side in SIDES:
        seconds = found[str(side)]
        lines.append(f"| {side} | {seconds:.2f} | {1e6 * seconds / (side - overlap) ** 2:.1f} |")
    return lines


def slow(loaded: Loaded, tile: torch.Tensor, args: argparse.Namespace) -> list[str]:
    """What is measured on the encoder alone, once, since it takes long."""
    small = tile[:, :, :64, :64]
    half = replace(loaded.backend, dtype=torch.bfloat16)
    found = least({"fp32": lambda: loaded.backend.encode(small), "bf16": lambda: half.encode(small)}, 1)
    lines = [f"bf16 on a tile of 64 px: encoder {found['bf16']:.3f} s, in fp32 {found['fp32']:.3f} s."]
    if args.compile:
        encoder = torch.compile(encode)
        model = loaded.backend.model.image_encoder
        images = torch.randn(1, 3, TILE, TILE)
        with torch.inference_mode():
            start = time.perf_counter()
            encoder(model, images)
            first = time.perf_counter() - start
            found = least({"plain": lambda: encode(model, images), "compiled": lambda: encoder(model, images)}, 3)
        lines += [
            "",
            f"torch.compile: encoder {found['compiled']:.2f} s a tile, plain {found['plain']:.2f} s; the first tile "
            f"took {first:.0f} s by the clock.",
        ]
    return lines


def first_look(segmenter: CenterSam, data: Path) -> list[str]:
    """Blank tiles of slides and of dsb2018, and what is found on them all the same."""
    lines = ["| data | tiles | without annotation | called blank | of them with annotation | instances found there |"]
    lines.append("|---" * 6 + "|")
    with (data / "dsb2018" / "index.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    files = {path.stem: path for path in (data / "dsb2018" / "images").iterdir()}
    for split in ("train", "val"):
        seen = []
        for row in rows:
            if row["split"] == split:
                image = np.asarray(Image.open(files[row["image"]]).convert("RGB"))
                labels = np.asarray(Image.open(data / "dsb2018" / "labels" / f"{row['image']}.png"))
                seen += [
                    (image[y : y + 128, x : x + 128], bool(labels[y : y + 128, x : x + 128].any()))
                    for y in range(0, image.shape[0] - 127, 128)
                    for x in range(0, image.shape[1] - 127, 128)
                ]
        blank = [(pixels, full) for pixels, full in seen if is_blank(pixels)]
        lines.append(
            f"| dsb2018 {split}, 128 px | {len(seen)} | {sum(not full for _, full in seen)} | {len(blank)} | "
            f"{sum(full for _, full in blank)} | {instances(segmenter, [pixels for pixels, _ in blank])} |"
        )
    step = TILE - segmenter.card.overlap
    for path in sorted((data / "slides").iterdir()):
        if not path.is_file() or path.suffix in {".md", ".txt"}:
            continue
        slide = open_slide(inspect(path, slide=path.stem, pixel_size="px"))
        try:
            info = slide.info
            corners = [(x, y) for y in range(0, info.height, step) for x in range(0, info.width, step)]
            blank_pixels, number = [], 0
            for x, y in corners:
                width, height = min(TILE, info.width - x), min(TILE, info.height - y)
                pixels = info.rendering.rgb(slide.read(Bounds(x, y, x + width, y + height), Shape2d(height, width)))
                number += 1
                if is_blank(pixels):
                    blank_pixels.append(pixels)
        finally:
            slide.close()
        whole = [pixels for pixels in blank_pixels if pixels.shape[0] == pixels.shape[1] == TILE]
        lines.append(
            f"| {path.name}, {TILE} px of level 0 | {number} | | {len(blank_pixels)} | | "
            f"{instances(segmenter, whole)} |"
        )
    return lines


def background(segmenter: CenterSam, path: Path) -> list[str]:
    """Tiles without foreground beside those that the grid keeps, and what is found on them all the same."""
    from gigaseg.config import Preset
    from gigaseg.tiles.grid import Grid, grid
    from gigaseg.tiles.source import SlideTiles

    with tempfile.TemporaryDirectory() as work:
        info = inspect(path, slide="slide")
        info.write(Path(work) / "slide.json")
        grid(Path(work) / "slide.json", Path(work) / "grid.parquet", Path(work) / "foreground.tif", preset=Preset())
        made = Grid.read(Path(work) / "grid.parquet")
    around = np.pad(made.kept, 1)
    rows, cols = made.kept.shape
    near = np.logical_or.reduce([around[r : r + rows, c : c + cols] for r in range(3) for c in range(3)]) & ~made.kept
    source = SlideTiles(info, made.tiling)
    start, found = time.process_time(), 0
    for row, col in np.argwhere(near).tolist():
        image = torch.from_numpy(source.read(made.tiling.get(row, col))).permute(2, 0, 1)[None]
        found += len(segmenter.segment(batch(image))[0].scores)
    seconds = time.process_time() - start
    source.close()
    return [
        f"{path.name}: {len(made.row)} tiles kept; {near.sum()} more beside them have no foreground. The model would "
        f"take {seconds:.0f} s for these and find {found} instances there. The grid leaves them out."
    ]


def instances(segmenter: CenterSam, tiles: list[np.ndarray]) -> int:
    """Instances on tiles, of at most the first 40."""
    images = [torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] for pixels in tiles[:40]]
    return sum(len(segmenter.segment(batch(image))[0].scores) for image in images)


if __name__ == "__main__":
    main()
