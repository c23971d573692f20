"""An invented section (`gigaseg.testing.histology`) as it looks in H&E or in a nuclear fluorescence stain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.testing.histology import PITCH_UM, WALL_UM, Field, Section

HALO = 12
"""Pixels rendered around a rectangle and cut off again, so that blurring knows its neighbours."""

_TEXTURE = 1024
_HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], np.float32)
_EOSIN = np.array([0.2159, 0.8012, 0.5581], np.float32)
"""Optical densities of the pure stains in red, green, blue: the reference of Macenko et al. (ISBI 2009)."""

_LIGHT = np.array([243, 241, 244], np.float32)
"""RGB of bare glass."""


class Painter:
    """Renders rectangles of `section` at `mpp` µm per pixel; where two overlap they agree, to rounding."""

    def __init__(self, section: Section, mpp: float, seed: int) -> None:
        self._section, self._mpp = section, mpp
        rng = np.random.default_rng([seed, 1])
        self._textures = [_periodic_noise(sigma, rng) for sigma in (0.0, 1.0, 1.0, 2.0)]
        outline = section.nuclei.outline
        self._low = outline.min(1)
        self._high = outline.max(1)
        self._drift = rng.uniform(0.9, 1.1, 2)

    def labels(self, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint32]:
        """Label image (height, width) of the rectangle at (x, y) px: nucleus i of the section is i + 1."""
        import cv2

        # OpenCV rounds an outline that leaves the canvas another way: room for whole nuclei keeps rectangles alike
        margin = math.ceil(16 / self._mpp)
        canvas = np.zeros((height + 2 * margin, width + 2 * margin), np.int32)
        rectangle = np.array([x, y, x + width, y + height]) * self._mpp
        near = (self._high >= rectangle[:2]).all(1) & (self._low <= rectangle[2:]).all(1)
        outline = self._section.nuclei.outline[near].astype(np.float64) / self._mpp
        centre = outline.mean(1, keepdims=True)
        # OpenCV has pixel centres at integers and fills every pixel its border meets: half a pixel too far
        distance = np.linalg.norm(outline - centre, axis=2, keepdims=True)
        outline = centre + (outline - centre) * np.maximum(1 - 0.5 / distance, 0.1) - 0.5 - (x - margin, y - margin)
        points = np.round(outline * 16).astype(np.int32)
        for index, polygon in zip(np.flatnonzero(near).tolist(), points):
            cv2.fillPoly(canvas, [polygon], index + 1, shift=4)
        return canvas[margin:-margin, margin:-margin].astype(np.uint32)

    def brightfield(self, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """H&E of the rectangle: (height, width, 3) uint8 RGB."""
        import cv2

        x, y, width, height = x - HALO, y - HALO, width + 2 * HALO, height + 2 * HALO
        box = x, y, width, height
        section = self._section
        if self._field(section.tissue, box).max() < -0.1:  # bare glass: nothing else reaches there
            image = _LIGHT + 2.0 * self._texture(box, 0)[..., np.newaxis] + 0.5
            return np.ascontiguousarray(image[HALO:-HALO, HALO:-HALO].clip(0, 255), dtype=np.uint8)
        nuclei, coarse = self._chromatin(box)
        fibre, bundle = self._fibres(box, 1.1, 22.0, 1), self._fibres(box, 5.0, 70.0, 2)
        grain, cloud = self._texture(box, 3), self._texture(box, 3, 9.0 / self._mpp)
        depth = self._field(section.depth, box)
        tissue = _step(self._field(section.tissue, box) + 0.012 * bundle, 0.008)
        gland = _step(depth + 0.7 * grain, 1.2)
        lumen = _step(depth - WALL_UM - 3 * cloud - 0.9 * grain, 1.2)
        lymph = _step(self._field(section.lymph, box), 0.3)
        gap = _step(-bundle - 0.5 * fibre - 1.25, 0.25) * (1 - gland) * (1 - 0.7 * lymph)
        stroma_e = (0.50 + 0.13 * fibre + 0.10 * bundle + 0.04 * cloud).clip(0.08, 1.1)
        gland_e = (0.42 + 0.05 * grain + 0.06 * cloud).clip(0.1, 1)
        eosin = stroma_e + (gland_e - stroma_e) * gland - 0.1 * lymph
        haematoxylin = 0.06 + 0.16 * gland + 0.10 * lymph + 0.03 * grain * gland
        bare = (1 - tissue) + tissue * np.maximum(gap, 0.93 * lumen)
        solid = (1 - bare) * (1 - nuclei.clip(0, 1))
        inside = (nuclei > 0.02).astype(np.float32)
        eosin = eosin * solid + inside * 0.22 * np.minimum(nuclei, 1)
        haematoxylin = haematoxylin * solid + nuclei * (0.62 + 0.20 * grain * coarse)
        haematoxylin *= self._field(section.haematoxylin, box) * self._drift[0]
        eosin *= self._field(section.eosin, box) * self._drift[1]
        density = haematoxylin.clip(0)[..., np.newaxis] * _HAEMATOXYLIN * 1.55
        density += eosin.clip(0)[..., np.newaxis] * _EOSIN * 0.95
        image = _LIGHT * np.exp(-cv2.GaussianBlur(density.astype(np.float32), (0, 0), 0.35 / self._mpp))
        image += 2.0 * self._texture(box, 0)[..., np.newaxis] + 0.5
        return np.ascontiguousarray(image[HALO:-HALO, HALO:-HALO].clip(0, 255), dtype=np.uint8)

    def fluorescence(self, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint16]:
        """Nuclear stain of the rectangle: (height, width) uint16, glass about 300, nuclei about 6,000."""
        import cv2

        x, y, width, height = x - HALO, y - HALO, width + 2 * HALO, height + 2 * HALO
        box = x, y, width, height
        nuclei, coarse = self._chromatin(box)
        haze = _step(self._field(self._section.tissue, box), 0.05)
        haze *= 1 + 0.3 * self._texture(box, 3, 12 / self._mpp)
        light = nuclei * (1 + 0.12 * self._texture(box, 3) * coarse)
        light *= self._field(self._section.haematoxylin, box)
        signal = 300 + 250 * haze + 6000 * cv2.GaussianBlur(light.clip(0), (0, 0), 0.45 / self._mpp)
        signal += 6 * np.sqrt(signal) * self._texture(box, 0)
        return np.ascontiguousarray(signal[HALO:-HALO, HALO:-HALO].clip(0, 65535), dtype=np.uint16)

    def _chromatin(self, box: tuple[int, int, int, int]) -> tuple[Field, Field]:
        """Chromatin concentration with its dark rim, and how clumped it is; 0 outside nuclei."""
        import cv2

        labels = self.labels(*box)
        nuclei = self._section.nuclei
        first = max(int(labels[labels > 0].min(initial=len(nuclei) + 1)) - 1, 0)
        index = np.where(labels > 0, labels - first, 0)
        # nuclei are ordered by y: those of a rectangle lie close together in the list
        used, none = slice(first, first + int(index.max())), np.zeros(1, np.float32)
        chromatin = np.concatenate([none, nuclei.chromatin[used]])[index]
        coarse = np.concatenate([none, nuclei.coarse[used]])[index]
        inside = (labels > 0).astype(np.float32)
        rim = inside - cv2.GaussianBlur(inside, (0, 0), 1.0 / self._mpp)
        return chromatin * (1 + coarse * (0.75 * rim - 0.12)), coarse

    def _field(self, field: npt.NDArray[np.floating[Any]], box: tuple[int, int, int, int]) -> Field:
        """Interpolate a coarse field on the pixels of `box`."""
        import cv2

        x, y, width, height = box
        step = self._mpp / PITCH_UM
        matrix = np.array([[step, 0, (x + 0.5) * step - 0.5], [0, step, (y + 0.5) * step - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(field, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE))

    def _texture(self, box: tuple[int, int, int, int], index: int, stretch: float = 1.0) -> Field:
        """Periodic noise on the pixels of `box`, enlarged `stretch` times."""
        x, y, width, height = box
        texture = self._textures[index]
        if stretch == 1:
            rows, cols = np.arange(y, y + height) % _TEXTURE, np.arange(x, x + width) % _TEXTURE
            return texture[np.ix_(rows, cols)]
        across = np.broadcast_to(np.arange(x, x + width) / stretch, (height, width))
        down = np.broadcast_to(np.arange(y, y + height)[:, np.newaxis] / stretch, (height, width))
        return _sample(texture, across, down)

    def _fibres(self, box: tuple[int, int, int, int], thick_um: float, long_um: float, index: int) -> Field:
        """Noise drawn out along the warped x axis: fibres of the given thickness and length."""
        x, y, width, height = box
        across = np.arange(x, x + width) * self._mpp + self._field(self._section.warp_x, box)
        down = np.arange(y, y + height)[:, np.newaxis] * self._mpp + self._field(self._section.warp_y, box)
        return _sample(self._textures[index], across / long_um * 2, down / thick_um)


def _sample(texture: Field, across: npt.NDArray[Any], down: npt.NDArray[Any]) -> Field:
    import cv2

    # faster than np.mod
    x, y = ((value - _TEXTURE * np.floor(value / _TEXTURE)).astype(np.float32) for value in (across, down))
    return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _periodic_noise(sigma: float, rng: np.random.Generator) -> Field:
    """Gaussian noise, standard deviation 1, smoothed over `sigma` px, that repeats without a seam."""
    import cv2

    noise = rng.standard_normal((_TEXTURE, _TEXTURE), np.float32)
    if sigma:
        margin = math.ceil(4 * sigma)
        smooth = cv2.GaussianBlur(np.pad(noise, margin, mode="wrap"), (0, 0), sigma)
        noise = np.asarray(smooth[margin:-margin, margin:-margin], np.float32)
    return np.asarray(noise / noise.std(), np.float32)


def _step(value: npt.NDArray[np.floating[Any]], width: float) -> Field:
    """Smooth step from 0 to 1 around 0."""
    return np.asarray((0.5 + value * np.float32(0.5 / width)).clip(0, 1), np.float32)
