"""The look that the things of one generated aerial scene share."""

from __future__ import annotations

import math

import numpy as np

from gigaseg.testing.aerial.parts import ROOF_COLOURS, Colour, Roof, Surface, jitter, uniform_surface

_BIOMES: dict[str, tuple[Colour, Colour, Colour, Colour, Colour]] = {
    # lawn, meadow, dry grass, bare soil, crowns
    "temperate": ((0.36, 0.47, 0.25), (0.42, 0.49, 0.30), (0.58, 0.56, 0.40), (0.52, 0.44, 0.35), (0.24, 0.34, 0.18)),
    "dry": ((0.44, 0.50, 0.31), (0.60, 0.56, 0.42), (0.69, 0.62, 0.47), (0.71, 0.61, 0.49), (0.31, 0.36, 0.23)),
    "tropical": ((0.33, 0.52, 0.24), (0.42, 0.50, 0.28), (0.58, 0.54, 0.36), (0.68, 0.46, 0.32), (0.23, 0.38, 0.17)),
    "arid": ((0.42, 0.46, 0.32), (0.68, 0.60, 0.48), (0.75, 0.67, 0.54), (0.80, 0.71, 0.58), (0.33, 0.37, 0.25)),
    "autumn": ((0.40, 0.42, 0.27), (0.50, 0.46, 0.33), (0.58, 0.51, 0.39), (0.45, 0.38, 0.31), (0.40, 0.33, 0.21)),
    "boreal": ((0.33, 0.40, 0.25), (0.40, 0.43, 0.30), (0.52, 0.50, 0.38), (0.50, 0.46, 0.40), (0.19, 0.27, 0.18)),
}


class Style:
    """The look that the things of one scene share, drawn by chance."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self._rng = rng
        chances = [0.27, 0.15, 0.24, 0.12, 0.11, 0.11]
        if kind == "informal":
            chances = [0.05, 0.2, 0.5, 0.25, 0, 0]
        biome = _BIOMES[str(rng.choice(list(_BIOMES), p=chances))]
        self._lawn, self._meadow, self._dry, self._soil, self._crown = (jitter(rng, c, 0.12, 0.02) for c in biome)
        self.crowns = [jitter(rng, self._crown, 0.18, 0.03) for _ in range(4)]
        dirt = {"informal": 0.85, "village": 0.5, "country": 0.5, "forest": 0.4, "suburb": 0.15}.get(kind, 0.05)
        self.dirt_streets = bool(rng.random() < dirt)
        self.markings = not self.dirt_streets and rng.random() < 0.7
        self.sidewalks = not self.dirt_streets and rng.random() < (0.3 if kind in ("country", "forest") else 0.75)
        asphalt = rng.uniform(0.28, 0.58)
        self._asphalt = jitter(rng, (asphalt, asphalt, asphalt * 1.02), 0.03, 0.012)
        self._concrete = jitter(rng, (0.70, 0.68, 0.64), 0.1, 0.02)
        self.bare_yards = rng.random() * (1.0 if kind in ("informal", "village") or self.dirt_streets else 0.35)
        self.walls, self.hedges = rng.random() * 0.9, rng.random() * 0.7
        self.pools = rng.choice([0, 0, 0.1, 0.4])
        self.trees = rng.choice([0.25, 0.6, 1.0, 1.8])
        self.wild = rng.choice([0.2, 1.0, 2.0])
        self.cars = rng.uniform(0.1, 1)
        self.solar = rng.choice([0, 0, 0.1, 0.3])
        self.turned_freely = rng.choice([0, 0, 0.15, 0.5])
        names = list(ROOF_COLOURS)
        self._roof_colours = [jitter(rng, ROOF_COLOURS[n], 0.08, 0.02) for n in rng.choice(names, 5, replace=False)]
        self._roof_shares = rng.dirichlet([0.8] * 5)
        self._slope = rng.uniform(0.2, 0.8)
        self._covering = rng.choice(["tile", "metal", "smooth", "mixed"])
        forms = {"flat": 0.9, "gable": 1.6, "hip": 1.3, "pyramid": 0.4, "shed": 0.4, "mansard": 0.25, "skeleton": 0.2}
        weights = np.array(list(forms.values())) * rng.gamma(0.7, 1, len(forms))
        self._forms, self._form_shares = list(forms), weights / weights.sum()

    def lawn(self, trimmed: bool = True) -> Surface:
        """Grass, more or less dry and patchy."""
        rng = self._rng
        main = self._lawn if trimmed else self._meadow
        stripe = (rng.uniform(1, 3), rng.uniform(0, 3.2), rng.choice([0, 0, 0.04]))
        other = self._dry if rng.random() < 0.5 else jitter(rng, main, 0.2, 0.02)
        mix = tuple(rng.uniform(0.05, 0.3, 4).tolist())
        return Surface(jitter(rng, main, 0.07, 0.012), other, mix, rng.uniform(0.03, 0.09), stripe, 0, 0.08)

    def soil(self, grassy: bool = True) -> Surface:
        """Bare ground, with grass in places."""
        rng = self._rng
        other = self._meadow if grassy and rng.random() < 0.7 else jitter(rng, self._soil, 0.12, 0.015)
        mix = tuple(rng.uniform(0.03, 0.28, 4).tolist())
        return Surface(jitter(rng, self._soil, 0.07, 0.012), other, mix, rng.uniform(0.02, 0.06), (1, 0, 0), 0, 0.04)

    def field(self) -> Surface:
        """A crop, meadow or ploughed field with rows."""
        rng = self._rng
        a, b = jitter(rng, (self._soil, self._dry, self._lawn, self._meadow)[rng.integers(4)], 0.15, 0.03), self._dry
        stripe = rng.uniform(0.7, 4), rng.uniform(0, math.pi), rng.uniform(0, 0.2)
        return Surface(
            a,
            jitter(rng, a if rng.random() < 0.5 else b, 0.15, 0.02),
            (0.08, 0.12, 0.15, 0.2),
            rng.uniform(0.02, 0.07),
            stripe,
            0,
            0.1,
        )

    def paved(self) -> Surface:
        """Asphalt, concrete, paving stones or gravel, stained and patched."""
        rng = self._rng
        base = (self._asphalt, self._concrete, (0.66, 0.60, 0.52), (0.60, 0.50, 0.44), self._soil)[rng.integers(5)]
        tiles = (rng.uniform(0.5, 3), rng.uniform(0, 3), rng.choice([0, 0, 0.06]))
        return Surface(
            jitter(rng, base, 0.1, 0.015), jitter(rng, base, 0.2, 0.02), (0.08, 0.12, 0.14, 0.1), 0.03, tiles
        )

    def street(self) -> Surface:
        """A carriageway."""
        base = self._soil if self.dirt_streets else self._asphalt
        grain = 0.04 if self.dirt_streets else 0.018
        return Surface(
            jitter(self._rng, base, 0.05, 0.01), jitter(self._rng, base, 0.12, 0.01), (0.08, 0.14, 0.15, 0.12), grain
        )

    def sidewalk(self) -> Surface:
        """A path of concrete or slabs."""
        return uniform_surface(jitter(self._rng, self._concrete, 0.08), None, grain=0.03, height=0.1)

    def water(self, pool: bool = False) -> Surface:
        """A pool, pond or stream."""
        rng = self._rng
        colour = jitter(rng, (0.35, 0.66, 0.74), 0.1, 0.04) if pool else jitter(rng, (0.24, 0.30, 0.28), 0.25, 0.05)
        return uniform_surface(colour, jitter(rng, colour, 0.12), mix=(0.05, 0.08, 0.15, 0.2), grain=0.012)

    def hedge(self, height: float) -> Surface:
        """Clipped or wild shrubs."""
        return Surface(
            jitter(self._rng, self._crown, 0.15),
            jitter(self._rng, self._crown, 0.3),
            (0.3, 0.2, 0, 0),
            0.08,
            (1, 0, 0),
            height,
            0.35,
        )

    def roof(self, form: str | None = None, large: bool = False) -> Roof:
        """A roof; `large` ones are flatter and of sheet metal, concrete or felt."""
        rng = self._rng
        if form is None:
            form = str(rng.choice(self._forms, p=self._form_shares))
        if rng.random() < 0.15:
            colour = jitter(rng, ROOF_COLOURS[str(rng.choice(list(ROOF_COLOURS)))], 0.12, 0.05)
        elif form == "flat" or large:
            names = [
                "light",
                "grey",
                "slate",
                "white",
                "beige",
                "white",
                "tan",
                "black",
                "blue",
                "green",
                "maroon",
                "light",
            ]
            colour = jitter(rng, ROOF_COLOURS[str(rng.choice(names))], 0.12, 0.02)
        else:
            colour = jitter(rng, self._roof_colours[rng.choice(5, p=self._roof_shares)], 0.1, 0.02)
        covering = str(rng.choice(["tile", "metal", "smooth"])) if self._covering == "mixed" else self._covering
        sheet, rows = (1.0, 3.0, 0.0), (0.4, 0.0, True)
        if form == "flat":
            sheet = rng.uniform(1, 5), rng.uniform(3, 15), rng.choice([0, 0.1, 0.3])
        elif covering == "metal" or large:
            sheet = rng.uniform(0.7, 1.2), rng.uniform(1.8, 8), rng.choice([0.05, 0.15, 0.5, 0.9])
            rows = rng.choice([0.25, 0.5, 1.0]), rng.uniform(0.02, 0.14), True
        elif covering == "tile":
            sheet = 0.5, 0.5, rng.uniform(0.05, 0.35)
            rows = rng.uniform(0.3, 0.45), rng.uniform(0.03, 0.14), bool(rng.random() < 0.4)
        worn = ROOF_COLOURS["rust"] if covering == "metal" and rng.random() < 0.35 else jitter(rng, colour, 0.22, 0.025)
        slope = rng.uniform(0.06, 0.3) if large else self._slope * rng.uniform(0.8, 1.25)
        return Roof(
            form, colour, worn, slope, sheet, rows, rng.uniform(0.05, 0.5), rng.uniform(0.01, 0.05),
            rng.choice([0.85, 1.0, 1.12, 1.25]), rng.choice([0.88, 1.0, 1.12]),
            rng.choice([0, 0.3, 0.7, 1.0]) if form == "flat" else 0.0,
        )  # fmt: skip

    def wall(self) -> Colour:
        """The colour of a façade."""
        return jitter(
            self._rng,
            ((0.75, 0.72, 0.66), (0.6, 0.42, 0.34), (0.85, 0.84, 0.82), (0.6, 0.6, 0.6))[self._rng.integers(4)],
        )
