"""What fills the blocks between the streets of a generated aerial scene: houses, halls, parks, fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gigaseg.testing.aerial.build import At, raise_building, scatter_trees
from gigaseg.testing.aerial.ground import Ground, Rect, add_car, pave_streets, split
from gigaseg.testing.aerial.houses import cottages, garden, houses, old_town, shanty, villas
from gigaseg.testing.aerial.parts import Building, assemble, jitter, moved, rectangle, uniform_surface
from gigaseg.testing.aerial.style import Style


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


def _halls(ground: Ground, block: Rect) -> None:
    """Industry: halls on a paved lot with trucks and containers."""
    rng, style = ground.rng, ground.style
    ground.lay(ground.paved, ground.outline(block), style.soil(False) if rng.random() < 0.2 else style.paved())
    pieces, _ = split(rng, block, rng.uniform(30, 90), rng.uniform(8, 20))
    for a, b, c, d in pieces:
        rest = rng.uniform(0.55, 0.92)
        size = (c - a) * rest - 2, (d - b) * rng.uniform(0.55, 0.92) - 2
        at = ground.at((a + c) / 2, (b + d) / 2)
        use = rng.random()
        if use < 0.72 and min(size) > 6:
            form = str(rng.choice(["gable", "flat", "flat", "sawtooth", "barrel", "shed", "hip"]))
            raise_building(
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
    scatter_trees(ground, block, 12 * style.trees)


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
            px, py = moved([[0, 1.3]], x, y, angle)[0].tolist()
            ground.lay(ground.paved, rectangle(px, py, 4.8, 0.12, angle), line)
            if rng.random() < full:
                turn = (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.03)
                add_car(ground, (x, y, angle + turn), trucks=0.02)


def _slabs(ground: Ground, block: Rect) -> None:
    """Blocks of flats and towers on lawns, with parking."""
    rng, style = ground.rng, ground.style
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
            raise_building(
                ground, at, size, shape, storeys * rng.uniform(0.5, 1.2), form="flat" if rng.random() < 0.75 else None
            )
    scatter_trees(ground, block, 60 * style.trees, 1.5, 6)
    scatter_trees(ground, block, 40 * style.trees, 0.5, 1.5)


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
    scatter_trees(ground, block, 40 * style.trees)


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
        raise_building(
            ground,
            at,
            size,
            "rect" if barn else None,
            rng.uniform(3, 6) if barn else None,
            barn,
            str(rng.choice(["gable", "hip", "barrel"])) if barn else None,
        )
    garden(ground, box)
    scatter_trees(ground, box, 60 * style.trees)


def _fields(ground: Ground, block: Rect) -> None:
    rng, style = ground.rng, ground.style
    pieces, _ = split(rng, block, rng.uniform(30, 120), rng.uniform(0.5, 3))
    for piece in pieces:
        ground.lay(ground.natural, ground.outline(piece), style.field())
        if rng.random() < 0.15:
            _orchard(ground, piece)
        elif rng.random() < 0.3:
            s0, t0, s1, _ = piece
            scatter_trees(ground, (s0, t0 - 2, s1, t0 + 2), 150 * style.trees)


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
        raise_building(ground, at, (rng.uniform(7, 20), rng.uniform(6, 13)))
    scatter_trees(ground, block, rng.choice([150, 400, 700]), 1.5, rng.uniform(4, 7))


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
        raise_building(
            ground, ground.at(rng.uniform(s0, s1), rng.uniform(t0, t1)), (rng.uniform(4, 18), rng.uniform(4, 12))
        )
    if rng.random() < 0.15:  # rows of solar panels on the ground
        panel = uniform_surface((0.15, 0.19, 0.3), (0.25, 0.3, 0.42), stripe=(1.0, 0.3, 0.1), height=1.2)
        for t in np.arange(t0 + 4, t1 - 4, 6):
            ground.lay(ground.paved, ground.outline((s0 + 4, t, s1 - 4, t + 2.5)), panel)
    scatter_trees(ground, block, 70 * style.trees, 1, 6)


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
    """Water with trees along its shore."""
    rng, style = ground.rng, ground.style
    s0, t0, s1, t1 = block
    ground.lay(ground.natural, ground.outline(block), style.lawn(False))
    wide = rng.uniform(2, 15)
    ground.lay(ground.natural, ground.outline((s0 + wide, t0 + wide, s1 - wide, t1 - wide)), style.water())
    for shore in ((s0, t0, s1, t0 + wide), (s0, t1 - wide, s1, t1), (s0, t0, s0 + wide, t1), (s1 - wide, t0, s1, t1)):
        scatter_trees(ground, shore, 100 * style.trees, 1, 6)


FILLERS: dict[str, Callable[[Ground, Rect], None]] = {
    "houses": houses, "cottages": cottages, "villas": villas, "shanty": shanty, "old": old_town, "halls": _halls,
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
