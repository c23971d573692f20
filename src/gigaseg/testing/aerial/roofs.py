"""Forms and coverings of the roofs of a generated aerial scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.testing.aerial.parts import Part

Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """A roof on a grid of pixels, in the frame of its wing.

    Attributes
    ----------
    z : height above the ground, m.
    du, dv : its slopes.
    along, down : coordinates on the roof, m: along the eaves, and down the slope.
    ridge, rim : bool, the lines where facets meet and where the roof ends.
    """

    z: Field
    du: Field
    dv: Field
    along: Field
    down: Field
    ridge: npt.NDArray[np.bool_]
    rim: npt.NDArray[np.bool_]


def profile(part: Part, u: Field, v: Field, inside: npt.NDArray[np.bool_], pitch: float) -> Form:
    """The roof of a wing; `u` and `v` are m from its middle, along and across."""
    roof, slope = part.roof, part.roof.slope
    half, wide = part.length / 2, part.width / 2
    a, b = half - np.abs(u), wide - np.abs(v)
    zero = np.zeros(u.shape, np.float32)
    z: npt.NDArray[Any]
    du: npt.NDArray[Any]
    dv: npt.NDArray[Any]
    du, dv, along, down = zero, zero, u, v
    ridge = rim = np.zeros(u.shape, bool)
    edge = np.minimum(a, b)
    line = max(0.25, pitch)
    kind = roof.kind
    if part.outline is not None or kind == "skeleton":
        from scipy.ndimage import distance_transform_edt

        edge = (distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] * pitch).astype(np.float32)
        if kind == "cone":
            radius = np.hypot(u / half, v / wide)
            z, down, along = slope * wide * (1 - radius), radius * wide, np.arctan2(v, u) * 4
            du, dv = (
                -slope * u / half / np.maximum(radius, 0.05) * wide / half,
                -slope * v / wide / np.maximum(radius, 0.05),
            )
        elif kind == "flat":
            z = zero
        else:
            z, down = slope * edge, edge
            gv, gu = np.gradient(edge) if min(edge.shape) > 1 else (zero, zero)
            # the grid's axes are the scene's: turn the gradient into the wing's frame
            c, s = math.cos(part.angle), math.sin(part.angle)
            du, dv = slope / pitch * (gu * c + gv * s), slope / pitch * (gv * c - gu * s)
    elif kind == "gable":
        z, dv = slope * b, -slope * np.sign(v)
        ridge = np.abs(v) < line
    elif kind in ("hip", "pyramid", "mansard"):
        stretch = wide / half if kind == "pyramid" else 1.0
        end = a * stretch < b
        run = np.minimum(a * stretch, b)
        limit = 0.45 * wide if kind == "mansard" else np.inf
        sloping = run < limit
        z = slope * np.minimum(run, limit)
        du, dv = (
            np.where(end & sloping, -slope * stretch * np.sign(u), 0),
            np.where(~end & sloping, -slope * np.sign(v), 0),
        )
        along, down = np.where(end, v, u), np.where(end, u, v)
        ridge = (np.abs(a * stretch - b) < line) | (b > wide - line) | (np.abs(run - limit) < line)
    elif kind == "shed":
        z, dv = slope * 0.6 * (v + wide), zero + slope * 0.6
    elif kind == "sawtooth":
        tooth = max(4.0, wide / 3)
        phase = np.mod(v + wide, tooth)
        steep = phase > 0.8 * tooth
        z = np.where(steep, (tooth - phase) * 1.2, phase * 0.3)
        dv = np.where(steep, -1.2, 0.3)
        ridge = np.abs(phase - 0.8 * tooth) < line
    elif kind == "barrel":
        x = np.clip(v / wide, -0.97, 0.97)
        rise = wide * min(0.45, 2 * slope)
        z, dv = rise * np.sqrt(1 - x * x), -rise / wide * x / np.sqrt(1 - x * x)
    else:
        z = zero
    rim = edge < line
    if roof.parapet and kind == "flat":
        rim = edge < max(0.35, pitch)
        z = z + np.where(rim, roof.parapet, 0)
    return Form(
        np.asarray(part.eave + z, np.float32),
        np.asarray(du, np.float32),
        np.asarray(dv, np.float32),
        along,
        down,
        ridge,
        rim,
    )


def roof_look(
    part: Part, form: Form, noise: list[Field], grain: Field, pitch: float, rng: np.random.Generator
) -> Field:
    """The colour of a roof in full light, (y, x, 3); `noise` are fields of the periods `NOISE_M`."""
    roof = part.roof
    across, long, differ = roof.sheet
    mixed = 0.35 + roof.age * (0.5 * noise[2] + 0.4 * noise[1] + 0.35 * noise[0])
    light = 1 + roof.grain * (grain + 0.6 * noise[0])
    if differ and across > pitch:
        table = rng.standard_normal((16, 16)).astype(np.float32)
        column, row = np.floor(form.along / across).astype(int), np.floor(form.down / long).astype(int)
        tone = table[row % 16, (column * 5 + row // 16) % 16]
        mixed += differ * tone
        light += 0.10 * differ * table[column % 16, row % 16]
    spacing, amplitude, downwards = roof.rows
    shown = min(1.0, max(0.0, spacing / pitch / 2 - 1))
    if amplitude and shown:
        light += shown * amplitude * np.sin(2 * math.pi / spacing * (form.along if downwards else form.down))
    light = np.where(form.ridge, light * roof.ridge, light)
    light = np.where(form.rim, light * roof.eaves, light)
    colour, other = np.array(roof.colour, np.float32), np.array(roof.other, np.float32)
    result = colour + (other - colour) * np.clip(mixed, 0, 1)[..., np.newaxis]
    return np.asarray(result * light[..., np.newaxis], np.float32)
