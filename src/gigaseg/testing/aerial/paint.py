"""Rendering of a generated aerial scene: colours, a height model, sunlight and shadows, and the lean of tall things."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gigaseg.testing.aerial.ground import Ground
from gigaseg.testing.aerial.parts import NOISE_M, Building, Part, Patch, Tree
from gigaseg.testing.aerial.roofs import profile, roof_look

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MARGIN_M = 7.0
"""Rendered around the scene, for the shadows and crowns that reach into it."""


@dataclass(frozen=True)
class Light:
    """The sun and the camera.

    Attributes
    ----------
    sun : unit vector towards the sun: x, y, up.
    sunlight, sky : colours of what reaches a lit flat surface from the sun and from the sky; their sum is about 1.
    lean : m by which something 1 m high is shifted in x and in y.
    """

    sun: tuple[float, float, float]
    sunlight: Field
    sky: Field
    lean: tuple[float, float]

    @staticmethod
    def draw(rng: np.random.Generator) -> Light:
        """Any time of a mostly clear day; every third camera looks aslant."""
        azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(28, 75))
        dull = rng.random() < 0.12
        share = rng.uniform(0.1, 0.35) if dull else rng.uniform(0.45, 0.8)
        warm = rng.uniform(-0.02, 0.06)
        level = math.cos(elevation)
        sky = (1 - share) * np.array([1 - 2 * warm, 1, 1 + 3 * warm], np.float32)
        sunlight = share * np.array([1 + warm, 1, 1 - 2 * warm], np.float32)
        tilt = rng.uniform(0.03, 0.3) if rng.random() < 0.35 else rng.uniform(0, 0.03)
        turn = rng.uniform(0, 2 * math.pi)
        return Light(
            (level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)), sunlight, sky,
            (tilt * math.cos(turn), tilt * math.sin(turn)),
        )  # fmt: skip


class Canvas:
    """Pixels of `pitch` m that everything is painted on, `MARGIN_M` wider than the scene on each side.

    Attributes
    ----------
    colour : (y, x, 3) float32, in full light.
    height : (y, x) float32, m.
    roof : bool, whether a roof lies there, trees or not.
    """

    def __init__(self, ground: Ground, shape: tuple[int, int], pitch: float, rng: np.random.Generator) -> None:
        self._ground, self._pitch, self._rng = ground, pitch, rng
        self.margin = math.ceil(MARGIN_M / pitch)
        self._shape = shape[0] + 2 * self.margin, shape[1] + 2 * self.margin
        self._noise = [self._smooth(period) for period in NOISE_M]
        self._grain = rng.standard_normal(self._shape, np.float32)
        self.height = np.zeros(self._shape, np.float32)
        self.colour = np.zeros((*self._shape, 3), np.float32)
        self._slope = np.zeros((2, *self._shape), np.float32)
        self.roof: Mask = np.zeros(self._shape, bool)
        self._roof_height = np.zeros(self._shape, np.float32)
        self._owner = np.zeros(self._shape, np.int32)
        self._paint_ground()
        for index, building in enumerate(ground.buildings, start=1):
            self._raise(building, index)
        self._furnish()
        self.foliage: Mask = np.zeros(self._shape, bool)
        for tree in sorted(ground.trees, key=lambda tree: tree.height):
            self._plant(tree)

    def _smooth(self, period_m: float) -> Field:
        """Noise of standard deviation about 1 that turns about every `period_m`."""
        height, width = self._shape
        step = max(period_m / self._pitch / 2, 1)
        size = math.ceil(width / step) + 5, math.ceil(height / step) + 5
        coarse = Image.fromarray(self._rng.standard_normal(size[::-1], np.float32))
        x, y = self._rng.uniform(1, 3, 2).tolist()
        box = x, y, x + width / step, y + height / step
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32) * 1.25

    def _pixels(self, points: npt.NDArray[Any]) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points / self._pitch + self.margin - 0.5).tolist()]

    def _index(self, patches: list[Patch], first: int) -> npt.NDArray[np.int32]:
        """Number of the topmost polygon of each pixel, counted from `first`; 0 where there is none."""
        image = Image.new("I", self._shape[::-1])
        draw = ImageDraw.Draw(image)
        for index, patch in enumerate(patches, start=first):
            draw.polygon(self._pixels(patch.outline), fill=index)
        return np.asarray(image, np.int32)

    def _paint_ground(self) -> None:
        ground = self._ground
        natural = self._index(ground.natural, 1)
        rows, cols = np.indices(self._shape, dtype=np.int32)
        # ground without kerbs has no straight edges
        wobble = [
            self._noise[1] * 0.35 + self._noise[0] * 0.12 + shift * 0.6
            for shift in (self._noise[2], self._noise[2][::-1, ::-1])
        ]
        for axis, shift in zip((rows, cols), wobble):
            axis += (shift / self._pitch).astype(np.int32)
            np.clip(axis, 0, self._shape[0 if axis is rows else 1] - 1, out=axis)
        index = natural[rows, cols]
        hard = self._index(ground.paved + ground.things, 1 + len(ground.natural))
        index = np.where(hard > 0, hard, index)
        colour, height = self._look(ground.natural + ground.paved + ground.things, index - 1, None)
        self.colour, self.height = colour.reshape(*self._shape, 3), height.reshape(self._shape)

    def _look(self, patches: list[Patch], index: npt.NDArray[np.int32], where: Mask | None) -> tuple[Field, Field]:
        """Colours (n, 3) and heights (n,) of the pixels `where` (None: all), each of the patch that `index` names."""
        surfaces = [patch.surface for patch in patches]

        def column(name: str) -> Field:
            return np.array([getattr(surface, name) for surface in surfaces], np.float32)

        def chosen(field: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return field.ravel() if where is None else field[where]

        of = chosen(index)
        fine = chosen(self._noise[0])
        mixed = np.full(len(of), 0.4, np.float32)
        for weight, noise in zip(2 * np.ascontiguousarray(column("mix").T), self._noise):
            mixed += weight[of] * chosen(noise)
        np.clip(mixed, 0, 1, out=mixed)
        light = 1 + column("grain")[of] * (chosen(self._grain) + fine)
        stripes = column("stripe")
        striped = np.flatnonzero((stripes[:, 2] > 0)[of])
        if len(striped):
            place = striped if where is None else np.flatnonzero(where)[striped]
            row, col = np.divmod(place, self._shape[1])
            period, angle, amplitude = stripes[of[striped]].T
            along = col * np.cos(angle) + row * np.sin(angle)
            shown = (period / self._pitch / 2 - 1).clip(0, 1)  # finer than two pixels: grey
            light[striped] *= 1 + shown * amplitude * np.sin(2 * math.pi * self._pitch / period * along)
        first, second = column("colour"), column("other")
        colour = (second - first)[of]
        colour *= mixed[:, np.newaxis]
        colour += first[of]
        colour *= light[:, np.newaxis]
        return colour, np.maximum(column("height")[of] * (1 + column("rough")[of] * fine), 0)

    def _window(self, low: npt.NDArray[Any], high: npt.NDArray[Any]) -> tuple[tuple[slice, slice], Field, Field] | None:
        """The pixels of a box in m, and their x and y; None if it is outside."""
        limit = np.array(self._shape[::-1])
        first = np.floor(low / self._pitch + self.margin - 1).astype(int).clip(0, limit)
        last = np.ceil(high / self._pitch + self.margin + 1).astype(int).clip(0, limit)
        if (last <= first).any():
            return None
        x, y = (((np.arange(a, b) + 0.5 - self.margin) * self._pitch).astype(np.float32) for a, b in zip(first, last))
        return (slice(first[1], last[1]), slice(first[0], last[0])), x[np.newaxis, :], y[:, np.newaxis]

    def _inside(self, part: Part, u: Field, v: Field) -> Mask:
        if part.outline is None:
            return (np.abs(u) <= part.length / 2) & (np.abs(v) <= part.width / 2)
        inside = np.ones(u.shape, bool)
        for (ax, ay), (bx, by) in zip(part.outline, np.roll(part.outline, -1, 0)):  # convex, turning from x to y
            inside &= (bx - ax) * (v - ay) - (by - ay) * (u - ax) >= 0
        return inside

    def _raise(self, building: Building, index: int) -> None:
        corners = np.concatenate([part.corners() for part in building.parts])
        window = self._window(corners.min(0), corners.max(0))
        if window is None:
            return
        box, x, y = window
        top = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
        even = np.zeros_like(top)
        colour, slope = np.zeros((*top.shape, 3), np.float32), np.zeros((2, *top.shape), np.float32)
        noise, grain = [field[box] for field in self._noise], self._grain[box]
        for part in building.parts:
            c, s = math.cos(part.angle), math.sin(part.angle)
            u, v = (x - part.x) * c + (y - part.y) * s, (y - part.y) * c - (x - part.x) * s
            inside = self._inside(part, u, v)
            form = profile(part, u, v, inside, self._pitch)
            higher = inside & (form.z > top)
            top[higher] = form.z[higher]
            even[higher] = (form.z - form.rim * np.float32(part.roof.parapet))[higher]
            colour[higher] = roof_look(part, form, noise, grain, self._pitch, self._rng)[higher]
            for axis, value in enumerate((form.du * c - form.dv * s, form.du * s + form.dv * c)):
                slope[axis][higher] = value[higher]
        higher = top > self.height[box]
        self.height[box][higher] = top[higher]
        self.colour[box][higher] = colour[higher]
        self._slope[:, box[0], box[1]][:, higher] = slope[:, higher]
        self.roof[box] |= top > 0
        self._roof_height[box] = np.maximum(self._roof_height[box], even)
        self._owner[box][higher] = index

    def _furnish(self) -> None:
        things = [thing for building in self._ground.buildings for thing in building.things]
        if not things:
            return
        index = self._index(things, 1)
        where = (index > 0) & self.roof
        colour, height = self._look(things, index - 1, where)
        self.colour[where] = colour
        self.height[where] += height
        box = np.zeros(self._shape, bool)
        box[where] = height > 0.3
        self._slope[:, box] = 0

    def _plant(self, tree: Tree) -> None:
        centre = np.array([tree.x, tree.y])
        window = self._window(centre - 1.2 * tree.radius, centre + 1.2 * tree.radius)
        if window is None:
            return
        box, x, y = window
        dx, dy = (x - tree.x) / tree.radius, (y - tree.y) / tree.radius
        lumps, coarse = self._noise[0][box], self._noise[1][box]
        distance = np.hypot(dx, dy)
        distance += 0.07 * lumps + 0.10 * coarse
        if tree.kind == "star":
            distance = distance * (1.3 + 0.55 * np.cos((9 + int(tree.radius)) * np.arctan2(dy, dx) + tree.x))
        inside = distance < 1
        if tree.kind == "cone":
            crown = 1 - 0.85 * distance + 0.05 * lumps
        else:
            crown = 0.45 + 0.55 * np.sqrt(np.maximum(1 - distance * distance, 0)) + 0.09 * lumps + 0.06 * coarse
        top = tree.height * crown
        higher = inside & (top > self.height[box])
        self.height[box][higher] = top[higher]
        self._slope[:, box[0], box[1]][:, higher] = 0
        light = (1 + 0.12 * lumps + 0.12 * self._grain[box])[higher]
        self.colour[box][higher] = np.array(tree.colour, np.float32) * light[:, np.newaxis]
        self.foliage[box] |= higher
        self._owner[box][higher] = 0

    def lit(self, light: Light) -> Field:
        """The colours under sun and sky, shadows cast."""
        lx, ly, lz = light.sun
        gy, gx = np.gradient(self.height, self._pitch)
        soft = self.foliage
        slope_x, slope_y = self._slope
        slope_x[soft], slope_y[soft] = gx[soft].clip(-1.5, 1.5), gy[soft].clip(-1.5, 1.5)
        facing = (lz - slope_x * lx - slope_y * ly) / np.sqrt(1 + slope_x**2 + slope_y**2) / lz
        facing = np.clip(facing, 0, 1.7) * (1 - self._shadow(light))
        return np.asarray(self.colour * (light.sky + light.sunlight * facing[..., np.newaxis]), np.float32)

    def _shadow(self, light: Light) -> Field:
        """1 where the sun is hidden by something higher, 0 where not."""
        lx, ly, lz = light.sun
        level = math.hypot(lx, ly)
        drop = lz / level * self._pitch
        reach = min(float(self.height.max()) / drop, 0.9 * max(self._shape))
        cover = _moved(self.height, lx / level, ly / level) - np.float32(drop)
        steps = 1
        while steps < reach:  # the highest of 1..2n steps away is that of 1..n, and of those n further on
            np.maximum(
                cover, _moved(cover, lx / level * steps, ly / level * steps) - np.float32(drop * steps), out=cover
            )
            steps *= 2
        return np.asarray(((cover - self.height) / 0.25).clip(0, 1), np.float32)

    def leaning(self, image: Field, light: Light) -> tuple[Field, Mask]:
        """The image and the roofs as a camera sees them that looks aslant: high things shifted, walls in view."""
        dx, dy = light.lean
        tilt = math.hypot(dx, dy)
        steps = math.ceil(tilt * float(self.height.max()) / self._pitch)
        if steps < 1 or tilt < 0.01:
            return image, self.roof
        back = np.array([dy, dx]) / tilt
        place = self._source(self.height, back, tilt, steps)
        hidden = self._source(self._roof_height, back, tilt, steps)
        step = self._pitch / tilt
        # higher than what the next step shows, and more than a roof climbs in a step: the face of a wall
        limit = step + 2.5 * self._pitch
        seen = image.reshape(-1, 3)[place[0]]
        rise = place[1] * np.float32(step)
        wall = (self.height.ravel()[place[0]] >= rise + limit) & (self._owner.ravel()[place[0]] > 0)
        walls = np.array([(0.5, 0.5, 0.5), *(building.wall for building in self._ground.buildings)], np.float32)
        row, col = np.nonzero(wall)
        across = (col * back[0] - row * back[1]) * self._pitch
        window = (np.mod(rise[wall], 3) > 1.8) & (np.mod(across, 2.6) < 1.5)
        facade = walls[self._owner.ravel()[place[0][wall]]] * np.where(window, 0.4, 0.75)[:, np.newaxis]
        seen[wall] = facade * (light.sky + 0.4 * light.sunlight)
        high = self._roof_height.ravel()[hidden[0]] >= hidden[1] * np.float32(step) + limit
        return seen, self.roof.ravel()[hidden[0]] & ~high

    def _source(
        self, height: Field, back: npt.NDArray[np.float64], tilt: float, steps: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Flat index of the point that each pixel of a leaning image shows, and how many pixels it was shifted."""
        shifted = np.zeros(self._shape, np.int32)
        for step in range(1, steps + 1):  # the farthest that is high enough hides what is behind it
            y, x = (round(-step * part) for part in back)
            target, source = _overlap(self._shape, x, y)
            shifted[target][height[source] >= step * self._pitch / tilt] = step
        moves = np.round(-np.arange(steps + 1)[:, np.newaxis] * back).astype(np.int64) @ (self._shape[1], 1)
        return np.arange(shifted.size).reshape(self._shape) + moves[shifted], shifted


def _overlap(shape: tuple[int, ...], x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that have another (x, y) pixels further on, and those others."""
    height, width = shape[:2]
    x, y = max(-width, min(x, width)), max(-height, min(y, height))
    return (
        (slice(max(0, -y), height - max(0, y)), slice(max(0, -x), width - max(0, x))),
        (slice(max(0, y), height + min(0, y)), slice(max(0, x), width + min(0, x))),
    )


def _moved(field: Field, dx: float, dy: float) -> Field:
    """The field as seen (dx, dy) pixels further on, 0 outside."""
    result = np.zeros_like(field)
    target, source = _overlap(field.shape, round(dx), round(dy))
    result[target] = field[source]
    return result
