"""Metrics of segmentation and detection, and the evaluation of results against truth.

``gigaseg.metrics.score.score_labels`` scores one image in one pass; ``gigaseg.metrics.evaluate.evaluate``
scores files and folders. docs/metrics.md defines every figure.
"""
