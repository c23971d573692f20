"""What fills the blocks between the streets of a generated aerial scene: houses, halls, parks, fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gigaseg.testing.aerial_layout import Ground, Rect, Style, add_car, pave_streets, split
from gigaseg.testing.aerial_parts import (
    Building, Part, Patch, Surface, assemble, jitter, moved, rectangle, uniform_surface,
)  # fmt: skip

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


def lay_out(width_m: float, height_m: float, seed: int, kind: str) -> Ground:
    """Everything in a scene of a kind of `AERIAL_KINDS`, in metres, before a pixel is drawn."""
    rng = np.random.default_rng([seed, list(_SCENES).index(kind)])
    ground = Ground(width_m, height_m, rng, Style(rng, kind))
    side, street, fillers = _SCENES[kind]
    reach = ground.reach
    whole = -reach, -reach, reach, reach
    base = ground.style.lawn(trimmed=False) if rng.random() < 0.6 else ground.style.soil()
    ground.lay(ground.natural, ground.outline(whole), base)
    blocks, streets = split(rng, whole, side * rng.uniform(0.75, 1.3), street * rng.uniform(0.75, 1.3))
    names, weights = list(fillers), np.array(list(fillers.values())) * rng.gamma(2.5, 1, len(fillers))
    for block in blocks:
        fill = FILLERS[str(rng.choice(names, p=weights / weights.sum()))]
        if ground.in_view(ground.outline(block)):
            fill(ground, block)
    pave_streets(ground, streets)
    return ground


def _random_shape(ground: Ground) -> str:
    weights = np.array(list(_SHAPES.values()))
    return str(ground.rng.choice(list(_SHAPES), p=weights / weights.sum()))


def _furnish(ground: Ground, building: Building, large: bool = False) -> None:
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


def _raise(
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
    _furnish(ground, building, large)
    return True


def _scatter_trees(ground: Ground, rect: Rect, per_hectare: float, low: float = 1.2, high: float = 5.0) -> None:
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


def _border(ground: Ground, rect: Rect, gate: int) -> None:
    """A wall, fence or hedge about a plot, open at the side `gate`."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = rect
    draw = rng.random()
    if draw < style.walls:
        width, height = rng.uniform(0.15, 0.35), rng.uniform(1.0, 2.4)
        surface = uniform_surface(jitter(rng, (0.66, 0.62, 0.56), 0.2), height=height, grain=0.05)
    elif draw < style.walls + style.hedges:
        width, height = rng.uniform(0.6, 1.6), rng.uniform(0.8, 2.5)
        surface = style.hedge(height)
    else:
        return
    sides = [(s0, t0, s1, t0 + width), (s1 - width, t0, s1, t1), (s0, t1 - width, s1, t1), (s0, t0, s0 + width, t1)]
    for index, side in enumerate(sides):
        if index != gate or rng.random() < 0.3:
            ground.lay(ground.paved, ground.outline(side), surface)


def _garden(ground: Ground, rect: Rect) -> None:
    """Small things in a plot: pool, trampoline, shed, patio, shrubs, heaps."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = rect

    def somewhere(margin: float) -> At:
        return ground.at(
            rng.uniform(s0 + margin, s1 - margin), rng.uniform(t0 + margin, t1 - margin), rng.choice([0, math.pi / 2])
        )

    if min(s1 - s0, t1 - t0) < 8:
        return
    if rng.random() < style.pools:
        x, y, angle = somewhere(3)
        if ground.is_free(x, y):
            length, width = rng.uniform(5, 10), rng.uniform(3, 5)
            ground.lay(ground.paved, rectangle(x, y, length + 2, width + 2, angle), style.sidewalk())
            ground.lay(ground.paved, rectangle(x, y, length, width, angle), style.water(pool=True))
    if rng.random() < 0.4:
        x, y, angle = somewhere(2)
        ground.lay(
            ground.natural,
            rectangle(x, y, rng.uniform(3, 9), rng.uniform(2, 6), angle),
            style.paved() if rng.random() < 0.5 else style.soil(),
        )
    if rng.random() < 0.12:
        x, y, _ = somewhere(2)
        turn = np.linspace(0, 2 * math.pi, 16, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], 1)
        radius = rng.uniform(1.2, 2.2)
        ground.lay(
            ground.paved, ring * radius + (x, y), uniform_surface(jitter(rng, (0.25, 0.4, 0.6), 0.3, 0.1), height=0.6)
        )
        ground.lay(ground.paved, ring * radius * 0.8 + (x, y), uniform_surface((0.12, 0.12, 0.13), height=0.6))
    if rng.random() < 0.35:
        _raise(ground, somewhere(2), (rng.uniform(2.2, 5), rng.uniform(1.8, 3.5)), "rect", rng.uniform(2, 2.6), gap=0.8)
    for _ in range(rng.poisson(1.2)):  # heaps, timber, tables, tanks
        x, y, angle = somewhere(1)
        colour = jitter(rng, (0.6, 0.57, 0.54), 0.4, 0.08)
        ground.put(
            (x, y, angle + rng.uniform(0, 3)),
            rng.uniform(0.4, 3),
            rng.uniform(0.4, 1.5),
            uniform_surface(colour, height=rng.uniform(0.2, 1.2)),
        )
    for _ in range(rng.poisson(2)):
        x, y, _ = somewhere(1)
        ground.plant(x, y, rng.uniform(0.4, 1.2), "bush", 0.0)
    _scatter_trees(ground, rect, 45 * style.trees, 1.0, 5.5)


def _houses(ground: Ground, block: Rect, scale: float = 1.0) -> None:
    """Plots in rows along the streets, most with a house."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    swap = t1 - t0 > s1 - s0
    long, short = (t1 - t0, s1 - s0) if swap else (s1 - s0, t1 - t0)
    rows = max(1, round(short / (rng.uniform(20, 38) * scale)))
    depth = short / rows
    plot = rng.uniform(11, 30) * scale
    usual = rng.uniform(0.35, 0.85)
    for row in range(rows):
        cuts = np.arange(0, long - 0.6 * plot, plot) + rng.uniform(-0.1, 0.1) * plot
        cuts[0] = 0
        for a, b in zip(cuts, [*cuts[1:], long]):
            near, far = row * depth, (row + 1) * depth
            rect = (s0 + near, t0 + a, s0 + far, t0 + b) if swap else (s0 + a, t0 + near, s0 + b, t0 + far)
            if not ground.in_view(ground.outline(rect)):
                continue
            yard = (
                style.soil()
                if rng.random() < style.bare_yards
                else (style.paved() if rng.random() < 0.12 else style.lawn(rng.random() < 0.7))
            )
            if rng.random() < 0.85:
                ground.lay(ground.natural, ground.outline(rect), yard)
            back = row >= rows / 2
            if rng.random() < 0.93:
                wide = min((b - a) * rng.uniform(0.45, 0.85), 26 * scale)
                deep = min(depth * usual * rng.uniform(0.6, 1), wide * rng.uniform(0.6, 1.2), 20 * scale)
                setback = deep / 2 + rng.uniform(0.5, max(0.6, depth - deep - 1) * 0.6)
                mid, off = (a + b) / 2 + rng.uniform(-0.1, 0.1) * (b - a), (far - setback if back else near + setback)
                turn = rng.normal(0, 0.02) + (rng.uniform(0, math.pi) if rng.random() < style.turned_freely else 0)
                at = ground.at(s0 + off, t0 + mid, turn + math.pi / 2) if swap else ground.at(s0 + mid, t0 + off, turn)
                if wide > 4 and deep > 4:
                    _raise(ground, at, (wide, deep))
                lane = (a + 0.6, a + rng.uniform(3, 4)) if rng.random() < 0.5 else (b - rng.uniform(3, 4), b - 0.6)
                ends = (far - setback - 3, far) if back else (near, near + setback + 3)
                drive = (
                    (s0 + ends[0], t0 + lane[0], s0 + ends[1], t0 + lane[1])
                    if swap
                    else (s0 + lane[0], t0 + ends[0], s0 + lane[1], t0 + ends[1])
                )
                if rng.random() < 0.75:
                    ground.lay(ground.paved, ground.outline(drive), style.paved())
                    middle = (drive[0] + drive[2]) / 2, (drive[1] + drive[3]) / 2
                    car = ground.at(*middle, 0 if swap else math.pi / 2)
                    if rng.random() < 0.6 * style.cars and ground.is_free(*car[:2]):
                        add_car(ground, car)
            gate = (1 if back else 3) if swap else (2 if back else 0)
            _border(ground, rect, gate)
            _garden(ground, rect)


def _cottages(ground: Ground, block: Rect) -> None:
    _houses(ground, block, 0.75)


def _villas(ground: Ground, block: Rect) -> None:
    _houses(ground, block, 1.5)


def _shanty(ground: Ground, block: Rect) -> None:
    """Small houses wherever there is room."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.soil())
    turn, loose = rng.uniform(0, 0.1), rng.uniform(0, 0.3)
    area = (s1 - s0) * (t1 - t0)
    gap = rng.uniform(0.4, 2.5)
    for _ in range(int(min(area / rng.uniform(25, 90), 900))):
        at = ground.at(
            rng.uniform(s0 + 3, s1 - 3),
            rng.uniform(t0 + 3, t1 - 3),
            turn + rng.choice([0, math.pi / 2]) + rng.normal(0, loose),
        )
        length = rng.gamma(9, 0.8)
        _raise(
            ground,
            at,
            (length, max(3, length * rng.uniform(0.4, 0.95))),
            None if length > 9 else "rect",
            rng.uniform(2.2, 3.4),
            gap=gap,
        )
    _scatter_trees(ground, block, 40 * style.trees, 1, 5)
    for _ in range(int(area / 120)):
        x, y, angle = ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1))
        colour = jitter(rng, (0.6, 0.57, 0.54), 0.4, 0.1)
        ground.put(
            (x, y, angle + rng.uniform(0, 3)),
            rng.uniform(0.4, 3),
            rng.uniform(0.4, 2),
            uniform_surface(colour, height=rng.uniform(0.2, 1.5)),
        )


def _old_town(ground: Ground, block: Rect) -> None:
    """Houses wall to wall along the rim of the block, sheds and yards behind."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.paved, ground.outline(block), style.paved())
    depth, storey = rng.uniform(7, 13), rng.uniform(5, 14)
    if min(s1 - s0, t1 - t0) < 3 * depth:
        sides = [((s0, t0), (s1, t0), (t1 - t0) / 2 - 1, 1)]
        if t1 - t0 > s1 - s0:
            sides = [((s0, t0), (s0, t1), (s1 - s0) / 2 - 1, -1)]
    else:
        sides = [((s0, t0), (s1, t0), depth, 1), ((s0, t1), (s1, t1), depth, -1),
                 ((s0, t0 + depth), (s0, t1 - depth), depth, -1), ((s1, t0 + depth), (s1, t1 - depth), depth, 1)]  # fmt: skip
    for (a, b), (c, d), deep, inward in sides:
        length, along = math.hypot(c - a, d - b), 0.0
        direction = np.array([c - a, d - b]) / max(length, 1)
        normal = np.array([-direction[1], direction[0]]) * inward
        while along < length - 3:
            step = min(rng.uniform(6, 18), length - along)
            if step < length - along < step + 5:
                step = length - along
            if rng.random() < 0.9:
                own = deep * rng.uniform(0.8, 1.0)
                middle = np.array([a, b]) + direction * (along + step / 2) + normal * own / 2
                form = str(rng.choice(["gable", "gable", "flat", "mansard", "hip", "shed"]))
                at = ground.at(*middle.tolist(), math.atan2(direction[1], direction[0]))
                roof = style.roof(form)
                part = Part(*at[:2], step + 0.3, own, at[2], storey * rng.uniform(0.8, 1.2), roof)
                building = Building([part], style.wall())
                if ground.build(building, -1.5):
                    _furnish(ground, building)
            along += step + (rng.uniform(1, 4) if rng.random() < 0.12 else 0)
    inner = s0 + depth + 2, t0 + depth + 2, s1 - depth - 2, t1 - depth - 2
    if inner[2] - inner[0] > 6 and inner[3] - inner[1] > 6:
        if rng.random() < 0.6:
            ground.lay(ground.natural, ground.outline(inner), style.lawn() if rng.random() < 0.7 else style.soil())
        for _ in range(rng.poisson((inner[2] - inner[0]) * (inner[3] - inner[1]) / 160)):
            at = ground.at(
                rng.uniform(inner[0], inner[2]), rng.uniform(inner[1], inner[3]), rng.choice([0, math.pi / 2])
            )
            _raise(ground, at, (rng.uniform(4, 12), rng.uniform(3, 7)), eave=rng.uniform(2.5, 5), gap=1.0)
        _scatter_trees(ground, inner, 70 * style.trees)


def _halls(ground: Ground, block: Rect) -> None:
    """Industry: halls on a paved lot with trucks and containers."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.paved, ground.outline(block), style.soil(False) if rng.random() < 0.2 else style.paved())
    pieces, _ = split(rng, block, rng.uniform(30, 90), rng.uniform(8, 20))
    for a, b, c, d in pieces:
        rest = rng.uniform(0.55, 0.92)
        size = (c - a) * rest - 2, (d - b) * rng.uniform(0.55, 0.92) - 2
        at = ground.at((a + c) / 2, (b + d) / 2)
        use = rng.random()
        if use < 0.72 and min(size) > 6:
            form = str(rng.choice(["gable", "flat", "flat", "sawtooth", "barrel", "shed", "hip"]))
            _raise(
                ground,
                at,
                size,
                str(rng.choice(["rect", "rect", "rect", "L", "step", "U", "T"])),
                rng.uniform(4, 12),
                True,
                form,
            )
        elif use < 0.86:
            _car_park(ground, (a, b, c, d))
        for _ in range(rng.poisson(3)):
            x, y, angle = ground.at(rng.uniform(a, c), rng.uniform(b, d), rng.choice([0, math.pi / 2]))
            if ground.is_free(x, y):
                if rng.random() < 0.4:
                    add_car(ground, (x, y, angle))
                    continue
                for lane in range(int(rng.integers(1, 5))):  # containers side by side
                    colour = jitter(rng, (0.5, 0.4, 0.4), 0.3, 0.15)
                    px, py = moved([[0, 2.7 * lane]], x, y, angle)[0].tolist()
                    if ground.is_free(px, py):
                        ground.put(
                            (px, py, angle),
                            rng.choice([6.1, 12.2]),
                            2.44,
                            uniform_surface(colour, height=2.6, stripe=(0.6, angle, 0.06)),
                        )
    _scatter_trees(ground, block, 12 * style.trees)


def _car_park(ground: Ground, rect: Rect) -> None:
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = rect
    ground.lay(ground.paved, ground.outline(rect), style.paved() if rng.random() < 0.3 else style.street())
    line, full = uniform_surface((0.85, 0.85, 0.82)), rng.uniform(0.1, 0.95)
    for t in np.arange(t0 + 3, t1 - 3, 8.3):
        for s in np.arange(s0 + 2, s1 - 2, 2.6):
            x, y, angle = ground.at(s, t, math.pi / 2)
            if not ground.is_free(x, y) or not ground.in_view(np.array([[x, y]]), 4):
                continue
            ground.lay(ground.paved, rectangle(*moved([[0, 1.3]], x, y, angle)[0].tolist(), 4.8, 0.12, angle), line)
            if rng.random() < full:
                turn = (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.03)
                add_car(ground, (x, y, angle + turn), trucks=0.02)


def _slabs(ground: Ground, block: Rect) -> None:
    """Blocks of flats and towers on lawns, with parking."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.lawn())
    pieces, paths = split(rng, block, rng.uniform(28, 60), rng.uniform(4, 12))
    for strip, _ in paths:
        ground.lay(ground.paved, ground.outline(strip), style.sidewalk() if rng.random() < 0.5 else style.street())
    storeys = rng.uniform(8, 30)
    for a, b, c, d in pieces:
        if rng.random() < 0.2:
            _car_park(ground, (a, b, c, d))
            continue
        long, deep = max(c - a, d - b) * rng.uniform(0.65, 0.95), rng.uniform(10, 20)
        size = (long, deep) if c - a > d - b else (deep, long)
        shape = str(rng.choice(["rect", "rect", "rect", "L", "U", "H", "plus", "ring", "step", "round", "polygon"]))
        if shape in ("round", "polygon", "plus", "H", "ring", "U"):
            size = min(c - a, d - b) * 0.7, min(c - a, d - b) * rng.uniform(0.5, 0.7)
        at = ground.at((a + c) / 2, (b + d) / 2, rng.choice([0, rng.uniform(0, 3)], p=[0.85, 0.15]))
        if min(size) > 6:
            _raise(
                ground, at, size, shape, storeys * rng.uniform(0.5, 1.2), form="flat" if rng.random() < 0.75 else None
            )
    _scatter_trees(ground, block, 60 * style.trees, 1.5, 6)
    _scatter_trees(ground, block, 40 * style.trees, 0.5, 1.5)


def _campus(ground: Ground, block: Rect) -> None:
    """Long pavilions of one kind of roof about yards: schools, barracks, stables, greenhouses."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.soil() if rng.random() < 0.5 else style.lawn())
    deep, gap = rng.uniform(6, 16), rng.uniform(3, 20)
    glass = rng.random() < 0.2
    roof = style.roof("gable" if rng.random() < 0.6 else "barrel" if glass else None, large=rng.random() < 0.5)
    if glass:
        roof = replace(
            roof, colour=(0.82, 0.86, 0.86), other=(0.66, 0.72, 0.7), rows=(2.0, 0.12, True), sheet=(1, 3, 0.2)
        )
    t = t0 + 4
    while t + deep < t1 - 3:
        s = s0 + rng.uniform(3, 8)
        while s + 12 < s1 - 3:
            long = min(rng.uniform(15, 60), s1 - 3 - s)
            if rng.random() < 0.8:
                at = ground.at(s + long / 2, t + deep / 2)
                shape = "L" if rng.random() < 0.15 and long > 2 * deep else "rect"
                building = Building(assemble(rng, shape, at, (long, deep), rng.uniform(2.6, 4.5), roof), style.wall())
                ground.build(building)
            s += long + gap
        t += deep + gap
    for _ in range(3):
        x, y, angle = ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1))
        ground.lay(
            ground.natural,
            rectangle(x, y, rng.uniform(8, 30), rng.uniform(6, 20), angle),
            style.soil(False) if rng.random() < 0.5 else style.paved(),
        )
    _scatter_trees(ground, block, 40 * style.trees)


def _farm(ground: Ground, block: Rect) -> None:
    """Fields with a farmstead."""
    rng, style = ground.rng, ground.style
    _fields(ground, block)
    s0, t0, s1, t1 = block
    middle = (
        rng.uniform(s0 + 0.2 * (s1 - s0), s1 - 0.2 * (s1 - s0)),
        rng.uniform(t0 + 0.2 * (t1 - t0), t1 - 0.2 * (t1 - t0)),
    )
    yard = rng.uniform(12, 28)
    box = middle[0] - yard, middle[1] - yard, middle[0] + yard, middle[1] + yard
    ground.lay(ground.natural, ground.outline(box), style.soil() if rng.random() < 0.6 else style.paved())
    turn = rng.uniform(0, math.pi)
    for _ in range(int(rng.integers(2, 12))):
        at = ground.at(
            rng.uniform(box[0], box[2]),
            rng.uniform(box[1], box[3]),
            turn + rng.choice([0, math.pi / 2]) + rng.normal(0, 0.03),
        )
        barn = rng.random() < 0.5
        size = (rng.uniform(12, 40), rng.uniform(8, 18)) if barn else (rng.uniform(4, 16), rng.uniform(4, 11))
        _raise(
            ground,
            at,
            size,
            "rect" if barn else None,
            rng.uniform(3, 6) if barn else None,
            barn,
            str(rng.choice(["gable", "hip", "barrel"])) if barn else None,
        )
    _garden(ground, box)
    _scatter_trees(ground, box, 60 * style.trees)


def _fields(ground: Ground, block: Rect) -> None:
    rng, style = ground.rng, ground.style
    pieces, _ = split(rng, block, rng.uniform(30, 120), rng.uniform(0.5, 3))
    for piece in pieces:
        ground.lay(ground.natural, ground.outline(piece), style.field())
        if rng.random() < 0.15:
            _orchard(ground, piece)
        elif rng.random() < 0.3:
            s0, t0, s1, _ = piece
            _scatter_trees(ground, (s0, t0 - 2, s1, t0 + 2), 150 * style.trees)


def _orchard(ground: Ground, rect: Rect) -> None:
    rng = ground.rng
    s0, t0, s1, t1 = rect
    step, radius, kind = rng.uniform(3.5, 8), rng.uniform(1, 2.6), str(rng.choice(["round", "star", "bush"]))
    for s in np.arange(s0 + 2, s1 - 2, step):
        for t in np.arange(t0 + 2, t1 - 2, step):
            if rng.random() < 0.93 and len(ground.trees) < 2500:
                x, y, _ = ground.at(s + rng.normal(0, 0.2), t + rng.normal(0, 0.2))
                ground.plant(x, y, radius * rng.uniform(0.8, 1.2), kind, 0.0)


def _forest(ground: Ground, block: Rect) -> None:
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.lawn(False) if rng.random() < 0.6 else style.soil())
    for _ in range(rng.poisson(rng.choice([0, 3]))):
        at = ground.at(rng.uniform(s0 + 5, s1 - 5), rng.uniform(t0 + 5, t1 - 5), rng.uniform(0, 3))
        ground.lay(
            ground.natural,
            rectangle(*at[:2], rng.uniform(14, 30), rng.uniform(12, 26), at[2]),
            style.soil() if rng.random() < 0.5 else style.lawn(),
        )
        _raise(ground, at, (rng.uniform(7, 20), rng.uniform(6, 13)))
    _scatter_trees(ground, block, rng.choice([150, 400, 700]), 1.5, rng.uniform(4, 7))


def _park(ground: Ground, block: Rect) -> None:
    """Lawns, paths, a pond, courts, open ground; hardly a building."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(
        ground.natural,
        ground.outline(block),
        (style.lawn(), style.lawn(False), style.soil(), style.paved())[rng.choice(4, p=[0.45, 0.25, 0.22, 0.08])],
    )
    for _ in range(rng.poisson(2)):
        x, y, angle = ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1), rng.uniform(0, 3))
        blob = rng.uniform(0.6, 1.3, 12)[:, np.newaxis]
        turn = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        outline = np.stack([np.cos(turn), np.sin(turn)], 1) * blob * rng.uniform(4, 25, 2)
        surface = style.water() if rng.random() < 0.25 else style.soil() if rng.random() < 0.6 else style.lawn(False)
        ground.lay(ground.natural, moved(outline, x, y, angle), surface)
    for _ in range(rng.poisson(1)):
        _court(ground, ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1), rng.choice([0, math.pi / 2])))
    for _ in range(rng.poisson(1)):
        s = rng.uniform(s0, s1)
        ground.lay(ground.paved, ground.outline((s, t0, s + rng.uniform(1, 3), t1)), style.sidewalk())
    if rng.random() < 0.25:
        _raise(ground, ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1)), (rng.uniform(4, 18), rng.uniform(4, 12)))
    if rng.random() < 0.15:  # rows of solar panels on the ground
        panel = uniform_surface((0.15, 0.19, 0.3), (0.25, 0.3, 0.42), stripe=(1.0, 0.3, 0.1), height=1.2)
        for t in np.arange(t0 + 4, t1 - 4, 6):
            ground.lay(ground.paved, ground.outline((s0 + 4, t, s1 - 4, t + 2.5)), panel)
    _scatter_trees(ground, block, 70 * style.trees, 1, 6)


def _court(ground: Ground, at: At) -> None:
    """A tennis or ball court, or a bare foundation slab."""
    rng = ground.rng
    x, y, angle = at
    if not ground.is_free(x, y):
        return
    base = jitter(
        rng, ((0.30, 0.45, 0.36), (0.62, 0.36, 0.28), (0.30, 0.42, 0.58), (0.66, 0.65, 0.62))[rng.integers(4)], 0.1
    )
    length, width = rng.choice([24.0, 15.0, 28.0, 10.0]), rng.choice([11.0, 15.0, 8.0])
    ground.lay(ground.paved, rectangle(x, y, length + 6, width + 5, angle), uniform_surface(jitter(rng, base, 0.15)))
    ground.lay(ground.paved, rectangle(x, y, length, width, angle), uniform_surface(base))
    for u, v, a, b in (
        (0, -width / 2, length, 0.1),
        (0, width / 2, length, 0.1),
        (-length / 2, 0, 0.1, width),
        (length / 2, 0, 0.1, width),
        (0, 0, 0.15, width),
    ):
        px, py = moved([[u, v]], x, y, angle)[0].tolist()
        ground.lay(ground.paved, rectangle(px, py, a, b, angle), uniform_surface((0.9, 0.9, 0.88)))


def _lake(ground: Ground, block: Rect) -> None:
    _park(ground, block)
    s0, t0, s1, t1 = block
    inset = ground.rng.uniform(2, 15)
    if min(s1 - s0, t1 - t0) > 3 * inset:
        ground.lay(
            ground.natural, ground.outline((s0 + inset, t0 + inset, s1 - inset, t1 - inset)), ground.style.water()
        )


FILLERS: dict[str, Callable[[Ground, Rect], None]] = {
    "houses": _houses, "cottages": _cottages, "villas": _villas, "shanty": _shanty, "old": _old_town, "halls": _halls,
    "slabs": _slabs, "campus": _campus, "farm": _farm, "fields": _fields, "forest": _forest, "park": _park,
    "parking": _car_park, "lake": _lake,
}  # fmt: skip

_SCENES: dict[str, tuple[float, float, dict[str, float]]] = {
    # side of a block and width of the widest street, m; chances of what fills a block
    "suburb": (75, 11, {"houses": 7, "villas": 2, "cottages": 1.5, "park": 0.7, "campus": 0.4, "slabs": 0.3}),
    "village": (
        70,
        7,
        {"houses": 4, "cottages": 3, "farm": 1, "fields": 1, "campus": 0.7, "park": 0.6, "old": 0.4, "forest": 0.4},
    ),
    "informal": (60, 8, {"shanty": 5, "cottages": 3, "houses": 2, "campus": 0.8, "park": 0.5}),
    "town": (
        60,
        11,
        {"old": 6, "houses": 1.2, "cottages": 1, "park": 0.5, "parking": 0.25, "campus": 0.5, "slabs": 0.5},
    ),
    "city": (90, 16, {"slabs": 5, "old": 2, "halls": 1, "parking": 0.35, "park": 0.6, "campus": 0.4}),
    "industry": (110, 14, {"halls": 6, "parking": 0.35, "park": 0.5, "campus": 1, "fields": 0.3}),
    "country": (170, 6, {"fields": 4, "farm": 2.5, "forest": 1, "park": 0.6, "lake": 0.3, "houses": 0.5}),
    "forest": (140, 6, {"forest": 5, "park": 1, "houses": 0.8, "lake": 0.4, "fields": 0.5}),
    "open": (120, 8, {"fields": 3, "lake": 1, "forest": 1, "park": 2, "parking": 0.5}),
}

AERIAL_KINDS = tuple(_SCENES)
"""The kinds of scene, from suburb to open country without, mostly, a building."""
