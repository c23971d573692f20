"""How a single building or a wood gets into a generated aerial scene."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gigaseg.testing.aerial.ground import Ground, Rect
from gigaseg.testing.aerial.parts import (
    Building,
    Part,
    Patch,
    Surface,
    assemble,
    jitter,
    moved,
    rectangle,
    uniform_surface,
)

At = tuple[float, float, float]

_SHAPES = {
    "rect": 6,
    "L": 2.2,
    "T": 1.2,
    "U": 0.6,
    "H": 0.25,
    "plus": 0.3,
    "step": 1.2,
    "polygon": 0.12,
    "round": 0.12,
    "free": 0.2,
}


def _random_shape(ground: Ground) -> str:
    weights = np.array(list(_SHAPES.values()))
    return str(ground.rng.choice(list(_SHAPES), p=weights / weights.sum()))


def furnish(ground: Ground, building: Building, large: bool = False) -> None:
    """Put chimneys, roof windows, solar panels, machines on a roof."""
    rng, style = ground.rng, ground.style
    for part in building.parts:
        flat = part.roof.kind == "flat"
        at = part.x, part.y, part.angle

        def put(u: float, v: float, a: float, b: float, surface: Surface, at: At = at) -> None:
            x, y = moved([[u, v]], *at)[0].tolist()
            building.things.append(Patch(rectangle(x, y, a, b, at[2]), surface))

        u, v = part.length / 2 - 1, part.width / 2 - 1
        if min(u, v) < 1:
            continue
        grey = uniform_surface(jitter(rng, (0.6, 0.6, 0.6), 0.25), height=rng.uniform(0.6, 1.6))
        if flat:
            for _ in range(rng.poisson(min(part.length * part.width / 90, 14) * rng.choice([0.2, 1]))):
                put(rng.uniform(-u, u), rng.uniform(-v, v), rng.uniform(0.6, 2.8), rng.uniform(0.6, 2), grey)
            if min(u, v) > 4 and rng.random() < 0.4:
                hut = uniform_surface(jitter(rng, part.roof.colour, 0.15), height=rng.uniform(2, 3.5))
                put(rng.uniform(-0.6, 0.6) * u, rng.uniform(-0.6, 0.6) * v, rng.uniform(3, 6), rng.uniform(2.5, 4), hut)
        elif not large:
            for _ in range(rng.poisson(0.5)):
                stack = uniform_surface(jitter(rng, (0.5, 0.38, 0.33), 0.25), height=rng.uniform(0.8, 1.4))
                put(rng.uniform(-u, u), rng.normal(0, 0.3 * v), rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.7), stack)
            window = uniform_surface(jitter(rng, (0.3, 0.35, 0.42), 0.3), height=0.05)
            for _ in range(rng.poisson(0.7)):
                put(rng.uniform(-u, u), rng.choice([-0.5, 0.5]) * v, 0.8, 1.2, window)
        elif rng.random() < 0.5:
            pale = uniform_surface(jitter(rng, (0.82, 0.84, 0.82), 0.1), height=0.02)
            for along in np.arange(-u + 3, u - 2, rng.uniform(4, 9)):
                for side in (-0.5, 0.5):
                    put(float(along), side * v, 1.0, v * 0.6, pale)
        if rng.random() < style.solar and min(u, v) > 1.8:
            panel = uniform_surface(
                jitter(rng, (0.12, 0.15, 0.24), 0.2), (0.3, 0.33, 0.4), stripe=(1.0, at[2], 0.25), height=0.15
            )
            off = 0.0 if flat else rng.choice([-0.5, 0.5]) * v
            put(rng.uniform(-0.3, 0.3) * u, off, rng.uniform(0.5, 1) * u, v * (1 if flat else 0.7), panel)


def raise_building(
    ground: Ground, at: At, size: tuple[float, float], shape: str | None = None, eave: float | None = None,
    large: bool = False, form: str | None = None, gap: float = 1.5,
) -> bool:  # fmt: skip
    """Build a house or hall about `at`; whether there was room."""
    rng = ground.rng
    shape = shape or _random_shape(ground)
    if min(size) < 6 and shape not in ("rect", "round", "free"):
        shape = "rect"
    if size[1] > size[0]:
        at, size = (at[0], at[1], at[2] + math.pi / 2), (size[1], size[0])
    roof = ground.style.roof(form, large)
    eave = eave or float(rng.choice([2.6, 3.2, 5.5, 6.5], p=[0.35, 0.3, 0.25, 0.1])) * rng.uniform(0.9, 1.1)
    parts = assemble(rng, shape, at, size, eave, roof)
    if len(parts) > 1 and rng.random() < 0.3:
        parts[1:] = [replace(part, eave=part.eave * rng.uniform(0.75, 1.1)) for part in parts[1:]]
    if len(parts) > 1 and rng.random() < 0.12:
        parts[-1] = replace(parts[-1], roof=ground.style.roof(None, large))
    if shape == "rect" and rng.random() < 0.2 and min(size) > 6:  # a porch, carport or annexe under a lower roof
        side = rng.choice([-1, 1])
        x, y = moved([[rng.uniform(-0.2, 0.2) * size[0], side * (size[1] / 2 + 1.2)]], *at)[0].tolist()
        lean_to = ground.style.roof("shed" if rng.random() < 0.6 else "flat", large)
        angle = at[2] + (math.pi if side < 0 else 0) + math.pi
        parts.append(
            Part(x, y, size[0] * rng.uniform(0.3, 0.6), 3.0, angle, min(eave, 2.6), replace(lean_to, slope=0.1))
        )
    building = Building(parts, ground.style.wall())
    if not ground.build(building, gap):
        return False
    furnish(ground, building, large)
    return True


def scatter_trees(ground: Ground, rect: Rect, per_hectare: float, low: float = 1.2, high: float = 5.0) -> None:
    """Trees alone and in clumps."""
    rng = ground.rng
    s0, t0, s1, t1 = rect
    area = max(0.0, s1 - s0) * max(0.0, t1 - t0)
    kinds = rng.choice(["round", "cone", "star"], p=[0.8, 0.12, 0.08], size=3)
    count, clump = min(rng.poisson(area / 1e4 * per_hectare), 1500), rng.choice([1, 2, 4, 9])
    while count > 0:
        s, t = rng.uniform(s0, s1), rng.uniform(t0, t1)
        size = low + (high - low) * rng.beta(1.3, 2.2)
        for _ in range(int(rng.integers(1, clump + 1))):
            x, y, _ = ground.at(s, t)
            ground.plant(x, y, size * rng.uniform(0.7, 1.25), str(kinds[rng.integers(3)]))
            s, t = (
                float(np.clip(s + rng.normal(0, 1.3 * size), s0, s1)),
                float(np.clip(t + rng.normal(0, 1.3 * size), t0, t1)),
            )
            count -= 1
