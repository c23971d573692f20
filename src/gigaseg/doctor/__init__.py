"""Preflight of a machine and a cohort: one line each for what a run needs, before it starts."""
