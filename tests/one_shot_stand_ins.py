"""Segmenters that know the answers, or find nothing."""

import numpy as np

from gigaseg.one_shot.base import read_picture


class Knowing:
    """Finds in a query what a truth (`gigaseg.testing.one_shot`) says, of the class that the support's mask is of."""

    def __init__(self, truth):
        self._truth = {read_picture(path).tobytes(): masks for path, masks in truth.items()}
        self.back_ends = {"all": "the truth"}
        self.last_points = 0
        self.supports = []

    def foreground(self, support_rgb, support_mask, query_rgb):
        self.supports.append((support_rgb, support_mask))
        shown = self._truth[support_rgb.tobytes()]
        (name,) = [name for name, mask in shown.items() if np.array_equal(mask, support_mask)]
        self.last_points += 1
        return self._truth[query_rgb.tobytes()][name]


class Blind:
    """Finds nothing."""

    last_points = 0

    def __init__(self):
        self.back_ends = {}

    def foreground(self, support_rgb, support_mask, query_rgb):
        return np.zeros(query_rgb.shape[:2], bool)
