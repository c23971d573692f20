"""From label images to polygons, beside other tools: ``python benchmarks/polygons.py [--data FOLDER] [--before FILE]``.

Every tool gets the same label images and gives shapely geometries of the same instances. The time is processor time of
one thread, the least of several runs; *exact* means that drawing the outlines gives back every pixel and that the areas
are the numbers of pixels. The data sets lie in the folder that GIGASEG_DATA names (else ../shared/data).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import rasterio
import shapely
import skimage
from machine import processor
from PIL import Image
from rasterio.features import rasterize, shapes
from scipy.ndimage import find_objects
from skimage.measure import find_contours

from gigaseg.instances.polygons import polygons_from_labels, polygons_from_masks
from gigaseg.instances.tile import HostInstances, tile_rows
from gigaseg.testing.labels import label_image
from gigaseg.tiles.tiling import Tiling

HERE = Path(__file__).parent
PITCH_PX, DIAMETER_PX = 36, 24
"""Of the generated nuclei: mean distance and mean diameter, px."""

HARD = ("porous", "fibres", "crowd")
EACH = {"monuseg": 2, "dsb2018": 24}
"""Images of each data set, evenly drawn."""

Tool = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From a label image to the labels, ascending, and their geometries."""


def nuclei(side: int, seed: int) -> np.ndarray:
    """Uneven ellipses on a jittered grid, some of them in contact."""
    random = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    cells = side // PITCH_PX
    for index in range(cells**2):
        centre = (np.array(divmod(index, cells)) + 0.5) * side / cells + random.uniform(-8, 8, 2)
        axes = random.normal(DIAMETER_PX / 2, 2, 2).clip(6)
        wobble = 1 + 0.06 * np.cos(3 * angle + random.uniform(0, 6)) + 0.03 * np.cos(5 * angle + random.uniform(0, 6))
        outline = centre + axes * np.stack([np.cos(angle), np.sin(angle)], axis=1) * wobble[:, None]
        cv2.fillPoly(labels, [np.round(16 * outline).astype(np.int32)], index + 1, shift=4)
    return labels


def crops(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Label, mask with a margin of one pixel, (x, y) of the mask's corner."""
    for index, box in enumerate(find_objects(labels)):
        if box is not None:
            rows, cols = box
            yield index + 1, np.pad(labels[box] == index + 1, 1), (cols.start - 1, rows.start - 1)


def assemble(rings: list[np.ndarray], of_polygon: list[int], of_label: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Geometry of each label from its rings, all at once; of each polygon the shell is the first one.

    Parameters
    ----------
    rings : (k, 2) points each. of_polygon : number of each ring's polygon. of_label : label of each polygon.
    """
    points = np.concatenate(rings).astype(float)
    lines = shapely.linearrings(points, indices=np.repeat(np.arange(len(rings)), [len(ring) for ring in rings]))
    parts = shapely.polygons(lines, indices=of_polygon)
    ids, first, place = np.unique(of_label, return_index=True, return_inverse=True)
    order = np.argsort(place, kind="stable")
    geometry = shapely.multipolygons(parts[order], indices=place[order])
    single = np.bincount(place) == 1
    geometry[single] = parts[first[single]]
    return ids, geometry


def opencv(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _opencv(labels, double=False)


def opencv_doubled(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _opencv(labels, double=True)


def _opencv(labels: np.ndarray, *, double: bool) -> tuple[np.ndarray, np.ndarray]:
    """Through the middles of the rim's pixels; those of an image of doubled size, halved, lie on the pixels' edges."""
    rings: list[np.ndarray] = []
    of_polygon: list[int] = []
    of_label: list[int] = []
    for index, mask, corner in crops(labels):
        picture = mask.view(np.uint8)
        if double:
            picture = picture.repeat(2, 0).repeat(2, 1)
        found, tree = cv2.findContours(picture, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for shell in np.flatnonzero(tree[0, :, 3] < 0):
            for ring in (shell, *np.flatnonzero(tree[0, :, 3] == shell)):
                points = found[ring][:, 0]
                points = (points + 1) // 2 if double else points + 0.5
                if len(points) < 3:  # a line of pixels
                    points = points[[0, -1, 0, 0]]
                rings.append(points + corner)
                of_polygon.append(len(of_label))
            of_label.append(index)
    return assemble(rings, of_polygon, of_label)


def gdal(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rings: list[np.ndarray] = []
    of_polygon: list[int] = []
    of_label: list[int] = []
    for outline, value in shapes(labels, mask=labels > 0, connectivity=4):
        for ring in outline["coordinates"]:
            rings.append(np.array(ring))
            of_polygon.append(len(of_label))
        of_label.append(int(value))
    return assemble(rings, of_polygon, of_label)


def scikit_image(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half-way between the middles of pixels inside and outside; of each label the rings, holes among them."""
    ids, geometry = [], []
    for index, mask, corner in crops(labels):
        rings = [shapely.Polygon(ring[:, ::-1] + 0.5 + corner) for ring in find_contours(mask.astype(np.float32), 0.5)]
        rings.sort(key=lambda ring: -ring.area)
        whole = rings[0]
        for ring in rings[1:]:
            whole = whole.symmetric_difference(ring)
        ids.append(index)
        geometry.append(whole)
    return np.array(ids), np.array(geometry, dtype=object)


def from_masks(labels: np.ndarray) -> Callable[[], object]:
    found = list(crops(labels))
    masks, origins = [mask for _, mask, _ in found], np.array([corner for *_, corner in found])
    return lambda: polygons_from_masks(masks, origins)


def rows(labels: np.ndarray) -> Callable[[], object]:
    """`tile_rows` of a label map as it comes from the device."""
    count, side = int(labels.max()), max(labels.shape)
    host = HostInstances(np.ones(count, np.float32), np.ones((count, 1), np.float32), labels=labels)
    tiling = Tiling(side, 64, 10 * side, 10 * side, (1.0, 1.0), (1.0, 1.0), "px")
    return lambda: tile_rows(host, tiling.get(1, 1), tiling, ("nucleus",))


def seconds(calls: list[Callable[[], object]], repeats: int) -> float:
    """Processor time of all calls, of each the least of the repeats."""
    total = 0.0
    for call in calls:
        times = []
        for _ in range(repeats):
            begin = time.process_time()
            call()
            times.append(time.process_time() - begin)
        total += min(times)
    return total


def judge(tool: Tool, images: list[np.ndarray]) -> list[str]:
    """How many instances are not exact, not valid; mean IoU with the exact outlines, where they differ."""
    wrong = invalid = count = 0
    total = 0.0
    for labels in images:
        true_ids, truth = polygons_from_labels(labels)
        ids, geometry = tool(labels)
        found = np.full(len(truth), shapely.Polygon(), dtype=object)
        found[np.searchsorted(true_ids, ids)] = geometry
        drawn = rasterize(zip(found, true_ids), out_shape=labels.shape, dtype=np.int32)
        pixels = np.bincount(labels.reshape(-1), minlength=true_ids[-1] + 1)
        differs = np.unique(np.r_[labels[drawn != labels], drawn[drawn != labels]])
        exact = (shapely.area(found) == pixels[true_ids]) & ~np.isin(true_ids, differs)
        valid = shapely.is_valid(found)
        sound = np.where(valid, found, shapely.make_valid(found))
        common = shapely.area(shapely.intersection(sound, truth))
        total += float((common / (shapely.area(sound) + shapely.area(truth) - common)).sum())
        wrong, invalid, count = wrong + int((~exact).sum()), invalid + int((~valid).sum()), count + len(truth)
    return [
        "all" if not wrong else f"all but {wrong}" if wrong < count else "none",
        str(invalid),
        f"{total / count:.3f}",
    ]


def cases(folder: Path) -> dict[str, list[np.ndarray]]:
    found = {f"generated, {side}² px": [nuclei(side, 0)] for side in (512, 1024)}
    for name, each in EACH.items():
        files = sorted((folder / name / "labels").iterdir()) if (folder / name).is_dir() else []
        chosen = [files[i] for i in np.linspace(0, len(files) - 1, each).round().astype(int)] if files else []
        images = [np.array(Image.open(file)).astype(np.int32) for file in chosen]
        sides = sorted({max(image.shape) for image in images})
        if images:
            found[f"{name}, {len(images)} images of {sides[0]}-{sides[-1]} px"] = images
    found |= {f"`{kind}`, 512² px": [label_image(kind, (512, 512), 0).astype(np.int32)] for kind in HARD}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with monuseg and dsb2018")
    parser.add_argument("--before", type=Path, help="another version of gigaseg/instances/polygons.py to time")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tools: dict[str, Tool] = {"**gigaseg**": polygons_from_labels}
    if arguments.before:
        spec = importlib.util.spec_from_file_location("before", arguments.before)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tools["gigaseg before"] = module.polygons_from_labels
    tools |= {
        f"OpenCV {cv2.__version__} `findContours`": opencv,
        "the same on the doubled image": opencv_doubled,
        f"rasterio {rasterio.__version__} `shapes`": gdal,
        f"scikit-image {skimage.__version__} `find_contours`": scikit_image,
    }
    lines = []
    for name, images in cases(arguments.data).items():
        lines += table(name, images, tools)
    text = report(lines)
    (HERE / "results" / "polygons.md").write_text(text, encoding="utf-8")
    print(text)


def table(name: str, images: list[np.ndarray], tools: dict[str, Tool]) -> list[str]:
    count = sum(len(np.unique(image[image > 0])) for image in images)
    areas = np.concatenate([np.bincount(image[image > 0])[1:] for image in images])
    size = np.sqrt(4 / np.pi * np.median(areas[areas > 0]))
    lines = [
        f"## {name}: {count:,} instances, median diameter {size:.0f} px",
        "",
        "| tool | ms | instances a second | exact | invalid | mean IoU |",
        "|---|---|---|---|---|---|",
    ]

    def line(tool: str, calls: list[Callable[[], object]], repeats: int, verdict: list[str]) -> None:
        cost = seconds(calls, repeats)
        lines.append(f"| {tool} | {1e3 * cost:.1f} | {count / cost:,.0f} | {' | '.join(verdict)} |")

    for tool, run in tools.items():
        line(
            tool,
            [lambda image=image, run=run: run(image) for image in images],
            7 if "gigaseg" in tool else 2,
            judge(run, images),
        )
        if tool == "**gigaseg**":
            line("gigaseg, of separate masks", [from_masks(image) for image in images], 7, ["", "", ""])
            line("gigaseg, from label map to rows of the table", [rows(image) for image in images], 7, ["", "", ""])
    return [*lines, ""]


def report(lines: list[str]) -> str:
    return "\n".join(
        [
            "# From label images to polygons",
            "",
            "`python benchmarks/polygons.py`; *gigaseg before* is the code of commit c3ae1af: `git show "
            "c3ae1af:src/gigaseg/instances/polygons.py > before.py; python benchmarks/polygons.py --before before.py`.",
            "",
            f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, shapely "
            f"{shapely.__version__}; shared with other work. Processor time of one thread, the least of 7 runs of "
            "gigaseg and of 2 of the others.",
            "",
            "*exact*: drawn, the outlines give back the very pixels, and the areas are the numbers of pixels. "
            "*invalid*: instances whose geometry is not valid. *mean IoU* with the exact outlines. OpenCV runs through "
            "the middles of the pixels on the rim, half a pixel inside the edge, and loses lines of pixels; on the "
            "image of doubled size, its points halved again, it follows the edges, but pixels that share only a corner "
            "make outlines that touch themselves. scikit-image runs half-way between the middles, across corners.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()
