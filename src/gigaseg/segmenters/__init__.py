"""Segmenters: what finds instances in a tile. Found by name through `gigaseg.segmenters.registry`."""
