"""Houses of a generated aerial scene, with their plots and gardens: the blocks that people live in."""

from __future__ import annotations

import math

import numpy as np

from gigaseg.testing.aerial.build import At, furnish, raise_building, scatter_trees
from gigaseg.testing.aerial.ground import Ground, Rect, add_car
from gigaseg.testing.aerial.parts import Building, Part, jitter, rectangle, uniform_surface


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


def garden(ground: Ground, rect: Rect) -> None:
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
        raise_building(
            ground, somewhere(2), (rng.uniform(2.2, 5), rng.uniform(1.8, 3.5)), "rect", rng.uniform(2, 2.6), gap=0.8
        )
    for _ in range(rng.poisson(1.2)):  # heaps, timber, tables, tanks
        x, y, angle = somewhere(1)
        colour = jitter(rng, (0.6, 0.57, 0.54), 0.4, 0.08)
        ground.put(
            (x, y, angle + rng.uniform(0, 3)),
            rng.uniform(0.4, 3),
            rng.uniform(0.4, 1.5),
            uniform_surface(colour, height=rng.uniform(0.2, 1.2)),
        )
    for _ in range(rng.poisson(2.5 * style.wild)):
        x, y, _ = somewhere(1)
        for _ in range(rng.poisson(1 + 2 * style.wild)):  # shrubs in clumps
            ground.plant(x + rng.normal(0, 1.2), y + rng.normal(0, 1.2), rng.uniform(0.4, 1.4), "bush", 0.0)
    scatter_trees(ground, rect, 45 * style.trees, 1.0, 5.5)


def houses(ground: Ground, block: Rect, scale: float = 1.0) -> None:
    """Plots in rows along the streets, most with a house."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    swap = t1 - t0 > s1 - s0
    long, short = (t1 - t0, s1 - s0) if swap else (s1 - s0, t1 - t0)
    rows = max(1, round(short / (rng.uniform(20, 38) * scale)))
    depth = short / rows
    plot = rng.uniform(11, 30) * scale
    usual = rng.uniform(0.45, 0.9)
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
                wide = min((b - a) * rng.uniform(0.5, 0.9), 26 * scale)
                deep = min(depth * usual * rng.uniform(0.6, 1), wide * rng.uniform(0.6, 1.2), 20 * scale)
                setback = deep / 2 + rng.uniform(0.5, max(0.6, depth - deep - 1) * 0.6)
                mid, off = (a + b) / 2 + rng.uniform(-0.1, 0.1) * (b - a), (far - setback if back else near + setback)
                turn = rng.normal(0, 0.02) + (rng.uniform(0, math.pi) if rng.random() < style.turned_freely else 0)
                at = ground.at(s0 + off, t0 + mid, turn + math.pi / 2) if swap else ground.at(s0 + mid, t0 + off, turn)
                if wide > 4 and deep > 4:
                    raise_building(ground, at, (wide, deep))
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
            garden(ground, rect)


def cottages(ground: Ground, block: Rect) -> None:
    """Narrow plots."""
    houses(ground, block, 0.75)


def villas(ground: Ground, block: Rect) -> None:
    """Wide plots."""
    houses(ground, block, 1.5)


def shanty(ground: Ground, block: Rect) -> None:
    """Small houses wherever there is room."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.soil())
    turn, loose = rng.uniform(0, 0.1), rng.uniform(0, 0.3)
    area = (s1 - s0) * (t1 - t0)
    gap = rng.choice([-0.6, rng.uniform(0.3, 2.5)], p=[0.3, 0.7])
    for _ in range(int(min(area / rng.uniform(25, 90), 900))):
        at = ground.at(
            rng.uniform(s0 + 3, s1 - 3),
            rng.uniform(t0 + 3, t1 - 3),
            turn + rng.choice([0, math.pi / 2]) + rng.normal(0, loose),
        )
        length = rng.gamma(9, 0.8)
        raise_building(
            ground,
            at,
            (length, max(3, length * rng.uniform(0.4, 0.95))),
            None if length > 9 else "rect",
            rng.uniform(2.2, 3.4),
            gap=gap,
        )
    scatter_trees(ground, block, 40 * style.trees, 1, 5)
    for _ in range(int(area / 120)):
        x, y, angle = ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1))
        colour = jitter(rng, (0.6, 0.57, 0.54), 0.4, 0.1)
        ground.put(
            (x, y, angle + rng.uniform(0, 3)),
            rng.uniform(0.4, 3),
            rng.uniform(0.4, 2),
            uniform_surface(colour, height=rng.uniform(0.2, 1.5)),
        )


def old_town(ground: Ground, block: Rect) -> None:
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
        sides = [
            ((s0, t0), (s1, t0), depth, 1),
            ((s0, t1), (s1, t1), depth, -1),
            ((s0, t0 + depth), (s0, t1 - depth), depth, -1),
            ((s1, t0 + depth), (s1, t1 - depth), depth, 1),
        ]
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
                s, t = np.array([a, b]) + direction * (along + step / 2) + normal * own / 2
                form = str(rng.choice(["gable", "gable", "flat", "mansard", "hip", "shed"]))
                at = ground.at(float(s), float(t), math.atan2(direction[1], direction[0]))
                roof = style.roof(form)
                part = Part(*at[:2], step + 0.3, own, at[2], storey * rng.uniform(0.8, 1.2), roof)
                building = Building([part], style.wall())
                if ground.build(building, -1.5):
                    furnish(ground, building)
            along += step + (rng.uniform(1, 4) if rng.random() < 0.12 else 0)
    inner = s0 + depth + 2, t0 + depth + 2, s1 - depth - 2, t1 - depth - 2
    if inner[2] - inner[0] > 6 and inner[3] - inner[1] > 6:
        if rng.random() < 0.6:
            ground.lay(ground.natural, ground.outline(inner), style.lawn() if rng.random() < 0.7 else style.soil())
        for _ in range(rng.poisson((inner[2] - inner[0]) * (inner[3] - inner[1]) / 160)):
            at = ground.at(
                rng.uniform(inner[0], inner[2]), rng.uniform(inner[1], inner[3]), rng.choice([0, math.pi / 2])
            )
            raise_building(ground, at, (rng.uniform(4, 12), rng.uniform(3, 7)), eave=rng.uniform(2.5, 5), gap=1.0)
        scatter_trees(ground, inner, 70 * style.trees)
