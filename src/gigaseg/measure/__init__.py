"""Measuring instances, and summing up slides and cohorts."""
