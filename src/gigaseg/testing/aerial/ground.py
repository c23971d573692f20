"""The ground plan of a generated aerial scene: its look, streets, and where things are put.

Streets and plots are laid out in a plane of their own, (s, t) in m about the scene's centre, which is then turned and
gently bent: straight there is curved in the scene. Buildings, cars and trees are put in rigid, turned with the street.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gigaseg.testing.aerial.parts import (
    Building,
    Colour,
    Patch,
    Points,
    Surface,
    Tree,
    jitter,
    moved,
    rectangle,
    uniform_surface,
)  # fmt: skip
from gigaseg.testing.aerial.style import Style

VIEW_M = 14.0
"""Things so far outside the scene are kept: their shadows and crowns may reach in."""

_PITCH_M = 0.5

Rect = tuple[float, float, float, float]
"""Smallest s and t, largest s and t."""


class Ground:
    """What lies and stands in a scene; blocks of buildings are added by `gigaseg.testing.aerial.blocks`.

    Parameters
    ----------
    width_m, height_m : size of the scene.
    rng : what everything is drawn from.
    style : the look.

    Attributes
    ----------
    natural, paved, things : polygons in the order of painting: soft-edged ground, streets and lots, cars and the like.
    buildings, trees : what stands there.
    reach : half the side of the square in (s, t) that covers the view.
    """

    def __init__(self, width_m: float, height_m: float, rng: np.random.Generator, style: Style) -> None:
        self.size = np.array([width_m, height_m])
        self.rng, self.style = rng, style
        self.natural: list[Patch] = []
        self.paved: list[Patch] = []
        self.things: list[Patch] = []
        self.buildings: list[Building] = []
        self.trees: list[Tree] = []
        self.reach = math.hypot(width_m, height_m) / 2 + VIEW_M
        self._turn = rng.uniform(0, 2 * math.pi)
        bend = rng.choice([0, 0.08, 0.3])
        self._period = rng.uniform(150, 400, 2)
        self._swing = rng.uniform(0, bend, 2) * self._period / (2 * math.pi)
        self._phase = rng.uniform(0, 2 * math.pi, 2)
        shape = ((self.size[::-1] + 2 * VIEW_M) / _PITCH_M).astype(int) + 1
        self._taken = np.zeros(shape, bool)

    def scene(self, st: Points) -> Points:
        """(s, t) to x and y."""
        wave = np.sin(2 * math.pi * st[:, ::-1] / self._period + self._phase) * self._swing
        x, y = (self.size / 2).tolist()
        return moved(st + wave, x, y, self._turn)

    def at(self, s: float, t: float, turn: float = 0.0) -> tuple[float, float, float]:
        """x, y and angle of something at (s, t) that is turned by `turn` against the s axis."""
        x, y = self.scene(np.array([[s, t]]))[0].tolist()
        lean = math.cos(2 * math.pi * s / self._period[1] + self._phase[1])
        return x, y, turn + self._turn + math.atan2(lean * self._swing[1] * 2 * math.pi / self._period[1], 1)

    def outline(self, rect: Rect) -> Points:
        """A rectangle of the (s, t) plane as a polygon of the scene."""
        s0, t0, s1, t1 = rect
        across, down = (max(2, int(side / 8) + 2) for side in (s1 - s0, t1 - t0))
        s, t = np.linspace(s0, s1, across), np.linspace(t0, t1, down)
        edges = [
            (s, np.full(across, t0)),
            (np.full(down, s1), t),
            (s[::-1], np.full(across, t1)),
            (np.full(down, s0), t[::-1]),
        ]
        return self.scene(np.concatenate([np.stack(edge, 1)[:-1] for edge in edges]))

    def in_view(self, points: Points, margin: float = VIEW_M) -> bool:
        """Whether the box about some points touches the view."""
        low, high = points.min(0), points.max(0)
        return bool((high > -margin).all() and (low < self.size + margin).all())

    def lay(self, target: list[Patch], outline: Points, surface: Surface) -> None:
        """Add a polygon, unless it is out of view."""
        if self.in_view(outline):
            target.append(Patch(outline, surface))

    def put(
        self, at: tuple[float, float, float], length: float, width: float, surface: Surface, off: float = 0.0
    ) -> None:
        """Add a small rectangular thing, `off` m along its own length."""
        x, y = moved([[off, 0]], *at)[0].tolist()
        self.lay(self.things, rectangle(x, y, length, width, at[2]), surface)

    def build(self, building: Building, gap: float = 1.5) -> bool:
        """Add a building if nothing stands within `gap` m of it; whether it did."""
        corners = [part.corners() for part in building.parts]
        if not self.in_view(np.concatenate(corners)):
            return False
        taken = [self._cells(_grown(outline, gap)) for outline in corners]
        if any(self._taken[box][mask].any() for box, mask in taken):
            return False
        for outline in corners:
            box, mask = self._cells(outline)
            self._taken[box] |= mask
        self.buildings.append(building)
        return True

    def is_free(self, x: float, y: float) -> bool:
        """Whether a point is inside the view and not built upon."""
        col, row = int((x + VIEW_M) / _PITCH_M), int((y + VIEW_M) / _PITCH_M)
        height, width = self._taken.shape
        return 0 <= row < height and 0 <= col < width and not self._taken[row, col]

    def plant(self, x: float, y: float, radius: float, kind: str = "round", over: float = 0.15) -> None:
        """Add a tree; where a building stands only with the chance `over`."""
        rng = self.rng
        if -8 < x < self.size[0] + 8 and -8 < y < self.size[1] + 8 and (self.is_free(x, y) or rng.random() < over):
            colour = jitter(rng, self.style.crowns[rng.integers(4)], 0.14, 0.02)
            height = radius * (rng.uniform(2, 3.5) if kind == "cone" else rng.uniform(0.9, 2.4))
            self.trees.append(Tree(x, y, radius, max(height, 0.8), colour, kind))

    def _cells(self, outline: Points) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
        """Box and mask of a polygon on the grid of what is taken."""
        points = (outline + VIEW_M) / _PITCH_M
        limit = np.array(self._taken.shape[::-1])
        low = np.floor(points.min(0)).astype(int).clip(0, limit)
        high = (np.ceil(points.max(0)).astype(int) + 1).clip(low, limit)
        width, height = (high - low).tolist()
        box = slice(low[1], high[1]), slice(low[0], high[0])
        if not width or not height:
            return box, np.zeros((height, width), bool)
        image = Image.new("1", (width, height))
        ImageDraw.Draw(image).polygon([tuple(p) for p in points - low], fill=1, outline=1)
        return box, np.asarray(image)


def split(
    rng: np.random.Generator, rect: Rect, side: float, width: float
) -> tuple[list[Rect], list[tuple[Rect, float]]]:
    """Cut a rectangle by streets until blocks are about `side` m; blocks, and each street's strip and width."""
    s0, t0, s1, t1 = rect
    long = max(s1 - s0, t1 - t0)
    if long < side * rng.uniform(1.1, 2) or long < 2 * width + 20:
        return [rect], []
    cut, half = long * rng.uniform(0.35, 0.65), width / 2
    if s1 - s0 >= t1 - t0:
        first, second, strip = (
            (s0, t0, s0 + cut - half, t1),
            (s0 + cut + half, t0, s1, t1),
            (s0 + cut - half, t0 - half, s0 + cut + half, t1 + half),
        )
    else:
        first, second, strip = (
            (s0, t0, s1, t0 + cut - half),
            (s0, t0 + cut + half, s1, t1),
            (s0 - half, t0 + cut - half, s1 + half, t0 + cut + half),
        )
    blocks, streets = [], [(strip, width)]
    for part in (first, second):
        more_blocks, more_streets = split(rng, part, side, max(width * rng.uniform(0.75, 1), 4))
        blocks += more_blocks
        streets += more_streets
    return blocks, streets


def pave_streets(ground: Ground, streets: list[tuple[Rect, float]]) -> None:
    """Paint streets with what belongs to them: sidewalks, markings, cars, trees."""
    rng, style = ground.rng, ground.style
    surface, kerb = style.street(), style.sidewalk()
    verge = style.lawn() if rng.random() < 0.5 else style.soil()
    sidewalk = rng.uniform(1.2, 2.5) if style.sidewalks else 0.0
    for (s0, t0, s1, t1), width in streets:
        edge = rng.uniform(0, min(1.5, width / 6))
        ground.lay(ground.natural, ground.outline((s0 - 1, t0 - 1, s1 + 1, t1 + 1)), verge)
        if sidewalk and width > 6:
            ground.lay(ground.paved, ground.outline((s0 + edge, t0 + edge, s1 - edge, t1 - edge)), kerb)
    target = ground.natural if style.dirt_streets else ground.paved
    for (s0, t0, s1, t1), width in streets:
        inset = sidewalk + min(0.8, width / 8) if width > 6 else 0.4
        ground.lay(target, ground.outline((s0 + inset, t0 + inset, s1 - inset, t1 - inset)), surface)
    paint = uniform_surface(jitter(rng, (0.85, 0.85, 0.8), 0.1))
    trees = rng.random() < 0.4
    for (s0, t0, s1, t1), width in streets:
        along_s, length = s1 - s0 > t1 - t0, max(s1 - s0, t1 - t0)
        middle = (t0 + t1) / 2 if along_s else (s0 + s1) / 2
        start = s0 if along_s else t0
        turn = 0.0 if along_s else math.pi / 2

        def place(
            along: float, off: float, a: bool = along_s, b: float = start, c: float = middle, d: float = turn
        ) -> tuple[float, float, float]:
            return ground.at(b + along, c + off, d) if a else ground.at(c + off, b + along, d)

        if style.markings and width > 7:
            step = rng.choice([0, 4, 6])
            for along in np.arange(3, length - 3, step or 3):
                if rng.random() < 0.95:
                    ground.lay(ground.paved, rectangle(*_flat(place(along, 0), 2.0 if step else 3.1, 0.15)), paint)
        for along in np.arange(4, length - 4, 7):
            if rng.random() < 0.3 * style.cars:
                side = rng.choice([-1, 1])
                add_car(ground, place(along, side * width * rng.choice([0.18, 0.26])))
            if trees and rng.random() < 0.35 * style.trees:
                x, y, _ = place(along, rng.choice([-1, 1]) * (width / 2 - 0.3))
                ground.plant(x, y, rng.uniform(1.5, 4))


def _flat(at: tuple[float, float, float], length: float, width: float) -> tuple[float, float, float, float, float]:
    return at[0], at[1], length, width, at[2]


_PAINTS: tuple[Colour, ...] = (
    (0.92, 0.92, 0.92), (0.9, 0.9, 0.9), (0.75, 0.76, 0.78), (0.55, 0.56, 0.58), (0.12, 0.12, 0.13), (0.16, 0.16, 0.2),
    (0.6, 0.12, 0.12), (0.15, 0.22, 0.45), (0.7, 0.65, 0.5), (0.2, 0.35, 0.25), (0.85, 0.7, 0.15),
)  # fmt: skip


def add_car(ground: Ground, at: tuple[float, float, float], trucks: float = 0.12) -> None:
    """A car, or with the chance `trucks` a van, truck or bus."""
    rng = ground.rng
    body = jitter(rng, _PAINTS[rng.integers(len(_PAINTS))], 0.05, 0.02)
    glass, is_large = (0.14, 0.16, 0.19), rng.random() < trucks
    if not is_large:
        length, width, height = rng.uniform(3.8, 5), rng.uniform(1.65, 1.95), rng.uniform(1.35, 1.8)
        ground.put(at, length, width, uniform_surface(body, height=0.9))
        ground.put(at, length * 0.56, width * 0.88, uniform_surface(glass, height=height - 0.1), -0.05 * length)
        ground.put(at, length * 0.34, width * 0.8, uniform_surface(body, height=height), -0.07 * length)
        return
    length, width, height = rng.uniform(6, 14), rng.uniform(2.2, 2.6), rng.uniform(2.4, 3.8)
    ground.put(at, length, width, uniform_surface(body, height=height, stripe=(1.2, at[2], rng.choice([0, 0.05]))))
    if rng.random() < 0.65:
        cab = jitter(rng, _PAINTS[rng.integers(len(_PAINTS))], 0.05, 0.02)
        ground.put(at, 2.0, width, uniform_surface(cab, height=2.5), length / 2 + 1.2)
        ground.put(at, 0.5, width * 0.9, uniform_surface(glass, height=2.3), length / 2 + 2.1)


def _grown(outline: Points, gap: float) -> Points:
    """A polygon pushed outwards from its middle by about `gap` m."""
    middle = (outline.min(0) + outline.max(0)) / 2
    away = outline - middle
    return np.asarray(middle + away * (1 + gap * 1.3 / np.maximum(np.hypot(*away.T), 1))[:, np.newaxis])
