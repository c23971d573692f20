"""Overview pictures of slides, and the cohort's report."""
