"""What a generated aerial scene is made of: surfaces, roofs, buildings, trees; all lengths in metres.

x points right and y down from the scene's top-left corner, angles turn from x to y. Colours are display RGB, 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]
Points = npt.NDArray[np.float64]

NOISE_M = (0.5, 2.0, 8.0, 30.0)
"""Periods of the noise that a surface is mixed by, m."""

ROOF_COLOURS: dict[str, Colour] = {
    "red": (0.62, 0.27, 0.20), "terracotta": (0.70, 0.43, 0.31), "orange": (0.80, 0.48, 0.28),
    "maroon": (0.52, 0.22, 0.24), "brown": (0.42, 0.32, 0.27), "rust": (0.52, 0.36, 0.27),
    "slate": (0.32, 0.33, 0.36), "grey": (0.50, 0.50, 0.50), "light": (0.70, 0.70, 0.69),
    "white": (0.92, 0.92, 0.90), "black": (0.18, 0.18, 0.19), "blue": (0.30, 0.43, 0.62),
    "green": (0.36, 0.50, 0.40), "beige": (0.74, 0.68, 0.57), "tan": (0.60, 0.53, 0.44),
}  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """How a piece of ground or a small thing looks.

    Attributes
    ----------
    colour, other : the two colours it varies between.
    mix : weight of the noise of each period of `NOISE_M` in that variation.
    grain : standard deviation of its brightness from pixel to pixel.
    stripe : period in m, direction, relative amplitude; no stripes when the amplitude is 0.
    height : m above the ground or the roof it lies on.
    rough : m by which its height varies.
    """

    colour: Colour
    other: Colour
    mix: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.1)
    grain: float = 0.03
    stripe: tuple[float, float, float] = (1.0, 0.0, 0.0)
    height: float = 0.0
    rough: float = 0.0


@dataclass(frozen=True)
class Patch:
    """A polygon, (n, 2) x and y, with its surface."""

    outline: Points
    surface: Surface


@dataclass(frozen=True)
class Roof:
    """Form and covering of a roof.

    Attributes
    ----------
    kind : one of flat, gable, hip, pyramid, mansard, shed, sawtooth, barrel, skeleton, cone.
    colour, other : the covering, and what it weathers to.
    slope : rise over run.
    sheet : width and length of its sheets or panels, m; how much they differ from each other.
    rows : distance of tile rows or ribs in m, relative amplitude, and whether they run down the slope.
    age : weight of the noise in the weathering.
    ridge, eaves : relative brightness of ridge and rim.
    parapet : height of the rim of a flat roof, m.
    """

    kind: str
    colour: Colour
    other: Colour
    slope: float = 0.4
    sheet: tuple[float, float, float] = (1.0, 3.0, 0.0)
    rows: tuple[float, float, bool] = (0.4, 0.0, True)
    age: float = 0.3
    grain: float = 0.03
    ridge: float = 1.0
    eaves: float = 1.0
    parapet: float = 0.0


@dataclass(frozen=True)
class Part:
    """A wing of a building: a rectangle about (x, y), or `outline`, (n, 2) m from there in its own turned frame."""

    x: float
    y: float
    length: float
    width: float
    angle: float
    eave: float
    roof: Roof
    outline: Points | None = None

    def corners(self) -> Points:
        """Its outline, (n, 2), in the scene."""
        if self.outline is not None:
            return moved(self.outline, self.x, self.y, self.angle)
        return rectangle(self.x, self.y, self.length, self.width, self.angle)


@dataclass(frozen=True)
class Building:
    """Wings whose highest roof is seen, the colour of the walls and what stands on the roof."""

    parts: list[Part]
    wall: Colour = (0.7, 0.68, 0.64)
    things: list[Patch] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """A crown: centre, radius, height; kind is "round", "cone", "star" or "bush"."""

    x: float
    y: float
    radius: float
    height: float
    colour: Colour
    kind: str = "round"


def moved(points: npt.ArrayLike, x: float, y: float, angle: float) -> Points:
    """Points turned by `angle` and shifted to (x, y)."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(np.asarray(points, float) @ np.array([[c, s], [-s, c]]) + (x, y))


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> Points:
    """The corners of a turned rectangle."""
    u, v = length / 2, width / 2
    return moved([[-u, -v], [u, -v], [u, v], [-u, v]], x, y, angle)


def jitter(rng: np.random.Generator, colour: Colour, light: float = 0.1, hue: float = 0.03) -> Colour:
    """A colour like `colour`: brightness varied by the factor `light`, channels by `hue`."""
    value = np.array(colour) * (1 + light * rng.standard_normal()) * (1 + hue * rng.standard_normal(3))
    r, g, b = value.clip(0.02, 0.98).tolist()
    return r, g, b


def wings(rng: np.random.Generator, shape: str, length: float, width: float, hipped: bool) -> list[tuple[float, ...]]:
    """Rectangles (u, v, size along u, size along v) that make a footprint within length x width m.

    Parameters
    ----------
    shape : rect, L, T, U, H, plus, step or ring (a courtyard).
    hipped : the roof slopes down at a wing's inner end too, which therefore reaches past the ridge it meets.
    """
    deep = width * rng.uniform(0.42, 0.62)
    wing = min(length * rng.uniform(0.28, 0.42), deep)
    inner = -width / 2 + deep / 2 - (wing / 2 if hipped else 0)
    middle, reach = (inner + width / 2) / 2, width / 2 - inner
    main = (0.0, -width / 2 + deep / 2, length, deep)
    end = length / 2 - wing / 2
    side = 1 if rng.random() < 0.5 else -1
    if shape == "L":
        return [main, (side * end, middle, wing, reach)]
    if shape == "T":
        return [main, (rng.uniform(-0.4, 0.4) * end, middle, wing, reach)]
    if shape == "U":
        return [main, (-end, middle, wing, reach), (end, middle, wing, reach)]
    if shape == "H":
        bar = wing * rng.uniform(0.7, 1)
        return [(0, 0, length, bar), (-end, 0, wing, width), (end, 0, wing, width)]
    if shape == "plus":
        return [(0, 0, length, deep), (0, 0, deep * rng.uniform(0.8, 1), width)]
    if shape == "step":
        part = length * rng.uniform(0.45, 0.62)
        off = width * rng.uniform(0.1, 0.25)
        half = (length - part) / 2
        return [(-half, -off / 2, part, width - off), (half, off / 2, part, width - off)]
    if shape == "ring":
        bar = min(length, width) * rng.uniform(0.2, 0.3)
        u, v = (length - bar) / 2, (width - bar) / 2
        return [(0, -v, length, bar), (0, v, length, bar), (-u, 0, bar, width), (u, 0, bar, width)]
    return [(0, 0, length, width)]


def assemble(
    rng: np.random.Generator,
    shape: str,
    at: tuple[float, float, float],
    size: tuple[float, float],
    eave: float,
    roof: Roof,
) -> list[Part]:
    """The wings of a building at `at` (x, y, angle), within `size` (length, width)."""
    x, y, angle = at
    length, width = size
    if shape in ("round", "polygon", "free"):
        count = {"round": 28, "polygon": int(rng.integers(5, 9)), "free": int(rng.integers(4, 8))}[shape]
        spread = rng.uniform(0.2, 1, count) if shape == "free" else np.ones(count)
        turn = np.cumsum(spread) / spread.sum() * 2 * math.pi
        outline = np.stack([np.cos(turn) * length / 2, np.sin(turn) * (length if shape == "round" else width) / 2], 1)
        kind = roof.kind if roof.kind == "flat" else ("skeleton" if shape == "free" else "cone")
        return [
            Part(x, y, length, length if shape == "round" else width, angle, eave, replace(roof, kind=kind), outline)
        ]
    parts = []
    for u, v, along, down in wings(rng, shape, length, width, roof.kind in ("hip", "mansard")):
        px, py = moved([[u, v]], x, y, angle)[0].tolist()
        turned = down > along
        parts.append(
            Part(px, py, max(along, down), min(along, down), angle + (math.pi / 2 if turned else 0), eave, roof)
        )
    return parts


def uniform_surface(colour: Colour, other: Colour | None = None, **changes: Any) -> Surface:
    """A nearly even surface."""
    return Surface(colour, other or colour, **{"mix": (0.05, 0.05, 0.08, 0.08), "grain": 0.015, **changes})
