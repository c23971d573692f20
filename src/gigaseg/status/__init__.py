"""Where each slide of a cohort is, while a run is at work and after it."""
