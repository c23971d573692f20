"""Draw docs/stitching-noise.svg from the scenes of the tests: ``python docs/stitching_pictures.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from gigaseg.stitch.stitch import stitch_instances  # noqa: E402
from stitching import NOISE, noisy  # noqa: E402

SCALE, WIDTH, HEIGHT = 2.4, 96, 48
"""Pixels of the picture per working px; size of a scene (its rows 8 .. 56)."""

LEFT, RIGHT, RESULT = "#2962ff", "#ff6d00", "#00a047"


def main() -> None:
    """Write the picture."""
    step = HEIGHT * SCALE + 46
    columns = ("left tile", "right tile", "stitched")
    width = 3 * (WIDTH * SCALE + 24) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {len(NOISE) * step + 30:.0f}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for k, name in enumerate(columns):
        parts.append(f'<text x="{24 + k * (WIDTH * SCALE + 24):.0f}" y="20" font-weight="bold">{name}</text>')
    for number, name in enumerate(NOISE):
        left, right = NOISE[name]
        found, counts = stitch_instances(*noisy(name))
        told = ", ".join(f"{key} {value}" for key, value in vars(counts).items() if value and "instances" not in key)
        y = 30 + number * step
        parts.append(f'<text x="24" y="{y + 16:.0f}">{escape(f"{number + 1}. {name}: {told}")}</text>')
        for k, (shapes, colour) in enumerate(((left, LEFT), (right, RIGHT), (found.geometry, RESULT))):
            parts.append(panel(24 + k * (WIDTH * SCALE + 24), y + 24, shapes, colour, k))
    (HERE / "stitching-noise.svg").write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def panel(x: float, y: float, shapes: object, colour: str, which: int) -> str:
    """One view of a scene: the tiles' rectangles dashed, what the tile in question cannot see grey."""
    lines = [f'<g transform="translate({x:.0f} {y:.0f}) scale({SCALE}) translate(0 -8)" stroke-width="0.7">']
    blind = {0: (64, 32), 1: (0, 32)}.get(which)
    if blind:
        lines.append(f'<rect x="{blind[0]}" y="8" width="{blind[1]}" height="{HEIGHT}" fill="#e4e4e4"/>')
    lines.append(f'<rect x="32" y="8" width="32" height="{HEIGHT}" fill="#fff6d5"/>')
    lines += [
        f'<rect x="{start}" y="8" width="64" height="{HEIGHT}" fill="none" stroke="#888" stroke-dasharray="2 2"/>'
        for start in (0, 32)
    ]
    for shape in shapes:  # type: ignore[attr-defined]
        points = " ".join(f"{px:g},{py:g}" for px, py in shape.exterior.coords)
        lines += [f'<polygon points="{points}" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>']
    return "\n".join([*lines, "</g>"])


if __name__ == "__main__":
    main()
