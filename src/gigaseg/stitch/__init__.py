"""Stitching: one object seen by several tiles becomes one instance."""
